"""A reload reads the files of TLS anew, and says what it cannot read."""

import os
import pwd
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from background_daemon import Background, background_in
from certificates import Certificates, Pair
from helpers import TIMEOUT, Daemons, wait_until

USER = pwd.getpwnam("nobody")


def is_served(port: int, certificates: Certificates, pair: Pair) -> bool:
    """Say whether a client that shows a certificate is answered."""
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    trusted.load_cert_chain(pair.cert, pair.key)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
        try:
            with trusted.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"SOMA 2 2\n")
                return connection.recv(100) == b"4\n"
        except (ssl.SSLError, ConnectionError):
            return False


def test_the_authority_of_clients_is_read_anew_at_a_reload(
    start_daemon: Daemons, certificates: Certificates, tmp_path: Path
) -> None:
    ours, strange = certificates.client, certificates.strange_client
    authority = tmp_path / "clients.pem"
    shutil.copy(certificates.authority.cert, authority)
    server = certificates.server
    files = ("--tls-certificate", str(server.cert), "--tls-key", str(server.key))
    daemon = start_daemon("-l", "tls://127.0.0.1:0", *files, "--tls-client-ca", str(authority))
    port = int(daemon.endpoints[0].rpartition(":")[2])
    assert is_served(port, certificates, ours)
    assert not is_served(port, certificates, strange)
    shutil.copy(certificates.stranger.cert, authority)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.logs("settings in force", 2)
    assert is_served(port, certificates, strange)
    assert not is_served(port, certificates, ours)


@pytest.fixture
def of_user() -> Iterator[Background]:
    """A background in a directory of the user's: only root may go where others are."""
    directory = Path(tempfile.mkdtemp(prefix="calcd-test-"))
    os.chown(directory, USER.pw_uid, USER.pw_gid)
    try:
        with background_in(directory) as background:
            yield background
    finally:
        shutil.rmtree(directory)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_key_that_only_root_can_read_is_named_at_the_reload_and_the_old_one_stays(
    of_user: Background, certificates: Certificates
) -> None:
    """The start reads it as root; the reload, as the user."""
    cert, key = of_user.directory / "cert.pem", of_user.directory / "key.pem"
    shutil.copy(certificates.server.cert, cert)
    shutil.copy(certificates.server.key, key)
    cert.chmod(0o644)
    os.chown(key, 0, 0)
    key.chmod(0o600)
    files = ("--tls-certificate", cert, "--tls-key", key)
    of_user.serve("-l", "tls://127.0.0.1:0", "--user", USER.pw_name, *files)
    port = int(of_user.log.split("listening on tls://127.0.0.1:")[1].split()[0])
    assert is_served(port, certificates, certificates.client)
    assert of_user.act("reload") == (0, "", "")
    wait_until(lambda: "reload: " in of_user.log, "what the reload says")
    wait_until(lambda: "the settings stay as they were" in of_user.log, "the end of the reload")
    (told,) = [line for line in of_user.log.splitlines() if "error: reload: --tls" in line]
    assert all(words in told for words in ("--tls-key", str(key), "Permission denied")), told
    assert is_served(port, certificates, certificates.client)


def test_a_reload_with_a_wrong_certificate_changes_nothing(
    start_daemon: Daemons, files: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "calcd.conf"
    text = f"[calcd]\nlisten = tls://127.0.0.1:0\ntls_certificate = {files}/both.pem\n"
    settings.write_text(text)
    daemon = start_daemon("-c", str(settings))
    assert daemon.endpoints[0].startswith("tls://127.0.0.1:")
    settings.write_text(f"{text}tls_key = {files}/other.key\nmax_line = 7\n")
    daemon.process.send_signal(1)
    daemon.logs(
        f"error: reload: {settings}:4: tls_key: '{files}/other.key' does not have the key that "
    )
    daemon.logs("reload: the settings stay as they were")
    assert "max_line=1024 " in daemon.logs("settings in force", 2)[1]
