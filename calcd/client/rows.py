"""Rows of standard input, their fields, and the rows that are bad."""

import os
import select

from calcd.client.protocol import DIGITS, UsageError, is_error, is_number
from calcd.client.streams import STDIN, STDOUT, read_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_ROW = 16 << 20  # bytes
MAX_LENGTH = 480  # bytes of a number of a fold: a line of 1,000 has room for two
BLANKS = b" \t"
MINUS, BYTE_ORDER_MARK = "\u2212".encode(), "\ufeff".encode()
SKIP_HINT = " (--skip-bad leaves such rows out)"
# Errors that a request gets although its row may be right.
NOT_OF_THE_ROW = (b"ERR LINE-TOO-LONG", b"ERR OVERLOADED", b"ERR INTERNAL")
_SHOWN = 40  # characters of a bad field in a message


class RowError(Exception):
    """A row is bad, or there is none. Exit status 1."""


class NoReaderError(Exception):
    """Nothing reads standard output any more. Not an OSError, which the server causes."""


class BadRows:
    """What becomes of bad rows: they are counted, or the first ends the run."""

    def __init__(self, *, fatal: bool = False) -> None:
        self._fatal = fatal
        self.count = 0
        self.first = ""  # where the first is, and what is wrong with it
        self._line = 0

    def add(self, line: int, reason: str) -> None:
        """Count a bad row. Raise RowError if it ends the run."""
        message = f"line {line}: {reason}"
        if self._fatal:
            raise RowError(f"{message}{SKIP_HINT}")
        self.count += 1
        if not self._line or line < self._line:
            self._line, self.first = line, message

    @property
    def summary(self) -> str:
        """How many there are, in words."""
        return "1 row" if self.count == 1 else f"{self.count} rows"


def read_rows(is_owed: "Callable[[], bool]", at_end: "Callable[[], None]") -> "Iterator[bytes]":
    """Yield standard input in whole rows, each of which ends in LF. Call `at_end` at its end.

    Yield nothing, as an empty text, while replies are owed and no input has arrived. What a server
    skips is left out: a byte order mark, and NUL at the start of a row and at the end. Raise
    RowError for a row of more than MAX_ROW bytes.
    """
    rest = bytearray()  # the start of a row
    line, mark = 1, BYTE_ORDER_MARK
    while True:
        while not wait_for_input(0 if is_owed() else None):
            yield b""
        chunk = read_input()
        if not chunk:
            break
        end = chunk.rfind(b"\n") + 1
        if not end:
            rest += chunk
            if len(rest) > MAX_ROW:
                raise RowError(f"line {line}: more than {MAX_ROW} bytes")
            continue
        rows = (bytes(rest) + chunk[:end]).removeprefix(mark)
        rest, mark = bytearray(chunk[end:]), b""
        line += rows.count(b"\n")
        yield normalized(rows)
    at_end()
    if rest:
        yield normalized(bytes(rest).removeprefix(mark).rstrip(b"\0") + b"\n")


def normalized(rows: bytes) -> bytes:
    """Return whole rows that end in LF, not CR LF or CR CR LF, and do not start with NUL."""
    rows = rows.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")
    if b"\0" not in rows:
        return rows
    return b"\n".join([row.lstrip(b"\0") for row in rows.split(b"\n")])


def wait_for_input(seconds: float | None) -> bool:
    """Wait until standard input can be read. Return False if it cannot after so many seconds.

    Raise NoReaderError if nothing reads standard output any more.
    """
    poll = select.poll()
    poll.register(STDIN, select.POLLIN)
    poll.register(STDOUT, 0)  # no event: an error is reported once it has no reader
    ready = dict(poll.poll(None if seconds is None else seconds * 1000))
    if STDOUT in ready:
        raise NoReaderError
    return STDIN in ready


