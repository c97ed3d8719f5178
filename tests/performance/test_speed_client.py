"""calcc takes no longer than in proportion to what it is given, whatever that is."""

import re
import time
import timeit
from collections.abc import Callable
from contextlib import suppress

import pytest

from calcd.client import (
    cli,
    completion,
    counting,
    prompt,
    protocol,
    replies,
    rows,
    state,
    steps,
    streams,
    template,
    tls,
    transport,
)

SMALL, LARGE = 8 << 10, 64 << 10  # bytes
MOST = 12  # times as long for 8 times as much; what is quadratic takes 64 times as long
MARGIN = 0.0005  # seconds: what takes no longer is slow only once its text is beyond the caches


def seconds(work: Callable[[], object]) -> float:
    """Return how long this keeps the processor, at best."""
    timer = timeit.Timer(work, timer=time.thread_time)
    number = 1
    while timer.timeit(number) < 0.001:
        number *= 2
    return min(timer.repeat(5, number)) / number


def is_linear(work: Callable[[str], object], pattern: str, end: str) -> bool:
    """Return whether work takes MOST times as long with the larger input, or MARGIN more."""

    def took(size: int) -> float:
        text = (pattern * (size // len(pattern) + 1))[:size] + end
        return seconds(lambda: work(text))

    # Other processes disturb some tries.
    return any(took(LARGE) < MOST * took(SMALL) + MARGIN for _ in range(3))


def pieces(data: bytes, size: int = 16) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# -- What works on text --------------------------------------------------------------------------


def affects(text: str) -> None:
    left = state.SessionState()
    left.record("2+2", "4")
    left.affects([text])


def options(text: str) -> None:
    with suppress(protocol.UsageError):  # a text that can be no host is wrong usage
        cli.Options(["-" + "4" * len(text), text])


WORKS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "a number": (
        lambda text: re.fullmatch(completion.NUMBER, text, re.ASCII),
        ["1", ".", "1E", "-"],
    ),
    "an operation": (
        lambda text: re.findall(completion.OPERATION, text),
        ["A", "A_", "A1", "AA ", "É"],
    ),
    "choices": (
        lambda text: re.match(completion.CHOICES, f"A [{text}", re.ASCII),
        ["a", "a|", "|", "-"],
    ),
    "help": (lambda text: prompt.wrap(text, 80), ["a", "a ", " ", "|", "a|", "a" * 79 + "|"]),
    "a request": (
        lambda text: state.SessionState().record(text, "1"),
        ["a", "=", " ", "a ", "a=", "\t"],
    ),
    "ans": (affects, ["ans", "an", "a", "a ns ", "ANS_", "éans", " \t", "mo", "\n mo"]),
    "a TLS error": (
        lambda text: tls.describe_tls(OSError(1, text)),
        ["a", " alert ", " alert"],
    ),
    "a result": (replies.parse_reply, ["ERR ", "ERR", "E", " "]),
    "a line": (lambda text: replies.encode_request(text + "x"), ["a", " ", "\t", "é"]),
    "a message": (streams.printable, ["a", "\x1b", "\u202e", "\t", "é", "\udc9b"]),
    "a template": (
        lambda text: template.Template("{}" + text.replace("}", ")"), None),
        ["a", "{{"],
    ),
    "a row": (lambda text: rows.split_fields(text.encode(), None), ["1", "1 ", "\t"]),
    "a row of numbers": (lambda text: rows.numbers_in(text.encode()), ["1", "1 ", "1\n", "-"]),
    "a bad field": (lambda text: rows.not_a_number(text.encode()), ["1", ",", "1,", "\x1b"]),
    "digits": (lambda text: steps.extent(text.replace("E", "").encode()), ["1", "."]),
    "options": (options, ["4", "a", "a.", "4-", "é"]),
}


@pytest.mark.speed
@pytest.mark.parametrize("end", ["", "x", "_", "é", "E+"])
@pytest.mark.parametrize(
    ("work", "pattern"),
    [
        pytest.param(work, pattern, id=f"{name}: {pattern!r}")
        for name, (work, patterns) in WORKS.items()
        for pattern in patterns
    ],
)
def test_time_grows_with_the_text(work: Callable[[str], object], pattern: str, end: str) -> None:
    assert is_linear(work, pattern, end)


# -- What works on bytes as they come ------------------------------------------------------------


def take(data: bytes) -> None:
    replies = counting.ReplySplitter(len(data))
    for chunk in pieces(data):
        replies.add(chunk)


def count(data: bytes) -> None:
    counter = counting.ReplyCounter()
    for chunk in pieces(data):
        counter.add_requests(chunk)
        counter.add_replies(chunk)


def request_over_udp(data: bytes) -> None:
    server = transport.UDP(cli.Options(["-u"]).endpoint)
    server.request = bytes  # type: ignore[assignment,method-assign]
    for _ in server.replies(data):
        pass


@pytest.mark.speed
@pytest.mark.parametrize("pattern", ["1", "\n", "\r", " ", "1\n", "ERR ", "é"])
@pytest.mark.parametrize("work", [take, count, request_over_udp])
def test_time_grows_with_the_stream(work: Callable[[bytes], None], pattern: str) -> None:
    assert is_linear(lambda text: work(text.encode("latin-1")), pattern, "")


@pytest.mark.speed
@pytest.mark.parametrize("size", [16, protocol.CHUNK])
@pytest.mark.parametrize("pattern", ["1", "\n", "\r", "\t", "\x1b", "\udcff", "\u202e", "é"])
def test_time_grows_with_what_a_terminal_shows(
    pattern: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "write_output", lambda *_: None)
    monkeypatch.setattr("os.isatty", lambda _: True)

    def show(text: str) -> None:
        with streams.Output() as output:
            for chunk in pieces(text.encode(errors="surrogateescape"), size):
                output.write(chunk)

    assert is_linear(show, pattern, "")
