"""The table of arithmetic operations, and how a request is split into name and operands.

Operations follow the General Decimal Arithmetic specification (Cowlishaw, version 1.70) where it
has them.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property, partial, reduce
from typing import Any, Self

from calcd.core import elementary, integers, rounding, trigonometry
from calcd.core.errors import RequestError
from calcd.core.exact import digits_of

_BLANKS = " \t"
_MAX_NAME = 40  # characters, accents by themselves: more than any name has
_COST = 60  # of an operation, and more for each digit, for each operand after the second
_DIGIT_COST = 0.3
_OPERAND_COST = 10
_SLOW_COST = 950  # of an operation with ``cheap_size``, in addition, if it is not expensive
_FIELD = re.compile(r"[^ \t]+")


def _digits(precision: int, numbers: Sequence[Decimal]) -> float:
    return max([precision, *map(digits_of, numbers)])


def _digits_of_angle(precision: int, numbers: Sequence[Decimal]) -> float:
    """Return how many digits pi needs, so that its multiples can be taken from the angle."""
    return _digits(precision, numbers) + max(0, numbers[0].adjusted())


def _digits_of_product(_: int, numbers: Sequence[Decimal]) -> float:
    """Return a bound for the digits of a product of whole numbers up to the first operand.

    The last operand is how many they are.
    """
    return max(0, numbers[0].adjusted() + 1) * abs(float(numbers[-1]))


def _digits_of_quotient(precision: int, numbers: Sequence[Decimal]) -> float:
    """Return 0 if the quotient has no more digits than a result: such a remainder is cheap."""
    dividend, divisor = numbers
    is_short = dividend.adjusted() - divisor.adjusted() < precision
    return 0 if is_short else _digits(precision, numbers)


@dataclass(frozen=True)
class Operation:
    """A row of the table: help, the number of operands and errors come from it.

    ``names`` are in upper case and without accents: the Portuguese ones first, the English one
    last. ``operands`` are their names in help: ``[x]`` is optional, ``[x...]`` may be repeated any
    number of times, and ``x...`` is the rest of the line. ``function`` takes the context and the
    operands. ``example`` is a request, and ``example_reply`` its reply in a new session. An
    operation whose time grows faster than the number of digits has ``cheap_size``: it is expensive
    if ``size``, called with the precision and the operands, returns more.
    """

    names: tuple[str, ...]
    operands: tuple[str, ...]
    help: str
    example: str
    example_reply: str
    function: Callable[..., Any]
    cheap_size: float | None = None
    size: Callable[[int, Sequence[Decimal]], float] = _digits

    @classmethod
    def from_help(
        cls,
        line: str,
        function: Callable[..., Any],
        cheap_size: float | None = None,
        size: Callable[[int, Sequence[Decimal]], float] = _digits,
    ) -> Self:
        """Make a row from a line such as ``SOMA|ADD x [y...]: the sum; ADD 1 2 -> 3``."""
        usage, _, rest = line.partition(": ")
        text, _, rest = rest.partition("; ")
        example, _, reply = rest.partition(" -> ")
        names, *operands = usage.split()
        return cls(
            tuple(names.split("|")),
            tuple(operands),
            text,
            example,
            reply,
            function,
            cheap_size,
            size,
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

    def cost(self, precision: int, numbers: Sequence[Decimal]) -> float:
        """Return the cost of the operation in the units of ``Budget``; infinite if expensive."""
        digits = _digits(precision, numbers)
        cost = _COST + _DIGIT_COST * digits
        if len(numbers) > 2:
            cost += (len(numbers) - 2) * (_OPERAND_COST + _DIGIT_COST * digits)
        if self.cheap_size is None:
            return cost
        share = self.size(precision, numbers) / self.cheap_size
        return cost + _SLOW_COST * share if share <= 1 else math.inf

    def split(self, rest: str) -> list[str]:
        """Split what follows the name into operands, without counting them."""
        if self.takes_text:
            return [rest] if rest else []
        return _FIELD.findall(rest)

    def allows(self, count: int) -> bool:
        """Return whether the operation may have so many operands."""
        return self.min_operands <= count <= self.max_operands

    def check(self, count: int, name: str) -> None:
        """Raise ``RequestError`` WRONG-OPERANDS unless ``count`` operands are allowed.

        ``name`` is the operation's, as the client called it.
        """
        if self.allows(count):
            return
        minimum, maximum = self.min_operands, self.max_operands
        limit = minimum if count < minimum else maximum
        noun = ("operand" if limit == 1 else "operands",)
        arguments = [limit, noun, count, name, self.operands]
        if maximum == 0:
            template = "{} takes no operands, got {}: {}"
            arguments = [count, name]
        elif minimum == maximum:
            template = "{} needs {} {}, got {}: {} {}"
        elif count < minimum:
            template = "{} needs at least {} {}, got {}: {} {}"
        else:
            template = "{} takes at most {} {}, got {}: {} {}"
        raise RequestError("WRONG-OPERANDS", template, name, *arguments)


def split_request(request: str) -> tuple[str, str]:
    """Return the name as it was typed and the rest of the request; ``("", "")`` if it is blank."""
    stripped = request.strip(_BLANKS)
    name = _FIELD.match(stripped)
    if name is None:
        return "", ""
    return name[0], stripped[name.end() :].lstrip(_BLANKS)


def canonical(name: str) -> str:
    """Return a name as the tables have it: in upper case, without accents."""
    if len(name) > _MAX_NAME:  # to decompose it would take time
        return ""
    if not name.isascii():
        name = "".join(
            each for each in unicodedata.normalize("NFD", name) if not unicodedata.combining(each)
        )
        if not name.isascii():  # the upper case of a few other letters is in ASCII
            return ""
    return name.upper()


@dataclass(frozen=True)
class Fold:
    """Extends an operation on two numbers to one or more, from left to right.

    A single number is rounded, as any result is.
    """

    method: Callable[[Context, Decimal, Decimal], Decimal]

    def __call__(self, context: Context, first: Decimal, *others: Decimal) -> Decimal:
        """Return the result."""
        if not others:
            return context.create_decimal(first)
        return reduce(partial(self.method, context), others, first)


def _divide(context: Context, dividend: Decimal, divisor: Decimal) -> Decimal:
    integers.check_divisor(dividend, divisor)
    return context.divide(dividend, divisor)


_row = Operation.from_help

# Expressions have signs for these.
ADD = _row(
    "SOMA|ADD number [number...]: the sum of the numbers; SOMA 0.1 0.2 -> 0.3",
    Fold(Context.add),
)
SUBTRACT = _row(
    "SUB minuend subtrahend: the first number minus the second; SUB 5 3 -> 2", Context.subtract
)
MULTIPLY = _row(
    "MUL number [number...]: the product of the numbers; MUL 0.1 0.2 -> 0.02",
    Fold(Context.multiply),
)
DIVIDE = _row(
    "DIV dividend divisor: the first number divided by the second; DIV 1 8 -> 0.125", _divide
)
QUOTIENT = _row(
    "QUOC|IDIV dividend divisor: the integer part of a division; QUOC 7 2 -> 3",
    integers.quotient,
)
REMAINDER = _row(
    "RESTO|MOD dividend divisor: the remainder of an integer division, with the sign of the "
    "dividend; RESTO -7 3 -> -1",
    integers.remainder,
    cheap_size=150,
    size=_digits_of_quotient,
)
POWER = _row(
    "POT|POW base exponent: the first number to the power of the second; POT 2 10 -> 1024",
    elementary.power,
    cheap_size=100,
)
FACTORIAL = _row(
    "FAT|FACT number: the factorial; FAT 5 -> 120",
    integers.factorial,
    cheap_size=2000,
    size=_digits_of_product,
)
EXP = _row("EXP exponent: e to the power of the number; EXP 0 -> 1", elementary.exp, cheap_size=150)
ROUND = _row(
    "ARRED|ROUND number [places]: the number rounded to that many decimal places; "
    "ARRED 2.675 2 -> 2.68",
    rounding.round_to_places,
)
NEGATE = _row("NEG number: the number with the opposite sign; NEG 2.50 -> -2.50", Context.minus)
PLUS = _row("+ number: the number, rounded; + 2.50 -> 2.50", Context.plus)

# The operations by the topics of HELP.
ARITHMETIC: dict[str, tuple[Operation, ...]] = {
    "arithmetic": (
        ADD,
        SUBTRACT,
        MULTIPLY,
        DIVIDE,
        QUOTIENT,
        REMAINDER,
        POWER,
        _row("ABS number: the number without its sign; ABS -2.50 -> 2.50", Context.abs),
        NEGATE,
        _row(
            "COMP|CMP number number: -1, 0 or 1: less, equal or greater; COMP 2 2.0 -> 0",
            Context.compare,
        ),
    ),
    "functions": (
        _row(
            "RAIZ|SQRT number: the square root; RAIZ 2.25 -> 1.5", elementary.sqrt, cheap_size=500
        ),
        _row(
            "ROOT number degree: the root of that degree; ROOT 27 3 -> 3",
            elementary.root,
            cheap_size=100,
        ),
        EXP,
        _row("LN number: the natural logarithm; LN 1 -> 0", elementary.ln, cheap_size=150),
        _row(
            "LOG number [base]: the logarithm, to base 10 if no base is given; LOG 8 2 -> 3",
            elementary.log,
            cheap_size=100,
        ),
        _row(
            "LOG10 number: the logarithm to base 10; LOG10 0.001 -> -3",
            elementary.log10,
            cheap_size=150,
        ),
        _row(
            "SEN|SIN angle: the sine of an angle in radians; SEN 0 -> 0",
            trigonometry.sin,
            cheap_size=150,
            size=_digits_of_angle,
        ),
        _row(
            "COS angle: the cosine of an angle in radians; COS 0 -> 1",
            trigonometry.cos,
            cheap_size=150,
            size=_digits_of_angle,
        ),
        _row(
            "TAN angle: the tangent of an angle in radians; TAN 0 -> 0",
            trigonometry.tan,
            cheap_size=150,
            size=_digits_of_angle,
        ),
        _row(
            "ASEN|ASIN sine: the angle with that sine, in radians; ASEN 0 -> 0",
            trigonometry.asin,
            cheap_size=100,
        ),
        _row(
            "ACOS cosine: the angle with that cosine, in radians; ACOS 1 -> 0",
            trigonometry.acos,
            cheap_size=100,
        ),
        _row(
            "ATAN tangent: the angle with that tangent, in radians; ATAN 0 -> 0",
            trigonometry.atan,
            cheap_size=150,
        ),
    ),
    "lists": (
        _row(
            "MIN number [number...]: the smallest of the numbers; MIN 3 1 2 -> 1",
            Fold(Context.min),
        ),
        _row(
            "MAX number [number...]: the largest of the numbers; MAX 3 1 2 -> 3", Fold(Context.max)
        ),
        _row(
            "MEDIA|MEAN number [number...]: the mean of the numbers; MEDIA 1 2 6 -> 3",
            rounding.mean,
        ),
        FACTORIAL,
        _row(
            "MDC|GCD number number [number...]: the greatest common divisor; MDC 12 18 -> 6",
            integers.gcd,
            cheap_size=500,
        ),
        _row(
            "MMC|LCM number number [number...]: the least common multiple; MMC 4 6 -> 12",
            integers.lcm,
            cheap_size=500,
        ),
        _row(
            "PERM n k: in how many ways k of n things can be put in order; PERM 5 2 -> 20",
            integers.permutations,
            cheap_size=2000,
            size=_digits_of_product,
        ),
        _row(
            "COMB n k: in how many ways k of n things can be chosen; COMB 5 2 -> 10",
            integers.combinations,
            cheap_size=2000,
            size=_digits_of_product,
        ),
    ),
    "digits": (
        ROUND,
        _row(
            "PISO|FLOOR number [places]: the number rounded down, to a whole number or to that "
            "many decimal places; PISO -2.5 -> -3",
            rounding.floor,
        ),
        _row(
            "TETO|CEIL number [places]: the number rounded up, to a whole number or to that "
            "many decimal places; TETO 2.1 -> 3",
            rounding.ceiling,
        ),
        _row(
            "TRUNC number [places]: the number without its decimals, or with that many; "
            "TRUNC 2.789 1 -> 2.7",
            rounding.truncate,
        ),
        _row(
            "REDUZ|REDUCE number: the number without zeros at its end; REDUZ 110.00 -> 110",
            Context.normalize,
        ),
    ),
}

# Methods with the results of an operation on two numbers. They raise ``decimal.DecimalException``
# where that raises ``RequestError``.
DIRECT: dict[Operation, Callable[[Context, Decimal, Decimal], Decimal]] = {
    ADD: Context.add,
    SUBTRACT: Context.subtract,
    MULTIPLY: Context.multiply,
    DIVIDE: Context.divide,
}
# The same by name, as it is usually typed.
FAST_PATH = {name: method for row, method in DIRECT.items() for name in row.names}
FAST_PATH |= {
    typed: method
    for name, method in FAST_PATH.items()
    for typed in (name.lower(), name.capitalize())
}
