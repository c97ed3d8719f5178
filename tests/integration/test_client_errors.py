"""Error replies of calcc: which stream they go to, and what is told of them at the end."""

import socket
import threading
from pathlib import Path

import pytest
from client_helpers import (
    HOST,
    Servers,
    answer,
    calcc,
    error_message,
    receive,
    running,
    shell,
    terminal,
)
from helpers import TIMEOUT, Daemon, Daemons, ask

from calcd.client import counting, streams

ZERO = "ERR DIVISION-BY-ZERO division by zero"
SUMMARY = "errors: 2 of 4 replies, the first at line 4: " + ZERO
REQUESTS = b"SOMA 2 2\n\n \t\nDIV 1 0\nPING\nDIV 0 0\n"


# -- Requests of the command line ----------------------------------------------------------------


def test_a_script_sees_why_it_ends(shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    done = shell(f"v=$(calcc -e 'DIV 1 0' {where}) || exit; echo never")
    assert (done.stdout, done.stderr.decode(), done.returncode) == (b"", f"{ZERO}\n", 1)


def test_results_and_errors_are_kept_apart(shared_daemon: Daemon) -> None:
    requests = ["-e", "1/0\n2+2", "-e", "MAIUSCULA a\nFOO", "-e", "PING"]
    done = calcc(*requests, shared_daemon.host, shared_daemon.port)
    assert (done.stdout, done.returncode) == (b"4\nA\nPONG\n", 1)
    assert done.stderr.decode().startswith(f"{ZERO}\nERR UNKNOWN-OPERATION ")
    assert done.stderr.count(b"\n") == 2


@pytest.mark.parametrize("stderr", ["&-", "/dev/full"])
def test_errors_that_cannot_be_written(stderr: str, shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    done = shell(f"calcc -e 'DIV 1 0' -e 2+2 {where} 2>{stderr}")
    assert (done.stdout, done.stderr, done.returncode) == (b"4\n", b"", 1)


def test_a_terminal_shows_both_in_their_order(shared_daemon: Daemon, tmp_path: Path) -> None:
    requests = ["-e", "DIV 1 0", "-e", "PING", "-e", "DIV 1 0"]
    with terminal(tmp_path, *requests, shared_daemon.host, shared_daemon.port) as screen:
        assert screen.end() == 1
        assert screen.screen.decode() == f"{ZERO}\r\nPONG\r\n{ZERO}\r\n"


def test_over_udp(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        port = server.getsockname()[1]
        redirect = f"2>{tmp_path}/errors"
        with terminal(tmp_path, "-ue", "a", "-e", "b", HOST, port, redirect=redirect) as screen:
            for reply in b"ERR X \x1b\n", b"1\n":
                _, sender = server.recvfrom(100)
                server.sendto(reply, sender)
            assert screen.end() == 1
            assert screen.screen == b"1\r\n"
    assert (tmp_path / "errors").read_bytes() == b"ERR X \x1b\n"


SPLIT = [
    (b"1\n2\n", 2, b"1\n2\n", b""),
    (b"ERR X\nERR Y\n", 2, b"", b"ERR X\nERR Y\n"),
    (b"1\nERR X\n2\nERR Y\n", 4, b"1\n2\n", b"ERR X\nERR Y\n"),
    (b"1\nERR X\n2\nERR Y\n", 2, b"1\n2\nERR Y\n", b"ERR X\n"),
    (b"1\nERR X\n2\nERR Y\n", 1, b"1\nERR X\n2\nERR Y\n", b""),
    (b"\nER\nERR\nERR \n ERR 1", 5, b"\nER\nERR\n ERR 1", b"ERR \n"),
    (b"1\nERR", 2, b"1\nERR", b""),
    (b"1\nERR cut", 2, b"1\n", b"ERR cut"),
    (b"ERR cut", 1, b"", b"ERR cut"),
    (b"ERR", 0, b"ERR", b""),
    (b"ERR X\n1\nERR Y\nERR Z", -1, b"1\n", b"ERR X\nERR Y\nERR Z"),
]


@pytest.mark.parametrize(("replies", "count", "results", "errors"), SPLIT)
def test_splitting_does_not_depend_on_where_a_chunk_ends(
    replies: bytes, count: int, results: bytes, errors: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[int, bytes] = {}

    def write(data: bytes, stream: int) -> None:
        written[stream] = written.get(stream, b"") + data

    monkeypatch.setattr(streams, "write_output", write)
    monkeypatch.setattr("os.isatty", lambda _: False)
    for size in range(1, len(replies) + 1):
        written.clear()
        with streams.SplitOutput(count) as output:
            for start in range(0, len(replies), size):
                output.write(replies[start : start + size])
        assert written.get(streams.STDOUT, b"") == results
        assert written.get(streams.STDERR, b"") == errors


# -- A stream ------------------------------------------------------------------------------------


def test_a_stream_keeps_its_order_and_its_end_tells_of_errors(shared_daemon: Daemon) -> None:
    done = calcc(shared_daemon.host, shared_daemon.port, stdin=REQUESTS)
    one, two, three, four = done.stdout.decode().splitlines()
    assert (one, two, three, four[:22]) == ("4", ZERO, "PONG", "ERR DIVISION-UNDEFINED")
    assert (error_message(done), done.returncode) == (SUMMARY, 1)


def test_it_can_be_left_out(shared_daemon: Daemon) -> None:
    done = calcc("-Q", shared_daemon.host, shared_daemon.port, stdin=REQUESTS)
    assert (done.stderr, done.returncode) == (b"", 1)


def test_a_loss_is_told_as_well(serve: Servers) -> None:
    port = serve(answer(b"ERR X \x1b[31m\n1\n"))
    done = calcc(HOST, port, stdin=b"\na\nb\nc\n")
    errors, lost = done.stderr.decode().splitlines()
    assert errors == r"calcc: errors: 1 of 2 replies, the first at line 2: ERR X \x1b[31m"
    assert lost.endswith("requests with a reply: 2, none from line 4 on")
    assert done.returncode == 3


def test_an_error_that_was_not_asked_for_has_no_line(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "1")
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        done = calcc(daemon.host, daemon.port)
    assert done.stdout.startswith(b"ERR BUSY ")
    assert error_message(done).startswith("errors: 1 of 1 replies: ERR BUSY ")
    assert done.returncode == 1


@pytest.mark.parametrize("requests", [b"SOMA 1 1", b"SOMA 1 1\n", b"\n\nSOMA 1 1\nSOMA 2 2\n"])
@pytest.mark.parametrize("reply", [b"ERR BUSY too many\n", b"ERR FORBIDDEN\n"])
def test_what_a_refusal_replies_to_was_not_asked(
    requests: bytes, reply: bytes, serve: Servers
) -> None:
    port = serve(answer(reply))
    done = calcc(HOST, port, stdin=requests)
    assert (done.stdout, done.returncode) == (reply, 3)
    summary, lost = done.stderr.decode().splitlines()
    text = reply.decode().rstrip()
    code = text.removesuffix(" too many")
    assert summary == f"calcc: errors: 1 of 1 replies: {text}"
    assert lost == (
        f"calcc: {HOST} port {port}: connection closed by the server after {code}; "
        f"requests with a reply: 0, none from line {requests.index(b'S') + 1} on"
    )


@pytest.mark.parametrize("more", [["-e", "b"], ["-"], []])
def test_what_a_refusal_replies_to_of_the_command_line(more: list[str], serve: Servers) -> None:
    port = serve(answer(b"ERR BUSY too many\n"))
    done = calcc("-e", "a", HOST, port, *more, stdin=b"c\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    error, lost = done.stderr.decode().splitlines()
    assert error == "ERR BUSY too many"
    assert lost == (
        f"calcc: {HOST} port {port}: connection closed by the server after ERR BUSY; "
        "requests with a reply: 0, none from request 1 on"
    )


def test_a_refusal_of_a_new_connection(serve: Servers) -> None:
    closed = threading.Event()

    def reply_and_close(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"ERR X\n")
        connection.close()
        closed.set()

    with running(HOST, serve(reply_and_close, answer(b"ERR BUSY\n"))) as process:
        process.stdin.write(b"a\n")
        assert process.stdout.read(6) == b"ERR X\n"
        assert closed.wait(TIMEOUT)
        process.stdin.write(b"b\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 3
        assert process.stdout.read() == b"ERR BUSY\n"
        summary, lost = process.stderr.read().decode().splitlines()
    assert summary == "calcc: errors: 2 of 2 replies, the first at line 1: ERR X"
    assert lost.endswith("after ERR BUSY; requests with a reply: 1, none from line 2 on")


@pytest.mark.parametrize("replies", [b"1\nERR BUSY\n", b"ERR BUSY\n1\n"])
def test_an_error_among_other_replies_is_no_refusal(replies: bytes, serve: Servers) -> None:
    done = calcc(HOST, serve(answer(replies)), stdin=b"a\nb\n")
    assert (done.stdout, done.returncode) == (replies, 1)


def test_a_server_that_is_full_was_not_asked(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "1")
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        stream = calcc(daemon.host, daemon.port, stdin=b"1+1\n")
        single = calcc("-e", "1+1", daemon.host, daemon.port)
    assert stream.stdout.startswith(b"ERR BUSY ")
    assert (single.stdout, single.stderr[:9]) == (b"", b"ERR BUSY ")
    assert (stream.returncode, single.returncode) == (3, 3)


def test_a_reader_that_goes_away_is_told_nothing(shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    done = shell(f"yes FOO | calcc {where} | head -1; echo ${{PIPESTATUS[1]}}")
    assert done.stdout.splitlines()[1:] == [b"141"]
    assert done.stderr == b""


def test_the_first_error_is_found_wherever_a_chunk_ends() -> None:
    requests = b"a\n\nb\nc\n\nd\ne\n"
    for replies, told in [
        (
            b"1\n2\n3\nERR X long\nERR Y\n",
            "errors: 2 of 5 replies, the first at line 6: ERR X long",
        ),
        (b"ERR X\n1\n1\n1\n1\n", "errors: 1 of 5 replies, the first at line 1: ERR X"),
        (b"1\n ERR\nERR\nERROR\n1\n", ""),
    ]:
        for size in range(1, len(replies) + 1):
            counter = counting.ReplyCounter()
            counter.add_requests(requests)
            for start in range(0, len(replies), size):
                counter.add_replies(replies[start : start + size])
            assert counter.error_summary() == told


def test_a_long_error_is_shown_in_part() -> None:
    counter = counting.ReplyCounter()
    counter.add_requests(b"a\n")
    for _ in range(3):
        counter.add_replies(b"ERR X " + b"1" * 1000)
    assert len(counter.error_summary()) < 300


def test_errors_of_the_command_line_are_not_counted() -> None:
    replies = b"ERR X\n1\nERR Y\n2\nERR Z\n"
    for size in range(1, len(replies) + 1):
        counter = counting.ReplyCounter()
        counter.add_arguments(b"a\nb\n")
        counter.add_requests(b"c\n\nd\ne\n")
        for start in range(0, len(replies), size):
            counter.add_replies(replies[start : start + size])
        assert counter.error_summary() == "errors: 2 of 3 replies, the first at line 1: ERR Y"
        assert counter.errors == 3
