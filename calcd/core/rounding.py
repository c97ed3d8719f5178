"""Rounding that is asked for, and the mean, which is rounded once.

Rounding that is asked for raises no condition, whatever digits it drops: it is no error under
``EXACT``, and its zeros are meant. A result that still has more digits than the precision is
rounded as any other.
"""

import decimal
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal

from calcd.core.errors import RequestError
from calcd.core.exact import EXACT, exponent_of, is_whole


def round_to_places(context: Context, number: Decimal, places: Decimal | None = None) -> Decimal:
    """Round to a number of decimal places: the specification's ``quantize``.

    Without ``places`` round to an integer, but return as it is what has no decimals.
    """
    if places is None:
        return _shortened(context, number, None, context.rounding)
    asked = context.copy()
    asked.traps[decimal.Inexact] = False
    asked.Emax = decimal.MAX_EMAX  # so that nothing but too many digits is invalid
    try:
        rounded = asked.quantize(number, quantum_of(context, places))
    except decimal.InvalidOperation:
        template = "the result needs more than {} digits"
        raise RequestError("INVALID-OPERATION", template, context.prec) from None
    return context.create_decimal(rounded)


def quantum_of(context: Context, places: Decimal) -> Decimal:
    """Return what ``quantize`` takes for a number of decimal places; raise ``RequestError``.

    It depends on the places alone, and is not rounded to the context.
    """
    return Decimal((0, (1,), -_checked(context, places)))


def floor(context: Context, number: Decimal, places: Decimal | None = None) -> Decimal:
    """Round down to an integer or to decimal places; no zeros are added."""
    return _shortened(context, number, places, decimal.ROUND_FLOOR)


def ceiling(context: Context, number: Decimal, places: Decimal | None = None) -> Decimal:
    """Round up to an integer or to decimal places; no zeros are added."""
    return _shortened(context, number, places, decimal.ROUND_CEILING)


def truncate(context: Context, number: Decimal, places: Decimal | None = None) -> Decimal:
    """Round toward zero to an integer or to decimal places; no zeros are added."""
    return _shortened(context, number, places, decimal.ROUND_DOWN)


def mean(context: Context, *numbers: Decimal) -> Decimal:
    """Return the sum divided by the count, rounded once, in bounded time.

    What is too far below the sum of the largest numbers to be one of its digits can only tell to
    which side of that sum the true one is: one digit stands for all of it.
    """
    # The sum may have more digits than the largest number, and the quotient more than the sum: as
    # many as the count has, each time. Two are to spare.
    margin = 2 * len(str(len(numbers))) + 2
    clusters = _clusters(context.prec, margin, numbers)
    total = next(clusters)
    rest = next(clusters, None)
    if rest is not None:
        digit = 1 if rest else 0
        place = _lowest_place(total, context.prec) - margin
        total = EXACT.add(total, Decimal((int(rest.is_signed()), (digit,), place)))
    negative_zero = context.rounding == decimal.ROUND_FLOOR and any(map(Decimal.is_signed, numbers))
    if not total and negative_zero:  # as ``Context.add`` would add them
        total = total.copy_sign(Decimal(-1))
    return context.divide(total, Decimal(len(numbers)))


def _shortened(context: Context, number: Decimal, places: Decimal | None, rounding: str) -> Decimal:
    """Drop the digits beyond ``places``, if there are any, and round to the precision."""
    shift = 0 if places is None else _checked(context, places)
    if number.adjusted() > context.Emax:  # it overflows, whatever digits are dropped, or is zero
        return context.create_decimal(number)
    exact = EXACT.copy()
    exact.rounding = rounding  # for what is too small to be shifted, as well
    whole = exact.scaleb(number, shift).to_integral_value(context=exact)
    return context.create_decimal(exact.scaleb(whole, -shift))


def _checked(context: Context, places: Decimal) -> int:
    """Return the number of places as an integer; raise ``RequestError`` for what is none."""
    if not is_whole(places):
        raise RequestError("INVALID-OPERATION", "places must be a whole number")
    least, most = -context.Emax, -context.Etiny()
    if not least <= places <= most:
        template = "places must be between {} and {}"
        raise RequestError("INVALID-OPERATION", template, least, most)
    return int(places)


def _clusters(precision: int, margin: int, numbers: Sequence[Decimal]) -> Iterator[Decimal]:
    """Yield exact sums of numbers that are near each other, largest first.

    What follows a sum is too small to change it in any of ``precision`` digits. Only the last sum
    may be zero.
    """
    total, *others = sorted(numbers, key=Decimal.adjusted, reverse=True)
    for number in others:
        if total and number.adjusted() < _lowest_place(total, precision) - margin:
            yield total
            total = number
        else:
            total = EXACT.add(total, number)
    yield total


def _lowest_place(total: Decimal, precision: int) -> int:
    """Return the exponent of the last digit, or of the last that rounding looks at, if lower."""
    return min(exponent_of(total), total.adjusted() - precision)
