"""The dearest line that anyone can find: what one client can make the others wait.

``python3 -m tests.dearest`` looks for it, and prints the dearest with their times.
"""

import random
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from calcd.arithmetic import Arithmetic
from calcd.session import Session

PRECISION = 1000
MAX_LINE = 1024


class Line(NamedTuple):
    """A line, and those that are to come before it in its session."""

    line: str
    before: tuple[str, ...] = ()


class Times(NamedTuple):
    """The seconds of this thread that a line took, at the most in one call of each kind."""

    receive: float
    go_on: float
    line: Line

    @property
    def dearest(self) -> float:
        return max(self.receive, self.go_on)


def measured(line: Line, times: int = 1, precision: int = PRECISION) -> Times:
    """Ask for a line so many times in one read."""
    session = Session(Arithmetic(precision), MAX_LINE)
    for before in line.before:
        session.receive(before.encode() + b"\n")
        while session.unanswered:
            session.go_on()
    begun = time.thread_time()
    session.receive(times * (line.line.encode() + b"\n"))
    receive, go_on = time.thread_time() - begun, 0.0
    while session.unanswered and not session.finished:
        begun = time.thread_time()
        session.go_on()
        go_on = max(go_on, time.thread_time() - begun)
    return Times(receive, go_on, line)


def candidates() -> Iterator[Line]:
    """Give what is known to be dear, or looks so."""
    near = ("x = 1+1e-999",)
    third = ("x = 1/3",)
    for before in (near, third):
        for name in ("EXP", "LN", "LOG", "RAIZ", "NEG"):
            yield Line(f"{name} x", before)
        for name in ("ln", "log", "exp", "sqrt"):
            for many in (2, 16):
                yield Line(f"= {'+'.join(many * [f'{name}(x)'])}", before)
        for exponent in ("0.5", "x", "-1/7", *(f"1e{n}" for n in (3, 20, 300, 600, 999, 1003))):
            yield Line(f"= x^({exponent})", before)
        yield Line("POT x " + "7" * 1000, before)
        yield Line("POT x 0." + "7" * 1000, before)
        for mark in "+-*/%":
            yield Line(f"= {mark.join(510 * ['x'])}", before)
        for name in ("SOMA", "MUL", "MIN", "MAX"):
            yield Line(f"{name}{' x' * 500}", before)
    # Results that are nearly half-way between two numbers of 34 digits, or of 300.
    for digits in (34, 300, 900):
        half = f"2.{(digits - 1) * '3'}5"
        for making, name in (("exp", "ln"), ("ln", "exp"), ("10^", "log")):
            made = (f"x = {making}({half})", f"PRECISION {digits}")
            for many in (1, 16):
                yield Line(f"= {'+'.join(many * [f'{name}(x)'])}", made)
    yield Line("POT x 0.5", ("x = 1+1000000000000000000000001e-999",))
    yield Line("POT x 0.5", ("x = 1+1000000000000000000000001e-90",))
    for distance in (1, 2, 50, 90, 100, 102):
        for name in ("LN x", "LOG x", "POT x 0.3", "POT x 1e100"):
            yield Line(name, (f"x = 1+6e-{distance}",))
            yield Line(name, (f"x = 1-1e-{distance}+7e-1000",))
    for distance in (998, 999):
        yield Line("LN x", (f"x = 1-1e-{distance}",))
        yield Line("LN x", ("PRECISION 900", f"x = 1-1e-{distance - 100}"))
    for distance in (100, 300, 500, 600, 700):
        power = (f"x = 1+1e-{distance}+1e-999", f"y = 1e{distance}", f"z = 9e{distance}+7")
        for name in "yz":
            yield Line(f"POT x {name}", power)
            yield Line(f"= x^{name}+x^-{name}", power)
    yield Line("FAT 1000")
    yield Line("FAT 480")
    yield Line("= " + "+".join(110 * ["fact(480)"])[: MAX_LINE - 2])
    yield Line("= " + "+".join(110 * ["e"]))
    yield Line("= " + "*".join(330 * ["pi"]))
    yield Line("= " + "^".join(50 * ["1.000001"]))
    yield Line("= " + "(" * 50 + "1" + ")" * 50)
    yield Line("= " + "-" * 1000 + "1")
    yield Line("= " + "sqrt(" * 49 + "ln(2)" + ")" * 49)
    yield Line("= " + "+".join(80 * ["round(x,999)"])[:1000] + "x", third)
    yield Line("VARS", tuple(f"x{number} = 1/{number + 3}" for number in range(100)))
    for name in ("DIV", "MUL", "RESTO", "QUOC", "POT", "SUB"):
        yield Line(f"{name} {'7' * 500} {'3' * 500}")
        yield Line(f"{name} 1e999 7")
        yield Line(f"{name} 1e6000 {'3' * 500}")


def random_lines(seed: int) -> Iterator[Line]:
    """Give lines of functions and operators on numbers of all sizes, without end."""
    dice = random.Random(seed)

    def number() -> str:
        digits = "".join(dice.choices("0123456789", k=dice.choice((1, 3, 30, 300))))
        near = f"{dice.choice('+-')}1e-{dice.choice((1, 30, 300, 600, 900, 999))}"
        return dice.choice(
            (digits, f"1.{digits}", f"(1{near})", f"{digits}e{dice.choice((-999, 99))}")
        )

    def term(deep: int) -> str:
        if not deep or dice.random() < 0.3:
            return dice.choice((number, lambda: "x", lambda: "pi", lambda: "e"))()
        if dice.random() < 0.5:
            function = dice.choice(("exp", "ln", "log", "sqrt", "fact", "abs"))
            return f"{function}({term(deep - 1)})"
        return f"({term(deep - 1)}{dice.choice('+-*/%^^')}{term(deep - 1)})"

    while True:
        line = f"= {term(4)}"
        if len(line) <= MAX_LINE:
            yield Line(line, (f"x = {number()}/7",))


def search(seconds: float, seed: int = 0) -> list[Times]:
    """Measure the candidates, then random lines for so long; the dearest first."""
    found = [measured(line) for line in candidates()]
    until = time.monotonic() + seconds
    for line in random_lines(seed):
        if time.monotonic() > until:
            break
        found.append(measured(line))
    return sorted(found, key=lambda each: each.dearest, reverse=True)


def main() -> None:
    """Print the dearest lines."""
    seconds = float(sys.argv[1]) if sys.argv[1:] else 10.0
    found = search(seconds)
    print(f"{len(found)} lines of at most {MAX_LINE} bytes, at {PRECISION} digits; milliseconds:")
    print("receive  go_on  line")
    shown = [*found[:10], *sorted(found, key=lambda each: each.receive, reverse=True)[:5]]
    for receive, go_on, (line, before) in shown:
        print(f"{receive * 1e3:7.1f}{go_on * 1e3:7.1f}  {'; '.join((*before, line))[:90]}")


if __name__ == "__main__":
    main()
