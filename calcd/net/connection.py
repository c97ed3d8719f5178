"""One connection: bytes between a socket and its session, and the deadlines."""

import errno
import logging
import select
import socket
import socketserver
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from calcd.config.endpoints import joined
from calcd.core.budget import TURN_LIMIT
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, printable
from calcd.core.interpreter import Interpreter
from calcd.core.session import CloseReason, Session
from calcd.daemon.ratelimit import bounded
from calcd.net.sockopt import acknowledge_now, set_read_wait, undelivered, unread

if TYPE_CHECKING:
    from ssl import SSLContext

    from calcd.core.tls import TlsSession
    from calcd.net.server import Server

log = bounded(__name__)
served = logging.getLogger("calcd.served")  # its lines all come

# What accept() gives: host, port and for IPv6 two more; for a Unix socket its path or name.
Address = tuple[Any, ...] | str | bytes

CHUNK = 1 << 16  # bytes of one read, which are answered with one write, unless that is long
_NOW = int(socket.MSG_DONTWAIT)  # flags as enums cost time with each call
_BULK = 1 << 12  # bytes of a read whose answers take a turn
_GLANCE = 1 << 14  # bytes of a read of the serving loop's, which has others to serve
_SEND_LOOKS = 8  # within send_timeout, at what a client has taken
_SOON = 0.2  # seconds in which a busy client asks again


