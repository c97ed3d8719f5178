"""The arithmetic operations: one table, for requests by name and for expressions. No I/O.

Each is that of the General Decimal Arithmetic specification (Cowlishaw, version 1.70) where it
has one. ``run`` takes the context and the operands as numbers.
"""

import decimal
import math
from collections.abc import Callable
from decimal import Context, Decimal
from functools import reduce

from calcd.core.operations import Operation

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


def _digits(number: Decimal) -> int:
    """Give the count of digits, or a few more: a tuple of them would cost much more."""
    return len(str(number))


def _digits_of_term(precision: int, number: Decimal) -> int:
    """Say how many digits each term of the logarithm's series adds; 0 if it is not to be used."""
    each = _near_one(number) - 1
    return each if each > 0 and 10 * each >= precision and number != 1 else 0


def _ln(context: Context, number: Decimal) -> Decimal:
    """Give the natural logarithm, rounded correctly, in a bounded time.

    The decimal module takes seconds where the result is nearly half-way between two numbers:
    ``ln(1-1e-999)`` to 1000 digits. Such are near 1, and there the series has few terms.
    """
    each = _digits_of_term(context.prec, number)
    if not each:
        return context.ln(number)
    wide = _NEARLY.copy()
    wide.prec = 2 * (context.prec + _digits(number))
    beyond = wide.subtract(number, Decimal(1))
    total = power = beyond
    for count in range(2, wide.prec // each + 3):
        power = wide.multiply(power, beyond.copy_negate())
        total = wide.add(total, wide.divide(power, Decimal(count)))
    nearest = context.copy()
    nearest.rounding = decimal.ROUND_HALF_EVEN  # whatever is asked for, as the specification says
    return nearest.plus(total)


def _squares(first: int, last: int) -> float:
    """Estimate what a result takes that is worked out with more and more digits.

    So does the decimal module, with 19 more each time, until it sees how to round; at the worst
    that needs all digits of the number, and a number can be made so.
    """
    last = max(first, last)
    return first**2 + (last**3 - first**3) / (3 * 19)


def _work_of_exponential(precision: int, number: Decimal) -> float:
    return 200 + 0.2 * _squares(precision, _digits(number))


def _work_of_ln(precision: int, number: Decimal) -> float:
    digits, near = _digits(number), _near_one(number)
    if each := _digits_of_term(precision, number):
        return 400 + 1.6 * (precision + digits) ** 2 / each
    return 400 + 0.2 * _squares(precision + near, digits + 2 * near)


def _work_of_logarithm(precision: int, number: Decimal) -> float:
    near = _near_one(number)
    return 400 + 0.26 * _squares(precision + near, _digits(number))


def _work_of_power(precision: int, base: Decimal, exponent: Decimal) -> float:
    near = _near_one(base)
    if exponent != exponent.to_integral_value():  # by way of logarithms, with all of the base
        digits = max(precision, _digits(base)) + near
        return 1000 + 0.5 * _squares(digits, digits + near)
    # By squaring; unless the base is near to 1, a long exponent is at once known to be too large.
    length = min(max(0, exponent.adjusted()), near + 5) + 1
    return 100 + 0.0014 * length * (precision + length) ** 2


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
    ("EXP",),
    ("exponent",),
    "e to the power of the number",
    Context.exp,
    "EXP 0",
    "1",
    further=_work_of_exponential,
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
        _ln,
        "LN 1",
        "0",
        further=_work_of_ln,
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
