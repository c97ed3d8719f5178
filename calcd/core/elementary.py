"""Functions that need more than one call of the decimal module, and estimates of their cost.

Natural logarithm, rounding to decimal places and factorial. Costs are in units of about 0.05 µs.
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


def _digits_like_one(number: Decimal) -> int:
    """Return in how many digits a number agrees with 1: a logarithm needs that many more."""
    return max(0, -_ONE_DIGIT.copy().subtract(number, Decimal(1)).adjusted())


def _digits_per_term(precision: int, number: Decimal) -> int:
    """Return how many digits each term of the series of ``ln`` adds; 0: do not use the series."""
    digits = _digits_like_one(number) - 1
    return digits if digits > 0 and 10 * digits >= precision and number != 1 else 0


def _cost_of_retries(first: int, last: int) -> float:
    """Estimate the cost of a result that is computed with more and more digits.

    The decimal module adds 19 digits each time, until it can round correctly. In the worst case
    that takes all digits of the operand, and an operand can be chosen so.
    """
    last = max(first, last)
    return first**2 + (last**3 - first**3) / (3 * 19)


def cost_of_sqrt(precision: int, number: Decimal) -> float:
    """Estimate the cost of ``Context.sqrt``."""
    return 0.006 * max(precision, digits_of(number)) ** 2


def cost_of_exp(precision: int, number: Decimal) -> float:
    """Estimate the cost of ``Context.exp``."""
    return 200 + 0.2 * _cost_of_retries(precision, digits_of(number))


def cost_of_ln(precision: int, number: Decimal) -> float:
    """Estimate the cost of ``ln``."""
    digits, near = digits_of(number), _digits_like_one(number)
    if digits_per_term := _digits_per_term(precision, number):
        return 400 + 1.6 * (precision + digits) ** 2 / digits_per_term
    return 400 + 0.2 * _cost_of_retries(precision + near, digits + 2 * near)


def cost_of_log10(precision: int, number: Decimal) -> float:
    """Estimate the cost of ``Context.log10``."""
    near = _digits_like_one(number)
    return 400 + 0.26 * _cost_of_retries(precision + near, digits_of(number))


def cost_of_power(precision: int, base: Decimal, exponent: Decimal) -> float:
    """Estimate the cost of ``Context.power``."""
    near = _digits_like_one(base)
    if exponent != exponent.to_integral_value():  # by logarithms, with all digits of the base
        digits = max(precision, digits_of(base)) + near
        return 1000 + 0.5 * _cost_of_retries(digits, digits + near)
    # By squaring. A long exponent overflows at once unless the base is near 1.
    length = min(max(0, exponent.adjusted()), near + 5) + 1
    return 100 + 0.0014 * length * (precision + length) ** 2


def cost_of_factorial(_: int, number: Decimal) -> float:
    """Estimate the cost of ``factorial``."""
    return 3.0 * int(min(max(number, Decimal(0)), Decimal(_MAX_FACTORIAL)))
