"""The arithmetic: decimal128 by the General Decimal Arithmetic specification."""

import decimal
import re
from decimal import Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session

from calcd.core.commands import BY_NAME
from calcd.core.decimal128 import EMAX, EMIN, ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError


def calculate(
    name: str,
    *operands: str,
    precision: int = 34,
    rounding: str = "half-even",
    notation: str = "scientific",
) -> str:
    """Give the result as text; for an error, its code."""
    try:
        arithmetic = Arithmetic(precision, rounding, notation=notation)
        numbers = [arithmetic.number(operand) for operand in operands]
        return arithmetic.text(arithmetic.run(BY_NAME[name], numbers))
    except RequestError as error:
        return error.code


@pytest.mark.parametrize(
    ("name", "left", "right", "result"),
    [
        ("SOMA", "2", "2", "4"),
        ("ADD", "0.1", "0.2", "0.3"),
        ("SUB", "5", "3", "2"),
        ("MUL", "0.1", "0.2", "0.02"),
        ("DIV", "1", "3", "0." + "3" * 34),
        ("DIV", "2", "3", "0." + "6" * 33 + "7"),
        # the quantum is kept
        ("SOMA", "1.50", "1.50", "3.00"),
        ("MUL", "1.20", "3", "3.60"),
        ("DIV", "2.40", "2", "1.20"),
        ("SUB", "1.0", "1.0", "0.0"),
        # signs of zero
        ("SUB", "0", "0", "0"),
        ("MUL", "-1", "0", "-0"),
        ("SOMA", "-0", "-0", "-0"),
        # the grammar of an operand
        ("SOMA", "+3.", "-.5", "2.5"),
        ("SOMA", "6.02e23", "0e21", "6.02E+23"),
        ("SOMA", "007", "1E-0002", "7.01"),
        # rounding to 34 digits, half to even
        ("SOMA", "1" + "0" * 33, "0.5", "1" + "0" * 33),
        ("SOMA", "1" + "0" * 32 + "1", "0.5", "1" + "0" * 32 + "2"),
        # an operand is taken as it is written, however long: only the result is rounded
        ("SUB", "1" + "0" * 39 + "7", "1" + "0" * 40, "7"),
        ("SOMA", "0." + "4" * 40, "0", "0." + "4" * 34),
        ("MUL", "1e-3", "1e-3", "0.000001"),
        ("MUL", "1e-3", "1e-4", "1E-7"),
        ("SOMA", "9" * 34, "0", "9" * 34),
        ("SOMA", "0e-35", "0", "0E-35"),
        # a positive exponent stays one: 2E+3 and 2000 differ in their quantum
        ("SOMA", "2e3", "0e3", "2E+3"),
        ("SOMA", "2e3", "0", "2000"),
        ("MUL", "1e33", "10", "1.0E+34"),
        # the ends of the range: the clamp pads, what is too small rounds to a subnormal or zero
        ("MUL", "1e6144", "1", "1." + "0" * 33 + "E+6144"),
        ("SOMA", "1e6111", "0e6111", "1E+6111"),
        ("DIV", "1e-6176", "2", "0E-6176"),
        ("DIV", "3e-6176", "2", "2E-6176"),
        ("MUL", "1e-4000", "1e-4000", "0E-6176"),
        ("SUB", "1e7000", "1e7000", "0E+6111"),
        ("DIV", "1e9000", "1e8999", "1E+1"),
        ("SOMA", "0e999999999999999999", "0e999999999999999999", "0E+6111"),
        ("MUL", "1e-999999999999999999", "1", "0E-6176"),
        ("COMP", "1e-999999999999999999", "0", "1"),
        # what has no finite result
        ("DIV", "1", "0", "DIVISION-BY-ZERO"),
        ("DIV", "-1", "-0.00", "DIVISION-BY-ZERO"),
        ("DIV", "0", "0", "DIVISION-UNDEFINED"),
        ("DIV", "0e5", "-0", "DIVISION-UNDEFINED"),
        ("MUL", "9e6144", "9", "OVERFLOW"),
        ("SOMA", "9e6145", "1", "OVERFLOW"),
        ("SOMA", "1e999999999999999999", "1", "OVERFLOW"),
    ],
)
def test_results(name: str, left: str, right: str, result: str) -> None:
    assert calculate(name, left, right) == result


