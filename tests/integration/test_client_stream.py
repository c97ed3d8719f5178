"""A stream of requests to calcc: what was not asked is never passed over in silence.

The servers are the daemon, one that closes idle connections, one that stops, and one that starts
again. Behind HAProxy: tests/system/test_haproxy.py.
"""

import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from client_helpers import (
    HOST,
    Script,
    Servers,
    calcc,
    error_message,
    receive,
    reset,
    running,
    terminal,
)
from helpers import TIMEOUT, Daemon, Daemons, read_all

from calcd.client import counting, protocol, state

CLOSED = "connection closed by the server"
STATE_LOST = protocol.STATE_LOST


def told(process: Any) -> str:
    """Return what a client has written to standard error until its end, after its name.

    That is one line at most. The one of errors among the replies is left out.
    """
    lines = process.stderr.read().decode().splitlines()
    lines = [line for line in lines if not line.startswith("calcc: errors: ")]
    assert len(lines) < 2
    return "".join(lines).removeprefix("calcc: ")


def tell(process: Any, request: bytes, reply: bytes) -> None:
    """Give a running client a request, and read its reply."""
    process.stdin.write(request)
    assert process.stdout.read(len(reply)) == reply


@pytest.fixture
def impatient(start_daemon: Daemons) -> Daemon:
    """Return a daemon that closes idle connections at once."""
    return start_daemon("--idle-timeout", "0.2")


# -- What follows the end of a session -----------------------------------------------------------


@pytest.mark.parametrize("between", ["", "\n\n \t\n"])
@pytest.mark.parametrize("word", ["QUIT", "sair", "EXIT"])
def test_what_follows_quit_was_not_asked(word: str, between: str, shared_daemon: Daemon) -> None:
    requests = f"PING\n{word}\n{between}PING\nPING\n".encode()
    where = shared_daemon.host, shared_daemon.port
    done = calcc(*where, stdin=requests)
    assert (done.stdout, done.returncode) == (b"PONG\nBYE\n", 3)
    line = 3 + between.count("\n")
    assert error_message(done) == (
        f"{HOST} port {shared_daemon.port}: {CLOSED} after BYE; "
        f"requests with a reply: 2, none from line {line} on"
    )


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n \t\n"])
def test_nothing_follows_quit(end: bytes, shared_daemon: Daemon) -> None:
    done = calcc(shared_daemon.host, shared_daemon.port, stdin=b"PING\nQUIT\n" + end)
    assert (done.stdout, done.stderr, done.returncode) == (b"PONG\nBYE\n", b"", 0)


def test_a_blank_line_that_crosses_the_close_is_no_request(serve: Servers) -> None:
    closed = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"QUIT\n")
        connection.sendall(b"BYE\n")
        receive(connection, b"\n")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        closed.set()

    with running(HOST, serve(script)) as process:
        tell(process, b"QUIT\n", b"BYE\n")
        process.stdin.write(b"\n")
        assert closed.wait(TIMEOUT)
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0, told(process)


def test_what_follows_quit_much_later_was_not_asked(shared_daemon: Daemon) -> None:
    with running(shared_daemon.host, shared_daemon.port) as process:
        tell(process, b"QUIT\n", b"BYE\n")
        shared_daemon.ask(b"PING\n")  # the connection has ended meanwhile
        process.stdin.write(b"PING\n")
        assert process.wait(TIMEOUT) == 3
        assert told(process).endswith("after BYE; requests with a reply: 1, none from line 2 on")


def test_who_types_quit_is_done(shared_daemon: Daemon, tmp_path: Path) -> None:
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where, redirect=f">{tmp_path}/replies") as screen:
        screen.type("QUIT\n")
        assert screen.end() == 0
    assert (tmp_path / "replies").read_bytes() == b"BYE\n"


def test_what_follows_a_line_that_is_too_long(shared_daemon: Daemon) -> None:
    done = calcc(
        shared_daemon.host, shared_daemon.port, stdin=b"PING\n" + b"9" * 17_000 + b"\nPING\n"
    )
    assert done.stdout.startswith(b"PONG\nERR LINE-TOO-LONG")
    assert done.returncode == 3
    assert done.stderr.endswith(
        b"after ERR LINE-TOO-LONG; requests with a reply: 2, none from line 3 on\n"
    )


def test_what_follows_a_line_that_took_too_long(start_daemon: Daemons) -> None:
    daemon = start_daemon("--line-timeout", "0.2")
    with running(daemon.host, daemon.port) as process:
        process.stdin.write(b"PING\nSOMA 1")
        replies = process.stdout.read(5)
        daemon.logs("ended")
        assert (replies + process.stdout.read(100)).startswith(b"PONG\nERR TIMEOUT ")
        process.stdin.write(b" 1\nPING\n")
        assert process.wait(TIMEOUT) == 3
        assert "after ERR TIMEOUT; requests with a reply: 2, none from line 2" in told(process)


