"""Converters: from a setting's text to its value.

Each returns the value, or raises ``ValueError`` with one argument for each fault: a line that
shows the text and says what was expected.
"""

import os
import re
from collections.abc import Callable
from typing import TypeVar

from calcd.config.endpoints import Endpoint, parse_endpoint, parse_metrics_endpoint
from calcd.config.networks import Networks, Proxies, parse_network
from calcd.core.errors import printable
from calcd.core.messages import LANGUAGES, language_called

MIN_SECONDS = 0.001  # poll() counts in milliseconds
YEAR = 366 * 24 * 60 * 60

_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_MAX_WORKERS = 256
_COUNT = re.compile(r"[0-9]{1,9}")
_SWITCHES = {
    **dict.fromkeys(("yes", "on", "true", "1"), True),
    **dict.fromkeys(("no", "off", "false", "0"), False),
}

_T = TypeVar("_T")

try:
    _START_DIRECTORY = os.getcwd()  # with -d the daemon leaves it, and may reload later
except FileNotFoundError:  # it has been removed
    _START_DIRECTORY = "/"


def absolute(path: str) -> str:
    """Return an absolute path; a relative one starts where the program was started."""
    return os.path.normpath(os.path.join(_START_DIRECTORY, path))


def _unexpected(text: str, expected: str) -> ValueError:
    return ValueError(f"{printable(text)}: expected {expected}")


def seconds(minimum: float = MIN_SECONDS) -> Callable[[str], float]:
    """Return a converter for seconds. A ``minimum`` of 0 also allows 0: no time, or no limit."""
    zero = "" if minimum else "0, or "
    expected = f"seconds without a unit: {zero}a number from {MIN_SECONDS} to {YEAR}"

    def convert(text: str) -> float:
        if _DECIMAL.fullmatch(text):
            value = float(text)
            if value == minimum or MIN_SECONDS <= value <= YEAR:
                return value
        raise _unexpected(text, expected)

    return convert


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a converter for a whole number."""

    def convert(text: str) -> int:
        if _COUNT.fullmatch(text) and minimum <= int(text) <= maximum:
            return int(text)
        raise _unexpected(text, f"a whole number from {minimum} to {maximum}, in digits")

    return convert


def workers(text: str) -> int:
    """Convert a number of processes; ``auto`` is one for each core that this process may use."""
    if text == "auto":
        return len(os.sched_getaffinity(0))
    if _COUNT.fullmatch(text) and int(text) <= _MAX_WORKERS:
        return int(text)
    raise _unexpected(text, f"auto, or a whole number from 0 to {_MAX_WORKERS}")


def choice(*choices: str) -> Callable[[str], str]:
    """Return a converter for one of a few words."""

    def convert(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise _unexpected(text, f"one of {', '.join(choices)}")

    return convert


def language(text: str) -> str:
    """Convert the name of a language; a tag or a locale, such as pt-BR or pt_PT, is one too."""
    if called := language_called(text):
        return called.name
    raise _unexpected(text, f"one of {', '.join(LANGUAGES)}")


def switch(text: str) -> bool:
    """Convert yes or no."""
    try:
        return _SWITCHES[text.lower()]
    except KeyError:
        raise _unexpected(text, "yes or no") from None


def _each(words: list[str], parse: Callable[[str], _T]) -> tuple[_T, ...]:
    """Parse each word; raise ``ValueError`` with every fault."""
    found, faults = [], []
    for word in words:
        try:
            found.append(parse(word))
        except ValueError as error:
            faults.append(str(_unexpected(word, str(error))))
    if faults:
        raise ValueError(*faults)
    return tuple(found)


def endpoints(text: str) -> tuple[Endpoint, ...]:
    """Convert URLs that are separated by blanks or newlines."""
    return _each(text.split() or [""], parse_endpoint)


def metrics_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Convert URLs that metrics are served at, as ``endpoints``; an empty text is none."""
    return _each(text.split(), parse_metrics_endpoint)


def networks(text: str) -> Networks:
    """Convert networks that are separated by blanks or newlines; an empty text is none."""
    return Networks(_each(text.split(), parse_network))


def proxies(text: str) -> Proxies:
    """Convert networks, and the word ``unix``, separated by blanks or newlines."""
    words = text.split()
    named = [word for word in words if word.lower() != "unix"]
    return Proxies(Networks(_each(named, parse_network)), unix=len(named) < len(words))


def path(text: str) -> str:
    """Convert a path to an absolute one; an empty text stays."""
    if text.isprintable():
        return absolute(text) if text else ""
    raise _unexpected(text, "a path of printable characters")


def log_target(text: str) -> str:
    """Convert the log's target; an empty text stays."""
    if text in ("", "stderr", "syslog"):
        return text
    if "/" in text and not text.endswith("/"):  # a word without / may be a misspelt syslog
        return path(text)
    raise _unexpected(
        text, "stderr, syslog or a file's path, such as /var/log/calcd.log or ./calcd.log"
    )


def account(text: str) -> str:
    """Convert the name of a user or group; an empty text stays."""
    if text.isprintable() and " " not in text:
        return text
    raise _unexpected(text, "a name without blanks")
