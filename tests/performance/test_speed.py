"""Texts made to take long take a time in proportion to their length, and no more."""

import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from timeit import Timer
from typing import Any

import pytest
from sessions import new_session

import calcd
from calcd.config import converters
from calcd.config.endpoints import parse_endpoint
from calcd.config.networks import parse_network
from calcd.core.decimal128 import Arithmetic
from calcd.core.expressions import is_name, parse
from calcd.core.job import Job, State, run
from calcd.core.operations import ADD, split_request
from calcd.core.telnet import TelnetFilter

pytestmark = pytest.mark.speed

SMALL, LARGE = 8 << 10, 64 << 10  # characters
MOST_GROWTH = 12  # times, where the length grows 8 times; 64 is quadratic
MARGIN = 0.001  # seconds: below that a time says nothing
TOO_LONG = 0.1  # seconds for SMALL: quadratic already, and LARGE would take 64 times as long
TRIES = 25  # at most: on a busy machine the first ones may be slow
_PARSER, _COMPILER = (importlib.import_module(f"re.{name}") for name in ("_parser", "_compiler"))

# The first would run the daemon; the other has tests of its own.
LEFT_OUT = ("calcd.__main__", "calcd.client")


def assert_linear(run: Callable[[str], object], text_of: Callable[[int], str]) -> None:
    """Fail if the time of ``run`` grows faster than the length of its text."""
    small, large = text_of(SMALL), text_of(LARGE)

    def seconds(text: str) -> float:
        return Timer(partial(run, text), timer=time.thread_time).timeit(1)  # without collections

    assert_growth(
        lambda: seconds(small), lambda: seconds(large), f"{large[:20]!r}...{large[-20:]!r}"
    )


def assert_growth(small: Callable[[], float], large: Callable[[], float], what: str) -> None:
    """Fail if the seconds for LARGE are too many, beside those for SMALL."""
    few = many = TOO_LONG * LARGE
    for _ in range(TRIES):
        few = min(few, small())
        assert few < TOO_LONG, f"{few:.3f} s for {what}"
        many = min(many, large())
        if many < MOST_GROWTH * few + MARGIN:
            return
    pytest.fail(f"{few:.4f} s, then {many:.4f} s for {what}")


