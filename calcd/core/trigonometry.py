"""Pi, e and the trigonometric functions of radians, correctly rounded: see ``elementary``.

Pi and e are transcendental. So are the sine, cosine and tangent of a rational number other than
0, and its arc sine, arc cosine and arc tangent unless that is 0 (Lindemann). None of them is a
boundary.
"""

from decimal import Context, Decimal
from functools import cache

from calcd.core import fixedpoint
from calcd.core.elementary import Approximation, beside, closeness, exp_to, rounded, working
from calcd.core.errors import RequestError
from calcd.core.fixedpoint import bits_of, from_fixed, to_fixed

_LARGEST = 6144  # adjusted exponent of an angle: the more digits it has, the more pi must have
_CONSTANT_DIGITS = 1020  # those after the greatest precision are neither 0s, 9s nor 50s
_ZERO, _ONE = Decimal(0), Decimal(1)
_INFINITY = Decimal("Infinity")


def pi(context: Context) -> Decimal:
    """Return pi."""
    return context.plus(_pi_digits())


def e(context: Context) -> Decimal:
    """Return e, the base of the natural logarithm."""
    return context.plus(_e_digits())


@cache
def _pi_digits() -> Decimal:
    return _pi_to(_CONSTANT_DIGITS)


@cache
def _e_digits() -> Decimal:
    return exp_to(_CONSTANT_DIGITS, _ONE)


def _pi_to(digits: int) -> Decimal:
    scale = bits_of(digits + 1)
    return from_fixed(fixedpoint.pi(scale), scale, digits + 1)


def sin(context: Context, angle: Decimal) -> Decimal:
    """Return the sine; raise ``RequestError`` if the angle is too large."""
    if not angle:
        return _ZERO.copy_sign(angle)
    if _is_tiny(context, angle):
        return beside(context, angle, _ZERO)  # x - x**3/6 + ...

    def approximate(digits: int) -> Decimal:
        sine, _ = _sin_cos_to(digits, angle.copy_abs())
        return sine.copy_negate() if angle < 0 else sine

    return _of_angle(context, angle, approximate)


def cos(context: Context, angle: Decimal) -> Decimal:
    """Return the cosine; raise ``RequestError`` if the angle is too large."""
    if not angle:
        return context.plus(_ONE)
    if 2 * angle.adjusted() + 2 < -closeness(context, _ONE):
        return beside(context, _ONE, _ZERO)  # 1 - x**2/2 + ...
    return _of_angle(context, angle, lambda digits: _sin_cos_to(digits, angle.copy_abs())[1])


def tan(context: Context, angle: Decimal) -> Decimal:
    """Return the tangent; raise ``RequestError`` if the angle is too large."""
    if not angle:
        return _ZERO.copy_sign(angle)
    if _is_tiny(context, angle):
        return beside(context, angle, _INFINITY.copy_sign(angle))  # x + x**3/3 + ...

    def approximate(digits: int) -> Decimal:
        sine, cosine = _sin_cos_to(digits + 1, angle.copy_abs())
        tangent = working(digits + 2).divide(sine, cosine)
        return tangent.copy_negate() if angle < 0 else tangent

    return _of_angle(context, angle, approximate)


def asin(context: Context, sine: Decimal) -> Decimal:
    """Return the arc sine; raise ``RequestError`` unless the number is from -1 to 1."""
    if sine.copy_abs() > 1:
        raise RequestError("INVALID-OPERATION", "the arcsine needs a number from -1 to 1")
    if not sine:
        return _ZERO.copy_sign(sine)
    if _is_tiny(context, sine):
        return beside(context, sine, _INFINITY.copy_sign(sine))  # x + x**3/6 + ...

    def approximate(digits: int) -> Decimal:
        """Return the arc tangent of x / sqrt((1 + x)(1 - x))."""
        work = working(digits + 4)
        cosine = work.sqrt(work.multiply(work.add(_ONE, sine), work.subtract(_ONE, sine)))
        return _atan2_to(digits + 1, sine.copy_abs(), cosine).copy_sign(sine)

    return rounded(context, approximate)


