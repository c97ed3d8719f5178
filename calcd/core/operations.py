"""The table of arithmetic operations, and how a request is split into name and operands.

Operations follow the General Decimal Arithmetic specification (Cowlishaw, version 1.70) where it
has them.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import reduce
from typing import Any

from calcd.core.elementary import (
    cost_of_exp,
    cost_of_factorial,
    cost_of_ln,
    cost_of_log10,
    cost_of_power,
    factorial,
    ln,
    round_to_places,
)
from calcd.core.errors import RequestError

_BLANKS = " \t"
_FIELD = re.compile(r"[^ \t]+")


@dataclass(frozen=True)
class Operation:
    """A row of the table: help, the number of operands and errors come from it.

    ``names`` are in upper case; help shows the first. ``operands`` are their names in help:
    ``[x]`` is optional, ``[x...]`` may be repeated any number of times, and ``x...`` is the rest
    of the line. ``function`` takes the context and the operands. ``example`` is a request, and
    ``answer`` is its reply in a new session. ``square_cost`` is the part of the cost that grows
    with the square of the digits; ``extra_cost`` estimates what the function costs besides, from
    the precision and the operands.
    """

    names: tuple[str, ...]
    operands: tuple[str, ...]
    help: str
    function: Callable[..., Any]
    example: str
    answer: str
    square_cost: float = 0.0
    extra_cost: Callable[..., float] | None = None

    @property
    def min_operands(self) -> int:
        """Return the smallest number of operands."""
        return sum(not operand.startswith("[") for operand in self.operands)

    @property
    def max_operands(self) -> float:
        """Return the largest number of operands; it may be infinite."""
        return math.inf if self.operands and "...]" in self.operands[-1] else len(self.operands)

    @property
    def takes_text(self) -> bool:
        """Whether the operand is the rest of the line, as it is."""
        return self.operands != () and self.operands[-1].endswith("...")

    @property
    def usage(self) -> tuple[str, ...]:
        """Return the form of a request, such as ``("SUB", "minuend", "subtrahend")``."""
        return self.names[0], *self.operands

    def cost(self, precision: int, numbers: Sequence[Decimal]) -> float:
        """Estimate the cost of the operation on these numbers, in units of about 0.05 µs."""
        # The length of the text is close to the number of digits; as_tuple() costs much more.
        digits = max(precision, *(len(str(number)) for number in numbers))
        cost = 60 + 0.3 * digits + self.square_cost * digits * digits
        cost *= max(1, len(numbers) - 1)
        return cost + self.extra_cost(precision, *numbers) if self.extra_cost else cost

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
        least, most = self.min_operands, self.max_operands
        if least <= count <= most:
            return
        if least == most == 0:
            template = "{} takes no operands, got {}: {}"
            raise RequestError("WRONG-OPERANDS", template, self.names[0], count, self.names[0])
        limit = least if count < least else most
        if least == most:
            template = "{} needs {} {}, got {}: {}"
        elif count < least:
            template = "{} needs at least {} {}, got {}: {}"
        else:
            template = "{} takes at most {} {}, got {}: {}"
        noun = ("operand" if limit == 1 else "operands",)
        raise RequestError(
            "WRONG-OPERANDS", template, self.names[0], limit, noun, count, self.usage
        )


def split_request(request: str) -> tuple[str, str]:
    """Return the name as it was typed and the rest of the request; ``("", "")`` if it is blank."""
    stripped = request.strip(_BLANKS)
    name = _FIELD.match(stripped)
    if name is None:
        return "", ""
    return name[0], stripped[name.end() :].lstrip(_BLANKS)


def _each(method: Callable[[Context, Decimal, Decimal], Decimal]) -> Callable[..., Decimal]:
    """Extend an operation on two numbers to more, from left to right."""

    def run(context: Context, *numbers: Decimal) -> Decimal:
        return reduce(lambda left, right: method(context, left, right), numbers)

    return run


ADD = Operation(
    ("SOMA", "ADD"),
    ("augend", "addend", "[addend...]"),
    "the sum of the numbers",
    _each(Context.add),
    "SOMA 0.1 0.2",
    "0.3",
)
SUBTRACT = Operation(
    ("SUB",),
    ("minuend", "subtrahend"),
    "the first number minus the second",
    Context.subtract,
    "SUB 5 3",
    "2",
)
MULTIPLY = Operation(
    ("MUL",),
    ("multiplicand", "multiplier", "[multiplier...]"),
    "the product of the numbers",
    _each(Context.multiply),
    "MUL 0.1 0.2",
    "0.02",
)
DIVIDE = Operation(
    ("DIV",),
    ("dividend", "divisor"),
    "the first number divided by the second",
    Context.divide,
    "DIV 1 8",
    "0.125",
)
POWER = Operation(
    ("POT", "POW"),
    ("base", "exponent"),
    "the first number to the power of the second",
    Context.power,
    "POT 2 10",
    "1024",
    extra_cost=cost_of_power,
)
REMAINDER = Operation(
    ("RESTO", "MOD"),
    ("dividend", "divisor"),
    "the remainder of an integer division, with the sign of the dividend",
    Context.remainder,
    "RESTO -7 3",
    "-1",
)
QUOTIENT = Operation(
    ("QUOC", "IDIV"),
    ("dividend", "divisor"),
    "the integer part of a division",
    Context.divide_int,
    "QUOC 7 2",
    "3",
)
EXP = Operation(
    ("EXP",),
    ("exponent",),
    "e to the power of the number",
    Context.exp,
    "EXP 0",
    "1",
    extra_cost=cost_of_exp,
)
DIVISIONS = (DIVIDE, REMAINDER, QUOTIENT)

ARITHMETIC = (
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    POWER,
    Operation(
        ("RAIZ", "SQRT"), ("number",), "the square root", Context.sqrt, "RAIZ 2.25", "1.5", 0.006
    ),
    REMAINDER,
    QUOTIENT,
    Operation(
        ("MIN",),
        ("number", "number", "[number...]"),
        "the smallest of the numbers",
        _each(Context.min),
        "MIN 3 1 2",
        "1",
    ),
    Operation(
        ("MAX",),
        ("number", "number", "[number...]"),
        "the largest of the numbers",
        _each(Context.max),
        "MAX 3 1 2",
        "3",
    ),
    Operation(
        ("ABS",), ("number",), "the number without its sign", Context.abs, "ABS -2.50", "2.50"
    ),
    Operation(
        ("NEG",),
        ("number",),
        "the number with the opposite sign",
        Context.minus,
        "NEG 2.50",
        "-2.50",
    ),
    Operation(
        ("COMP", "CMP"),
        ("number", "number"),
        "-1, 0 or 1: less, equal or greater",
        Context.compare,
        "COMP 2 2.0",
        "0",
    ),
    Operation(
        ("ARRED", "ROUND"),
        ("number", "places"),
        "the number rounded to that many decimal places",
        round_to_places,
        "ARRED 2.675 2",
        "2.68",
    ),
    EXP,
    Operation(
        ("LN",), ("number",), "the natural logarithm", ln, "LN 1", "0", extra_cost=cost_of_ln
    ),
    Operation(
        ("LOG", "LOG10"),
        ("number",),
        "the logarithm to base 10",
        Context.log10,
        "LOG 0.001",
        "-3",
        extra_cost=cost_of_log10,
    ),
    Operation(
        ("FAT", "FACT"),
        ("number",),
        "the factorial, if it is exact",
        factorial,
        "FAT 20",
        "2432902008176640000",
        extra_cost=cost_of_factorial,
    ),
)

# Operations of two numbers that the fast path knows, by name as it is usually typed.
FAST_PATH: dict[str, Callable[[Context, Decimal, Decimal], Decimal]] = {
    spelling: method
    for operation, method in (
        (ADD, Context.add),
        (SUBTRACT, Context.subtract),
        (MULTIPLY, Context.multiply),
        (DIVIDE, Context.divide),
    )
    for name in operation.names
    for spelling in (name, name.lower())
}
