"""Turns to compute, which threads get in the order of arrival."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep


class FairLock:
    """A lock that waiting threads get in the order of arrival.

    ``threading.Lock`` may be taken again at once by the thread that has just released it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for the two below
        self._held = False
        self._waiting: deque[threading.Lock] = deque()  # each is released to wake its thread

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()  # and the lock stays held, by that thread
            else:
                self._held = False


_MAX_REST = 0.005  # seconds


class Turns:
    """Turns for threads that have much to compute. The serving loop never waits for one.

    Only one thread has a turn, so that the serving loop shares the GIL with one other, however
    many clients send much work. Expensive lines are computed one at a time: the queue for a turn
    holds one of them at most, so that a cheap line never waits for several. A rest follows each.
    libmpdec holds the GIL, and without a rest every request would wait for such a line.
    """

    def __init__(self) -> None:
        self._turn = FairLock()
        self._expensive = FairLock()

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