def separator_of(text: str) -> bytes | None:
    """Return the separator of fields as -F names it; None for blanks.

    Raise UsageError if it is empty.
    """
    if not text:
        raise UsageError("-F needs a separator")
    return None if text == " " else os.fsencode({r"\t": "\t"}.get(text, text))


def split_fields(row: bytes, separator: bytes | None) -> list[bytes]:
    """Return the fields of a row, without the blanks around them. A row of blanks has none."""
    if separator is None or not row.strip(BLANKS):
        return [field for field in row.replace(b"\t", b" ").split(b" ") if field]
    return [field.strip(BLANKS) for field in row.split(separator)]


def is_number_field(field: bytes) -> bool:
    """Return whether a field is a number, perhaps with a sign before it that was pasted."""
    return is_number(b"-" + field[len(MINUS) :] if field.startswith(MINUS) else field)


def numbers_in(text: bytes) -> list[bytes] | None:
    """Return all fields of a text if each is a number, else None. Made for long texts."""
    if text.translate(None, DIGITS + BLANKS + b"\n"):
        return None
    fields = text.split()
    try:
        for _ in map(float, fields):
            pass
    except ValueError:
        return None
    return fields


def text_of(line: bytes) -> str:
    """Return a line as text, whatever its bytes are."""
    return line.decode(errors="backslashreplace")


def shown(field: bytes) -> str:
    """Return a field or a row as a message shows it, perhaps only its beginning."""
    text = text_of(field[: 4 * _SHOWN])
    return f"'{text}'" if len(text) <= _SHOWN else f"'{text[:_SHOWN]}...'"


def not_a_number(field: bytes) -> str:
    """Return what is wrong with a field that is no number, and what to do."""
    if not field:
        return "an empty field is not a number"
    hint = ""
    if b"," in field and is_number_field(field.replace(b",", b"")):
        hint = ": write a point before decimals, and nothing between thousands"
    return f"{shown(field)} is not a number{hint}"


def numbers_in_rows(
    texts: "Iterable[bytes]", separator: bytes | None, bad: BadRows
) -> "Iterator[list[bytes]]":
    """Yield the numbers of rows that `read_rows` yields."""
    line = 1
    for text in texts:
        numbers = None if separator else numbers_in(text)
        if numbers is None or longest_of(numbers) > MAX_LENGTH:
            numbers = []
            for number, row in enumerate(text.split(b"\n")[:-1], line):
                fields = split_fields(row, separator)
                reason = next(filter(None, map(what_is_bad, fields)), "")
                if reason:
                    bad.add(number, reason)
                else:
                    numbers += [field.replace(MINUS, b"-") for field in fields]
        line += text.count(b"\n")
        if numbers:
            yield numbers


def numbers_in_replies(
    replies: "Iterable[tuple[list[int], list[bytes]]]", bad: BadRows
) -> "Iterator[list[bytes]]":
    """Yield the numbers that are replies, which are given with the numbers of their rows."""
    for lines, each in replies:
        numbers = numbers_in(b"\n".join(each))
        if numbers is None or len(numbers) != len(each) or longest_of(numbers) > MAX_LENGTH:
            numbers = []
            for line, reply in zip(lines, each, strict=True):
                if reply.startswith(NOT_OF_THE_ROW):
                    raise RowError(f"line {line}: {text_of(reply)}")
                if is_error(reply):
                    bad.add(line, text_of(reply))
                elif reason := what_is_bad(reply):
                    bad.add(line, f"the reply {reason}")
                else:
                    numbers.append(reply)
        if numbers:
            yield numbers


def longest_of(numbers: list[bytes]) -> int:
    """Return how many bytes the longest number has."""
    return len(max(numbers, key=len, default=b""))


def what_is_bad(field: bytes) -> str:
    """Return why a field cannot be folded; empty if it can."""
    if not is_number_field(field):
        return not_a_number(field)
    if len(field) > MAX_LENGTH:
        return f"{shown(field)} is too long: a number of at most {MAX_LENGTH} bytes can be folded"
    return ""
