"""Functions that need more than one call of the decimal module."""

import decimal
import math
from collections import Counter
from collections.abc import Callable
from decimal import Context, Decimal, localcontext

import pytest
from decimaltest import Case, all_cases, directory
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
    context = Context(precision, ROUNDINGS[rounding], EMIN, EMAX, 1, 1)
    expected = context.plus(wide.ln(number))
    result = calculate(Arithmetic(precision, rounding), "LN", str(number))
    assert Decimal(result).as_tuple() == expected.as_tuple()


def test_a_logarithm_that_is_nearly_half_way_is_rounded_right() -> None:
    arithmetic = Arithmetic(1000)
    near = "0." + 999 * "9"
    result = calculate(arithmetic, "LN", near)
    # -1e-999 - 5e-1999 - 3.3e-2998: half a unit, and then some more
    assert Decimal(result) == Decimal(f"-1.{998 * '0'}1E-999")


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


# By the name that the specification's cases have for it: the function, and how many are asked.
IN_CASES: dict[str, tuple[Callable[..., Decimal], int]] = {
    "exp": (elementary.exp, 399),
    "ln": (elementary.ln, 389),
    "log10": (elementary.log10, 371),
    "power": (elementary.power, 4300),
    "squareroot": (elementary.sqrt, 3575),
}
CONDITIONS = {"inexact", "rounded", "overflow", "underflow", "subnormal"}
OPERANDS_LIMITED = {"powx4008", "powx4010", "powx4012", "powx4014"}  # to exponents of 6 digits
FAR = 20_000  # a larger exponent is no result's here, but may be a case's
CASES_DIRECTORY = directory()


def left_out(case: Case) -> str:
    """Say why a case is not asked; ``""`` if it is."""
    if len(case.operands) == 3:
        return "power by a modulus"
    if "#" in case.operands or not all(Decimal(each).is_finite() for each in case.operands):
        return "operands not finite"
    if not 1 <= case.precision <= 1000:
        return "precision not from 1 to 1000"
    if "invalid_context" in case.conditions or case.name in OPERANDS_LIMITED:
        return "restrictions that are one program's own"
    if case.limits[0] > FAR and not abs(Decimal(case.expected).adjusted()) < FAR:
        return "other limits of exponents"
    if case.limits[0] > FAR and {"overflow", "underflow"} & case.conditions:
        return "other limits of exponents"
    return ""


def right(case: Case) -> tuple[str, set[str]]:
    """Give what is right here: the result and the conditions; or an error's code, and none.

    An exact power with a fraction for an exponent is inexact to the specification alone.
    """
    conditions = CONDITIONS & case.conditions
    if case.operation == "power" and Decimal(case.operands[0]) == 0 > Decimal(case.operands[1]):
        return "DIVISION-BY-ZERO", set()
    if case.expected.lower() in ("nan", "-infinity") and not conditions:
        return "INVALID-OPERATION", set()
    return case.expected, conditions


def calculated(case: Case) -> tuple[str, set[str]]:
    """Give the result and the conditions; or an error's code, and none."""
    largest, smallest, clamp = case.limits
    rounding = ROUNDINGS[case.rounding]
    context = Context(case.precision, rounding, smallest, largest, 1, clamp, [], [])
    function, _ = IN_CASES[case.operation]
    try:
        result = function(context, *map(Decimal, case.operands))
    except RequestError as error:
        return error.code, set()
    raised = {signal.__name__.lower() for signal, flag in context.flags.items() if flag}
    return str(result), raised & CONDITIONS


def is_exact_power(case: Case, result: str) -> bool:
    """Say whether a power with a fraction for an exponent is exact, by squaring and the like."""
    with localcontext(Context(2000)):
        numerator, denominator = abs(Decimal(case.operands[1])).as_integer_ratio()
        if denominator == 1 or denominator > 1000 or numerator > 1000:
            return Decimal(case.operands[0]) == 1
        base, power = Decimal(case.operands[0]), Decimal(result)
        if Decimal(case.operands[1]) < 0:
            return base**numerator * power**denominator == 1
        return base**numerator == power**denominator


@pytest.mark.skipif(CASES_DIRECTORY is None, reason="no Python here has its test package")
@pytest.mark.parametrize("operation", IN_CASES)
def test_the_specifications_cases_hold(
    operation: str, record_property: Callable[[str, object], None]
) -> None:
    assert CASES_DIRECTORY
    out: Counter[str] = Counter()
    asked = exact = 0
    for case in all_cases(CASES_DIRECTORY):
        if case.operation != operation:
            continue
        if reason := left_out(case):
            out[reason] += 1
            continue
        asked += 1
        (result, raised), (expected, conditions) = calculated(case), right(case)
        if result == expected and raised != conditions and operation == "power":
            assert is_exact_power(case, result), case
            exact += 1
            conditions -= {"inexact", "underflow"}
        assert (result, raised) == (expected, conditions), case
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(out.items()))
    line = f"{operation}: {asked:,} right, {exact} of them exact here alone; left out: {reasons}"
    record_property("load", line)
    assert asked >= IN_CASES[operation][1], line
