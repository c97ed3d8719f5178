"""The specification's own cases, asked of a daemon: by name, and as expressions."""

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import pytest
from decimaltest import Case, all_cases, directory
from helpers import ALL_JOBS, TIMEOUT, daemons_in, read_all

from calcd.core.decimal128 import EMAX, EMIN, MAX_PRECISION, ROUNDINGS

MAX_LINE = 1 << 16

# What each operation of the cases is here, in all its spellings; and to the decimal module.
SPELLED: dict[str, tuple[str, ...]] = {
    "abs": ("ABS {}", "= abs({})"),
    "add": ("SOMA {} {}", "= {} + {}"),
    "compare": ("COMP {} {}", "= cmp({}, {})"),
    "divide": ("DIV {} {}", "= {} / {}"),
    "divideint": ("QUOC {} {}", "= idiv({}, {})", "= {} // {}"),
    "exp": ("EXP {}", "= exp({})"),
    "ln": ("LN {}", "= ln({})"),
    "log10": ("LOG {}", "= log10({})"),
    "max": ("MAX {} {}", "= max({}, {})"),
    "min": ("MIN {} {}", "= min({}, {})"),
    "minus": ("NEG {}", "= -({})"),
    "multiply": ("MUL {} {}", "= {} * {}"),
    "plus": ("= +({})",),
    "power": ("POT {} {}", "= ({}) ^ {}", "= ({})**{}"),
    "quantize": ("ARRED {} {}", "= round({}, {})"),
    "reduce": ("REDUZ {}",),
    "remainder": ("RESTO {} {}", "= {} % ({})", "= {} mod {}"),
    "squareroot": ("RAIZ {}", "= sqrt({})"),
    "subtract": ("SUB {} {}", "= {} - {}"),
}
METHODS = {"divideint": "divide_int", "reduce": "normalize", "squareroot": "sqrt"}

NOT_FINITE = "operands not finite"
OTHER_LIMITS = "other limits of exponents"
OTHER_PRECISION = "precision not from 1 to 1000"
LIMITED = "limits of operands that calcd does not have"
IMPOSSIBLE = "remainders that the specification has no result for"
MODULUS = "power by a modulus"

# How many cases must have been asked at the least, lest a test that asks for none passes.
LEAST = {
    "abs": 200,
    "add": 4700,
    "compare": 2400,
    "divide": 2300,
    "divideint": 1600,
    "exp": 370,
    "ln": 390,
    "log10": 370,
    "max": 500,
    "min": 490,
    "minus": 160,
    "multiply": 1500,
    "plus": 170,
    "power": 4200,
    "quantize": 1700,
    "reduce": 380,
    "remainder": 1700,
    "squareroot": 3300,
    "subtract": 2000,
}

_FINITE = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


@pytest.fixture(scope="module", params=["", ALL_JOBS], ids=["as it is", "by workers"])
def connect(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], socket.socket]]:
    """Give a daemon that takes long lines, as a way to connect to it."""
    with daemons_in(tmp_path_factory.mktemp("decimaltest")) as start:
        daemon = start("--max-line", str(MAX_LINE), code=request.param)
        yield daemon.connect


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    if (found := directory()) is None:
        pytest.skip("no Python here has its test package, which has the cases")
    return all_cases(found)


def outcome(case: Case, limits: tuple[int, int, int]) -> tuple[str, ...]:
    """Give what the decimal module makes of a case with these limits of exponents."""
    largest, smallest, clamp = limits
    rounding = ROUNDINGS[case.rounding]
    context = Context(case.precision, rounding, smallest, largest, 1, clamp, [], [])
    method = getattr(context, METHODS.get(case.operation, case.operation))
    result = method(*map(Decimal, case.operands))
    signals = (InvalidOperation, DivisionByZero, Overflow)
    return str(result), *(signal.__name__ for signal in signals if context.flags[signal])


@cache  # each case is asked in two sessions
def left_out(case: Case) -> str:
    """Say why a case is not asked; ``""`` if it is."""
    if len(case.operands) == 3:
        return MODULUS
    if not all(_FINITE.fullmatch(operand) for operand in case.operands):
        return NOT_FINITE
    if not 1 <= case.precision <= MAX_PRECISION:
        return OTHER_PRECISION
    if "invalid_context" in case.conditions or case.name in ("powx4008", "powx4010", "powx4012"):
        return LIMITED
    if case.operation == "remainder" and "division_impossible" in case.conditions:
        return IMPOSSIBLE
    if outcome(case, case.limits) != outcome(case, (EMAX, EMIN, 1)):
        return OTHER_LIMITS
    return ""


def places(case: Case) -> int:
    """Give the decimal places that the second operand of ``quantize`` asks for."""
    return -int(Decimal(case.operands[1]).as_tuple().exponent)


def asked(case: Case) -> list[str]:
    """Spell a case in every way that it can be asked."""
    operands = case.operands
    if case.operation == "quantize":
        operands = (operands[0], str(places(case)))
    return [spelling.format(*operands) for spelling in SPELLED[case.operation]]


