"""Telnet commands, stripped from a stream of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcd.core.telnet import TelnetFilter


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"SOMA 2 2\n", b"SOMA 2 2\n"),
        (b"\xff\xfb\x01a", b"a"),  # WILL ECHO
        (b"a\xff\xfd\x06b", b"ab"),  # DO TIMING-MARK
        (b"a\xff\xf1b\xff\xf9c", b"abc"),  # NOP, GA
        (b"\xff\xfa\x18\x00xterm\n\xff\xf0a", b"a"),  # TERMINAL-TYPE, newline and all
        (b"\xff\xfa\x18\xff\xff\xf0\xff\xf0a", b"a"),  # an escaped 255 inside does not end it
        (b"a\xff\xffb", b"a\xffb"),  # IAC IAC is the byte 255
        (b"\xff\xff\xff\xff", b"\xff\xff"),
        (b"a\xff\nb\n", b"a\xff\nb\n"),  # IAC and no command: both bytes stay
        (b"1\xff2\xff\xeb3\xff\r\n", b"1\xff2\xff\xeb3\xff\r\n"),
        (b"\xff\xff2\xff\xff\xff2\xff\xff\xf1", b"\xff2\xff\xff2\xff\xf1"),
        (b"\xff\xfd\nb\n", b"b\n"),  # but an option may have the number of a newline
        # Enter of a telnet that sends characters as they are typed: line ends are not its business
        (b"a\r\0\xff\xfd\x03b\r\0c\r\nd\r\xff\xf1\0", b"a\r\0b\r\0c\r\nd\r\0"),
    ],
)
def test_commands_are_stripped(data: bytes, text: bytes) -> None:
    assert TelnetFilter().strip(data) == text
    one_by_one = TelnetFilter()
    assert b"".join(one_by_one.strip(data[i : i + 1]) for i in range(len(data))) == text


@pytest.mark.parametrize(
    ("data", "last"),
    [
        (b"a\xff", b"\xff"),
        (b"a\xff\xff", b""),
        (b"a\xff\xff\xff", b"\xff"),
        (b"a\xff\xfd", b""),  # a command without its option
        (b"a\xff\xfa\x18\xff", b""),
        (b"a\xff\xf1", b""),
    ],
)
def test_a_last_byte_that_begins_no_command_is_text(data: bytes, last: bytes) -> None:
    telnet = TelnetFilter()
    telnet.strip(data)
    assert telnet.flush() == last
    assert telnet.flush() == b""


def test_an_interrupt_drops_what_follows() -> None:
    telnet = TelnetFilter()
    assert telnet.strip(b"ab\xff\xf4\xff\xfd\x06cd") == b"ab"
    assert telnet.interrupted


@given(st.lists(st.sampled_from([b"\xff", b"\xf0", b"\xfa", b"\xfd", b"\x00", b"a", b"\r", b"\n"])))
def test_wherever_a_stream_is_cut_the_text_is_the_same(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    whole, cut = TelnetFilter(), TelnetFilter()
    assert b"".join(map(cut.strip, pieces)) == whole.strip(data)
    assert cut.held == whole.held
    assert len(cut.held) <= 3  # however long a command without an end is
