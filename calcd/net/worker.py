"""A worker: reads jobs and writes their outcomes, as lines of JSON. See ``calcd.core.job``.

As a process it reads standard input, writes standard output, and ends at the end of its input. A
job that takes more CPU time than the argument says, in seconds, ends the process: the kernel sends
SIGPROF. To run one by hand::

    python3 -m calcd.net.worker 0.25
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from typing import IO

from calcd.core.job import Job, run

NO_MEMORY = 12  # exit status; ENOMEM
_NICENESS = 5  # added to the daemon's
_MAX_MEMORY = 1 << 29  # bytes of address space


def serve(jobs: IO[bytes], outcomes: IO[bytes], cpu_limit: float = 0) -> None:
    """Do jobs until there are no more; 0: the CPU time of a job has no limit.

    A limit must only be given in a process that may be ended.
    """
    for line in jobs:
        if cpu_limit:
            signal.setitimer(signal.ITIMER_PROF, cpu_limit)
        outcome = run(Job.from_json(line)).to_json()
        if cpu_limit:
            signal.setitimer(signal.ITIMER_PROF, 0)
        outcomes.write(outcome + b"\n")
        outcomes.flush()


def main() -> None:
    """Serve as a process."""
    with suppress(OSError):  # a sandbox may refuse it
        os.nice(_NICENESS)
    _lower_limit(resource.RLIMIT_AS, _MAX_MEMORY)
    _lower_limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]))
    except MemoryError:
        sys.exit(NO_MEMORY)
    except (BrokenPipeError, KeyboardInterrupt):
        pass


def _lower_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or value < hard:
        hard = value
    resource.setrlimit(kind, (hard, hard))


if __name__ == "__main__":
    main()
