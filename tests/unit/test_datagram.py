"""One datagram of lines in, one datagram of replies out, without a socket."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session

import calcd
from calcd.core import datagram as module
from calcd.core.budget import BudgetExceeded
from calcd.core.datagram import MAX_SIZE, DatagramSession, fit, room_for
from calcd.core.decimal128 import Arithmetic
from calcd.core.job import run
from calcd.core.messages import PORTUGUESE

Server = tuple[int, str, int]  # precision, rounding, max_line

A_THIRD = b"0." + b"3" * 34 + b"\n"
TOO_LONG = b"ERR REPLY-TOO-LONG use TCP"
NOT_OVER_UDP = b"ERR NOT-OVER-UDP this reply could be taken for a request: use TCP\n"


def reply_to(
    asked: bytes, precision: int = 34, rounding: str = "half-even", max_line: int = 1024
) -> bytes:
    """Return the reply to a datagram, with time for all of it."""
    datagram = DatagramSession(asked, Arithmetic(precision, rounding), max_line)
    while datagram.pending:
        if datagram.job:
            datagram.complete(run(datagram.job))
        else:
            datagram.resume()
    return datagram.answer


# Replies


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (b"", b""),
        (b"\n", b""),
        (b" \t\r\n\n  ", b""),
        (b"SOMA 2 2\n", b"4\n"),
        (b"SOMA 2 2", b"4\n"),
        (b"SOMA 2 2\r\n", b"4\r\n"),
        (b"SOMA 2 2\r", b"4\n"),
        (b"SOMA 2 2\n\r\nDIV 1 3\r\nSUB 5 3", b"4\n" + A_THIRD[:-1] + b"\r\n2\n"),
        (b"SOMA 2 2\nQUIT\nSOMA 3 3\n", b"4\nBYE\n"),
        (b"SOMA 2 2\n\x04SOMA 3 3\n", b"4\n"),
        (b"DIV 1 0\n", b"ERR DIVISION-BY-ZERO division by zero\n"),
        (b"UPPER ol\xc3\xa1\r\nPING", NOT_OVER_UDP[:-1] + b"\r\nPONG\n"),
        (b"x = 1\nVARS\nCLEAR\nVARS", b"1\n" + NOT_OVER_UDP + b"OK\nno variables\n"),
        (b"HELP PING", b"PING: check that the server answers; PING -> PONG\n"),
        (b"UPPER pong", b"PONG\n"),
        (b"PONG", b""),
        (b"4\r\nno variables\n\nhalf-even\nERR X y", b""),
        (
            b"PONG\nPING",
            b"ERR UNKNOWN-OPERATION unknown operation 'PONG': did you mean PING?\nPONG\n",
        ),
        (b"\xff\xfd\x01PING\n", b"PONG\n"),
        (b"X" * 1025 + b"\nPING\n", b"ERR LINE-TOO-LONG a line has at most 1024 bytes\n"),
        (b"\xef\xbb\xbfSOMA 2 2\0", b"4\n"),
        (b"SOMA 2 2\r\0SUB 5 3\r\r\nPING\n\0", b"4\r\n2\r\nPONG\n"),
        (b"SOMA 1 2\xff", b"ERR INVALID-NUMBER '2\\xff' is not a decimal number\n"),
        (b"\xef\xbb\xbf4\n", b""),
        (b"4\0", b""),
        (b"\0004\r\r\n-1.5e3\0", b""),
        (b"GET / HTTP/1.1\r\n\r\nPING\n", b"ERR FORBIDDEN this is not an HTTP server\n"),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0PING\n",
            b"ERR FORBIDDEN a PROXY header is not accepted here\n",
        ),
        (b"ERR UNKNOWN-OPERATION\n", b""),
        (b"STATS\r\n", f"version={calcd.__version__}\r\n".encode()),
        (b"version=1.2.3 requests=4\r\n\0", b""),
        (b"4\nversion=", b""),
        (b"version = 1\nPING", b"ERR SYNTAX 'version' is a reserved name: choose another\nPONG\n"),
        (b"4\nERR DIVISION-BY-ZERO division by zero\n", b""),
    ],
)
def test_an_answer_has_a_line_for_each_request(asked: bytes, answered: bytes) -> None:
    assert reply_to(asked) == answered


def test_no_server_answers_what_another_has_counted() -> None:
    counted = {"requests": 3, "errors": 1, "errors.SYNTAX": 1, "loop_lag_seconds_sum": 0.125}
    session = DatagramSession(b"STATS", Arithmetic(), stats=counted.items)
    session.resume()
    told = "requests=3 errors=1 errors.SYNTAX=1 loop_lag_seconds_sum=0.125"
    assert session.answer == f"version={calcd.__version__} {told}\n".encode()
    assert session.counters.requests == 1
    assert reply_to(session.answer) == b""
    # Alone it would be an error over TCP: nobody who asks for something loses an answer.
    assert reply_to(b"PING\n" + session.answer).startswith(b"PONG\nERR SYNTAX ")


def test_the_settings_apply() -> None:
    assert reply_to(b"DIV 2 3", precision=3, rounding="down") == b"0.666\n"
    assert reply_to(b"PING\nSOMA 2 2", max_line=6).startswith(b"PONG\nERR LINE-TOO-LONG ")


_LINES = st.sampled_from(
    [
        b"SOMA 2 2",
        b"DIV 1 3",
        b"help",
        b"X",
        b"UPPER a",
        b" ",
        b"QUIT",
        b"\r",
        b"2+2",
        b"x = 3",
        b"4",
    ]
)


@given(st.binary(max_size=3000) | st.lists(_LINES, max_size=1000).map(b"\n".join))
def test_any_datagram_is_answered_within_its_bound(asked: bytes) -> None:
    answered = reply_to(asked)
    assert len(answered) <= room_for(len(asked)) <= MAX_SIZE
    assert answered[-1:] in (b"", b"\n")
    assert answered.count(b"\n") <= asked.count(b"\n") + asked.count(b"\r\0") + 1
    assert b"ERR INTERNAL" not in answered


@given(st.lists(_LINES, max_size=25).map(b"\n".join))
def test_an_answer_that_fits_is_that_of_a_connection(asked: bytes) -> None:
    replies = answered(new_session(), asked, b"")
    replies = re.sub(rb"^A$", NOT_OVER_UDP[:-1], replies, flags=re.MULTILINE)
    expected = replies if len(replies) <= room_for(len(asked)) else None
    if set(asked.split()) <= {b"4"}:  # that may be a server's answer
        expected = b""
    assert expected in (None, reply_to(asked))


_TEXTS = st.binary(max_size=30).map(lambda text: text.replace(b"\n", b""))
_ECHOES = st.one_of(
    _LINES,
    _TEXTS,
    _TEXTS.map(b"UPPER ".__add__),
    _LINES.map(b"UPPER ".__add__),
    st.sampled_from([b"VARS", b"HELP div", b"LANGUAGE pt", b"PRECISION 900", b"1/3", b"VERSION"]),
    st.sampled_from([b"ROUNDING up", b"EXACT on", b"UPPER 2+2", b"x = 1e-30", b"UPPER err x"]),
)
_SERVERS = st.tuples(
    st.sampled_from([1, 34, 1000]),
    st.sampled_from(["half-even", "up"]),
    st.sampled_from([10, 1024, 1 << 20]),
)


@given(
    st.lists(st.tuples(_ECHOES, st.sampled_from([b"\n", b"\r\n"])), max_size=40),
    st.sampled_from([b"", b"\n", b"\r", b"\r\n"]),
    _SERVERS,
    _SERVERS,
)
def test_the_answer_to_an_answer_is_empty(
    lines: list[tuple[bytes, bytes]], last_end: bytes, one: Server, other: Server
) -> None:
    """So two servers cannot be made to answer each other by a datagram in the name of one."""
    asked = b"".join(line + end for line, end in lines)
    asked = asked.rstrip(b"\r\n") + last_end
    assert reply_to(reply_to(asked, *one), *other) == b""


@pytest.mark.parametrize(
    ("asked", "room"),
    [(0, 1232), (7, 1232), (123, 1232), (124, 1240), (6550, 65_500), (6551, MAX_SIZE)],
)
def test_an_answer_is_small_or_bounded_by_its_question(asked: int, room: int) -> None:
    assert room_for(asked) == room


# Replies that do not fit


def test_every_single_result_fits() -> None:
    assert len(reply_to(b"DIV 1 3", precision=1000)) == 1003


def test_a_reply_that_does_not_fit_is_an_error_in_its_place() -> None:
    lines = reply_to(b"SOMA 1 1\nDIV 1 3\nDIV 2 3\r\nSOMA 2 2\n", precision=1000).splitlines(
        keepends=True
    )
    assert [len(line) for line in lines] == [2, 1003, len(TOO_LONG) + 2, 2]
    assert lines[2:] == [TOO_LONG + b"\r\n", b"4\n"]


def test_where_not_even_errors_fit_the_last_one_stands_for_the_rest() -> None:
    lines = reply_to(b"DIV 1 3\n" * 8000).splitlines(keepends=True)
    *answered, last = lines
    assert set(answered) == {A_THIRD}
    assert len(answered) > 1700
    rest = 8000 - len(answered)
    assert last == TOO_LONG + b", %d requests have no reply\n" % rest


def test_a_small_datagram_of_errors_is_not_made_a_large_one() -> None:
    asked = b"X\n" * 1000
    assert 10 * len(asked) - 100 < len(reply_to(asked)) <= 10 * len(asked)


_REPLIES = st.lists(
    st.builds(
        lambda size, end: b"x" * size + end,
        st.integers(1, 200),
        st.sampled_from([b"\n", b"\r\n"]),
    ),
    min_size=1,
    max_size=60,
)


def test_an_answer_of_mixed_line_ends_keeps_its_bound_to_the_byte() -> None:
    for lines in range(150, 175):
        for mixed in (b"X\nX\r\n", b"X\r\nX\n", b"X\nX\nX\r\n"):
            asked = (mixed * lines)[:lines]
            assert len(reply_to(asked)) <= room_for(len(asked))


@given(_REPLIES, st.integers(150, 10_000))
def test_what_fits_keeps_its_place_and_leaves_room_for_the_rest(
    replies: list[bytes], room: int
) -> None:
    fitting = fit(b"".join(replies), room)
    assert len(fitting) <= room
    lines = fitting.splitlines(keepends=True)
    if len(lines) == len(replies):
        for line, reply in zip(lines, replies, strict=True):
            assert line in (reply, TOO_LONG + reply.lstrip(b"x"))  # with its line end
    else:
        *first, last = lines
        assert first == replies[: len(first)]
        assert b", %d requests have no reply" % (len(replies) - len(first)) in last
        assert sum(min(len(reply), len(TOO_LONG) + 1) for reply in replies) > room - len(replies)


# Cost


def test_an_expensive_line_of_a_datagram_is_a_job() -> None:
    datagram = DatagramSession(b"PING\n" + b"EXP 0.1234\n" * 2 + b"PING", Arithmetic(400))
    jobs = 0
    while datagram.pending:
        if datagram.job:
            datagram.complete(run(datagram.job))
            jobs += 1
        else:
            datagram.resume()
    assert jobs == 2
    assert re.fullmatch(rb"PONG\n(1\.13\d+\n){2}PONG\n", datagram.answer)


def test_a_datagram_that_costs_too_much_has_no_reply() -> None:
    with pytest.raises(BudgetExceeded):
        reply_to(b"EXP 0.1234\n" * 9, precision=1000)
    assert reply_to(b"EXP 0.1234\n" * 8, precision=1000)


def test_a_datagram_is_dropped_once_its_lines_cost_more_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = 3000 * b"SOMA 2 2\n"
    one = DatagramSession(lines, Arithmetic())
    while one.pending:
        one.resume()
    monkeypatch.setattr(module, "_DATAGRAM_LIMIT", 0.9 * one._cost)
    assert reply_to(lines)
    monkeypatch.setattr(module, "_DATAGRAM_LIMIT", 0.5 * one._cost)
    with pytest.raises(BudgetExceeded):
        reply_to(lines)


def test_each_request_can_be_watched_as_it_is_replied() -> None:
    seen: list[tuple[str, str]] = []
    datagram = DatagramSession(
        b"SOMA 2 2\nUPPER a\n", Arithmetic(), on_request=lambda *each: seen.append(each)
    )
    datagram.resume()
    assert seen == [("SOMA 2 2", "4"), ("UPPER a", NOT_OVER_UDP[:-1].decode())]


def test_a_datagram_is_answered_in_the_language_of_the_settings() -> None:
    seen: list[str] = []
    datagram = DatagramSession(
        b"DIV 1 0\nVARS\nUPPER a\n",
        Arithmetic(),
        on_request=lambda _, reply: seen.append(reply),
        language=PORTUGUESE,
    )
    datagram.resume()
    assert datagram.answer.decode().splitlines() == seen
    assert [reply[:40] for reply in seen] == [
        "ERR DIVISION-BY-ZERO divisão por zero",
        "nenhuma variável",
        "ERR NOT-OVER-UDP esta resposta poderia s",
    ]


def test_as_many_replies_stay_as_leave_room_for_the_error_behind_them() -> None:
    replies = [b"%d" % number * 60 + b"\n" for number in range(10)]
    error = b"ERR REPLY-TOO-LONG use TCP, 7 requests have no reply\n"
    room = 3 * 61 + len(error)
    assert fit(b"".join(replies), room) == b"".join(replies[:3]) + error
    fewer = b"".join(replies[:2]) + error.replace(b"7", b"8")
    assert fit(b"".join(replies), room - 1) == fewer
    assert fit(b"".join(replies), len(error)) == b""


def test_a_reply_takes_the_room_that_errors_leave() -> None:
    reply, error = b"1" * 60 + b"\n", b"ERR REPLY-TOO-LONG use TCP\n"
    assert fit(reply * 3, 3 * len(error)) == error * 3
    assert fit(reply * 3, len(reply) + 2 * len(error) - 1) == error * 3
    assert fit(reply * 3, len(reply) + 2 * len(error)) == reply + error * 2


@pytest.mark.parametrize(
    "asked", [b"ERR X x\nSOMA 2 2\n", b"SOMA 2 2\nERR X x\n", b"SOMA 2 2\nERR X x\nSOMA 2 2"]
)
def test_no_request_beside_an_error_is_answered(asked: bytes) -> None:
    assert reply_to(asked) == b""


@pytest.mark.parametrize("asked", [b"2 2\n", b"PONG OK\n", b"1" * 5000])
def test_what_no_server_says_is_answered_with_an_error(asked: bytes) -> None:
    assert reply_to(asked).startswith(b"ERR ")


def test_a_call_with_a_higher_limit_does_more() -> None:
    datagram = DatagramSession(b"SOMA 2 2\n" * 500, Arithmetic())
    datagram.resume(1e6)
    assert not datagram.pending
    assert datagram.answer == b"4\n" * 500
