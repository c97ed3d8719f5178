"""Exponentials, logarithms, powers and roots, correctly rounded.

The result is the true one, rounded once, in the mode in force. The specification lets some of
these functions round half-even in every mode; IEEE 754-2008, section 9.2, asks for the mode in
force. The way is Ziv's ("Fast evaluation of elementary mathematical functions with correctly
rounded last bit", 1991; Muller et al., "Handbook of Floating-Point Arithmetic", chapter 10):
calculate with a known error; if all numbers within the error round to the same, so does the true
result; else calculate with more digits.

That ends unless the true result is a *boundary*: a number of the precision, or half-way between
two of them. All boundaries are decimal numbers of at most ``prec`` + 1 digits. So each function
first finds such results, by integer arithmetic. What is left is no boundary:

- e**x for a rational x other than 0 is transcendental (Lindemann), and so is ln(x) for x not 1;
- log(x) to the base b is rational only if x and b are powers of one number, which Euclid's
  algorithm finds;
- x**(p/q) with p and q coprime is rational only if x is the q-th power of a rational number.

Results that are very close to a boundary without being one, such as exp(1e-999) and
ln(1 + 1e-999), would need many digits. The first terms of a series say on which side they are.
"""

import decimal
import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_05UP, ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

from calcd.core import fixedpoint
from calcd.core.errors import RequestError
from calcd.core.fixedpoint import WIDE, bits_of

_GUARD_DIGITS = 6  # with these, one random result in 10**5 needs a second attempt
_FAR = 20_000  # no number that has an exponent beyond this is a result
_MAX_FACTORIAL = 1000  # no precision has enough digits for a larger one
_ONE = Decimal(1)
_TEN = Decimal(10)

# Gives a nonzero result with an error of at most 10**-digits of itself.
Approximation = Callable[[int], Decimal]


@lru_cache
def working(digits: int, rounding: str = ROUND_HALF_EVEN) -> Context:
    """Return a context to calculate in, which traps nothing. Nobody reads its flags."""
    return Context(digits, rounding, MIN_EMIN, MAX_EMAX, traps=[], clamp=0, capitals=1)


def rounded(context: Context, approximate: Approximation) -> Decimal:
    """Round a result that is no boundary, in the mode in force.

    ROUND_05UP is the specification's rounding for a result that is rounded again: it truncates,
    but never to a last digit 0 or 5, unless the result is exact. With one digit more than the
    precision, the boundaries are the numbers that end in 0 or 5. If both ends of an interval
    round to one number, that lies between the same two boundaries as all of the interval does; it
    is rounded as the true result is, to ``prec`` digits or, if it is subnormal, to fewer.
    """
    sticky = working(context.prec + 1, ROUND_05UP)
    digits = max(context.prec, 14) + _GUARD_DIGITS  # 64 bits at least
    while True:
        value = approximate(digits)
        error = WIDE.scaleb(value, -digits)
        low = sticky.subtract(value, error)
        if low == sticky.add(value, error):
            return context.plus(low)
        digits *= 2


def beside(context: Context, number: Decimal, towards: Decimal) -> Decimal:
    """Round a result that is close to ``number``, in the direction of another number.

    It must differ by less than ``10**-closeness(context, number)`` of it. Then no boundary is
    between them, nor between ``number`` and the next number of a few digits more.
    """
    number = _limited(number, _FAR)  # if it is smaller, it underflows as well
    digits = closeness(context, number) - 1
    return context.plus(working(digits).next_toward(number, towards))


def closeness(context: Context, number: Decimal) -> int:
    """Return how many digits a result must have in common with a number; see ``beside``."""
    return max(context.prec, digits_of(number)) + 3


def exp_to(digits: int, number: Decimal) -> Decimal:
    """Approximate e to the power of a number below 10**6 in size.

    The number is split into ``power`` ln(10) + ``rest``. Errors are 2 units from the conversion,
    up to 2**19 from ln(10) and 2 from e**rest: less than 2**20 of ``2**-scale``.
    """
    scale = bits_of(digits) + 24
    power, rest = divmod(fixedpoint.to_fixed(number, scale), fixedpoint.ln10(scale))
    result = fixedpoint.from_fixed(fixedpoint.exp(rest, scale), scale, digits + 1)
    return WIDE.scaleb(result, power)


