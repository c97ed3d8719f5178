"""Registry of open connections, used to drain them at the stop."""

import os
import socket
import threading
from collections.abc import Callable

from calcd.net.connection import Connection
from calcd.net.deadline import Deadline

# Threads that are woken together. Thousands at once fight for the GIL for longer than they have
# work to do: 9,000 took 12 s at once, and 4 s in groups.
_GROUP = 32
_MAX_GROUPS = 128
_GROUP_PAUSE = 0.05  # seconds that a group has before the next is woken


class Registry:
    """All open connections, by their socket. Methods may be called from any thread."""

    def __init__(self, expected: int) -> None:
        """Make enough groups for ``expected`` connections; more may be registered."""
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, Connection] = {}
        self._on_remove: Callable[[], None] = lambda: None  # while a drain waits
        groups = max(1, min(_MAX_GROUPS, expected // _GROUP))
        self._stop_fds = [os.eventfd(0) for _ in range(groups)]

    def stop_fd(self, sock: socket.socket) -> int:
        """Return the descriptor that becomes readable when this socket's connection must stop."""
        return self._stop_fds[sock.fileno() % len(self._stop_fds)]

    def add(self, connection: Connection) -> None:
        """Register a connection."""
        with self._lock:
            self._connections[connection.sock] = connection

    def get(self, sock: socket.socket) -> Connection | None:
        """Return the connection of a socket; None if it is not registered."""
        with self._lock:
            return self._connections.get(sock)

    def connections(self) -> list[Connection]:
        """Return those that are registered."""
        with self._lock:
            return list(self._connections.values())

    def remove(self, sock: socket.socket) -> None:
        """Remove a connection; until then a drain waits for it."""
        with self._lock:
            self._connections.pop(sock, None)
        self._on_remove()

    def drain(
        self, deadline: Deadline, wait: Callable[[float], object], wake: Callable[[], None]
    ) -> list[Connection]:
        """Wake all connections, wait for their end until ``deadline``, and cut the rest.

        ``wait`` waits for so many seconds, or until another thread has called ``wake``, as it must
        if the deadline is brought forward. Return the connections that were cut.
        """
        self._on_remove = wake
        half = Deadline(deadline.left() / 2)  # the rest is for busy connections
        woken: set[socket.socket] = set()
        for stop_fd in self._stop_fds:
            os.eventfd_write(stop_fd, 1)
            woken |= {sock for sock in self._sockets() if self.stop_fd(sock) == stop_fd}
            if len(woken) >= _GROUP:
                pause = min(_GROUP_PAUSE, half.left(), deadline.left())  # it may have passed by now
                self._wait_for(woken, Deadline(pause), wait)
                woken.clear()
        self._wait_for(self._sockets(), deadline, wait)
        cut = [each for sock in self._sockets() if (each := self.get(sock))]
        for connection in cut:
            connection.cut()
        return cut

    def close(self) -> None:
        """Close the descriptors."""
        for stop_fd in self._stop_fds:
            os.close(stop_fd)
        self._stop_fds = []

    def _sockets(self) -> set[socket.socket]:
        with self._lock:
            return {sock for sock in self._connections if sock.fileno() >= 0}

    def _wait_for(
        self, sockets: set[socket.socket], deadline: Deadline, wait: Callable[[float], object]
    ) -> None:
        """Wait until these connections have ended, or ``deadline``."""
        while left := deadline.left():
            with self._lock:
                if self._connections.keys().isdisjoint(sockets):
                    return
            wait(left)