def right(case: Case) -> str:
    """Say what is to be replied: the code of an error, else a number."""
    if "division_by_zero" in case.conditions:
        return "DIVISION-BY-ZERO"
    if "division_undefined" in case.conditions:
        return "DIVISION-UNDEFINED"
    if "overflow" in case.conditions:
        return "OVERFLOW"
    # To the specification these are any invalid operation, and an infinity.
    is_integer_division = case.operation in ("remainder", "divideint")
    if is_integer_division and Decimal(case.operands[1]) == 0:
        return "DIVISION-BY-ZERO"
    if case.operation == "power" and "infinity" in case.expected.lower():
        return "DIVISION-BY-ZERO"
    # There is no infinity here, where the specification makes one without a condition: ln(0).
    if "infinity" in case.expected.lower() or "nan" in case.expected.lower():
        return "INVALID-OPERATION"
    return case.expected


def is_right(reply: str, expected: str) -> bool:
    """Compare to the letter: ``expected`` is a code, a word or a number in any notation."""
    if _FINITE.fullmatch(expected):
        expected = str(Decimal(expected))
    return reply == expected or reply.split(" ")[:2] == ["ERR", expected]


def is_exact_power(base: str, exponent: str, power: str) -> bool:
    """Say whether a power is the true one: to the specification all but whole ones are inexact."""
    fraction = Fraction(exponent)
    return Fraction(power) ** fraction.denominator == Fraction(base) ** fraction.numerator


def ask_ahead(connection: socket.socket, requests: list[str]) -> list[str]:
    """Send all requests without waiting for a reply; give the replies."""

    def send() -> None:
        connection.sendall("".join(f"{request}\n" for request in requests).encode())
        connection.shutdown(socket.SHUT_WR)

    with connection, ThreadPoolExecutor(1) as sender:
        sent = sender.submit(send)
        replies = read_all(connection).decode().splitlines()
        sent.result(TIMEOUT)
    return replies


class Asked(NamedTuple):
    """A request, what its reply must be, and the case that says so."""

    request: str
    right: str
    case: Case | None = None


def requests_for(cases: Iterable[Case], exact: bool) -> Iterator[Asked]:
    """Spell the cases, and before them what sets their precision and rounding.

    ``exact``: in a session that makes errors of results that would be rounded.
    """
    yield Asked("NOTATION scientific", "scientific")
    switch = "on" if exact else "off"
    yield Asked(f"EXACT {switch}", switch)
    context = (0, "")
    for case in cases:
        if context != (context := (case.precision, case.rounding)):
            yield Asked(f"PRECISION {case.precision}", str(case.precision))
            yield Asked(f"ROUNDING {case.rounding}", case.rounding)
        expected = right(case)
        if exact and "inexact" in case.conditions and expected == case.expected:
            expected = case.expected if case.operation == "quantize" else "INEXACT"
        for request in asked(case)[: 1 if exact else None]:
            yield Asked(request, expected, case)


@pytest.mark.parametrize("exact", [False, True], ids=["rounded", "exact"])
@pytest.mark.parametrize("operation", SPELLED)
def test_every_case_is_answered_as_it_says(
    operation: str,
    exact: bool,
    cases: list[Case],
    connect: Callable[[], socket.socket],
    record_property: Callable[[str, object], None],
) -> None:
    out: Counter[str] = Counter()
    held = []
    for case in cases:
        if case.operation == operation:
            if reason := left_out(case):
                out[reason] += 1
            else:
                held.append(case)
    requests = list(requests_for(held, exact))
    replies = ask_ahead(connect(), [each.request for each in requests])
    assert len(replies) == len(requests)
    wrong = []
    for each, reply in zip(requests, replies, strict=True):
        right = each.right
        if right == "INEXACT" and each.case and _FINITE.fullmatch(reply):
            base, exponent = each.case.operands
            assert is_exact_power(base, exponent, reply)
            right = each.case.expected
        if not is_right(reply, right):
            wrong.append(f"{each.case}: {each.request[:200]} -> {reply[:200]}, not {right[:200]}")
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong[:40])
    assert len(held) >= LEAST[operation]
    if not exact:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(out.items()))
        line = f"decimal test cases, {operation}: {len(held):,} right; left out: {reasons}"
        record_property("load", line)


@pytest.mark.parametrize(
    ("reply", "expected", "same"),
    [
        ("2.50", "2.50", True),
        ("2.50", "2.5", False),
        ("-0", "0", False),
        ("2000", "2E+3", False),
        ("2E+3", "2e3", True),
        ("2e3", "2E+3", False),
        ("0.00", "0E-2", True),
        ("ERR OVERFLOW too large", "OVERFLOW", True),
        ("ERR INEXACT too long", "OVERFLOW", False),
        ("ERR OVERFLOW too large", "1", False),
    ],
)
def test_a_reply_is_right_to_the_digit_the_sign_and_the_quantum(
    reply: str, expected: str, same: bool
) -> None:
    assert is_right(reply, expected) == same
