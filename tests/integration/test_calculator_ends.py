"""Calculator and a server that ends in the middle of something."""

import socket
import threading
from functools import partial
from pathlib import Path

import pytest
from client_helpers import HOST, Servers, receive
from helpers import TIMEOUT

from calcd.client import Calculator

connect = partial(Calculator, HOST, timeout=TIMEOUT)


@pytest.mark.parametrize("more", [b"2", b"2\n", b"\n", b"E"])
def test_half_a_reply_too_many_is_an_error(more: bytes, serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"SOMA 2 2\n")
        connection.sendall(b"4\n" + more)
        connection.recv(100)  # until the calculator has ended it

    with connect(serve(script)) as calculator, pytest.raises(ConnectionAbortedError):
        calculator.evaluate("SOMA 2 2")


def test_what_was_answered_before_the_server_took_no_more_is_read(serve: Servers) -> None:
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
    serve: Servers, tmp_path: Path
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
    with Calculator(path=path, timeout=TIMEOUT) as calculator:
        assert closed.wait(TIMEOUT)
        assert calculator.evaluate_many(["a", "b"]) == [1, 2]
