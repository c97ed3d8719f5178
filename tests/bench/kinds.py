"""The kinds of lines that scripts send, beside ``bc`` on the same lines in its own spelling.

The answers are worked out here for both, by the rules of each, as those of the sums are.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import ROUND_HALF_EVEN, Decimal, DecimalException
from functools import partial
from itertools import islice
from typing import NamedTuple

from . import sums
from .load import Bench, Contestant, Row
from .sums import Pair

_DEPTH = 1000  # requests that are sent ahead
_CENT = Decimal("0.01")


class Line(NamedTuple):
    """A line and its answer, as calcd is asked and as bc is."""

    ours: str
    answer: Decimal
    theirs: str
    their_answer: Decimal


class Kind(NamedTuple):
    """A kind of lines, the least rate that calcd should have of bc's, and what bc is told first."""

    name: str
    lines: Callable[[random.Random], Iterator[Line]]
    bar: float = 0.6
    first: str = "scale=34"

    def pairs(self, count: int) -> dict[str, list[Pair]]:
        """Give requests and replies of calcd and of bc: always the same ones."""
        lines = list(islice(self.lines(random.Random(1)), count))
        ours = [(f"{line.ours}\n", f"{sums.plain(line.answer)}\n") for line in lines]
        theirs = [(f"{line.theirs}\n", f"{sums.of_bc(line.their_answer)}\n") for line in lines]
        theirs[0] = (f"{self.first};{theirs[0][0]}", theirs[0][1])
        return {"calcd": ours, "bc": theirs}


def measure(bench: Bench) -> Iterator[Row]:
    """Throughput of one connection that sends lines of one kind ahead."""

    def rate(whom: Contestant) -> float:
        return bench.ask(whom, 1, _DEPTH).rate

    with ExitStack() as stack:
        started = bench.start(stack, "calcd", "bc")
        for number, kind in enumerate(KINDS):
            turns = {}
            for name, pairs in kind.pairs(len(bench.sums)).items():
                if name in started:
                    file = sums.write(bench.directory / f"kind-{number}.{name}", pairs)
                    turns[name] = partial(rate, started[name]._replace(lines=file))
            measured = bench.by_turns(turns)
            if "bc" in measured:
                bc = measured["bc"]
                yield Row(kind.name, "/s", measured["calcd"], "bc", bc, kind.bar, at_least=True)
            else:
                yield Row(kind.name, "/s", measured["calcd"])


def _operations(chance: random.Random) -> Iterator[Line]:
    while True:
        left, sign, right = sums.random_sum(chance)
        ours = f"{sums.NAMES[sign]} {left} {right}"
        yield _line(ours, f"{left} {sign} {right}", sign, Decimal(left), Decimal(right))


def _line(ours: str, theirs: str, sign: str, left: Decimal, right: Decimal) -> Line:
    answers = sums.decimal128(sign, left, right), sums.scaled(sign, left, right)
    return Line(ours, answers[0], theirs, answers[1])


def _column(chance: random.Random) -> Iterator[Line]:
    while True:
        texts = [_number(chance) for _ in range(3)]
        first, second, third = map(Decimal, texts)
        ours = sums.decimal128("+", sums.decimal128("+", first, second), third)
        theirs = sums.scaled("+", sums.scaled("+", first, second), third)
        yield Line(f"SOMA {' '.join(texts)}", ours, " + ".join(texts), theirs)


def _product(chance: random.Random) -> Iterator[Line]:
    while True:
        left, right = _number(chance), _number(chance)
        theirs = f"{left} * {right}"
        yield _line(f"Mul {left} {right}", theirs, "*", Decimal(left), Decimal(right))


def _rounded(chance: random.Random) -> Iterator[Line]:
    while True:
        number = Decimal(10 * chance.randrange(10**8) + chance.randint(1, 9)).scaleb(-4)  # no tie
        yield _to_cents(f"ROUND {number:f} 2", f"({number:f}+.005)/1", number)


