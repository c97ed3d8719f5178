"""Connection: how it waits for a client that takes replies slowly, and errors of the network."""

import errno
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from sessions import new_session

from calcd.config.settings import Settings
from calcd.net.connection import Connection, Wait


class Poll:
    """A poll object and a clock, which each wait moves on."""

    def __init__(self, waits_for_room: int = 100) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self._waits_for_room = waits_for_room

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        if len(self.waits) == self._waits_for_room:
            return [(0, 0)]
        self.waits.append(milliseconds)
        self.now += milliseconds / 1000
        return []


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Give a connection that has eight seconds to take something."""
    with socket.socket() as sock:
        address = ("192.0.2.1", 1)
        yield Connection(sock, address, new_session(), Settings(send_timeout=8.0), stop_fd=-1)


@pytest.mark.parametrize(
    ("unacked", "waits_for_room", "waits", "room"),
    [
        ([900], 100, 8, False),
        ([900, 900, 900, 700], 100, 3 + 8, False),  # something was taken during the third wait
        ([900, 900, 900, 950], 100, 8, False),
        ([900], 5, 5, True),
    ],
)
def test_room_is_waited_for_as_long_as_the_client_takes_something(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    unacked: list[int],
    waits_for_room: int,
    waits: int,
    room: bool,
) -> None:
    poll, counts = Poll(waits_for_room), iter(unacked)

    def bytes_unacked(sock: socket.socket) -> int:
        assert sock is connection.sock
        return next(counts, unacked[-1])

    monkeypatch.setattr("calcd.net.connection.monotonic", lambda: poll.now)
    monkeypatch.setattr("calcd.net.connection.bytes_unacked", bytes_unacked)
    assert connection._block_for_room(cast("Any", poll)) == room
    assert poll.waits == waits * [1000.0]


class Broken(socket.socket):
    """A socket whose network fails."""

    error = OSError()

    def recv(self, *_: object) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "ehostunreach"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "reset"),
        (OSError("unknown"), "error"),
    ],
)
def test_an_error_of_the_network_ends_the_connection_and_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture, error: OSError, how: str
) -> None:
    caplog.set_level("DEBUG")
    with Broken() as sock:
        sock.error = error
        connection = Connection(sock, ("192.0.2.1", 1), new_session(), Settings(), stop_fd=-1)
        assert connection.step() is None
        connection.log_end()
    (line,) = caplog.messages
    assert line.startswith("connection 192.0.2.1:1 ended: requests=0 errors=0 ")
    assert line.endswith(f" how={how}")


class Slow(socket.socket):
    """A socket whose client asks once, and takes a few bytes at a time."""

    def recv(self, *_: object) -> bytes:
        return b"DIV 1 3\n"

    def send(self, data: Any, *_: object) -> int:
        return min(20, len(data))


def test_a_client_is_idle_since_it_took_the_last_of_its_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("calcd.net.connection.monotonic", lambda: clock[0])
    with Slow() as sock:
        connection = Connection(sock, ("192.0.2.1", 1), new_session(), Settings(), stop_fd=-1)
        assert connection.step() is Wait.WRITE
        clock[0] = 1005.0
        assert connection.step() is Wait.READ
    assert connection.idle_since == 1005.0
