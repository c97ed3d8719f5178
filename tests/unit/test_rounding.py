"""Rounding that is asked for, and the mean, against fractions and the decimal module."""

import decimal
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction

import pytest
from fractions_rounded import rounded, rounded_at
from hypothesis import example, given
from hypothesis import strategies as st

from calcd.core.decimal128 import EMAX, EMIN, ROUNDINGS
from calcd.core.errors import RequestError
from calcd.core.rounding import ceiling, floor, mean, round_to_places, truncate

Function = Callable[..., Decimal]

TRAPS = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
MODES = sorted(ROUNDINGS.values())
DIRECTED = {
    floor: decimal.ROUND_FLOOR,
    ceiling: decimal.ROUND_CEILING,
    truncate: decimal.ROUND_DOWN,
}


def context_of(
    precision: int = 34, rounding: str = "ROUND_HALF_EVEN", exact: bool = False
) -> Context:
    traps = [*TRAPS, decimal.Inexact] if exact else TRAPS
    return Context(precision, rounding, EMIN, EMAX, 1, 1, [], traps)


def calculate(function: Function, *operands: str, precision: int = 34, exact: bool = False) -> str:
    """Give the result as text; for an error, its reply or the condition that was raised."""
    try:
        return str(function(context_of(precision, exact=exact), *map(Decimal, operands)))
    except RequestError as error:
        return str(error)
    except decimal.DecimalException as condition:
        return type(condition).__name__


contexts = st.builds(
    context_of, st.integers(1, 60) | st.integers(900, 1000), st.sampled_from(MODES)
)
numbers = st.builds(
    lambda coefficient, exponent: Decimal(f"{coefficient}e{exponent}"),
    st.integers(-(10**40), 10**40) | st.integers(-30, 30) | st.just("-0"),
    st.integers(-45, 45) | st.integers(-400, 400) | st.integers(-6200, 6100),
)
near = numbers.filter(lambda number: abs(number.adjusted()) < 100)
places = st.integers(-45, 45) | st.integers(-420, 420)


@given(contexts, numbers, places | st.integers(EMIN, -EMIN))
def test_rounding_to_places_is_the_specifications_quantize(
    context: Context, number: Decimal, places: int
) -> None:
    standard = context.copy()
    try:
        expected = standard.quantize(number, Decimal(f"1e{-places}"))
    except decimal.InvalidOperation:
        if number.adjusted() <= EMAX - 1:
            with pytest.raises(RequestError, match=f"needs more than {context.prec} digits"):
                round_to_places(context, number, Decimal(places))
        return
    context.traps[decimal.Inexact] = True
    result = round_to_places(context, number, Decimal(places))
    assert result.as_tuple() == expected.as_tuple()
    assert not context.flags[decimal.Inexact]
    assert not context.flags[decimal.Rounded]


@given(contexts, numbers, st.none() | places, st.sampled_from([*DIRECTED]))
def test_directed_rounding_drops_digits_and_adds_none(
    context: Context, number: Decimal, places: int | None, function: Function
) -> None:
    operands = [number] if places is None else [number, Decimal(places)]
    result = function(context, *operands)
    exponent = -(places or 0)
    shown = int(number.as_tuple().exponent)
    exact = rounded_at(Fraction(number), exponent, DIRECTED[function])
    assert Fraction(result) == rounded(exact, context.prec, context.rounding)
    assert result.is_signed() == number.is_signed()
    assert context.flags[decimal.Inexact] == (Fraction(result) != exact)
    if not context.flags[decimal.Rounded] and not context.flags[decimal.Clamped]:
        assert result.as_tuple().exponent == max(shown, exponent)


@given(contexts, near)
def test_rounding_to_an_integer_is_the_specifications_then_rounded(
    context: Context, number: Decimal
) -> None:
    standard = context.copy()
    integer = number.to_integral_value(standard.rounding)
    result = round_to_places(context, number)
    assert result.as_tuple() == standard.create_decimal(integer).as_tuple()
    assert context.flags == standard.flags


HUGE = "1e999999999999999999"
TINY = "1e-1999999999999999997"