def ln_to(digits: int, number: Decimal) -> Decimal:
    """Approximate the natural logarithm of a positive number other than 1.

    With ``number`` = m 10**k and 0.3 < m <= 3, it is ln(m) + k ln(10). Errors are 7 units from the
    conversion (as m > 0.3), 2 from ln(m) and k from ln(10). It is greater than 1 if k is not 0,
    and else greater than a half of the distance of m from 1.
    """
    power = number.adjusted()
    mantissa = WIDE.scaleb(number, -power)
    if mantissa > 3:
        mantissa, power = WIDE.scaleb(mantissa, -1), power + 1
    scale = digits if power else digits - working(1).subtract(mantissa, _ONE).adjusted()
    scale = bits_of(scale) + power.bit_length() + 8
    result = fixedpoint.ln(fixedpoint.to_fixed(mantissa, scale), scale)
    result += power * fixedpoint.ln10(scale)
    size = fixedpoint.from_fixed(abs(result), scale, digits + 1)
    return size if result > 0 else size.copy_negate()


def exp(context: Context, number: Decimal) -> Decimal:
    """Return e to the power of a number."""
    if not number:
        return context.plus(_ONE)
    return _power_of_e(context, lambda _: number)


def ln(context: Context, number: Decimal) -> Decimal:
    """Return the natural logarithm of a positive number; raise ``RequestError`` for others."""
    _check_logarithm(number)
    if number == 1:
        return Decimal(0)
    if number.adjusted() in (-1, 0):
        # ln(1 + x) = x - x**2/2 + ... is below x, by less than x**2 if x is small.
        x = working(digits_of(number) + 1).subtract(number, _ONE)
        if x.adjusted() < -closeness(context, x):
            return beside(context, x, Decimal("-Infinity"))
    return rounded(context, lambda digits: ln_to(digits, number))


def log(context: Context, number: Decimal, base: Decimal = _TEN) -> Decimal:
    """Return the logarithm to a base.

    Raise ``RequestError`` unless both are positive and the base is not 1.
    """
    _check_logarithm(number)
    if base <= 0:
        raise RequestError("INVALID-OPERATION", "the base of a logarithm must be positive")
    if base == 1:
        raise RequestError("INVALID-OPERATION", "the base of a logarithm must not be 1")
    if ratio := _ratio_of_logarithms(number, base):
        return context.divide(*map(Decimal, ratio))

    def approximate(digits: int) -> Decimal:
        logarithms = ln_to(digits + 2, number), ln_to(digits + 2, base)
        return working(digits + 3).divide(*logarithms)

    return rounded(context, approximate)


def log10(context: Context, number: Decimal) -> Decimal:
    """Return the logarithm to base 10 of a positive number; raise ``RequestError`` for others."""
    return log(context, number)


def power(context: Context, base: Decimal, exponent: Decimal) -> Decimal:
    """Return a power; raise ``RequestError`` if it is undefined.

    As in the specification, an exact result has the quantum that repeated multiplication gives
    if the exponent is whole, and is filled up with zeros if not.
    """
    whole = exponent == exponent.to_integral_value(context=WIDE)
    sign = _ONE.copy_negate() if base.is_signed() and whole and _is_odd(exponent) else _ONE
    if not base:
        return _power_of_zero(sign, exponent)
    if base < 0 and not whole:
        template = "a negative number to a power that is not whole"
        raise RequestError("INVALID-OPERATION", template)
    if not exponent:
        return context.plus(_ONE)
    size = base.copy_abs()
    if whole and exponent.adjusted() < 5:
        times = abs(int(exponent))
        digits = max(1, times * digits_of(base))
        if digits <= 3 * context.prec + 300 and abs(base.adjusted()) <= _FAR:
            return _signed_power(context, working(digits).power(base, times), exponent)
    exact = _exact_power(context.prec, size, exponent.copy_abs())
    if exact and not whole:
        exact = exact if exponent > 0 else _inverse(*exact)
        if exact:
            return context.plus(_padded(context.prec, *exact, -math.inf))
    elif exact:
        ideal = exponent_of(base) * abs(int(_limited(exponent, 20)))
        value = _padded(context.prec, *exact, ideal).copy_sign(sign)
        return _signed_power(context, value, exponent)
    y = _limited(exponent, _FAR + digits_of(base))

    def product(digits: int) -> Decimal:
        return working(digits + 2).multiply(y, ln_to(digits + 1, size))

    return _power_of_e(context, product, sign)


