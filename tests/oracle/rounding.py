"""Rounding of rational numbers and of Arb's balls, by integer arithmetic alone."""

from collections.abc import Callable
from decimal import (
    ROUND_05UP,
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_DOWN,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    ROUND_UP,
    Context,
)
from fractions import Fraction
from typing import NamedTuple

from flint import arb, ctx

_MOST_BITS = 1 << 18

# A true result: rational, or a function that returns a ball around it in the precision in force,
# when it is irrational. No irrational number is half-way between two decimal numbers.
Truth = Fraction | Callable[[], arb]


class Rounded(NamedTuple):
    """The number ``coefficient * 10**exponent``; its sign is the coefficient's."""

    coefficient: int
    exponent: int
    inexact: bool

    def overflows(self, context: Context) -> bool:
        return self.exponent + len(str(abs(self.coefficient))) - 1 > context.Emax


def rounded(truth: Truth, context: Context) -> Rounded:
    """Round as if there were no greatest exponent."""
    if isinstance(truth, Fraction):
        return _round(truth, context)
    bits = 4 * context.prec + 64
    while bits <= _MOST_BITS:
        ctx.prec = bits
        ball = truth()
        if ball.rel_accuracy_bits() > 0:
            low, high = (_round(_fraction(each), context) for each in (ball.lower(), ball.upper()))
            if low[:2] == high[:2]:
                return low._replace(inexact=True)
        bits *= 2
    raise ArithmeticError("the ball does not decide")


def _fraction(exact: arb) -> Fraction:
    mantissa, exponent = (int(each) for each in exact.man_exp())
    return Fraction(mantissa << max(0, exponent), 1 << max(0, -exponent))


def _round(number: Fraction, context: Context) -> Rounded:
    if not number:
        return Rounded(0, 0, False)
    negative = number < 0
    top, bottom = abs(number.numerator), number.denominator
    size = (top.bit_length() - bottom.bit_length()) * 30103 // 100_000 - 1
    while _at_least_power_of_ten(top, bottom, size + 1):
        size += 1
    exponent = max(size, context.Emin) - context.prec + 1
    top, bottom = top * 10 ** max(0, -exponent), bottom * 10 ** max(0, exponent)
    coefficient, rest = divmod(top, bottom)
    if rest and _is_rounded_up(coefficient, 2 * rest - bottom, negative, context.rounding):
        coefficient += 1
    if coefficient == 10**context.prec:
        coefficient, exponent = coefficient // 10, exponent + 1
    return Rounded(-coefficient if negative else coefficient, exponent, rest != 0)


def _at_least_power_of_ten(top: int, bottom: int, power: int) -> bool:
    left, right = 10 ** max(0, -power), 10 ** max(0, power)
    return bool(top * left >= bottom * right)


def _is_rounded_up(coefficient: int, beyond_half: int, negative: bool, mode: str) -> bool:
    """Say whether a size between two is rounded to the larger.

    ``beyond_half`` is negative if it is nearer to the smaller, and 0 if it is half-way.
    """
    return {
        ROUND_UP: True,
        ROUND_DOWN: False,
        ROUND_CEILING: not negative,
        ROUND_FLOOR: negative,
        ROUND_HALF_UP: beyond_half >= 0,
        ROUND_HALF_DOWN: beyond_half > 0,
        ROUND_HALF_EVEN: beyond_half > 0 or (beyond_half == 0 and coefficient % 2 == 1),
        ROUND_05UP: coefficient % 5 == 0,
    }[mode]
