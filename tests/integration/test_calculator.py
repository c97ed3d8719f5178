"""Calculator, the Python API, with the daemon and with servers that run a script."""

import doctest
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from fcntl import ioctl
from functools import partial
from pathlib import Path
from subprocess import PIPE, STDOUT
from termios import FIONREAD
from typing import Any

import pytest
from calculators import Connect
from certificates import Certificates
from client_helpers import HOST, Script, Servers, echo, receive, reset
from helpers import ROOT, TIMEOUT, Daemon, Daemons, bytes_unacked, read_all, wait_until

from calcd.client import Calculator, CalculatorError
from calcd.client.protocol import STATE_LOST


def expect(*pairs: tuple[str, str], end: Script = socket.socket.close) -> Script:
    """Receive these requests one after the other, reply to each, and close."""

    def script(connection: socket.socket) -> None:
        for request, reply in pairs:
            receive(connection, request.encode() + b"\n")
            connection.sendall(reply.encode() + b"\n")
        end(connection)

    return script


def hear(*requests: str, end: Script = socket.socket.close) -> Script:
    """Receive these requests, and close without a reply."""

    def script(connection: socket.socket) -> None:
        receive(connection, "".join(f"{request}\n" for request in requests).encode())
        end(connection)

    return script


# -- Requests ------------------------------------------------------------------------------------


def test_the_readmes_example_works(shared_daemon: Daemon) -> None:
    example = (ROOT / "README.md").read_text().partition("```pycon\n")[2].partition("```")[0]
    where = f'"{shared_daemon.host}", {shared_daemon.port}'
    assert '"localhost", 12000' in example
    example = example.replace('"localhost", 12000', where)
    test = doctest.DocTestParser().get_doctest(example, {}, "README.md", None, None)
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append) == (0, len(test.examples)), said


def test_a_number_keeps_all_its_digits(shared_daemon: Daemon, calculator_of: Connect) -> None:
    with calculator_of(shared_daemon.host, shared_daemon.port) as calculator:
        for request, result in ("SOMA 1.50 1.50", "3.00"), ("MUL 2E+300 -1E+300", "-2E+600"):
            assert str(calculator.evaluate(request)) == result
        assert type(calculator.evaluate("SOMA 2 2")) is Decimal


