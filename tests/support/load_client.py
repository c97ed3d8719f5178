"""Clients that ask on and on, all in one thread, and know what they must be told."""

import selectors
import socket
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from helpers import TIMEOUT, bytes_unacked

_SHALLOW, _DEEP = 5, 1000  # requests that are not answered yet


class LoadClient:
    """Asks the same questions over and over, so many ahead, until the server ends.

    A reset raises ConnectionResetError, wherever it is met.
    """

    def __init__(
        self, connection: socket.socket, pairs: Sequence[tuple[bytes, bytes]], deep: bool
    ) -> None:
        self.connection = connection
        connection.setblocking(False)
        self._ahead = _DEEP if deep else _SHALLOW
        self._pairs = pairs
        # The bytes up to the end of each request, to see how many have arrived.
        self._ends = list(accumulate(len(request) for request, _ in pairs))
        self.asked = 0
        self._sent = 0  # bytes
        self._unsent = b""
        self._received = bytearray()
        self.answered = 0
        self.ended = self._asks_no_more = False

    def look(self) -> None:
        """Read what is there, and send what may be sent."""
        try:
            part = self.connection.recv(1 << 16)
        except BlockingIOError:
            pass
        else:
            self._received += part
            self.answered += part.count(b"\n")
            self.ended = not part
        if not (self._unsent or self._asks_no_more) and self.asked - self.answered < self._ahead:
            for _ in range(self._ahead - (self.asked - self.answered)):
                self._unsent += self._pairs[self.asked % len(self._pairs)][0]
                self.asked += 1
        if self._unsent and not self.ended:
            try:
                sent = self.connection.send(self._unsent)
            except BlockingIOError:
                return
            self._sent += sent
            self._unsent = self._unsent[sent:]

    def half_close(self) -> None:
        """Ask no more; what is still to be sent is sent first."""
        self._asks_no_more = True
        self.connection.setblocking(True)
        self.connection.settimeout(TIMEOUT)
        self.connection.sendall(self._unsent)
        self._unsent = b""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.setblocking(False)

    def arrived(self) -> int:
        """Count the requests that the server's kernel has acknowledged."""
        arrived = self._sent - bytes_unacked(self.connection)
        rounds, rest = divmod(arrived, self._ends[-1])
        return rounds * len(self._ends) + bisect_right(self._ends, rest)

    def wrong(self) -> bytes:
        """Give what was received from the first byte on that is wrong; an unfinished line is."""
        replies = b"".join(reply for _, reply in self._pairs)
        right = replies * (len(self._received) // len(replies) + 1)
        received = bytes(self._received)
        if right.startswith(received):
            return received[received.rfind(b"\n") + 1 :]
        at = next(i for i, (a, b) in enumerate(zip(received, right, strict=False)) if a != b)
        return received[at : at + 100]


def run_clients(clients: Sequence[LoadClient], until: Callable[[], bool]) -> None:
    """Let all of them ask, until something holds."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.connection, selectors.EVENT_READ, client)
            client.look()
        while not until():
            ready = selector.select(TIMEOUT)
            assert ready, "no client is answered"
            for key, _ in ready:
                key.data.look()
                if key.data.ended:
                    selector.unregister(key.fileobj)
