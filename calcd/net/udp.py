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
from calcd.net.addresses import host_of, name_of
from calcd.net.listeners import Listener
from calcd.net.sockopt import PKTINFO_SPACE, Ancillary, reply_pktinfo
from calcd.net.turns import Turns

log = logging.getLogger(__name__)

_BUFFER = 1 << 16  # bytes: no datagram has more
_SLICE = 0.0002  # seconds that datagrams are answered in before the loop serves others
_LARGE = 512  # bytes: a larger datagram is answered in a thread
_LARGE_AT_ONCE = 8  # such datagrams, each of which may take some MB
_RESERVED = 1024  # ports below are those of services, which may answer whatever they get
_REPORT = 10.0  # seconds between two log lines about dropped datagrams


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
        with turns.take(datagram.budget.expensive):
            datagram.resume(TURN_LIMIT)
    return datagram.reply


class DropError(Exception):
    """A datagram that is not answered; as text, the reason."""


class Datagrams:
    """Answers datagrams in the serving loop's thread, and those that ask much in threads.

    A datagram that is not answered is dropped, as the network may drop any: its client asks again.
    """

    def __init__(self, turns: Turns, ports: Collection[int]) -> None:
        """``ports`` are those on which this daemon takes datagrams."""
        self._turns = turns
        self._ports = ports
        self._slots = threading.Semaphore(_LARGE_AT_ONCE)
        self._lock = threading.Lock()  # for the next two
        self._dropped: dict[str, tuple[int, str]] = {}  # by reason: how many, the last sender
        self._reported = -_REPORT  # when the log was last told
        self._buffer = memoryview(bytearray(_BUFFER))

    def serve(self, listener: Listener, settings: Settings) -> bool:
        """Answer what has arrived, for 0.2 ms; return whether there was anything."""
        until, sock, came = monotonic() + _SLICE, listener.socket, False
        while monotonic() < until:
            try:
                size, ancillary, _, sender = sock.recvmsg_into((self._buffer,), PKTINFO_SPACE)
            except OSError:  # there is nothing more
                break
            came = True
            try:
                if not settings.allow.allows(host_of(sender)):
                    # No FORBIDDEN: the sender may be forged, and the error would hit another.
                    raise DropError("sender is not allowed")
                if sender[1] < _RESERVED or sender[1] in self._ports:
                    raise DropError("source port is reserved")
                data = self._buffer[:size].tobytes()
                job = partial(_answer, sock, data, reply_pktinfo(ancillary), sender, settings)
                if size > _LARGE or not self._try(job, sender):
                    self._hand_over(partial(job, self._turns), sender)
            except DropError as error:
                self._drop(error, sender)
        return came

    def _try(self, job: Callable[[], None], sender: Any) -> bool:
        """Answer a datagram; return False if it asks too much for the serving loop."""
        try:
            job()
        except TooMuchError:
            return False
        except BudgetExceeded:
            raise DropError("it costs too much") from None
        except DropError:
            raise
        except Exception:
            log.exception("datagram %s: a bug lost its answer", name_of(sender))
        return True

    def _hand_over(self, job: Callable[[], None], sender: Any) -> None:
        if not self._slots.acquire(blocking=False):
            raise DropError("too many large ones at once")
        thread = threading.Thread(
            target=self._run, args=(job, sender), name="datagram", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the system refuses a thread
            self._slots.release()
            raise DropError(str(error) or "no memory") from None

    def _run(self, job: Callable[[], None], sender: Any) -> None:
        try:
            self._try(job, sender)
        except DropError as error:
            self._drop(error, sender)
        finally:
            self._slots.release()

    def _drop(self, why: DropError, sender: Any) -> None:
        with self._lock:
            count, _ = self._dropped.get(str(why), (0, ""))
            self._dropped[str(why)] = count + 1, name_of(sender)

    def report_dropped(self, at_once: bool = False) -> None:
        """Log how many were dropped, if any were and it is time or ``at_once``."""
        with self._lock:
            if not self._dropped or not (at_once or monotonic() >= self._reported + _REPORT):
                return
            self._reported = monotonic()
            dropped, self._dropped = self._dropped, {}
        for why, (count, last) in dropped.items():
            log.warning("%d datagrams dropped: %s (last from %s)", count, why, last)

    def finish(self, deadline: float) -> None:
        """Wait for the threads' answers, until then at most, and report the last drops."""
        for _ in range(_LARGE_AT_ONCE):
            self._slots.acquire(timeout=max(0.0, deadline - monotonic()))
        self.report_dropped(at_once=True)


def _answer(
    sock: socket.socket,
    data: bytes,
    ancillary: list[Ancillary],
    sender: Any,
    settings: Settings,
    turns: Turns | None = None,
) -> None:
    """Answer one datagram; raise ``TooMuchError`` or ``DropError``."""
    name = name_of(sender)
    on_request = partial(_log_request, name) if log.isEnabledFor(logging.DEBUG) else None
    replies = answer(data, settings, on_request, partial(_log_bug, name), turns)
    if replies:
        try:
            sock.sendmsg((replies,), ancillary, 0, sender)
        except OSError as error:  # the network's or the system's doing, such as a full queue
            reason = (error.strerror or str(error)).lower()
            raise DropError(f"cannot send the answer: {reason}") from None


def _log_request(name: str, request: str, reply: str) -> None:
    log.debug("datagram %s: %s -> %s", name, printable(request), printable(reply))


def _log_bug(name: str, request: str) -> None:
    log.exception("datagram %s: a bug, met at the request %s", name, printable(request))
