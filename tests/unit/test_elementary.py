"""Functions that need more than one call of the decimal module."""

import decimal
from collections import Counter
from collections.abc import Callable
from decimal import Context, Decimal, localcontext

import pytest
from decimaltest import Case, all_cases, directory
from hypothesis import given
from hypothesis import strategies as st

from calcd.core import elementary
from calcd.core.commands import BY_NAME
from calcd.core.decimal128 import EMAX, EMIN, ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError


def calculate(arithmetic: Arithmetic, name: str, *operands: str) -> str:
    """Give the result as text; for an error, its code."""
    try:
        numbers = [arithmetic.number(operand) for operand in operands]
        return arithmetic.text(arithmetic.run(BY_NAME[name], numbers))
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
    arithmetic = Arithmetic(precision, rounding, notation="scientific")
    result = calculate(arithmetic, "LN", str(number))
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


def context_of(precision: int, rounding: str = "half-even", exact: bool = False) -> Context:
    """Give a context as a session has it."""
    return Arithmetic(precision, rounding, exact).context.copy()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    ("name", "operands", "result"),
    [
        ("exp", "0", "1"),
        ("exp", "-0.0", "1"),
        ("ln", "1.00", "0"),
        ("log10", "0.001", "-3"),
        ("log10", "1E+6144", "6144"),
        ("log10", "1E-1999999999999999997", "-1999999999999999997"),
        ("log", "8 2", "3"),
        ("log", "2 4", "0.5"),
        ("log", "0.5 2", "-1"),
        ("log", "0.04 5", "-2"),
        ("log", "1E+5 1E+4", "1.25"),
        ("log", "1 7", "0"),
        ("log", "0.00032 0.2", "5"),
        ("log", "0.064 0.4", "3"),
        ("log", "15.625 0.4", "-3"),
        ("power", "2 10", "1024"),
        ("power", "1.0 2", "1.00"),
        ("power", "0 2.5", "0"),
        ("power", "-0 3", "-0"),
        ("power", "-2 -3", "-0.125"),
        ("power", "10 -3", "0.001"),
        ("power", "3 0", "1"),
        ("power", "3 0E+30", "1"),
        ("power", "-1 1E+30", "1"),
        ("power", "-1 1000000000000000000001", "-1"),
        ("root", "8 3", "2"),
        ("root", "-8 3", "-2"),
        ("root", "16 -4", "0.5"),
        ("root", "1 1E+999999999999999999", "1"),
        ("root", "0.0001 2", "0.01"),
        ("root", "1E+3000000000 1000000000", "1E+3"),
        ("root", "0 5", "0"),
        ("sqrt", "2.25", "1.5"),
        ("sqrt", "100", "10"),
        ("sqrt", "1E+4", "1E+2"),
        ("sqrt", "-0.00", "-0.0"),
    ],
)
def test_exact_results_are_exact_in_every_mode(
    name: str, operands: str, result: str, rounding: str
) -> None:
    context = context_of(34, rounding, exact=True)
    function = getattr(elementary, name)
    assert str(function(context, *map(Decimal, operands.split()))) == result
    assert not context.flags[decimal.Rounded]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    ("operands", "result"),
    [
        ("4 0.5", 2),
        ("16 0.25", 2),
        ("4 1.5", 8),
        ("400 -0.5", 0.05),
        ("1.00 0.5", 1),
        ("1E+5 0.4", 100),
    ],
)
def test_an_exact_power_with_a_fraction_is_filled_up_with_zeros(
    operands: str, result: float, rounding: str
) -> None:
    context = context_of(34, rounding, exact=True)
    power = elementary.power(context, *map(Decimal, operands.split()))
    assert power == Decimal(str(result))
    assert len(power.as_tuple().digits) == 34
    assert context.flags[decimal.Rounded]


