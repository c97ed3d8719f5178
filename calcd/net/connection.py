"""One client's connection: read, answer and write without waiting, and the deadlines."""

import enum
import errno
import logging
import math
import select
import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from calcd.config.settings import Settings
from calcd.core.budget import TURN_LIMIT
from calcd.core.closing import CloseReason
from calcd.core.errors import RequestError
from calcd.core.job import Job, Outcome
from calcd.core.session import Session
from calcd.net.clients import Address, host_of, name_of, refuse
from calcd.net.semaphore import FairSemaphore
from calcd.net.sockopt import acknowledge_now, bytes_readable, bytes_unacked

if TYPE_CHECKING:  # a daemon without TLS need not import ssl
    from calcd.core.proxied import ProxiedSession
    from calcd.core.tls import TlsSession

log = logging.getLogger(__name__)
access_log = logging.getLogger("calcd.access")  # never rate-limited

CHUNK = 1 << 16  # bytes of one read
_NOW = int(socket.MSG_DONTWAIT)  # an int: flags as enums cost time with each call
_MAX_UNSENT = 1 << 14  # bytes of replies that are sent before more are worked out
# A load balancer that only looks whether the port is open closes or resets without a byte.
_ENDS_OF_PROBES = {"closed", "reset"}
_SEND_CHECKS = 8  # within send_timeout: whether the client has taken something

TRANSPORTS = ("tcp", "tls", "unix")
_NETWORK_ERROR = "network-error"  # in place of each error's own name
# How a connection can end that its session has not ended: words of the log, but for the last.
ENDS = (
    *("idle-timeout", "unread", "stopped", "cut", "reset", "busy", "bug"),
    _NETWORK_ERROR,
)


class Wait(enum.Enum):
    """What a connection waits for; the value is poll(2)'s event."""

    READ = select.POLLIN
    WRITE = select.POLLOUT
    TURN = 0  # to answer more of what was read
    JOB = -1  # for the outcome of ``Connection.job``


# Looked up once: an attribute of an enum costs a call of a function each time (CPython 3.11).
_READ, _WRITE, _TURN, _JOB = Wait
_CLOSED = CloseReason.CLOSED


