"""TLS endpoints of a real daemon: what is promised elsewhere, kept under TLS."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from background_daemon import USER, Background
from certificates import Certificates, Pair, stored
from client_helpers import COMMAND
from helpers import TIMEOUT, Daemon, Daemons, clean_environment, read_all, run_program, wait_until
from serving import serving
from sessions import answered, new_session

from calcd.config.endpoints import parse_endpoint
from calcd.core.tls import refusal
from calcd.net.certificates import load_context
from calcd.net.listeners import listen

EXPENSIVE = b"EXP 0.1234\n"  # with 1000 digits


class Secure:
    """A daemon with a TLS endpoint and a plain one, and clients that trust it."""

    def __init__(self, start: Daemons, certificates: Certificates, *options: str) -> None:
        self.certificates = certificates
        pair = certificates.server
        files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
        endpoints = ("-l", "tls://127.0.0.1:0", "-l", "tcp://127.0.0.1:0")
        self.daemon: Daemon = start(*endpoints, *files, *options)
        self.port = self.daemon.port_of("tls")

    def connect(self, pair: Pair | None = None, timeout: float = TIMEOUT) -> ssl.SSLSocket:
        """Connect, with a certificate where one is given, and shake hands."""
        trusted = ssl.create_default_context(cafile=self.certificates.authority.cert)
        if pair:
            trusted.load_cert_chain(pair.cert, pair.key)
        plain = self.plain(timeout)
        try:
            # A client that ends without close_notify is an error: the server's must come.
            return trusted.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except BaseException:
            plain.close()
            raise

    def plain(self, timeout: float = TIMEOUT) -> socket.socket:
        """Connect without a handshake."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def ask(self, text: bytes, pair: Pair | None = None) -> bytes:
        """Send a line, and read a line."""
        with self.connect(pair) as connection:
            connection.sendall(text)
            return connection.recv(1 << 16)


Secured = Callable[..., Secure]


@pytest.fixture
def secured(start_daemon: Daemons, certificates: Certificates) -> Secured:
    """Give a way to start daemons with a TLS endpoint."""
    return lambda *options: Secure(start_daemon, certificates, *options)


def read_to_close_notify(connection: ssl.SSLSocket) -> bytes:
    """Read to the end, which must be the server's word, and not a cut."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ssl.SSLZeroReturnError:
        pass
    return b"".join(parts)


# -- Real clients --------------------------------------------------------------------------------


def run(command: list[str], stdin: bytes) -> bytes:
    """Run a client to its end, and return what it wrote."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = run_program(command, stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("requests", "replies"),
    [
        (b"SOMA 2 2\nDIV 1 3\n", b"4\n0.3333333333333333333333333333333333\n"),
        (b"SOMA 2 2", b"4\n"),
        (b"SOMA 1 1\n" * 20_000, b"2\n" * 20_000),
    ],
    ids=["two lines", "no newline", "20,000 lines"],
)
@pytest.mark.parametrize(
    "command",
    [
        "ncat --ssl-verify --ssl-trustfile CA localhost PORT",
        "socat - OPENSSL:localhost:PORT,cafile=CA",
        f"{' '.join(COMMAND)} --ssl-trustfile CA localhost PORT",
    ],
    ids=["ncat", "socat", "calcc"],
)
def test_a_real_client_half_closes_and_gets_every_reply(
    secured: Secured, command: str, requests: bytes, replies: bytes
) -> None:
    secure = secured()
    authority, port = str(secure.certificates.authority.cert), str(secure.port)
    words = command.replace("CA", authority).replace("PORT", port).split()
    assert run(words, requests) == replies


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_quits(secured: Secured, version: str) -> None:
    secure = secured()
    trust = ["-CAfile", str(secure.certificates.authority.cert), "-verify_return_error", "-quiet"]
    where = ["-connect", f"127.0.0.1:{secure.port}", version]
    assert run(["openssl", "s_client", *where, *trust], b"SOMA 2 2\nQUIT\n") == b"4\nBYE\n"