class Handler(socketserver.BaseRequestHandler):
    """Serves one client: in the serving loop at first, then in a thread of its own.

    ``glance`` is called as long as that is enough, then ``handle`` and ``finish``. ``idle_since``
    is when the last reply was sent, in seconds of ``monotonic``.

    A client that is busy costs one system call for each read: the kernel lets it fail soon
    when nothing comes (SO_RCVTIMEO). Only then there is a call that waits until the deadline,
    and for the server's stop too.
    """

    request: socket.socket
    server: "Server"

    def __init__(
        self,
        request: socket.socket,
        client_address: Address,
        server: "Server",
        tls: "SSLContext | None" = None,
    ) -> None:
        # Not BaseRequestHandler's own __init__, which serves the client to its end.
        self.request, self.client_address, self.server = request, client_address, server
        self._tls = tls
        self.setup()

    def setup(self) -> None:
        """Begin the session, with the settings now in force: it keeps them."""
        self._began = self.idle_since = monotonic()
        self._unsent = b""  # what did not fit into one send
        self._line_began = 0.0
        self._line_ends = 0
        self._end = ""  # how the connection ended, where the session did not end it
        self._rejected = 0  # errors that are not the session's
        self._settings = settings = self.server.settings
        self._name = name_of(self.client_address)
        tracing = log.isEnabledFor(logging.DEBUG)
        if tracing:
            log.debug("connection %s opened: open=%d", self._name, self.server.places.taken)
        # Partials, not methods: a session that knew its handler would be garbage only a
        # collector finds.
        self._session = self._new_session(
            Interpreter(
                Arithmetic(settings.precision, settings.rounding),
                partial(_log_request, self._name) if tracing else None,
                partial(_log_bug, self._name),
            )
        )

    def _new_session(self, interpreter: Interpreter) -> "Session | TlsSession":
        session = Session(interpreter, self._settings.max_line)
        if self._tls is None:
            return session
        from calcd.core.tls import TlsSession  # a daemon without TLS need not know it

        return TlsSession(self._tls, session)

    def glance(self) -> bool:
        """Answer what has arrived, without waiting; say whether this may go on.

        It may not where the client would have to be waited for, or has a great deal to ask, or
        nothing: a thread keeps the deadlines.
        """
        session, connection = self._session, self.request
        try:
            data = connection.recv(_GLANCE, _NOW)
            replies = self._unsent = session.receive(data)
            if not replies:
                return False
            self.idle_since = monotonic()
            self._unsent = replies[connection.send(replies, _NOW) :]
        except BlockingIOError:
            return not self._unsent
        except OSError as error:
            self._failed(error)
            return False
        except Exception:
            self._end = "bug"
            self.server.handle_error(connection, self.client_address)
            return False
        more = session.has_partial_line or session.pending or len(data) == _GLANCE
        return not (more or self._unsent or session.close_reason)

    @property
    def ended(self) -> bool:
        """Whether the session or the connection has ended, and nothing is left to be sent."""
        return bool(self._end or (self._session.close_reason and not self._unsent))

    @property
    def client_has_closed(self) -> bool:
        """Whether the client is known to send nothing more, nor to wait for anything."""
        # Under TLS, close_notify is the end of its input, and not that of the connection.
        return self._session.close_reason is CloseReason.CLOSED and self.ended and not self._tls

    def handle(self) -> None:
        """Serve the client until the session or the connection has ended."""
        if self.ended:
            return
        try:
            set_read_wait(self.request, min(_SOON, self._settings.idle_timeout or _SOON))
            rest, self._unsent = self._unsent, b""
            self._answer(rest)
            self._converse()
            self._send(self._session.close())
        except OSError as error:
            self._failed(error)

    def turn_away(self, words: str) -> None:
        """End the connection, as there is no thread for it."""
        self._end = "busy"
        if not self._session.requests:  # who has been answered would take it for a reply
            self._rejected += 1
            send_refusal(self.request, "BUSY", words, self._tls is not None)

    def _failed(self, error: OSError) -> None:
        if self.server.stopping:
            self._end = "cut"
        elif isinstance(error, ConnectionError):
            self._end = "reset"
        elif not self._end:  # the network's doing, such as EHOSTUNREACH
            self._end = errno.errorcode.get(error.errno or 0, "error").lower()

    def _converse(self) -> None:
        server, session = self.server, self._session
        recv = self.request.recv
        while not (session.close_reason or self._end):
            if server.stopping:
                self._answer_what_arrived()
                break
            try:
                # Within a line it is the line's deadline that counts, not the next moments.
                data = recv(CHUNK, _NOW if session.has_partial_line else 0)
            except BlockingIOError:
                replies = b"" if self._something_comes() else self._time_is_up()
            else:
                replies = self._receive(data)
            if replies or session.pending:
                self._answer(replies)
                if self._tls and not session.requests:
                    acknowledge_now(self.request)
            elif self._patience() == 0 and not session.close_reason:
                self._answer(self._time_is_up())  # what keeps coming comes to nothing

    def _receive(self, data: bytes) -> bytes:
        if len(data) < _BULK:
            return self._session.receive(data)
        # Many threads that compute at once would leave the GIL to the serving loop but seldom.
        with self.server.turns.take(expensive=False):
            return self._session.receive(data, TURN_LIMIT)

    def _something_comes(self) -> bool:
        """Wait for the client, or for the server's stop, as long as there is patience."""
        poll = select.poll()
        poll.register(self.request, select.POLLIN)
        poll.register(self.server.connections.stop_of(self.request), select.POLLIN)
        return poll.poll(self._patience()) != []

    def _patience(self) -> float | None:
        """Return how many milliseconds the client may take from now on; None: for ever."""
        session, settings, now = self._session, self._settings, monotonic()
        if not session.has_partial_line:
            self._line_began = 0.0
            if not settings.idle_timeout:
                return None
            # Since the last reply: blank lines and telnet commands are no requests.
            until = self.idle_since + settings.idle_timeout
        else:
            if not self._line_began or session.lines_seen != self._line_ends:
                self._line_began, self._line_ends = now, session.lines_seen
            until = self._line_began + settings.line_timeout
            if self._lacks_newline_alone():
                until = min(until, now + settings.message_wait)
        return max(0.0, until - now) * 1000

    def _lacks_newline_alone(self) -> bool:
        return self._settings.message_wait > 0 and self._session.partial_line_is_request

    def _time_is_up(self) -> bytes:
        session = self._session
        if self._lacks_newline_alone():
            self._line_began = 0.0  # the next line begins anew, though this one had no end
            return session.flush_partial_line()
        if session.has_partial_line:
            return session.time_out()
        self._end = "idle-timeout"
        return b""

    def _answer_what_arrived(self) -> None:
        """Answer what had arrived when the stop came, however much the client still sends."""
        session, connection = self._session, self.request
        arrived = unread(connection)
        while arrived and not session.close_reason:
            data = connection.recv(min(CHUNK, arrived))
            arrived -= len(data)
            self._answer(self._receive(data))
        with suppress(BlockingIOError):
            if not connection.recv(1, _NOW | socket.MSG_PEEK):
                self._answer(session.receive(b""))  # the end of input has arrived as well
        if not session.close_reason:
            # Half a line is no request, unless its client never ends one.
            self._end = "stopped"
            if self._lacks_newline_alone():
                self._answer(session.flush_partial_line())

    def _answer(self, replies: bytes) -> None:
        """Send replies, and those to what is still pending."""
        session = self._session
        self._send(replies)
        while session.pending:
            with self.server.turns.take(session.expensive):
                replies = session.resume(TURN_LIMIT)
            self._send(replies)

    def _send(self, replies: bytes) -> None:
        """Send all of it; TimeoutError if the client takes nothing in its time."""
        rest: bytes | memoryview = replies
        while rest:
            try:
                sent = self.request.send(rest, _NOW)
            except BlockingIOError:
                self._wait_for_room()
            else:
                rest = memoryview(rest)[sent:] if sent < len(rest) else b""
                self.idle_since = monotonic()

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self.request, select.POLLOUT)
        # The kernel has room only once a third of its buffer is free (sk_stream_write_space):
        # a client that takes less than that in the time still reads.
        timeout = self._settings.send_timeout
        left, taken_at = undelivered(self.request), monotonic()
        while not poll.poll(timeout / _SEND_LOOKS * 1000):
            before, left = left, undelivered(self.request)
            if left < before:
                taken_at = monotonic()
            elif monotonic() - taken_at >= timeout:
                self._end = "unread"
                raise TimeoutError

    def finish(self) -> None:
        """Log the connection's one line."""
        session = self._session
        end = self._end or session.close_word
        only_pings = 0 < session.requests == session.pings
        errors = session.errors + self._rejected
        answered = session.requests > errors
        (served if answered else log).log(
            logging.DEBUG if only_pings else logging.INFO,
            "connection %s ended: requests=%d errors=%d seconds=%.3f how=%s",
            self._name,
            session.requests,
            errors,
            monotonic() - self._began,
            end or "bug",
        )


def send_refusal(connection: socket.socket, code: str, words: str, tls: bool = False) -> None:
    """Tell a client that it is not served, if it is still there; before a handshake, by alert."""
    said = f"{RequestError(code, words)}\n".encode()
    if tls:
        from calcd.core.tls import refusal

        said = refusal(code)
    with suppress(OSError):
        connection.send(said, _NOW)


def name_of(address: Address) -> str:
    """Name a client for the log by the address that accept() gave."""
    return joined(*address[:2]) if isinstance(address, tuple) else "unix"


def host_of(address: Address) -> str:
    """Give a client's host; that of a client on a Unix socket is ``""``."""
    return address[0] if isinstance(address, tuple) else ""


def _log_request(name: str, request: str, reply: str) -> None:
    log.debug("connection %s: %s -> %s", name, printable(request), printable(reply))


def _log_bug(name: str, request: str) -> None:
    log.exception("connection %s: a bug, met at the request %s", name, printable(request))
