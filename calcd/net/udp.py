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
from calcd.net.clients import host_of, name_of, request_loggers
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


class DropError(Exception):
    """A datagram that is not answered; as text, the reason."""


class Datagrams:
    """Answers datagrams in the serving loop, and large or expensive ones in threads.

    A datagram that is not answered is dropped, as the network may drop any: its client asks again.
    """

    def __init__(self, turns: Turns, listeners: Collection[Listener]) -> None:
        self._turns = turns
        self._ports = {each.endpoint.port for each in listeners if each.endpoint.udp}
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
            data = self._buffer[:size].tobytes()
            send = partial(_send, sock, ancillary, sender)
            self._try(sender, partial(self._answer, data, sender, settings, send))
        return came

    def _try(self, sender: Any, job: Callable[[], None]) -> None:
        """Run a job for a datagram; count the datagram if the job drops it."""
        try:
            job()
        except DropError as error:
            self._drop(str(error), sender)
        except BudgetExceeded:
            self._drop("it costs too much", sender)
        except Exception:
            log.exception("datagram %s: a bug lost its answer", name_of(sender))

    def _answer(
        self, data: bytes, sender: Any, settings: Settings, send: Callable[[bytes], None]
    ) -> None:
        """Answer a datagram; in a thread if it is large, or costs more than the loop's share."""
        if not settings.allow.allows(host_of(sender)):
            # No FORBIDDEN: the sender may be forged, and the error would hit another.
            raise DropError("sender is not allowed")
        if sender[1] < _RESERVED or sender[1] in self._ports:
            raise DropError("source port is reserved")
        begin = partial(_begin, data, sender, settings)
        if len(data) > _LARGE:
            self._hand_over(sender, lambda: self._finish(begin(), send))
            return
        session = begin()
        if session.pending:
            self._hand_over(sender, partial(self._finish, session, send))
        else:
            send(session.answer)

    def _finish(self, session: DatagramSession, send: Callable[[bytes], None]) -> None:
        while session.pending:
            with self._turns.take(session.budget.expensive):
                session.resume(TURN_LIMIT)
        send(session.answer)

    def _hand_over(self, sender: Any, job: Callable[[], None]) -> None:
        """Do a job in a thread; ``DropError`` if there is none for it."""
        if not self._slots.acquire(blocking=False):
            raise DropError("too many large ones at once")

        def run() -> None:
            self._try(sender, job)
            self._slots.release()

        try:
            threading.Thread(target=run, name="datagram", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # the system refuses a thread
            self._slots.release()
            raise DropError(str(error) or "no memory") from None

    def _drop(self, reason: str, sender: Any) -> None:
        with self._lock:
            count, _ = self._dropped.get(reason, (0, ""))
            self._dropped[reason] = count + 1, name_of(sender)

    def report_dropped(self, at_once: bool = False) -> None:
        """Log how many were dropped, if any were and it is time or ``at_once``."""
        with self._lock:
            if not self._dropped or not (at_once or monotonic() >= self._reported + _REPORT):
                return
            self._reported = monotonic()
            dropped, self._dropped = self._dropped, {}
        for reason, (count, last) in dropped.items():
            log.warning("%d datagrams dropped: %s (last from %s)", count, reason, last)

    def finish(self, deadline: float) -> None:
        """Wait for the threads' answers, until then at most, and report the last drops."""
        for _ in range(_LARGE_AT_ONCE):
            self._slots.acquire(timeout=max(0.0, deadline - monotonic()))
        self.report_dropped(at_once=True)


def _begin(data: bytes, sender: Any, settings: Settings) -> DatagramSession:
    """Return a session that has computed as much of its answer as the serving loop may."""
    arithmetic = Arithmetic(settings.precision, settings.rounding)
    loggers = request_loggers("datagram", sender)
    session = DatagramSession(data, arithmetic, settings.max_line, *loggers)
    session.resume()
    return session


def _send(sock: socket.socket, ancillary: list[Ancillary], sender: Any, answer: bytes) -> None:
    """Send an answer from the address that was asked, unless it is empty."""
    if answer:
        try:
            sock.sendmsg((answer,), reply_pktinfo(ancillary), 0, sender)
        except OSError as error:  # the network's or the system's doing, such as a full queue
            reason = (error.strerror or str(error)).lower()
            raise DropError(f"cannot send the answer: {reason}") from None
