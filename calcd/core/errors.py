"""Errors, and text from and to the wire.

A line on the wire is handled with one character for each byte (latin-1), so that a whole read is
decoded at once without loss. Where a character counts, it is decoded as UTF-8.
"""

import codecs
import unicodedata
from collections.abc import Callable
from functools import lru_cache

codecs.lookup("unicode_escape")  # loads it: later the daemon's user may not read Python's files

MAX_SHOWN = 40  # characters of a client's text that an error or a log line repeats
# All codes of errors: counters of them begin at 0.
CODES = (
    *("UNKNOWN-OPERATION", "WRONG-OPERANDS", "INVALID-NUMBER", "DIVISION-BY-ZERO"),
    *("DIVISION-UNDEFINED", "OVERFLOW", "INVALID-OPERATION", "INEXACT", "SYNTAX", "UNKNOWN-NAME"),
    *("TOO-MANY-NAMES", "INVALID-TEXT", "LINE-TOO-LONG", "TIMEOUT", "BUSY", "FORBIDDEN"),
    *("REPLY-TOO-LONG", "NOT-OVER-UDP", "OVERLOADED", "INTERNAL"),
)


class RequestError(Exception):
    """A request without a result.

    ``code`` is for programs and never changes. ``template`` is for people: English, may be
    translated, with braces for ``arguments``, of which it may leave out the last ones. An argument
    that is a tuple has words, each of which is translated by itself. ``str()`` is the reply in
    English without its line end.
    """

    def __init__(self, code: str, template: str, *arguments: object) -> None:
        super().__init__(code, template, *arguments)
        self.code = code
        self.template = template
        self.arguments = arguments

    def __str__(self) -> str:
        return self.reply(str)

    def reply(self, translate: Callable[[str], str]) -> str:
        """Return the reply without its line end; ``translate`` is called with all its words."""
        arguments = [
            " ".join(map(translate, each)) if isinstance(each, tuple) else each
            for each in self.arguments
        ]
        return f"ERR {self.code} {translate(self.template).format(*arguments)}"


def code_of(reply: str) -> str:
    """Return the code in the reply that is an error."""
    return reply.split(" ", 2)[1]


def from_wire(text: str) -> str:
    """Decode a text of one character for each byte; bytes that are not UTF-8 become surrogates."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


def to_wire(text: str) -> str:
    """Return a text with one character for each byte of its UTF-8: undo ``from_wire``."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def is_byte(character: str) -> bool:
    """Return whether a character of decoded text is a byte that is not UTF-8."""
    return "\udc80" <= character <= "\udcff"


def printable(text: str, most: int = MAX_SHOWN) -> str:
    r"""Return text from outside in quotes, cut to ``most`` characters.

    Control characters, those that change the direction of text or combine with others, and bytes
    that are not UTF-8 are escaped. So nothing that a client sends can move a terminal's cursor,
    forge a log line or reorder one.
    """
    cut = "..." if len(text) > most else ""
    shown = text[:most]
    if shown.isascii():
        return f"'{shown.encode('unicode_escape').decode('ascii')}{cut}'"
    return f"'{''.join(map(_printable_character, shown))}{cut}'"


@lru_cache(1024)  # a client may send nothing but characters that take long
def _printable_character(character: str) -> str:
    if is_byte(character):
        return f"\\x{ord(character) - 0xDC00:02x}"
    is_plain = (
        character.isprintable()
        and character != "\\"
        and unicodedata.bidirectional(character) not in ("R", "AL", "AN")
        and not unicodedata.category(character).startswith("M")
    )
    return character if is_plain else character.encode("unicode_escape").decode("ascii")
