"""Closing connections without a reset.

A connection that is closed with input unread is reset, and the reset can overtake the last
reply. So a connection whose end the server decides is sent FIN first; then what its client
still sends is read and thrown away until the client closes too, has been quiet for a while,
or its time is over. One thread does this for all of them.
"""

import os
import selectors
import socket
import threading
from contextlib import suppress
from time import monotonic

QUIET = 1.0  # seconds without a byte after which a client is taken to have read its replies
LONGEST = 10.0  # seconds that a client is read from, however much it sends
MOST = 256  # connections parting at once; the oldest makes way for one more
_SWEEP = 0.05  # seconds between looks at who has been quiet or long enough
_CHUNK = 1 << 16


class Parting(threading.Thread):
    """The thread that sees connections out."""

    def __init__(self) -> None:
        super().__init__(name="parting", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        # Since when each connection parts, and when its client was last heard of.
        self._parting: dict[socket.socket, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._coming: list[socket.socket] = []
        self._ended = False
        self.quiet = QUIET
        self.most: float = MOST
        self._end_at: float | None = None  # the stop's deadline, once there is one

    def see_out(self, connection: socket.socket) -> None:
        """Take over a connection to which everything has been sent. Any thread may call this."""
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.setblocking(False)
        except OSError:  # its client has reset it
            connection.close()
            return
        with self._lock:
            if self._ended:
                connection.close()
                return
            self._coming.append(connection)
            self._wake_up()

    def finish(self, seconds: float) -> None:
        """See the last connections out, within ``seconds``, and end the thread."""
        with self._lock:
            if not self._ended:
                self._end_at = monotonic() + seconds
                self._wake_up()
        self.join()

    def _wake_up(self) -> None:
        with suppress(BlockingIOError):  # a full pipe wakes it as well
            os.write(self._wake, b"\0")

    def run(self) -> None:
        """Read away and close, until ``finish`` is called and nobody is left."""
        next_sweep = 0.0
        while not self._is_over():
            for key, _ in self._selector.select(_SWEEP if self._parting else None):
                if key.data is None:
                    os.read(self._woken, _CHUNK)
                else:
                    self._read_away(key.data)
            self._take_in()
            if monotonic() >= next_sweep:
                next_sweep = monotonic() + _SWEEP
                self._sweep()
        for connection in list(self._parting):
            self._close(connection)
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def _is_over(self) -> bool:
        with self._lock:
            if self._end_at is not None:
                anybody = self._parting or self._coming
                self._ended = not anybody or monotonic() >= self._end_at
            return self._ended

    def _take_in(self) -> None:
        with self._lock:
            coming, self._coming = self._coming, []
        now = monotonic()
        for connection in coming:
            self._selector.register(connection, selectors.EVENT_READ, connection)
            self._parting[connection] = (now, now)
        while len(self._parting) > self.most:
            self._close(next(iter(self._parting)))

    def _read_away(self, connection: socket.socket) -> None:
        try:
            if connection.recv(_CHUNK):
                since, _ = self._parting[connection]
                self._parting[connection] = (since, monotonic())
                return
        except BlockingIOError:
            return
        except OSError:  # reset by its client
            pass
        self._close(connection)

    def _sweep(self) -> None:
        now = monotonic()
        for connection, (since, heard) in list(self._parting.items()):
            if now > since + LONGEST or now > heard + self.quiet:
                self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._parting[connection]
        self._selector.unregister(connection)
        connection.close()
