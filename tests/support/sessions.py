"""Sessions, and what a connection does with what is pending in one."""

from collections.abc import Callable
from typing import Protocol

from calcd.core.decimal128 import Arithmetic
from calcd.core.interpreter import Interpreter
from calcd.core.job import Job, Outcome, run
from calcd.core.session import Session


def new_session(
    precision: int = 34,
    rounding: str = "half-even",
    exact: bool = False,
    max_line: int = 1024,
    on_request: Callable[[str, str], None] | None = None,
    on_bug: Callable[[str], None] | None = None,
    notation: str = "plain",
) -> Session:
    arithmetic = Arithmetic(precision, rounding, exact, notation)
    return Session(Interpreter(arithmetic, on_request, on_bug), max_line)


class Resumable(Protocol):
    """What ``Session`` and ``TlsSession`` have in common, as far as it is needed here."""

    @property
    def pending(self) -> bool: ...

    @property
    def job(self) -> Job | None: ...

    def receive(self, data: bytes) -> bytes: ...

    def resume(self) -> bytes: ...

    def complete(self, outcome: Outcome | None) -> bytes: ...


def answered(session: Resumable, *reads: bytes) -> bytes:
    """Give a session these reads, with time for all of each; return its replies."""
    replies = b""
    for read in reads:
        replies += session.receive(read)
        replies += finished(session)
    return replies


def finished(session: Resumable) -> bytes:
    """Let a session process all that is pending, and do its jobs; return its replies."""
    replies = b""
    while session.pending:
        if job := session.job:
            # As another process does it.
            outcome = run(Job.from_json(job.to_json()))
            replies += session.complete(Outcome.from_json(outcome.to_json()))
        else:
            replies += session.resume()
    return replies