@pytest.mark.parametrize(
    "operand",
    [
        *("", "+", "-", ".", "e5", "1e", "1e+", "--1", "1-", "1.2.3", "0x10", "1e5.0", "1 e5"),
        *("1_000", "nan", "NaN", "sNaN", "inf", "Infinity", "-inf", "nan123"),
        *("1,5", "1.000,50", "٣", "\uff11", "½", "1\xa0", "1\x0b", "1\x00", "1\r"),
    ],
)
def test_what_is_no_number(operand: str) -> None:
    assert calculate("SOMA", operand, "1") == "INVALID-NUMBER"
    assert calculate("DIV", "1", operand) == "INVALID-NUMBER"


OUT_OF_RANGE = [
    "1e9999999999999999999",
    "1e-9999999999999999999",
    "0e99999999999999999999",
    "-0e-9999999999999999999",
    "1e1000000000000000000",
    "12e999999999999999999",  # the exponent of its first digit counts
    "1e-1999999999999999998",
    "10e-1999999999999999998",  # as 1 it could be held, but with another quantum
    "0." + "0" * 900 + "e-1999999999999999900",
]


@pytest.mark.parametrize("operand", OUT_OF_RANGE)
@pytest.mark.parametrize(
    "request_",
    ["COMP {} 0", "SOMA {} 1", "SOMA 1 {}", "DIV 1 {}", "LN {}", "= {}", "= 1 + {}", "x = {}"],
)
@pytest.mark.parametrize(
    ("precision", "exact"), [(1, False), (34, False), (34, True), (1000, True)]
)
def test_an_operand_whose_exponent_is_out_of_range_is_an_error(
    operand: str, request_: str, precision: int, exact: bool
) -> None:
    session = new_session(precision, exact=exact)
    reply = session.receive(request_.format(operand).encode() + b"\nx\n").decode()
    assert re.fullmatch(
        r"ERR INVALID-NUMBER '.*' has an exponent out of range\nERR UNKNOWN-.*\n", reply
    )


digits = st.text("0123456789", max_size=30) | st.text("09", max_size=1200)
exponents = st.integers(-(10**25), 10**25) | st.builds(
    int.__add__, st.integers(-60, 60), st.sampled_from([decimal.MAX_EMAX, decimal.MIN_ETINY])
)


@given(st.sampled_from(["", "+", "-"]), digits, digits, st.none() | exponents, st.booleans())
def test_an_operand_is_the_number_that_was_written_or_an_error(
    sign: str, whole: str, fraction: str, power: int | None, exact: bool
) -> None:
    whole = whole or ("" if fraction else "0")
    text = sign + whole + (f".{fraction}" if fraction else "")
    text += "" if power is None else f"e{power:+}"
    written = (whole + fraction).lstrip("0") or "0"
    exponent = (power or 0) - len(fraction)
    first = exponent if written == "0" else exponent + len(written) - 1
    arithmetic = Arithmetic(exact=exact)
    if exponent >= decimal.MIN_ETINY and first <= decimal.MAX_EMAX:
        assert arithmetic.number(text).as_tuple() == (
            sign == "-",
            tuple(map(int, written)),
            exponent,
        )
        return
    with pytest.raises(RequestError, match=r"INVALID-NUMBER .* out of range"):
        arithmetic.number(text)
    with pytest.raises(decimal.InvalidOperation):
        arithmetic.calculate("SOMA", text, "0")


@given(st.text("019+-.eE_ ,x", max_size=10))
def test_the_grammar_of_an_operand_is_that_of_the_readme(text: str) -> None:
    """Against the same written in a way that takes quadratic time."""
    grammar = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    is_number = calculate("ABS", text) != "INVALID-NUMBER"
    assert is_number == bool(re.fullmatch(grammar, text))


def test_a_comma_is_told_to_be_a_point() -> None:
    with pytest.raises(RequestError, match=r"'1,5' .*point"):
        Arithmetic().number("1,5")


