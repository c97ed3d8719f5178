"""UDP: a datagram of lines is answered by a datagram of lines, and nothing is kept.

A datagram's sender may be forged, so that an answer hits somebody who never asked. Hence an
answer is bounded by what was asked (``room_for``), and what might be an answer has none, so that
two servers cannot be made to answer each other: each line of an answer is of a form that no server
answers.
"""

import logging
import re
import socket
import threading
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Any

from calcd.config.settings import Settings
from calcd.core.budget import TURN_LIMIT
from calcd.core.commands import fixed_replies
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, quoted
from calcd.core.interpreter import Interpreter
from calcd.core.messages import Language
from calcd.core.session import Session
from calcd.daemon.ratelimit import bounded
from calcd.net.connection import host_of, name_of
from calcd.net.listeners import Listener
from calcd.net.sockopt import DESTINATION_ROOM, Ancillary, from_there
from calcd.net.threads import IdleThreads
from calcd.net.turns import Turns

log = bounded(__name__)

LARGEST = 65_507  # bytes that a datagram carries over IPv4
# An answer of so many bytes is always allowed: it travels in one packet over any network, as
# every IPv6 network carries 1280 bytes with the headers. It has room for any one result.
_SMALL = 1232
# Else an answer may be so many times as large as its question: room for the sums that a program
# asks, whose results have all 34 digits, but not for an error to each of many lines of one byte.
_TIMES = 10
_TOO_LONG = str(RequestError("REPLY-TOO-LONG", "use TCP"))  # short, as there may be many

# Blank, or a number as a server prints it, a little wider.
_NUMBER = re.compile(r"[ \t]*+(?:[-+]?[0-9.]++(?:[eE][-+]?[0-9]++)?[ \t]*+)?")
_LONGEST_REPLY = 4096  # bytes: longer than any number, and than HELP
_TEXT = RequestError("NOT-OVER-UDP", "a server could take this reply for a request: use TCP")
_MOST_WORK = 20_000_000  # units of ``Operation.cost``, about a second, for a datagram

_BUFFER = 1 << 16  # bytes: no datagram has more
_TURN = 0.0002  # seconds that datagrams are answered in before others have their turn
_MUCH = 512  # bytes of a datagram that is answered in a thread: the loop has others to serve
_MUCH_AT_ONCE = 8  # such datagrams, each of which may take some MB
_PRIVILEGED = 1024  # ports below are those of services, which may answer whatever they get
_TELL = 10.0  # seconds between two lines of the log that tell of what was dropped


class TooMuchError(Exception):
    """A datagram whose work is more than may be done, now or at all."""


def answer(
    data: bytes,
    settings: Settings,
    on_request: Callable[[str, str], None] | None = None,
    on_bug: Callable[[str], None] | None = None,
    turns: Turns | None = None,
) -> bytes:
    """Answer a datagram, in a session of its own; ``b""``: it has no request, or may be an answer.

    Each turn that it takes comes from ``turns``. Without, or where it needs too many of them,
    ``TooMuchError`` is raised.

    No line of an answer is one that a server would answer, whatever the datagram holds.
    """
    if may_be_an_answer(data):
        return b""
    arithmetic = Arithmetic(settings.precision, settings.rounding)

    def log_request(request: str, reply: str) -> None:
        if on_request is not None:
            on_request(request, _never_answered(reply, interpreter.context.language))

    interpreter = Interpreter(arithmetic, on_request and log_request, on_bug)
    session = Session(interpreter, settings.max_line)
    replies, work = b"", 0.0
    for part in (data, b""):
        replies += session.receive(part)
        work += session.budget.spent
        while session.pending:
            if turns is None or work > _MOST_WORK:
                raise TooMuchError
            with turns.take(session.expensive):
                replies += session.resume(TURN_LIMIT)
            work += session.budget.spent
    lines = [
        _never_answered(line.removesuffix("\r"), interpreter.context.language)
        + "\r" * line.endswith("\r")
        for line in replies.decode("latin-1").split("\n")
    ]
    replies = "\n".join(lines).encode("latin-1")
    room = room_for(len(data))
    return replies if len(replies) <= room else fitted(replies, room)


def may_be_an_answer(data: bytes) -> bool:
    """Say whether a server may have sent this: an error, or nothing but what a server replies."""
    if data.startswith(b"ERR ") or b"\nERR " in data:
        return True
    lines = set(data.decode("latin-1").split("\n"))  # thousands of short ones may be the same
    return all(_is_reply(line.removesuffix("\r")) for line in lines)


def _is_reply(line: str) -> bool:
    """Say whether a line is blank, or a reply over UDP: an error, a number, a command's reply."""
    if line.startswith("ERR "):
        return True
    if len(line) > _LONGEST_REPLY:  # no need to look through it
        return False
    return _NUMBER.fullmatch(line) is not None or line in fixed_replies()


def _never_answered(reply: str, language: Language) -> str:
    """Give a reply as it is sent: an error in its place, where a server might answer to it."""
    return reply if _is_reply(reply) else _TEXT.reply(language.say)


def room_for(asked: int) -> int:
    """Say how many bytes the answer to a datagram of so many bytes may have."""
    return min(LARGEST, max(_SMALL, _TIMES * asked))


