"""The connections that the serving loop watches, in the order of their deadlines."""

import math
from collections.abc import Iterator

from calcd.net.connection import Connection


class IdleConnections:
    """Connections that wait for their client, by descriptor. Of the serving loop alone.

    Those with the same ``idle_timeout``, which a reload may change, stand in the order in which
    they were added. That is the order of their deadlines, so only the first has to be looked at.
    """

    def __init__(self) -> None:
        self._by_timeout: dict[float, dict[int, Connection]] = {}
        self._disordered: set[float] = set()  # timeouts where the order is another

    def add(self, connection: Connection, is_last: bool = True) -> None:
        """Add a connection; ``is_last``: none with its timeout has a later deadline."""
        timeout = connection.idle_timeout
        self._by_timeout.setdefault(timeout, {})[connection.sock.fileno()] = connection
        if not is_last:
            self._disordered.add(timeout)

    def pop(self, fd: int) -> Connection | None:
        """Remove and return the connection with this descriptor, if there is one."""
        for connections in self._by_timeout.values():  # nearly always one
            if connection := connections.pop(fd, None):
                return connection
        return None

    def pop_expired(self, now: float) -> Iterator[Connection]:
        """Remove and yield those whose ``idle_deadline`` is over; ``now`` is as ``monotonic``."""
        for timeout in self._disordered & self._by_timeout.keys():
            in_order = sorted(self._by_timeout[timeout].items(), key=_idle_deadline)
            self._by_timeout[timeout] = dict(in_order)
        self._disordered.clear()
        for timeout, connections in list(self._by_timeout.items()):
            while connections:
                fd, connection = next(iter(connections.items()))
                if connection.idle_deadline > now:
                    break
                del connections[fd]
                yield connection
            else:
                del self._by_timeout[timeout]

    def pop_all(self) -> list[Connection]:
        """Remove and return all."""
        found = [each for connections in self._by_timeout.values() for each in connections.values()]
        self._by_timeout.clear()
        return found

    @property
    def next_deadline(self) -> float:
        """The earliest ``idle_deadline``, after ``pop_expired``; infinity if there is none."""
        firsts = (next(iter(each.values()), None) for each in self._by_timeout.values())
        return min((first.idle_deadline for first in firsts if first), default=math.inf)


def _idle_deadline(client: tuple[int, Connection]) -> float:
    return client[1].idle_deadline
