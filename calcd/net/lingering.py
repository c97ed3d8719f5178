"""Lingering close: a connection ends with FIN, and without a reset.

Linux resets a connection that is closed with input unread, or whose client sends more after the
close. A reset drops replies on their way. So FIN is sent first. Then input is read and discarded
until the client closes too, or all replies are acknowledged and nothing has come for a while, or
the time is over. One thread does this for all connections. nginx and Apache use the same name.
"""

import socket
import threading
from contextlib import suppress
from time import monotonic

from calcd.net.deadline import Deadline
from calcd.net.sockopt import bytes_unacked

LINGER_TIMEOUT = 1.0  # seconds without a byte, once all replies are acknowledged
LINGER_TIME = 10.0  # seconds for a client that keeps sending, and takes no more replies
LIMIT = 256  # connections at once; the oldest is closed for one more
_CHECK = 0.05  # seconds between two checks of them
_CHUNK, _CHUNKS = 1 << 16, 16  # bytes of one read, and reads of one connection at a check


class LingeringCloser(threading.Thread):
    """The thread that closes connections. Methods may be called from any thread."""

    def __init__(self) -> None:
        super().__init__(name="lingering", daemon=True)
        self.timeout = LINGER_TIMEOUT
        self.limit: float = LIMIT
        self._changed = threading.Condition()
        self._coming: list[socket.socket] = []
        self._deadline: Deadline | None = None  # the stop's, once there is one
        self._ended = False
        # The thread's own: since when the client has taken no more replies, when it last sent
        # something, and how many bytes it has not acknowledged.
        self._lingering: dict[socket.socket, tuple[float, float, int]] = {}

    def close(self, connection: socket.socket, closed: bool = False) -> None:
        """Close a connection to which everything has been sent.

        ``closed`` says that its client is known to have closed it.
        """
        try:
            if closed or _client_has_closed(connection):
                connection.close()
                return
            connection.shutdown(socket.SHUT_WR)
            connection.setblocking(False)
        except OSError:  # its client has reset it
            connection.close()
            return
        with self._changed:
            if self._ended:
                connection.close()
                return
            self._coming.append(connection)
            self._changed.notify()

    def finish(self, deadline: Deadline) -> None:
        """Close the last connections, until ``deadline``, and end the thread."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()
        self.join()

    def run(self) -> None:
        """Read, discard and close, until ``finish`` is called and no connection is left."""
        next_check = 0.0
        while not self._is_over():
            with self._changed:
                if not self._coming and (self._lingering or self._deadline is None):
                    wait = max(0, next_check - monotonic()) if self._lingering else None
                    self._changed.wait(wait)
                coming, self._coming = self._coming, []
            now = monotonic()
            self._lingering.update((connection, (now, now, 0)) for connection in coming)
            while len(self._lingering) > self.limit:
                self._close(next(iter(self._lingering)))
            if now >= next_check:
                next_check = now + _CHECK
                for connection in list(self._lingering):
                    self._check(connection, now)
        for connection in (*self._lingering, *self._coming):
            connection.close()

    def _is_over(self) -> bool:
        with self._changed:
            if self._deadline is not None:
                left = self._lingering or self._coming
                self._ended = not left or not self._deadline.left()
            return self._ended

    def _check(self, connection: socket.socket, now: float) -> None:
        since, heard, left = self._lingering[connection]
        try:
            with suppress(BlockingIOError):
                for _ in range(_CHUNKS):
                    if not connection.recv(_CHUNK):
                        self._close(connection)
                        return
                    heard = now
            still_left = bytes_unacked(connection)
        except MemoryError:  # the next check is soon enough
            return
        except OSError:  # its client has reset it
            self._close(connection)
            return
        if still_left < left:
            since = now  # its client still reads, however long it takes
        if (now > heard + self.timeout and not still_left) or now > since + LINGER_TIME:
            self._close(connection)
        else:
            self._lingering[connection] = (since, heard, still_left)

    def _close(self, connection: socket.socket) -> None:
        del self._lingering[connection]
        connection.close()


def _client_has_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
