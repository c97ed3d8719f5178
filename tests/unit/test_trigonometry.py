"""Trigonometric functions and constants: what the oracle's random cases do not meet."""

from decimal import Context, Decimal

import pytest
from flint import arb, ctx

from calcd.core import trigonometry
from calcd.core.decimal128 import MAX_PRECISION, ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError
from tests.oracle.functions import FUNCTIONS
from tests.oracle.rounding import rounded


def context_of(precision: int, rounding: str = "half-even", exact: bool = False) -> Context:
    """Give a context as a session has it."""
    return Arithmetic(precision, rounding, exact).context.copy()


@pytest.mark.parametrize(
    ("name", "operand", "result"),
    [
        ("sin", "0.00", "0"),
        ("sin", "-0", "-0"),
        ("cos", "0", "1"),
        ("tan", "0", "0"),
        ("asin", "0", "0"),
        ("acos", "1.0", "0"),
        ("atan", "-0.0", "-0"),
    ],
)
def test_exact_results_are_exact(name: str, operand: str, result: str) -> None:
    for rounding in ROUNDINGS:
        context = context_of(34, rounding, exact=True)
        assert str(getattr(trigonometry, name)(context, Decimal(operand))) == result


@pytest.mark.parametrize(
    ("name", "operand", "reason"),
    [
        ("asin", "1.01", "the arcsine needs a number from -1 to 1"),
        ("asin", "-2", "the arcsine needs a number from -1 to 1"),
        ("acos", "-1.0000001", "the arccosine needs a number from -1 to 1"),
        ("sin", "1E+6145", "pi is not known to enough digits for an angle of 1E+6145 or more"),
        ("cos", "-1E+6145", "pi is not known to enough digits for an angle of 1E+6145 or more"),
        ("tan", "1E+9999999", "pi is not known to enough digits for an angle of 1E+6145 or more"),
    ],
)
def test_the_reason_of_an_error_is_true(name: str, operand: str, reason: str) -> None:
    with pytest.raises(RequestError) as raised:
        getattr(trigonometry, name)(context_of(34), Decimal(operand))
    assert str(raised.value) == f"ERR INVALID-OPERATION {reason}"


def test_the_largest_angle_is_right() -> None:
    largest = Decimal("9" * 34 + "E+6111")
    for name in ("sin", "cos", "tan"):
        truth = FUNCTIONS[name].truth(largest)
        assert truth
        context = context_of(34)
        coefficient, exponent, _ = rounded(truth, context)
        result = getattr(trigonometry, name)(context, largest)
        assert result == Decimal(coefficient).scaleb(exponent, context)


@pytest.mark.parametrize("sign", ["", "-"])
def test_results_beside_a_boundary_take_no_more_digits(sign: str) -> None:
    tiny = Decimal(f"{sign}1E-5000")
    below, above = f"{sign}9.{33 * '9'}E-5001", f"{sign}1.{32 * '0'}1E-5000"
    for name, to_zero, from_zero in (
        ("sin", below, f"{sign}1.{33 * '0'}E-5000"),
        ("atan", below, f"{sign}1.{33 * '0'}E-5000"),
        ("tan", f"{sign}1.{33 * '0'}E-5000", above),
        ("asin", f"{sign}1.{33 * '0'}E-5000", above),
    ):
        function = getattr(trigonometry, name)
        assert str(function(context_of(34, "down"), tiny)) == to_zero
        assert str(function(context_of(34, "up"), tiny)) == from_zero
    assert str(trigonometry.cos(context_of(34, "down"), tiny)) == "0." + 34 * "9"
    assert str(trigonometry.cos(context_of(34, "up"), tiny)) == "1." + 33 * "0"
    least = Decimal(f"{sign}1E-1999999999999999997")
    assert trigonometry.sin(context_of(34, "down"), least) == 0
    assert str(trigonometry.sin(context_of(34, "up"), least)) == f"{sign}1E-6176"


@pytest.mark.parametrize(("name", "truth"), [("pi", arb.pi), ("e", arb.const_e)])
def test_constants_are_right_at_every_precision(name: str, truth: type) -> None:
    """Truncated, they are no boundary at any precision."""
    for precision in range(1, MAX_PRECISION + 1):
        for rounding in ROUNDINGS:
            context = context_of(precision, rounding)
            result = getattr(trigonometry, name)(context)
            coefficient, exponent, _ = rounded(truth, context)
            assert (
                result.as_tuple()[1:]
                == Decimal((0, (*map(int, str(coefficient)),), exponent)).as_tuple()[1:]
            )
    ctx.prec = 53
