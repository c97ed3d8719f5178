"""True results: rational where that is decided by integers, else balls of any precision."""

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction

from flint import arb, ctx, fmpq, fmpz

from .rounding import Truth

WIDE = Context(100_000, Emin=MIN_EMIN, Emax=MAX_EMAX)
MOST_DENOMINATOR = 4000  # of a logarithm that is looked for
FAR = 20_000  # an exponent that no result has
PRIME = 2**521 - 1
TOO_LARGE, TOO_SMALL = Fraction(10**7000), Fraction(1, 10**9000)


def ball(number: Decimal) -> arb:
    """Give a number as a ball, which is exact if it is whole and not too large."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    coefficient = int(Decimal((sign, digits, 0)))
    if 0 <= exponent < FAR:
        return arb(fmpz(coefficient) * fmpz(10) ** exponent)
    if -FAR < exponent < 0:
        return arb(fmpq(coefficient, fmpz(10) ** -exponent))
    return arb(coefficient) * arb(10) ** fmpz(exponent)


def power_of_e(exponent: Callable[[], arb], sign: int = 1) -> Truth:
    ctx.prec = 64
    while True:
        rough = exponent()
        if rough > FAR:
            return sign * TOO_LARGE
        if rough < -FAR:
            return sign * TOO_SMALL
        if rough.rad() < 1:
            return lambda: sign * exponent().exp()
        ctx.prec *= 2


def exp(x: Decimal) -> Truth:
    return power_of_e(lambda: ball(x)) if x else Fraction(1)


def ln(x: Decimal) -> Truth | None:
    if x <= 0:
        return None
    return Fraction(0) if x == 1 else lambda: ball(x).log()


def log(x: Decimal, base: Decimal = Decimal(10)) -> Truth | None:
    if x <= 0 or base <= 0 or base == 1:
        return None
    if x == 1:
        return Fraction(0)

    def quotient() -> arb:
        return ball(x).log() / ball(base).log()

    ctx.prec = 256
    while quotient().rel_accuracy_bits() < 200:  # one of them is very close to 1
        ctx.prec *= 2
    mantissa, binary = (int(each) for each in quotient().mid().man_exp())
    guess = Fraction(mantissa) * Fraction(2) ** binary
    guess = guess.limit_denominator(MOST_DENOMINATOR)
    if abs(arb(fmpq(guess.numerator, guess.denominator)) - quotient()) < arb(2) ** -150 and (
        is_power(x, base, guess)
    ):
        return guess
    return quotient


def is_power(x: Decimal, base: Decimal, exponent: Fraction) -> bool:
    """Say whether ``x == base**exponent``, by integers; first by their rests."""
    (a, i), (b, j) = (reduced(each) for each in (x, base))
    p, q = exponent.numerator, exponent.denominator
    shift = i * q - j * p
    if abs(shift) > FAR or (pow(a, q, PRIME) * pow(10, shift, PRIME) - pow(b, p, PRIME)) % PRIME:
        return False
    return Fraction(a) ** q * Fraction(10) ** shift == Fraction(b) ** p


def reduced(number: Decimal) -> tuple[int, int]:
    sign, digits, exponent = number.normalize(WIDE).as_tuple()
    assert isinstance(exponent, int)
    return int(Decimal((sign, digits, 0))), exponent


def power(x: Decimal, y: Decimal) -> Truth | None:
    whole = y == y.to_integral_value()
    if x == 0:
        return Fraction(0) if y > 0 else None
    if x < 0 and not whole:
        return None
    size = abs_of(x)
    sign = -1 if x < 0 and WIDE.remainder(y, Decimal(2)) else 1
    if size == 1 or not y:
        return Fraction(sign)
    if y.adjusted() < 12 and abs(exponent_of(y)) < 40:
        exact = exact_power(size, Fraction(y))
        if exact is not None:
            return sign * exact
    return power_of_e(lambda: ball(size).log() * ball(y), sign)


def exact_power(x: Decimal, y: Fraction) -> Fraction | None:
    """Give a power that is rational and not too long, for a positive number."""
    if abs(x.adjusted()) > FAR:
        coefficient, shift = reduced(x)
        if coefficient == 1 and (shift * y).denominator == 1 and abs(shift * y) < FAR:
            return Fraction(10) ** int(shift * y)
        return None
    base = Fraction(x)
    roots = []
    for part in (base.numerator, base.denominator):
        if 1 < part.bit_length() <= y.denominator:
            return None
        root = int(fmpz(part).root(y.denominator)) if part > 1 else 1
        if part > 1 and root**y.denominator != part:
            return None
        roots.append(root)
    if abs(y.numerator) * max(each.bit_length() for each in roots) > 100_000:
        return None  # too long to be near a boundary
    return Fraction(*roots) ** y.numerator


def root(x: Decimal, n: Decimal) -> Truth | None:
    if n != n.to_integral_value() or not n:
        return None
    odd = bool(WIDE.remainder(n, Decimal(2)))
    if x < 0 and not odd:
        return None
    if x == 0:
        return Fraction(0) if n > 0 else None
    size, sign = abs_of(x), -1 if x < 0 else 1
    if size == 1:
        return Fraction(sign)
    exact = exact_power(size, 1 / Fraction(n)) if n.adjusted() < 20 else None
    if exact is not None:
        return sign * exact
    return power_of_e(lambda: ball(size).log() / ball(n), sign)


def sqrt(x: Decimal) -> Truth | None:
    return root(x, Decimal(2))


def of_angle(method: str, at_zero: int) -> Callable[[Decimal], Truth | None]:
    def truth(x: Decimal) -> Truth | None:
        if x.adjusted() > 6144 and x:
            return None
        return (lambda: getattr(ball(x), method)()) if x else Fraction(at_zero)

    return truth


sin, cos, tan = of_angle("sin", 0), of_angle("cos", 1), of_angle("tan", 0)


def asin(x: Decimal) -> Truth | None:
    if abs_of(x) > 1:
        return None
    return (lambda: ball(x).asin()) if x else Fraction(0)


def acos(x: Decimal) -> Truth | None:
    if abs_of(x) > 1:
        return None
    return (lambda: ball(x).acos()) if x != 1 else Fraction(0)


def atan(x: Decimal) -> Truth:
    return (lambda: ball(x).atan()) if x else Fraction(0)


def abs_of(number: Decimal) -> Decimal:
    return number.copy_abs()


def exponent_of(number: Decimal) -> int:
    return int(number.as_tuple().exponent)