@pytest.mark.parametrize(
    ("function", "operands", "result"),
    [
        (round_to_places, "2.5", "2"),
        (round_to_places, "2.675 2", "2.68"),
        (round_to_places, "-0.004 2", "-0.00"),
        (round_to_places, "1 2", "1.00"),
        (round_to_places, "2.996 2.0", "3.00"),
        (round_to_places, "12345 -2", "1.23E+4"),
        (round_to_places, "1e50", "1E+50"),
        (round_to_places, "5 -6144", "0E+6111"),
        (round_to_places, "0 6176", "0E-6176"),
        (
            round_to_places,
            f"{HUGE} -6144",
            "ERR INVALID-OPERATION the result needs more than 34 digits",
        ),
        (round_to_places, f"{TINY} 2", "0.00"),
        (round_to_places, "1e6145 -6144", "Overflow"),
        (round_to_places, "1 33", "1." + 33 * "0"),
        (round_to_places, "1 34", "ERR INVALID-OPERATION the result needs more than 34 digits"),
        (round_to_places, "1e50 0", "ERR INVALID-OPERATION the result needs more than 34 digits"),
        (round_to_places, "1 0.5", "ERR INVALID-OPERATION places must be a whole number"),
        (round_to_places, f"1 {TINY}", "ERR INVALID-OPERATION places must be a whole number"),
        (round_to_places, "1 6177", "ERR INVALID-OPERATION places must be between -6144 and 6176"),
        (truncate, "1 -6145", "ERR INVALID-OPERATION places must be between -6144 and 6176"),
        (floor, f"1 {HUGE}", "ERR INVALID-OPERATION places must be between -6144 and 6176"),
        (truncate, "1 0.5", "ERR INVALID-OPERATION places must be a whole number"),
        (truncate, "5 2", "5"),
        (truncate, "2.50 2", "2.50"),
        (truncate, "2.5 2", "2.5"),
        (truncate, "2.999 2", "2.99"),
        (truncate, "3.001 2", "3.00"),
        (truncate, "-2.7", "-2"),
        (truncate, "1299 -2", "1.2E+3"),
        (truncate, "1e50", "1E+50"),
        (truncate, HUGE, "Overflow"),
        (truncate, f"{HUGE} 2", "Overflow"),
        (truncate, TINY, "0"),
        (floor, "2.5", "2"),
        (floor, "-0.5", "-1"),
        (floor, "-2.341 2", "-2.35"),
        (floor, "1e40", "1E+40"),
        (floor, f"-{TINY}", "-1"),
        (ceiling, "2.1", "3"),
        (ceiling, "-0.5", "-0"),
        (ceiling, "2.341 2", "2.35"),
        (ceiling, "1 -6144", "1." + 33 * "0" + "E+6144"),
        (ceiling, TINY, "1"),
        (ceiling, f"{TINY} -5", "1E+5"),
        (mean, "1 2 6", "3"),
        (mean, "1.0 3.0", "2.0"),
        (mean, "1 2", "1.5"),
        (mean, "7.50", "7.50"),
        (mean, "1e6145 1", "5." + 33 * "0" + "E+6144"),
        (mean, "-0 -0", "-0"),
        (mean, "1e999999999999 -1e999999999999 5", "1." + 32 * "6" + "7"),
        (mean, "1e999999999999 -1e999999999999 5 -5 3 -3 8e-99999 -8e-99999", "0E-6176"),
        (mean, "1 1e-999999999999999999 -1e-999999999999999999", "0." + 34 * "3"),
        (mean, f"3 {TINY} -{TINY}", "1." + 33 * "0"),
        (mean, f"{HUGE} {HUGE}", "Overflow"),
        (mean, f"9{HUGE[1:]} 9{HUGE[1:]}", "Overflow"),
        (mean, f"{HUGE} -{HUGE}", "0E+6111"),
        (mean, "9e6144 9e6144", "9." + 33 * "0" + "E+6144"),
        (mean, f"{TINY} {TINY}", "0E-6176"),
    ],
)
def test_operands_at_the_edges_have_the_right_result(
    function: Function, operands: str, result: str
) -> None:
    assert calculate(function, *operands.split()) == result


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("number", [f"9{HUGE[1:]}", f"-9{HUGE[1:]}", "1e6145"])
@pytest.mark.parametrize(
    ("function", "places"),
    [
        *((function, places) for function in DIRECTED for places in ([], [-6144], [0], [6176])),
        (round_to_places, []),
        (mean, []),
    ],
)
def test_what_is_too_large_overflows_at_once(
    function: Function, places: list[int], number: str, rounding: str
) -> None:
    with pytest.raises(decimal.Overflow):
        function(context_of(34, rounding), Decimal(number), *map(Decimal, places))


