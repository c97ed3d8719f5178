"""TLS: certificates, keys, and errors in them."""

import os
import shutil
import socket
import ssl
import threading
from binascii import a2b_base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import STORED
from helpers import TIMEOUT

from calcd.config.errors import ConfigError
from calcd.config.settings import option, read_settings
from calcd.daemon.check import configuration_errors
from calcd.net.certificates import load_context

pytestmark = pytest.mark.usefixtures("files")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give certificates and keys, good and wrong ones, in the current directory."""
    directory = tmp_path_factory.mktemp("tls")
    shutil.copytree(STORED, directory, dirs_exist_ok=True)
    before = os.getcwd()
    os.chdir(directory)
    certificate, key = Path("server.pem").read_text(), Path("server.key").read_text()
    Path("both.pem").write_text(certificate + key)
    Path("cut.pem").write_text(certificate[:300])
    Path("cut.key").write_text(key[:100])
    lists = Path("crl.pem").read_text()
    Path("cut.crl").write_text(lists[:200])
    Path("crl.der").write_bytes(a2b_base64("".join(lists.splitlines()[1:-1])))
    for authority in "ca", "other":
        Path(f"{authority}.crl").write_text(lists + Path(f"{authority}.pem").read_text())
    Path("text").write_text("no certificate\n")
    Path("empty").touch()
    Path("directory").mkdir()
    yield directory
    os.chdir(before)


def talk(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[ssl.SSLSocket | None, ssl.SSLSocket, socket.socket]:
    """Shake hands over a pair of sockets; the server's side is None where it refuses."""
    here, there = socket.socketpair()
    here.settimeout(TIMEOUT)
    there.settimeout(TIMEOUT)
    accepted: list[ssl.SSLSocket | None] = []

    def accept() -> None:
        try:
            accepted.append(server.wrap_socket(there, server_side=True))
        except ssl.SSLError:
            accepted.append(None)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        wrapped = client.wrap_socket(here, server_hostname="localhost")
    finally:
        thread.join()
    return accepted[0], wrapped, there


def trusting(path: str, certificate: str = "") -> ssl.SSLContext:
    """Make a client that trusts a certificate, and shows one if it has one."""
    made = ssl.create_default_context(cafile=path)
    if certificate:
        made.load_cert_chain(f"{certificate}.pem", f"{certificate}.key")
    return made


@pytest.mark.parametrize(("certificate", "key"), [("server.pem", "server.key"), ("both.pem", "")])
def test_a_certificate_and_its_key_are_shown_to_clients(certificate: str, key: str) -> None:
    made = load_context(certificate, key, "")
    assert made.verify_mode == ssl.CERT_NONE
    ours, theirs, _ = talk(made, trusting("ca.pem"))
    assert ours
    with ours, theirs:
        assert theirs.version() == "TLSv1.3"
        assert theirs.compression() is None


def test_tls_before_1_2_is_not_spoken() -> None:
    made = load_context("server.pem", "server.key", "")
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2
    assert made.options & ssl.OP_NO_RENEGOTIATION
    client = trusting("ca.pem")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, theirs, _ = talk(made, client)
    assert ours
    with ours, theirs:
        assert theirs.version() == "TLSv1.2"


def test_nothing_is_sent_that_a_client_would_have_to_read() -> None:
    """Else one that only writes, and closes, would drop what it has written."""
    ours, theirs, _ = talk(load_context("server.pem", "server.key", ""), trusting("ca.pem"))
    assert ours
    theirs.setblocking(False)
    with ours, theirs, pytest.raises(BlockingIOError):
        socket.socket.recv(theirs, 1, socket.MSG_PEEK)


@pytest.mark.parametrize(("shown", "served"), [("client", True), ("other", False), ("", False)])
def test_clients_must_show_a_certificate_where_that_is_asked(shown: str, served: bool) -> None:
    made = load_context("server.pem", "server.key", "ca.pem")
    assert made.verify_mode == ssl.CERT_REQUIRED
    ours, theirs, there = talk(made, trusting("ca.pem", shown))
    assert (ours is not None) == served
    with theirs, ours or there:
        pass


# Faults

