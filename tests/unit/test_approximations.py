"""Approximations are as precise as they say: Ziv's method relies on it, and tells of no breach."""

from collections.abc import Callable
from decimal import Context, Decimal
from random import Random

import pytest
from flint import arb, ctx

from calcd.core import elementary, trigonometry
from calcd.core.elementary import Approximation
from tests.oracle.functions import FUNCTIONS
from tests.oracle.operands import Numbers, any_number, near_boundary, up_to_one
from tests.oracle.truth import ball

FIRST_DIGITS = 20  # that are ever asked for


def sine_to(digits: int, angle: Decimal) -> Decimal:
    return trigonometry._sin_cos_to(digits, angle)[0]


def cosine_to(digits: int, angle: Decimal) -> Decimal:
    return trigonometry._sin_cos_to(digits, angle)[1]


def quotient_of(y: Decimal) -> tuple[Decimal, Decimal]:
    return y, Decimal(3)


def atan_to(digits: int, y: Decimal) -> Decimal:
    return trigonometry._atan2_to(digits, *quotient_of(y))


def true_atan(y: arb) -> arb:
    return (y / 3).atan()


@pytest.mark.parametrize(
    ("approximate", "truth", "operands", "sizes"),
    [
        (elementary.exp_to, arb.exp, any_number, (-2000, 5)),
        (elementary.ln_to, arb.log, any_number, (-10000, 10000)),
        (elementary.ln_to, arb.log, near_boundary(arb.exp, any_number), (-10000, 10000)),
        (sine_to, arb.sin, FUNCTIONS["sin"].operands, (-300, 2000)),
        (cosine_to, arb.cos, FUNCTIONS["cos"].operands, (-300, 2000)),
        (atan_to, true_atan, any_number, (-300, 2000)),
        (atan_to, true_atan, up_to_one, (-300, 2000)),
    ],
    ids=["exp", "ln", "ln near 1", "sin", "cos", "atan", "atan up to 1"],
)
def test_an_approximation_has_as_many_digits_as_were_asked_for(
    approximate: Callable[[int, Decimal], Decimal],
    truth: Callable[[arb], arb],
    operands: Callable[[Random, int], Numbers],
    sizes: tuple[int, int],
) -> None:
    dice = Random(0)
    worst = 0.0
    for _ in range(400):
        digits = dice.choice((FIRST_DIGITS, dice.randrange(FIRST_DIGITS, 400)))
        (x,) = operands(dice, digits)
        if approximate is not elementary.exp_to:
            x = x.copy_abs()
        if not x or x == 1 or not sizes[0] < x.adjusted() < sizes[1]:
            continue
        ctx.prec = 16_000
        true = truth(ball(x))
        error = abs(ball(approximate(digits, x)) / true - 1) * arb(10) ** digits
        worst = max(worst, float(error.upper()))
    assert 0.001 < worst < 1


def approximation_in(function: Callable[..., Decimal], *numbers: Decimal) -> Approximation:
    """Catch what a function gives to ``rounded``."""
    caught: list[Approximation] = []

    class CaughtError(Exception):
        pass

    def catch(_: Context, approximate: Approximation) -> Decimal:
        caught.append(approximate)
        raise CaughtError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elementary, "rounded", catch)
        patch.setattr(trigonometry, "rounded", catch)
        with pytest.raises(CaughtError):
            function(Context(34), *numbers)
    return caught[0]


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("log", "7.1 1.3"),
        ("log", "1.0000001 0.9999"),
        ("log10", "1.0000000001"),
        ("power", "1.000000001 14149000000000.7"),
        ("power", "9.87654321 -6170.1"),
        ("power", "0.99999 0.12345"),
        ("root", "7E+5000 3"),
        ("root", "1.00001 -7"),
        ("exp", "14149.5"),
        ("exp", "-16355.2"),
        ("tan", "1.57079632679"),
        ("tan", "1E+22"),
        ("asin", "0.99999999999999"),
        ("asin", "-0.0001"),
        ("acos", "0.99999999999999"),
        ("acos", "-0.99999999999999"),
        ("atan", "-1E+30"),
    ],
)
def test_what_is_made_of_approximations_is_as_precise(name: str, operands: str) -> None:
    numbers = [Decimal(each) for each in operands.split()]
    function = FUNCTIONS[name]
    approximate = approximation_in(function.product, *numbers)
    truth = function.truth(*numbers)
    assert callable(truth)
    for digits in (*range(FIRST_DIGITS, 60), 300, 1000):
        ctx.prec = 8 * digits + 2000
        error = abs(ball(approximate(digits)) / truth() - 1) * arb(10) ** digits
        assert error < 1, digits