def test_exact_allows_rounding_that_was_asked_for_and_no_other() -> None:
    assert calculate(round_to_places, "2.675", "2", exact=True) == "2.68"
    assert calculate(round_to_places, "2.6", exact=True) == "3"
    assert calculate(floor, "-2.6", exact=True) == "-3"
    assert calculate(ceiling, "12345.6", precision=4, exact=True) == "Inexact"
    assert calculate(ceiling, "12349.6", precision=4, exact=True) == "1.235E+4"
    assert calculate(truncate, "2.99", "1", exact=True) == "2.9"
    assert calculate(mean, "1", "2", exact=True) == "1.5"
    assert calculate(mean, "1", "1", "2", exact=True) == "Inexact"
    assert calculate(mean, f"1.{99 * '0'}5", "-5e-100", exact=True) == "0.5" + 33 * "0"
    assert calculate(mean, "1", TINY, exact=True) == "Inexact"


@given(contexts, st.lists(numbers, min_size=1, max_size=8))
@example(context_of(1), [Decimal(1), Decimal("-1e-100")])
@example(context_of(1), [Decimal("1.5"), Decimal("1.5"), Decimal("1e-300"), Decimal("-2e-300")])
def test_the_mean_is_the_exact_sum_over_the_count(context: Context, numbers: list[Decimal]) -> None:
    expected = sum(map(Fraction, numbers), Fraction()) / len(numbers)
    result = mean(context, *numbers)
    assert Fraction(result) == rounded(expected, context.prec, context.rounding)
    assert context.flags[decimal.Inexact] == (Fraction(result) != expected)


@given(contexts, st.lists(numbers, min_size=1, max_size=8))
@example(context_of(5, "ROUND_FLOOR"), [Decimal("0.0"), Decimal(0)])
@example(context_of(5, "ROUND_FLOOR"), [Decimal("0.0"), Decimal("-0")])
@example(context_of(5, "ROUND_FLOOR"), [Decimal("2.0"), Decimal("-2")])
def test_the_mean_has_the_quantum_and_conditions_of_one_division(
    context: Context, numbers: list[Decimal]
) -> None:
    wide = Context(20_000, context.rounding, -30_000, 30_000)
    total = numbers[0]
    for number in numbers[1:]:
        total = wide.add(total, number)
    standard = context.copy()
    expected = standard.divide(total, Decimal(len(numbers)))
    result = mean(context, *numbers)
    assert result.as_tuple() == expected.as_tuple()
    assert context.flags == standard.flags


# Sums that are on the edge between two results, or on a tie, but for what is far below them.
edges = st.builds(
    lambda digits, tail, exponent: Decimal(f"{digits}{tail}e{exponent}"),
    st.integers(-999, 999).filter(bool),
    st.sampled_from(["", "5", "50", "49999", "99999", "00001"]),
    st.integers(-3, 3),
)
dust = st.tuples(st.sampled_from([-9, -1, 1, 9, 0]), st.integers(1, 90))


@given(
    st.builds(context_of, st.integers(1, 8), st.sampled_from(MODES)),
    st.lists(edges, min_size=1, max_size=3),
    st.lists(dust, max_size=5),
    st.integers(0, 10**17),
)
def test_what_is_far_below_decides_ties(
    context: Context, numbers: list[Decimal], dust: list[tuple[int, int]], distance: int
) -> None:
    """The result for distances that no fraction can hold is that for one of 400 digits."""

    def moved(far: int) -> list[Decimal]:
        return [*numbers, *(Decimal(f"{digit}e-{far + place}") for digit, place in dust)]

    expected = sum(map(Fraction, moved(400)), Fraction()) / (len(numbers) + len(dust))
    if sum(numbers) == 0:
        return  # then the distance is that of the result
    for far in (400, 400 + distance):
        result = mean(context.copy(), *moved(far))
        assert Fraction(result) == rounded(expected, context.prec, context.rounding)
