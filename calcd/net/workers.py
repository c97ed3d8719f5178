"""The pool of workers, which do expensive lines as jobs: see ``calcd.core.job``.

libmpdec holds the GIL during an operation, so an expensive line in the daemon would delay all of
its clients. A process of its own delays nobody, and the kernel ends it when its time is over.
"""

import logging
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import calcd
from calcd.config.settings import Settings
from calcd.core.job import NO_MEMORY, Job, Outcome, failure
from calcd.net import worker
from calcd.net.fairqueue import FairQueue

log = logging.getLogger(__name__)

_MAX_QUEUED, _MAX_QUEUED_OF_HOST = 1024, 256  # jobs that wait for a worker
_CHUNK = 1 << 16  # bytes of one read
_DIRECTORY = str(Path(calcd.__file__).parents[1])


# What is called with the outcome of a job, or with None if too many jobs wait.
Done = Callable[[Outcome | None], None]
Submit = Callable[[str, Job, Done], None]  # see Workers.submit


class Task(NamedTuple):
    """A job, and what to call with its outcome."""

    job: Job
    done: Done


class Worker:
    """A process, or a thread of the daemon, that does one job at a time.

    ``cpu_limit`` is in seconds for each job; 0 makes it a thread, which has no limit.
    """

    def __init__(self, cpu_limit: float) -> None:
        """Start it; raise OSError or RuntimeError if the system refuses that."""
        self.cpu_limit = cpu_limit
        self.task: Task | None = None
        self.pid = 0
        self._unsent, self._received = b"", bytearray()
        with ExitStack() as at_error, ExitStack() as at_spawn:
            jobs, self.input = os.pipe()
            at_error.callback(os.close, self.input)
            at_spawn.callback(os.close, jobs)
            self.output, outcomes = os.pipe()
            at_error.callback(os.close, self.output)
            at_spawn.callback(os.close, outcomes)
            os.set_blocking(self.input, False)
            os.set_blocking(self.output, False)
            if cpu_limit:
                self.pid = _spawn(cpu_limit, jobs, outcomes)
            else:
                _start_thread(jobs, outcomes)
                at_spawn.pop_all()  # the thread closes them
            at_error.pop_all()

    def start(self, task: Task) -> bool:
        """Give it a task; return whether all of it was written."""
        self.task = task
        self._unsent = task.job.to_json() + b"\n"
        return self.write()

    def write(self) -> bool:
        """Write more of its task; return whether all of it was written."""
        with suppress(BlockingIOError):
            try:
                self._unsent = self._unsent[os.write(self.input, self._unsent) :]
            except BrokenPipeError:  # its output ends too
                self._unsent = b""
        return not self._unsent

    def read(self) -> Outcome | None:
        """Read; return the outcome if it is complete. Raise EOFError if the worker has ended."""
        try:
            part = os.read(self.output, _CHUNK)
        except BlockingIOError:  # what was ready was an earlier descriptor of this number
            return None
        if not part:
            raise EOFError
        self._received += part
        if not part.endswith(b"\n"):
            return None
        outcome = Outcome.from_json(bytes(self._received))
        self._received.clear()
        return outcome

    def close(self) -> int:
        """End it, whatever it does; return a process's wait status."""
        os.close(self.input)
        os.close(self.output)
        if not self.pid:
            return 0
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # no effect once it has ended
        return os.waitpid(self.pid, 0)[1]


def _spawn(cpu_limit: float, jobs: int, outcomes: int) -> int:
    """Start a process that reads and writes these descriptors; return its pid."""
    # Not fork: another thread may hold a lock. The descriptors are closed on exec.
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-S", "-P", "-m", worker.__name__, str(cpu_limit)],
        {**os.environ, "PYTHONPATH": _DIRECTORY},
        file_actions=[(os.POSIX_SPAWN_DUP2, jobs, 0), (os.POSIX_SPAWN_DUP2, outcomes, 1)],
    )


def _start_thread(jobs: int, outcomes: int) -> None:
    def work() -> None:
        with suppress(BrokenPipeError), open(jobs, "rb") as reader, open(outcomes, "wb") as writer:
            worker.serve(reader, writer)

    threading.Thread(target=work, name="worker", daemon=True).start()