def test_a_bad_operand_is_quoted_escaped_and_cut() -> None:
    with pytest.raises(RequestError) as caught:
        Arithmetic().number("\x1b[2J" + "x" * 1000)
    assert str(caught.value).startswith(r"ERR INVALID-NUMBER '\x1b[2Jxxxx")
    assert "..." in str(caught.value)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("rounding", "up", "down", "negative"),
    [
        ("half-even", "1.2", "1.2", "-1.2"),
        ("half-up", "1.3", "1.2", "-1.3"),
        ("half-down", "1.2", "1.2", "-1.2"),
        ("up", "1.3", "1.3", "-1.3"),
        ("down", "1.2", "1.2", "-1.2"),
        ("ceiling", "1.3", "1.3", "-1.2"),
        ("floor", "1.2", "1.2", "-1.3"),
        ("05up", "1.2", "1.2", "-1.2"),
    ],
)
def test_each_rounding(rounding: str, up: str, down: str, negative: str) -> None:
    assert calculate("SOMA", "1.25", "0", precision=2, rounding=rounding) == up
    assert calculate("SOMA", "1.24", "0", precision=2, rounding=rounding) == down
    assert calculate("SOMA", "-1.25", "0", precision=2, rounding=rounding) == negative


def test_05up_rounds_away_from_zero_after_a_0_or_5() -> None:
    assert calculate("SOMA", "1.01", "0", precision=2, rounding="05up") == "1.1"
    assert calculate("SOMA", "1.51", "0", precision=2, rounding="05up") == "1.6"


@pytest.mark.parametrize("precision", [1, 2, 9, 34, 35, 50, 1000])
def test_each_precision_has_its_digits(precision: int) -> None:
    assert calculate("DIV", "1", "3", precision=precision) == "0." + "3" * precision


@pytest.mark.parametrize(
    ("name", "operands", "result"),
    [
        # no exponent where the first digit is within 34 places of the point
        ("MUL", "1e-17 1e-17", "0." + "0" * 33 + "1"),
        ("MUL", "1e-17 1.5e-17", "0." + "0" * 33 + "15"),
        ("MUL", "1e-17 1e-18", "1E-35"),
        ("MUL", "1e-17 1.50e-18", "1.50E-35"),
        ("SOMA", "2e3 0e3", "2000"),
        ("MUL", "1.5e20 2", "300000000000000000000"),
        ("MUL", "1e33 1", "1" + "0" * 33),
        ("MUL", "1e33 10", "1.0E+34"),
        ("MUL", "9" * 34 + " 1", "9" * 34),
        ("MUL", "1e6144 1", "1." + "0" * 33 + "E+6144"),
        # the quantum stays where no digits were dropped
        ("SOMA", "1.50 1.50", "3.00"),
        ("MUL", "100 1.1", "110.0"),
        ("DIV", "2.40 2", "1.20"),
        ("SOMA", "1" + 33 * "0" + " 0", "1" + 33 * "0"),
        # zeros that rounding has left go
        ("POT", "4 0.5", "2"),
        ("SOMA", "9." + 33 * "9" + " 1e-33", "10"),
        ("MUL", "1e6144 1." + 33 * "0" + "1", "1E+6144"),
        ("DIV", "1e-6143 3", "3.33333333333333333333333333333333E-6144"),
        ("SOMA", "1." + 40 * "0" + " 0", "1"),
        ("SOMA", "1" + 34 * "0" + ".0 0", "1E+34"),
        # not those that rounding was asked for
        ("ROUND", "2.999 2", "3.00"),
        ("ROUND", "12345 -2", "12300"),
        # zero has no sign and no exponent, and at most 34 places
        ("MUL", "0 -5", "0"),
        ("ROUND", "-0.004 2", "0.00"),
        ("MUL", "0e-30 1e-4", "0." + 34 * "0"),
        ("MUL", "0e-30 1e-5", "0." + 34 * "0"),
        ("MUL", "0e30 1", "0"),
        ("MUL", "1e-4000 1e-4000", "0"),
    ],
)
def test_plain_notation_is_the_same_on_every_path(name: str, operands: str, result: str) -> None:
    assert calculate(name, *operands.split(), notation="plain") == result
    assert ask(f"{name} {operands}") == [result]
    assert ask(f"{name} {operands}", fast=False) == [result]


def ask(line: str, fast: bool = True) -> list[str]:
    session = new_session(on_request=None if fast else lambda *_: None)
    return answered(session, f"{line}\n".encode()).decode().splitlines()


