"""How long one client can make the others wait: by one line, and by one read."""

import re
import time
from decimal import Decimal

import pytest
from sessions import answered, new_session

from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError
from calcd.core.operations import ARITHMETIC, Operation
from tests.performance import worst_case

# Seconds of this thread's own time, so that a busy machine does not matter much. Without a limit
# for a line, the candidates have some that take several; without one for a call, a minute.
MOST_FOR_LINE = 0.5
MOST_FOR_CALL = 0.01
READ = 1 << 16
UNIT = 0.05e-6  # seconds that a cost of 1 stands for


@pytest.mark.speed
@pytest.mark.timeout(180)
def test_no_line_and_no_read_takes_long() -> None:
    found = worst_case.search(2.0)
    assert len(found) > 3000
    assert found[0].expensive < MOST_FOR_LINE, found[0]
    worst = max(found, key=lambda each: each.cheap)
    assert worst.cheap < MOST_FOR_CALL, worst


@pytest.mark.speed
def test_a_logarithm_that_is_nearly_half_way_takes_no_longer_than_a_line_may() -> None:
    session = new_session(1000)
    begun = time.thread_time()
    replies = answered(session, b"LN 0." + 999 * b"9" + b"\n")
    took = time.thread_time() - begun
    assert replies == b"-1." + 998 * b"0" + b"1E-999\n"
    assert took < MOST_FOR_LINE


OPERANDS = {
    1: ["2", "1.{}", "0.{}", "{}", "1e-9", "450"],
    2: ["{} {}", "1.{} 0.{}", "1.{} 12345", "{} 3", "1.0000000001 1e10", "1e900 7", "2 5"],
}


@pytest.mark.speed
@pytest.mark.parametrize("operation", ARITHMETIC, ids=lambda operation: operation.names[0])
def test_no_estimate_of_cost_is_far_too_low(operation: Operation) -> None:
    for precision in (34, 100, 300, 1000):
        for length in (precision, 1000):
            for operands in OPERANDS[operation.min_operands]:
                numbers = [Decimal(each.format(length * "7")) for each in operands.split()]
                arithmetic = Arithmetic(precision)
                took = []
                for _ in range(3):
                    arithmetic.budget.start_call()
                    begun = time.thread_time()
                    try:
                        arithmetic.run(operation, numbers)
                    except RequestError:
                        continue
                    took.append(time.thread_time() - begun)
                # Twice is what is meant; the rest is for a machine that does other things.
                if took:
                    most = 20e-6 + 5 * UNIT * arithmetic.budget.spent
                    assert min(took) < most, (precision, operands)


def test_a_line_that_would_be_too_expensive_is_refused() -> None:
    session = new_session(1000)
    replies = answered(session, b"= " + b"+".join(60 * [b"exp(1/3)"]) + b"\nPING\n")
    assert re.fullmatch(rb"ERR INVALID-OPERATION the request takes too long.*\nPONG\n", replies)


@pytest.mark.parametrize(
    "line",
    [
        *("LN 2", "EXP 1", "POT 2 0.5", "= pi*pi", "= e", "LOG 2", "RAIZ 2", "FAT 1000", "1+"),
        *("1+1", "MAX 1 2", "x = 1", "VARS", "HELP", "PRECISION 9", "EXACT off", "SOMA 1", "x"),
        *("UPPER a", "PING", "CLEAR", "DIV 1 0", "DIV 1 3", "ARRED 1 2000", " ", ""),
        *("= " + "(" * 50 + "1" + ")" * 50, "SOMA" + " 1" * 500, "= " + "1+" * 500 + "1"),
    ],
)
@pytest.mark.parametrize("precision", [34, 1000])
def test_a_read_full_of_lines_is_answered_in_pieces(line: str, precision: int) -> None:
    session = new_session(precision)
    many = READ // (len(line) + 1)
    replies = session.receive(many * (line.encode() + b"\n")).count(b"\n")
    for _ in range(10):
        if not session.pending:
            break
        before = session.counters.lines
        more = session.resume().count(b"\n")
        done = session.counters.lines - before
        assert done or session.budget.expensive  # else nothing would ever come of it
        assert not line.strip() or done == more
        replies += more
    if not session.pending:
        assert replies == (many if line.strip() else 0)


def test_an_expensive_line_waits_for_a_call_of_its_own() -> None:
    session = new_session(1000)
    expensive = b"= ln(2)+ln(3)\n"
    assert session.receive(b"PING\n" + 3 * expensive + b"PING\nSOMA 1") == b"PONG\n"
    assert session.budget.expensive
    replies, was_expensive = [], []
    while session.pending:
        was_expensive.append(session.budget.expensive)
        replies.append(session.resume())
    assert [reply[:5] for reply in replies if reply] == [*3 * [b"1.791"], b"PONG\n"]
    assert sum(was_expensive) == 3  # each in a turn of its own
    assert session.receive(b" 2\n") == b"3\n"