@pytest.mark.parametrize(
    ("name", "operands", "code", "reason"),
    [
        ("sqrt", "-1", "INVALID-OPERATION", "square root of a negative number"),
        ("ln", "0", "INVALID-OPERATION", "logarithm of zero"),
        ("log10", "-1", "INVALID-OPERATION", "logarithm of a negative number"),
        ("log", "2 0", "INVALID-OPERATION", "the base of a logarithm must be positive"),
        ("log", "2 1.0", "INVALID-OPERATION", "the base of a logarithm must not be 1"),
        ("power", "0 0", "INVALID-OPERATION", "0 to the power 0 is undefined"),
        ("power", "0 -1", "DIVISION-BY-ZERO", "division by zero"),
        ("power", "0 -0.5", "DIVISION-BY-ZERO", "division by zero"),
        (
            *("power", "-8 0.5", "INVALID-OPERATION"),
            "a negative number to a power that is not whole",
        ),
        ("root", "0 -3", "DIVISION-BY-ZERO", "division by zero"),
        ("root", "-4 2", "INVALID-OPERATION", "an even root of a negative number"),
        ("root", "-4 1E+30", "INVALID-OPERATION", "an even root of a negative number"),
        (
            *("root", "4 0", "INVALID-OPERATION"),
            "the root's degree must be a whole number other than 0",
        ),
        (
            *("root", "4 2.5", "INVALID-OPERATION"),
            "the root's degree must be a whole number other than 0",
        ),
    ],
)
def test_the_reason_of_an_error_is_true(name: str, operands: str, code: str, reason: str) -> None:
    with pytest.raises(RequestError) as raised:
        getattr(elementary, name)(context_of(34), *map(Decimal, operands.split()))
    assert (raised.value.code, raised.value.template) == (code, reason)


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("exp", "1E+18"),
        ("exp", "14150"),
        ("power", "10 1E+17"),
        ("power", "10 6145"),
        ("power", "1E+999999999999999999 1E+999999999999999999"),
        ("power", "-2E+73 361"),
        ("root", "1E+999999999999999999 3"),
        ("root", "1E-999999999999999999 -3"),
    ],
)
def test_a_result_that_is_too_large_is_known_at_once(name: str, operands: str) -> None:
    with pytest.raises(decimal.Overflow):
        getattr(elementary, name)(context_of(34), *map(Decimal, operands.split()))


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("exp", "-1E+18"),
        ("power", "0.5 1E+300"),
        ("power", "10 -7000"),
        ("power", "2E-73 360"),  # exact, but for its exponent
        ("power", "1E-999999999999999999 1E+999999999999999999"),
        ("root", "1E+999999999999999999 -3"),
    ],
)
def test_a_result_that_is_too_small_is_rounded_in_the_mode_in_force(
    name: str, operands: str
) -> None:
    numbers = [Decimal(each) for each in operands.split()]
    for precision in (34, 223):
        least = 10 ** Decimal(EMIN - precision + 1)
        for rounding in ROUNDINGS:
            result = getattr(elementary, name)(context_of(precision, rounding), *numbers)
            assert result == (least if rounding in ("up", "ceiling", "05up") else 0)


def test_results_beside_a_boundary_take_no_more_digits() -> None:
    nines, tiny = Decimal("0." + 900 * "9"), Decimal("1E-999999999999999999")
    down, up = context_of(34, "floor"), context_of(34, "ceiling")
    assert str(elementary.exp(up, tiny)) == "1." + 32 * "0" + "1"
    assert str(elementary.exp(down, tiny.copy_negate())) == "0." + 34 * "9"
    assert str(elementary.ln(up, nines)) == "-1." + 33 * "0" + "E-900"
    assert str(elementary.ln(down, nines)) == "-1." + 32 * "0" + "1E-900"
    assert str(elementary.power(up, nines, Decimal("2.5"))) == "1." + 33 * "0"
    assert str(elementary.root(down, nines.copy_negate(), Decimal(3))) == "-1." + 33 * "0"
