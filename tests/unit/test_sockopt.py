"""Socket options that Python has no names for, on connections of this process."""

import socket
from collections.abc import Iterator

import pytest
from helpers import TIMEOUT, wait_until

from calcd.net.sockopt import acknowledge_now, bytes_readable, bytes_unacked


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), TIMEOUT)
        with client, listener.accept()[0] as server:
            yield client, server


def test_what_was_delayed_is_acknowledged_at_once(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    _, server = ends
    quickack = socket.IPPROTO_TCP, socket.TCP_QUICKACK
    server.setsockopt(*quickack, 0)
    assert server.getsockopt(*quickack) == 0
    acknowledge_now(server)
    assert server.getsockopt(*quickack) == 1


def test_a_unix_socket_has_nothing_to_acknowledge() -> None:
    left, right = socket.socketpair()
    with left, right:
        acknowledge_now(left)


def test_bytes_are_counted_on_both_sides(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    assert bytes_readable(server) == bytes_unacked(client) == 0
    client.sendall(b"x" * 300)
    wait_until(lambda: bytes_readable(server) == 300, "the bytes to arrive")
    wait_until(lambda: bytes_unacked(client) == 0, "their acknowledgement")
