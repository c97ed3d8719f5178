"""Exponentials, logarithms, powers and roots, correctly rounded.

The result is the true one, rounded once, in the mode in force. The specification lets some of
these functions round half-even in every mode; IEEE 754-2008, section 9.2, asks for the mode in
force. The way is Ziv's ("Fast evaluation of elementary mathematical functions with correctly
rounded last bit", 1991; Muller et al., "Handbook of Floating-Point Arithmetic", chapter 10):
calculate with a known error; if all numbers within the error round to the same, so does the true
result; else calculate with more digits.

That ends unless the true result is a *boundary*: a number of the precision, or half-way between
two of them. All boundaries are decimal numbers of at most ``prec`` + 1 digits. So each function
first finds out whether its result is one: ``exactpowers`` does. What is left is no boundary:

- e**x for a rational x other than 0 is transcendental, and so is ln(x) for x not 1 (Lindemann);
- log(x) to the base b is rational only if x and b are powers of one number;
- x**(p/q) with p and q coprime is rational only if x is the q-th power of a rational number.

Results that are very close to a boundary without being one, such as exp(1e-999) and
ln(1 + 1e-999), would need many digits. The first terms of a series say on which side they are.
"""

import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_05UP, ROUND_HALF_EVEN, Context, Decimal
from functools import cache, lru_cache

from calcd.core import exactpowers, fixedpoint
from calcd.core.errors import RequestError
from calcd.core.exact import EXACT, digits_of, exponent_of, is_whole
from calcd.core.fixedpoint import bits_of

_FAR = 20_000  # no number that has an exponent beyond this is a result
_SHORT = 40  # digits of a precision in which the decimal module's square root is faster
_ONE = Decimal(1)
_TEN = Decimal(10)

# Gives a result other than 0 with an error of at most 10**-digits of itself.
Approximation = Callable[[int], Decimal]


@lru_cache
def working(digits: int, rounding: str = ROUND_HALF_EVEN) -> Context:
    """Return a context to calculate in, which traps nothing. Nobody reads its flags."""
    return Context(digits, rounding, MIN_EMIN, MAX_EMAX, traps=[], clamp=0, capitals=1)


def rounded(context: Context, approximate: Approximation) -> Decimal:
    """Round a result that is no boundary, in the mode in force.

    ROUND_05UP is the specification's rounding of a result that is rounded again: it truncates,
    but never to a last digit 0 or 5, unless the result is exact. With one digit more than the
    precision, the boundaries are the numbers that end in 0 or 5. If both ends of an interval
    round to one number, that lies between the same two boundaries as all of the interval does. It
    is rounded as the true result is, to ``prec`` digits or, if it is subnormal, to fewer.
    """
    sticky = working(context.prec + 1, ROUND_05UP)
    digits = _first_attempt(context)
    while True:
        value = approximate(digits)
        error = EXACT.scaleb(value, -digits)
        low = sticky.subtract(value, error)
        if low == sticky.add(value, error):
            return context.plus(low)
        digits *= 2


def _first_attempt(context: Context) -> int:
    """Return with how many digits a result is calculated first.

    One random result in 10**4 needs another attempt. Fixed-point numbers have 64 bits at least.
    """
    return max(20, context.prec + 6)


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
    return EXACT.scaleb(result, power)


def ln_to(digits: int, number: Decimal) -> Decimal:
    """Approximate the natural logarithm of a positive number other than 1.

    With ``number`` = m 10**k and 0.3 < m <= 3, it is ln(m) + k ln(10). Errors are 7 units from the
    conversion (as m > 0.3), 2 from ln(m) and k from ln(10). The logarithm is greater than 1 if k
    is not 0, and else greater than a half of the distance of m from 1.
    """
    power = number.adjusted()
    mantissa = EXACT.scaleb(number, -power)
    if mantissa > 3:
        mantissa, power = EXACT.scaleb(mantissa, -1), power + 1
    places = digits if power else digits - working(1).subtract(mantissa, _ONE).adjusted()
    scale = bits_of(places) + power.bit_length() + 8
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
    if number == 1:
        return Decimal(0)
    if ratio := exactpowers.ratio_of_logarithms(number, base):
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
    whole = is_whole(exponent)
    if not base:
        return _power_of_zero(base, exponent, whole)
    if base < 0 and not whole:
        template = "a negative number to a power that is not whole"
        raise RequestError("INVALID-OPERATION", template)
    if not exponent:
        return context.plus(_ONE)
    if whole and exponent.adjusted() < 5 and abs(base.adjusted()) < _FAR:
        times = abs(int(exponent))
        digits = times * digits_of(base)
        if digits <= 3 * context.prec + 300:
            return _signed_power(context, working(digits).power(base, times), exponent)
    size = base.copy_abs()
    sign = base if whole and _is_odd(exponent) else size
    exact = exactpowers.power_of(context, size, exponent.copy_abs())
    if exact and whole:
        ideal = exponent_of(base) * abs(int(_limited(exponent, 20)))
        value = exactpowers.padded(context, *exact, ideal)
        return _signed_power(context, value.copy_sign(sign), exponent)
    if exact and exponent < 0:
        exact = exactpowers.reciprocal_of(*exact)
    if exact:
        return context.plus(exactpowers.padded(context, *exact, -math.inf))
    y = _limited(exponent, _FAR + digits_of(base))

    @cache
    def product(digits: int) -> Decimal:
        return working(digits + 2).multiply(y, ln_to(digits + 1, size))

    return _power_of_e(context, product, sign)


