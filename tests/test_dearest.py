"""How long one client can make the others wait: by one line, and by one read."""

import re
import time

import dearest
import pytest

from calcd.arithmetic import Arithmetic
from calcd.session import Session

# Seconds of this thread's own time, so that a busy machine does not matter much. Without a limit
# for a line, the candidates have some that take several; without one for a read, a minute.
MOST_FOR_LINE = 1.0
MOST_FOR_READ = 0.1
READ = 1 << 16


def test_no_line_is_too_dear() -> None:
    found = dearest.search(1.0)
    assert len(found) > 150
    assert found[0].dearest < MOST_FOR_LINE, found[0]
    assert max(each.receive for each in found) < MOST_FOR_READ


def test_a_line_that_would_be_too_dear_is_refused() -> None:
    session = Session(Arithmetic(1000))
    replies = session.receive(b"= " + b"+".join(60 * [b"exp(1/3)"]) + b"\nPING\n")
    while session.unanswered:
        replies += session.go_on()
    assert re.fullmatch(rb"ERR INVALID-OPERATION this takes too long .*\nPONG\n", replies)


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
    session = Session(Arithmetic(precision))
    many = READ // (len(line) + 1)
    begun = time.thread_time()
    replies = session.receive(many * (line.encode() + b"\n")).count(b"\n")
    assert time.thread_time() - begun < MOST_FOR_READ
    for _ in range(5):
        if not session.unanswered:
            break
        before = len(session.unanswered)
        more = session.go_on().count(b"\n")
        assert more >= 1
        assert before - len(session.unanswered) == more * (len(line) + 1)
        replies += more
    if not session.unanswered:
        assert replies == (many if line.strip() else 0)


def test_what_is_dear_waits_for_its_turn() -> None:
    session = Session(Arithmetic(1000))
    dear = b"= ln(2)+ln(3)\n"
    assert session.receive(b"PING\n" + 3 * dear + b"PING\nSOMA 1") == b"PONG\n"
    replies = [session.go_on() for _ in range(4)]
    assert [reply[:5] for reply in replies] == [*3 * [b"1.791"], b"PONG\n"]
    assert not session.unanswered
    assert session.receive(b" 2\n") == b"3\n"
