"""A lock that threads get in the order of arrival."""

import threading
from collections import deque


class FairLock:
    """A lock that waiting threads get in the order of arrival.

    ``threading.Lock`` may be taken again at once by the thread that has just released it. Then a
    thread that asks in a loop makes the others wait for as long as it likes.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # for the two below
        self._owner: int | None = None  # a thread's identifier; 0: handed to the first that waited
        self._turns: deque[threading.Lock] = deque()  # each is released to wake its thread

    @property
    def locked(self) -> bool:
        """Return whether a thread has the lock."""
        return self._owner is not None

    @property
    def waiting(self) -> int:
        """Return how many threads wait."""
        return len(self._turns)

    def __enter__(self) -> None:
        """Wait for the lock. Raise RuntimeError if this thread has it."""
        me = threading.get_ident()
        with self._mutex:
            if self._owner is None:
                self._owner = me
                return
            if self._owner == me:  # in a signal handler
                raise RuntimeError("this thread waits for another reply of the same calculator")
            turn = threading.Lock()
            turn.acquire()
            self._turns.append(turn)
        try:
            turn.acquire()
        except BaseException:  # KeyboardInterrupt
            with self._mutex:
                if turn in self._turns:
                    self._turns.remove(turn)
                    raise
            self.__exit__()
            raise
        self._owner = me

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._turns:
                self._owner = 0
                self._turns.popleft().release()
            else:
                self._owner = None
