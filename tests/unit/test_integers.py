"""Functions on whole numbers, against integers and fractions of Python."""

import decimal
import math
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from functools import partial

import pytest
from fractions_rounded import adjusted, rounded
from hypothesis import example, given
from hypothesis import strategies as st

from calcd.core import integers
from calcd.core.decimal128 import EMAX, EMIN, ROUNDINGS
from calcd.core.errors import RequestError

Function = Callable[..., Decimal]

TRAPS = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
MODES = sorted(ROUNDINGS.values())


def context_of(precision: int = 34, rounding: str = "ROUND_HALF_EVEN") -> Context:
    return Context(precision, rounding, EMIN, EMAX, 1, 1, [], TRAPS)


def calculate(function: Function, *operands: str, precision: int = 34, exact: bool = False) -> str:
    """Give the result as text; for an error, its reply or the condition that was raised."""
    context = context_of(precision)
    context.traps[decimal.Inexact] = exact
    try:
        return str(function(context, *map(Decimal, operands)))
    except RequestError as error:
        return str(error)
    except decimal.DecimalException as condition:
        return type(condition).__name__


def check(function: Function, context: Context, number: int, *operands: Decimal | int) -> None:
    """Compare with an integer: the value, the digits that are shown, and the conditions."""
    expected = rounded(Fraction(number), context.prec, context.rounding)
    if expected is None:
        with pytest.raises(decimal.Overflow):
            function(context, *map(Decimal, operands))
        return
    result = function(context, *map(Decimal, operands))
    digits = adjusted(Fraction(number)) + 1 if number else 1
    assert Fraction(result) == expected
    assert len(result.as_tuple().digits) == min(digits, context.prec)
    assert context.flags[decimal.Inexact] == (expected != number)
    assert context.flags[decimal.Rounded] == (digits > context.prec)
    if expected != number:
        context.traps[decimal.Inexact] = True
        with pytest.raises(decimal.Inexact):
            function(context, *map(Decimal, operands))


contexts = st.builds(
    context_of, st.integers(1, 60) | st.integers(900, 1000), st.sampled_from(MODES)
)
small = st.integers(0, 60) | st.integers(0, 3000)


@given(contexts, small)
def test_a_factorial_is_the_whole_product_rounded_once(context: Context, number: int) -> None:
    check(integers.factorial, context, math.factorial(number), number)


@given(contexts, small | st.integers(0, 10**50), st.integers(0, 40) | small)
def test_permutations_and_combinations_are_counted_then_rounded_once(
    context: Context, number: int, chosen: int
) -> None:
    check(integers.permutations, context.copy(), math.perm(number, chosen), number, chosen)
    check(integers.combinations, context.copy(), math.comb(number, chosen), number, chosen)
    if chosen <= number:
        check(
            integers.combinations,
            context.copy(),
            math.comb(number, chosen),
            number,
            number - chosen,
        )


@pytest.mark.parametrize("number", [2120, 2121, 2122, 2123, 2124, 2125, 2126])
def test_the_largest_factorials_are_told_from_those_that_overflow(number: int) -> None:
    check(integers.factorial, context_of(34, "ROUND_DOWN"), math.factorial(number), number)
    check(integers.permutations, context_of(34), math.perm(number, number), number, number)


@pytest.mark.parametrize("ratio", [2, 3, 10, 1000])
def test_the_largest_combinations_are_told_from_those_that_overflow(ratio: int) -> None:
    limit = 10 ** (EMAX + 1)
    low, high = 1, 30_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if math.comb(ratio * middle, middle) < limit else (low, middle)
    for chosen in range(low - 2, low + 4):
        number = ratio * chosen
        check(integers.combinations, context_of(), math.comb(number, chosen), number, chosen)


