"""The table of arithmetic operations, and how a request is split into name and operands.

Operations follow the General Decimal Arithmetic specification (Cowlishaw, version 1.70) where it
has them.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property, partial, reduce
from typing import Any, Self

from calcd.core import elementary
from calcd.core.errors import RequestError

_BLANKS = " \t"
_SLOW_COST = 950  # of an operation with few enough digits, beyond a pass over them
_FIELD = re.compile(r"[^ \t]+")


@dataclass(frozen=True)
class Operation:
    """A row of the table: help, the number of operands and errors come from it.

    ``names`` are in upper case; help shows the first. ``operands`` are their names in help:
    ``[x]`` is optional, ``[x...]`` may be repeated any number of times, and ``x...`` is the rest
    of the line. ``function`` takes the context and the operands. ``example`` is a request, and
    ``example_reply`` its reply in a new session. An operation that takes more than a pass over the
    digits has ``cheap_digits``: with more it is expensive.
    """

    names: tuple[str, ...]
    operands: tuple[str, ...]
    help: str
    example: str
    example_reply: str
    function: Callable[..., Any]
    cheap_digits: int | None = None

    @classmethod
    def from_help(
        cls, line: str, function: Callable[..., Any], cheap_digits: int | None = None
    ) -> Self:
        """Make a row from a line such as ``ADD|PLUS x [y...]: the sum; ADD 1 2 -> 3``."""
        usage, _, rest = line.partition(": ")
        text, _, rest = rest.partition("; ")
        example, _, reply = rest.partition(" -> ")
        names, *operands = usage.split()
        return cls(
            tuple(names.split("|")), tuple(operands), text, example, reply, function, cheap_digits
        )

    @cached_property
    def min_operands(self) -> int:
        """The smallest number of operands."""
        return sum(not operand.startswith("[") for operand in self.operands)

    @cached_property
    def max_operands(self) -> float:
        """The largest number of operands; it may be infinite."""
        return math.inf if self.operands and "...]" in self.operands[-1] else len(self.operands)

    @cached_property
    def takes_text(self) -> bool:
        """Whether the operand is the rest of the line, as it is."""
        return self.operands != () and self.operands[-1].endswith("...")

    @property
    def usage(self) -> tuple[str, ...]:
        """The form of a request, such as ``("SUB", "minuend", "subtrahend")``."""
        return self.names[0], *self.operands

    def cost(self, precision: int, numbers: Sequence[Decimal]) -> float:
        """Return the cost of the operation on these numbers, in the units of ``Budget``."""
        digits = max(precision, *map(elementary.digits_of, numbers))
        cost = (60 + 0.3 * digits) * max(1, len(numbers) - 1)
        if self.cheap_digits is None:
            return cost
        return cost + _SLOW_COST if digits <= self.cheap_digits else math.inf

    def split(self, rest: str) -> list[str]:
        """Split what follows the name into operands, without counting them."""
        if self.takes_text:
            return [rest] if rest else []
        return _FIELD.findall(rest)

    def operands_of(self, rest: str) -> list[str]:
        """Split what follows the name into operands; raise WRONG-OPERANDS for a wrong number."""
        operands = self.split(rest)
        self.check(len(operands))
        return operands

    def check(self, count: int) -> None:
        """Raise ``RequestError`` WRONG-OPERANDS unless ``count`` operands are allowed."""
        minimum, maximum = self.min_operands, self.max_operands
        if minimum <= count <= maximum:
            return
        limit = minimum if count < minimum else maximum
        arguments = [limit, ("operand" if limit == 1 else "operands",), count, self.usage]
        if maximum == 0:
            template = "{} takes no operands, got {}: {}"
            arguments = [count, self.usage]
        elif minimum == maximum:
            template = "{} needs {} {}, got {}: {}"
        elif count < minimum:
            template = "{} needs at least {} {}, got {}: {}"
        else:
            template = "{} takes at most {} {}, got {}: {}"
        raise RequestError("WRONG-OPERANDS", template, self.names[0], *arguments)


def split_request(request: str) -> tuple[str, str]:
    """Return the name as it was typed and the rest of the request; ``("", "")`` if it is blank."""
    stripped = request.strip(_BLANKS)
    name = _FIELD.match(stripped)
    if name is None:
        return "", ""
    return name[0], stripped[name.end() :].lstrip(_BLANKS)


def _each(method: Callable[[Context, Decimal, Decimal], Decimal]) -> Callable[..., Decimal]:
    """Extend an operation on two numbers to more, from left to right."""
    return lambda context, *numbers: reduce(partial(method, context), numbers)


_row = Operation.from_help

ADD = _row(
    "SOMA|ADD augend addend [addend...]: the sum of the numbers; SOMA 0.1 0.2 -> 0.3",
    _each(Context.add),
)
SUBTRACT = _row(
    "SUB minuend subtrahend: the first number minus the second; SUB 5 3 -> 2", Context.subtract
)
MULTIPLY = _row(
    "MUL multiplicand multiplier [multiplier...]: the product of the numbers; MUL 0.1 0.2 -> 0.02",
    _each(Context.multiply),
)
DIVIDE = _row(
    "DIV dividend divisor: the first number divided by the second; DIV 1 8 -> 0.125",
    Context.divide,
)
POWER = _row(
    "POT|POW base exponent: the first number to the power of the second; POT 2 10 -> 1024",
    Context.power,
    50,
)
REMAINDER = _row(
    "RESTO|MOD dividend divisor: the remainder of an integer division, with the sign of the "
    "dividend; RESTO -7 3 -> -1",
    Context.remainder,
)
QUOTIENT = _row(
    "QUOC|IDIV dividend divisor: the integer part of a division; QUOC 7 2 -> 3",
    Context.divide_int,
)
EXP = _row("EXP exponent: e to the power of the number; EXP 0 -> 1", Context.exp, 100)
DIVISIONS = (DIVIDE, REMAINDER, QUOTIENT)

ARITHMETIC = (
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    POWER,
    _row("RAIZ|SQRT number: the square root; RAIZ 2.25 -> 1.5", Context.sqrt, 300),
    REMAINDER,
    QUOTIENT,
    _row(
        "MIN number number [number...]: the smallest of the numbers; MIN 3 1 2 -> 1",
        _each(Context.min),
    ),
    _row(
        "MAX number number [number...]: the largest of the numbers; MAX 3 1 2 -> 3",
        _each(Context.max),
    ),
    _row("ABS number: the number without its sign; ABS -2.50 -> 2.50", Context.abs),
    _row("NEG number: the number with the opposite sign; NEG 2.50 -> -2.50", Context.minus),
    _row(
        "COMP|CMP number number: -1, 0 or 1: less, equal or greater; COMP 2 2.0 -> 0",
        Context.compare,
    ),
    _row(
        "ARRED|ROUND number places: the number rounded to that many decimal places; "
        "ARRED 2.675 2 -> 2.68",
        elementary.round_to_places,
    ),
    EXP,
    _row("LN number: the natural logarithm; LN 1 -> 0", elementary.ln, 50),
    _row(
        "LOG|LOG10 number: the logarithm to base 10; LOG 0.001 -> -3",
        Context.log10,
        100,
    ),
    _row(
        "FAT|FACT number: the factorial, if it is exact; FAT 20 -> 2432902008176640000",
        elementary.factorial,
        1000,
    ),
)

# Operations of two numbers that the fast path knows, by name as it is usually typed.
FAST_PATH: dict[str, Callable[[Context, Decimal, Decimal], Decimal]] = {
    "SOMA": Context.add,
    "ADD": Context.add,
    "SUB": Context.subtract,
    "MUL": Context.multiply,
    "DIV": Context.divide,
}
FAST_PATH |= {name.lower(): method for name, method in FAST_PATH.items()}