def test_input_for_a_server_that_is_full(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "1")
    with daemon.connect(), running(daemon.host, daemon.port) as process:
        assert process.stdout.read(8) == b"ERR BUSY"
        process.stdin.write(b"PING\n")
        assert process.wait(TIMEOUT) == 3
        assert told(process).endswith(
            "after ERR BUSY; requests with a reply: 0, none from line 1 on"
        )


# -- A connection that the server closes while it is idle ----------------------------------------


def test_a_slow_producer_is_not_cut_off(impatient: Daemon) -> None:
    with running(impatient.host, impatient.port) as process:
        for number in range(1, 4):
            tell(process, b"SOMA %d 1\n" % number, b"%d\n" % (number + 1))
            impatient.logs("ended", number)
        process.stdin.write(b"DIV 1 0\nPING")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 1
        assert process.stdout.read() == b"ERR DIVISION-BY-ZERO division by zero\nPONG\n"
        assert "requests with" not in told(process)


def test_a_producer_may_be_slow_to_begin(impatient: Daemon) -> None:
    with running(impatient.host, impatient.port) as process:
        impatient.logs("ended")
        tell(process, b"\n \n", b"")
        tell(process, b"PING\n", b"PONG\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_an_idle_connection_at_the_end_of_the_input(impatient: Daemon) -> None:
    with running(impatient.host, impatient.port) as process:
        tell(process, b"x = 3\n", b"3\n")
        impatient.logs("ended")
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert told(process) == ""


STATEFUL = [
    (b"x = 3\n", b"3\n", b"SOMA 1 1\n"),
    (b"  X=3\r\n", b"3\r\n", b"SOMA 1 1\n"),
    (b"PRECISION 5\n", b"5\n", b"SOMA 1 1\n"),
    ("PRECISÃO 5\n".encode(), b"5\n", b"SOMA 1 1\n"),
    (b"notation scientific\n", b"scientific\n", b"SOMA 1 1\n"),
    (b"2+2\n", b"4\n", b"ans+1\n"),
    (b"2+2\n", b"4\n", b"\n \n*3\n"),
]


@pytest.mark.parametrize(("first", "reply", "then"), STATEFUL)
def test_state_that_is_lost_is_told(
    first: bytes, reply: bytes, then: bytes, impatient: Daemon
) -> None:
    with running(impatient.host, impatient.port) as process:
        tell(process, first, reply)
        impatient.logs("ended")
        process.stdin.write(then)
        line = 1 + len(then.splitlines())
        assert process.wait(TIMEOUT) == 3
        assert told(process) == (
            f"{HOST} port {impatient.port}: {CLOSED}; {STATE_LOST}; "
            f"requests with a reply: 1, none from line {line} on"
        )
        assert process.stdout.read() == b""


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("use", [b"*3\n", b"1+ans\n", b"LANGUAGE pt\nans\n"])
def test_an_answer_that_is_lost_behind_an_error_is_told(
    use: bytes, apart: bool, impatient: Daemon
) -> None:
    """What comes after the error may be read with it, or later."""
    with running(impatient.host, impatient.port) as process:
        tell(process, b"2+2\n", b"4\n")
        impatient.logs("ended")
        error = b"ERR DIVISION-BY-ZERO division by zero\n"
        if apart:
            tell(process, b"1/0\n", error)
            process.stdin.write(use + b"PING\n")
        else:
            process.stdin.write(b"1/0\n" + use + b"PING\n")
        assert process.wait(TIMEOUT) == 3
        replies = 2 + use.count(b"\n") - 1
        assert told(process) == (
            f"{HOST} port {impatient.port}: {CLOSED}; {STATE_LOST}; "
            f"requests with a reply: {replies}, none from line {replies + 1} on"
        )
        assert process.stdout.read() == error * (not apart) + b"pt\n" * (replies - 2)


def test_an_answer_that_is_lost_is_told_after_another_close(impatient: Daemon) -> None:
    with running(impatient.host, impatient.port) as process:
        tell(process, b"2+2\n", b"4\n")
        impatient.logs("ended")
        tell(process, b"1/0\n", b"ERR DIVISION-BY-ZERO division by zero\n")
        impatient.logs("ended", 2)
        process.stdin.write(b"*3\n")
        assert process.wait(TIMEOUT) == 3
        assert f"{STATE_LOST}; requests with a reply: 2, none from line 3" in told(process)


def test_no_answer_is_found_wherever_a_chunk_ends() -> None:
    for before in b"", b"1\nERR X\n":
        replies = before + protocol.NO_ANSWER + b"has no value yet\n1\n"
        for size in range(1, len(replies) + 1):
            counter = counting.ReplyCounter()
            counter.add_requests(b"a\n" * 4)
            for start in range(0, len(replies), size):
                chunk = replies[start : start + size]
                found = counter.find_no_answer(chunk)
                counter.add_replies(chunk if found < 0 else chunk[:found])
                if found >= 0:
                    break
            assert (found >= 0, counter.replies) == (True, before.count(b"\n"))


STATELESS = [
    (b"x = 3\nCLEAR\n", b"3\nOK\n", b"SOMA 1 1\n", b"2\n"),
    (b"= 2+2\n", b"4\n", b"SOMA 1 1\n", b"2\n"),
    (b"PRECISION\n", b"34\n", b"2*3\n", b"6\n"),
    (b"UPPER clear exact\n", b"CLEAR EXACT\n", b"2*3\n*2\nans\n", b"6\n12\n12\n"),
    (b"DIV 1 0\n", b"ERR DIVISION-BY-ZERO division by zero\n", b"ans\n", b"ERR UNKNOWN-NAME"),
]


@pytest.mark.parametrize(("first", "reply", "then", "last"), STATELESS)
def test_what_leaves_no_state(
    first: bytes, reply: bytes, then: bytes, last: bytes, impatient: Daemon
) -> None:
    with running(impatient.host, impatient.port) as process:
        tell(process, first, reply)
        impatient.logs("ended")
        tell(process, then, last)
        process.stdin.close()
        assert process.wait(TIMEOUT) == int(b"ERR" in reply + last)


def test_state_is_found_wherever_a_chunk_ends() -> None:
    for requests, is_set in [
        (b"PING\nx = 3\n2+2\n", True),
        (b"PING\nUPPER EXACT on\n2+2\n", False),
    ]:
        for size in range(1, len(requests)):
            left = state.StreamState()
            for start in range(0, len(requests), size):
                left.add(requests[start : start + size])
            assert left.has_settings == is_set


def hang_up(*pairs: tuple[bytes, bytes], end: Script = socket.socket.close) -> Script:
    """Reply to these requests, receive one that gets no reply, and end the connection."""

    def script(connection: socket.socket) -> None:
        for request, reply in pairs:
            receive(connection, request)
            connection.sendall(reply)
        receive(connection, b"b\n")
        end(connection)

    return script


def answer_b(connection: socket.socket) -> None:
    receive(connection, b"b\n")
    connection.sendall(b"2\n")
    assert read_all(connection) == b""


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_request_that_crosses_the_close_is_asked_again(end: Script, serve: Servers) -> None:
    port = serve(hang_up((b"a\n", b"1\n"), end=end), answer_b)
    with running(HOST, port) as process:
        tell(process, b"a\n", b"1\n")
        tell(process, b"b\n", b"2\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_it_is_asked_again_once(serve: Servers) -> None:
    port = serve(hang_up((b"a\n", b"1\n")), hang_up())
    with running(HOST, port) as process:
        tell(process, b"a\n", b"1\n")
        process.stdin.write(b"b\n")
        assert process.wait(TIMEOUT) == 3
        assert told(process).endswith(f"{CLOSED}; requests with a reply: 1, none from line 2 on")


@pytest.mark.parametrize("arguments", [[], ["-e", "b"]])
def test_a_first_request_is_asked_once(arguments: list[str], serve: Servers) -> None:
    done = calcc(*arguments, HOST, serve(hang_up()), stdin=b"" if arguments else b"b\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done).endswith("does it speak TLS (--ssl)?")


def test_requests_of_which_one_has_a_reply_are_not_asked_again(serve: Servers) -> None:
    port = serve(hang_up((b"a\n", b"1\n"), (b"a\n", b"1\n")))
    with running(HOST, port) as process:
        tell(process, b"a\n", b"1\n")
        process.stdin.write(b"a\nb\n")
        assert process.wait(TIMEOUT) == 3
        assert process.stdout.read() == b"1\n"
        assert told(process).endswith("requests with a reply: 2, none from line 3 on")


# -- A server that stops, and one that starts again ----------------------------------------------


def test_a_server_that_stops_while_input_is_still_coming(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    with running(daemon.host, daemon.port) as process:
        tell(process, b"SOMA 1 1\n\n", b"2\n")
        daemon.stop()
        process.stdin.write(b"SOMA 2 2\n")
        assert process.wait(TIMEOUT) == 3
        assert told(process) == (
            f"{HOST} port {daemon.port}: connection refused: is calcd running there?; "
            "requests with a reply: 1, none from line 3 on"
        )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_starts_again(signum: int, start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "socket"  # and no port, which somebody else may get
    daemon = start_daemon("-l", f"unix://{path}")
    with running("-U", path) as process:
        for number in range(3):
            tell(process, b"SOMA %d 1\n" % number, b"%d\n" % (number + 1))
            daemon.stop(signum)
            daemon = start_daemon("-l", f"unix://{path}")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert told(process) == ""


def test_a_server_that_is_killed_at_work(start_daemon: Daemons, tmp_path: Path) -> None:
    """The requests that it had taken are not asked again: it may be they that have killed it."""
    daemon = start_daemon()
    count = 200_000
    (tmp_path / "requests").write_bytes(b"PING\n\n" * count)
    with (
        (tmp_path / "requests").open("rb") as requests,
        running(daemon.host, daemon.port, stdin=requests) as process,
    ):
        received = process.stdout.read(50_000)
        daemon.stop(signal.SIGKILL)
        while chunk := process.stdout.read(1 << 16):
            received += chunk
        assert process.wait(TIMEOUT) == 3
        replies = received.count(b"\n")
        assert received.startswith(b"PONG\n" * replies)
        assert told(process).endswith(
            f"requests with a reply: {replies}, none from line {2 * replies + 1} on"
        )


# -- The time limit is for the server ------------------------------------------------------------


def test_a_producer_may_be_slower_than_the_server_may_be(shared_daemon: Daemon) -> None:
    with running("-w", "0.2", shared_daemon.host, shared_daemon.port) as process:
        for request, reply in (b"2+2\n", b"4\n"), (b"3+", b""), (b"3\n", b"6\n"):
            tell(process, request, reply)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_further_input_does_not_extend_the_wait_for_the_server(serve: Servers) -> None:
    with running("-w", "0.5", HOST, serve(serve.silent)) as process:
        with suppress(BrokenPipeError):
            while process.poll() is None:
                process.stdin.write(b"PING\n")
                serve.over.wait(0.05)
        assert process.wait(TIMEOUT) == 3
        assert told(process).endswith(
            "silent for 0.5 s; requests with a reply: 0, none from line 1 on"
        )


def test_a_server_that_takes_requests_is_not_silent(serve: Servers) -> None:
    """It replies only once it has taken more than the kernel holds."""
    size = 24 << 20

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        taken = 0
        while taken < size:
            taken += len(connection.recv(1 << 20))
            if taken < 4 << 20:
                serve.over.wait(0.01)
        connection.sendall(b"1\n" * (size // 4096))
        assert read_all(connection) == b""

    done = calcc("-w", "2", HOST, serve(script), stdin=(b"x" * 4095 + b"\n") * (size // 4096))
    assert (done.stderr, done.returncode) == (b"", 0)


# -- Lines of the input --------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["a\n", "a\n\n", "\n \na\nb\nc\n\n\t\r\n", "a\nb\n\0\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("ahead", [0, 5])
def test_the_line_of_a_request_is_found(pattern: str, size: int, ahead: int) -> None:
    data = pattern * 40
    lines = [
        number for number, line in enumerate(data.split("\n"), 1) if line.strip(" \t\r\0") != ""
    ]
    counter = counting.ReplyCounter()
    for start in range(0, len(data), size):
        counter.add_requests(data[start : start + size].encode())
        while counter.replies < counter.requests - ahead:
            assert counter.place(counter.replies) == f"line {lines[counter.replies]}"
            counter.add_replies(b"1\n")
    assert counter.requests == len(lines)


def test_a_line_without_newline_is_counted_from_its_reply_on() -> None:
    """The server answers such lines until it gets the first newline."""
    counter = counting.ReplyCounter()
    for number in range(3):
        counter.add_requests(b"SOMA 2 2")
        assert (counter.requests, counter.is_owed) == (number + 1, False)
        counter.add_replies(b"4\n")
        assert counter.is_answered


def test_requests_of_the_command_line_are_no_lines() -> None:
    counter = counting.ReplyCounter()
    counter.add_arguments(b"a\n\nb\n")
    assert str(counter.failure("x")) == "x; requests with a reply: 0, none from request 1 on"
    counter.add_requests(b"\nc\n")
    counter.add_replies(b"1\n")
    assert str(counter.failure("x")) == "x; requests with a reply: 1, none from request 2 on"
    counter.add_replies(b"1\n")
    assert str(counter.failure("x")) == "x; requests with a reply: 2, none from line 2 on"
