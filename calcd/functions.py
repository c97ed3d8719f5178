"""The arithmetic operations: one table, for requests by name and for expressions. No I/O.

Each is that of the General Decimal Arithmetic specification (Cowlishaw, version 1.70) where it
has one. ``run`` takes the context and the operands as numbers.
"""

import decimal
import math
from collections.abc import Callable
from decimal import Context, Decimal
from functools import reduce

from calcd.operations import Operation

_MOST_FACTORIAL = 1000  # beyond it no precision has the digits

# One digit is enough to see how near to each other two numbers are, whatever their exponents.
_NEARLY = Context(prec=1, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])


def _each(method: Callable[[Context, Decimal, Decimal], Decimal]) -> Callable[..., Decimal]:
    """Make of an operation on two numbers one on more, from left to right."""

    def run(context: Context, *numbers: Decimal) -> Decimal:
        return reduce(lambda left, right: method(context, left, right), numbers)

    return run


def _power(context: Context, base: Decimal, exponent: Decimal) -> Decimal:
    return context.power(base, exponent)


def _near_one(number: Decimal) -> int:
    """Say in how many digits a number agrees with 1: so many more a logarithm has to work with."""
    return max(0, -_NEARLY.copy().subtract(number, Decimal(1)).adjusted())


def _work_of_logarithm(precision: int, number: Decimal) -> float:
    return 400 + 0.26 * (precision + _near_one(number)) ** 2


def _work_of_power(precision: int, base: Decimal, exponent: Decimal) -> float:
    near = _near_one(base)
    if exponent != exponent.to_integral_value():  # by way of logarithms, with all of the base
        return 1000 + 0.5 * (max(precision, len(str(base))) + near) ** 2
    # By squaring; unless the base is near to 1, a long exponent is at once known to be too large.
    length = min(max(0, exponent.adjusted()), near + 5) + 1
    return 0.0014 * length * (precision + length) ** 2


def _work_of_factorial(_: int, number: Decimal) -> float:
    return 3.0 * int(min(max(number, Decimal(0)), Decimal(_MOST_FACTORIAL)))


def _round(context: Context, number: Decimal, places: Decimal) -> Decimal:
    """Round to so many decimal places; asked for, so no inexact result even where that counts."""
    if places != places.to_integral_value() or places.copy_abs() > 10_000:
        raise decimal.InvalidOperation
    asked = context.copy()
    asked.traps[decimal.Inexact] = False
    return asked.quantize(number, Decimal((0, (1,), -int(places))))


def _factorial(context: Context, number: Decimal) -> Decimal:
    """Give the factorial where it is exact; Inexact where its digits do not fit."""
    if number < 0 or number != number.to_integral_value():
        raise decimal.InvalidOperation
    if number > _MOST_FACTORIAL or _digits_of_factorial(int(number)) > context.prec:
        raise decimal.Inexact
    exact = context.copy()
    exact.traps[decimal.Inexact] = True
    return exact.plus(Decimal(math.factorial(int(number))))


def _digits_of_factorial(number: int) -> float:
    """Give how many digits a factorial has at the least, less the zeros at its end."""
    return math.lgamma(number + 1) / math.log(10) - number / 4


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
    "the first number less the second",
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
    _power,
    "POT 2 10",
    "1024",
    further=_work_of_power,
)
REMAINDER = Operation(
    ("RESTO", "MOD"),
    ("dividend", "divisor"),
    "what an integer division leaves, with the sign of the dividend",
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
    ("EXP",), ("exponent",), "e to the power of the number", Context.exp, "EXP 0", "1", 0.15
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
        "the least of the numbers",
        _each(Context.min),
        "MIN 3 1 2",
        "1",
    ),
    Operation(
        ("MAX",),
        ("number", "number", "[number...]"),
        "the greatest of the numbers",
        _each(Context.max),
        "MAX 3 1 2",
        "3",
    ),
    Operation(
        ("ABS",), ("number",), "the number without its sign", Context.abs, "ABS -2.50", "2.50"
    ),
    Operation(
        ("NEG",), ("number",), "the number with the other sign", Context.minus, "NEG 2.50", "-2.50"
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
        "the number rounded to so many decimal places",
        _round,
        "ARRED 2.675 2",
        "2.68",
    ),
    EXP,
    Operation(
        ("LN",),
        ("number",),
        "the natural logarithm",
        Context.ln,
        "LN 1",
        "0",
        further=_work_of_logarithm,
    ),
    Operation(
        ("LOG", "LOG10"),
        ("number",),
        "the logarithm to base 10",
        Context.log10,
        "LOG 0.001",
        "-3",
        further=_work_of_logarithm,
    ),
    Operation(
        ("FAT", "FACT"),
        ("number",),
        "the factorial, where it is exact",
        _factorial,
        "FAT 20",
        "2432902008176640000",
        further=_work_of_factorial,
    ),
)

# By every name as it is mostly typed, those that the fast path knows: of two numbers.
PLAIN: dict[str, Callable[[Context, Decimal, Decimal], Decimal]] = {
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
