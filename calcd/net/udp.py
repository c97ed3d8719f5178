"""UDP sockets: each datagram gets at most one in return, from ``calcd.core.datagram``."""

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic, sleep
from typing import Any

from calcd.config.settings import Settings
from calcd.core.budget import TURN_LIMIT, BudgetExceeded
from calcd.core.commands import ReadStats
from calcd.core.datagram import DatagramSession
from calcd.core.job import Outcome
from calcd.core.messages import LANGUAGES
from calcd.net.clients import host_of, name_of, new_arithmetic, request_loggers
from calcd.net.deadline import Deadline
from calcd.net.listeners import Listener
from calcd.net.semaphore import FairSemaphore
from calcd.net.sockopt import PKTINFO_SPACE, Ancillary, reply_pktinfo
from calcd.net.stats import Stats, Traffic
from calcd.net.workers import Submit

log = logging.getLogger(__name__)

_BUFFER = 1 << 16  # bytes: no datagram has more
_SLICE = 0.0002  # seconds that datagrams are answered in before the loop serves others
_LARGE = 512  # bytes: a larger datagram is answered in a thread
# Datagrams in threads, each of which may take some MB, and those that wait for a job's outcome.
_AT_ONCE = {"large": 8, "expensive": 64}
_QUEUED_AS = "udp"  # one host, as senders may be forged: their jobs share one turn
_RESERVED = 1024  # ports below are those of services, which may answer whatever they get
_FINISH_CHECK = 0.02  # seconds
_REPORT = 10.0  # seconds between two log lines about dropped datagrams


class DropError(Exception):
    """A datagram that is not answered; as text, the reason.

    ``counted_as`` is one of ``calcd.net.stats.DROPS``.
    """

    def __init__(self, counted_as: str, reason: str) -> None:
        super().__init__(reason)
        self.counted_as = counted_as


