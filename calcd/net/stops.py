"""The stop, as threads that wait for their clients hear of it.

All woken at once would fight for the interpreter longer than they have work to do: so each
belongs to one of several groups, which are woken one after the other.
"""

import os
import socket
from collections.abc import Iterator

_GROUPS = 128  # at the most
_THREADS = 32  # that a group has, where there need not be more groups


class Stops:
    """Descriptors, one for each group of threads, that are ready when its threads must stop."""

    def __init__(self, connections: int) -> None:
        """Make as many groups as so many connections need."""
        groups = max(1, min(_GROUPS, connections // _THREADS))
        self._descriptors = [os.eventfd(0) for _ in range(groups)]

    def of(self, connection: socket.socket) -> int:
        """Give the descriptor that a connection's thread is to wait for."""
        return self._descriptors[connection.fileno() % len(self._descriptors)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._descriptors)

    def __len__(self) -> int:
        return len(self._descriptors)

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self._descriptors:
            os.close(descriptor)