def root(context: Context, number: Decimal, degree: Decimal) -> Decimal:
    """Return the real root of a degree that is whole; raise ``RequestError`` if there is none."""
    if not degree or degree != degree.to_integral_value(context=WIDE):
        template = "the root's degree must be a whole number other than 0"
        raise RequestError("INVALID-OPERATION", template)
    if number < 0 and not _is_odd(degree):
        raise RequestError("INVALID-OPERATION", "an even root of a negative number")
    if not number:
        return _power_of_zero(_ONE, degree)
    if degree == 2:
        return sqrt(context, number)
    n = _limited(degree, _FAR)
    size, sign = number.copy_abs(), _ONE.copy_sign(number)
    if exact := _exact_root(*_split(size), abs(int(_limited(degree, 20)))):
        ideal = exponent_of(number) // abs(int(_limited(degree, 20)))
        value = _padded(context.prec, *exact, ideal).copy_sign(sign)
        return _signed_power(context, value, degree)

    def quotient(digits: int) -> Decimal:
        return working(digits + 2).divide(ln_to(digits + 1, size), n)

    return _power_of_e(context, quotient, sign)


def sqrt(context: Context, number: Decimal) -> Decimal:
    """Return the square root; raise ``RequestError`` if the number is negative.

    An exact root has half the exponent, rounded down, as far as there is room.
    """
    if number < 0:
        raise RequestError("INVALID-OPERATION", "square root of a negative number")
    if not number or context.rounding == ROUND_HALF_EVEN:
        return context.sqrt(number)  # correctly rounded in this mode, to the specification
    # The root of a number of 2n or 2n-1 digits has n.
    places = context.prec + 1 - number.adjusted() // 2
    scaled = WIDE.scaleb(number, 2 * places)
    whole = math.isqrt(int(scaled))
    if whole * whole == scaled:
        exact = _split(WIDE.scaleb(Decimal(whole), -places))
        return context.plus(_padded(context.prec, *exact, exponent_of(number) // 2))
    # Another digit that is not 0 stands for all those of the true result.
    return context.plus(WIDE.scaleb(Decimal(10 * whole + 1), -places - 1))


def _check_logarithm(number: Decimal) -> None:
    if number <= 0:
        template = "logarithm of a negative number" if number else "logarithm of zero"
        raise RequestError("INVALID-OPERATION", template)


def _power_of_zero(sign: Decimal, exponent: Decimal) -> Decimal:
    if not exponent:
        raise RequestError("INVALID-OPERATION", "0 to the power 0 is undefined")
    if exponent < 0:
        raise RequestError("DIVISION-BY-ZERO", "division by zero")
    return Decimal(0).copy_sign(sign)


def _power_of_e(context: Context, exponent: Approximation, sign: Decimal = _ONE) -> Decimal:
    """Return e to a power other than 0, with a sign."""
    rough = exponent(20)
    if rough.adjusted() >= 5:
        return context.plus(WIDE.scaleb(sign, _FAR if rough > 0 else -_FAR))
    if rough.adjusted() < -closeness(context, sign) - 1:
        return beside(context, sign, WIDE.scaleb(sign, 1) if rough > 0 else Decimal(0))

    def approximate(digits: int) -> Decimal:
        # An exponent of up to 10**5 has an error of up to 10**-(digits + 2).
        return exp_to(digits + 1, exponent(digits + 7)).copy_sign(sign)

    return rounded(context, approximate)


def _signed_power(context: Context, value: Decimal, exponent: Decimal) -> Decimal:
    """Round an exact power whose exponent has lost its sign."""
    return context.plus(value) if exponent > 0 else context.divide(_ONE, value)


def _exact_power(precision: int, base: Decimal, exponent: Decimal) -> tuple[int, int] | None:
    """Return c and e if base**exponent is c * 10**e and has few digits; else None.

    Both are positive. A coefficient that is not divisible by 10 has powers that are not, so that
    all their digits count. 3 * (precision + 1) of them are few: if they are more, neither they nor
    their reciprocal, if finite, are those of a boundary, as 5**n has 2.3 times those of 2**n.
    """
    coefficient, shift = _split(base)
    if coefficient == 1:
        power = WIDE.multiply(Decimal(shift), exponent)
        if not power:
            return 1, 0
        is_whole = power.adjusted() < 6 and power == power.to_integral_value(context=WIDE)
        return (1, int(power)) if is_whole and power.is_finite() else None
    if not -40 < exponent.adjusted() < 5:
        return None
    numerator, denominator = exponent.as_integer_ratio()
    size = coefficient.bit_length()
    if numerator * (size - 1) > denominator * 10 * (precision + 2):
        return None
    exact = _exact_root(coefficient, shift, denominator)
    if exact is None or abs(shift * numerator) > _FAR * denominator:
        return None
    return exact[0] ** numerator, exact[1] * numerator


def _exact_root(coefficient: int, shift: int, degree: int) -> tuple[int, int] | None:
    """Return c and e if c * 10**e is the root of ``coefficient * 10**shift``; else None.

    If the root of a finite decimal number is rational, it is a finite decimal number as well. The
    coefficients are not divisible by 10, so that one is a power of the other.
    """
    if shift % degree or 1 < coefficient.bit_length() <= degree:
        return None
    root, rest = coefficient, degree
    while rest % 2 == 0 and root > 1:
        square, root, rest = root, math.isqrt(root), rest // 2
        if root * root != square:
            return None
    root = _integer_root(root, rest)
    return (root, shift // degree) if root**degree == coefficient else None


def _integer_root(number: int, degree: int) -> int:
    """Return the root, rounded down, by Newton's method from above."""
    if degree == 1 or number == 1:
        return number
    root = 1 << -(-number.bit_length() // degree)
    while (better := ((degree - 1) * root + number // root ** (degree - 1)) // degree) < root:
        root = better
    return root


def _inverse(coefficient: int, shift: int) -> tuple[int, int] | None:
    """Return c and e if c * 10**e is 1 / (coefficient * 10**shift); else None."""
    for factor, other in ((2, 5), (5, 2)):
        count = round(math.log(coefficient, factor))
        if factor**count == coefficient:
            return other**count, -shift - count
    return None


def _ratio_of_logarithms(number: Decimal, base: Decimal) -> tuple[int, int] | None:
    """Return whole p and q with ``number = base**(p/q)``, if there are any.

    Powers of coefficients that are not divisible by 10 are not either. So they must be equal, and
    so must be the powers of 10.
    """
    (a, shift), (b, base_shift) = _split(number), _split(base)
    if a == b == 1:
        return shift, base_shift
    sign = 1
    if (number < 1) != (base < 1):
        sign, inverse = -1, _inverse(a, shift)
        if inverse is None:
            return None
        a, shift = inverse
    if a == 1 or b == 1 or not (common := _common_root(a, b)):
        return None
    p, q = (_count_of_factor(each, common) for each in (a, b))
    return (sign * p, q) if shift * q == base_shift * p else None


def _common_root(a: int, b: int) -> int:
    """Return a number that two numbers above 1 are powers of, else 0: Euclid on the exponents."""
    while a != b:
        if a < b:
            a, b = b, a
        a, rest = divmod(a, b)
        if rest:
            return 0
    return a


def _count_of_factor(number: int, factor: int) -> int:
    count = 0
    while number > 1:
        number //= factor
        count += 1
    return count


def _split(number: Decimal) -> tuple[int, int]:
    """Return a positive number as a coefficient that is not divisible by 10, and an exponent."""
    reduced = number.normalize(WIDE)
    exponent = exponent_of(reduced)
    return int(WIDE.scaleb(reduced, -exponent)), exponent


def _padded(precision: int, coefficient: int, exponent: int, ideal: float) -> Decimal:
    """Return an exact result with zeros at its end: down to an exponent, as far as they matter.

    One digit more than the precision has room for makes ``plus`` raise the condition Rounded.
    """
    number = Decimal(coefficient)
    zeros = int(max(0, min(exponent - ideal, precision - number.adjusted())))
    return WIDE.scaleb(Decimal(coefficient * 10**zeros), exponent - zeros)


def _limited(number: Decimal, most: int) -> Decimal:
    """Bring a number that is too large or too small to matter within ``10**most``."""
    far = abs(number.adjusted()) - most
    return number if far <= 0 else WIDE.scaleb(number, -far if number.adjusted() > 0 else far)


def _is_odd(number: Decimal) -> bool:
    """Return whether a whole number is odd."""
    return number.adjusted() < digits_of(number) and int(number) % 2 == 1


def exponent_of(number: Decimal) -> int:
    """Return the exponent of a finite number's last digit."""
    return int(number.as_tuple().exponent)


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