def _taxed(spelling: str, chance: random.Random) -> Iterator[Line]:
    while True:
        number = Decimal(chance.randrange(1, 10**8)).scaleb(-2)
        if number % 1 != Decimal("0.50"):  # whose tax may be a tie
            # With as many decimals as that, bc drops none of the product.
            theirs = f"({number}*.2300+.005)/1"
            yield _to_cents(spelling.format(number), theirs, number * Decimal("0.23"))


def _to_cents(ours: str, theirs: str, number: Decimal) -> Line:
    answer = number.quantize(_CENT, rounding=ROUND_HALF_EVEN)
    return Line(ours, answer, theirs, sums.cut(number + _CENT / 2, 2))


def _running(spelling: str, chance: random.Random) -> Iterator[Line]:
    ours = theirs = Decimal(0)
    before = "0"  # so that the list can be asked again
    while True:
        number = _number(chance)
        ours = sums.decimal128("+", ours, Decimal(number))
        theirs = sums.scaled("+", theirs, Decimal(number))
        yield Line(spelling.format(before, number), ours, f"(s=s+{number})", theirs)
        before = "ans"


def _assigned(chance: random.Random) -> Iterator[Line]:
    while True:
        number = _number(chance)
        yield Line(f"x = {number}", Decimal(number), f"(x={number})", Decimal(number))


def _square_roots(chance: random.Random) -> Iterator[Line]:
    while True:
        number = Decimal(chance.randrange(101, 10**8)).scaleb(-2)
        theirs = sums.cut(sums.EXACT.sqrt(number), sums.DIGITS)
        yield Line(f"SQRT {number}", sums.square_root(number), f"sqrt({number})", theirs)


def _number(chance: random.Random) -> str:
    """Give a number as tables have it: 1 to 9 digits before the point, and up to 4 after it."""
    places = chance.randrange(5)
    return f"{Decimal(chance.randrange(10 ** (chance.randint(1, 9) + places))).scaleb(-places):f}"


class _Tree(NamedTuple):
    """An expression, and its value by the rules of calcd and of bc."""

    text: str
    precedence: int
    ours: Decimal
    theirs: Decimal

    def within(self, precedence: int) -> str:
        return self.text if self.precedence >= precedence else f"({self.text})"


def _mixed(spelling: str, chance: random.Random) -> Iterator[Line]:
    while True:
        try:
            tree = _tree(chance, chance.randint(3, 5), chance.choice(("", " ")))
        except DecimalException:  # a division by zero
            continue
        yield Line(spelling.format(tree.text), tree.ours, tree.text, tree.theirs)


def _tree(chance: random.Random, numbers: int, blank: str) -> _Tree:
    """Give a random expression with so many numbers, and blanks around its operators."""
    if numbers == 1:
        text = _number(chance)
        return _Tree(text, 3, Decimal(text), Decimal(text))
    on_left = chance.randrange(1, numbers)
    left, right = _tree(chance, on_left, blank), _tree(chance, numbers - on_left, blank)
    sign = chance.choice("+-*/")
    precedence = 1 if sign in "+-" else 2
    return _Tree(
        f"{left.within(precedence)}{blank}{sign}{blank}{right.within(precedence + 1)}",
        precedence,
        sums.decimal128(sign, left.ours, right.ours),
        sums.scaled(sign, left.theirs, right.theirs),
    )


TAXED = Kind("round(a*0.23, 2)", partial(_taxed, "round({}*0.23, 2)"), first="scale=2")
MIXED = Kind("= a+b*(c-d)/e, mixed", partial(_mixed, "= {}"))
KINDS = (
    Kind("SOMA a b, SUB, MUL, DIV", _operations, bar=1.7),
    Kind("SOMA a b c", _column),
    Kind("Mul a b", _product),
    Kind("ROUND a 2", _rounded, first="scale=2"),
    Kind("= round(a*0.23, 2)", partial(_taxed, "= round({}*0.23, 2)"), first="scale=2"),
    TAXED,
    Kind("= ans + a", partial(_running, "= {} + {}"), first="scale=34;s=0"),
    Kind("ans + a", partial(_running, "{} + {}"), first="scale=34;s=0"),
    Kind("x = a", _assigned),
    MIXED,
    Kind("a+b*(c-d)/e, mixed", partial(_mixed, "{}")),
    Kind("SQRT a", _square_roots, bar=4),
)
