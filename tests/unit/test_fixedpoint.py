"""Fixed-point functions are less than 2 units off, as they say."""

from collections.abc import Callable, Iterator
from random import Random

import pytest
from flint import arb, ctx

from calcd.core import fixedpoint

SCALES = (64, 100, 137, 300, 1000, 3400)


def value_of(number: int, scale: int) -> arb:
    return arb(number) * arb(2) ** -scale


def units_off(result: int, scale: int, truth: arb) -> float:
    return float(abs(value_of(result, scale) - truth) * arb(2) ** scale)


def numbers(dice: Random, scale: int, least: float, most: float) -> Iterator[int]:
    """Yield both ends, numbers between them, and numbers that are close to 0 and 1."""
    low, high = (int(each * 2**60) << scale - 60 for each in (least, most))
    yield from (low, high)
    for _ in range(40):
        yield dice.randrange(low, high)
        near = dice.getrandbits(dice.randrange(1, scale))
        yield from (
            each for each in (near, (1 << scale) + near, (1 << scale) - near) if low <= each <= high
        )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("function", "truth", "least", "most"),
    [
        (fixedpoint.exp, arb.exp, 0, 2.5),
        (fixedpoint.ln, arb.log, 0.3, 3),
        (lambda *angle: fixedpoint.sin_cos(*angle)[0], arb.sin, 0, 1),
        (lambda *angle: fixedpoint.sin_cos(*angle)[1], arb.cos, 0, 1),
        (fixedpoint.atan, arb.atan, 0, 1),
    ],
    ids=["exp", "ln", "sin", "cos", "atan"],
)
def test_functions_are_less_than_2_units_off(
    function: Callable[[int, int], int],
    truth: Callable[[arb], arb],
    least: float,
    most: float,
    scale: int,
) -> None:
    ctx.prec = 3 * scale
    for number in numbers(Random(scale), scale, least, most):
        assert units_off(function(number, scale), scale, truth(value_of(number, scale))) < 2


@pytest.mark.parametrize("scale", [64, 100, 101, 5000, 3400, 20_000])
def test_constants_are_less_than_a_unit_off_however_precise_they_were(scale: int) -> None:
    ctx.prec = 2 * scale
    assert units_off(fixedpoint.pi(scale), scale, arb.pi()) < 1
    assert units_off(fixedpoint.ln10(scale), scale, arb.const_log10()) < 1