def test_a_precision_beyond_34_is_plain_as_far_as_it_goes() -> None:
    assert calculate("SOMA", "9" * 34, "1", precision=50, notation="plain") == "1" + "0" * 34
    assert calculate("MUL", "1e48", "10", precision=50, notation="plain") == "1" + "0" * 49
    assert calculate("MUL", "1e49", "10", precision=50, notation="plain") == "1.0E+50"
    assert calculate("MUL", "1e33", "1", precision=5, notation="plain") == "1" + "0" * 33
    assert calculate("MUL", "1e34", "1", precision=5, notation="plain") == "1E+34"


numbers = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=40),
        st.one_of(st.integers(-60, 60), st.integers(-6300, 6300)),
    ),
)


@given(
    st.sampled_from(["SOMA", "ADD", "SUB", "MUL", "DIV"]),
    numbers,
    numbers,
    st.sampled_from([1, 7, 34, 50]),
    st.sampled_from(sorted(ROUNDINGS)),
)
def test_results_are_the_decimal_modules(
    name: str, left: Decimal, right: Decimal, precision: int, rounding: str
) -> None:
    method = {"SOMA": "add", "ADD": "add", "SUB": "subtract", "MUL": "multiply", "DIV": "divide"}
    context = decimal.Context(
        precision, ROUNDINGS[rounding], EMIN, EMAX, 1, 1, [], [decimal.Overflow]
    )
    expected = Decimal("NaN")
    try:
        expected = getattr(context, method[name])(left, right)
    except decimal.Overflow:
        assert calculate(name, str(left), str(right), precision=precision, rounding=rounding) == (
            "OVERFLOW"
        )
        return
    result = calculate(name, str(left), str(right), precision=precision, rounding=rounding)
    if expected.is_finite():
        assert result == str(expected)
        plain = calculate(
            name, str(left), str(right), precision=precision, rounding=rounding, notation="plain"
        )
        assert Decimal(plain) == expected
        assert is_plain(plain, expected, precision, context.flags[decimal.Rounded])
    else:
        assert result in ("DIVISION-BY-ZERO", "DIVISION-UNDEFINED")


def is_plain(text: str, result: Decimal, precision: int, rounded: bool) -> bool:
    """Say whether a text is in the plain notation."""
    if not result:
        return re.fullmatch(r"0(\.0{1,34})?", text) is not None
    has_exponent = not -34 <= result.adjusted() < max(34, precision)
    expected = result.normalize(Context(1000)) if rounded else result
    if not has_exponent and expected == expected.to_integral_value() and "." not in text:
        expected = expected.quantize(Decimal(1), context=Context(1000))
    return has_exponent == ("E" in text) and Decimal(text).as_tuple() == expected.as_tuple()


@given(numbers, numbers)
def test_a_sum_is_right_to_the_last_digit(left: Decimal, right: Decimal) -> None:
    """Against rational arithmetic, which shares nothing with the decimal module."""
    result = calculate("SOMA", str(left), str(right))
    if result == "OVERFLOW":
        return
    got = Decimal(result)
    exact = Fraction(left) + Fraction(right)
    half_a_unit = Fraction(10) ** int(got.as_tuple().exponent) / 2
    assert abs(Fraction(got) - exact) <= half_a_unit


@given(numbers)
def test_a_number_printed_reads_back_the_same(number: Decimal) -> None:
    plain, scientific = Arithmetic(50), Arithmetic(50, notation="scientific")
    assert plain.number(plain.text(number)) == number
    assert scientific.number(scientific.text(number)).as_tuple() == number.as_tuple()
    assert scientific.text(number) == str(number)


# pi, against another formula than the one that the core uses


def pi_by_gauss(digits: int) -> str:
    """Return pi, cut after so many digits: 48 atan(1/18) + 32 atan(1/57) - 20 atan(1/239)."""
    one = 10 ** (digits + 20)

    def arctangent(divisor: int) -> int:
        total, power, number = 0, one // divisor, 1
        while power:
            total += power // number
            power, number = -power // divisor**2, number + 2
        return total

    scaled = 48 * arctangent(18) + 32 * arctangent(57) - 20 * arctangent(239)
    text = str(scaled)
    return f"{text[0]}.{text[1:digits]}"


@pytest.mark.parametrize("digits", [1, 2, 34, 999, 1000])
def test_pi_is_right_to_the_last_digit(digits: int) -> None:
    pi = new_session(digits, "down")
    assert answered(pi, b"= pi\n").decode().rstrip("\n") == pi_by_gauss(digits).rstrip(".")