class Datagrams:
    """Answers datagrams in the serving loop, and large or expensive ones in threads.

    A datagram that is not answered is dropped, as the network may drop any: its client asks again.
    """

    def __init__(
        self,
        turns: FairSemaphore,
        submit: Submit,
        listeners: Collection[Listener],
        stats: Stats,
    ) -> None:
        self._turns, self._submit, self._stats = turns, submit, stats
        self._read_stats = stats.fields  # one for all datagrams
        self._ports = {each.endpoint.port for each in listeners if each.endpoint.udp}
        self._lock = threading.Lock()  # for the next three
        self._under_way: Counter[str] = Counter()  # datagrams in threads and with jobs
        self._dropped: dict[str, tuple[int, str]] = {}  # by reason: how many, the last sender
        self._reported = -_REPORT  # when the log was last told
        self._buffer = memoryview(bytearray(_BUFFER))

    def serve(self, listener: Listener, settings: Settings) -> bool:
        """Answer what has arrived, for 0.2 ms; return whether there was anything."""
        until, sock, came = monotonic() + _SLICE, listener.socket, False
        traffic = self._stats.in_loop
        while monotonic() < until:
            try:
                size, ancillary, _, sender = sock.recvmsg_into((self._buffer,), PKTINFO_SPACE)
            except OSError:  # there is nothing more
                break
            came = True
            traffic.datagrams += 1
            traffic.received += size
            data = self._buffer[:size].tobytes()
            send = partial(_send, sock, ancillary, sender)
            self._try(sender, partial(self._answer, data, sender, settings, send))
        return came

    def _try(self, sender: Any, job: Callable[[], None]) -> None:
        """Run a job for a datagram; count the datagram if the job drops it."""
        try:
            job()
        except DropError as error:
            self._drop(error, sender)
        except BudgetExceeded:
            self._drop(DropError("too-expensive", "it costs too much"), sender)
        except Exception:
            self._stats.drop_datagram("bug")
            log.exception("datagram %s: a bug lost its answer", name_of(sender))

    def _answer(
        self, data: bytes, sender: Any, settings: Settings, send: Callable[[bytes], None]
    ) -> None:
        """Answer a datagram; in a thread if it is large, or costs more than the loop's share."""
        if not settings.allow.allows(host_of(sender)):
            # No FORBIDDEN: the sender may be forged, and the error would hit another.
            raise DropError("not-allowed", "sender is not allowed")
        if sender[1] < _RESERVED or sender[1] in self._ports:
            raise DropError("reserved-port", "source port is reserved")
        if len(data) > _LARGE:
            begin = partial(_begin, data, sender, settings, self._read_stats)
            self._hand_over(sender, lambda: self._finish(begin(), sender, send))
        else:
            self._go_on(_begin(data, sender, settings, self._read_stats), sender, send)

    def _go_on(self, session: DatagramSession, sender: Any, send: Callable[[bytes], None]) -> None:
        """Go on with a datagram in the serving loop."""
        if not session.pending:
            self._reply(session, send, self._stats.in_loop)
        elif session.job:
            self._finish(session, sender, send)
        else:
            self._hand_over(sender, partial(self._finish, session, sender, send))

    def _finish(self, session: DatagramSession, sender: Any, send: Callable[[bytes], None]) -> None:
        """Answer a datagram, or have its job done first."""
        while session.pending and not session.job:
            with self._turns:
                session.resume(TURN_LIMIT)
        if not session.job:
            self._reply(session, send, self._stats)
            return
        self._take("expensive")

        def complete(outcome: Outcome | None) -> None:
            self._release("expensive")
            if outcome is None:
                raise _too_many("expensive")
            session.complete(outcome)
            self._go_on(session, sender, send)

        self._submit(
            _QUEUED_AS,
            session.job,
            lambda outcome: self._try(sender, partial(complete, outcome)),
        )

    def _reply(
        self,
        session: DatagramSession,
        send: Callable[[bytes], None],
        counted_by: Stats | Traffic,
    ) -> None:
        if answer := session.answer:
            counted_by.add_answer(session.counters.requests, answer)
            send(answer)

    def _hand_over(self, sender: Any, job: Callable[[], None]) -> None:
        """Do a job in a thread; ``DropError`` if there is none for it."""
        self._take("large")

        def run() -> None:
            self._try(sender, job)
            self._release("large")

        try:
            threading.Thread(target=run, name="datagram", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # the system refuses a thread
            self._release("large")
            raise DropError("no-thread", str(error) or "no memory") from None

    def _take(self, kind: str) -> None:
        """Count a datagram that takes longer; ``DropError`` if there are too many."""
        with self._lock:
            if self._under_way[kind] == _AT_ONCE[kind]:
                raise _too_many(kind)
            self._under_way[kind] += 1

    def _release(self, kind: str) -> None:
        with self._lock:
            self._under_way[kind] -= 1

    def _drop(self, error: DropError, sender: Any) -> None:
        self._stats.drop_datagram(error.counted_as)
        reason = str(error)
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

    def finish(self, deadline: Deadline, wait: Callable[[float], object] = sleep) -> None:
        """Wait for the answers that are under way, and report the last drops.

        ``wait`` waits for so many seconds, and may serve workers meanwhile.
        """
        while self._under_way.total() and deadline.left():
            wait(_FINISH_CHECK)
        self.report_dropped(at_once=True)


def _too_many(kind: str) -> DropError:
    return DropError(f"too-many-{kind}", f"too many {kind} ones at once")


def _begin(data: bytes, sender: Any, settings: Settings, stats: ReadStats) -> DatagramSession:
    """Return a session that has computed as much of its answer as the serving loop may."""
    arithmetic, language = new_arithmetic(settings), LANGUAGES[settings.language]
    loggers = request_loggers("datagram", sender)
    session = DatagramSession(data, arithmetic, settings.max_line, *loggers, language, stats)
    session.resume()
    return session


def _send(sock: socket.socket, ancillary: list[Ancillary], sender: Any, answer: bytes) -> None:
    """Send an answer from the address that was asked."""
    try:
        sock.sendmsg((answer,), reply_pktinfo(ancillary), 0, sender)
    except OSError as error:  # the network's or the system's doing, such as a full queue
        reason = (error.strerror or str(error)).lower()
        raise DropError("send-failed", f"cannot send the answer: {reason}") from None
