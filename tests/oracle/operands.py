"""Operands of many kinds: exact cases, almost exact ones, near ties, long and short numbers."""

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from random import Random

from flint import arb, ctx

from .truth import WIDE, abs_of, ball

Numbers = tuple[Decimal, ...]
Operands = Callable[[Random, int], Numbers]  # from dice and a precision
MOST_DIGITS = 1000


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


def none(_dice: Random, _precision: int) -> Numbers:
    return ()


def any_number(dice: Random, precision: int) -> Numbers:
    return (number(dice, precision),)


def mostly_positive(dice: Random, precision: int) -> Numbers:
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


def angle(dice: Random, precision: int) -> Numbers:
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


def for_power(dice: Random, precision: int) -> Numbers:
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


def for_root(dice: Random, precision: int) -> Numbers:
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


def for_sqrt(dice: Random, precision: int) -> Numbers:
    if dice.random() < 0.5:
        return mostly_positive(dice, precision)
    exact = boundary(dice, precision)
    return (beside(dice, precision, WIDE.multiply(exact, exact)),)


def for_log(dice: Random, precision: int) -> Numbers:
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


def for_log10(dice: Random, precision: int) -> Numbers:
    if dice.random() < 0.1:
        return (Decimal(f"{10 ** dice.randrange(5)}E{dice.randrange(-2000, 2000)}"),)
    return mostly_positive(dice, precision)


def ten_to_the(number: arb) -> arb:
    return (number * arb.const_log10()).exp()
