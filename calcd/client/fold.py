"""Folds: one result of an operation on any number of numbers, which the server works out.

The result is the one that the server would have for all the numbers on one line. It works from left
to right and rounds at each step, so a line that begins with `ans` goes on where the line before has
stopped. Two things need more:

- The mean is rounded once. Its sum is exact: it is made with more digits, and an error if even
  these do not suffice.
- In plain notation a result has no zeros at its end once a step has rounded. While a step may
  round, and none has, the numbers are sent one by one, in scientific notation. There the last digit
  of each reply tells whether it was rounded.
"""

from itertools import chain

from calcd.client.pipeline import Pipeline
from calcd.client.protocol import (
    STATE_LOST,
    ClientError,
    UsageError,
    is_error,
    is_number,
    without_accents,
)
from calcd.client.rows import NOT_OF_THE_ROW, RowError, longest_of, numbers_in, shown, text_of
from calcd.client.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# The operations that fold, by all their names.
FOLDS = {"SOMA": "SOMA", "ADD": "SOMA", "MUL": "MUL", "MIN": "MIN", "MAX": "MAX"}
FOLDS |= {"MEDIA": "MEDIA", "MEAN": "MEDIA"}
MAX_LINE = 1000  # bytes, with the newline
MAX_DIGITS = 980  # of the sum for a mean: with its sign and exponent it has room in a line
# Numbers of a line. A server has a plan for lines of one form that have up to 20 steps, and takes
# five times as long for each number of a longer line.
NUMBERS = 18
SETTINGS = (b"NOTATION", b"ROUNDING", b"EXACT", b"PRECISION")
ROUNDED = b"SOMA ans 0e-9000"  # the same number, as a result that was rounded


class FoldError(Exception):
    """The server has no result. Exit status 1."""


def operation_called(name: str) -> str:
    """Return an operation by any of its names. Raise UsageError if it does not fold."""
    typed = without_accents(name)
    operation = FOLDS.get(typed.upper()) if typed.isascii() else None
    if operation is None:
        *names, last = FOLDS
        raise UsageError(f"--fold takes {', '.join(names)} or {last}, not {name}")
    return operation


