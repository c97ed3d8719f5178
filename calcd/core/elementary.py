"""Functions that need more than one call of the decimal module.

Natural logarithm, rounding to decimal places and factorial.
"""

import decimal
import math
from decimal import Context, Decimal

_MAX_FACTORIAL = 1000  # no precision has enough digits for a larger one

# One digit shows how close two numbers are to each other, whatever their exponents.
_ONE_DIGIT = Context(prec=1, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])


def ln(context: Context, number: Decimal) -> Decimal:
    """Return the natural logarithm, correctly rounded, in bounded time.

    The decimal module takes seconds if the result is almost half-way between two numbers, for
    example ``ln(1-1e-999)`` to 1000 digits. Such numbers are near 1, where the series
    ln(1+x) = x - x^2/2 + x^3/3 - ... has few terms.
    """
    digits_per_term = _digits_per_term(context.prec, number)
    if not digits_per_term:
        return context.ln(number)
    wide = _ONE_DIGIT.copy()
    wide.prec = 2 * (context.prec + digits_of(number))
    total = x_power = x = wide.subtract(number, Decimal(1))
    for count in range(2, wide.prec // digits_per_term + 3):
        x_power = wide.multiply(x_power, x.copy_negate())
        total = wide.add(total, wide.divide(x_power, Decimal(count)))
    # The specification rounds logarithms half-even, whatever rounding is in force.
    nearest = context.copy()
    nearest.rounding = decimal.ROUND_HALF_EVEN
    return nearest.plus(total)


def round_to_places(context: Context, number: Decimal, places: Decimal) -> Decimal:
    """Round to a number of decimal places. The result is never inexact, as it was asked for."""
    if places != places.to_integral_value() or places.copy_abs() > 10_000:
        raise decimal.InvalidOperation
    rounding = context.copy()
    rounding.traps[decimal.Inexact] = False
    return rounding.quantize(number, Decimal((0, (1,), -int(places))))


def factorial(context: Context, number: Decimal) -> Decimal:
    """Return the factorial; raise ``decimal.Inexact`` if its digits do not fit."""
    if number < 0 or number != number.to_integral_value():
        raise decimal.InvalidOperation
    if number > _MAX_FACTORIAL:
        raise decimal.Inexact
    exact = context.copy()
    exact.traps[decimal.Inexact] = True
    return exact.plus(Decimal(math.factorial(int(number))))


def digits_of(number: Decimal) -> int:
    """Return how many digits a number has, or a few more; ``as_tuple()`` would cost much more."""
    return len(str(number))


def _digits_per_term(precision: int, number: Decimal) -> int:
    """Return how many digits each term of the series of ``ln`` adds; 0: do not use the series."""
    # One less than those in which the number agrees with 1.
    digits = -_ONE_DIGIT.copy().subtract(number, Decimal(1)).adjusted() - 1
    return digits if digits > 0 and 10 * digits >= precision and number != 1 else 0
