"""Memory of the C library: limit its arenas, and return free memory to the system.

The allocator keeps what a peak of clients has freed, as fragments between blocks in use. Without
trimming, a daemon holds the peak of each arena for ever.
"""

import ctypes
from contextlib import suppress
from time import monotonic

_M_ARENA_MAX, _ARENAS = -8, 2  # the option's number in malloc.h; its value
INTERVAL = 10.0  # seconds between two trims


class MemoryTrimmer:
    """Returns free memory to the system, at intervals."""

    def __init__(self) -> None:
        self._due = False  # clients were connected since the last trim
        self._last = 0.0

    def on_tick(self, connections: int) -> None:
        """Trim, if clients were connected since the last trim and the interval is over."""
        self._due = self._due or connections > 0
        if self._due and (now := monotonic()) - self._last >= INTERVAL:
            self._due, self._last = connections > 0, now
            trim()


def limit_arenas() -> None:
    """Let all threads share two arenas, with glibc (mallopt(3)); the default is 8 per core.

    The GIL lets one thread run at a time, so they seldom compete for an arena.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Return free memory to the system, with glibc (malloc_trim(3))."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
