"""How long one client can make the others wait: by one line, and by one read."""

import time
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from sessions import new_session

from calcd.core.job import run
from calcd.core.operations import ARITHMETIC, Operation
from tests.performance import worst_case

# Seconds of this thread's own time, so that a busy machine does not matter much. Without a limit
# for a call, the candidates have some that take a minute.
MOST_FOR_CALL = 0.01
MOST_FOR_LINE = 0.001  # in the serving loop; 0.5 ms is what is meant
_TRIES = 20  # of a line that seems slow: another program may have had the processor's cache
_REFERENCE = 0.0004  # seconds that ``reference`` takes on the machine of MOST_FOR_LINE
READ = 1 << 16
ROWS = [operation for rows in ARITHMETIC.values() for operation in rows]


@pytest.mark.speed
@pytest.mark.timeout(180)
def test_no_line_and_no_read_takes_long() -> None:
    found = worst_case.search(2.0)
    assert len(found) > 3000
    assert found[0].seconds < MOST_FOR_CALL, found[0]


OPERANDS = {
    1: ["2", "1.{}", "0.{}", "{}", "1e-9", "450", "1000", "0.{}e-30", "1e22", "1e150", "1e6000"],
    2: ["{} {}", "1.{} 0.{}", "1.{} 12345", "{} 3", "1.0000000001 1e10", "1e900 7", "2 5"],
}
OPERANDS[2] += ["1e999999999999999999 {}", "1000 500", "28000 14000", "0.{} -3", "1.{} 7"]


def lines(operation: Operation) -> Iterator[str]:
    """Yield requests of one operation and expressions of many, with all sorts of operands."""
    name = operation.names[0]
    for length in (1, 20, 34, 40, 41, 100, 300, 500):
        for operands in OPERANDS[operation.min_operands]:
            numbers = operands.format(length * "7", length * "3")
            yield f"{name} {numbers}"
            call = f"{name}({numbers.replace(' ', ',')})"
            for many in (2, 3, 4, 10, 1000 // len(call)):
                yield "= " + "+".join(many * [call])


def seconds(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def reference() -> None:
    """Do the kind of work that a line is, without any of calcd's code."""
    for number in range(1500):
        str(Decimal(f"{number}.25") * 3)


def seconds_for(line: str, precision: int) -> float:
    """Return the least seconds that a line takes: on a slow machine, those of the usual one."""

    def ask() -> None:
        session.receive(line.encode() + b"\n")

    least = slowness = 1e9
    for _ in range(_TRIES):
        session = new_session(precision)
        least = min(least, seconds(ask))
        if least < MOST_FOR_LINE:
            return least
        slowness = min(slowness, seconds(reference) / _REFERENCE)
    return least / max(1, slowness)


@pytest.mark.speed
@pytest.mark.timeout(180)
@pytest.mark.parametrize("operation", ROWS, ids=lambda operation: operation.names[0])
def test_what_stays_in_the_serving_loop_takes_little_time(operation: Operation) -> None:
    for precision in (1, 34, 40, 300, 1000):
        for line in lines(operation):
            assert seconds_for(line, precision) < MOST_FOR_LINE, (precision, line[:60])


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
        job = session.job
        more = (session.complete(run(job)) if job else session.resume()).count(b"\n")
        done = session.counters.lines - before
        assert done or session.job  # else nothing would ever come of it
        assert not line.strip() or done == more
        replies += more
    if not session.pending:
        assert replies == (many if line.strip() else 0)


@pytest.mark.speed
@pytest.mark.timeout(180)
def test_no_job_takes_longer_than_the_limit() -> None:
    limit = 0.05
    cases = [*[*worst_case.expensive_lines()][::3], *worst_case.giant_lines()]
    took = [worst_case.seconds_in_worker(case, limit) for case in cases]
    assert len(cases) > 60
    assert max(took) > limit
    assert max(took) < limit + 0.5  # 0.02 on a machine that does nothing else


def test_an_expensive_line_is_a_job() -> None:
    session = new_session(1000)
    expensive = b"= ln(2)+ln(3)\n"
    assert session.receive(b"PING\n" + 3 * expensive + b"PING\nSOMA 1") == b"PONG\n"
    replies, jobs = [], []
    while session.pending:
        assert session.job
        jobs.append(session.job)
        replies.append(session.complete(run(session.job)))
    assert [reply[:5] for reply in b"".join(replies).splitlines()] == [*3 * [b"1.791"], b"PONG"]
    assert len(jobs) == 3
    assert session.receive(b" 2\n") == b"3\n"