def acos(context: Context, cosine: Decimal) -> Decimal:
    """Return the arc cosine; raise ``RequestError`` unless the number is from -1 to 1."""
    if cosine.copy_abs() > 1:
        raise RequestError("INVALID-OPERATION", "the arccosine needs a number from -1 to 1")
    if cosine == 1:
        return _ZERO

    def approximate(digits: int) -> Decimal:
        """Return twice the arc tangent of sqrt((1 - x) / (1 + x))."""
        work = working(digits + 4)
        one_minus, one_plus = work.subtract(_ONE, cosine), work.add(_ONE, cosine)
        half = _atan2_to(digits + 1, work.sqrt(one_minus), work.sqrt(one_plus))
        return work.add(half, half)

    return rounded(context, approximate)


def atan(context: Context, tangent: Decimal) -> Decimal:
    """Return the arc tangent."""
    if not tangent:
        return _ZERO.copy_sign(tangent)
    if _is_tiny(context, tangent):
        return beside(context, tangent, _ZERO)  # x - x**3/3 + ...

    def approximate(digits: int) -> Decimal:
        return _atan2_to(digits, tangent.copy_abs(), _ONE).copy_sign(tangent)

    return rounded(context, approximate)


def _is_tiny(context: Context, x: Decimal) -> bool:
    """Return whether a function with a series x + a x**3 + ..., |a| <= 1/3, is beside x."""
    return 2 * x.adjusted() + 2 < -closeness(context, x)


def _of_angle(context: Context, angle: Decimal, approximate: Approximation) -> Decimal:
    if angle.adjusted() > _LARGEST:
        template = "pi is not known to enough digits for an angle of 1E+{} or more"
        raise RequestError("INVALID-OPERATION", template, _LARGEST + 1)
    return rounded(context, approximate)


def _sin_cos_to(digits: int, angle: Decimal) -> tuple[Decimal, Decimal]:
    """Approximate the sine and the cosine of a positive angle, each as precisely as asked for.

    The angle is n pi/2 + r with an error of 5 units, which becomes one of 7. If r is small, it is
    calculated again with more bits, so that it has ``wanted`` - 1 bits: 7 units are less than
    ``2**-bits_of(digits)`` of its sine. It is never 0, as pi is irrational.
    """
    size = max(0, bits_of(angle.adjusted() + 1))  # bits before the point
    wanted = bits_of(digits) + 8
    zeros = max(0, bits_of(-angle.adjusted()))
    while True:
        scale = wanted + zeros
        half_pi = fixedpoint.pi(scale + size) >> 1
        quadrant, rest = divmod(to_fixed(angle, scale + size), half_pi)
        if rest > half_pi >> 1:
            quadrant, rest = quadrant + 1, rest - half_pi
        size_of_rest = (abs(rest) >> size).bit_length()
        if size_of_rest >= wanted - 1:
            break
        zeros = scale - size_of_rest + 2
    sine, cosine = fixedpoint.sin_cos(abs(rest) >> size, scale)
    s, c = (from_fixed(each, scale, digits + 1) for each in (sine, cosine))
    if rest < 0:
        s = s.copy_negate()
    for _ in range(quadrant % 4):
        s, c = c, s.copy_negate()
    return s, c


def _atan2_to(digits: int, y: Decimal, x: Decimal) -> Decimal:
    """Approximate the arc tangent of a positive quotient ``y / x``; x may be 0.

    An error of the quotient makes none in the result that is greater, in proportion. To it come
    2 units from its conversion, 2 from the arc tangent, 1 from pi; the result is above 3/4 of the
    quotient that is converted, or of 1.
    """
    work = working(digits + 3)
    inverted = y > x
    quotient = work.divide(x, y) if inverted else work.divide(y, x)
    zeros = 0 if inverted else max(0, bits_of(-quotient.adjusted()))
    scale = bits_of(digits) + zeros + 8
    result = fixedpoint.atan(to_fixed(quotient, scale), scale)
    if inverted:
        result = (fixedpoint.pi(scale) >> 1) - result
    return from_fixed(result, scale, digits + 1)
