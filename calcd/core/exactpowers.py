"""Powers, roots and logarithms that are finite decimal numbers, found by integer arithmetic.

A positive decimal number is written c * 10**e, with a coefficient c that is not divisible by 10:
then no power of c is either, and two such numbers are equal only if their c and their e are.
Numbers may be long. They are not made integers, which takes long, if their length says enough.
"""

import math
from decimal import Context, Decimal

from calcd.core.exact import EXACT, exponent_of, is_whole

_FAR = 10**6  # an exponent that is beyond this is that of no result, nor near one
_DECIMALS = 40  # an exponent with more has a denominator above 2**40: no such root is whole


def power_of(context: Context, base: Decimal, exponent: Decimal) -> tuple[int, int] | None:
    """Return c and e of a power if that is a decimal number of few digits; else None.

    Base and exponent are positive. Up to three times the precision is few. A power with more
    digits is no boundary. Nor is its reciprocal: that of 5**n is 2**n / 10**n, which still has more
    digits than the precision, as 5**n has 2.3 times the digits of 2**n.
    """
    coefficient, shift = split(base)
    if coefficient == 1:
        if shift == 0:
            return 1, 0
        if exponent >= _FAR:
            return None
        power = EXACT.multiply(Decimal(shift), exponent)
        return (1, int(power)) if is_whole(power) and power.copy_abs() < _FAR else None
    exponent = exponent.normalize(EXACT)
    if exponent.adjusted() > 5 or exponent_of(exponent) < -_DECIMALS:
        return None
    numerator, denominator = exponent.as_integer_ratio()
    if numerator * coefficient.adjusted() > denominator * 3 * (context.prec + 2):
        return None
    if numerator > 10 * denominator * (context.prec + 2):  # the least coefficient is 2
        return None
    root = root_of(context, base, denominator)
    if root is None or abs(root[1] * numerator) >= _FAR:
        return None
    return root[0] ** numerator, root[1] * numerator


def root_of(context: Context, number: Decimal, degree: int) -> tuple[int, int] | None:
    """Return c and e of the root of a positive number if it is rational; else None.

    It is None, too, if it has more digits than ``power_of`` says. A rational root is a finite
    decimal number, as its powers are.
    """
    coefficient, shift = split(number)
    digits = coefficient.adjusted() + 1
    if shift % degree or digits - 1 > 3 * degree * (context.prec + 2):
        return None
    if coefficient > 1 and degree >= 4 * digits:
        return None  # the root is less than 2
    whole = int(coefficient)
    root, rest = whole, degree
    while rest % 2 == 0 and root > 1:
        square, root, rest = root, math.isqrt(root), rest // 2
        if root * root != square:
            return None
    root = _integer_root(root, rest)
    return (root, shift // degree) if root**degree == whole else None


def _integer_root(number: int, degree: int) -> int:
    """Return the root, rounded down: Newton's method, from above."""
    if degree == 1 or number == 1:
        return number
    # To start above the root: its first 60 bits, and 2**-40 of it more.
    shift = max(0, number.bit_length() // degree - 60)
    first = 2.0 ** (math.log2(number >> degree * shift) / degree)
    root = int(first * (1 + 2.0**-40)) + 2 << shift
    while (better := ((degree - 1) * root + number // root ** (degree - 1)) // degree) < root:
        root = better
    return root


def reciprocal_of(coefficient: int, shift: int) -> tuple[int, int] | None:
    """Return c and e of 1 / (coefficient * 10**shift) if that is a decimal number; else None."""
    for factor, other in ((2, 5), (5, 2)):
        count = round(math.log(coefficient, factor))
        if factor**count == coefficient:
            return other**count, -shift - count
    return None


def ratio_of_logarithms(number: Decimal, base: Decimal) -> tuple[int, int] | None:
    """Return whole p and q with ``number = base**(p/q)``, if there are any; else None.

    Both are positive and not 1.
    """
    (a, shift), (b, base_shift) = split(number), split(base)
    if a == b == 1:
        return shift, base_shift
    if a == 1 or b == 1:
        return None
    sign = 1
    if (number < 1) != (base < 1):
        reciprocal = reciprocal_of(int(a), shift)
        if reciprocal is None:
            return None
        sign, a, shift = -1, Decimal(reciprocal[0]), reciprocal[1]
    if EXACT.remainder(max(a, b), min(a, b)):
        return None
    wholes = int(a), int(b)
    if (common := _common_root(*wholes)) is None:
        return None
    p, q = (round(math.log(each, common)) for each in wholes)
    return (sign * p, q) if shift * q == base_shift * p else None


def _common_root(a: int, b: int) -> int | None:
    """Return a number that two numbers above 1 are powers of, if there is one; else None.

    This is Euclid's algorithm on the exponents. If a = g**m and b = g**n, with m >= n, and k is
    m / n rounded down, then a / b**k = g**(m - k n). As n is below 10**7, m / n is whole, or 10**-7
    or more below the next whole number: adding 1e-8 makes up for inexact logarithms.
    """
    while a > 1 and b > 1:
        if a < b:
            a, b = b, a
        a, rest = divmod(a, b ** int(math.log(a) / math.log(b) + 1e-8))
        if rest:
            return None
    return max(a, b)


def split(number: Decimal) -> tuple[Decimal, int]:
    """Return c, as a whole decimal number, and e of a positive number."""
    reduced = number.normalize(EXACT)
    exponent = exponent_of(reduced)
    return EXACT.scaleb(reduced, -exponent), exponent


def padded(context: Context, coefficient: int, exponent: int, ideal: float) -> Decimal:
    """Return a number with zeros at its end: down to the exponent ``ideal``, as far as they matter.

    One digit more than the precision has room for makes ``plus`` raise the condition Rounded.
    """
    number = Decimal(coefficient)
    zeros = int(max(0, min(exponent - ideal, context.prec - number.adjusted())))
    return EXACT.scaleb(Decimal(coefficient * 10**zeros), exponent - zeros)
