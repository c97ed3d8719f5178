"""The C library's memory: how many arenas it has, and what is free given back to the system.

It keeps what a rush of clients has left free for the next one, in pieces between what is in use,
so that over days a daemon comes to hold the most that any moment has needed, in each arena.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

_M_ARENA_MAX, _ARENAS = -8, 2  # the number that malloc.h has for it
EVERY = 10.0  # seconds between two times, while there are clients
AFTER = 1.0  # seconds between two times, when the last client has gone


class Trim:
    """Gives memory back; to be called every now and then with the number of connections."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._due = False  # somebody has been there since the last time
        self._last = 0.0

    def __call__(self, connections: int) -> None:
        """Give back what is free, if somebody has been there and it is time."""
        self._due = self._due or connections > 0
        if self._due and self._clock() - self._last >= (EVERY if connections else AFTER):
            self._due, self._last = connections > 0, self._clock()
            give_back()


def limit_arenas() -> None:
    """Let all threads share two arenas, where the C library has such (mallopt(3), of glibc).

    It would make up to eight for each core. Threads take turns by the GIL, so they seldom meet.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give back what is free, where the C library can (malloc_trim(3), of glibc)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