def test_text_is_returned(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        assert calculator.request("MAIUSCULA olá") == "OLÁ"
        assert calculator.request("SOMA 0.1 0.2") == "0.3"
        assert calculator.request_many(["PING", "DIV 4 2"]) == ["PONG", "2"]


@pytest.mark.parametrize("request_line", ["PING", "UPPER nan", "UPPER infinity"])
def test_text_is_not_a_number(request_line: str, shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        for ask in calculator.evaluate, lambda one: calculator.evaluate_many([one]):
            with pytest.raises(ValueError, match=r"not a number, but '\w+'"):
                ask(request_line)
        assert calculator.evaluate("SOMA 2 2") == 4


def test_an_error_has_its_code(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        for request, code in {
            "DIV 1 0": "DIVISION-BY-ZERO",
            "DIV 0 0": "DIVISION-UNDEFINED",
            "SOMA 1,5 2": "INVALID-NUMBER",
            "SUB 2": "WRONG-OPERANDS",
            "no such": "UNKNOWN-OPERATION",
        }.items():
            with pytest.raises(CalculatorError) as caught:
                calculator.evaluate(request)
            assert caught.value.code == code
            assert str(caught.value) == f"{code} {caught.value.message}"
        assert calculator.evaluate("SOMA 2 2") == 4


def test_many_at_once_with_errors_in_their_places(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        first, error, last = calculator.evaluate_many(iter(["SOMA 1 1", "DIV 1 0", "SOMA 2 2"]))
        assert calculator.evaluate_many([]) == []
    assert first == Decimal(2)
    assert last == Decimal(4)
    assert isinstance(error, CalculatorError)
    assert error.code == "DIVISION-BY-ZERO"


@pytest.mark.parametrize(
    "request_line",
    ["", " \t", "\0\0", "\ufeff", "\x04", "\0\x041 + 1", "PING\n", "PING\rPING", "\n"],
)
def test_a_request_without_exactly_one_reply_is_not_sent(
    request_line: str, shared_daemon: Daemon, connect: Connect
) -> None:
    with connect(shared_daemon.port) as calculator:
        with pytest.raises(ValueError, match="request"):
            calculator.evaluate_many(["PING", request_line])
        assert calculator.evaluate("SOMA 2 2") == 4


def test_nothing_follows_quit(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        with pytest.raises(ValueError, match="QUIT ends the connection"):
            calculator.request_many(["1 + 1", " quit ", "2 + 2"])
        assert calculator.request_many(["1 + 1", "QUIT"]) == ["2", "BYE"]
        assert calculator.request("2 + 2") == "4"


def test_after_close_it_sends_nothing(serve: Servers, connect: Connect) -> None:
    with connect(serve(expect(("a", "1"), end=lambda c: receive(c, b"")))) as calculator:
        assert calculator.evaluate("a") == 1
    calculator.close()
    with pytest.raises(ValueError, match="closed"):
        calculator.evaluate("a")


# -- Many requests -------------------------------------------------------------------------------


def test_ten_thousand_requests_come_back_whole(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        results = calculator.evaluate_many(f"SOMA {number} 1" for number in range(10_000))
    assert results == list(range(1, 10_001))


def test_a_server_that_reads_on_only_when_its_replies_are_read(
    serve: Servers, connect: Connect
) -> None:
    requests = [f"{number:01000}" for number in range(10_000)]
    with connect(serve(echo)) as calculator:
        assert calculator.request_many(requests) == requests


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_same_over_tls(
    version: ssl.TLSVersion, serve: Servers, certificates: Certificates, connect: Connect
) -> None:
    ends: list[bytes] = []

    def script(plain: socket.socket) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.maximum_version = version
        server.load_cert_chain(certificates.server.cert, certificates.server.key)
        with server.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as secure:
            while data := secure.recv(1 << 16):
                secure.sendall(data)
            ends.append(data)

    requests = [f"{number:0200}" for number in range(10_000)]
    context = ssl.create_default_context(cafile=str(certificates.authority.cert))
    with connect(serve(script), tls=context) as calculator:
        assert calculator.request_many(requests) == requests
        assert calculator.request("a") == "a"
    serve.wait()
    assert ends == [b""]


# -- Connections ---------------------------------------------------------------------------------


def test_a_unix_socket(start_daemon: Daemons, tmp_path: Path, calculator_of: Connect) -> None:
    start_daemon("-l", f"unix://{tmp_path}/calcd.sock")
    with calculator_of(path=tmp_path / "calcd.sock") as calculator:
        assert calculator.evaluate("SOMA 2 2") == 4


def test_a_tls_endpoint(
    start_daemon: Daemons, certificates: Certificates, connect: Connect
) -> None:
    pair = certificates.server.in_one_file()
    daemon = start_daemon("-l", "tls://127.0.0.1:0", "--tls-certificate", str(pair))
    port = daemon.port_of("tls")
    context = ssl.create_default_context(cafile=str(certificates.authority.cert))
    with connect(port, tls=context) as calculator:
        assert calculator.evaluate("SOMA 2 2") == 4
    with connect(port, tls=context, servername="localhost") as calculator:
        assert calculator.evaluate("SOMA 2 2") == 4
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(port, tls=context, servername="calcd.example")


def test_a_certificate_is_never_accepted_without_a_name(
    tmp_path: Path, calculator_of: Connect
) -> None:
    """It is not even connected."""
    with pytest.raises(ValueError, match="tls over a Unix socket needs servername"):
        calculator_of(path=tmp_path / "none", tls=ssl.create_default_context())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate(
    version: ssl.TLSVersion, serve: Servers, certificates: Certificates, connect: Connect
) -> None:
    def script(plain: socket.socket) -> None:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.maximum_version = version
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_cert_chain(certificates.server.cert, certificates.server.key)
        with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
            server.wrap_socket(plain, server_side=True)

    context = ssl.create_default_context(cafile=str(certificates.authority.cert))
    told = "TLS: refused by the server: .*SSLContext.load_cert_chain"
    port = serve(script)
    with pytest.raises(ssl.SSLError, match=told), connect(port, tls=context) as calculator:
        calculator.request("PING")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_that_renegotiates(certificates: Certificates) -> None:
    """`ssl.create_default_context()` allows that up to TLS 1.2. asyncio has a TLS of its own."""
    pair = certificates.server
    files = ["-cert", str(pair.cert), "-key", str(pair.key)]
    command = ["openssl", "s_server", "-tls1_2", "-accept", f"{HOST}:0", *files]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, bufsize=0) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        typed, output = server.stdin, iter(server.stdout.readline, b"")

        def type_line(line: bytes) -> None:
            typed.write(line)
            unread = array("i", [0])
            wait_until(lambda: ioctl(typed, FIONREAD, unread) or not unread[0], "it to be read")

        def reply() -> None:
            assert b"request\n" in output
            type_line(b"r\n")
            type_line(b"reply\n")

        try:
            port = next(line for line in output if line.startswith(b"ACCEPT")).rpartition(b":")[2]
            context = ssl.create_default_context(cafile=str(certificates.authority.cert))
            with Calculator(HOST, int(port), timeout=TIMEOUT, tls=context) as calculator:
                for _ in range(2):
                    type_line(b"r\n")
                    replying = threading.Thread(target=reply)
                    replying.start()
                    assert calculator.request("request") == "reply"
                    replying.join()
        finally:
            server.kill()


def test_an_untrusted_server(serve: Servers, certificates: Certificates, connect: Connect) -> None:
    def script(plain: socket.socket) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificates.server.cert, certificates.server.key)
        with pytest.raises(OSError, match=r"(?i)unknown ca|reset|eof"):
            server.wrap_socket(plain, server_side=True)

    with pytest.raises(ssl.SSLCertVerificationError):
        connect(serve(script), tls=ssl.create_default_context())


def test_an_unreachable_server(tmp_path: Path, connect: Connect, calculator_of: Connect) -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        with pytest.raises(ConnectionRefusedError):
            connect(holder.getsockname()[1])
    with pytest.raises(FileNotFoundError):
        calculator_of(path=str(tmp_path / "none"))
    with pytest.raises(socket.gaierror):
        calculator_of("no.such.name.invalid")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_an_invalid_timeout(timeout: float, calculator_of: Connect) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        calculator_of(timeout=timeout)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"host": None}, TypeError, "host must be a str, not None"),
        ({"host": b"localhost"}, TypeError, "host must be a str, not b'localhost'"),
        ({"port": None}, TypeError, "port must be an int, not None"),
        ({"port": 1.5}, TypeError, r"port must be an int, not 1\.5"),
        ({"port": 0}, ValueError, "port must be 1 to 65535, not 0"),
        ({"port": -1}, ValueError, "port must be 1 to 65535, not -1"),
        ({"port": 65536 + 12000}, ValueError, "port must be 1 to 65535, not 77536"),
        ({"port": True}, TypeError, "port must be an int, not True"),
        ({"port": "abc"}, ValueError, "port must be 1 to 65535, not 'abc'"),
        ({"port": "70000"}, ValueError, "port must be 1 to 65535, not '70000'"),
        ({"host": ""}, ValueError, "host must not be empty"),
        ({"path": 5}, TypeError, "not int"),
        ({"path": ""}, ValueError, "path must not be empty"),
        ({"timeout": "5"}, TypeError, "timeout must be a number of seconds, not '5'"),
        ({"timeout": True}, TypeError, "timeout must be a number of seconds, not True"),
        ({"timeout": 2e6}, ValueError, "at most 1000000, not 2000000"),
        ({"tls": True}, TypeError, r"tls must be an ssl\.SSLContext, not True"),
        ({"servername": 5}, TypeError, "servername must be a str, not 5"),
        ({"servername": "calcd.example"}, ValueError, "servername is only meaningful with tls"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_connected(
    wrong: dict[str, Any], error: type[Exception], words: str, calculator_of: Connect
) -> None:
    with pytest.raises(error, match=words):
        calculator_of(**wrong)


def test_what_is_not_a_str_is_not_sent(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(shared_daemon.port) as calculator:
        for request in None, b"SOMA 2 2", 4, ["SOMA 2 2"]:
            with pytest.raises(TypeError, match="a request must be a str"):
                calculator.request(request)  # type: ignore[arg-type]
        for many in calculator.evaluate_many, calculator.request_many:
            with pytest.raises(TypeError, match=r"requests must be a list of str, not '1\+1'"):
                many("1+1")
            with pytest.raises(TypeError, match="requests must be a list of str, not b'2'"):
                many(b"2")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a request must be a str, not 2"):
                many(["1", 2])  # type: ignore[list-item]
        assert calculator.evaluate("SOMA 2 2") == 4


def test_a_port_may_be_a_string_of_digits(shared_daemon: Daemon, connect: Connect) -> None:
    with connect(str(shared_daemon.port)) as calculator:
        assert calculator.evaluate("SOMA 2 2") == 4


# -- What errors and a repr say ------------------------------------------------------------------


def test_each_failure_says_where(
    serve: Servers, tmp_path: Path, connect: Connect, calculator_of: Connect
) -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        unused = holder.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as error:
            connect(unused)
    told = f"{HOST} port {unused}: connection refused: is calcd running there?"
    assert str(error.value) == f"[Errno 111] {told}"
    assert repr(error.value) == f"ConnectionRefusedError(111, '{told}')"
    assert (error.value.errno, error.value.strerror) == (111, told)

    with pytest.raises(socket.gaierror, match=r"no\.such\.name\.invalid port 5: name does not"):
        calculator_of("no.such.name.invalid", 5)
    with pytest.raises(ValueError, match=r"a{70} port 5: name does not resolve: .*label"):
        calculator_of("é" + "a" * 70, 5)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/none\\x1b: no such file"):
        calculator_of(path=f"{tmp_path}/none\x1b")

    closing = serve(hear("a"), hear("a"), expect(("b", "1"), end=reset), hear("b"))
    with connect(closing) as calculator:
        with pytest.raises(ConnectionError) as lost:
            calculator.evaluate("a")
        told = "connection closed by the server: does it speak TLS (tls=)?"
        assert str(lost.value) == f"{HOST} port {closing}: {told}"
        assert calculator.evaluate("b") == 1
        with pytest.raises(ConnectionError, match=f"{HOST} port {closing}: connection"):
            calculator.evaluate("b")

    changing = serve(expect(("x = 1", "1")))
    with connect(changing) as calculator:
        calculator.evaluate("x = 1")
        with pytest.raises(ConnectionError, match=f"{HOST} port {changing}: .*{STATE_LOST}"):
            calculator.evaluate("b")

    silent = serve(serve.silent)
    with calculator_of("localhost", silent, timeout=0.2) as calculator:
        with pytest.raises(TimeoutError) as late:
            calculator.evaluate("a")
        told = r"no reply for 0.2 s: does it speak TLS (tls=)?"
        assert str(late.value) == f"localhost port {silent}: {told}"

    many = serve(expect(("a", "1\n2")))
    with (
        connect(many) as calculator,
        pytest.raises(ConnectionAbortedError, match=f"{HOST} port {many}: .* more than was asked"),
    ):
        calculator.evaluate("a")
    calculator.close()
    with pytest.raises(ValueError, match=f"the calculator of {HOST} port {many} is closed"):
        calculator.evaluate("a")


def test_a_close_after_an_error_tells_the_error(serve: Servers, connect: Connect) -> None:
    """It is the reason."""
    busy: Script = lambda c: c.sendall(b"ERR BUSY too many \x1b connections\n")  # noqa: E731
    with (
        connect(serve(busy, busy)) as calculator,
        pytest.raises(ConnectionError, match=r", after ERR BUSY too many \\x1b connections$"),
    ):
        calculator.evaluate_many(["a", "b", "c"])


def test_a_repr_tells_the_server_and_the_state(
    serve: Servers, tmp_path: Path, connect: Connect, calculator_of: Connect
) -> None:
    port = serve(hear("a"), hear("a"))
    with connect(port) as calculator:
        assert repr(calculator) == f"<Calculator {HOST} port {port}, connected>"
        with pytest.raises(ConnectionError):
            calculator.evaluate("a")
        assert repr(calculator) == f"<Calculator {HOST} port {port}, not connected>"
    assert repr(calculator) == f"<Calculator {HOST} port {port}, closed>"
    path = str(tmp_path / "\x1b[31m")
    serve(lambda _: None, at=path)
    with calculator_of(path=path) as calculator:
        assert repr(calculator) == rf"<Calculator {tmp_path}/\x1b[31m, connected>"


def test_a_tls_endpoint_without_tls_says_so(
    start_daemon: Daemons, certificates: Certificates, connect: Connect
) -> None:
    pair = certificates.server.in_one_file()
    daemon = start_daemon("-l", "tls://127.0.0.1:0", "--tls-certificate", str(pair))
    with connect(daemon.port_of("tls")) as calculator:
        with pytest.raises(CalculatorError, match="this endpoint accepts only TLS"):
            calculator.evaluate("SOMA 2 2")
        with pytest.raises(ConnectionError, match="this endpoint accepts only TLS"):
            calculator.evaluate_many(["1", "2", "3"])


def test_another_tls_server_without_tls_says_so(
    certificates: Certificates, serve: Servers, connect: Connect
) -> None:
    """OpenSSL closes without a word."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.server.cert, certificates.server.key)

    def script(plain: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            server.wrap_socket(plain, server_side=True)

    port = serve(script, script)
    with connect(port) as calculator, pytest.raises(ConnectionError) as error:
        calculator.evaluate("SOMA 2 2")
    assert f"{HOST} port {port}: connection " in str(error.value)
    assert str(error.value).endswith(": does it speak TLS (tls=)?")


@pytest.mark.parametrize("alert", [b"\n", b"\x46"], ids=["unexpected_message", "protocol_version"])
def test_a_tls_alert_is_no_reply(alert: bytes, serve: Servers, connect: Connect) -> None:
    """One of them ends in a newline."""

    def script(connection: socket.socket) -> None:
        receive(connection, b"SOMA 2 2\n")
        connection.sendall(b"\x15\x03\x03\0\2\2" + alert)
        assert connection.recv(1) == b""

    port = serve(script)
    with connect(port) as calculator, pytest.raises(ConnectionAbortedError) as error:
        calculator.evaluate("SOMA 2 2")
    told = "the server replied with a TLS alert: does it speak TLS (tls=)?"
    assert str(error.value) == f"{HOST} port {port}: {told}"


def test_tls_errors_name_what_may_help(
    start_daemon: Daemons, certificates: Certificates, shared_daemon: Daemon, connect: Connect
) -> None:
    pair = certificates.server.in_one_file()
    daemon = start_daemon("-l", "tls://127.0.0.1:0", "--tls-certificate", str(pair))
    trusting = ssl.create_default_context(cafile=str(certificates.authority.cert))
    port = daemon.port_of("tls")
    where = f"{HOST} port {port}: TLS: "
    for options, told in (
        ({"tls": ssl.create_default_context()}, "see SSLContext.load_verify_locations"),
        ({"tls": trusting, "servername": "calcd.example"}, "see servername="),
    ):
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            connect(port, **options)
        assert str(error.value).startswith(where)
        assert str(error.value).endswith(told)
        assert error.value.verify_code
    with pytest.raises(OSError, match=r"does the server speak TLS, 1\.2 or later"):
        connect(shared_daemon.port, tls=trusting)


# -- Timeouts ------------------------------------------------------------------------------------


def test_after_a_timeout_a_late_reply_is_dropped(serve: Servers, calculator_of: Connect) -> None:
    given_up = threading.Event()

    def slow(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        assert given_up.wait(TIMEOUT)

    with calculator_of(HOST, serve(slow, expect(("b", "2"))), timeout=1.5) as calculator:
        with pytest.raises(TimeoutError, match=r"no reply for 1\.5 s"):
            calculator.evaluate("a")
        given_up.set()
        assert calculator.evaluate("b") == 2


def test_names_are_lost_with_a_connection_that_timed_out(
    serve: Servers, calculator_of: Connect
) -> None:
    over = threading.Event()

    def slow(connection: socket.socket) -> None:
        expect(("x = 1", "1"), ("a", "2"), end=lambda c: receive(c, b"b\n"))(connection)
        assert over.wait(TIMEOUT)

    with calculator_of(HOST, serve(slow, expect(("a", "3"))), timeout=1.5) as calculator:
        assert calculator.evaluate_many(["x = 1", "a"]) == [1, 2]
        with pytest.raises(TimeoutError):
            calculator.evaluate("b")
        over.set()
        assert calculator.evaluate_many([]) == []
        with pytest.raises(ConnectionError, match=STATE_LOST):
            calculator.evaluate("a")
        assert calculator.evaluate("a") == 3


def test_a_server_that_never_shakes_hands(serve: Servers, calculator_of: Connect) -> None:
    with pytest.raises(TimeoutError):
        calculator_of(HOST, serve(serve.silent), timeout=0.1, tls=ssl.create_default_context())


# -- Lost connections ----------------------------------------------------------------------------


def test_a_connection_that_was_idle_for_too_long(start_daemon: Daemons, connect: Connect) -> None:
    daemon = start_daemon("--idle-timeout", "0.3")
    with connect(daemon.port) as calculator:
        for connections in 1, 2:
            assert calculator.evaluate("SOMA 2 2") == 4
            daemon.logs("ended", connections)
        assert calculator.evaluate("SOMA 2 2") == 4


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_requests_without_a_reply_are_sent_again(
    end: Script, serve: Servers, connect: Connect
) -> None:
    def once(connection: socket.socket) -> None:
        receive(connection, b"a\nb\nc\n")
        connection.sendall(b"1\n2")
        wait_until(lambda: bytes_unacked(connection) == 0, "the replies to be taken")
        end(connection)

    with connect(serve(once, expect(("b\nc", "2\n3")))) as calculator:
        assert calculator.evaluate_many(["a", "b", "c"]) == [1, 2, 3]


def test_a_request_is_sent_again_once_and_not_twice(serve: Servers, connect: Connect) -> None:
    port = serve(hear("a"), hear("a"), expect(("a", "1"), end=echo))
    with connect(port) as calculator:
        with pytest.raises(ConnectionError, match=r"connection closed by the server|reset"):
            calculator.evaluate("a")
        assert calculator.evaluate("a") == 1


@pytest.mark.parametrize("left", ["x = 2", " y=3", "PRECISION 50", "rounding up"])
def test_a_request_is_not_sent_again_if_state_is_lost(
    left: str, serve: Servers, connect: Connect
) -> None:
    port = serve(expect((left, "2"), end=hear("a")), expect(("a", "1")))
    with connect(port) as calculator:
        calculator.request(left)
        with pytest.raises(ConnectionError, match=f"the connection was lost, and {STATE_LOST}"):
            calculator.evaluate("a")
        assert calculator.evaluate("a") == 1


@pytest.mark.parametrize(
    ("asked", "reply"),
    [
        ("PRECISION", "34"),
        ("= 2/3", "0.7"),
        ("x == 2", "0"),
        ("x = 1/0", "ERR DIVISION-BY-ZERO division by zero"),
    ],
)
def test_a_request_is_sent_again_if_no_state_is_lost(
    asked: str, reply: str, serve: Servers, connect: Connect
) -> None:
    port = serve(expect((asked, reply), end=hear("a")), expect(("a", "1")))
    with connect(port) as calculator:
        calculator.request_many([asked])
        assert calculator.evaluate("a") == 1


def test_names_that_were_cleared_do_not_matter(serve: Servers, connect: Connect) -> None:
    first = expect(("x = 1", "1"), ("CLEAR", "OK"), end=hear("a"))
    with connect(serve(first, expect(("a", "1")))) as calculator:
        assert calculator.request_many(["x = 1", "CLEAR"]) == ["1", "OK"]
        assert calculator.evaluate("a") == 1


def test_the_last_answer_is_lost_with_its_connection(serve: Servers, connect: Connect) -> None:
    port = serve(expect(("2+2", "4"), end=hear("Ans + 1")), expect(("2+2", "4"), end=echo))
    with connect(port) as calculator:
        assert calculator.evaluate("2+2") == 4
        with pytest.raises(ConnectionError, match=STATE_LOST):
            calculator.evaluate("Ans + 1")
        assert calculator.evaluate("2+2") == 4


def test_a_whole_exchange_is_repeated(serve: Servers, connect: Connect) -> None:
    """Without any answer no state is lost."""
    asked = ["x = 2", "ans + x"]
    port = serve(hear(*asked), expect(("x = 2\nans + x", "2\n4")))
    with connect(port) as calculator:
        assert calculator.evaluate_many(asked) == [2, 4]


def test_a_server_that_is_gone(start_daemon: Daemons, connect: Connect) -> None:
    daemon = start_daemon()
    with connect(daemon.port) as calculator:
        assert calculator.evaluate("SOMA 2 2") == 4
        daemon.stop()
        with pytest.raises(ConnectionRefusedError):
            calculator.evaluate("SOMA 2 2")


def test_a_server_that_restarts(
    start_daemon: Daemons, tmp_path: Path, calculator_of: Connect
) -> None:
    """Only what was set is missed."""
    path = tmp_path / "calcd.sock"
    options = "-l", f"unix://{path}"
    daemon = start_daemon(*options)
    with calculator_of(path=path, timeout=TIMEOUT) as calculator:
        assert calculator.evaluate("SOMA 2 2") == 4
        daemon.stop()
        with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: no such file")):
            calculator.evaluate("SOMA 2 2")
        daemon = start_daemon(*options)
        assert calculator.evaluate("x = 5") == 5
        daemon.stop()
        daemon = start_daemon(*options)
        with pytest.raises(ConnectionError, match=STATE_LOST):
            calculator.evaluate("SOMA 2 2")
        assert calculator.evaluate("SOMA 2 2") == 4


@contextmanager
def haproxy(directory: Path, server: Path, pair: Path) -> Iterator[tuple[int, int]]:
    """Run HAProxy before a server. Give its port for TCP and that for TLS."""
    with socket.create_server((HOST, 0)) as plain, socket.create_server((HOST, 0)) as tls:
        descriptors = plain.fileno(), tls.fileno()
        configuration = directory / "haproxy.cfg"
        configuration.write_text(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen calcd
    bind fd@{descriptors[0]}
    bind fd@{descriptors[1]} ssl crt {pair}
    server calcd unix@{server}
""")
        command = ["haproxy", "-db", "-f", str(configuration)]
        with subprocess.Popen(
            command, pass_fds=descriptors, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield plain.getsockname()[1], tls.getsockname()[1]
            finally:
                process.kill()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_a_server_behind_haproxy(
    start_daemon: Daemons, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    path, pair = tmp_path / "calcd.sock", certificates.server.in_one_file()
    context = ssl.create_default_context(cafile=str(certificates.authority.cert))
    daemon = start_daemon("-l", f"unix://{path}")
    with haproxy(tmp_path, path, pair) as (plain, tls):
        with connect(plain) as calculator:
            sums = [f"SOMA {number} 1" for number in range(1000)]
            assert calculator.evaluate_many(sums) == list(range(1, 1001))
            daemon.stop()
            with pytest.raises(ConnectionError, match=f"{HOST} port {plain}: connection"):
                calculator.evaluate("SOMA 2 2")
            start_daemon("-l", f"unix://{path}")
            assert calculator.evaluate("SOMA 2 2") == 4
        with connect(tls, tls=context) as calculator:
            assert calculator.evaluate("SOMA 2 2") == 4
        hint = r"does it speak TLS \(tls=\)\?"
        with connect(tls) as calculator, pytest.raises(ConnectionError, match=hint):
            calculator.evaluate("SOMA 2 2")


def test_a_server_that_refuses_tells_the_reason(serve: Servers, connect: Connect) -> None:
    refused = b"ERR BUSY too many connections\n"
    port = serve(lambda c: c.sendall(refused), expect(("a", "1")))
    with connect(port) as calculator:
        with pytest.raises(CalculatorError, match="BUSY too many connections"):
            calculator.evaluate("a")
        assert calculator.evaluate("a") == 1


def test_unexpected_replies(serve: Servers, connect: Connect) -> None:
    port = serve(expect(("a", "1\n2")), expect(("b", "3")))
    with connect(port) as calculator:
        with pytest.raises(ConnectionAbortedError, match="more than was asked for"):
            calculator.evaluate("a")
        assert calculator.evaluate("b") == 3


# -- Imports -------------------------------------------------------------------------------------


def test_the_package_has_nothing_else() -> None:
    with pytest.raises(ImportError, match="cannot import name 'ask'"):
        from calcd.client import ask  # type: ignore[attr-defined]  # noqa: F401


def test_the_bundle_is_enough_and_imports_little(shared_daemon: Daemon, calcc_pyz: Path) -> None:
    script = f"""if True:
        import sys
        sys.path.insert(0, {str(calcc_pyz)!r})
        from calcd.client import Calculator
        late = {{"asyncio", "decimal", "re", "readline", "socket", "ssl", "tqdm"}}
        print(*late & set(sys.modules))
        with Calculator({shared_daemon.host!r}, {shared_daemon.port}) as calculator:
            print(calculator.evaluate("SOMA 0.1 0.2"))
    """
    done = subprocess.run(
        [sys.executable, "-IS", "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("\n0.3\n", "")


def test_a_failed_handshake_leaves_nothing_behind(serve: Servers, connect: Connect) -> None:
    """conftest checks the file descriptors."""

    def script(plain: socket.socket) -> None:
        plain.sendall(b"ERR nonsense\n")
        with suppress(ConnectionError):
            read_all(plain)

    with pytest.raises(OSError, match=r"TLS: wrong version number|reset"):
        connect(serve(script), tls=ssl.create_default_context())


# A server that ends in the middle of something


@pytest.mark.parametrize("more", [b"2", b"2\n", b"\n", b"E"])
def test_half_a_reply_too_many_is_an_error(more: bytes, serve: Servers, connect: Connect) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"SOMA 2 2\n")
        connection.sendall(b"4\n" + more)
        connection.recv(100)  # until the calculator has ended it

    with connect(serve(script)) as calculator, pytest.raises(ConnectionAbortedError):
        calculator.evaluate("SOMA 2 2")


def test_what_was_answered_before_the_server_took_no_more_is_read(
    serve: Servers, connect: Connect
) -> None:
    """The rest is asked on another connection, and nothing twice."""
    count = 50_000
    asked: list[int] = []

    def answering(connection: socket.socket, most: int) -> None:
        """Answer so many requests and close, though more have been sent."""
        with connection.makefile("rb") as lines:
            for _ in range(most):
                if not (line := lines.readline()):
                    return
                number = int(line.split()[1])
                asked.append(number)
                connection.sendall(b"%d\n" % number)
            # All that was sent has to be read: a reset would take the replies with it.
            connection.shutdown(socket.SHUT_WR)
            while lines.read1(1 << 16):
                pass

    port = serve(partial(answering, most=1000), partial(answering, most=count))
    with connect(port) as calculator:
        assert calculator.evaluate_many(f"SOMA {number} 0" for number in range(count)) == [
            *range(count)
        ]
    assert asked == [*range(count)]


def test_what_was_answered_is_read_although_nothing_can_be_sent(
    serve: Servers, tmp_path: Path, calculator_of: Connect
) -> None:
    closed = threading.Event()

    def once(connection: socket.socket) -> None:
        connection.sendall(b"1\n")
        connection.close()
        closed.set()

    def rest(connection: socket.socket) -> None:
        receive(connection, b"b\n")
        connection.sendall(b"2\n")

    path = str(tmp_path / "socket")
    serve(once, rest, at=path)
    with calculator_of(path=path, timeout=TIMEOUT) as calculator:
        assert closed.wait(TIMEOUT)
        assert calculator.evaluate_many(["a", "b"]) == [1, 2]
