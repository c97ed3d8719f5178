"""LingeringCloser: connections are closed after a FIN, and without a reset."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from helpers import TIMEOUT, read_all, wait_until

from calcd.net.deadline import Deadline
from calcd.net.lingering import LingeringCloser


@pytest.fixture
def closer() -> Iterator[LingeringCloser]:
    """Give a running thread that sees connections out."""
    thread = LingeringCloser()
    thread.start()
    yield thread
    thread.finish(Deadline(5))


def connected() -> tuple[socket.socket, socket.socket]:
    """Give a client's end and the server's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), TIMEOUT)
        return client, listener.accept()[0]


def send_until_full(server: socket.socket) -> int:
    """Send until there is no more room on the way to the client; return how many bytes."""
    server.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += server.send(b"x" * 65536)
    return sent


def test_the_last_word_arrives_however_much_is_unread(closer: LingeringCloser) -> None:
    client, server = connected()
    with client:
        client.sendall(b"x" * 100_000)
        server.sendall(b"the last word")
        closer.close(server)
        client.sendall(b"x" * 2_000_000)
        assert read_all(client) == b"the last word"


def test_it_ends_when_the_client_closes(
    closer: LingeringCloser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calcd.net.lingering.LINGER_TIME", 2 * TIMEOUT)
    closer.timeout = 2 * TIMEOUT
    client, server = connected()
    closer.close(server)
    client.close()
    wait_until(lambda: server.fileno() == -1, "the server to close")


def test_it_ends_when_the_client_has_been_quiet(
    closer: LingeringCloser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calcd.net.lingering.LINGER_TIME", 2 * TIMEOUT)
    closer.timeout = 0.2
    client, server = connected()
    with client:
        closer.close(server)
        wait_until(lambda: server.fileno() == -1, "the server to close")


def test_it_ends_although_the_client_keeps_sending(
    closer: LingeringCloser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calcd.net.lingering.LINGER_TIME", 0.3)
    closer.timeout = 2 * TIMEOUT
    client, server = connected()

    def closed_on_us() -> bool:
        try:
            client.sendall(b"x")
        except ConnectionError:
            return True
        return False

    with client:
        closer.close(server)
        wait_until(closed_on_us, "the server to close")


def test_the_oldest_makes_way(closer: LingeringCloser) -> None:
    closer.timeout, closer.limit = TIMEOUT, 2
    pairs = [connected() for _ in range(4)]
    for _, server in pairs:
        closer.close(server)
        wait_until(lambda: not closer._coming, "the thread to take it over")
    wait_until(lambda: pairs[1][1].fileno() == -1, "two to make way")
    assert [server.fileno() == -1 for _, server in pairs] == [True, True, False, False]
    for client, _ in pairs:
        client.close()


def test_a_connection_that_comes_too_late_is_closed_at_once() -> None:
    ended = LingeringCloser()
    ended.start()
    ended.finish(Deadline(1))
    client, server = connected()
    with client:
        ended.close(server)
        assert server.fileno() == -1
        assert read_all(client) == b""


def test_a_client_that_has_not_taken_all_of_it_is_not_quiet(closer: LingeringCloser) -> None:
    closer.timeout = 0.1
    client, server = connected()
    with client:
        sent = send_until_full(server)
        closer.close(server)
        time.sleep(0.5)
        client.sendall(b"more")  # which would be answered with a reset, were it closed
        assert len(read_all(client)) == sent


def test_a_client_that_takes_its_replies_slowly_and_keeps_sending_loses_none(
    closer: LingeringCloser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calcd.net.lingering.LINGER_TIME", 0.3)
    client, server = connected()
    with client:
        sent = send_until_full(server)
        closer.close(server)
        received = 0
        while part := client.recv(max(sent // 20, 1)):
            received += len(part)
            if received < sent * 3 // 4:
                client.sendall(b"more")
                time.sleep(0.05)
        assert received == sent


def test_the_end_is_seen_whenever_it_is_told() -> None:
    for _ in range(200):
        short = LingeringCloser()
        short.start()
        short.finish(Deadline(TIMEOUT))
        assert not short.is_alive()


def test_it_does_not_hold_up_the_exit() -> None:
    closer = LingeringCloser()
    assert (closer.name, closer.daemon) == ("lingering", True)


def test_it_sleeps_until_there_is_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in this thread, with a clock that only its waits move on."""
    clock, reads, waits, closer = [1000.0], [], [], LingeringCloser()
    client, server = connected()

    def stop() -> None:
        closer._deadline = Deadline(10)

    events = [  # what happens during each wait
        lambda: closer.close(server),
        lambda: client.sendall(b"more"),
        stop,
        lambda: None,  # a connection that lingers holds up the end
        client.close,
    ]

    def wait(seconds: float | None = None) -> None:
        waits.append((seconds, server.fileno() == -1))
        clock[0] += seconds or 0
        events.pop(0)()

    def now() -> float:
        reads.append(clock[0])
        assert len(reads) < 100, "it spins"
        return clock[0]

    monkeypatch.setattr("calcd.net.lingering.monotonic", now)
    monkeypatch.setattr("calcd.net.deadline.monotonic", now)
    monkeypatch.setattr("calcd.net.lingering._CHECK", 0.25)
    monkeypatch.setattr(closer._changed, "wait", wait)
    closer.run()
    assert not events
    assert waits == [(None, False), *4 * [(0.25, False)]]
    assert server.fileno() == -1