def root(context: Context, number: Decimal, degree: Decimal) -> Decimal:
    """Return the real root of a whole degree; raise ``RequestError`` if there is none."""
    if not degree or not is_whole(degree):
        template = "the root's degree must be a whole number other than 0"
        raise RequestError("INVALID-OPERATION", template)
    if number < 0 and not _is_odd(degree):
        raise RequestError("INVALID-OPERATION", "an even root of a negative number")
    if not number:
        return _power_of_zero(number, degree, whole=True)
    if degree == 2:
        return sqrt(context, number)
    size = number.copy_abs()
    n = int(_limited(degree, 20))  # no exponent of a number has so many digits
    if exact := exactpowers.root_of(context, size, abs(n)):
        ideal = exponent_of(number) // abs(n)
        value = exactpowers.padded(context, *exact, ideal)
        return _signed_power(context, value.copy_sign(number), degree)
    divisor = _limited(degree, _FAR)

    @cache
    def quotient(digits: int) -> Decimal:
        return working(digits + 2).divide(ln_to(digits + 1, size), divisor)

    return _power_of_e(context, quotient, number)


def sqrt(context: Context, number: Decimal) -> Decimal:
    """Return the square root; raise ``RequestError`` if the number is negative.

    An exact root has half the exponent, rounded down, as far as there is room.
    """
    if number < 0:
        raise RequestError("INVALID-OPERATION", "square root of a negative number")
    if not number or (context.rounding == ROUND_HALF_EVEN and context.prec <= _SHORT):
        return context.sqrt(number)  # correctly rounded in this mode, to the specification
    # The integer root of a number of 2n or 2n - 1 digits has n.
    places = context.prec + 1 - number.adjusted() // 2
    scaled = EXACT.scaleb(number, 2 * places)
    whole = math.isqrt(int(scaled))
    if whole * whole == scaled:
        coefficient, exponent = exactpowers.split(EXACT.scaleb(Decimal(whole), -places))
        ideal = exponent_of(number) // 2
        return context.plus(exactpowers.padded(context, int(coefficient), exponent, ideal))
    # Another digit that is not 0 stands for all those of the true result.
    return context.plus(EXACT.scaleb(Decimal(10 * whole + 1), -places - 1))


def _check_logarithm(number: Decimal) -> None:
    if number <= 0:
        template = "logarithm of a negative number" if number else "logarithm of zero"
        raise RequestError("INVALID-OPERATION", template)


def _power_of_zero(zero: Decimal, exponent: Decimal, whole: bool) -> Decimal:
    if not exponent:
        raise RequestError("INVALID-OPERATION", "0 to the power 0 is undefined")
    if exponent < 0:
        raise RequestError("DIVISION-BY-ZERO", "division by zero")
    return Decimal(0).copy_sign(zero if whole and _is_odd(exponent) else _ONE)


def _power_of_e(context: Context, exponent: Approximation, sign: Decimal = _ONE) -> Decimal:
    """Return e to a power other than 0, with the sign of another number."""
    one = _ONE.copy_sign(sign)
    rough = exponent(_first_attempt(context) + 7)
    if rough.adjusted() >= 5:
        return context.plus(EXACT.scaleb(one, _FAR if rough > 0 else -_FAR))
    if rough.adjusted() < -closeness(context, one) - 1:
        return beside(context, one, EXACT.scaleb(one, 1) if rough > 0 else Decimal(0))

    def approximate(digits: int) -> Decimal:
        # An exponent of up to 10**5 has an error of up to 10**-(digits + 2).
        return exp_to(digits + 1, exponent(digits + 7)).copy_sign(one)

    return rounded(context, approximate)


def _signed_power(context: Context, value: Decimal, exponent: Decimal) -> Decimal:
    """Round an exact power whose exponent has lost its sign."""
    return context.plus(value) if exponent > 0 else context.divide(_ONE, value)


def _limited(number: Decimal, most: int) -> Decimal:
    """Bring a number that is too large or too small to matter within ``10**most``."""
    far = abs(number.adjusted()) - most
    return number if far <= 0 else EXACT.scaleb(number, -far if number.adjusted() > 0 else far)


def _is_odd(number: Decimal) -> bool:
    """Return whether a whole number is odd."""
    return number.adjusted() < digits_of(number) and EXACT.remainder(number, Decimal(2)) != 0
