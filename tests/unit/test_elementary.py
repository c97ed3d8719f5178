"""Functions that need more than one call of the decimal module."""

import decimal
import math
from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcd.core import elementary
from calcd.core.decimal128 import EMAX, EMIN, ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError
from calcd.core.operations import ARITHMETIC

NAMED = {name: operation for operation in ARITHMETIC for name in operation.names}


def calculate(arithmetic: Arithmetic, name: str, *operands: str) -> str:
    """Give the result as text; for an error, its code."""
    try:
        numbers = [arithmetic.number(operand) for operand in operands]
        return arithmetic.text(arithmetic.run(NAMED[name], numbers))
    except RequestError as error:
        return error.code


@given(
    st.integers(1, 40),
    st.sampled_from(sorted(ROUNDINGS)),
    st.sampled_from("+-"),
    st.integers(1, 10**45),
    st.integers(0, 90),
)
def test_the_logarithm_near_one_is_the_decimal_modules(
    precision: int, rounding: str, sign: str, digits: int, distance: int
) -> None:
    wide = Context(prec=300)
    number = wide.add(Decimal(1), Decimal(f"{sign}0.{distance * '0'}{digits}"))
    expected = Context(precision, ROUNDINGS[rounding], EMIN, EMAX, 1, 1).ln(number)
    result = calculate(Arithmetic(precision, rounding), "LN", str(number))
    assert Decimal(result).as_tuple() == expected.as_tuple()


def test_a_logarithm_that_is_nearly_half_way_is_rounded_right() -> None:
    arithmetic = Arithmetic(1000)
    near = "0." + 999 * "9"
    result = calculate(arithmetic, "LN", near)
    # -1e-999 - 5e-1999 - 3.3e-2998: half a unit, and then some more
    assert Decimal(result) == Decimal(f"-1.{998 * '0'}1E-999")


def test_near_one_the_decimal_module_takes_no_logarithm() -> None:
    """It would take seconds."""

    class Refusing(Context):
        def ln(self, _: object) -> Decimal:
            raise AssertionError

    near = "0." + 999 * "9"
    assert elementary.ln(Refusing(prec=10), Decimal(near)) == Decimal("-1.000000000E-999")
    with pytest.raises(AssertionError):
        elementary.ln(Refusing(prec=10), Decimal(2))


def test_exact_knows_that_a_logarithm_near_one_is_rounded() -> None:
    assert calculate(Arithmetic(34, exact=True), "LN", "1." + 40 * "0" + "1") == "INEXACT"
    assert calculate(Arithmetic(34, exact=True), "LN", "1." + 40 * "0") == "0"


@pytest.mark.parametrize("precision", [1, 2, 20, 34, 100, 1000])
def test_factorials_are_exact_or_none(precision: int) -> None:
    arithmetic = Arithmetic(precision)
    context = Context(precision, traps=[decimal.Inexact])
    for number in [*range(130), 300, 449, 450, 480, 500, 520, 1000, 1001]:
        try:
            expected = str(context.plus(Decimal(math.factorial(number))))
        except decimal.Inexact:
            expected = "INEXACT"
        result = calculate(arithmetic, "FAT", str(number))
        assert result == expected or Decimal(result).as_tuple() == Decimal(expected).as_tuple()
    for bad in ("-1", "0.5", "1e-9", "-1e6144"):
        assert calculate(arithmetic, "FAT", bad) == "INVALID-OPERATION"
    assert calculate(arithmetic, "FAT", "1e6144") == "INEXACT"


@pytest.mark.parametrize(
    ("number", "places", "result"),
    [
        ("2.675", "2", "2.68"),
        ("2.665", "2", "2.66"),
        ("1234", "-2", "1.2E+3"),
        ("-0.04", "1", "-0.0"),
        ("1", "33", "1." + 33 * "0"),
        ("1", "34", "INVALID-OPERATION"),
        ("1", "0.5", "INVALID-OPERATION"),
        ("1", "1e9", "INVALID-OPERATION"),
        ("0", "6176", "0E-6176"),
        ("1e999999", "0", "INVALID-OPERATION"),
    ],
)
def test_rounding_to_places(number: str, places: str, result: str) -> None:
    assert calculate(Arithmetic(), "ARRED", number, places) == result
