"""Steps inside a function that round nothing, whatever the precision of its result."""

import decimal
from decimal import Context, Decimal

# Holds any number, without rounding. Only for steps that need few digits: the precision costs
# nothing until it is used. All threads share it, so its flags mean nothing.
EXACT = Context(
    prec=decimal.MAX_PREC,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[decimal.InvalidOperation, decimal.Overflow],
)


def exponent_of(number: Decimal) -> int:
    """Return the exponent of the last digit; ``as_tuple()`` would build a tuple of all digits."""
    return EXACT.multiply(number, 0).adjusted()


def digits_of(number: Decimal) -> int:
    """Return how many digits a number has, or a few more; ``as_tuple()`` would cost much more."""
    return len(str(number))


def coefficient_and_exponent(number: Decimal) -> tuple[int, int]:
    """Return integers ``c`` and ``e`` with ``number == c * 10**e``; ``c`` has the sign."""
    exponent = exponent_of(number)
    return int(EXACT.scaleb(number, -exponent)), exponent


def from_coefficient(coefficient: int, exponent: int) -> Decimal:
    """Return ``coefficient * 10**exponent``; raise ``decimal.Overflow`` if it cannot be held."""
    return EXACT.scaleb(Decimal(coefficient), exponent)


def is_whole(number: Decimal) -> bool:
    """Tell whether a number is an integer, such as 2.00 or 1E+500."""
    return number == number.to_integral_value(context=EXACT)
