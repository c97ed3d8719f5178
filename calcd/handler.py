"""One connection: bytes between a socket and its session, and the deadlines."""

import errno
import fcntl
import logging
import socket
import socketserver
import struct
import sys
import termios
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from calcd.arithmetic import Arithmetic
from calcd.endpoints import joined
from calcd.errors import quoted
from calcd.session import Session

if TYPE_CHECKING:
    from calcd.server import Server

log = logging.getLogger(__name__)

CHUNK = 1 << 16  # bytes of one read, which are answered with one write
_SOON = 0.001  # seconds: 0 would be for ever
_TIMEVAL = struct.Struct("@ll")
_TCP_CLOSE_WAIT = 8  # the state, in the first byte of TCP_INFO, after the peer's FIN


class Handler(socketserver.BaseRequestHandler):
    """Serves one client, in a thread of its own.

    The kernel keeps the time: SO_RCVTIMEO lets a read fail that waits too long, where a
    socket with a timeout of Python's needs a second system call for each read. It is set
    anew only when the wait changes, which it does not between whole requests.
    """

    request: socket.socket
    server: "Server"

    def setup(self) -> None:
        """Begin the session, with the settings now in force: it keeps them."""
        self._began = self._idle_since = monotonic()
        self._line_began = 0.0
        self._line_ends = 0
        self._wait = -1.0  # seconds that reads wait now
        self._end = ""  # how the connection ended, where the session did not end it
        self._settings = settings = self.server.settings
        self._name = name_of(self.client_address)
        tracing = log.isEnabledFor(logging.DEBUG)
        if tracing:
            log.debug("connection %s opened: open=%d", self._name, self.server.places.taken)
        # Partials, not methods: a session that knew its handler would be garbage only a
        # collector finds.
        self._session = Session(
            Arithmetic(settings.precision, settings.rounding),
            settings.max_line,
            partial(_log_request, self._name) if tracing else None,
            partial(_log_bug, self._name),
        )

    def handle(self) -> None:
        """Serve the client until the session or the connection has ended."""
        try:
            self._set(socket.SO_SNDTIMEO, self._settings.send_timeout)
            self._converse()
        except BlockingIOError:  # SO_SNDTIMEO is over
            self._end = "unread"
        except ConnectionError:
            self._end = "reset"
        except OSError as error:  # the network's doing, such as EHOSTUNREACH
            self._end = errno.errorcode.get(error.errno or 0, "error").lower()

    def _converse(self) -> None:
        session = self._session
        receive, recv = session.receive, self.request.recv
        idle_timeout = self._settings.idle_timeout
        self._wait_for(idle_timeout)
        while not (session.finished or self._end):
            try:
                data = recv(CHUNK)
            except BlockingIOError:
                replies = self._time_is_up()
            else:
                if self.server.stopping:
                    self._answer_what_arrived(data)
                    break
                replies = receive(data)
            if replies:
                self._send(replies)
                self._idle_since = monotonic()
            if session.line or not replies or self._wait != idle_timeout:
                self._wait_for(self._patience())

    def _patience(self) -> float:
        """Return how many seconds the next read may wait; 0: for ever."""
        session, settings, now = self._session, self._settings, monotonic()
        if not session.started:
            self._line_began = 0
            until = self._idle_since + settings.idle_timeout
            # Not the whole time anew: blank lines and telnet commands are no requests.
            return max(until - now, _SOON) if settings.idle_timeout else 0
        if settings.message_wait and session.complete:
            return settings.message_wait
        if not self._line_began or session.line_ends != self._line_ends:
            self._line_began, self._line_ends = now, session.line_ends
        return max(self._line_began + settings.line_timeout - now, _SOON)

    def _time_is_up(self) -> bytes:
        session = self._session
        if self._settings.message_wait and session.complete:
            return session.keep_silence()
        if session.started:
            return session.time_out()
        self._end = "idle-timeout"
        return b""

    def _answer_what_arrived(self, data: bytes) -> None:
        """Answer what had arrived when the stop came, however much the client still sends."""
        session, connection = self._session, self.request
        arrived = _unread(connection)
        at_end = _client_has_ended(connection)
        while data and not session.finished:
            if replies := session.receive(data):
                self._send(replies)
            data = connection.recv(min(CHUNK, arrived)) if arrived else b""
            arrived -= len(data)
        if not session.finished:
            # Half a line is no request, unless its client never ends one.
            self._end = "stopped"
            if at_end or session.complete:
                self._send(session.keep_silence())

    def _send(self, replies: bytes) -> None:
        """Send all of it; BlockingIOError if the client makes no room for more in its time.

        The first try does not wait. Were it to, it would fill the system's buffers and then
        let the time pass, and what it had put into them would look as if the client read.
        """
        try:
            sent = self.request.send(replies, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        while sent < len(replies):
            sent += self.request.send(memoryview(replies)[sent:])

    def _wait_for(self, seconds: float) -> None:
        if seconds != self._wait:
            self._wait = seconds
            self._set(socket.SO_RCVTIMEO, seconds)

    def _set(self, option: int, seconds: float) -> None:
        whole = int(seconds)
        timeval = _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
        self.request.setsockopt(socket.SOL_SOCKET, option, timeval)

    def finish(self) -> None:
        """Log the connection's one line; close it at once if its client has."""
        session = self._session
        end = self._end or session.finished
        only_pings = 0 < session.requests == session.pings
        log.log(
            logging.DEBUG if only_pings else logging.INFO,
            "connection %s ended: requests=%d errors=%d seconds=%.3f how=%s",
            self._name,
            session.requests,
            session.errors,
            monotonic() - self._began,
            end or "bug",
        )
        if end in ("closed", "reset"):
            self.request.close()


def name_of(address: tuple[str, int] | str) -> str:
    """Name a client for the log by the address that accept() gave."""
    return joined(address[0], address[1]) if isinstance(address, tuple) else "unix"


def _unread(connection: socket.socket) -> int:
    """Count the bytes that have arrived and were not read yet."""
    count = fcntl.ioctl(connection, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def _client_has_ended(connection: socket.socket) -> bool:
    """Tell whether the client has ended its input, where our own SHUT_RD looks the same."""
    if connection.family == socket.AF_UNIX:
        return False
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE_WAIT


def _log_request(name: str, request: str, reply: str) -> None:
    log.debug("connection %s: %s -> %s", name, quoted(request), quoted(reply))


def _log_bug(name: str, request: str) -> None:
    log.exception("connection %s: a bug, met at the request %s", name, quoted(request))
