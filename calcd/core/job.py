"""An expensive line as a job: what its reply depends on, and what it changes.

Jobs and outcomes can be written as JSON (RFC 8259), so that another process can do the work.
"""

import json
import math
import re
from decimal import Decimal
from typing import Any, NamedTuple, Self

from calcd.core.budget import Budget
from calcd.core.commands import CommandContext
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, code_of, to_wire
from calcd.core.interpreter import Interpreter
from calcd.core.messages import LANGUAGES

NO_MEMORY = "the request takes too much memory: split it"
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_MAX_SEARCHED = 4096  # characters of a line that is searched for the names that it uses


class State(NamedTuple):
    """What of its session a line can depend on, and can change.

    The values of ``variables`` are text. ``more_variables`` is how many others there are. The
    defaults are those of a new session.
    """

    precision: int = 34
    rounding: str = "half-even"
    exact: bool = False
    notation: str = "plain"
    language: str = "en"
    answer: str = ""
    variables: dict[str, str] = {}  # noqa: RUF012 (nothing changes it)
    more_variables: int = 0
    stats: tuple[tuple[str, int | float], ...] = ()  # only for STATS


class Job(NamedTuple):
    """A line without its end, one character for each byte, and the state of its session."""

    line: str
    state: State

    def to_json(self) -> bytes:
        """Return the job as one line of JSON, without its end."""
        return json.dumps({"line": self.line, "state": self.state._asdict()}).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return the job that ``to_json`` has written."""
        job = json.loads(text)
        return cls(job["line"], _state_from_json(job["state"]))


class Outcome(NamedTuple):
    """The reply to a job, and the state after it.

    ``reply`` is None for a blank line. ``state`` is None if the job was not done. ``bug`` is the
    traceback of an unexpected exception.
    """

    reply: str | None
    is_error: bool
    state: State | None = None
    pings: int = 0
    quit: bool = False
    bug: str = ""

    def to_json(self) -> bytes:
        """Return the outcome as one line of JSON, without its end."""
        state = self.state and self.state._asdict()
        return json.dumps(self._asdict() | {"state": state}).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return the outcome that ``to_json`` has written."""
        outcome = json.loads(text)
        state = outcome.pop("state")
        return cls(**outcome, state=state and _state_from_json(state))


def job_of(line: str, context: CommandContext) -> Job:
    """Return the job of a line, with the variables that it uses; a long line may use any."""
    names = set(context.variables)
    if names and len(line) <= _MAX_SEARCHED:
        names.intersection_update(_WORD.findall(line.lower()))
    state = _state_of(context, names)
    # Blanks alone make it expensive.
    if context.stats and line.strip(" \t").upper() == "STATS":
        state = state._replace(stats=tuple(context.stats()))
    return Job(line, state)


def run(job: Job) -> Outcome:
    """Do a job, however long it takes, and return its outcome."""
    state = job.state
    arithmetic = Arithmetic(*_arithmetic_of(state), Budget(math.inf))
    bugs: list[str] = []
    interpreter = Interpreter(
        arithmetic,
        on_bug=lambda _: bugs.append(_traceback()),
        language=LANGUAGES[state.language],
        stats=lambda: state.stats,
    )
    context, counters = interpreter.context, interpreter.counters
    context.answer = Decimal(state.answer) if state.answer else None
    context.variables = {name: Decimal(value) for name, value in state.variables.items()}
    context.more_variables = state.more_variables
    try:
        reply = interpreter.reply(job.line)
    except MemoryError:
        return failure(job, "INVALID-OPERATION", NO_MEMORY)
    after = _state_of(context, set(context.variables))
    is_error = counters.errors > 0
    return Outcome(reply, is_error, after, counters.pings, context.quit, "".join(bugs))


def failure(job: Job, code: str, template: str, *arguments: object) -> Outcome:
    """Return the outcome of a job that was not done; the reply is that of ``RequestError``."""
    translate = LANGUAGES[job.state.language].translate
    return Outcome(to_wire(RequestError(code, template, *arguments).reply(translate)), True)


def update(context: CommandContext, job: Job, outcome: Outcome) -> None:
    """Change the session that a job came from as its line does."""
    before, after = job.state, outcome.state
    if outcome.is_error and outcome.reply:
        context.counters.count_error(code_of(outcome.reply))
    context.counters.pings += outcome.pings
    context.quit = outcome.quit
    if after is None:
        return
    if _arithmetic_of(after) != _arithmetic_of(before):
        context.arithmetic = Arithmetic(*_arithmetic_of(after), context.arithmetic.budget)
    context.language = LANGUAGES[after.language]
    context.answer = Decimal(after.answer) if after.answer else None
    for name in before.variables.keys() - after.variables.keys():
        del context.variables[name]
    for name, value in after.variables.items():
        if before.variables.get(name) != value:
            context.variables[name] = Decimal(value)


def _arithmetic_of(state: State) -> tuple[int, str, bool, str]:
    return state.precision, state.rounding, state.exact, state.notation


def _state_of(context: CommandContext, names: set[str]) -> State:
    arithmetic, variables = context.arithmetic, context.variables
    return State(
        arithmetic.precision,
        arithmetic.rounding,
        arithmetic.exact,
        arithmetic.notation,
        context.language.name,
        "" if context.answer is None else str(context.answer),
        {name: str(value) for name, value in variables.items() if name in names},
        len(variables) - len(names) + context.more_variables,
    )


def _state_from_json(members: dict[str, Any]) -> State:
    state = State(**members)
    return state._replace(stats=tuple((name, number) for name, number in state.stats))


def _traceback() -> str:
    import traceback  # only after a bug

    return traceback.format_exc()
