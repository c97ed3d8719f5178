"""Threads that are reused, so that a new connection need not start one."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Any

# Idle threads that are kept. To start one takes the serving loop several hand-overs of the GIL,
# five times as long as a short connection. To keep it takes 26 KiB.
KEPT = 32


class IdleThreads:
    """Runs each job in a thread of its own: an idle one, else a new one.

    At most ``KEPT`` idle threads are kept. They are daemon threads: a job that does not end does
    not hold up the exit.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._idle = 0  # threads that wait, less the jobs that are queued for them
        self._ended = False
        self._threads: set[threading.Thread] = set()

    def run(self, job: Callable[[], Any]) -> None:
        """Run ``job``, which must not raise; RuntimeError if the system refuses a thread."""
        with self._lock:
            idle = self._idle > 0
            if idle:
                self._idle -= 1
        if not idle:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        with self._lock:
            self._threads.add(threading.current_thread())
        stay = True
        while stay and (job := self._jobs.get()) is not None:
            job()
            del job  # an idle thread must not keep the last connection's objects
            with self._lock:
                stay = not self._ended and self._idle < KEPT
                self._idle += stay
        with self._lock:
            self._threads.discard(threading.current_thread())

    def end(self, seconds: float) -> None:
        """End the idle threads and wait for all of them, ``seconds`` at most."""
        deadline = monotonic() + seconds
        with self._lock:
            self._ended = True
            idle, self._idle = self._idle, 0
            threads = list(self._threads)
        for _ in range(idle):
            self._jobs.put(None)
        for thread in threads:
            thread.join(max(0, deadline - monotonic()))