class Workers:
    """Starts workers when there is something to do, and gives them tasks in a fair order.

    Only ``submit`` may be called by any thread; all else is for the serving loop.
    """

    def __init__(self, poll: select.epoll) -> None:
        """Register what is to be served with ``poll``."""
        self._poll = poll
        self._workers: dict[int, Worker] = {}  # by the descriptor of their output
        self._unsent: dict[int, Worker] = {}  # of a task that was not all written; by their input
        self._start_failed = False  # and was logged
        self._queue: FairQueue[Task] = FairQueue(_MAX_QUEUED, _MAX_QUEUED_OF_HOST)
        self._lock = threading.Lock()  # for the next two
        self._submitted: deque[tuple[str, Task]] = deque()
        self._closed = False
        # A semaphore: one submitted job at a time. A client whose job is refused submits the next.
        self._wake_fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        poll.register(self._wake_fd, select.EPOLLIN)

    def submit(self, host: str, job: Job, done: Done) -> None:
        """Have a job done for a client of ``host``; the serving loop will call ``done``.

        After the end nothing is done.
        """
        with self._lock:
            if not self._closed:
                self._submitted.append((host, Task(job, done)))
                os.eventfd_write(self._wake_fd, 1)

    def serve(self, fd: int, settings: Settings) -> None:
        """Serve a descriptor that is ready, if it is one of these."""
        if fd == self._wake_fd:
            with self._lock:
                os.eventfd_read(fd)
                host, task = self._submitted.popleft()
            if not self._queue.put(host, task):
                task.done(None)
        elif fd in self._unsent:
            if self._unsent[fd].write():
                self._poll.unregister(fd)
                del self._unsent[fd]
        elif fd in self._workers:
            self._read(self._workers[fd])
        self.adjust(settings)

    def adjust(self, settings: Settings) -> None:
        """Give tasks to idle workers, and keep as many workers as the settings say."""
        cpu_limit = settings.line_cpu_timeout if settings.workers else 0.0
        count = settings.workers or 1
        for each in list(self._workers.values()):
            if not each.task and (each.cpu_limit != cpu_limit or len(self._workers) > count):
                self._remove(each)
        idle = [each for each in self._workers.values() if not each.task]
        while self._queue and (idle or len(self._workers) < count):
            if idle:
                chosen = idle.pop()
            else:
                try:
                    chosen = Worker(cpu_limit)
                except (OSError, RuntimeError, MemoryError) as error:
                    if not self._start_failed:
                        self._start_failed = True
                        log.error("cannot start a worker: %s", error)
                    if not self._workers:
                        self._refuse_all()
                    return
                self._start_failed = False
                self._workers[chosen.output] = chosen
                self._poll.register(chosen.output, select.EPOLLIN)
            if not chosen.start(self._queue.get()):
                self._unsent[chosen.input] = chosen
                self._poll.register(chosen.input, select.EPOLLOUT)

    def close(self) -> None:
        """End all workers, whatever they do."""
        for each in list(self._workers.values()):
            self._remove(each)
        with self._lock:
            self._closed = True
            os.close(self._wake_fd)

    def _refuse_all(self) -> None:
        while self._queue:
            self._queue.get().done(None)

    def _read(self, ready: Worker) -> None:
        """Take a worker's outcome, or see what has ended it."""
        task, cpu_limit = ready.task, ready.cpu_limit
        try:
            outcome = ready.read()
        except Exception:  # it has ended, or has written no outcome
            status = self._remove(ready)
            log.warning("worker %d ended: %s", ready.pid, _reason(status, cpu_limit))
            if task:
                task.done(_failure(task.job, status, cpu_limit))
            return
        if outcome and task:
            if outcome.bug:
                log.error("a bug, met by a worker:\n%s", outcome.bug)
            ready.task = None
            task.done(outcome)

    def _remove(self, ended: Worker) -> int:
        """End a worker; return its wait status."""
        del self._workers[ended.output]
        self._poll.unregister(ended.output)
        if self._unsent.pop(ended.input, None):
            self._poll.unregister(ended.input)
        return ended.close()


def warn_without_workers(settings: Settings) -> None:
    """Log what it means that there are no worker processes."""
    if not settings.workers:
        log.warning(
            "workers = 0: expensive lines have no time limit, and all clients wait for them"
        )


def _reason(status: int, cpu_limit: float) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return f"its line took more than {cpu_limit:g} s of CPU time"
    if code == worker.NO_MEMORY:
        return "no memory for its line"
    if code < 0:
        known = -code in list(signal.Signals)  # real-time signals have no names
        return signal.Signals(-code).name if known else f"signal {-code}"
    return f"exit status {code}"


def _failure(job: Job, status: int, cpu_limit: float) -> Outcome:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        template = "the request takes more than {} s of CPU time: use fewer digits, or split it"
        return failure(job, "INVALID-OPERATION", template, f"{cpu_limit:g}")
    if code == worker.NO_MEMORY:
        return failure(job, "INVALID-OPERATION", NO_MEMORY)
    return failure(job, "INTERNAL", "the process that worked on it was ended: ask again")
