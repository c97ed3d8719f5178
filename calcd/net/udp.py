"""UDP sockets: each datagram gets at most one in return, from ``calcd.core.datagram``."""

import logging
import socket
import threading
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Any

from calcd.config.settings import Settings
from calcd.core.budget import TURN_LIMIT, BudgetExceeded
from calcd.core.datagram import DatagramSession
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import printable
from calcd.daemon.ratelimit import bounded
from calcd.net.connection import host_of, name_of
from calcd.net.listeners import Listener
from calcd.net.sockopt import DESTINATION_ROOM, Ancillary, from_there
from calcd.net.threads import IdleThreads
from calcd.net.turns import Turns

log = bounded(__name__)

_BUFFER = 1 << 16  # bytes: no datagram has more
_TURN = 0.0002  # seconds that datagrams are answered in before others have their turn
_MUCH = 512  # bytes of a datagram that is answered in a thread: the loop has others to serve
_MUCH_AT_ONCE = 8  # such datagrams, each of which may take some MB
_PRIVILEGED = 1024  # ports below are those of services, which may answer whatever they get
_TELL = 10.0  # seconds between two lines of the log that tell of what was dropped


class TooMuchError(Exception):
    """A datagram that costs more than the serving loop may spend on it."""


def answer(
    data: bytes,
    settings: Settings,
    on_request: Callable[[str, str], None] | None = None,
    on_bug: Callable[[str], None] | None = None,
    turns: Turns | None = None,
) -> bytes:
    """Return the reply to a datagram, ``b""`` for none.

    Each turn that it takes comes from ``turns``. Raise ``TooMuchError`` if it needs one without
    ``turns``, and ``BudgetExceeded`` if it costs too much.
    """
    arithmetic = Arithmetic(settings.precision, settings.rounding)
    datagram = DatagramSession(data, arithmetic, settings.max_line, on_request, on_bug)
    datagram.resume()
    while datagram.pending:
        if turns is None:
            raise TooMuchError
        with turns.take(datagram.expensive):
            datagram.resume(TURN_LIMIT)
    return datagram.reply


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
        except BudgetExceeded:
            self._drop("they ask too much", sender)
        finally:
            self._places.release()

    def _try(self, job: Callable[[], str], sender: Any) -> None:
        try:
            if why := job():
                self._drop(why, sender)
        except (TooMuchError, BudgetExceeded):
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
    log.debug("datagram %s: %s -> %s", name, printable(request), printable(reply))


def _log_bug(name: str, request: str) -> None:
    log.exception("datagram %s: a bug, met at the request %s", name, printable(request))
