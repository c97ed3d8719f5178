"""calcc over TLS, with servers that answer as calcd does, and with other TLS servers."""

import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from functools import partial
from pathlib import Path
from termios import FIONREAD
from typing import IO

import pytest
from certificates import Certificates, Pair
from client_helpers import (
    CTRL_D,
    HOST,
    PROMPT,
    Script,
    Servers,
    answer,
    assert_input_waits_for_replies,
    calcc,
    drip,
    echo,
    error_message,
    greeted,
    receive,
    reset,
    running,
    terminal,
)
from helpers import TIMEOUT, Daemon, clean_environment, read_all, wait_until
from sessions import answered, new_session

from calcd.client import cli, counting, relay, streams, tls

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
TLSv1_2, TLSv1_3 = VERSIONS

CaptureBytes = pytest.CaptureFixture[bytes]

# Makes a script serve TLS. The certificate, the version and more can be chosen.
Secure = Callable[..., Script]


@pytest.fixture
def secure(certificates: Certificates) -> Secure:
    """Return a function that makes a script serve TLS."""

    def secure(
        script: Script,
        version: ssl.TLSVersion = TLSv1_3,
        pair: Pair | None = None,
        clients: Path | None = None,
        on_name: Callable[[str], None] | None = None,
    ) -> Script:
        pair = pair or certificates.server
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = version
        context.load_cert_chain(pair.cert, pair.key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        if on_name is not None:
            context.sni_callback = lambda _connection, name, _context: on_name(name)

        def secured(plain: socket.socket) -> None:
            with context.wrap_socket(plain, server_side=True) as connection:
                script(connection)
                with suppress(OSError, ValueError):  # closed by the script, or by the client
                    connection.unwrap().close()

        return secured

    return secure


def failing(script: Script) -> Script:
    """Run a script whose handshake fails."""

    def fails(connection: socket.socket) -> None:
        with pytest.raises(OSError, match=r"SSL|reset|pipe"):
            script(connection)

    return fails


def calculate(connection: socket.socket) -> None:
    """Answer as calcd does."""
    session = new_session()
    while not session.close_reason:
        connection.sendall(answered(session, connection.recv(1 << 16)))


def sums(count: int) -> tuple[bytes, bytes]:
    """Return this number of requests, and their replies."""
    numbers = range(count)
    requests = b"".join(b"SOMA %d 1\n" % number for number in numbers)
    return requests, b"".join(b"%d\n" % (number + 1) for number in numbers)


@pytest.fixture
def trust(certificates: Certificates) -> list[object]:
    """Return the options that trust the authority."""
    return ["--ssl-trustfile", certificates.authority.cert]


# -- Server certificates -------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("host", ["localhost", HOST])
def test_a_trusted_server_gets_the_requests(
    host: str, version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    port = serve(secure(calculate, version))
    done = calcc("-Qv4", "--ssl", *trust, host, port, stdin=b"SOMA 2 2\nDIV 1 0\nSUB 5 3")
    assert done.stdout == b"4\nERR DIVISION-BY-ZERO division by zero\n2\n"
    assert done.returncode == 1
    name = version.name.replace("_", ".")
    assert error_message(done) == (
        f"{host} port {port}: connection succeeded, {name}, certificate verified for {host}"
    )


def test_the_default_is_the_trust_store_of_the_system(
    serve: Servers, secure: Secure, certificates: Certificates
) -> None:
    arguments = "--ssl", "-e", "PING", HOST, serve(secure(calculate))
    done = calcc(*arguments, SSL_CERT_FILE=str(certificates.authority.cert))
    assert (done.stdout, done.stderr, done.returncode) == (b"PONG\n", b"", 0)


def test_the_name_may_be_an_ipv6_address(
    serve: Servers, secure: Secure, trust: list[object]
) -> None:
    try:
        port = serve(secure(calculate), at=("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert calcc(*trust, "::1", port, stdin=b"PING\n").stdout == b"PONG\n"


def test_the_servers_own_certificate_may_be_the_only_trusted_one(
    serve: Servers, secure: Secure, certificates: Certificates
) -> None:
    port = serve(secure(calculate))
    done = calcc("--ssl-trustfile", certificates.server.cert, "-e", "PING", HOST, port)
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)


@both_versions
@pytest.mark.parametrize("trusted", ["the system's", "a stranger"])
def test_an_authority_that_is_not_trusted(
    trusted: str,
    version: ssl.TLSVersion,
    serve: Servers,
    secure: Secure,
    certificates: Certificates,
) -> None:
    port = serve(failing(secure(calculate, version)))
    options = ["--ssl-trustfile", certificates.stranger.cert] if trusted == "a stranger" else []
    done = calcc("--ssl", *options, HOST, port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == (
        f"{HOST} port {port}: TLS: the server's certificate: unable to get local issuer "
        "certificate: see --ssl-trustfile"
    )


def test_a_certificate_for_another_name(
    serve: Servers, secure: Secure, certificates: Certificates, trust: list[object]
) -> None:
    names: list[str] = []
    honest = secure(calculate, pair=certificates.elsewhere, on_name=names.append)
    port = serve(failing(honest), failing(honest), honest)
    for host, kind in (HOST, "IP address"), ("localhost", "Hostname"):
        done = calcc("-4", *trust, host, port, stdin=b"PING\n")
        assert (done.stdout, done.returncode) == (b"", 3)
        assert f"certificate: {kind} mismatch, certificate is not valid for" in error_message(done)
        assert error_message(done).endswith(f"'{host}': see --ssl-servername")
    done = calcc(*trust, "--ssl-servername", "calcd.example", "-e", "PING", HOST, port)
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)
    assert [name for name in names if name] == ["localhost", "calcd.example"]


def test_a_certificate_that_has_expired(
    serve: Servers, secure: Secure, certificates: Certificates, trust: list[object]
) -> None:
    port = serve(failing(secure(calculate, pair=certificates.expired)))
    done = calcc(*trust, HOST, port, stdin=b"PING\n")
    assert done.returncode == 3
    assert error_message(done).endswith("TLS: the server's certificate: certificate has expired")


def test_without_verification_any_certificate_is_accepted(
    serve: Servers, secure: Secure, certificates: Certificates
) -> None:
    port = serve(secure(calculate, pair=certificates.expired))
    done = calcc("-v", "--ssl-noverify", "-e", "PING", HOST, port)
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)
    assert error_message(done).endswith("succeeded, TLSv1.3, certificate not verified")


# -- Client certificates -------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("files", [1, 2])
def test_a_certificate_of_the_client(
    files: int,
    version: ssl.TLSVersion,
    serve: Servers,
    secure: Secure,
    certificates: Certificates,
    trust: list[object],
) -> None:
    own = certificates.client
    port = serve(secure(calculate, version, clients=certificates.authority.cert))
    options = ["--ssl-cert", own.cert, f"--ssl-key={own.key}"]
    if files == 1:
        options = ["--ssl-cert", own.in_one_file()]
    done = calcc(*options, *trust, HOST, port, stdin=b"PING\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"PONG\n", b"", 0)


@both_versions
@pytest.mark.parametrize("shown", ["none", "a stranger's"])
@pytest.mark.parametrize("asked", ["-ePING", "-zv"])
def test_a_server_that_wants_another_certificate(
    asked: str,
    shown: str,
    version: ssl.TLSVersion,
    serve: Servers,
    secure: Secure,
    certificates: Certificates,
    trust: list[object],
) -> None:
    own = certificates.strange_client
    options = [] if shown == "none" else ["--ssl-cert", own.cert, "--ssl-key", own.key]
    port = serve(failing(secure(calculate, version, clients=certificates.authority.cert)))
    done = calcc(*trust, *options, asked, HOST, port)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert f"{HOST} port {port}: TLS: refused by the server: " in error_message(done)
    assert error_message(done).endswith(": does it want a certificate that it trusts (--ssl-cert)?")


# -- Wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--ssl=yes", "--ssl takes no value"),
        ("--ssl-cert", "--ssl-cert needs a value"),
        ("--ssl-verify", "unknown option --ssl-verify"),
        ("--ssl-trustfile NONE", "--ssl-trustfile NONE: no such file or directory"),
        ("--ssl-trustfile /", "--ssl-trustfile /: is a directory"),
        ("--ssl-trustfile KEY", "--ssl-trustfile KEY: no certificate in it"),
        ("--ssl-trustfile /dev/null", "--ssl-trustfile /dev/null: no certificate in it"),
        ("--ssl-cert NONE", "--ssl-cert NONE: no such file or directory"),
        ("--ssl-cert CERT", "--ssl-cert CERT: no certificate with key"),
        ("--ssl-cert CERT --ssl-key NONE", "--ssl-key NONE: no such file or directory"),
        ("--ssl-cert CERT --ssl-key CERT", "--ssl-cert CERT and CERT: no certificate with key"),
        ("--ssl-cert CERT --ssl-key OTHER", "CERT and OTHER: the key is of another certificate"),
        ("--ssl-key KEY", "--ssl-key needs --ssl-cert"),
        ("--ssl-servername a..b", "invalid server name a..b"),
        ("--ssl -U NONE", "TLS over a Unix socket needs --ssl-servername or --ssl-noverify"),
    ],
)
def test_wrong_usage(arguments: str, said: str, certificates: Certificates, tmp_path: Path) -> None:
    paths = {
        "NONE": tmp_path / "none",
        "CERT": certificates.client.cert,
        "KEY": certificates.client.key,
        "OTHER": certificates.strange_client.key,
    }

    def with_paths(text: str) -> str:
        return re.sub("|".join(paths), lambda found: str(paths[found[0]]), text)

    done = calcc(*with_paths(arguments).split())
    assert (done.stdout, done.returncode) == (b"", 2)
    assert error_message(done).endswith(f"{with_paths(said)}; see calcc -h")


def test_the_usage_has_each_option_of_the_help() -> None:
    usage = cli.help_text().partition("\n\n")[0]
    grouped, *others = re.findall(r"\[(-[^]\s]+)", usage)
    told = {f"-{letter}" for letter in grouped[1:]} | set(others)
    explained = {name for name, *_ in cli.OPTIONS + cli.COLUMN_OPTIONS}
    assert told - {"--ssl..."} == explained - {"-h", "-V"}


# -- Streaming -----------------------------------------------------------------------------------


@both_versions
def test_a_hundred_thousand_requests_come_back_whole(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    requests, replies = sums(100_000)
    done = calcc(*trust, HOST, serve(secure(calculate, version)), stdin=requests)
    assert done.stdout == replies
    assert (done.stderr, done.returncode) == (b"", 0)


@both_versions
def test_a_column(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    numbers = b"".join(b"%d\n" % number for number in range(20_000))
    port = serve(secure(calculate, version))
    done = calcc("--fold", "MEDIA", *trust, HOST, port, stdin=numbers)
    assert (done.stdout, done.stderr, done.returncode) == (b"9999.5\n", b"", 0)


@both_versions
def test_replies_that_come_long_after_the_half_close(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    requests, replies = sums(10_000)

    def script(connection: socket.socket) -> None:
        assert read_all(connection) == requests
        for start in range(0, len(replies), 10_000):
            connection.sendall(replies[start : start + 10_000])

    done = calcc(*trust, HOST, serve(secure(script, version)), stdin=requests)
    assert (done.stdout, done.stderr, done.returncode) == (replies, b"", 0)


@both_versions
def test_replies_that_are_sent_while_the_input_ends(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"x" * (1 << 20))
        assert connection.recv(1) == b""
        connection.sendall(b"\n")

    for _ in range(5):
        done = calcc(*trust, HOST, serve(secure(script, version)), stdin=b"a\n")
        assert (len(done.stdout), done.stderr, done.returncode) == ((1 << 20) + 1, b"", 0)


@both_versions
def test_data_that_does_not_fit_is_sent_later_and_once(
    version: ssl.TLSVersion, secure: Secure, trust: list[object]
) -> None:
    late = threading.Event()
    taken: list[bytes] = []

    def script(connection: socket.socket) -> None:
        assert late.wait(TIMEOUT)
        taken.append(read_all(connection))

    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    thread = threading.Thread(target=secure(script, version), args=(theirs,))
    thread.start()
    endpoint = cli.Options([*map(str, trust), "--ssl-servername", "localhost", "-U", "it"]).endpoint
    assert endpoint.tls is not None
    connection = tls.TLS(ours, endpoint, endpoint.tls)
    try:
        connection.handshake()
        connection.setblocking(False)
        sent = [b"%d" % number * 10_000 for number in range(10)]
        for chunk in sent:
            while True:
                try:
                    assert connection.send(chunk) == len(chunk)
                    break
                except BlockingIOError:
                    late.set()
                    select.select([], [connection], [], TIMEOUT)
        assert late.is_set()
    finally:
        connection.setblocking(True)
        connection.shutdown(socket.SHUT_WR)
        thread.join()
        connection.close()
    assert taken == [b"".join(sent)]


@both_versions
def test_the_relay_goes_on_after_a_full_send_buffer(
    version: ssl.TLSVersion,
    secure: Secure,
    trust: list[object],
    capfdbinary: CaptureBytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks = [b"%d\n" % number * 10_000 for number in range(10)]

    def script(connection: socket.socket) -> None:
        time.sleep(0.1)  # until the buffer is full
        echo(connection)

    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # less than a TLS record
    thread = threading.Thread(target=secure(script, version), args=(theirs,))
    thread.start()
    endpoint = cli.Options([*map(str, trust), "--ssl-servername", "localhost", "-U", "it"]).endpoint
    assert endpoint.tls is not None
    connection = tls.TLS(ours, endpoint, endpoint.tls)
    unread = iter(chunks)
    monkeypatch.setattr(relay, "read_input", lambda: next(unread, b""))
    try:
        connection.handshake()
        connection.setblocking(False)
        counter = counting.ReplyCounter()
        with streams.Output() as output:
            assert (
                relay.Relay(
                    connection, endpoint, b"", None, counter, output, reads_input=True
                ).run()
                == 0
            )
    finally:
        connection.close()
        thread.join()
    assert capfdbinary.readouterr().out == b"".join(chunks)


def test_unread_replies_stop_the_client_from_reading_input(
    serve: Servers, secure: Secure, trust: list[object]
) -> None:
    with running(*trust, HOST, serve(secure(echo))) as process:
        assert_input_waits_for_replies(process)


@both_versions
def test_a_reply_that_comes_with_the_end_of_the_handshake(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    """No later data wakes the client up."""

    def script(connection: socket.socket) -> None:
        connection.sendall(b"ERR BUSY\n")
        assert connection.recv(1) == b""

    with running(*trust, HOST, serve(secure(script, version))) as process:
        assert process.stdout.read(9) == b"ERR BUSY\n"
        process.stdin.close()
        assert process.wait(TIMEOUT) == 1


@both_versions
def test_close_notify_ends_the_run_even_without_a_close(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    gone = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"QUIT\n")
        connection.sendall(b"BYE\n")
        assert isinstance(connection, ssl.SSLSocket)
        with connection.unwrap():  # waits for the client's close_notify
            assert gone.wait(TIMEOUT)

    with running(*trust, HOST, serve(secure(script, version))) as process:
        process.stdin.write(b"QUIT\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        gone.set()
        assert (process.stdout.read(), process.stderr.read()) == (b"BYE\n", b"")


def test_a_unix_socket(serve: Servers, secure: Secure, trust: list[object], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    serve(secure(calculate), secure(calculate), at=str(path))
    for options in [*trust, "--ssl-servername", "localhost"], ["--ssl-noverify"]:
        done = calcc(*options, "-U", path, "-e", "PING")
        assert (done.stdout, done.returncode) == (b"PONG\n", 0)


def test_the_bundle_runs_elsewhere(
    serve: Servers, secure: Secure, trust: list[object], calcc_pyz: Path
) -> None:
    command = [sys.executable, "-I", str(calcc_pyz)]
    done = calcc(*trust, "-e", "PING", HOST, serve(secure(calculate)), command=command)
    assert (done.stdout, done.stderr, done.returncode) == (b"PONG\n", b"", 0)


# -- A server that goes away ---------------------------------------------------------------------


def cut(replies: bytes) -> Script:
    """Send these replies after the end of the requests, and close without close_notify."""

    def script(connection: socket.socket) -> None:
        answer(replies)(connection)
        connection.close()

    return script


@both_versions
def test_a_connection_that_is_cut(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    port = serve(secure(cut(b"1\n2"), version), secure(cut(b"1\n2\n"), version))
    done = calcc(*trust, HOST, port, stdin=b"a\nb\n")
    assert (done.stdout, done.returncode) == (b"1\n2", 3)
    assert error_message(done) == (
        f"{HOST} port {port}: connection closed by the server; "
        "requests with a reply: 1, none from line 2 on"
    )
    done = calcc(*trust, HOST, port, stdin=b"a\nb\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"1\n2\n", b"", 0)


@both_versions
@pytest.mark.parametrize("owing", [0, 1])
def test_what_came_before_a_reset_is_written(
    owing: int, version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    seen = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n" * (1 + owing))
        connection.sendall(b"1\n")
        assert seen.wait(TIMEOUT)
        reset(connection)

    with running(*trust, HOST, serve(secure(script, version))) as process:
        process.stdin.write(b"a\n" * (1 + owing))
        assert process.stdout.read(2) == b"1\n"
        seen.set()
        process.stdin.close()
        assert process.wait(TIMEOUT) == 3 * owing
        assert (b"reset" in process.stderr.read()) == bool(owing)


@both_versions
def test_a_reset_that_a_send_met_first_is_read(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    """The kernel reports a reset only once: here to close_notify."""
    asked, over = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"1\n")
        assert asked.wait(TIMEOUT)
        reset(connection)
        over.set()

    options = [
        *map(str, trust),
        "--ssl-servername",
        "localhost",
        HOST,
        str(serve(secure(script, version))),
    ]
    endpoint = cli.Options(options).endpoint
    assert endpoint.tls is not None
    ours = socket.create_connection((HOST, int(endpoint.port)), TIMEOUT)
    with tls.TLS(ours, endpoint, endpoint.tls) as connection:
        connection.handshake()
        connection.send(b"a\n")
        received = b""
        while not received:
            with suppress(BlockingIOError):  # a record of TLS 1.3 without data, such as a ticket
                received = connection.recv(10)
        assert received == b"1\n"
        asked.set()
        assert over.wait(TIMEOUT)
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            connection.recv(10)


def test_close_notify_that_a_reset_follows(
    serve: Servers, secure: Secure, trust: list[object]
) -> None:
    """Replies, close_notify and reset have all arrived before the client reads."""
    stopped, over = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"a\nb\n")
        connection.sendall(b"1\n")
        assert stopped.wait(TIMEOUT)
        connection.sendall(b"2\n")
        connection.setblocking(False)
        assert isinstance(connection, ssl.SSLSocket)
        with pytest.raises(ssl.SSLWantReadError):
            connection.unwrap()
        reset(connection)
        over.set()

    with running(*trust, HOST, serve(secure(script))) as process:
        process.stdin.write(b"a\nb\n")
        assert process.stdout.read(2) == b"1\n"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        stopped.set()
        assert over.wait(TIMEOUT)
        process.stdin.close()
        process.send_signal(signal.SIGCONT)
        assert process.wait(TIMEOUT) == 0
        assert (process.stdout.read(), process.stderr.read()) == (b"2\n", b"")


# -- No TLS on one side --------------------------------------------------------------------------


def test_a_server_that_does_not_speak_tls(serve: Servers, trust: list[object]) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"ERR UNKNOWN-OPERATION unknown operation '...': HELP lists them\n")

    def close(connection: socket.socket) -> None:
        connection.recv(1 << 16)

    for script, said in (refuse, "wrong version number"), (close, "connection closed by the serv"):
        done = calcc(*trust, HOST, serve(script), stdin=b"PING\n")
        assert (done.stdout, done.returncode) == (b"", 3)
        assert said in error_message(done)
        assert error_message(done).endswith(": does the server speak TLS, 1.2 or later?")


def test_the_daemons_plain_port(shared_daemon: Daemon) -> None:
    done = calcc("--ssl", "-w5", shared_daemon.host, shared_daemon.port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done).endswith(": does the server speak TLS, 1.2 or later?")


def test_a_server_that_expects_tls(serve: Servers, secure: Secure) -> None:
    port = serve(failing(secure(calculate)))
    done = calcc(HOST, port, stdin=b"SOMA 2 2\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done).endswith(
        "; requests with a reply: 0, none from line 1 on: does it speak TLS (--ssl)?"
    )


# -- Timeouts, and only checking -----------------------------------------------------------------


def test_a_server_that_never_shakes_hands(serve: Servers) -> None:
    port = serve(serve.silent)
    done = calcc("--ssl", "-w", "0.2", HOST, port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == (
        f"{HOST} port {port}: TLS: timed out: does the server speak TLS, 1.2 or later?"
    )


def test_a_handshake_that_never_ends(serve: Servers) -> None:
    """A byte from time to time does not extend the timeout."""

    def script(connection: socket.socket) -> None:
        with suppress(ConnectionError):
            connection.sendall(b"\x16\x03\x03\x40\x00")
            while not serve.over.wait(0.05):
                connection.sendall(b"\x00")

    done = calcc("--ssl", "-w", "0.3", HOST, serve(script), stdin=b"PING\n")
    assert done.returncode == 3
    assert "TLS: timed out" in error_message(done)


def test_a_server_that_is_silent_for_too_long(
    serve: Servers, secure: Secure, trust: list[object]
) -> None:
    port = serve(secure(serve.silent))
    done = calcc(*trust, "-w", "1.5", "-e", "a", HOST, port)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done).endswith(
        "silent for 1.5 s; requests with a reply: 0, none from request 1 on"
    )


@both_versions
def test_a_check_shakes_hands(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object]
) -> None:
    honest = secure(calculate, version)
    port = serve(honest, honest, failing(honest))
    done = calcc("-z", *trust, HOST, port)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
    done = calcc("-zv", *trust, HOST, port)
    assert (done.stdout, done.returncode) == (b"", 0)
    assert f"{HOST} port {port}: connection succeeded, TLSv1." in error_message(done)
    done = calcc("-z", "--ssl", HOST, port)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 3)


# -- On a terminal -------------------------------------------------------------------------------


@both_versions
def test_a_prompt(
    version: ssl.TLSVersion, serve: Servers, secure: Secure, trust: list[object], tmp_path: Path
) -> None:
    ends: list[bytes] = []

    def once(connection: socket.socket) -> None:
        receive(connection, b"SOMA 2 2\n")
        connection.sendall(b"4\n")

    def script(connection: socket.socket) -> None:
        receive(connection, b"SUB 5 3\n")
        connection.sendall(b"2\n")
        ends.append(connection.recv(1))  # would be an error, had the client not said close_notify

    port = serve(secure(greeted(once), version), secure(greeted(script), version))
    with terminal(tmp_path, *trust, HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 2 2\r")
        assert screen.expect(PROMPT) == "SOMA 2 2\n4\n"
        screen.type("SUB 5 3\r")
        assert screen.expect(PROMPT) == "SUB 5 3\n2\n"
        screen.type(CTRL_D)
        assert screen.end() == 0
    serve.wait()
    assert ends == [b""]


# The start of a record that is never whole: as the first of a handshake, and after it.
RECORDS = {"handshake": b"\x16\x03\x03\x3f\xff", "reply": b"\x17\x03\x03\x3f\xff"}


@pytest.mark.parametrize("part", RECORDS)
def test_a_server_whose_list_of_operations_never_ends(
    part: str, serve: Servers, secure: Secure, trust: list[object], tmp_path: Path
) -> None:
    def slow(plain: socket.socket) -> None:
        if part == "reply":
            copy = plain.dup()
            secure(lambda connection: drip_past(connection, copy))(plain)
        else:
            drip(plain, RECORDS[part])

    def drip_past(connection: socket.socket, plain: socket.socket) -> None:
        receive(connection, b"HELP\n")
        with plain:
            drip(plain, RECORDS[part])

    path = tmp_path / "socket"
    serve(secure(calculate), at=str(path))
    with terminal(tmp_path, *trust, "--ssl-servername", HOST, "-U", path) as screen:
        screen.expect(PROMPT)
        path.unlink()
        serve(slow, at=str(path))
        screen.type("SO")
        screen.expect("SO")
        screen.type("\t")
        screen.expect("\x07")
        screen.type("MA 2 2\r")
        screen.expect("\n4\n" + PROMPT)
        screen.type("QUIT\r")
        screen.expect("\nBYE\n")
        assert screen.end() == 0


def test_a_prompt_of_a_server_that_wants_a_certificate(
    serve: Servers,
    secure: Secure,
    certificates: Certificates,
    trust: list[object],
    tmp_path: Path,
) -> None:
    port = serve(failing(secure(calculate, clients=certificates.authority.cert)))
    with terminal(tmp_path, *trust, HOST, port) as screen:
        screen.expect(f"calcc: {HOST} port {port}: TLS: refused by the server: ")
        assert screen.end() == 3


# -- Other servers -------------------------------------------------------------------------------


@contextmanager
def server(command: list[str], directory: Path) -> Iterator[tuple[int, IO[bytes]]]:
    """Run another server. Yield its port, and its standard input."""
    output = directory / "server.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=log,
            stderr=log,
            env=clean_environment(),
        )
    with process:
        try:
            wait_until(lambda: process.poll() is not None or listening(process.pid), "the port")
            assert process.poll() is None, output.read_text()
            assert process.stdin is not None
            yield listening(process.pid)[0], process.stdin
        finally:
            process.kill()


def listening(pid: int) -> list[int]:
    """Return the TCP ports that a process listens on."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            own.add(re.sub(r"^socket:\[(\d+)\]$", r"\1", os.readlink(descriptor)))
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in own]


def others(name: str, pair: Pair) -> list[str]:
    """Return the command that starts another server."""
    program, *options = name.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if program == "socat":
        files = f"cert={pair.cert},key={pair.key},verify=0"
        return [program, f"OPENSSL-LISTEN:0,bind={HOST},fork,{files}", "EXEC:cat"]
    if program == "ncat":
        files = f"--ssl-cert {pair.cert} --ssl-key {pair.key}"
        return [program, *options, "-l", HOST, "0", *files.split()]
    files = f"-cert {pair.cert} -key {pair.key}"
    return [program, *options, "-accept", f"{HOST}:0", *files.split()]


@pytest.mark.parametrize(
    "name", ["openssl s_server -rev -tls1_2", "openssl s_server -rev -tls1_3", "socat"]
)
def test_other_tls_servers_answer_all_requests(
    name: str, certificates: Certificates, trust: list[object], tmp_path: Path
) -> None:
    lines = [b"%d" % number for number in range(100_000)]
    turned = [line[::-1] for line in lines] if "-rev" in name else lines
    with server(others(name, certificates.server), tmp_path) as (port, _):
        for least in 1, 100_000:
            done = calcc(*trust, HOST, port, stdin=b"\n".join([*lines[:least], b""]))
            assert done.stdout == b"\n".join([*turned[:least], b""])
            assert (done.stderr, done.returncode) == (b"", 0)
        assert calcc("-z", *trust, HOST, port).returncode == 0
        assert calcc("-z", "--ssl", HOST, port).returncode == 3


def test_ncat_answers(certificates: Certificates, trust: list[object], tmp_path: Path) -> None:
    """While the input is open. At its end, ncat ends its command, and the last replies are lost."""
    command = others("ncat --ssl -k -c cat", certificates.server)
    with server(command, tmp_path) as (port, _), running(*trust, HOST, port) as process:
        for line in b"1\n", b"x" * 3000 + b"\n":
            process.stdin.write(line)
            assert process.stdout.read(len(line)) == line
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_a_server_that_changes_its_keys(
    certificates: Certificates, trust: list[object], tmp_path: Path
) -> None:
    command = others("openssl s_server -tls1_3", certificates.server)
    log = tmp_path / "server.log"
    with server(command, tmp_path) as (port, theirs), running(*trust, HOST, port) as process:

        def say(line: bytes) -> None:
            theirs.write(line)
            unread = array("i", [0])
            wait_until(lambda: ioctl(theirs, FIONREAD, unread) or not unread[0], "it to be read")

        for count in 1, 2, 3:
            process.stdin.write(b"request\n")
            wait_until(partial(lambda n: log.read_text().count("request") == n, count), "a request")
            say(b"K\n")  # changes its keys, and wants the client to change its own
            say(b"reply\n")
            assert process.stdout.read(6) == b"reply\n"
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
