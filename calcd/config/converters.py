"""Casts: from a setting's text to its value.

Each returns the value, or raises ``ValueError`` with words that say what is wrong and what would
be right: one argument, so one line for the operator, for each fault.
"""

import os
import re
from collections.abc import Callable
from typing import TypeVar

from calcd.config.endpoints import Endpoint, parse_endpoint
from calcd.config.networks import Networks, parse_network
from calcd.core.errors import printable

LEAST_SECONDS = 0.001  # poll() counts in milliseconds
YEAR = 366 * 24 * 60 * 60

_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_COUNT = re.compile(r"[0-9]{1,9}")
_SWITCHES = {
    **dict.fromkeys(("yes", "on", "true", "1"), True),
    **dict.fromkeys(("no", "off", "false", "0"), False),
}

_T = TypeVar("_T")

try:
    _STARTED_IN = os.getcwd()  # with -d the daemon leaves it, and may read its settings again
except FileNotFoundError:  # it has been removed
    _STARTED_IN = "/"


def absolute(path: str) -> str:
    """Make a path absolute that is relative to where the program was started."""
    return os.path.normpath(os.path.join(_STARTED_IN, path))


def _wrong(text: str, expected: str) -> ValueError:
    return ValueError(f"{printable(text)}: expected {expected}")


def seconds(least: float = LEAST_SECONDS) -> Callable[[str], float]:
    """Make a cast for a time. Where ``least`` is 0, that means none or for ever."""
    zero = "" if least else "0, or "
    expected = f"seconds without a unit: {zero}a number from {LEAST_SECONDS} to {YEAR}"

    def cast(text: str) -> float:
        if _DECIMAL.fullmatch(text):
            value = float(text)
            if value == least or LEAST_SECONDS <= value <= YEAR:
                return value
        raise _wrong(text, expected)

    return cast


def integer(least: int, most: int) -> Callable[[str], int]:
    """Make a cast for a count."""

    def cast(text: str) -> int:
        if _COUNT.fullmatch(text) and least <= int(text) <= most:
            return int(text)
        raise _wrong(text, f"a whole number from {least} to {most}, in digits")

    return cast


def choice(*choices: str) -> Callable[[str], str]:
    """Make a cast for one of a few words."""

    def cast(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise _wrong(text, f"one of {', '.join(choices)}")

    return cast


def switch(text: str) -> bool:
    """Cast what is on or off."""
    try:
        return _SWITCHES[text.lower()]
    except KeyError:
        raise _wrong(text, "yes or no") from None


def _each(words: list[str], parse: Callable[[str], _T]) -> tuple[_T, ...]:
    """Parse words, and gather what is wrong with them."""
    found, faults = [], []
    for word in words:
        try:
            found.append(parse(word))
        except ValueError as error:
            faults.append(str(_wrong(word, str(error))))
    if faults:
        raise ValueError(*faults)
    return tuple(found)


def endpoints(text: str) -> tuple[Endpoint, ...]:
    """Cast URLs that are separated by blanks or newlines."""
    return _each(text.split() or [""], parse_endpoint)


def networks(text: str) -> Networks:
    """Cast networks that are separated by blanks or newlines; an empty text is none."""
    return Networks(_each(text.split(), parse_network))


def path(text: str) -> str:
    """Cast a path to an absolute one; an empty text stays."""
    if text.isprintable():
        return absolute(text) if text else ""
    raise _wrong(text, "a path of printable characters")


def log_target(text: str) -> str:
    """Cast a place for the log; an empty text stays."""
    if text in ("", "stderr", "syslog"):
        return text
    if "/" in text and not text.endswith("/"):  # a bare word is rather a slip than a file
        return path(text)
    raise _wrong(text, "stderr, syslog or a file's path, such as /var/log/calcd.log or ./calcd.log")


def account(text: str) -> str:
    """Cast a user's or group's name; an empty text stays."""
    if text.isprintable() and " " not in text:
        return text
    raise _wrong(text, "a name without blanks")
