"""Closing connections without a reset.

A connection that is closed with input unread is reset, and so is one whose client sends more
after the close; a reset drops replies on their way. So a connection whose end the server
decides is sent FIN first. Then what its client still sends is read and thrown away until the
client closes too, or all replies have arrived and it has been quiet, or its time is over. One
thread does this for all of them.
"""

import socket
import threading
from contextlib import suppress
from time import monotonic

from calcd.net.sockopt import undelivered

QUIET = 1.0  # seconds without a byte, either way, after which nobody waits for anything
LONGEST = 10.0  # seconds for a client that keeps sending, and takes no more replies
MOST = 256  # connections parting at once; the oldest makes way for one more
_LOOK = 0.05  # seconds between looks at them
_CHUNK, _CHUNKS = 1 << 16, 16  # bytes, and how often, one connection is read from at a look


class Parting(threading.Thread):
    """The thread that sees connections out."""

    def __init__(self) -> None:
        super().__init__(name="parting", daemon=True)
        self.quiet = QUIET
        self.most: float = MOST
        self._changed = threading.Condition()
        self._coming: list[socket.socket] = []
        self._end_at: float | None = None  # the stop's deadline, once there is one
        self._ended = False
        # The thread's own: since when each connection has taken no more replies, when it was
        # last heard of, and how many bytes it has still to take.
        self._parting: dict[socket.socket, tuple[float, float, int]] = {}

    def see_out(self, connection: socket.socket, closed: bool = False) -> None:
        """Take over a connection to which everything has been sent. Any thread may call this.

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

    def finish(self, seconds: float) -> None:
        """See the last connections out, within ``seconds``, and end the thread."""
        with self._changed:
            self._end_at = monotonic() + seconds
            self._changed.notify()
        self.join()

    def run(self) -> None:
        """Read away and close, until ``finish`` is called and nobody is left."""
        next_look = 0.0
        while not self._is_over():
            with self._changed:
                if not self._coming and (self._parting or self._end_at is None):
                    wait = max(0, next_look - monotonic()) if self._parting else None
                    self._changed.wait(wait)
                coming, self._coming = self._coming, []
            now = monotonic()
            self._parting.update((connection, (now, now, 0)) for connection in coming)
            while len(self._parting) > self.most:
                self._close(next(iter(self._parting)))
            if now >= next_look:
                next_look = now + _LOOK
                for connection in list(self._parting):
                    self._look_at(connection, now)
        for connection in (*self._parting, *self._coming):
            connection.close()

    def _is_over(self) -> bool:
        with self._changed:
            if self._end_at is not None:
                anybody = self._parting or self._coming
                self._ended = not anybody or monotonic() >= self._end_at
            return self._ended

    def _look_at(self, connection: socket.socket, now: float) -> None:
        since, heard, left = self._parting[connection]
        try:
            with suppress(BlockingIOError):
                for _ in range(_CHUNKS):
                    if not connection.recv(_CHUNK):
                        self._close(connection)
                        return
                    heard = now
            still_left = undelivered(connection)
        except MemoryError:  # the next look is soon enough
            return
        except OSError:  # its client has reset it
            self._close(connection)
            return
        if still_left < left:
            since = now  # its client still reads, however long it takes
        if (now > heard + self.quiet and not still_left) or now > since + LONGEST:
            self._close(connection)
        else:
            self._parting[connection] = (since, heard, still_left)

    def _close(self, connection: socket.socket) -> None:
        del self._parting[connection]
        connection.close()


def _client_has_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