class Fold:
    """A fold on a connection of its own. `operation` is as `operation_called` returns it."""

    def __init__(self, operation: str, pipeline: Pipeline) -> None:
        self._operation = operation
        self._name = b"SOMA" if operation == "MEDIA" else operation.encode()  # of each line
        self._pipeline = pipeline
        self._folding: Mapping[bytes, str] = {}  # settings in force
        self._settings: Mapping[bytes, str] = {}  # afterwards, as they were before
        self._steps: Steps | None = None  # None: it does not matter whether they round
        self._last = b""  # reply, at first the first number
        self._numbers = self._sent = self._replies = 0  # so far; lines were sent
        self._singles: dict[int, bytes] = {}  # the numbers of lines of one step, by their count

    def result(self, batches: "Iterator[list[bytes]]") -> bytes:
        """Return the reply for all the numbers, which have at most MAX_LENGTH bytes each.

        Raise FoldError if it is an error, RowError if there are no numbers and the operation has
        no value for that, and ClientError if the server does not reply.
        """
        self._pipeline.restore = self._restore
        numbers: list[bytes] = []
        for batch in batches:
            numbers += batch
            if len(self._operation) + sum(map(len, numbers)) + len(numbers) >= MAX_LINE:
                # A limit of time at the end of the input has to hold for the first reply as well.
                numbers += next(batches, [])
                return self._fold(chain([numbers], batches))
        if not numbers and self._operation != "SOMA":
            raise RowError(f"no numbers came, and {self._operation} has no value for none")
        return self._result([b" ".join([self._operation.encode(), *(numbers or [b"0"])])])

    def _fold(self, batches: "Iterator[list[bytes]]") -> bytes:
        """Return the reply for numbers that take more than one line."""
        before = dict(zip(SETTINGS, map(text_of, self._ask(SETTINGS)), strict=True))
        self._folding = before | {b"NOTATION": "scientific"}
        if self._operation == "MEDIA":
            self._folding |= {b"PRECISION": str(MAX_DIGITS), b"EXACT": "on"}
        elif before[b"NOTATION"] == "plain":
            precision = before[b"PRECISION"]
            try:
                self._steps = Steps(self._operation, int(precision))
            except ValueError:  # a server that is none of calcd's
                raise ClientError(f"{shown(precision.encode())} is no reply to PRECISION") from None
        self._ask(requests_of(self._folding))
        for replies in self._pipeline.replies(self._lines(batches)):
            self._take(replies)
        last = b"= ans"
        if self._operation == "MEDIA":
            last = b"DIV ans %d" % self._numbers
        elif self._steps and self._steps.rounded:
            is_zero = not self._last.upper().partition(b"E")[0].strip(b"-0.")
            last = b"REDUCE ans" if is_zero else ROUNDED
        self._settings = before
        return self._result([*requests_of(before), last])

    def _lines(self, batches: "Iterator[list[bytes]]") -> "Iterator[bytes]":
        """Yield the lines of the numbers, and note which replies are of single steps."""
        start = self._name + b" ans "
        for numbers in batches:
            longest = longest_of(numbers)
            one_by_one = self._steps is not None and self._steps.may_round(numbers, longest)
            size = 1 if one_by_one else min(NUMBERS, (MAX_LINE - 10) // (longest + 1))
            lines, begin = [], 0
            if not self._numbers:  # the first operand is taken as it is, and not rounded
                self._last = numbers[0]
                lines, begin = [b" ".join([self._name, *numbers[:2]])], 2
            lines += [
                start + b" ".join(numbers[at : at + size])
                for at in range(begin, len(numbers), size)
            ]
            if one_by_one:
                self._singles |= enumerate(numbers[-len(lines) :], self._sent)
            self._numbers += len(numbers)
            self._sent += len(lines)
            yield b"\n".join([*lines, b""])

    def _take(self, replies: list[bytes]) -> None:
        """Take the replies to the next lines."""
        if numbers_in(b"\n".join(replies)) != replies:
            reply = next(reply for reply in replies if not is_number(reply))
            if self._operation == "MEDIA" and reply.startswith(b"ERR INEXACT"):
                reason = f"the exact sum of the numbers has more than {MAX_DIGITS} digits"
                raise FoldError(f"{self._operation}: {reason}")
            raise self._failure(reply)
        if self._singles and self._steps:
            for line, reply in enumerate(replies, self._replies):
                if number := self._singles.pop(line, b""):
                    self._steps.check(self._last, number, reply)
                self._last = reply
        self._last = replies[-1]
        self._replies += len(replies)

    def _failure(self, reply: bytes) -> Exception:
        """Return the error for a reply that is no number."""
        text = text_of(reply)
        if not is_error(reply):
            return ClientError(f"{text} is no reply to {text_of(self._name)}")
        if reply.startswith(NOT_OF_THE_ROW):
            return ClientError(f"{self._operation}: {text}")
        return FoldError(f"{self._operation}: {text}")

    def _ask(self, requests: "Iterable[bytes]") -> list[bytes]:
        replies = self._pipeline.ask(list(requests))
        for reply in filter(is_error, replies):
            raise self._failure(reply)
        return replies

    def _result(self, requests: list[bytes]) -> bytes:
        """Return the reply to the last of the requests, which is a number."""
        reply = self._ask(requests)[-1]
        if not is_number(reply):
            raise self._failure(reply)
        return reply

    def _restore(self) -> None:
        """Set on a new connection what was set on the one before."""
        requests = requests_of(self._folding)
        if self._replies:
            requests.append(b"= " + self._last)
            if len(requests[-1]) >= MAX_LINE:
                raise ClientError(f"the connection was lost, and {STATE_LOST}")
        self._pipeline.set_up_again([*requests, *requests_of(self._settings)])


def requests_of(settings: "Mapping[bytes, str]") -> list[bytes]:
    """Return the requests that set settings."""
    return [name + b" " + value.encode() for name, value in settings.items()]
