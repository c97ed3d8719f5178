"""The session: bytes in, bytes out, whatever the bytes and wherever they are cut."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sessions import answered, finished, new_session

import calcd
from calcd.core.budget import CALL_LIMIT
from calcd.core.closing import CloseReason
from calcd.core.commands import TABLE
from calcd.core.job import run
from calcd.core.operations import Operation
from calcd.core.session import Session


def session(max_line: int = 1024) -> Session:
    return new_session(max_line=max_line)


def ask(*reads: bytes, max_line: int = 1024) -> bytes:
    """Give a session these reads, then the end of input; return all it replies."""
    fresh = session(max_line)
    return answered(fresh, *reads, b"")


def code(request: str) -> str:
    """Give the code of the error that a request is answered with."""
    reply = ask(request.encode() + b"\n").decode()
    found = re.fullmatch(r"ERR ([A-Z-]+) [^\n]+\n", reply)
    assert found, reply
    return found[1]


# Lines


def test_one_reply_for_each_request_in_order() -> None:
    assert ask(b"SOMA 2 2\nsub 5 3\nMUL 0.1 0.2\n") == b"4\n2\n0.02\n"


def test_a_reply_ends_as_its_request_did() -> None:
    assert ask(b"SOMA 2 2\r\nSUB 5 3\nPING\r\nPING\n") == b"4\r\n2\nPONG\r\nPONG\n"
    assert ask(b"SOMA 2 2\r\nSUB 5 3\r\n") == b"4\r\n2\r\n"


def test_blank_lines_get_no_reply() -> None:
    assert ask(b"\n \n\t\r\n\r\nSOMA 2 2\n\n") == b"4\n"
    assert ask(b"\n") == b""


def test_blanks_around_fields_do_not_count() -> None:
    assert ask(b"  SOMA\t 2   2 \t\n") == b"4\n"
    assert ask(b"\tping \r\n") == b"PONG\r\n"


def test_a_last_line_without_newline_is_a_request() -> None:
    assert ask(b"SOMA 2 2\nSUB 5 3") == b"4\n2\n"
    assert ask(b"SOMA 2 2\r") == b"4\n"


@pytest.mark.parametrize("inside", [b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0", b"\r", b"\x00"])
def test_only_spaces_and_tabs_separate(inside: bytes) -> None:
    assert ask(b"SUB 2" + inside + b"2\n").startswith(b"ERR WRONG-OPERANDS ")
    assert ask(b"SOMA 2 2" + inside + b" \n").startswith(b"ERR INVALID-NUMBER ")


def test_a_carriage_return_within_lines_that_end_in_crlf() -> None:
    assert ask(b"SOMA 1\r2 2\r\nSOMA 2 2\r\n").startswith(b"ERR INVALID-NUMBER ")


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("data", "replies"),
    [
        # Line ends
        (b"SOMA 2 2\r\r\nPING\nPING\r\r\n", b"4\r\nPONG\nPONG\r\n"),
        (b"SOMA 2 2\r\0PING\r\0\r\0", b"4\r\nPONG\r\n"),
        (b"PING\r\r\0PING\r\0\nPING\r\0\r\nPING\r\n\0", 4 * b"PONG\r\n"),
        (b"EXP 0.1\r\r\n", b"1.105170918075647624811707826490247\r\n"),
        # NUL
        (b"SOMA 2 2\0", b"4\n"),
        (b"SOMA 2 2\0\0\0\0", b"4\n"),
        (b"UPPER a\0", b"A\n"),
        (b"\0SOMA 1 1\n\0SOMA 2 2\r\n\0\0\0SUB 1 0\n\0", b"2\n4\r\n1\n"),
        (b"\0\0\n\0\r\n\0", b""),
        (b"PING\n\0\x04PING\n", b"PONG\n"),
        # A byte order mark
        (BOM + b"SOMA 2 2\n", b"4\n"),
        (BOM + b"SOMA 2 2", b"4\n"),
        (BOM + b"\0SOMA 2 2\r\0", b"4\r\n"),
        (BOM + b"\n" + b"SOMA 2 2\n", b"4\n"),
        (BOM + b"\x04PING\n", b""),
        (BOM, b""),
        # Blank lines and the like that begin as a PROXY header does
        (b"\r", b""),
        (b"\r\n\r\n", b""),
        (b"\r\n\r\nPING\n", b"PONG\n"),
        (b"\r\n\r\n\0\r\nQUIT", b"BYE\n"),
        (b"\r\n\r\n\0\r\nQUIT\r\nPING\n", b"BYE\r\n"),
    ],
)
def test_what_costs_nothing_is_taken(data: bytes, replies: bytes) -> None:
    assert ask(data) == replies
    assert ask(*(data[i : i + 1] for i in range(len(data)))) == replies


@pytest.mark.parametrize(
    "data",
    [
        b"SOMA 2\0 2\n",
        b"SOMA 2 2\0\n",
        b"SOMA 2 2\0\r\n",
        b" \0SOMA 2 2\n",
        b"\n" + BOM + b"SOMA 2 2\n",
        BOM + BOM + b"SOMA 2 2\n",
        BOM[:2],
        b"SOMA 1 1\r\r2\n",
        # a byte 255 that begins no telnet command
        b"SOMA 1 2\xff3\n",
        b"SOMA 1 2\xff\n",
        b"SOMA 1 2\xff",
        b"SOMA 1 2\xff\xff3\n",
        b"SOMA 1 2\xff\r\0",
        b"SOMA 1\xff\xeb 2\n",
    ],
)
def test_what_might_change_a_number_is_an_error(data: bytes) -> None:
    assert re.fullmatch(rb"ERR [A-Z-]+ [^\n]+\n", ask(data))
    assert ask(*(data[i : i + 1] for i in range(len(data)))) == ask(data)


# Other protocols

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
FOREIGN = {
    CloseReason.HTTP: [
        b"POST / HTTP/1.1\r\nHost: localhost:12000\r\n\r\n",
        b"GET /x HTTP/1.0\n",
        b"GET / HTTP/1.1\r\r\n",
        b"HEAD / HTTP/1.1",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT localhost:12000 HTTP/1.1\r\n",
        b"GET http://localhost:12000/ HTTP/1.1\r\n",
        b"M-SEARCH * HTTP/1.1\r\n",
        b"UPPER / HTTP/1.1\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\0POST / HTTP/1.1\r\n",
        BOM + b"POST / HTTP/1.1\r\n",
        b"\xff\xf1POST / HTTP/1.1\r\n",
    ],
    CloseReason.PROXY_HEADER: [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 12000\r\n",
        b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 12000\r\n",
        b"PROXY UNKNOWN\r\n",
        PROXY_V2 + b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\x2e\xe0",
        PROXY_V2 + b"\x20\0\0\0",
        PROXY_V2,
    ],
}
FORBIDDEN = {
    CloseReason.HTTP: b"ERR FORBIDDEN this is not an HTTP server\n",
    CloseReason.PROXY_HEADER: b"ERR FORBIDDEN a PROXY header is not accepted here\n",
}


@pytest.mark.parametrize(
    ("data", "reason"), [(data, reason) for reason, each in FOREIGN.items() for data in each]
)
def test_another_protocol_is_told_so_and_nothing_of_it_is_done(
    data: bytes, reason: CloseReason
) -> None:
    stream = data + (b"SOMA 2 2\n" if data.endswith(b"\n") else b"")
    for size in (len(stream), 1, 2, 5):
        refused = session()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert answered(refused, *pieces, b"") == FORBIDDEN[reason]
        assert refused.close_reason is reason
        assert not refused.pending
        assert (refused.counters.requests, refused.counters.errors) == (1, 1)
        assert refused.receive(b"SOMA 2 2\n") == b""


@pytest.mark.parametrize(
    "line",
    [
        b"UPPER a HTTP/1.1",
        b"MAIUSCULA proxy HTTP/1.1",
        b"post / HTTP/1.1 x",
        b"POST / http/1.1",
        b"GET /",
        b"PROXY = 5",
        b"PROXY 1 2",
        b"proxy TCP4 1.1.1.1 2.2.2.2 1 2",
        b" PROXY UNKNOWN",
    ],
)
def test_what_only_looks_like_another_protocol_is_a_line(line: bytes) -> None:
    assert ask(line + b"\nPING\n").endswith(b"\nPONG\n")


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1\r\n", b"PROXY UNKNOWN\r\n", PROXY_V2[4:]])
def test_only_the_first_line_can_be_of_another_protocol(line: bytes) -> None:
    replies = ask(b"SOMA 1 1\n" + line + b"PING\n")
    assert replies.startswith(b"2\n")
    assert b"FORBIDDEN" not in replies


def test_a_client_that_sends_no_newline_may_be_of_another_protocol() -> None:
    silent = session()
    assert silent.receive(b"POST / HTTP/1.1") == b""
    assert silent.partial_line_is_request
    assert silent.flush_partial_line() == FORBIDDEN[CloseReason.HTTP]
    assert silent.close_reason is CloseReason.HTTP


@pytest.mark.parametrize(
    ("start", "begins"),
    [
        (b"\r", False),
        (b"\r\n\r\n", False),
        (b"\r\n\r\n\0\r\n", False),
        (b"\r\n\r\n\0\r\nQ", True),
        (BOM[:1], True),
        (BOM[:2], True),
        (BOM, False),
        (b"\0\0", False),
        (BOM + b"\0", False),
        (b"\0S", True),
    ],
)
def test_what_starts_a_line(start: bytes, begins: bool) -> None:
    started = session()
    assert started.receive(start) == b""
    assert started.has_partial_line == begins
    assert not started.partial_line_is_request
    assert not started.pending
    assert started.receive(b"\n\nPING\n").endswith(b"PONG\n")


# Operations


@pytest.mark.parametrize("name", ["SOMA", "soma", "Soma", "ADD", "add", "aDd"])
def test_names_are_case_insensitive(name: str) -> None:
    assert ask(f"{name} 2 2\n".encode()) == b"4\n"


def test_ping_version_quit() -> None:
    assert ask(b"PING\nversion\nQUIT\nPING\n") == f"PONG\ncalcd {calcd.__version__}\nBYE\n".encode()


def test_upper_takes_the_rest_of_the_line() -> None:
    assert ask("MAIUSCULA olá,  coração \n".encode()) == "OLÁ,  CORAÇÃO\n".encode()
    assert ask("upper\tstraße\r\n".encode()) == b"STRASSE\r\n"


def test_upper_of_a_text_that_would_read_as_an_error_is_one() -> None:
    assert code("UPPER err no") == "INVALID-TEXT"
    assert ask(b"UPPER err\nUPPER error no\nUPPER err\tno\n") == b"ERR\nERROR NO\nERR\tNO\n"


@pytest.mark.parametrize("operation", TABLE, ids=lambda operation: operation.names[0])
def test_help_of_each_operation_is_one_line_with_its_usage(operation: Operation) -> None:
    for name in operation.names:
        reply = ask(f"help {name.lower()}\n".encode()).decode()
        assert reply.startswith(name)
        assert reply.count("\n") == 1
        assert "ERR" not in reply


# Errors


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("SOMAR 2 2", "UNKNOWN-OPERATION"),
        ("2 2", "SYNTAX"),
        ("HELP ME", "UNKNOWN-OPERATION"),
        ("SOMA", "WRONG-OPERANDS"),
        ("SUB 1", "WRONG-OPERANDS"),
        ("SUB 1 2 3", "WRONG-OPERANDS"),
        ("PING 1", "WRONG-OPERANDS"),
        ("HELP SOMA SUB", "WRONG-OPERANDS"),
        ("UPPER", "WRONG-OPERANDS"),
        ("UPPER  \t", "WRONG-OPERANDS"),
        ("SOMA 1,5 2", "INVALID-NUMBER"),
        ("SOMA nan 2", "INVALID-NUMBER"),
        ("SOMA 1_0 2", "INVALID-NUMBER"),
        ("SOMA ٣ 2", "INVALID-NUMBER"),
        ("DIV 1 0", "DIVISION-BY-ZERO"),
        ("DIV 0 0", "DIVISION-UNDEFINED"),
        ("MUL 9e6144 9", "OVERFLOW"),
    ],
)
def test_each_error_has_its_code(request_: str, expected: str) -> None:
    assert code(request_) == expected


def test_the_words_of_an_error_say_what_to_do() -> None:
    assert b"SUB needs 2 operands, got 1: SUB minuend subtrahend" in ask(b"SUB 1\n")
    assert b"ADD needs at least 1 operand, got 0: ADD number [number...]" in ask(b"add\n")
    assert b"HELP takes at most 1 operand, got 2" in ask(b"HELP a b\n")
    assert b"'2,5' " in ask(b"SOMA 2,5 1\n")
    assert ask(b"UPPER \xfe\n") == b"ERR INVALID-TEXT '\\xfe' is not UTF-8\n"
    assert "unknown operation 'AÇÃO': see HELP" in ask("AÇÃO 2 2\n".encode()).decode()


def test_text_that_is_not_utf8() -> None:
    assert ask(b"UPPER ol\xe1\n").startswith(b"ERR INVALID-TEXT ")


def test_an_error_does_not_end_the_session() -> None:
    assert ask(b"FOO\nSOMA 2 2\n").endswith(b"\n4\n")


def test_a_bug_is_reported_and_costs_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> str:
        raise AssertionError("a bug")

    ping = next(row for row in TABLE if row.names == ("PING",))
    monkeypatch.setitem(ping.__dict__, "function", broken)
    bugs: list[str] = []
    buggy = new_session(on_bug=bugs.append)
    replies = buggy.receive(b"PING\nSOMA 2 2\n")
    assert replies.startswith(b"ERR INTERNAL ")
    assert replies.endswith(b"\n4\n")
    assert bugs == ["PING"]
    assert not buggy.close_reason


@pytest.mark.parametrize(("length", "shown"), [(40, "'{}'"), (41, "'{:.40}...'")])
def test_an_error_repeats_at_most_forty_characters(length: int, shown: str) -> None:
    name = "A" + (length - 1) * "B"
    assert shown.format(name) + ":" in ask(f"{name}\n".encode()).decode()


# Lines that are too long


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n", b"\r\0"])
def test_a_line_of_the_limit_is_answered(end: bytes) -> None:
    line = b"SOMA 0000000001 2"
    replied = b"3\n" if end == b"\n" else b"3\r\n"
    assert ask(line + end, max_line=len(line)) == replied
    assert ask(b"\xef\xbb\xbf" + b"\0" * 99 + line + end, max_line=len(line)) == replied
    assert ask(b"x" * 50 + end, max_line=len(line)).startswith(b"ERR LINE-TOO-LONG ")


def test_a_longer_line_ends_the_session_after_what_came_before() -> None:
    replies = ask(b"SOMA 2 2\nSOMA 1 " + b"1" * 2000 + b"\nSOMA 3 3\n")
    assert re.fullmatch(rb"4\nERR LINE-TOO-LONG [^\n]+\n", replies)


def test_a_line_too_long_is_told_before_it_ends() -> None:
    long = session(max_line=10)
    assert long.receive(b"SOMA 1 1111").startswith(b"ERR LINE-TOO-LONG ")
    assert long.close_reason is CloseReason.LINE_TOO_LONG
    assert long.receive(b"\nPING\n") == b""


def test_a_carriage_return_may_still_be_the_line_end() -> None:
    cr = session(max_line=8)
    assert cr.receive(b"SOMA 2 2\r") == b""
    assert cr.receive(b"\n") == b"4\r\n"
    twice = session(max_line=8)
    assert twice.receive(b"SOMA 2 2\r") == b""
    assert twice.receive(b"\r") == b""
    assert twice.receive(b"\n") == b"4\r\n"
    for more in (b"\r", b"2"):
        assert ask(b"SOMA 2 2\r\r", more, max_line=8).startswith(b"ERR LINE-TOO-LONG ")


def test_only_so_many_carriage_returns_are_the_line_ends() -> None:
    assert ask(b"PING\r") == b"PONG\n"
    for end in (b"\r\r", b"\r\r\r\n"):  # one may be where the line has no end, else two
        assert ask(end).startswith(b"ERR SYNTAX ")
        assert ask(b"SOMA 2 2" + end).startswith(b"ERR INVALID-NUMBER ")
    assert ask(b"UPPER a\r\r") == b"A\r\n"


def test_a_telnet_command_is_no_line_however_long() -> None:
    assert ask(b"\xff\xfa" + b"x" * 2000) == b""
    assert ask(b"\xff\xfa", 2000 * b"x", b"\xff\xf0PING\n") == b"PONG\n"


# Ends of a session


@pytest.mark.parametrize(
    ("data", "replies", "reason"),
    [
        (b"PING\nQUIT\nPING\n", b"PONG\nBYE\n", CloseReason.QUIT),
        (b"PING\n\x04PING\n", b"PONG\n", CloseReason.CTRL_D),
        (b"\x04", b"", CloseReason.CTRL_D),
        (b"PING\nSOM\xff\xf4\xff\xfd\x06A 2 2\n", b"PONG\n", CloseReason.INTERRUPTED),
        (b"UPPER a\x04b\n", b"A\x04B\n", None),
    ],
)
def test_what_ends_a_session(data: bytes, replies: bytes, reason: CloseReason | None) -> None:
    ending = session()
    assert ending.receive(data) == replies
    assert ending.close_reason is reason
    byte_by_byte = session()
    assert b"".join(byte_by_byte.receive(data[i : i + 1]) for i in range(len(data))) == replies
    assert byte_by_byte.close_reason is reason


def test_end_of_input_is_an_end() -> None:
    ended = session()
    assert ended.receive(b"") == b""
    assert ended.close_reason is CloseReason.CLOSED


def test_a_started_line_can_be_given_up() -> None:
    slow = session()
    slow.receive(b"PING\nSOMA 2")
    assert slow.has_partial_line
    told = b"ERR TIMEOUT the line was not completed in time: end it with a newline\n"
    assert slow.time_out() == told
    assert slow.close_reason is CloseReason.LINE_TIMEOUT
    assert (slow.counters.requests, slow.counters.errors) == (2, 1)


def test_nothing_is_sent_after_the_last_reply() -> None:
    ended = session()
    assert ended.receive(b"PING\nQUIT\n") == b"PONG\nBYE\n"
    assert ended.close() == b""


def test_a_read_of_many_plain_lines_has_the_reply_to_each() -> None:
    lines = b"".join(b"SOMA %d %d\n" % (number, number) for number in range(3000))
    assert answered(session(), lines) == b"".join(b"%d\n" % (2 * number) for number in range(3000))


@pytest.mark.parametrize("length", [1000, 5000, 10_000])
def test_plain_lines_of_any_length_have_their_replies(length: int) -> None:
    """A line may be longer than a block of lines that are split together."""
    line = b"SOMA 1 " + b"2".zfill(length) + b"\n"
    whole = b"SOMA 1 1\n" + line + b"SOMA 2 2\n"
    assert ask(whole, max_line=20_000) == b"2\n3\n4\n"


def test_a_character_starts_a_line_also_after_another() -> None:
    started = session()
    assert started.receive(b"PING\nX") == b"PONG\n"
    assert started.has_partial_line


def test_blanks_alone_do_not_start_a_line() -> None:
    blank = session()
    blank.receive(b" \t")
    assert not blank.has_partial_line
    assert not blank.partial_line_is_request


# Clients that never send a newline


@pytest.mark.parametrize(
    "request_",
    [
        b"SOMA 2 2",
        b"div 1 0",
        b"PING",
        b"HELP",
        b"UPPER a",
        b"SOMA 1,5 2",
        b"SOMA 1 2 3",
        b"SOMAR 2 2",
        b"SOMA 2 2\r",
        b"2*(3+4)",
        b"= 1)",
        b"SOMA 2 2\0",
        b"SOMA 2 2\0\0\0",
        b"\0SOMA 2 2\0",
        b"SOMA 2\0",
        b"FOO\0",
        b"2 e",
        b"5 mo 3",
    ],
)
def test_a_request_in_one_piece_is_complete(request_: bytes) -> None:
    silent = session()
    for _ in range(3):
        assert silent.receive(request_) == b""
        assert silent.partial_line_is_request
        assert silent.flush_partial_line() == ask(request_)
        assert not silent.has_partial_line


@pytest.mark.parametrize(
    "request_",
    [
        b"S",
        b"SUB",
        b"SUB 2",
        b"SUB 2 ",
        b"max (1",
        b"FOO",
        b"UPPER",
        b" ",
        b"2*(3+4",
        b"x =",
        b"= 2 *",
        b"2e",
        b"2+3e-",
        b"10 m",
        b"10mo",
        "2×".encode()[:-1],
    ],
)
def test_half_a_request_is_not_complete(request_: bytes) -> None:
    half = session()
    half.receive(request_)
    assert not half.partial_line_is_request


def test_a_long_request_after_a_telnet_command_is_complete() -> None:
    silent = session()
    assert silent.receive(b"\xff\xf1SOMA 1" + b"0" * 600 + b" 1") == b""
    assert not silent.pending
    assert silent.partial_line_is_request
    assert silent.flush_partial_line() == b"1E+600\n"


def test_a_telnets_sign_of_life_leaves_a_request_complete() -> None:
    silent = session()
    silent.receive(b"SOMA 2 2")
    silent.receive(b"\xff\xf1")
    assert silent.partial_line_is_request
    assert silent.flush_partial_line() == b"4\n"


def test_a_byte_order_mark_leaves_a_request_complete() -> None:
    for reads in ([BOM + b"SOMA 2 2"], [BOM, b"SOMA 2 2"], [BOM[:1], BOM[1:] + b"SOMA 2 2"]):
        silent = session()
        assert [silent.receive(read) for read in reads] == len(reads) * [b""]
        assert silent.partial_line_is_request
        assert silent.flush_partial_line() == b"4\n"


def test_nul_that_arrives_later_leaves_a_request_complete() -> None:
    silent = session()
    for request in (b"SOMA 2 2", b"\0SOMA 2 2"):
        for read in (request, b"\0\0", b"\0"):
            assert silent.receive(read) == b""
            assert silent.partial_line_is_request
        assert silent.flush_partial_line() == b"4\n"
    assert not silent.has_partial_line


def test_a_byte_255_at_the_end_of_a_request_is_no_part_of_the_next() -> None:
    silent = session()
    assert silent.receive(b"SOMA 1 2\xff") == b""
    assert silent.partial_line_is_request
    assert silent.flush_partial_line().startswith(b"ERR INVALID-NUMBER ")
    assert silent.receive(b"SOMA 1 2") == b""
    assert silent.flush_partial_line() == b"3\n"


def test_enter_of_a_telnet_that_sends_characters_ends_a_line() -> None:
    typed = session()
    assert typed.receive(b"\xff\xfd\x03\xff\xfd\x01") == b""
    replies = [typed.receive(bytes([byte])) for byte in b"SOMA 2 2\r\0"]
    assert replies == [b""] * 9 + [b"4\r\n"]


def test_a_request_in_several_pieces_is_not_complete() -> None:
    typed = session()
    for byte in b"SOMA 2 2":
        assert typed.receive(bytes([byte])) == b""
        assert not typed.partial_line_is_request
    assert typed.receive(b"\n") == b"4\n"


def test_after_the_first_newline_nothing_without_one_is_complete() -> None:
    framed = session()
    assert framed.receive(b"\nSOMA 2 2") == b""
    assert not framed.partial_line_is_request
    assert framed.receive(b"\n") == b"4\n"
    assert framed.receive(b"SOMA 2 2") == b""
    assert not framed.partial_line_is_request


# What the shell counts


def test_requests_errors_and_pings_are_counted() -> None:
    counted = session()
    counted.receive(b"SOMA 2 2\n\nFOO\nPING\nDIV 1 0\nPING\n" + b"MUL 2 2\n" * 10)
    counters = counted.counters
    assert (counters.requests, counters.errors, counters.pings) == (15, 2, 2)
    counted.receive(b"SOMA 1 " + b"1" * 2000)
    assert (counters.requests, counters.errors) == (16, 3)


def test_each_request_can_be_watched() -> None:
    seen: list[tuple[str, str]] = []
    watched = new_session(on_request=lambda *each: seen.append(each))
    assert watched.receive(b"SOMA 2 2\n\nFOO\r\n").startswith(b"4\nERR ")
    assert seen[0] == ("SOMA 2 2", "4")
    assert seen[1][0] == "FOO"
    assert len(seen) == 2


# Properties

requests = st.sampled_from(
    [
        *(b"SOMA 2 2", b"sub 5 3", b"Mul 0.1 0.2", b"DIV 1 3", b"DIV 1 0", b"ADD  1\t2 "),
        *(b"PING", b"HELP", b"UPPER ol\xc3\xa1", b"UPPER \xff\xfe", b"FOO", b"SOMA 1_0 2"),
        *(b"", b" ", b"\t", b"SOMA 2\xff\xf12 3", b"SOMA \xff\xfd\x061 1", b"soma 1\r2 2"),
        *(b"x" * 40, b"SOMA nan 1", b"SOMA 1 2 3", b"\xff", b"\xff\xfa", b"a\x04", b"QUIT"),
        *(b"SOMA 1 2\xff3", b"SOMA 1 2\0", b"\0\0PING", b"\0", b"\0\x04", b"\r", b"\r\r\r"),
        *(b"\0" * 40, b"PING" + b"\0" * 40, b"GET / HTTP/1.1", b"PROXY UNKNOWN", b"\xef\xbb"),
    ]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\r\n", b"\r\0", b"\n\0", b"\0"])
starts = st.sampled_from([b"", b"", b"", BOM, BOM[:2], BOM + BOM, PROXY_V2, PROXY_V2[:-1], b"\r\n"])
streams = st.one_of(
    st.tuples(
        starts, st.lists(st.tuples(requests, ends).map(b"".join), max_size=12).map(b"".join)
    ).map(b"".join),
    st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"\xff", b"\x04", b" ", b"5"])).map(b"".join),
    st.binary(max_size=120),
)


@given(streams, requests)
def test_every_cut_in_two_gives_the_same_replies(stream: bytes, last: bytes) -> None:
    stream += last
    whole = ask(stream, max_line=30)
    for cut in range(1, len(stream)):
        assert ask(stream[:cut], stream[cut:], max_line=30) == whole


@given(streams, st.data())
def test_any_cuts_give_the_same_replies(stream: bytes, data: st.DataObject) -> None:
    whole = ask(stream, max_line=30)
    assert ask(*(stream[i : i + 1] for i in range(len(stream))), max_line=30) == whole
    cuts = sorted(data.draw(st.lists(st.integers(1, max(1, len(stream))), max_size=8, unique=True)))
    pieces = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert ask(*filter(None, pieces), max_line=30) == whole


@given(
    st.one_of(st.binary(max_size=400), streams).map(
        lambda data: data.translate(None, b"\xff\x04").replace(b"PROXY", b"").replace(b"HTTP", b"")
    )
)
def test_any_bytes_get_one_reply_for_each_line_that_is_not_blank(data: bytes) -> None:
    if data.startswith(PROXY_V2):
        data = data[1:]
    replies = ask(data)
    text = re.sub(rb"\r\r?\0|\r\r\n", b"\r\n", data.removeprefix(BOM))
    text = re.sub(rb"(?m)^\0+|\0+\Z", b"", text)
    lines = [line for line in text.split(b"\n") if line.removesuffix(b"\r").strip(b" \t")]
    quit_at = next(
        (
            i
            for i, line in enumerate(lines, 1)
            if line.removesuffix(b"\r").strip(b" \t").upper() == b"QUIT"
        ),
        len(lines),
    )
    assert replies.count(b"\n") == quit_at
    assert b"ERR INTERNAL" not in replies


@given(st.binary(max_size=400))
def test_no_bytes_at_all_meet_a_bug(data: bytes) -> None:
    bugs: list[str] = []
    tried = new_session(on_bug=bugs.append)
    tried.receive(data)
    tried.receive(b"")
    assert not bugs
    assert tried.close_reason


odd_lines = st.tuples(
    st.sampled_from(["SOMA", "SUB", "MUL", "DIV", "soma", "Div", "PING", "UPPER", "INF", "", "1"]),
    st.lists(st.text("0123456789+-.eEnNaif_ ,;\t", max_size=6), max_size=4),
).map(lambda request: " ".join([request[0], *request[1]]))
plain_lines = st.tuples(
    st.sampled_from(["SOMA", "SUB", "MUL", "DIV", "soma", "Div", "SOMA SUB", "1 DIV", "", "1"]),
    st.lists(st.sampled_from(["1", "-.5", "3e-9", "0", "1e6144", "", "SOMA", "."]), max_size=4),
).map(lambda request: " ".join([request[0], *request[1]]))
sums = st.sampled_from(["SOMA 1 2", "DIV 1 3e-9", "mul 9e6144 9", "SUB 0.10 1", "DIV 0 0"])


@given(
    st.one_of(
        st.lists(odd_lines, max_size=6),
        # So many that they are worked out at once, in more than one group.
        st.tuples(
            st.lists(st.one_of(plain_lines, sums), max_size=6),
            st.integers(0, 100).map(lambda many: many * ["MUL 1.50 2"]),
            st.lists(plain_lines, max_size=3),
        ).map(lambda parts: [line for part in parts for line in part]),
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([34, 50]),
)
def test_the_fast_path_says_what_the_rules_say(lines: list[str], end: str, digits: int) -> None:
    stream = "".join(line + end for line in lines).encode()
    fast = new_session(digits)
    by_rules = new_session(digits, on_request=lambda *_: None)
    assert answered(fast, stream) == answered(by_rules, stream)
    assert fast.counters == by_rules.counters


@pytest.mark.parametrize(
    "lines", [b" 1 2 3\n", b"\nSOMA 1\n", b"\n\n\n\n", b"SOMA\n1 2\n\n", b"SOMA 1 2 SOMA 1\n\n"]
)
def test_fields_that_only_seem_to_be_those_of_sums_are_answered_by_lines(lines: bytes) -> None:
    by_rules = new_session(on_request=lambda *_: None)
    assert answered(session(), 100 * lines) == answered(by_rules, 100 * lines)


# How much a call does


def test_an_expensive_line_that_silence_ends_is_no_newline() -> None:
    silent = new_session(1000)
    for request, reply in (
        (b"SOMA 2 2", b"4\n"),
        (b"EXP 0.1234\r", b"1.13"),
        (b"SOMA 2 4", b"6\n"),
    ):
        assert silent.receive(request) == b""
        assert silent.partial_line_is_request
        replies = silent.flush_partial_line() + finished(silent)
        assert replies.startswith(reply)
        assert replies.endswith(b"\n")
        assert not replies.endswith(b"\r\n")
    assert silent.counters.lines == 0


def test_a_wrong_expression_without_a_newline_is_complete() -> None:
    wrong = session()
    wrong.receive(b"2+*2")
    assert wrong.partial_line_is_request
    reply = b"ERR SYNTAX column 3: expected a number, a name or a parenthesis, got '*'\n"
    assert wrong.flush_partial_line() == reply


def test_an_expensive_line_and_an_end_in_the_same_read_are_both_seen() -> None:
    line = b"EXP 0.1234\n"
    one = answered(new_session(1000), line)
    for end, how in (
        (b"\x04PING\n", CloseReason.CTRL_D),
        (b"\xff\xf4PING\n", CloseReason.INTERRUPTED),
    ):
        ending = new_session(1000)
        assert answered(ending, 3 * line + end) == 3 * one
        assert ending.close_reason is how


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"PRECISION 700\n",
                    b"LN 2\n",
                    b"EXP 0.1\n",
                    b"\xff\xf1",
                    b"\n",
                    b"1+1\n",
                    b"SOMA 1 2\n",
                ]
            ),
        ),
        max_size=200,
    ).map(b"".join),
    st.sampled_from([34, 1000]),
)
@example(18 * b"PRECISION 700\nLN 2\n", 34)  # 16 KiB, fifty times
def test_a_call_does_little(data: bytes, digits: int) -> None:
    """Whatever came: the rest stays pending, and changing the precision loses no count."""
    watched = new_session(digits)
    watched.receive(50 * data or b"\n")
    assert watched.budget.spent < 2 * CALL_LIMIT
    for _ in range(5):
        if not watched.pending:
            break
        if watched.job:
            watched.complete(run(watched.job))
        else:
            watched.resume()
        assert watched.budget.spent < 2 * CALL_LIMIT


def test_a_sum_of_many_powers_is_no_nesting() -> None:
    assert ask(b"+".join(60 * [b"2^2"]) + b"\n") == b"240\n"


def test_whether_a_long_line_is_complete_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr("calcd.core.interpreter.parse", lambda *_, **__: looks.append(1))
    long = session(max_line=1 << 20)
    long.receive(b"1+" * 30_000)
    for _ in range(5):
        assert long.partial_line_is_request
    assert len(looks) == 1


# At the edges

EXPENSIVE = b"EXP 0.1234\n"  # with 1000 digits


def padded(length: int) -> bytes:
    """Return a sum that has this many bytes, without its newline."""
    return b"SOMA 2 " + b"2".rjust(length - 7, b"0")


@pytest.mark.parametrize("more", [0, 1, 20], ids=["alone", "one more line", "twenty more"])
def test_a_sum_of_one_byte_more_than_the_limit_is_too_long(more: int) -> None:
    def replies(length: int) -> bytes:
        lines = padded(length) + b"\n" + more * b"SOMA 2 2\n"
        return answered(new_session(max_line=40), lines)

    assert replies(40) == b"4\n" + more * b"4\n"
    assert replies(41) == b"ERR LINE-TOO-LONG a line has at most 40 bytes\n"


TELNET = {"EOF": 236, "SUSP": 237, "ABORT": 238, "NOP": 241, "GA": 249}
OPTIONS = {"WILL": 251, "WONT": 252, "DO": 253, "DONT": 254}


@pytest.mark.parametrize("number", TELNET.values(), ids=TELNET.keys())
def test_a_telnet_command_within_a_line_leaves_no_byte(number: int) -> None:
    command = bytes((255, number))
    assert answered(new_session(), b"SO" + command + b"MA 2 2\n" + command) == b"4\n"


@pytest.mark.parametrize("number", OPTIONS.values(), ids=OPTIONS.keys())
def test_a_telnet_option_within_a_line_leaves_no_byte(number: int) -> None:
    for option in (1, 6, 10, 34):
        command = bytes((255, number, option))
        assert answered(new_session(), b"SO" + command + b"MA 2 2\n" + command) == b"4\n"


def test_expensive_lines_before_an_end_of_input_in_the_same_read_are_all_answered() -> None:
    one = answered(new_session(1000), EXPENSIVE)
    assert len(one) > 1000
    lines = 3 * EXPENSIVE + b"SOMA 2 2\n"
    assert answered(new_session(1000), lines + b"\x04SOMA 3 3\n") == 3 * one + b"4\n"
    assert answered(new_session(1000), lines + b"SOMA 3 3", b"") == 3 * one + b"4\n6\n"