def fitted(replies: bytes, room: int) -> bytes:
    """Put an error in the place of replies, so that what comes out is of ``room`` bytes at most.

    The first ones have what room the others leave. Where there is none for an error in the
    place of each, the first ones are kept, and one error stands for all that follow.
    """
    lines = [line + b"\n" for line in replies.split(b"\n")[:-1]]
    short = [min(line, _too_long(line), key=len) for line in lines]
    left = room - sum(map(len, short))
    if left < 0:
        return _cut(lines, room)
    for number, line in enumerate(lines):
        more = len(line) - len(short[number])
        if more <= left:
            short[number] = line
            left -= more
    return b"".join(short)


def _cut(lines: list[bytes], room: int) -> bytes:
    """Take as many lines as there is room for, with an error that stands for all others."""
    taken, kept, closing = 0, 0, b""
    for number, line in enumerate(lines):
        error = _too_long(line, f", {len(lines) - number} requests have no reply")
        if taken + len(error) > room:
            break
        kept, closing = number, error  # the lines before this one, and the error in its place
        taken += len(line)
    return b"".join(lines[:kept]) + closing


def _too_long(reply: bytes, more: str = "") -> bytes:
    """Give the error that takes a reply's place, and its line end."""
    return (_TOO_LONG + more).encode() + (b"\r\n" if reply.endswith(b"\r\n") else b"\n")


class Datagrams:
    """Answers datagrams in the serving loop's thread, and those that ask much in threads.

    One that is not answered is dropped, as the network may drop any: its client asks again.
    """

    def __init__(self, threads: IdleThreads, turns: Turns, ports: Collection[int]) -> None:
        """``ports`` are those on which this daemon takes datagrams."""
        self._threads = threads
        self._turns = turns
        self._ports = ports
        self._places = threading.Semaphore(_MUCH_AT_ONCE)
        self._dropped: dict[str, tuple[int, str]] = {}  # why: how many, the last one's sender
        self._lock = threading.Lock()  # for those
        self._told = -_TELL  # when the log was last told of them
        self._buffer = memoryview(bytearray(_BUFFER))

    def serve(self, listener: Listener, settings: Settings) -> bool:
        """Answer what has arrived, for a moment; say whether there was anything."""
        until, sock, came = monotonic() + _TURN, listener.socket, False
        while monotonic() < until:
            try:
                size, told, _, sender = sock.recvmsg_into((self._buffer,), DESTINATION_ROOM)
            except OSError:  # there is nothing more
                break
            came = True
            if not settings.allow.allows(host_of(sender)):
                # Not a word: its sender may be forged, and this would be for somebody else.
                self._drop("their senders are not allowed", sender)
            elif sender[1] < _PRIVILEGED or sender[1] in self._ports:
                self._drop("they come from a server's port", sender)
            else:
                data = self._buffer[:size].tobytes()
                job = partial(_answer, sock, data, from_there(told), sender, settings)
                try:
                    if size <= _MUCH:
                        self._try(job, sender)
                        continue
                except TooMuchError:
                    pass  # in a thread, then
                self._hand_on(partial(job, self._turns), sender)
        return came

    def _hand_on(self, job: Callable[[], str], sender: Any) -> None:
        if not self._places.acquire(blocking=False):
            self._drop("too many that ask much came at once", sender)
            return
        try:
            self._threads.run(partial(self._finish, job, sender))
        except (RuntimeError, MemoryError) as error:  # the system refuses a thread
            self._places.release()
            self._drop(str(error) or "there is no memory", sender)

    def _finish(self, job: Callable[[], str], sender: Any) -> None:
        try:
            self._try(job, sender)
        except TooMuchError:
            self._drop("they ask too much", sender)
        finally:
            self._places.release()

    def _try(self, job: Callable[[], str], sender: Any) -> None:
        try:
            if why := job():
                self._drop(why, sender)
        except TooMuchError:
            raise
        except Exception:
            log.exception("datagram %s: a bug lost its answer", name_of(sender))

    def _drop(self, why: str, sender: Any) -> None:
        with self._lock:
            count, _ = self._dropped.get(why, (0, ""))
            self._dropped[why] = count + 1, name_of(sender)

    def tell(self, at_once: bool = False) -> None:
        """Log how many were dropped, if any were and it is time or ``at_once``."""
        if not self._dropped or not (at_once or monotonic() >= self._told + _TELL):
            return
        self._told = monotonic()
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        for why, (count, last) in dropped.items():
            log.warning("datagrams dropped: %d, as %s; the last from %s", count, why, last)

    def finish(self, deadline: float) -> None:
        """Wait for the threads' answers, until then at most, and tell of the last drops."""
        for _ in range(_MUCH_AT_ONCE):
            self._places.acquire(timeout=max(0.0, deadline - monotonic()))
        self.tell(at_once=True)


def _answer(
    sock: socket.socket,
    data: bytes,
    way_back: list[Ancillary],
    sender: Any,
    settings: Settings,
    turns: Turns | None = None,
) -> str:
    """Answer one datagram; say why there was no sending it, else ``""``."""
    name = name_of(sender)
    tracing = log.isEnabledFor(logging.DEBUG)
    on_request = partial(_log_request, name) if tracing else None
    replies = answer(data, settings, on_request, partial(_log_bug, name), turns)
    if replies:
        try:
            sock.sendmsg((replies,), way_back, 0, sender)
        except OSError as error:  # the network's or the system's doing, such as a full queue
            return f"their answers cannot be sent: {(error.strerror or str(error)).lower()}"
    return ""


def _log_request(name: str, request: str, reply: str) -> None:
    log.debug("datagram %s: %s -> %s", name, quoted(request), quoted(reply))


def _log_bug(name: str, request: str) -> None:
    log.exception("datagram %s: a bug, met at the request %s", name, quoted(request))
