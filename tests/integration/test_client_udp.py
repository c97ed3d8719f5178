"""calcc over UDP: requests, retries, and which datagrams count as replies."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from client_helpers import (
    CTRL_D,
    HOST,
    PROMPT,
    assert_replies_come_at_once,
    calcc,
    error_message,
    running,
    terminal,
    wait_until_asleep,
)
from helpers import TIMEOUT, Daemon, daemons_in
from listening import needs_ipv6

REQUESTS = b"SOMA 2 2\n\nDIV 1 3\r\n \t\nDIV 1 0\n"
REPLIES = b"4\n0.3333333333333333333333333333333333\r\nERR DIVISION-BY-ZERO division by zero\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Yield a daemon that only speaks UDP."""
    with daemons_in(tmp_path_factory.mktemp("udp")) as daemons:
        yield daemons("-l", "udp://127.0.0.1:0")


@pytest.fixture
def port(daemon: Daemon) -> str:
    return str(daemon.port_of("udp"))


Script = Callable[[socket.socket], None]


@contextmanager
def server(script: Script) -> Iterator[int]:
    """Run a script with a socket of its own. Yield the port."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            script(sock)
        except BaseException as failure:
            failures.append(failure)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.bind((HOST, 0))
        thread = threading.Thread(target=run)
        thread.start()
        yield sock.getsockname()[1]
        thread.join()
    assert not failures


def test_each_line_of_standard_input_is_a_request(port: str) -> None:
    done = calcc("-u", HOST, port, stdin=REQUESTS)
    assert (done.stdout, done.returncode) == (REPLIES, 1)
    told = "errors: 1 of 3 replies, the first at line 5: ERR DIVISION-BY-ZERO division by zero"
    assert error_message(done) == told


def test_a_last_line_without_newline_is_a_request(port: str) -> None:
    done = calcc("-u", HOST, port, stdin=b"SOMA 2 2\nSUB 5 3")
    assert (done.stdout, done.returncode) == (b"4\n2\n", 0)


@pytest.mark.parametrize("stdin", [b"", b"\n \n\r\n"])
def test_no_request_is_no_error(port: str, stdin: bytes) -> None:
    done = calcc("-u", HOST, port, stdin=stdin)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


def test_requests_of_the_command_line(port: str) -> None:
    done = calcc("-u", "-e", "SOMA 2 2", "-e", "PING\nSUB 5 3", HOST, port)
    assert (done.stdout, done.returncode) == (b"4\nPONG\n2\n", 0)


def test_replies_come_while_input_is_still_open(port: str) -> None:
    with running("-u", HOST, port) as process:
        assert_replies_come_at_once(process)


def test_input_that_another_program_made_non_blocking(port: str) -> None:
    requests, sink = os.pipe()
    os.set_blocking(requests, False)
    with os.fdopen(sink, "wb", 0) as source, running("-u", HOST, port, stdin=requests) as process:
        os.close(requests)
        wait_until_asleep(process)
        source.write(b"SOMA 2 2\n")
        assert process.stdout.read(2) == b"4\n"
        source.close()
        assert process.wait(TIMEOUT) == 0


def test_many_requests_come_back_whole(port: str) -> None:
    requests = b"".join(b"SOMA %d 1\n" % number for number in range(5000))
    done = calcc("-u", HOST, port, stdin=requests)
    assert done.stdout == b"".join(b"%d\n" % (number + 1) for number in range(5000))
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_prompt(port: str, tmp_path: Path) -> None:
    with terminal(tmp_path, "-u", HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 2 2\n")
        screen.expect("4\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize("switches", ["-uz", "-uzv"])
def test_a_check_whether_the_server_replies(port: str, switches: str) -> None:
    done = calcc(switches, HOST, port)
    said = f"calcc: {HOST} port {port}: replies over UDP\n" if "v" in switches else ""
    assert (done.stdout, done.stderr.decode(), done.returncode) == (b"", said, 0)


@needs_ipv6
def test_a_family_may_be_chosen(daemon: Daemon, port: str) -> None:
    assert calcc("-u", "-4", "-e", "PING", HOST, port).stdout == b"PONG\n"
    refused = calcc("-u", "-6", "-e", "PING", HOST, port)
    assert (refused.returncode, "does not resolve" in error_message(refused)) == (3, True)
    assert daemon.process.poll() is None


# -- Errors --------------------------------------------------------------------------------------


def test_a_lost_datagram_is_sent_again() -> None:
    def script(sock: socket.socket) -> None:
        for number in range(2):
            senders = set()
            for _ in range(3):
                data, sender = sock.recvfrom(100)
                assert data == b"SOMA %d 1\n" % number
                senders.add(sender)
            sock.sendto(b"%d\n" % (number + 1), sender)
            assert len(senders) == 1

    with server(script) as port:
        done = calcc("-u", "-w", 1.5, HOST, port, stdin=b"SOMA 0 1\nSOMA 1 1\n")
    assert (done.stdout, done.returncode) == (b"1\n2\n", 0)


def test_a_late_reply_is_not_taken_for_the_next() -> None:
    def script(sock: socket.socket) -> None:
        for _ in range(2):
            _, first = sock.recvfrom(100)
        sock.sendto(b"1\n", first)
        _, second = sock.recvfrom(100)
        sock.sendto(b"1\n", first)  # the answer to what was asked again
        time.sleep(0.05)
        sock.sendto(b"2\n", second)

    with server(script) as port:
        done = calcc("-u", "-w", 3, HOST, port, stdin=b"SOMA 0 1\nSOMA 1 1\n")
    assert (done.stdout, done.returncode) == (b"1\n2\n", 0)


def test_a_datagram_from_another_address_is_no_reply() -> None:
    def script(sock: socket.socket) -> None:
        _, sender = sock.recvfrom(100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"666\n", sender)
        sock.sendto(b"4\n", sender)

    with server(script) as port:
        done = calcc("-u", "-e", "SOMA 2 2", HOST, port)
    assert (done.stdout, done.returncode) == (b"4\n", 0)


@pytest.mark.parametrize("switches", ["-u", "-uzv"])
def test_a_server_that_says_nothing(switches: str) -> None:
    def script(sock: socket.socket) -> None:
        for _ in range(3):
            assert sock.recv(100) == b"PING\n"

    with server(script) as port:
        done = calcc(switches, "-w", 0.3, HOST, port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    said = "no reply in 0.3 s"
    if switches == "-u":
        said += "; requests with a reply: 0, none from line 1 on"
    assert error_message(done) == f"{HOST} port {port}: {said}"


@pytest.mark.parametrize("switches", ["-u", "-uz", "-uzv"])
def test_a_refused_datagram(switches: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((HOST, 0))
        port = holder.getsockname()[1]
        holder.connect((HOST, 1))  # from then on it takes nothing from others: they are refused
        done = calcc(switches, HOST, port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    if switches == "-uz":
        assert done.stderr == b""
    else:
        told = f"{HOST} port {port}: connection refused: is calcd running there?"
        if switches == "-u":
            told += "; requests with a reply: 0, none from line 1 on"
        assert error_message(done) == told


@pytest.mark.parametrize("number", ["5", " -1.50\t", "1E+30", "+.5e-3"])
def test_a_number_alone_is_told_why_it_gets_no_reply(port: str, number: str) -> None:
    # At once, and not after a time-out: that would be longer than the test may take.
    requests = f"SOMA 2 2\n{number}\nPING\n".encode()
    done = calcc("-u", "-w", 1000, HOST, port, stdin=requests)
    assert (done.stdout, done.returncode) == (b"4\n", 3)
    reason = "a number alone gets no reply over UDP, as it may be one: put = before it"
    told = f"{reason}; requests with a reply: 1, none from line 2 on"
    assert error_message(done) == f"{HOST} port {port}: {told}"
    again = calcc("-u", "-e", f"= {number}", HOST, port)
    assert (again.stderr, again.returncode) == (b"", 0)


@pytest.mark.parametrize("request_", ["inf", "1_000", "1+1", "-", "e", "1 2"])
def test_what_is_no_number_is_asked(port: str, request_: str) -> None:
    done = calcc("-u", "-e", request_, HOST, port)
    assert done.stdout.count(b"\n") + done.stderr.count(b"\n") == 1
    assert not done.stderr.startswith(b"calcc")


def test_a_reply_without_newline() -> None:
    def script(sock: socket.socket) -> None:
        _, sender = sock.recvfrom(100)
        sock.sendto(b"no newline", sender)

    with server(script) as port:
        done = calcc("-u", "-e", "PING", HOST, port)
    assert (done.stdout, done.returncode) == (b"no newline", 3)
    assert error_message(done).endswith("; requests with a reply: 0, none from request 1 on")


@pytest.mark.parametrize("stdin", [b"1" * 66_000, b"1" * 65_530 + b"\n"])
def test_a_line_that_is_too_long_for_a_datagram(port: str, stdin: bytes) -> None:
    done = calcc("-u", HOST, port, stdin=stdin)
    told = "message too long; requests with a reply: 0, none from line 1 on"
    assert (done.returncode, error_message(done)) == (3, f"{HOST} port {port}: {told}")


def test_it_ends_with_its_reader(port: str) -> None:
    with running("-u", HOST, port) as process:
        process.stdout.close()
        process.stdin.write(b"PING\n")
        assert process.wait(TIMEOUT) == -13  # SIGPIPE


@pytest.mark.parametrize("other", [["-U", "socket"], ["--ssl"], ["--ssl-noverify"]])
def test_options_that_udp_excludes(other: list[str]) -> None:
    done = calcc("-u", *other)
    assert done.returncode == 2
    assert error_message(done) == (
        f"-u cannot be used with {'-U' if '-U' in other else '--ssl'}; see calcc -h"
    )
