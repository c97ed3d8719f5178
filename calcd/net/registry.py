"""The open connections: whom the stop has to wake, and waits for."""

import os
import socket
import threading
from collections.abc import Collection
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from calcd.net.stops import Stops

if TYPE_CHECKING:
    from calcd.net.connection import Handler

_STOP_PAUSE = 0.05  # seconds that a group of threads has before the next is woken


class Connections:
    """The handlers of all open connections. Methods may be called from any thread."""

    def __init__(self, most: int) -> None:
        """Make it for so many, about."""
        self._gone = threading.Condition()
        self._handlers: dict[socket.socket, Handler] = {}
        self._stops = Stops(most)

    def add(self, handler: "Handler") -> None:
        """Count a connection among the open ones."""
        self._handlers[handler.request] = handler

    def handler_of(self, connection: socket.socket) -> "Handler | None":
        """Give an open connection's handler."""
        return self._handlers.get(connection)

    def forget(self, connection: socket.socket) -> None:
        """Count a connection no longer: until now the stop waits for it."""
        with self._gone:
            self._handlers.pop(connection, None)
            self._gone.notify_all()

    def stop_of(self, connection: socket.socket) -> int:
        """Give the descriptor that is ready when this connection must stop."""
        return self._stops.of(connection)

    def stop(self, deadline: float) -> int:
        """Stop all connections; return how many were cut, as they were not done by then."""
        # Woken group by group; half of the time is for those that are busy.
        for left, stop in zip(range(len(self._stops), 0, -1), self._stops, strict=True):
            os.eventfd_write(stop, 1)
            told = [each for each in list(self._handlers) if self._stops.of(each) == stop]
            self._wait_for_end(told, min(_STOP_PAUSE, (deadline - monotonic()) / 2 / left))
        cut = self._wait_for_end(list(self._handlers), deadline - monotonic())
        for connection in cut:
            with suppress(OSError):  # it may be closed by now
                connection.shutdown(socket.SHUT_RDWR)
        return len(cut)

    def _wait_for_end(
        self, connections: Collection[socket.socket], seconds: float
    ) -> set[socket.socket]:
        """Wait until these connections have ended; return those that have not in ``seconds``."""
        with self._gone:
            self._gone.wait_for(lambda: self._handlers.keys().isdisjoint(connections), seconds)
            return self._handlers.keys() & set(connections)

    def close(self) -> None:
        """Close what they were woken with."""
        self._stops.close()