_FAULTS = [
    ("", "", "", "tls_certificate: is not set, and a TLS endpoint needs it: set its path"),
    *(
        (file, "server.key", "", f"tls_certificate: '{file}' does not have a certificate in PEM:")
        for file in ("text", "empty", "cut.pem", "server.key")
    ),
    ("none", "server.key", "", "tls_certificate: 'none' cannot be read: No such file or directory"),
    ("directory", "", "", "tls_certificate: 'directory' cannot be read: Is a directory"),
    *(
        (
            "server.pem",
            file,
            "",
            f"tls_key: '{file}' does not have the certificate's private key in PEM:",
        )
        for file in ("text", "empty", "cut.key", "server.pem")
    ),
    ("server.pem", "none", "", "tls_key: 'none' cannot be read: No such file or directory"),
    (
        "server.pem",
        "",
        "",
        "tls_certificate: 'server.pem' does not have the certificate's private key in PEM:",
    ),
    *(
        (
            "server.pem",
            file,
            "",
            f"tls_key: '{file}' does not have the key that the certificate was made for:",
        )
        for file in ("other.key", "weak.key")
    ),
    ("server.pem", "locked.key", "", "tls_key: 'locked.key' needs a passphrase: store the key"),
    (
        "weak.pem",
        "weak.key",
        "",
        "tls_key: 'weak.key' cannot be used: ee key too small: create a new",
    ),
    ("both.pem", "", "none", "tls_client_ca: 'none' cannot be read: No such file or directory"),
    *(
        ("both.pem", "", file, f"tls_client_ca: '{file}' does not have certificates in PEM: name")
        for file in ("text", "empty", "cut.pem", "server.key")
    ),
]


@pytest.mark.parametrize(("certificate", "key", "client_ca", "told"), _FAULTS)
def test_an_error_has_its_setting_and_file(
    certificate: str, key: str, client_ca: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_context(certificate, key, client_ca)
    assert str(caught.value).startswith(told)


_LISTS = "certificate revocation lists in PEM"


@pytest.mark.parametrize(
    ("client_crl", "told"),
    [
        *(
            (file, f"'{file}' does not have {_LISTS}: name a file that has")
            for file in ("text", "empty", "ca.pem", "server.key", "cut.crl")
        ),
        ("crl.der", f"'crl.der' does not have {_LISTS}: it is in DER: convert it to PEM"),
        ("none", "'none' cannot be read: No such file or directory"),
        ("directory", "'directory' cannot be read: Is a directory"),
        ("other.crl", "'other.crl' has certificates that are not in tls_client_ca: remove them"),
    ],
)
def test_an_error_in_revocation_lists_has_its_setting_and_file(client_crl: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_context("both.pem", "", "ca.pem", client_crl)
    assert str(caught.value).startswith(f"tls_client_crl: {told}")


@pytest.mark.parametrize("client_crl", ["", "crl.pem", "ca.crl"])
@pytest.mark.parametrize("shown", ["client", "revoked"])
def test_a_client_whose_certificate_is_revoked_is_refused(client_crl: str, shown: str) -> None:
    made = load_context("server.pem", "server.key", "ca.pem", client_crl)
    asked = ssl.VERIFY_CRL_CHECK_CHAIN
    assert made.verify_flags & asked == (asked if client_crl else 0)
    ours, theirs, there = talk(made, trusting("ca.pem", shown))
    assert (ours is not None) == (shown == "client" or not client_crl)
    with theirs, ours or there:
        pass


def test_a_certificate_in_the_file_of_the_lists_is_not_trusted() -> None:
    with pytest.raises(ConfigError):
        load_context("server.pem", "server.key", "ca.pem", "other.crl")
    made = load_context("server.pem", "server.key", "ca.pem", "ca.crl")
    assert made.cert_store_stats() == {"x509": 1, "x509_ca": 1, "crl": 1}


def test_the_check_loads_what_the_settings_name(files: Path) -> None:
    right = {"tls_certificate": "server.pem", "tls_key": "server.key"}
    right |= {"tls_client_ca": "ca.pem", "tls_client_crl": "crl.pem"}
    right = {name: str(files / file) for name, file in right.items()}
    settings = read_settings(None, {"listen": "tls://127.0.0.1:0", **right})
    assert list(configuration_errors(settings)) == []
    for name in right:
        wrong = right | {name: str(files / "text")}
        (error,) = configuration_errors(read_settings(None, wrong))
        assert str(error).startswith(f"{option(name)}: '{files}/text' does not have ")