def test_key_updates_do_not_renew_the_idle_timeout(secured: Secured) -> None:
    secure = secured("--idle-timeout", "1")
    trust = ["-CAfile", str(secure.certificates.authority.cert), "-verify_return_error"]
    where = ["-connect", f"127.0.0.1:{secure.port}", "-tls1_3"]
    client = subprocess.Popen(
        ["openssl", "s_client", *where, *trust],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    assert client.stdin
    assert client.stderr
    with client:
        until = time.monotonic() + TIMEOUT
        while client.poll() is None and time.monotonic() < until:
            with suppress(BrokenPipeError):
                client.stdin.write(b"K\n")  # to s_client: update the keys, and ask for the same
                client.stdin.flush()
            time.sleep(0.2)
        client.kill()
        assert client.stderr.read().count(b"KEYUPDATE") >= 3
    assert secure.daemon.logs("requests=0 .* how=idle-timeout$")


def test_an_old_version_is_refused(secured: Secured) -> None:
    secure = secured()
    old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect", f"127.0.0.1:{secure.port}"]
    done = subprocess.run(
        ["openssl", "s_client", *old], input=b"", capture_output=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode != 0
    assert b"alert protocol version" in done.stderr
    secure.daemon.logs(r"requests=0 errors=0 seconds=\S+ how=tls-unsupported-protocol")


# -- What is promised without TLS ----------------------------------------------------------------


def test_a_client_without_newlines_is_answered_as_often_as_it_asks(secured: Secured) -> None:
    with secured("--message-wait", "0.05").connect() as connection:
        for _ in range(2):
            connection.sendall(b"SOMA 2 2")
            assert connection.recv(100) == b"4\n"


def test_both_kinds_of_endpoint_are_served_at_once(secured: Secured) -> None:
    secure = secured()
    assert secure.daemon.ask(b"SOMA 2 2\n") == b"4\n"
    assert secure.ask(b"SOMA 2 2\n") == b"4\n"
    with secure.plain() as connection:  # not its language
        connection.sendall(b"SOMA 2 2\n")
        assert read_all(connection) == b"ERR FORBIDDEN this endpoint accepts only TLS\n"
    secure.daemon.logs("how=tls-wrong-version-number")


def test_a_server_that_ends_the_connection_says_so(secured: Secured) -> None:
    secure = secured("--idle-timeout", "0.1", "--line-timeout", "0.1")
    with secure.connect() as connection:
        connection.sendall(b"QUIT\n" + 1000 * b"SOMA 1 1\n")
        assert read_to_close_notify(connection) == b"BYE\n"
    with secure.connect() as idle:
        assert read_to_close_notify(idle) == b""
    with secure.connect() as slow:
        slow.sendall(b"SOM")
        assert read_to_close_notify(slow).startswith(b"ERR TIMEOUT ")
    for how in ("quit", "idle-timeout", "line-timeout"):
        secure.daemon.logs(f"how={how}")


def test_a_stop_answers_all_that_has_arrived_and_says_farewell(secured: Secured) -> None:
    secure = secured()
    many = b"".join(b"SOMA %d 1\n" % number for number in range(2000))
    with ExitStack() as stack:
        clients = [stack.enter_context(secure.connect()) for _ in range(20)]
        for client in clients:
            client.sendall(many)
            assert client.recv(1) == b"1"  # so it has arrived: it is one read
        secure.daemon.process.send_signal(signal.SIGTERM)
        expected = answered(new_session(), many)[1:]
        for client in clients:
            assert read_to_close_notify(client) == expected
    assert secure.daemon.process.wait(TIMEOUT) == 0
    assert "0 connections cut" in secure.daemon.log


def test_clients_that_do_not_read_are_cut_in_their_time(secured: Secured) -> None:
    secure = secured("--send-timeout", "0.2")
    with secure.connect() as connection:
        connection.sendall(1_000_000 * b"DIV 1 3\n")  # what follows the cut is read away
        secure.daemon.logs("how=unread")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_follows_in_the_same_read_is_answered_under_tls(
    version: ssl.TLSVersion, secured: Secured, certificates: Certificates
) -> None:
    """An expensive line, or more records than one call has time for."""
    secure = secured("--precision", "1000")
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    trusted.minimum_version = trusted.maximum_version = version
    expensive = EXPENSIVE + b"SOMA 2 2\n" + EXPENSIVE + b"PING\n"
    sums = [b"SOMA %d 1\n" % number for number in range(1500)]
    for records in ([expensive], [expensive] * 3, sums):
        expected = secure.daemon.ask(b"".join(records))
        # Encrypted apart from the socket, so that all records can be sent at once.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusted.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with secure.plain() as connection:
            over, received = False, b""
            while len(received) < len(expected):
                try:
                    if not over:
                        tls.do_handshake()
                        over = True
                        for record in records:
                            tls.write(record)
                    received += tls.read(1 << 16)
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(1 << 16))
        assert received == expected


# -- The handshake -------------------------------------------------------------------------------


def test_handshakes_begun_and_left_keep_nobody_out_and_end(secured: Secured) -> None:
    secure = secured("--line-timeout", "3")
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(secure.plain())) for _ in range(100)]
        for number, connection in enumerate(silent):
            if number % 2:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01")  # the head of a ClientHello
        assert secure.ask(b"SOMA 2 2\n") == b"4\n"
        for connection in silent:
            assert read_all(connection) == b""
    secure.daemon.logs("how=handshake-timeout", 100)


