"""Runs the load generator, and lets contestants take turns."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

from . import programs, sums
from .programs import BenchError, MissingError

_SUMS = 40_000  # distinct ones; a list that is through begins again


class Load(NamedTuple):
    """What one run of the load generator came to; waits in seconds, one request at a time."""

    answers: int
    seconds: float
    median: float
    p99: float
    longest: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


class Contestant(NamedTuple):
    """Who is asked, where, and in which words; ``lines`` is a file of other lines than sums."""

    name: str
    dialect: sums.Dialect
    target: str
    lines: Path | None = None


class Bench:
    """What all figures need: a directory, how long and how often to measure, the programs."""

    def __init__(
        self,
        directory: Path,
        seconds: float,
        rounds: int,
        quick: bool = False,
        python: str = sys.executable,
    ) -> None:
        self.directory = directory
        self.python = python  # that runs calcd
        self.seconds = seconds
        self.rounds = rounds
        self.quick = quick
        self.notes: list[str] = []  # what is missing
        self.sums = sums.random_sums(_SUMS // 20 if quick else _SUMS)
        self._built: dict[str, Path] = {}
        self.build("ask")

    def build(self, name: str) -> Path:
        """Compile a program, once."""
        if name not in self._built:
            self._built[name] = programs.build(name, self.directory)
        return self._built[name]

    def calcd(
        self,
        name: str,
        *options: str,
        scheme: str = "tcp",
        port: int = 0,
        variables: Mapping[str, str] = MappingProxyType({}),
        before: str = "",
    ) -> AbstractContextManager[programs.Calcd]:
        """Run calcd, with a log of that name; see ``programs.calcd``."""
        endpoint = f"{scheme}://127.0.0.1:{port}"
        log = self.log(name)
        return programs.calcd(
            self.python, log, endpoint, *options, variables=variables, before=before
        )

    def start(self, stack: ExitStack, *names: str) -> dict[str, Contestant]:
        """Start contestants, until ``stack`` is closed; one that is missing is noted."""
        started = {}
        for name in names:
            try:
                target = self._start(stack, name)
            except MissingError as missing:
                if (note := f"left out: {missing}") not in self.notes:
                    self.notes.append(note)
            else:
                started[name] = Contestant(name, getattr(sums, name, sums.echo), target)
        return started

    def _start(self, stack: ExitStack, name: str) -> str:
        log = self.log(name)
        if name == "calcd":
            return str(stack.enter_context(self.calcd(name)).port)
        if name == "redis":
            return str(stack.enter_context(programs.redis(log)))
        if name == "bc":
            return "{},{}".format(*stack.enter_context(programs.bc(log)))
        if name == "bare":
            return str(stack.enter_context(programs.bare(self.python, log)))
        return str(stack.enter_context(programs.echo(self.build("echo"), log)))

    def log(self, name: str) -> Path:
        """Give the path of a program's log."""
        return self.directory / f"{name}.log"

    def ask(self, whom: Contestant, clients: int, depth: int, seconds: float = 0) -> Load:
        """Ask, and check every answer; ``BenchError`` where one is wrong."""
        with self.asking(whom, clients, depth, seconds or self.seconds) as process:
            said, complaint = process.communicate()
        if process.returncode:
            raise BenchError(f"{whom.name}: {complaint.strip() or process.returncode}")
        answers, took, *waits = said.split()
        middle, p99, longest = (int(wait) / 1e9 for wait in waits)
        return Load(int(answers), float(took), middle, p99, longest)

    @contextmanager
    def asking(
        self, whom: Contestant, clients: int, depth: int, seconds: float
    ) -> Iterator[subprocess.Popen[str]]:
        """Let the load generator ask; wait for its end."""
        file = whom.lines or self.directory / f"{whom.dialect.__name__}.sums"
        if not file.exists():
            sums.write(file, map(whom.dialect, self.sums))
        program = self.build("ask-tls" if whom.target.startswith("tls:") else "ask")
        pipes = [int(fd) for fd in whom.target.split(",")] if "," in whom.target else []
        process = subprocess.Popen(
            [program, file, f"{seconds:g}", f"{clients}", f"{depth}", whom.target],
            pass_fds=pipes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:  # which has a bound of its own
            yield process

    def by_turns(self, turns: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Measure each in turn, every other round the other way about."""
        measured: dict[str, list[float]] = {name: [] for name in turns}
        for turn in range(self.rounds):
            for name in list(turns)[:: -1 if turn % 2 else 1]:
                measured[name].append(turns[name]())
        return measured


class Row(NamedTuple):
    """One figure: a ratio of medians, or a median alone where there is nothing to compare."""

    what: str
    unit: str
    ours: Sequence[float]
    peer: str = ""
    theirs: Sequence[float] = ()
    bar: float | None = None
    at_least: bool = False  # else the bar is the most it may be

    @property
    def value(self) -> float:
        """What is held against the bar."""
        return median(self.ours) / (median(self.theirs) if self.theirs else 1)

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds; None: there is none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar
