"""Turns to work, which threads get in the order of arrival."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep


class FairSemaphore:
    """A semaphore that waiting threads get in the order of arrival.

    ``threading.Semaphore`` may be taken again at once by the thread that has just released it.
    """

    def __init__(self, value: int = 1) -> None:
        """Let ``value`` threads in at the same time."""
        self._lock = threading.Lock()  # for the two below
        self._free = value
        self._waiting: deque[threading.Lock] = deque()  # each is released to wake its thread

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()  # that thread has the place from now on
            else:
                self._free += 1


# Each thread that works competes with the serving loop for the GIL. A second one may compute while
# the first is in a system call or does TLS's cryptography, which need no GIL.
_AT_ONCE = 2
_MAX_REST = 0.005  # seconds


class Turns:
    """Turns for the threads of connections and datagrams. The serving loop never waits for one.

    Few threads have a turn at the same time, so that the serving loop shares the GIL with few,
    however many clients send much work. Expensive lines are computed one at a time: the queue for
    a turn holds one of them at most, so that a cheap line never waits for several. A rest follows
    each. libmpdec holds the GIL, and without a rest every request would wait for such a line.
    """

    def __init__(self) -> None:
        self._turn = FairSemaphore(_AT_ONCE)
        self._expensive = FairSemaphore()

    @contextmanager
    def take(self, expensive: bool) -> Iterator[None]:
        """Wait for a turn, and have it; ``expensive`` says whether it is for such a line."""
        if expensive:
            with self._expensive:
                began = monotonic()
                with self._turn:
                    yield
                sleep(min(_MAX_REST, monotonic() - began))
        else:
            with self._turn:
                yield
