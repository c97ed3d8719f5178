"""Elementary functions of binary fixed-point numbers, with proven error bounds.

A number is an integer that counts units of ``2**-scale``. A right shift and an integer division
round down: each adds an error below one unit. Every function works with a few guard bits more
than it is asked for, so that its result is less than 2 units off. ``scale`` is 64 at least.

Arguments are made small before a series is summed, as in Brent, "Fast multiple-precision
evaluation of elementary functions", and Brent and Zimmermann, "Modern Computer Arithmetic",
chapter 4.
"""

import math
from collections.abc import Callable
from decimal import Decimal

from calcd.core.exact import EXACT, is_whole

_FLOAT_BITS = 52
_FLOAT_SCALE = 2.0**_FLOAT_BITS
_NEAR = 2.0**-26  # below this a series needs no better starting point than 0


def bits_of(digits: int) -> int:
    """Return a number of bits with ``2**-bits <= 10**-digits``."""
    return digits * 3322 // 1000 + 1


def to_fixed(number: Decimal, scale: int) -> int:
    """Convert a decimal number; its exponent must not be large."""
    if number.adjusted() > 100 and is_whole(number):
        return int(number) << scale  # the same, but faster
    places = scale * 30103 // 100_000 + 1  # 10**-places <= 2**-scale
    unit: int = 10**places
    return (int(EXACT.scaleb(number, places)) << scale) // unit


