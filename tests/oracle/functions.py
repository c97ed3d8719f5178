"""The functions that are checked: what is called, what is true, and on which operands."""

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction
from random import Random
from typing import NamedTuple

from flint import arb, ctx, fmpq, fmpz

from calcd.core import elementary, trigonometry

from .rounding import Truth

Numbers = tuple[Decimal, ...]
Operands = Callable[[Random, int], Numbers]  # from dice and a precision
WIDE = Context(100_000, Emin=MIN_EMIN, Emax=MAX_EMAX)
MOST_DIGITS = 1000
FAR = 20_000  # an exponent that no result has
PRIME = 2**521 - 1


class Function(NamedTuple):
    """``product`` is called as ``f(context, *numbers)``.

    ``truth`` gives the true result, or None if there is none and a ``RequestError`` is right.
    """

    product: Callable[..., Decimal]
    truth: Callable[..., Truth | None]
    operands: Operands


# --- what is true

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


def true_exp(x: Decimal) -> Truth:
    return power_of_e(lambda: ball(x)) if x else Fraction(1)


def true_ln(x: Decimal) -> Truth | None:
    if x <= 0:
        return None
    return Fraction(0) if x == 1 else lambda: ball(x).log()


def true_log(x: Decimal, base: Decimal = Decimal(10)) -> Truth | None:
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
    guess = guess.limit_denominator(MOST_DIGITS * 4)
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


def true_power(x: Decimal, y: Decimal) -> Truth | None:
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


def true_root(x: Decimal, n: Decimal) -> Truth | None:
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


def true_sqrt(x: Decimal) -> Truth | None:
    return true_root(x, Decimal(2))


def of_angle(method: str, at_zero: int) -> Callable[[Decimal], Truth | None]:
    def truth(x: Decimal) -> Truth | None:
        if x.adjusted() > 6144 and x:
            return None
        return (lambda: getattr(ball(x), method)()) if x else Fraction(at_zero)

    return truth


def true_asin(x: Decimal) -> Truth | None:
    if abs_of(x) > 1:
        return None
    return (lambda: ball(x).asin()) if x else Fraction(0)


def true_acos(x: Decimal) -> Truth | None:
    if abs_of(x) > 1:
        return None
    return (lambda: ball(x).acos()) if x != 1 else Fraction(0)


def true_atan(x: Decimal) -> Truth:
    return (lambda: ball(x).atan()) if x else Fraction(0)


def abs_of(number: Decimal) -> Decimal:
    return number.copy_abs()


def exponent_of(number: Decimal) -> int:
    return int(number.as_tuple().exponent)


# --- on which operands


def digits(dice: Random, count: int) -> int:
    """Give a whole number of so many digits; sometimes they are alike."""
    if dice.random() < 0.2:
        return int(dice.choice("123456789") * count)
    return dice.randrange(10 ** (count - 1), 10**count)


def count_of_digits(dice: Random, precision: int) -> int:
    count = dice.choice((1, 1, 2, 3, 5, 12, precision, precision + 1, 2 * precision, 40))
    return min(count, MOST_DIGITS + 200)