class Connection:
    """A state machine with two drivers: the serving loop, and a thread that may block.

    ``step`` does all that can be done without waiting. The serving loop calls it when the client
    has sent something; a thread calls ``run``. ``idle_since`` is when the last reply was sent, in
    seconds of ``monotonic``. ``idle_timeout`` is how long the client may take for the next request,
    in seconds; 0: no limit. ``host`` is what limits and queues count it as. ``transport`` is one of
    ``TRANSPORTS``. ``received`` and ``sent`` are in bytes. ``is_counted`` says that they and
    ``counters``, the session's, are in the totals of ``Stats``. ``awaits_header``: the PROXY header
    is not complete.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        session: "Session | TlsSession | ProxiedSession",
        settings: Settings,
        stop_fd: int,
        tls: bool = False,
        proxied: bool = False,
    ) -> None:
        """``address`` is the client's; ``stop_fd`` becomes readable at the stop.

        ``proxied``: it is a proxy's, until ``identify`` is called.
        """
        self.sock, self.address = sock, address
        self._session, self._settings = session, settings
        self.counters = session.counters
        self.awaits_header, self._is_quiet = proxied, False
        self.host = "" if proxied else host_of(address)
        # A header is due like the rest of a line.
        self.idle_timeout = settings.line_timeout if proxied else settings.idle_timeout
        self._stop_fd, self.tls = stop_fd, tls
        # Of the socket, whatever address a proxy names.
        self.transport = "tls" if tls else "tcp" if isinstance(address, tuple) else "unix"
        self._unsent = b""
        self.received = self.sent = 0
        self.is_counted = False
        self._no_progress = False  # the last read produced no reply
        self._filled = False  # the last read was full: more may have arrived
        self._closing = False
        self.waits_for_job = False  # neither the loop nor a thread serves it
        self._rejected = False  # got BUSY, which the session did not count
        self._end = ""  # how the connection ended, where the session did not end it
        self._to_read: int | None = None  # at the stop: bytes that have arrived, yet unread
        self._opened = self.idle_since = monotonic()
        self._line_opened = 0.0
        self._lines_seen = 0
        self._requests = 0  # of the session, when something was last sent
        self._replying = False  # the unsent bytes hold a reply

    def step(self, size: int = CHUNK, limit: float = TURN_LIMIT) -> Wait | None:
        """Read at most ``size`` bytes, answer and write; return what to wait for, None at the end.

        What is left over of an earlier read is answered first, up to the cost ``limit`` in the
        units of ``Budget``. Connection errors end the connection; any other exception is a bug.
        """
        session = self._session
        try:
            if not (self._end or self._closing):
                if session.pending and self._may_resume:
                    self._unsent += session.resume(limit)
                elif not (self._unsent or session.pending or session.close_reason):
                    self._read(size)
            return self._write()
        except BlockingIOError:
            if self._to_read is not None and not self._unsent:
                self._to_read = 0  # at a stop there is nothing to wait for
            return _WRITE if self._unsent else _READ
        except ConnectionError:
            self.end("reset")
        except OSError as error:  # of the network, such as EHOSTUNREACH
            self.end(errno.errorcode.get(error.errno or 0, "error").lower())
        return None

    @property
    def has_failed_handshake(self) -> bool:
        """Whether the client has sent something, and there is still a handshake to be done."""
        # Not ``received``: a proxy's check of the port sends its header and no more.
        return not self._session.is_established and self._session.has_received

    @property
    def end_reason(self) -> str:
        """Why the connection ended: one of ``ENDS``, or the value of a ``CloseReason``."""
        if self._end:
            return self._end if self._end in ENDS else _NETWORK_ERROR
        reason = self._session.close_reason
        return reason._value_ if reason else "bug"  # ``value`` is a property, and slow

    @property
    def is_prompt(self) -> bool:
        """Whether the client sends complete lines, less than one full read at a time, and in time.

        Blank lines are no requests: they do not keep an idle client.
        """
        if self._filled or self._session.has_partial_line:
            return False
        return not self._no_progress or monotonic() < self.idle_deadline

    @property
    def idle_deadline(self) -> float:
        """When the client must have made its next request, in seconds of ``monotonic``."""
        return self.idle_since + (self.idle_timeout or math.inf)

    @property
    def is_within_line(self) -> bool:
        """Whether the client has begun a line, and all that has arrived of it was read."""
        return self._session.has_partial_line and not self._filled

    @property
    def closed_by_client(self) -> bool:
        """Whether the client is known to send nothing more, nor to wait for anything."""
        # Under TLS, close_notify is the end of its input, and not that of the connection.
        return self._session.close_reason is _CLOSED and not (self._unsent or self.tls)

    def identify(self, session: "Session | TlsSession", quiet: bool) -> None:
        """Go on with the client that a PROXY header has named; ``address`` and ``host`` are set.

        ``quiet``: the connection is not logged but at ``debug``.
        """
        self._session, self.counters, self._is_quiet = session, session.counters, quiet
        self.awaits_header, self.idle_timeout = False, self._settings.idle_timeout

    def expire(self) -> Wait | None:
        """End the connection because its ``idle_deadline`` is over; return what to wait for."""
        self._time_out(_READ)
        return self.step()

    def stop(self) -> Wait | None:
        """End the connection of a client that has sent nothing; return what to wait for."""
        self._to_read = 0
        wait = self.step()
        while wait is _READ:
            wait = self.step()
        return wait

    def run(self, turns: FairSemaphore) -> Job | None:
        """Serve the client in a thread that may block; return a job, or None at the end.

        Between waits the thread has one of the ``turns``.
        """
        wait = self._next()
        while wait is not None:
            if wait is _JOB:
                return self.job
            if wait is not _TURN and not self._block(wait):
                self._time_out(wait)
            with turns:
                wait = self.step()
        return None

    @property
    def job(self) -> Job | None:
        """An expensive line that the client waits for."""
        return self._session.job

    def complete(self, outcome: Outcome | None) -> None:
        """Take the outcome of the job; None: it was refused. Then call ``step``."""
        self._unsent += self._session.complete(outcome)

    def reject(self, error: RequestError) -> bool:
        """End the connection because there is no thread for it; return whether it was told."""
        self._end = "busy"
        self._rejected = not self._session.counters.requests
        if self._rejected:  # else the client would take the error for a reply
            refuse(self.sock, error, self._settings, self.tls)
        return self._rejected

    def end(self, how: str) -> None:
        """End the connection without sending anything more; ``how`` is for the log."""
        self._unsent, self._closing = b"", True
        self._end = self._end or how

    def cut(self) -> None:
        """End the connection at once, whatever its thread does: that finds it shut down."""
        self._end = "cut"
        with suppress(OSError):  # it may be closed by now
            self.sock.shutdown(socket.SHUT_RDWR)

    def log_end(self) -> None:
        """Log the connection's one line."""
        session = self._session
        how = self._end or session.close_word or "bug"
        is_probe = not session.has_received and how in _ENDS_OF_PROBES
        only_pings = 0 < session.counters.requests == session.counters.pings
        answered = session.counters.requests > session.counters.errors
        (access_log if answered else log).log(
            logging.DEBUG if is_probe or only_pings or self._is_quiet else logging.INFO,
            "connection %s ended: requests=%d errors=%d seconds=%.3f how=%s",
            name_of(self.address),
            session.counters.requests,
            session.counters.errors + self._rejected,
            monotonic() - self._opened,
            how,
        )

    def _read(self, size: int) -> None:
        """Read once and answer; raise BlockingIOError if nothing has come."""
        if self._to_read is not None:
            size = min(size, self._to_read)
            if not size:
                self._read_end()
                return
        data = self.sock.recv(size, _NOW)
        length = len(data)
        self.received += length
        if self._to_read is not None:
            self._to_read -= length  # recv(2) ends before a byte that was sent as urgent
        self._filled = length == size
        self._unsent = self._session.receive(data)
        self._no_progress = not (self._unsent or self._session.pending)

    def _read_end(self) -> None:
        """At a stop: see whether the end of input has arrived too, and end the session."""
        session = self._session
        with suppress(BlockingIOError):
            if not self.sock.recv(1, _NOW | socket.MSG_PEEK):
                self._unsent = session.receive(b"")
        if not (session.close_reason or session.pending):
            # Half a line is no request, unless its client never ends one.
            if self._only_newline_missing():
                self._unsent = session.flush_partial_line()
            if not session.pending:  # else this is called again once its job is done
                self._end = "stopped"

    def _write(self) -> Wait | None:
        """Send the replies; return what to wait for."""
        session = self._session
        if self._unsent and not (session.pending and self._may_resume):
            # Without a new request these are bytes of TLS, such as a KeyUpdate.
            requests = self.counters.requests
            self._replying = self._replying or requests != self._requests
            self._requests = requests
            length = self.sock.send(self._unsent, _NOW)
            self.sent += length
            self._unsent = self._unsent[length:]
            if self._replying:
                self.idle_since = monotonic()
                self._replying = self._unsent != b""
        if self.tls and not session.counters.requests:
            acknowledge_now(self.sock)
        return self._next()

    @property
    def _may_resume(self) -> bool:
        """Whether what is pending can be answered at once, and there is room for replies."""
        return not self._session.job and len(self._unsent) < _MAX_UNSENT

    def _next(self) -> Wait | None:
        """Return what to wait for; None if the connection has ended."""
        session = self._session
        if not self._closing:
            if session.pending and self._may_resume:
                return _TURN
            if self._unsent:
                return _WRITE
            if session.job and not self._end:
                return _JOB
            if not (session.close_reason or self._end):
                return _READ
            self._closing = True
            self._unsent = session.close()
        return _WRITE if self._unsent else None

    def _block(self, wait: Wait) -> bool:
        """Wait for the client, or for the stop; return False when its time is up."""
        poll = select.poll()
        poll.register(self.sock, wait.value)
        if wait is _WRITE:
            return self._block_for_room(poll)
        if self._to_read is not None:  # a stop: what has arrived is read without waiting
            return True
        poll.register(self._stop_fd, select.POLLIN)
        seconds = self._seconds_left()
        ready = dict(poll.poll(None if seconds is None else seconds * 1000))
        if self._stop_fd in ready:
            self._to_read = bytes_readable(self.sock)
            return True
        # A client that never pauses may send blanks, or one endless line: its time ends too.
        return bool(ready) and not (self._no_progress and seconds == 0)

    def _block_for_room(self, poll: select.poll) -> bool:
        """Wait for room to send; return False if the client takes nothing for send_timeout."""
        # The kernel has room only once a third of its buffer is free (sk_stream_write_space): a
        # client that takes less than that in the time still reads.
        timeout = self._settings.send_timeout
        left, taken_at = bytes_unacked(self.sock), monotonic()
        while not poll.poll(timeout / _SEND_CHECKS * 1000):
            before, left = left, bytes_unacked(self.sock)
            if left < before:
                taken_at = monotonic()
            elif monotonic() - taken_at >= timeout:
                return False
        return True

    def _seconds_left(self) -> float | None:
        """Return how many seconds the client may take to send more; None: for ever."""
        session, settings, now = self._session, self._settings, monotonic()
        if not session.has_partial_line:
            self._line_opened = 0.0
            if not self.idle_timeout:
                return None
            # Since the last reply: blank lines and telnet commands are no requests.
            until = self.idle_deadline
        else:
            if not self._line_opened or session.counters.lines != self._lines_seen:
                self._line_opened, self._lines_seen = now, session.counters.lines
            until = self._line_opened + settings.line_timeout
            if self._only_newline_missing():
                until = min(until, now + settings.message_wait)
        return max(0.0, until - now)

    def _only_newline_missing(self) -> bool:
        return self._settings.message_wait > 0 and self._session.partial_line_is_request

    def _time_out(self, wait: Wait) -> None:
        """Flush or refuse the partial line, or end the connection: the client's time is over."""
        session = self._session
        if wait is _WRITE:
            self.end("unread")
        elif self._only_newline_missing():
            self._line_opened = 0.0  # the next line gets a new deadline, though this one had no end
            self._unsent = session.flush_partial_line()
        elif session.has_partial_line or self.awaits_header:
            self._unsent = session.time_out()
        else:
            self._end = "idle-timeout"