def from_fixed(number: int, scale: int, digits: int) -> Decimal:
    """Convert a positive number; the result has an error below ``10**-digits`` of itself."""
    places = digits + 2 + (scale - number.bit_length() + 1) * 30103 // 100_000
    if places < 0:
        return EXACT.scaleb(Decimal((number >> scale) // 10**-places), -places)
    return EXACT.scaleb(Decimal(number * 10**places >> scale), -places)


def _kept(compute: Callable[[int], int]) -> Callable[[int], int]:
    """Keep a constant as precisely as it was needed until now.

    Threads may compute it at the same time: scale and value are replaced together.
    """
    kept = 0, 0

    def constant(scale: int) -> int:
        nonlocal kept
        kept_scale, value = kept
        if scale > kept_scale:
            kept_scale = 1 << scale.bit_length()
            value = compute(kept_scale)
            kept = kept_scale, value
        return value >> kept_scale - scale

    return constant


@_kept
def ln10(scale: int) -> int:
    """Return the natural logarithm of 10: 46 acoth(31) + 34 acoth(49) + 20 acoth(161)."""
    work = scale + 32
    total = 46 * _acoth(31, work) + 34 * _acoth(49, work) + 20 * _acoth(161, work)
    return total >> 32


def _acoth(number: int, scale: int) -> int:
    """Sum 1/n + 1/3n**3 + 1/5n**5 + ...; each term is less than 2 units off."""
    total, power, count = 0, (1 << scale) // number, 1
    while power:
        total += power // count
        power //= number * number
        count += 2
    return total


@_kept
def pi(scale: int) -> int:
    """Return pi: the series of Chudnovsky, 47 bits a term, by binary splitting."""
    work = scale + 32
    _, denominator, numerator = _chudnovsky(0, work // 47 + 2)
    root = math.isqrt(10005 << 2 * work)
    return (denominator * 426_880 * root // numerator) >> 32


def _chudnovsky(begin: int, end: int) -> tuple[int, int, int]:
    """Return the products P and Q and the sum T of the terms from ``begin`` to before ``end``."""
    if end - begin == 1:
        if begin == 0:
            return 1, 1, 13_591_409
        p = -(6 * begin - 5) * (2 * begin - 1) * (6 * begin - 1)
        return p, begin**3 * 10_939_058_860_032_000, p * (13_591_409 + 545_140_134 * begin)
    middle = (begin + end) // 2
    p1, q1, t1 = _chudnovsky(begin, middle)
    p2, q2, t2 = _chudnovsky(middle, end)
    return p1 * p2, q1 * q2, t1 * q2 + p1 * t2


def exp(number: int, scale: int) -> int:
    """Return e to the power of a number from 0 to 2.5.

    e**x is the square of e**(x/2), and so on: ``halvings`` times, then the series is short. Each
    of its N terms is less than 2 units off, and what follows them is less than 4. That is a
    relative error of at most 2N + 7 units, which each squaring doubles, adding one unit. N is far
    below the number of bits, so that the guard bits take it all.
    """
    halvings = max(0, math.isqrt(scale) * 3 // 4 + number.bit_length() - scale)
    guard = halvings + scale.bit_length() + 6
    work = scale + guard
    x = number << guard >> halvings
    total = term = 1 << work
    count = 1
    while term:
        term = (term * x >> work) // count
        total += term
        count += 1
    for _ in range(halvings):
        total = total * total >> work
    return total >> guard


def ln(number: int, scale: int) -> int:
    """Return the natural logarithm of a number from 0.3 to 3.

    ln(x) = y + 2 atanh((x - e**y) / (x + e**y)) for every y. With y = ``math.log(x)`` the quotient
    is so small that the series gains about 100 bits a term; how good y is does not matter for the
    error. The quotient is less than 4 units off, each term of the series less than 2. Where x is
    close to 1, y is 0.
    """
    guard = scale.bit_length() + 4
    scale += guard
    number <<= guard
    one = 1 << scale
    value = number / one
    start = int(math.log(value) * _FLOAT_SCALE) << scale - _FLOAT_BITS
    if abs(value - 1) < _NEAR:
        start = 0
        numerator, denominator = number - one, number + one
    elif start > 0:
        power = exp(start, scale)
        numerator, denominator = number - power, number + power
    else:
        product = number * exp(-start, scale) >> scale
        numerator, denominator = product - one, product + one
    return start + 2 * _odd_powers(numerator, denominator, scale, 1) >> guard


def sin_cos(angle: int, scale: int) -> tuple[int, int]:
    """Return the sine and the cosine of an angle from 0 to 1.

    The versine v(x) = 1 - cos(x) is small where x is, so that it loses no digits, and from v(x)
    follow v(2x) = 2 v(x) (2 - v(x)) and sin(x) = sqrt(v(x) (2 - v(x))). Neither makes the relative
    error greater. The smallest v is above 2**(-2(zeros + halvings) - 3), the sine is at most
    2**-zeros, and N terms and all doublings are less than 2N + halvings + 4 units off.
    """
    if angle == 0:
        return 0, 1 << scale
    zeros = scale - angle.bit_length()
    halvings = max(0, math.isqrt(scale) // 2 - zeros)
    guard = zeros + 2 * halvings + scale.bit_length() + 6
    work = scale + guard
    square = (angle << guard) ** 2 >> work + 2 * halvings
    total, term, count = 0, square >> 1, 1
    while term:
        total += term if count & 2 == 0 else -term
        count += 2
        term = (term * square >> work) // (count * (count + 1))
    for _ in range(halvings):
        total = total * ((2 << work) - total) >> work - 1
    sine = math.isqrt(total * ((2 << work) - total))
    return sine >> guard, (1 << work) - total >> guard


def atan(number: int, scale: int) -> int:
    """Return the arc tangent of a number from 0 to 1.

    atan(x) = y + atan((x - tan(y)) / (1 + x tan(y))) for every y; see ``ln``. The quotient is less
    than 6 units off.
    """
    guard = scale.bit_length() + 4
    scale += guard
    number <<= guard
    value = number / (1 << scale)
    if value < _NEAR:
        return _odd_powers(number, 1 << scale, scale, -1) >> guard
    start = int(math.atan(value) * _FLOAT_SCALE) << scale - _FLOAT_BITS
    sine, cosine = sin_cos(start, scale)
    numerator = (number * cosine >> scale) - sine
    denominator = cosine + (number * sine >> scale)
    return start + _odd_powers(numerator, denominator, scale, -1) >> guard


def _odd_powers(numerator: int, denominator: int, scale: int, sign: int) -> int:
    """Return atanh (``sign`` 1) or atan (-1) of a quotient q: q + sign q**3/3 + q**5/5 + ..."""
    power = (abs(numerator) << scale) // denominator
    square = power * power >> scale
    total, count, factor = 0, 1, 1 if numerator > 0 else -1
    while power:
        total += factor * (power // count)
        power = power * square >> scale
        count += 2
        factor *= sign
    return total