def number(dice: Random, precision: int) -> Decimal:
    """Give a number of one of many kinds."""
    kind = dice.random()
    some = digits(dice, count_of_digits(dice, precision))
    size = len(str(some))
    sign = dice.choice(("", "", "-"))
    if kind < 0.25:  # near 1
        distance = dice.randrange(1, 3 * precision // 2 + 5)
        near = WIDE.add(Decimal(1), Decimal(f"{dice.choice('+-')}{some}E{-distance - size}"))
        return near.copy_negate() if sign else near
    if kind < 0.45:  # whole
        return Decimal(f"{sign}{dice.choice((some, dice.randrange(1000), dice.randrange(20)))}")
    if kind < 0.8:  # of a usual size
        return Decimal(f"{sign}{some}E{dice.randrange(-size - 4, 6 - size)}")
    if kind < 0.95:  # large, or small
        return Decimal(f"{sign}{some}E{dice.randrange(-400, 400)}")
    return Decimal(f"{sign}{some}E{dice.randrange(-6500, 6500)}")


def any_number(dice: Random, precision: int) -> Numbers:
    return (number(dice, precision),)


def almost_always_positive(dice: Random, precision: int) -> Numbers:
    return (positive(dice, precision),)


def positive(dice: Random, precision: int) -> Decimal:
    if dice.random() < 0.02:
        return number(dice, precision)
    if dice.random() < 0.02:
        return Decimal(f"{digits(dice, 3)}E{dice.randrange(-(10**18), 10**18)}")
    return number(dice, precision).copy_abs() or Decimal(1)


def boundary(dice: Random, precision: int) -> Decimal:
    """Give a number that is half-way between two of the precision, or is one of them."""
    coefficient = digits(dice, min(precision, dice.choice((1, 2, 5, precision, precision))))
    half = dice.choice(("0", "5", "5"))
    size = len(str(coefficient)) + 1
    fill = max(0, precision + 1 - size) if half == "5" else 0
    return Decimal(f"{coefficient}{'0' * fill}{half}E{dice.randrange(-3, 2) - size - fill}")


def near_boundary(inverse: Callable[[arb], arb], usual: Operands) -> Operands:
    """Mix operands whose results are near to a boundary, at a random distance, with others."""

    def operands(dice: Random, precision: int) -> Numbers:
        if dice.random() < 0.7:
            return usual(dice, precision)
        wanted = min(MOST_DIGITS, precision + dice.choice((1, 2, 5, 20, precision, 1000)))
        ctx.prec = 4 * wanted + 100
        found = inverse(ball(boundary(dice, precision)))
        if not found.is_finite():
            return usual(dice, precision)
        return (decimal_of(found, wanted),)

    return operands


def decimal_of(number: arb, count: int) -> Decimal:
    """Give the middle of a ball to so many digits."""
    mantissa, exponent = (int(each) for each in number.mid().man_exp())
    context = Context(count, Emin=MIN_EMIN, Emax=MAX_EMAX)
    two = context.power(Decimal(2), abs(exponent)) if abs(exponent) < 60_000 else Decimal(1)
    if exponent < 0:
        return context.divide(Decimal(mantissa), two)
    return context.multiply(Decimal(mantissa), two)


def near_multiple_of_pi(dice: Random, precision: int) -> Numbers:
    """Give angles of all sizes; a few are the nearest to a multiple of pi/2 that there are."""
    kind = dice.random()
    if kind < 0.9:
        return any_number(dice, precision)
    if kind < 0.93:
        size = dice.randrange(20, 6144 if precision < 100 else 1500)
        return (Decimal(f"{digits(dice, 5)}E{size}"),)
    ctx.prec = 4 * MOST_DIGITS + 100
    multiple = arb.pi() * digits(dice, dice.randrange(1, 20)) / 2
    return (decimal_of(multiple, dice.choice((1, 5, precision, 2 * precision, MOST_DIGITS))),)


def up_to_one(dice: Random, precision: int) -> Numbers:
    if dice.random() < 0.1:
        return any_number(dice, precision)
    (x,) = any_number(dice, precision)
    if abs_of(x) > 1:
        x = WIDE.scaleb(x, -x.adjusted() - dice.choice((1, 1, 1, 2, 5, precision)))
    return (x,)


def power_operands(dice: Random, precision: int) -> Numbers:
    kind = dice.random()
    base = positive(dice, precision)
    if dice.random() < 0.1:
        base = base.copy_negate()
    if kind < 0.3:  # compound interest, and the like
        return base, Decimal(dice.choice((2, 3, 10, -1, -2, 12, 360, dice.randrange(-9999, 9999))))
    if kind < 0.5:  # exact, or almost
        exact = digits(dice, dice.choice((1, 1, 2, 5, max(1, precision // 2))))
        degree = dice.choice((1, 2, 2, 4, 5, 8, 10, 16, 20))
        shift = degree * dice.randrange(-5, 5)
        powered = WIDE.scaleb(WIDE.power(Decimal(exact), degree), shift)
        powered = beside(dice, precision, powered)
        times = dice.choice((1, 1, 2, 3, 7, -1, -2, dice.randrange(-40, 40)))
        return powered, Decimal(times) / degree
    if kind < 0.7:  # near 1, to a great power
        distance = dice.randrange(1, precision + 30)
        near = WIDE.add(
            Decimal(1), Decimal(f"{dice.choice('+-')}{digits(dice, 3)}E{-distance - 3}")
        )
        return near, Decimal(
            f"{dice.choice(('', '-'))}{digits(dice, 4)}E{distance - dice.randrange(9)}"
        )
    if kind < 0.8:  # an exponent that is almost simple
        some = dice.choice((1, 2, 3, -1, 0.5, -0.5, 1.5, 0.2))
        near = Decimal(f"{dice.choice('+-')}1E{-dice.randrange(1, precision + 20)}")
        return base, WIDE.add(Decimal(some), near)
    return base, number(dice, precision)


def root_operands(dice: Random, precision: int) -> Numbers:
    n = dice.choice((2, 3, 3, 4, 5, 7, -1, -2, -3, 10, dice.randrange(-99, 99)))
    base, degree = positive(dice, precision), Decimal(n)
    if dice.random() < 0.05:
        degree = Decimal(f"{dice.choice(('', '-'))}{digits(dice, dice.randrange(1, 30))}")
    elif dice.random() < 0.02:
        degree = number(dice, precision)
    elif dice.random() < 0.4 and 0 < abs(n) * precision < 3000:  # exact, or almost
        exact = boundary(dice, precision)
        if dice.random() < 0.5:
            exact = Decimal(digits(dice, dice.choice((1, 1, 2, 5, max(1, precision // 2)))))
        base = beside(dice, precision, WIDE.power(exact, abs(n)))
    return (base.copy_negate() if dice.random() < 0.3 else base), degree


def beside(dice: Random, precision: int, exact: Decimal) -> Decimal:
    """Give a positive number, or one that is very close to it."""
    if dice.random() < 0.5:
        return exact
    distance = exact.adjusted() - dice.randrange(1, 2 * precision + 50)
    return WIDE.add(exact, Decimal(f"{dice.choice('+-')}1E{distance}")).copy_abs()


def sqrt_operands(dice: Random, precision: int) -> Numbers:
    if dice.random() < 0.5:
        return almost_always_positive(dice, precision)
    exact = boundary(dice, precision)
    return (beside(dice, precision, WIDE.multiply(exact, exact)),)


def log_operands(dice: Random, precision: int) -> Numbers:
    kind = dice.random()
    if kind < 0.3:  # powers of one number
        root = dice.choice((2, 3, 5, 6, 10, 20, 12, 50, digits(dice, 5)))
        shift = dice.randrange(-3, 3)
        powers = (WIDE.power(Decimal(f"{root}E{shift}"), dice.randrange(1, 30)) for _ in range(2))
        numbers = list(powers)
        if dice.random() < 0.5:
            numbers[0] = Context(1200).divide(Decimal(1), numbers[0])
        return tuple(numbers)
    if kind < 0.5:
        return positive(dice, precision), Decimal(dice.choice((2, 10, 3, 5)))
    return positive(dice, precision), positive(dice, precision)


def log10_operands(dice: Random, precision: int) -> Numbers:
    if dice.random() < 0.1:
        return (Decimal(f"{10 ** dice.randrange(5)}E{dice.randrange(-2000, 2000)}"),)
    return almost_always_positive(dice, precision)


def inverse_of_log10(number: arb) -> arb:
    return (number * arb.const_log10()).exp()


FUNCTIONS: dict[str, Function] = {
    "exp": Function(elementary.exp, true_exp, near_boundary(arb.log, any_number)),
    "ln": Function(elementary.ln, true_ln, near_boundary(arb.exp, almost_always_positive)),
    "log10": Function(elementary.log10, true_log, near_boundary(inverse_of_log10, log10_operands)),
    "log": Function(elementary.log, true_log, log_operands),
    "power": Function(elementary.power, true_power, power_operands),
    "root": Function(elementary.root, true_root, root_operands),
    "sqrt": Function(elementary.sqrt, true_sqrt, sqrt_operands),
    "sin": Function(
        trigonometry.sin, of_angle("sin", 0), near_boundary(arb.asin, near_multiple_of_pi)
    ),
    "cos": Function(
        trigonometry.cos, of_angle("cos", 1), near_boundary(arb.acos, near_multiple_of_pi)
    ),
    "tan": Function(
        trigonometry.tan, of_angle("tan", 0), near_boundary(arb.atan, near_multiple_of_pi)
    ),
    "asin": Function(trigonometry.asin, true_asin, near_boundary(arb.sin, up_to_one)),
    "acos": Function(trigonometry.acos, true_acos, near_boundary(arb.cos, up_to_one)),
    "atan": Function(trigonometry.atan, true_atan, near_boundary(arb.tan, any_number)),
    "pi": Function(trigonometry.pi, lambda: arb.pi, lambda _dice, _precision: ()),
    "e": Function(trigonometry.e, lambda: arb.const_e, lambda _dice, _precision: ()),
}