def repeated(before: str, unit: str, last: str, size: int) -> str:
    return before + unit * (size // len(unit)) + last


# Patterns


def patterns() -> Iterator[tuple[str, "re.Pattern[Any]"]]:
    """Give every pattern that a module of the package has, also within tuples and dicts."""
    for module in pkgutil.walk_packages(calcd.__path__, "calcd."):
        if not module.name.startswith(LEFT_OUT):
            for name, value in vars(importlib.import_module(module.name)).items():
                for number, pattern in enumerate(_patterns_in(value)):
                    yield f"{module.name}.{name}.{number}", pattern


def _patterns_in(value: object) -> Iterator["re.Pattern[Any]"]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict | tuple | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _patterns_in(part)


class Grammar:
    """What a pattern is made of, as the library parses it: what texts lead into its repetitions."""

    def __init__(self, pattern: "re.Pattern[Any]") -> None:
        source = pattern.pattern
        self._flags = pattern.flags
        if isinstance(source, bytes):
            source, self._flags = source.decode("latin-1"), self._flags | re.ASCII
        self._tree = _PARSER.parse(source, self._flags)
        # One character stands for all that the pattern does not tell apart.
        kinds = [self._compiled([node]) for node in self._characters(self._tree)]
        alphabet: dict[tuple[bool, ...], str] = {}
        for character in map(chr, [*range(0x20, 0x7F), *range(0x20), *range(0x7F, 0x100)]):
            alphabet.setdefault(tuple(bool(kind.match(character)) for kind in kinds), character)
        self._alphabet = list(alphabet.values())

    def hostile(self) -> Iterator[Callable[[int], str]]:
        """Give texts of any size: each repetition many times, and an end that may not match."""
        for before, body in self._repetitions(self._tree, ""):
            compiled = self._compiled(body)
            pairs = map("".join, itertools.product(self._alphabet, repeat=2))
            units = [unit for unit in (*self._alphabet, *pairs) if compiled.fullmatch(unit)]
            for unit in dict.fromkeys([*units, self._shortest(body)]):
                for last in ("", *self._alphabet):
                    yield partial(repeated, before, unit, last)

    def _compiled(self, nodes: Any) -> "re.Pattern[str]":
        compiled: re.Pattern[str] = _COMPILER.compile(
            _PARSER.SubPattern(self._tree.state, list(nodes)), self._flags
        )
        return compiled

    def _parts(self, node: Any) -> list[Any]:
        """Give the patterns within a node of the tree; none: it is about one character."""
        kind, value = str(node[0]), node[1]
        if kind == "BRANCH":
            return list(value[1])
        if kind in ("SUBPATTERN", "MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return [value[-1]]
        return [value] if kind == "ATOMIC_GROUP" else []

    def _characters(self, tree: Any) -> Iterator[Any]:
        for node in tree:
            parts = self._parts(node)
            if not parts and str(node[0]) != "AT":
                yield node
            for part in parts:
                yield from self._characters(part)

    def _repetitions(self, tree: Any, before: str) -> Iterator[tuple[str, Any]]:
        """Give what may be repeated without end, after a text that leads to it."""
        for node in tree:
            if str(node[0]).endswith("_REPEAT") and node[1][1] is _PARSER.MAXREPEAT:
                yield before, node[1][2]
            for part in self._parts(node):
                yield from self._repetitions(part, before)
            before += self._shortest([node])

    def _shortest(self, tree: Any) -> str:
        text = ""
        for node in tree:
            parts = self._parts(node)
            if parts:
                times = node[1][0] if str(node[0]).endswith("_REPEAT") else 1
                text += times * min(map(self._shortest, parts), key=len)
            elif str(node[0]) != "AT":
                kind = self._compiled([node])
                text += next(filter(kind.match, self._alphabet))
        return text


PATTERNS = dict(patterns())


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_linear(name: str) -> None:
    pattern = PATTERNS[name]

    def match(text: str) -> None:
        subject = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
        pattern.match(subject)
        pattern.fullmatch(subject)

    for text_of in Grammar(pattern).hostile():
        assert_linear(match, text_of)


@pytest.mark.parametrize("pattern", [r"[0-9]+\.?[0-9]*", r"[ \t]*(?:-?1)?[ \t]*\r?"])
def test_a_pattern_that_is_not_linear_is_found(pattern: str) -> None:
    def run_all() -> None:
        for text_of in Grammar(re.compile(pattern)).hostile():
            assert_linear(re.compile(pattern).fullmatch, text_of)

    with pytest.raises((AssertionError, pytest.fail.Exception), match=r" s.* for '"):
        run_all()


def test_the_patterns_of_operands_endpoints_and_telnet_are_among_those() -> None:
    modules = {name.split(".")[2] for name in PATTERNS}
    assert {"converters", "decimal128", "endpoints", "expressions", "session", "telnet"} <= modules


# Functions

UNITS = [
    *"01aeE+-*/.,:;()[]=&?#%_ \t\r\n\0\x04\xe9\xff",
    "1 ",
    "a ",
    "1+",
    "a.",
    "::",
    "a\n",
    "\r\n",
]
UNITS += ["\xff\xfa", "\xff\xff", "\xff\xfb", "\r\0", "2^", "-(", "1,"]
LASTS = ["", "x", " !"]
STARTS = ("", "\xff\xfa", "SOMA 1 ", "UPPER ", "= ", "x = ", "1.")
FUNCTIONS: dict[Callable[[str], object], tuple[str, ...]] = {
    Arithmetic().number: ("", "-", "1.", "1e", "1e-"),
    lambda text: parse(text, 0, Arithmetic()): ("", "1", "(", "max(", "1.", "1e"),
    is_name: ("", "a"),
    split_request: ("", " ", "SOMA "),
    ADD.split: ("", "1 "),
    lambda text: TelnetFilter().strip(text.encode("latin-1")): ("", "\xff\xfa", "\xff"),
    lambda text: new_session(max_line=1 << 20).receive(text.encode("latin-1") + b"\n"): STARTS,
    lambda text: run(Job.from_json(Job(text, State()).to_json())): STARTS,  # as a long one is
    parse_endpoint: (
        *("", "tcp://", "tcp://[", "tcp://[a%", "tcp://a:", "tcp://a."),
        *("unix:///", "unix:///a?", "unix:///a?mode=", "unix:///a?group="),
    ),
    parse_network: ("", "1.2.3.4/", "::", "1."),
    converters.endpoints: ("", "unix:///a "),
    converters.networks: ("", "1.2.3.4 "),
    converters.seconds(): ("", "1.", "0."),
    converters.integer(1, 9): ("", "1"),
    converters.choice("a", "b"): ("",),
    converters.switch: ("",),
    converters.path: ("", "/"),
    converters.log_target: ("", "/"),
    converters.account: ("",),
}


@pytest.mark.parametrize("run", FUNCTIONS)
def test_a_text_is_read_in_linear_time(run: Callable[[str], object]) -> None:
    def attempt(text: str) -> None:
        try:
            run(text)
        except Exception as error:  # which they are, is for others to test
            str(error)

    for before, unit, last in itertools.product(FUNCTIONS[run], UNITS, LASTS):
        assert_linear(attempt, partial(repeated, before, unit, last))


@pytest.mark.parametrize("byte", [b" ", b"1", b"x", b"\xff\xf1", b"\r"])
def test_a_line_that_grows_byte_by_byte_takes_linear_time(byte: bytes) -> None:
    def seconds(count: int) -> float:
        slow = new_session(max_line=1 << 20)
        begun = time.thread_time()
        for number in range(count):
            slow.receive(byte)
            # A first CR is held back: it may begin a PROXY header.
            assert not slow.partial_line_is_request or number <= (byte == b"\r")
        return time.thread_time() - begun

    assert_growth(lambda: seconds(SMALL), lambda: seconds(LARGE), repr(byte))