def test_the_largest_permutations_are_told_from_those_that_overflow() -> None:
    for chosen in (1, 2, 3, 10, 100, 1000):
        number = math.floor(10 ** (EMAX % chosen / chosen) * 100) * 10 ** (EMAX // chosen - 2)
        for factor in (1, 9, 10, 11):
            ways = math.perm(number * factor, chosen)
            check(integers.permutations, context_of(), ways, number * factor, chosen)


whole = st.builds(
    lambda coefficient, zeros, places: (
        Decimal(f"{coefficient}.{places * '0'}") if places else Decimal(f"{coefficient}e{zeros}")
    ),
    st.integers(-(10**40), 10**40) | st.integers(-60, 60),
    st.integers(0, 30) | st.integers(0, 400),
    st.integers(0, 5),
)


@given(contexts, st.lists(whole, min_size=2, max_size=5))
@example(context_of(), [Decimal(-12), Decimal("-18.0")])
def test_the_greatest_common_divisor_is_that_of_the_integers(
    context: Context, numbers: list[Decimal]
) -> None:
    result = integers.gcd(context, *numbers)
    expected = math.gcd(*map(int, numbers))
    assert Fraction(result) == rounded(Fraction(expected), context.prec, context.rounding)
    assert context.flags[decimal.Inexact] == (result != expected)


@given(contexts, st.lists(whole, min_size=2, max_size=5))
@example(context_of(), [Decimal(-12), Decimal("-18.0")])
def test_the_least_common_multiple_is_that_of_the_integers(
    context: Context, numbers: list[Decimal]
) -> None:
    result = integers.lcm(context, *numbers)
    expected = math.lcm(*map(int, numbers))
    assert Fraction(result) == rounded(Fraction(expected), context.prec, context.rounding)
    assert context.flags[decimal.Inexact] == (result != expected)


@given(contexts, st.lists(st.integers(-(10**30), 10**30), min_size=2, max_size=5))
def test_divisors_and_multiples_of_integers_raise_what_is_true(
    context: Context, numbers: list[int]
) -> None:
    check(integers.gcd, context.copy(), math.gcd(*numbers), *numbers)
    check(integers.lcm, context.copy(), math.lcm(*numbers), *numbers)


numbers = st.builds(
    lambda coefficient, exponent: Decimal(f"{coefficient}e{exponent}"),
    st.integers(-(10**40), 10**40) | st.integers(-30, 30) | st.just("-0"),
    st.integers(-45, 45) | st.integers(-400, 400) | st.integers(-6200, 6100),
)
many_digits = st.builds(
    lambda coefficient, exponent: Decimal(f"{coefficient}e{exponent}"),
    st.integers(10**100, 10**120),
    st.integers(-40, 10),
)
dividends = numbers | many_digits


@given(contexts, dividends, numbers.filter(bool))
def test_the_remainder_is_exact_then_rounded(
    context: Context, dividend: Decimal, divisor: Decimal
) -> None:
    result = integers.remainder(context, dividend, divisor)
    exact = abs(Fraction(dividend)) % abs(Fraction(divisor))
    signed = -exact if dividend.is_signed() else exact
    assert Fraction(result) == rounded(signed, context.prec, context.rounding)
    assert result.is_signed() == dividend.is_signed()
    assert context.flags[decimal.Inexact] == (Fraction(result) != signed)


@given(contexts, dividends, numbers.filter(bool))
def test_the_remainder_is_the_specifications_where_that_has_one(
    context: Context, dividend: Decimal, divisor: Decimal
) -> None:
    standard = context.copy()
    try:
        expected = standard.remainder(dividend, divisor)
    except decimal.InvalidOperation:
        return
    assert integers.remainder(context, dividend, divisor).as_tuple() == expected.as_tuple()
    assert context.flags == standard.flags


@given(contexts, dividends, numbers.filter(bool))
def test_a_remainder_of_any_quotient_is_as_at_a_precision_that_holds_the_quotient(
    context: Context, dividend: Decimal, divisor: Decimal
) -> None:
    wide = Context(13_000, Emin=-30_000, Emax=30_000)
    expected = wide.remainder(dividend, divisor)
    standard = context.copy()
    rounded_once = standard.create_decimal(expected)
    assert integers.remainder(context, dividend, divisor).as_tuple() == rounded_once.as_tuple()
    assert context.flags == standard.flags


@given(contexts, dividends, numbers.filter(bool))
def test_the_quotient_is_the_specifications_or_too_long(
    context: Context, dividend: Decimal, divisor: Decimal
) -> None:
    exact = int(Fraction(dividend) / Fraction(divisor))
    if abs(exact) < 10**context.prec:
        standard = context.copy().divide_int(dividend, divisor)
        result = integers.quotient(context, dividend, divisor)
        assert result == exact
        assert result.as_tuple() == standard.as_tuple()
        assert not context.flags[decimal.Inexact]
    else:
        with pytest.raises(RequestError) as caught:
            integers.quotient(context, dividend, divisor)
        template = "ERR INVALID-OPERATION the quotient needs more than {} digits"
        assert str(caught.value) == template.format(context.prec)


HUGE = "1e999999999999999999"
TINY = "1e-1999999999999999997"
fat = integers.factorial
perm, comb = integers.permutations, integers.combinations
gcd, lcm = integers.gcd, integers.lcm
rest, quotient = integers.remainder, integers.quotient


@pytest.mark.parametrize(
    ("function", "operands", "result"),
    [
        (fat, "0", "1"),
        (fat, "-0", "1"),
        (fat, "5.00", "120"),
        (fat, "35", "1.033314796638614492966665133752320E+40"),
        (fat, "41", "3.345252661316380710817006205344075E+49"),
        (fat, HUGE, "Overflow"),
        (perm, "5 2", "20"),
        (perm, "2 5", "0"),
        (perm, "0 0", "1"),
        (perm, f"2 {HUGE}", "0"),
        (perm, f"{HUGE} 0", "1"),
        (perm, f"{HUGE} 1", "Overflow"),
        (perm, f"{HUGE} {HUGE}", "Overflow"),
        (perm, "1e30 2", "9." + 29 * "9" + "0000E+59"),
        (perm, "1e3000 2", "1." + 33 * "0" + "E+6000"),
        (comb, "5 2", "10"),
        (comb, "2 5", "0"),
        (comb, "0 0", "1"),
        (comb, "5 5.0", "1"),
        (comb, f"{HUGE} 0", "1"),
        (comb, f"{HUGE} {HUGE}", "1"),
        (comb, f"{HUGE} 9e999999999999999998", "Overflow"),
        (comb, "1e6000 9e5999", "Overflow"),
        (comb, "1e3000 2", "5.000000000000000000000000000000000E+5999"),
        (comb, "1e6144 1", "1." + 33 * "0" + "E+6144"),
        (gcd, "0 0", "0"),
        (gcd, "0e5 -0.00", "0"),
        (gcd, "0 -7", "7"),
        (gcd, "12 18 27", "3"),
        (gcd, "12.0 18", "6"),
        (gcd, "1e500 1e500", "1E+500"),
        (gcd, "1e500 0", "1E+500"),
        (gcd, f"{HUGE} 48", "16"),
        (gcd, f"48 {HUGE} 81e30", "16"),
        (gcd, f"{HUGE} {HUGE}", "Overflow"),
        (gcd, f"7e{10**18 - 2} 21e{10**18 - 2} 30", "10"),
        (lcm, "0 5", "0"),
        (lcm, f"{HUGE} 0", "0"),
        (lcm, "-4 6", "12"),
        (lcm, "4.0 6", "12"),
        (lcm, "1e500 3e499", "3E+500"),
        (lcm, f"{HUGE} 3", "Overflow"),
        (lcm, "1e6111 3e6100", "3E+6111"),
        (rest, "1e40 3", "1"),
        (rest, "1e100 10", "0"),
        (rest, "7e34 1", "0"),
        (rest, "-1e100 10", "-0"),
        (rest, "-1e40 3", "-1"),
        (rest, "1e40 -3", "1"),
        (rest, "12345678901234567890123456789012345678901 3e2", "1"),
        (rest, "-1234567890123456789012345678901234567890.1 7e4", "-47890.1"),
        (rest, f"{HUGE} 7", "6"),
        (rest, f"{HUGE} 0.7", "0.4"),
        (rest, f"1 {TINY}", "0E-6176"),
        (rest, f"{TINY} 1", "0E-6176"),
        (rest, f"0 {HUGE}", "0"),
        (rest, "-0e5 3", "-0"),
        (rest, "1 0", "ERR DIVISION-BY-ZERO division by zero"),
        (rest, "0 0", "ERR DIVISION-UNDEFINED 0 divided by 0 is undefined"),
        (quotient, "7 2", "3"),
        (quotient, "-1 3", "-0"),
        (quotient, f"1 {HUGE}", "0"),
        (quotient, "1 0.0", "ERR DIVISION-BY-ZERO division by zero"),
        (quotient, "-0 0", "ERR DIVISION-UNDEFINED 0 divided by 0 is undefined"),
        (quotient, f"{HUGE} 3", "ERR INVALID-OPERATION the quotient needs more than 34 digits"),
        (quotient, "1e34 1", "ERR INVALID-OPERATION the quotient needs more than 34 digits"),
    ],
)
def test_operands_at_the_edges_have_the_right_result(
    function: Function, operands: str, result: str
) -> None:
    assert calculate(function, *operands.split()) == result


@pytest.mark.parametrize(
    ("function", "operands", "reason"),
    [
        (fat, "-1", "the factorial needs a whole number that is not negative"),
        (fat, "0.5", "the factorial needs a whole number that is not negative"),
        (fat, TINY, "the factorial needs a whole number that is not negative"),
        (perm, "2.5 1", "the operands must be whole numbers that are not negative"),
        (perm, "2 1.5", "the operands must be whole numbers that are not negative"),
        (comb, "-2 1", "the operands must be whole numbers that are not negative"),
        (comb, f"5 -{HUGE}", "the operands must be whole numbers that are not negative"),
        (gcd, "2 1 0.1", "the greatest common divisor needs whole numbers"),
        (gcd, f"2 {TINY}", "the greatest common divisor needs whole numbers"),
        (lcm, "0 0.1", "the least common multiple needs whole numbers"),
    ],
)
def test_what_has_no_result_is_an_error_with_its_reason(
    function: Function, operands: str, reason: str
) -> None:
    assert calculate(function, *operands.split()) == f"ERR INVALID-OPERATION {reason}"


def test_exact_refuses_only_digits_that_are_not_zeros() -> None:
    exactly = partial(calculate, exact=True)
    assert exactly(fat, "35") == calculate(fat, "35")
    assert exactly(fat, "41") == "Inexact"
    assert exactly(fat, "3000") == "Overflow"
    assert exactly(rest, "1e50", "7e10", precision=1) == calculate(
        rest, "1e50", "7e10", precision=1
    )
    assert exactly(rest, "1e50", "17", precision=1) == "Inexact"
    assert exactly(gcd, "123e500", "246e500", precision=2) == "Inexact"
    assert exactly(lcm, "11e9", "1e10", precision=2) == "1.1E+11"


def test_a_thousand_digits() -> None:
    number = "7" * 1000
    assert calculate(gcd, number, f"{number}e999999999999", precision=1000) == number
    assert calculate(lcm, number, number, precision=1000) == number
    assert calculate(rest, f"{number}e999999999999", number, precision=1000) == "0"
