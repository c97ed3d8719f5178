"""Functions on whole numbers, and the integer division of any two numbers.

Each returns the true result, rounded once by the context. None builds a number as long as an
operand's exponent is large: powers of ten are taken modulo the other operand, and a result that
overflows is recognized before it is computed.
"""

import decimal
import math
from collections.abc import Sequence
from decimal import Context, Decimal

from calcd.core.errors import RequestError
from calcd.core.exact import coefficient_and_exponent, from_coefficient, is_whole

_TOO_LARGE = Decimal(f"1E+{decimal.MAX_EMAX}")

# The largest whose factorial does not overflow, with decimal128's largest exponent of 6144.
_LARGEST_FACTORIAL = 2123

# A coefficient and an exponent that is not negative: the whole number c * 10**e.
_Scaled = tuple[int, int]


def factorial(context: Context, number: Decimal) -> Decimal:
    """Return the product of the whole numbers from 1 to ``number``."""
    if number < 0 or not is_whole(number):
        raise _invalid("the factorial needs a whole number that is not negative")
    if number > _LARGEST_FACTORIAL:
        return _overflow(context)
    return context.create_decimal(math.factorial(int(number)))


def permutations(context: Context, number: Decimal, chosen: Decimal) -> Decimal:
    """Return in how many ways ``chosen`` of ``number`` things can be put in order."""
    _check_counts(number, chosen)
    if chosen > number:
        return Decimal(0)
    if chosen == 0:
        return Decimal(1)
    # The result is not below ``number``, nor below the factorial of ``chosen``.
    if number.adjusted() > context.Emax or chosen > _LARGEST_FACTORIAL:
        return _overflow(context)
    n, k = int(number), int(chosen)
    if k * math.log10(n - k + 1) > _log10_limit(context):
        return _overflow(context)
    return context.create_decimal(math.perm(n, k))


def combinations(context: Context, number: Decimal, chosen: Decimal) -> Decimal:
    """Return in how many ways ``chosen`` of ``number`` things can be taken, in no order."""
    _check_counts(number, chosen)
    if chosen > number:
        return Decimal(0)
    if chosen in (0, number):
        return Decimal(1)
    if number.adjusted() > context.Emax:  # the result is not below ``number``
        return _overflow(context)
    n, k = int(number), int(chosen)
    k = min(k, n - k)
    # The result is not below 2**k, nor below (n-k+1)**k / k!.
    if k > 4 * context.Emax:
        return _overflow(context)
    if k * math.log10(n - k + 1) - math.lgamma(k + 1) / math.log(10) > _log10_limit(context):
        return _overflow(context)
    return context.create_decimal(math.comb(n, k))


def gcd(context: Context, *numbers: Decimal) -> Decimal:
    """Return the greatest common divisor; it is not negative, and 0 if all numbers are 0."""
    integers = _integers(numbers, "the greatest common divisor needs whole numbers")
    if not any(numbers):
        return Decimal(0)
    divisor = 0, 0
    for integer in integers:
        divisor = _gcd(divisor, integer)
    return context.create_decimal(from_coefficient(*divisor))


def lcm(context: Context, *numbers: Decimal) -> Decimal:
    """Return the least common multiple; it is not negative, and 0 if one of the numbers is 0."""
    integers = _integers(numbers, "the least common multiple needs whole numbers")
    if not all(numbers):
        return Decimal(0)
    multiple = 1, 0
    for integer in integers:
        divisor, _ = _gcd(multiple, integer)
        (low, _), (high, exponent) = _by_exponent(multiple, integer)
        multiple = low // divisor * high, exponent
        if math.log10(multiple[0]) + exponent > _log10_limit(context):
            return _overflow(context)
    return context.create_decimal(from_coefficient(*multiple))


def remainder(context: Context, dividend: Decimal, divisor: Decimal) -> Decimal:
    """Return what integer division leaves, with the sign of the dividend, for any two numbers.

    The specification's ``remainder`` has no result where the quotient has too many digits.
    """
    check_divisor(dividend, divisor)
    if not dividend or dividend.adjusted() - divisor.adjusted() < context.prec:
        return context.remainder(dividend, divisor)
    coefficient, exponent = coefficient_and_exponent(dividend.copy_abs())
    modulus, lowest = coefficient_and_exponent(divisor.copy_abs())
    if exponent >= lowest:
        coefficient *= pow(10, exponent - lowest, modulus)
    else:  # no longer than the dividend, which is not below the divisor
        modulus *= 10 ** (lowest - exponent)
        lowest = exponent
    rest = from_coefficient(coefficient % modulus, lowest)
    return context.create_decimal(rest.copy_sign(dividend))


def quotient(context: Context, dividend: Decimal, divisor: Decimal) -> Decimal:
    """Return the integer part of a division: the specification's ``divide-integer``."""
    check_divisor(dividend, divisor)
    try:
        return context.divide_int(dividend, divisor)
    except decimal.InvalidOperation:
        raise _invalid("the quotient needs more than {} digits", context.prec) from None


def _invalid(template: str, *arguments: object) -> RequestError:
    return RequestError("INVALID-OPERATION", template, *arguments)


def _overflow(context: Context) -> Decimal:
    """Raise ``decimal.Overflow`` if the context traps it, as all contexts of requests do."""
    return context.create_decimal(_TOO_LARGE)


def _log10_limit(context: Context) -> int:
    """Return a logarithm of results that overflow, with a margin for inexact logarithms."""
    return context.Emax + 2


def _check_counts(number: Decimal, chosen: Decimal) -> None:
    if min(number, chosen) < 0 or not (is_whole(number) and is_whole(chosen)):
        raise _invalid("the operands must be whole numbers that are not negative")


def check_divisor(dividend: Decimal, divisor: Decimal) -> None:
    """Raise ``RequestError`` DIVISION-BY-ZERO or DIVISION-UNDEFINED for a divisor of 0."""
    if divisor:
        return
    if dividend:
        raise RequestError("DIVISION-BY-ZERO", "division by zero")
    raise RequestError("DIVISION-UNDEFINED", "0 divided by 0 is undefined")


def _integers(numbers: Sequence[Decimal], reason: str) -> list[_Scaled]:
    """Return the magnitudes of whole numbers; raise ``RequestError`` if one is not whole."""
    if not all(map(is_whole, numbers)):
        raise _invalid(reason)
    return [coefficient_and_exponent(x.to_integral_value().copy_abs()) for x in numbers]


def _by_exponent(one: _Scaled, other: _Scaled) -> tuple[_Scaled, _Scaled]:
    return (one, other) if one[1] <= other[1] else (other, one)


def _gcd(one: _Scaled, other: _Scaled) -> _Scaled:
    (low, exponent), (high, high_exponent) = _by_exponent(one, other)
    if low == 0:
        return high, high_exponent
    # No prime is in ``low`` more often than ``low`` has bits: more zeros have no effect.
    zeros = min(high_exponent - exponent, low.bit_length())
    return math.gcd(low, high * pow(10, zeros, low)), exponent
