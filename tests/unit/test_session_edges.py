"""A session at its edges: the longest line, what telnet sends by itself, lines that cost much."""

import pytest
from sessions import answered, new_session

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
