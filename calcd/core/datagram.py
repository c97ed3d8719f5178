"""One datagram of requests in, one datagram of replies out, and no I/O in between.

A line has a reply, a datagram has an answer. The sender of a datagram may be forged, and the answer
goes to a host that never asked. So the size of an answer is bounded by that of the datagram
(``room_for``), and a datagram that may be an answer itself gets none: two servers cannot be made to
answer each other. Each line of an answer has a form that no server replies to.
"""

import re
from collections.abc import Callable

from calcd.core.budget import CALL_LIMIT, BudgetExceeded
from calcd.core.commands import STATS_START, ReadStats, fixed_replies
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, from_wire, to_wire
from calcd.core.interpreter import Interpreter
from calcd.core.job import Job, Outcome
from calcd.core.messages import ENGLISH, Language
from calcd.core.preamble import BYTE_ORDER_MARK
from calcd.core.session import Session

MAX_SIZE = 65_507  # bytes of a datagram over IPv4
# An answer of this many bytes is always allowed. It has room for any one result, and fits in one
# packet: every IPv6 network carries 1280 bytes (RFC 8200, section 5) with the headers.
_MIN_ROOM = 1232
# Otherwise an answer may be this many times as long as its datagram: enough for sums with results
# of 34 digits, but not for an error to each of many lines of one byte.
_AMPLIFICATION = 10
_DATAGRAM_LIMIT = 20_000_000  # cost of a whole datagram: about a second
_MAX_JOBS = 8  # expensive lines of a datagram

_TOO_LONG = str(RequestError("REPLY-TOO-LONG", "use TCP"))  # short, as there may be many
_NOT_OVER_UDP = RequestError("NOT-OVER-UDP", "this reply could be taken for a request: use TCP")
# Blank, or a number as a server prints it, or a little wider.
_NUMBER = re.compile(r"[ \t]*+(?:[-+]?[0-9.]++(?:[eE][-+]?[0-9]++)?[ \t]*+)?")
_MAX_REPLY = 4096  # bytes: longer than any number, and than HELP


class DatagramSession:
    """Computes the answer to one datagram, in a session of its own.

    Call ``resume`` as long as it is ``pending``, or ``complete`` if there is a ``job``; then
    ``answer`` is the datagram to send, ``b""`` for none. ``on_request``, ``on_bug`` and ``stats``
    are those of ``Interpreter``.
    """

    def __init__(
        self,
        data: bytes,
        arithmetic: Arithmetic,
        max_line: int = 16384,
        on_request: Callable[[str, str], None] | None = None,
        on_bug: Callable[[str], None] | None = None,
        language: Language = ENGLISH,
        stats: ReadStats | None = None,
    ) -> None:
        interpreter = Interpreter(arithmetic, on_bug=on_bug, language=language, stats=stats)
        if on_request is not None:
            interpreter.on_request = lambda request, reply: on_request(
                request, from_wire(self._safe(to_wire(reply)))
            )
        self._context = interpreter.context
        self._session = Session(interpreter, max_line)
        self.counters = interpreter.counters
        self.budget = arithmetic.budget
        self._size = len(data)
        self._input = [] if is_answer(data) else [b"", data]  # reads, the next one last
        self._replies = b""
        self._cost = 0.0
        self._jobs = 0

    @property
    def pending(self) -> bool:
        """Whether ``resume`` is to be called."""
        return bool(self._input) or self._session.pending

    @property
    def job(self) -> Job | None:
        """An expensive line, if that is next."""
        return self._session.job

    def complete(self, outcome: Outcome) -> None:
        """Take the outcome of the job, and process more; raise ``BudgetExceeded`` as ``resume``."""
        self._replies += self._session.complete(outcome)
        self._cost += self.budget.spent
        self._jobs += 1
        if self.job and self._jobs == _MAX_JOBS:
            raise BudgetExceeded

    def resume(self, limit: float = CALL_LIMIT) -> None:
        """Process more; raise ``BudgetExceeded`` if the whole datagram costs too much."""
        session = self._session
        if session.pending:
            if self._cost > _DATAGRAM_LIMIT:
                raise BudgetExceeded
            self._replies += session.resume(limit)
            self._cost += self.budget.spent
        while self._input and not session.pending:
            self._replies += session.receive(self._input.pop(), limit)
            self._cost += self.budget.spent

    @property
    def answer(self) -> bytes:
        """The datagram to send, once nothing is pending; ``b""``: none."""
        lines = [
            self._safe(line.removesuffix("\r")) + "\r" * line.endswith("\r")
            for line in self._replies.decode("latin-1").split("\n")
        ]
        replies, room = "\n".join(lines).encode("latin-1"), room_for(self._size)
        return replies if len(replies) <= room else fit(replies, room)

    def _safe(self, reply: str) -> str:
        """Return a reply, or an error in its place if another server might reply to it."""
        return (
            reply
            if _is_reply(reply)
            else to_wire(_NOT_OVER_UDP.reply(self._context.language.translate))
        )


def is_answer(data: bytes) -> bool:
    """Return whether a server may have sent this: an error, or only lines that servers send."""
    data = data.removeprefix(BYTE_ORDER_MARK)
    if data.startswith(b"ERR ") or b"\nERR " in data:
        return True
    lines = set(data.decode("latin-1").split("\n"))  # thousands of short ones may be the same
    return all(_is_reply(line.strip("\r\0")) for line in lines)


def _is_reply(line: str) -> bool:
    """Return whether a line is blank, or has the form of a reply over UDP."""
    if len(line) <= _MAX_REPLY and (_NUMBER.fullmatch(line) or line in fixed_replies()):
        return True  # a longer one is not worth matching
    return line.startswith(("ERR ", STATS_START))


def room_for(size: int) -> int:
    """Return how many bytes the answer to a datagram of ``size`` bytes may have."""
    return min(MAX_SIZE, max(_MIN_ROOM, _AMPLIFICATION * size))


def fit(replies: bytes, room: int) -> bytes:
    """Replace replies by errors so that at most ``room`` bytes remain.

    The first replies get the room that the others leave. If there is not room for an error in
    the place of each, the first ones stay, and one error replaces all others.
    """
    lines = [line + b"\n" for line in replies.split(b"\n")[:-1]]
    short = [min(line, _too_long(line), key=len) for line in lines]
    left = room - sum(map(len, short))
    if left < 0:
        return _truncate(lines, room)
    for number, line in enumerate(lines):
        more = len(line) - len(short[number])
        if more <= left:
            short[number] = line
            left -= more
    return b"".join(short)


def _truncate(lines: list[bytes], room: int) -> bytes:
    """Return as many lines as there is room for, and an error that replaces all others."""
    size, kept, last = 0, 0, b""
    for number, line in enumerate(lines):
        error = _too_long(line, f", {len(lines) - number} requests have no reply")
        if size + len(error) > room:
            break
        kept, last = number, error  # the lines before this one, and the error in its place
        size += len(line)
    return b"".join(lines[:kept]) + last


def _too_long(reply: bytes, more: str = "") -> bytes:
    """Return the error that replaces a reply, with its line end."""
    return (_TOO_LONG + more).encode() + (b"\r\n" if reply.endswith(b"\r\n") else b"\n")
