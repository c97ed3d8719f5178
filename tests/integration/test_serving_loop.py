"""The serving loop answers prompt clients without a thread, and waits for none of them."""

import select
import socket
import threading
from contextlib import suppress

import pytest
from helpers import Daemons, ask, connect_with_little_room, read_all, request_all, wait_until
from load import load_on
from serving import serving

from calcd.core.budget import CALL_LIMIT
from calcd.core.session import Session


def threads() -> int:
    """Count the threads that connections have, or have had."""
    return sum(thread.name == "connection" for thread in threading.enumerate())


def test_a_client_that_asks_once_needs_no_thread() -> None:
    before = threads()
    with serving() as (server, connect):
        for requests, replies in ((b"SOMA 2 2\n", b"4\n"), (b"QUIT\n", b"BYE\n"), (b"", b"")):
            with connect() as connection:
                assert request_all(connection, requests) == replies
        wait_until(lambda: server.limiter.active == 0, "the connections to be counted out")
        assert threads() == before


def test_a_bulk_of_requests_with_their_end_needs_none_either() -> None:
    before = threads()
    with serving() as (server, connect), connect() as connection:
        connection.sendall(400 * b"SOMA 2 2\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == 400 * b"4\n"
        wait_until(lambda: server.limiter.active == 0, "the connections to be counted out")
        assert threads() == before


def test_half_a_line_whose_end_has_arrived_needs_none_either() -> None:
    before = threads()
    with serving() as (_, connect), connect() as connection:
        for _ in range(100):
            # A read ends before a byte that was sent as urgent: here the newline.
            connection.send(b"PING\n", socket.MSG_OOB)
            assert connection.recv(100) == b"PONG\n"
        assert threads() == before


def test_a_client_that_asks_again_at_once_needs_none_either() -> None:
    before = threads()
    with serving() as (_, connect), connect() as connection:
        replies = [ask(connection, b"SUB %d 1\n" % number) for number in range(1, 101)]
        assert threads() == before
    assert replies == [b"%d\n" % number for number in range(100)]


def test_a_client_that_falls_silent_needs_none_either() -> None:
    before = threads()
    with serving() as (_, connect), connect() as connection:
        assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        assert select.select([connection], [], [], 0.5)[0] == []  # ten rounds of housekeeping
        assert threads() == before
        assert ask(connection, b"SOMA 2 3\n") == b"5\n"


def test_blank_lines_do_not_keep_a_silent_client() -> None:
    with serving(idle_timeout=0.3) as (_, connect), connect() as connection:
        connection.settimeout(0.02)
        with pytest.raises((ConnectionError, EOFError)):
            send_blank_lines(connection)


def send_blank_lines(connection: socket.socket) -> None:
    """Send some until the server has closed the connection; raise EOFError then."""
    for _ in range(1000):
        connection.sendall(b"\n")
        with suppress(TimeoutError):
            assert connection.recv(10) == b""
            raise EOFError


@pytest.mark.parametrize(
    ("further", "rest", "replies"),
    [
        (b"PIN", b"G\n", b"PONG\n"),
        (2000 * b"PING\n", b"QUIT\n", 2000 * b"PONG\n" + b"BYE\n"),
    ],
    ids=["has begun a line", "asks a great deal at once"],
)
def test_others_get_a_thread(further: bytes, rest: bytes, replies: bytes) -> None:
    before = threads()
    with serving() as (_, connect), connect() as connection:
        assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        connection.sendall(further)
        wait_until(lambda: threads() > before, "a thread")
        assert request_all(connection, rest) == replies


def test_replies_that_a_client_takes_slowly_are_all_sent(start_daemon: Daemons) -> None:
    daemon = start_daemon("--precision", "1000", "--max-line", "5000")
    requests = 500
    with connect_with_little_room((daemon.host, daemon.port)) as connection:
        replies = request_all(connection, requests * b"DIV 1 3\n")
    assert replies == requests * (b"0." + 1000 * b"3" + b"\n")


def test_the_deadlines_are_those_of_any_client(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.4", "--line-timeout", "0.4", "--message-wait", "0")
    with daemon.connect() as idle, daemon.connect() as started:
        assert ask(idle, b"SOMA 2 2\n") == b"4\n"
        started.sendall(b"SUB 2")
        assert read_all(started).startswith(b"ERR TIMEOUT ")
        assert read_all(idle) == b""
    daemon.logs("how=idle-timeout", 1)
    daemon.logs("how=line-timeout", 1)


def test_a_stop_ends_those_who_stand_there(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    with daemon.connect() as connection:
        assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        assert daemon.stop() == 0
        assert read_all(connection) == b""
    daemon.logs("requests=1 errors=0 .* how=stopped$")


def test_a_reset_and_a_bug_end_only_their_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError("a bug")

    caplog.set_level("DEBUG")
    with serving() as (server, connect):
        with connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with monkeypatch.context() as patch, connect() as connection:
            patch.setattr(Session, "receive", broken)
            connection.sendall(b"PING\n")
            assert read_all(connection) == b""
        with connect() as connection:
            assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        wait_until(lambda: server.limiter.active == 0, "the connections to be counted out")
    assert "a bug ended it" in caplog.text
    assert [caplog.text.count(f"how={end}") for end in ("reset", "bug", "closed")] == [1, 1, 1]


def test_a_stop_among_many_busy_clients_cuts_nobody(start_daemon: Daemons) -> None:
    leaving = start_daemon("--reuse-port", "yes")
    start_daemon("--reuse-port", "yes", "-l", f"tcp://127.0.0.1:{leaving.port}")
    with load_on("127.0.0.1", leaving.port, clients=200) as result:
        assert leaving.stop() == 0
    assert "stopped: 0 connections cut" in leaving.log
    assert (result.wrong, result.lost) == (0, 0)


def test_the_loop_does_little_for_a_client_whose_job_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = []
    resume = Session.resume

    def record(session: Session, limit: float = CALL_LIMIT) -> bytes:
        if threading.current_thread().name != "connection":
            limits.append(limit)
        return resume(session, limit)

    monkeypatch.setattr(Session, "resume", record)
    expensive, others = b"= " + b"+".join(30 * [b"exp(1.1)"]) + b"\n", 1000 * b"SOMA 1 1\n"
    with serving(workers=0) as (_, connect), connect() as connection:
        replies = request_all(connection, expensive + others)
    assert replies.count(b"\n") == 1001
    assert set(limits) == {CALL_LIMIT}