def test_a_drip_of_bytes_does_not_keep_a_handshake(secured: Secured) -> None:
    secure = secured("--line-timeout", "0.5")
    over = threading.Event()
    with secure.plain() as connection:

        def drip() -> None:
            connection.sendall(b"\x16\x03\x01\x02\x00")
            while not over.wait(0.02):
                try:
                    connection.sendall(b"\x01")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises((ConnectionError, AssertionError)):
            assert read_all(connection) != b""
        over.set()
        dripping.join()
    secure.daemon.logs("how=handshake-timeout")


def test_a_client_must_show_a_certificate_where_one_is_asked_for(
    secured: Secured, certificates: Certificates
) -> None:
    secure = secured("--tls-client-ca", str(certificates.authority.cert))
    with secure.connect(certificates.client) as connection:
        connection.sendall(b"SOMA 2 2\n")
        assert connection.recv(100) == b"4\n"
    for pair, how in (
        (None, "tls-peer-did-not-return-a-certificate"),
        (certificates.strange_client, "tls-certificate-verify-failed"),
    ):
        # In TLS 1.3 a client hears of it when it reads.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            secure.ask(b"SOMA 2 2\n", pair)
        secure.daemon.logs(f"requests=0 errors=0 seconds=\\S+ how={how}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("asked", [False, True], ids=["no certificate", "certificate"])
def test_a_saved_session_does_not_stand_for_a_certificate(
    secured: Secured, certificates: Certificates, asked: bool, version: str, tmp_path: Path
) -> None:
    """Whether a certificate has expired shows only where it is asked for again."""
    authority, client, saved = certificates.authority.cert, certificates.client, tmp_path / "saved"
    secure = secured(*(("--tls-client-ca", str(authority)) if asked else ()))
    shown = ("-cert", str(client.cert), "-key", str(client.key))

    def ask(*options: str) -> str:
        """Ask, show a certificate or none, and say how: by a New or a Reused session."""
        address = f"127.0.0.1:{secure.port}"
        done = subprocess.run(
            ["openssl", "s_client", version, "-connect", address, "-ign_eof", *options],
            input=b"SOMA 2 2\nQUIT\n",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        said = done.stdout.decode()
        assert ("\n4\nBYE\n" in said) == (done.returncode == 0), said
        kind = "New" if "\nNew, " in said else "Reused"
        return kind if done.returncode == 0 else "refused"

    assert ask("-sess_out", str(saved), *shown) == "New"
    offered = ("-sess_in", str(saved)) if saved.exists() else ()
    assert bool(offered) == (version == "-tls1_2")
    resumed = "Reused" if offered and not asked else "New"
    assert ask(*offered) == ("refused" if asked else resumed)
    assert ask(*offered, *shown) == resumed
    if asked:
        secure.daemon.logs("requests=0 .* how=tls-peer-did-not-return-a-certificate")


# -- Limits, and who may connect -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason", "how"),
    [
        (("--allow", "192.0.2.0/24"), "ACCESS_DENIED", "forbidden"),
        (("--max-connections", "1"), "INTERNAL_ERROR", "busy"),
    ],
)
def test_who_is_refused_is_told_by_an_alert(
    secured: Secured, options: tuple[str, ...], reason: str, how: str
) -> None:
    secure = secured(*options)
    with ExitStack() as stack:
        if how == "busy":
            stack.enter_context(secure.connect())
        with pytest.raises(ssl.SSLError, match=reason):
            secure.connect()
    secure.daemon.logs(f"requests=0 errors=1 seconds=0.000 how={how}")


def test_who_gets_no_thread_is_told_by_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pair = stored("server")
    listeners, _ = listen([parse_endpoint("tls://127.0.0.1:0")])
    with serving(*listeners) as (server, connect):
        server.tls = load_context(str(pair.cert), str(pair.key), "")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with connect() as client:
                assert read_all(client) == refusal("BUSY")


# -- Reload --------------------------------------------------------------------------------------


def test_certificates_are_read_anew_at_a_reload_and_wrong_ones_leave_the_old(
    start_daemon: Daemons, certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(pair: Pair) -> None:
        shutil.copy(pair.cert, cert)
        shutil.copy(pair.key, key)

    def serial() -> str:
        with secure.connect() as connection:
            presented = connection.getpeercert()
        assert presented
        return str(presented["serialNumber"])

    install(certificates.server)
    secure = Secure(
        start_daemon, certificates, "--tls-certificate", str(cert), "--tls-key", str(key)
    )
    first = serial()
    with secure.connect() as kept:
        install(certificates.authority.issue("renewed", "DNS:localhost"))
        secure.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: serial() != first, "the new certificate")
        second = serial()
        key.write_text("no key\n")
        secure.daemon.process.send_signal(signal.SIGHUP)
        secure.daemon.logs("error: reload: --tls-key: ")
        secure.daemon.logs("reload: the settings stay as they were")
        assert serial() == second
        kept.sendall(b"SOMA 2 2\n")  # who is connected goes on
        assert kept.recv(100) == b"4\n"


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
    port = daemon.port_of("tls")
    assert is_served(port, certificates, ours)
    assert not is_served(port, certificates, strange)
    shutil.copy(certificates.stranger.cert, authority)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.logs("settings in force", 2)
    assert is_served(port, certificates, strange)
    assert not is_served(port, certificates, ours)


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
    status, _, said = of_user.act("reload")
    assert status == 1
    assert said.startswith("calcd: --tls-key: ")
    assert "reload: the settings stay as they were" in of_user.log
    (told,) = [line for line in of_user.log.splitlines() if "error: reload: --tls" in line]
    assert all(words in told for words in ("--tls-key", str(key), "Permission denied")), told
    assert is_served(port, certificates, certificates.client)


def test_a_reload_with_a_wrong_certificate_changes_nothing(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    both, other = stored("server").in_one_file(tmp_path), stored("other").key
    settings = tmp_path / "calcd.conf"
    text = f"[calcd]\nlisten = tls://127.0.0.1:0\ntls_certificate = {both}\n"
    settings.write_text(text)
    daemon = start_daemon("-c", str(settings))
    assert daemon.endpoints[0].startswith("tls://127.0.0.1:")
    settings.write_text(f"{text}tls_key = {other}\nmax_line = 7\n")
    daemon.process.send_signal(1)
    daemon.logs(f"error: reload: {settings}:4: tls_key: '{other}' does not have the key that ")
    daemon.logs("reload: the settings stay as they were")
    assert "max_line=16384 " in daemon.logs("settings in force", 2)[1]
