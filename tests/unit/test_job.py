"""Jobs: a line that another process answers has the same reply, and changes the same."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sessions import answered, finished, new_session

import calcd
from calcd.core import job as module
from calcd.core import session as session_module
from calcd.core.closing import CloseReason
from calcd.core.decimal128 import Arithmetic
from calcd.core.interpreter import Interpreter
from calcd.core.job import Job, Outcome, State, failure, job_of, run, update
from calcd.core.session import Session

NEW = State()

# No line is an expensive one that names no variable, but uses them all, unless it is long.
LONG = 5000 * " "

LINES = [
    *("x = 1/3", "y = x*3", "= x+y", "= ans", "ANS + 1", "SOMA ans x", "x", "EXP x", "RAIZ 2"),
    *("PRECISION 5", "PRECISION", "ROUNDING up", "EXACT on", "EXACT off", "LANGUAGE pt"),
    *(
        "DIV 1 0",
        "FOO",
        "= foo",
        "SOMA 1",
        "x =",
        "1e5=2",
        LONG + "VARS",
        LONG + "CLEAR",
        "PING",
        "HELP RAIZ",
    ),
    *(
        "UPPER ol\xc3\xa1",
        "UPPER \xff",
        "MAX 1 2 3",
        "-0",
        "1E+6144",
        "= 1e-6170",
        "",
        " \t",
        "QUIT",
    ),
    *("X_1 = -0.00", "= X_1", "pi", "= pi", "= 2^0.5", "LN 0", "ARRED 2.675 2", "y = y + 1"),
]


def all_jobs(session: Session) -> Session:
    """Make each line of a session a job."""
    session.budget.line_limit = -1
    return session


@given(
    st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(["\n", "\r\n"])), max_size=30),
    st.integers(1, 40),
)
@example([(line, "\n") for line in LINES], 1000)
def test_replies_are_the_same_if_each_line_is_a_job(
    lines: list[tuple[str, str]], size: int
) -> None:
    data = "".join(map("".join, lines)).encode("latin-1")
    cuts = [data[begin : begin + size] for begin in range(0, len(data), size)]
    here, there = new_session(max_line=6000), all_jobs(new_session(max_line=6000))
    with pytest.MonkeyPatch.context() as patch:
        expected = answered(here, *cuts, b"")
        patch.setattr(session_module, "PLAIN", b"")
        patch.setattr(session_module, "SHORT_LINE", -1)  # blank lines too
        assert answered(there, *cuts, b"") == expected
    assert there.counters == here.counters
    assert there.close_reason is here.close_reason
    mine, theirs = here.interpreter.context, there.interpreter.context
    for name in ("variables", "answer", "language"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert [str(value) for value in mine.variables.values()] == [
        str(value) for value in theirs.variables.values()
    ]


def test_a_job_has_the_variables_that_its_line_uses() -> None:
    session = new_session()
    answered(session, b"a = 1\nb = 2\nab = 3\n")
    context = session.interpreter.context
    assert job_of("= EXP(B) + abc", context).state.variables == {"b": "2"}
    assert job_of("= EXP(B)", context).state.more_variables == 2
    long = job_of("= " + "1+" * 3000 + "1", context).state
    assert (len(long.variables), long.more_variables) == (3, 0)


@pytest.mark.parametrize("line", [b"STATS" + 8000 * b" ", 8000 * b" \t" + b"stats "])
def test_stats_that_blanks_make_expensive_are_those_of_the_server(line: bytes) -> None:
    counted = [("requests", 7), ("loop_lag_seconds_sum", 0.5)]
    interpreter = Interpreter(Arithmetic(), stats=lambda: counted)
    session = Session(interpreter, max_line=1 << 15)
    assert session.receive(line + b"\n") == b""
    assert session.job
    told = f"version={calcd.__version__} requests=7 loop_lag_seconds_sum=0.5\n"
    assert finished(session) == told.encode()
    assert answered(session, b"SOMA 2 2\n") == b"4\n"


def test_the_limit_of_variables_counts_those_that_a_job_does_not_have() -> None:
    full = all_jobs(new_session())
    full.interpreter.context.variables = {f"v{number}": Decimal(1) for number in range(99)}
    replies = answered(full, b"x = 1\ny = 2\nx = 3\n").split(b"\n")
    assert replies[0] == b"1"
    assert replies[1].startswith(b"ERR TOO-MANY-NAMES there are already 100 variables")
    assert replies[2] == b"3"


def test_jobs_and_outcomes_are_one_line_of_ascii() -> None:
    job = Job(
        "UPPER \xff\n\x00'\"",
        State(9, "up", True, "plain", "pt", "1E+9", {"x": "-0.00"}, 7, (("a", 1),)),
    )
    outcome = Outcome(None, True, job.state, 3, True, "a\nb")
    for each in (job, outcome):
        text = each.to_json()
        assert text.isascii()
        assert b"\n" not in text
    assert Job.from_json(job.to_json()) == job
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert Outcome.from_json(Outcome("4", False).to_json()) == Outcome("4", False)


def test_a_refused_job_is_an_error_in_the_sessions_language() -> None:
    session = new_session(1000)
    assert answered(session, b"LANGUAGE pt\nx = 1\n") == b"pt\n1\n"
    assert session.receive(b"EXP 1\r\nSOMA 1 1\r\n") == b""
    why = "o servidor não pode atender este pedido demorado agora: tente de novo mais tarde"
    assert session.complete(None) == f"ERR OVERLOADED {why}\r\n2\r\n".encode()
    assert session.counters.errors == 1


def test_a_job_that_was_not_done_changes_nothing() -> None:
    session = new_session(1000)
    answered(session, b"x = 5\n")
    assert session.receive(b"x = exp(1)\n") == b""
    job = session.job
    assert job
    reply = session.complete(failure(job, "INTERNAL", "the process that worked on it was ended"))
    assert reply == b"ERR INTERNAL the process that worked on it was ended\n"
    assert answered(session, b"= x\n= ans\n") == b"5\n5\n"


def test_a_job_that_quits_ends_the_session() -> None:
    session = all_jobs(new_session())
    assert answered(session, b"QUIT\nSOMA 1 1\n") == b"BYE\n"
    assert session.close_reason is CloseReason.QUIT


def test_a_job_is_logged_with_its_reply() -> None:
    seen: list[tuple[str, str]] = []
    session = new_session(1000, on_request=lambda *each: seen.append(each))
    answered(session, b"FAT 3\nPING\n")
    assert seen == [("FAT 3", "6"), ("PING", "PONG")]


def test_nothing_is_answered_while_a_job_is_not_done() -> None:
    session = new_session(1000)
    assert session.receive(b"EXP 0\nPING\n") == b""
    assert session.pending
    assert session.resume() == b""
    assert session.job
    assert session.complete(run(session.job)) == b"1\nPONG\n"
    assert not session.pending


def test_an_outcome_without_a_job_is_ignored() -> None:
    session = new_session()
    assert session.complete(Outcome("4", False)) == b""
    assert session.counters.requests == 0


def test_a_job_without_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Interpreter, "_result", no_memory)
    outcome = run(Job("EXP 1", NEW))
    assert outcome.reply == "ERR INVALID-OPERATION the request takes too much memory: split it"
    assert outcome.is_error


def test_a_bug_comes_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interpreter, "_result", lambda *_: 1 / 0)
    outcome = run(Job("EXP 1", NEW))
    assert (outcome.reply or "").startswith("ERR INTERNAL ")
    assert "ZeroDivisionError" in outcome.bug


def test_an_outcome_restores_what_a_line_has_set() -> None:
    context = Interpreter(Arithmetic()).context
    job = Job("PRECISION 7", NEW)
    update(context, job, run(job))
    assert context.arithmetic.precision == 7
    assert context.arithmetic.budget is not None
    assert module.job_of("PRECISION", context).state.precision == 7
