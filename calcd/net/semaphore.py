"""A semaphore that threads get in the order of arrival."""

import threading
from collections import deque


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
