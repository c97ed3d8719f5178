"""Relay between standard input, the server and standard output, as netcat does."""

import os
import select
import time

from calcd.client import transport
from calcd.client.counting import ReplyCounter, ReplySplitter
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import (
    CHUNK,
    CLOSED,
    STATE_LOST,
    TLS_ALERT,
    ClientError,
    describe,
    is_tls_alert,
)
from calcd.client.state import StreamState, continues
from calcd.client.streams import STDIN, STDOUT, Output, read_input
from calcd.client.transport import SHUT_WR, UDP, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE = 0.1  # seconds without a request on a new connection; then the server may have closed it


class Relay:
    """Sends requests and writes replies at the same time.

    `requests` come before the input, and the counter has counted them already. `linger` is the
    timeout in seconds after the end of the input. One chunk is held in each direction: while
    replies are not read, no input is read.

    A connection that the server closes while no reply is missing ends the run only at the end of
    the input. Further input is asked on a new connection, unless that would lose what the earlier
    requests have set. Whether a line after the first finds the last answer of its own connection
    depends on the replies before it, so that its reply tells.

    Where the endpoint has time to retry, a connection that ends without a byte is an attempt that
    failed, as that to a proxy whose server is not there yet. The same is asked on the next one.
    """

    def __init__(
        self,
        server: Stream,
        endpoint: Endpoint,
        requests: bytes,
        linger: float | None,
        counter: ReplyCounter,
        output: Output,
        *,
        reads_input: bool,
    ) -> None:
        self._endpoint, self._counter, self._output = endpoint, counter, output
        self._linger = linger
        self._lost_answer = False  # an earlier connection may have had one
        self._reading = reads_input  # standard input has not ended
        self._attempts: transport.Attempts | None = None  # while connections end without a byte
        self._use(server, requests)

    def _use(self, server: Stream, requests: bytes) -> None:
        """Begin to use a connection, on which nothing was asked yet, with these requests."""
        self._server: Stream | None = server
        self._sending = True  # our half of the connection is open
        self._broken = False  # the server accepts no more
        self._blocked = False  # the server has to take something before more can be sent
        self._connected = time.monotonic()
        self._had_reply = False
        self._results = self._counter.replies - self._counter.errors  # of earlier connections
        self._counter.begin_connection()
        self._unsent = requests
        self._waiting_since: float | None = None  # for the server, by the monotonic clock
        self._state = StreamState()
        self._state.add(requests)
        self._was_set = False  # the state before the requests that may be asked again
        # What was sent while all earlier requests had their replies, as long as it has none. None
        # if it cannot be asked again: the connection was not idle, or it is too long.
        self._repeatable: bytes | None = requests if self._endpoint.retry else None

    def run(self) -> int:
        """Relay to the end. Return the exit status. Raise ClientError if a reply is missing."""
        try:
            while self._server is not None or self._reading:
                self._step()
        finally:
            self._close()
        return self._counter.exit_status(self._endpoint.name, CLOSED)

    def _step(self) -> None:
        """Wait for one of the streams, and do what it is ready for."""
        server, number = self._server, -1
        poll = select.poll()
        poll.register(STDOUT, 0)  # no event: an error is reported once it has no reader
        if server is not None:
            number = server.fileno()
            writing = not self._broken and (self._unsent or (self._sending and not self._reading))
            poll.register(number, select.POLLIN | select.POLLOUT if writing else select.POLLIN)
        if self._reading and not (self._unsent or self._broken or self._is_full()):
            poll.register(STDIN, select.POLLIN)
        limit = self._limit()
        ready = dict(poll.poll(None if limit is None else self._time_left(limit) * 1000))
        if STDOUT in ready:
            raise BrokenPipeError
        if STDIN in ready:
            self._read()
        if server is None:
            return
        if ready.get(number, 0) & select.POLLOUT:
            self._send(server)
        if ready.get(number, 0) & ~select.POLLOUT:
            self._receive(server)
        elif not ready and limit is not None and not self._time_left(limit):
            self._give_up(f"silent for {limit:g} s")

    def _is_full(self) -> bool:
        """Return whether further input has to wait, so that what was sent can be asked again."""
        sent = self._repeatable if self._endpoint.retry and not self._had_reply else None
        return sent is not None and len(sent) > CHUNK and self._counter.is_owed

    def _limit(self) -> float | None:
        """Return how many seconds to wait for the server in all. Start or stop the wait.

        The server is waited for while it owes a reply or has to take requests, and after the end of
        the input. Otherwise the input is waited for, and that has no limit.
        """
        at_end = not self._reading and not self._sending
        limits = (self._endpoint.timeout, self._linger if at_end else None)
        limit = min(filter(None, limits), default=None)
        waiting = self._counter.is_owed or self._unsent or not self._reading
        if limit is None or self._server is None or not waiting:
            self._waiting_since = None
            return None
        self._waiting_since = self._waiting_since or time.monotonic()
        return limit

    def _time_left(self, limit: float) -> float:
        since = self._waiting_since or time.monotonic()
        return max(0, since + limit - time.monotonic())

    def _read(self) -> None:
        """Read from standard input. Connect again if there is no connection."""
        try:
            chunk = read_input()
        except ClientError as error:
            raise self._counter.failure(str(error)) from error
        self._reading = bool(chunk)
        if self._counter.is_answered:
            self._state.end_line()
            self._was_set = self._state.has_settings
            idle = self._had_reply or time.monotonic() - self._connected >= IDLE
            idle = idle or self._endpoint.retry > 0
            self._repeatable = b"" if idle else None
        if self._repeatable is not None:
            self._repeatable += chunk
            if len(self._repeatable) > 2 * CHUNK:
                self._repeatable = None
        self._state.add(chunk)
        self._counter.add_requests(chunk)
        if self._server is not None:
            self._unsent = chunk
        elif not self._counter.is_answered:
            self._renew(CLOSED)

    def _send(self, server: Stream) -> None:
        """Send what the server takes, and then the end of the input."""
        try:
            if self._unsent:
                self._unsent = self._unsent[server.send(self._unsent) :]
            else:
                server.shutdown(SHUT_WR)
                self._sending = False
                self._waiting_since = None
        except BlockingIOError:
            return
        except OSError:  # it accepts no more, but may have answered earlier requests
            self._broken = True
            return
        if self._blocked:  # what is left of an earlier chunk was taken: the server is alive
            self._waiting_since = None
        self._blocked = bool(self._unsent)

    def _receive(self, server: Stream) -> None:
        """Write replies. At the end of the connection, end the run or get ready for another."""
        try:
            chunk = server.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(describe(error))
            return
        if not chunk:
            self._lose(CLOSED)
            return
        if not self._had_reply and is_tls_alert(chunk):
            self._close()
            raise self._failure(TLS_ALERT, self._endpoint.hint())
        self._waiting_since = None
        self._had_reply, self._attempts = True, None
        self._repeatable = None
        accepted, problem = self._counter.check(chunk)
        if self._lost_answer and (start := self._counter.find_no_answer(chunk[:accepted])) >= 0:
            accepted, problem = start, f"{CLOSED}; {STATE_LOST}"
        self._counter.add_replies(chunk[:accepted])
        self._output.write(chunk[:accepted])
        if problem:
            self._close()
            raise self._failure(problem)

    def _lose(self, reason: str) -> None:
        """Close a connection that the server has closed. Ask on another what it did not take.

        Raise ClientError if the server has left a request without a reply.
        """
        if self._repeatable and not self._counter.is_answered:  # more than blank lines
            self._close()
            if self._endpoint.retry and not self._had_reply:
                self._attempts = self._attempts or transport.Attempts(self._endpoint)
                if not self._attempts.wait(f"{self._endpoint.name}: {reason}"):
                    raise self._failure(reason, self._endpoint.hint())
            self._renew(reason)
        else:
            self._give_up(reason, "" if self._counter.last_reply else self._endpoint.hint())

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._unsent = b""

    def _give_up(self, reason: str, hint: str = "") -> None:
        """End the connection. Raise ClientError if a reply is missing."""
        self._close()
        self._counter.end_connection()
        if not self._counter.is_answered:
            raise self._failure(reason, hint)
        # Who types QUIT at a terminal is done. Other input may have more, which is not asked.
        if self._counter.last_reply and os.isatty(STDIN):
            self._reading = False

    def _renew(self, reason: str) -> None:
        """Ask what has no reply on a new connection.

        Raise ClientError if the server has ended the session and not only the connection, or if the
        replies could depend on the connection that was lost.
        """
        requests = self._repeatable
        if requests is None or self._counter.last_reply:
            raise self._failure(reason)
        results = self._counter.replies - self._counter.errors - self._results
        first = requests.lstrip(b" \t\r\n").partition(b"\n")[0].decode(errors="replace")
        self._lost_answer = self._lost_answer or results > 0
        if self._was_set or (self._lost_answer and continues(first)):
            raise self._failure(f"{reason}; {STATE_LOST}")
        try:
            server = transport.connect(self._endpoint)
        except ClientError as error:
            raise self._counter.failure(str(error)) from error
        assert not isinstance(server, UDP)  # noqa: S101
        self._use(server, requests)

    def _failure(self, reason: str, hint: str = "") -> ClientError:
        """Return the error for the end of a connection that has left a request without a reply."""
        after = f" after {last}" if (last := self._counter.last_reply) else ""
        return self._counter.failure(f"{self._endpoint.name}: {reason}{after}", hint)


def relay_datagrams(
    server: UDP,
    endpoint: Endpoint,
    requests: bytes,
    counter: ReplyCounter,
    output: Output,
    *,
    reads_input: bool,
) -> int:
    """Send one request after the other, and write the replies. Return the exit status."""

    def ask(lines: bytes) -> None:
        for reply in server.replies(lines):
            try:
                ReplySplitter(1).add(reply)
            except ConnectionAbortedError as error:
                raise ClientError(f"{endpoint.name}: {error}") from None
            counter.add_replies(reply)
            output.write(reply)

    try:
        ask(requests)
        for lines in input_lines() if reads_input else ():
            counter.add_requests(lines)
            ask(lines)
    except ClientError as error:
        raise counter.failure(str(error)) from error
    return counter.exit_status(endpoint.name, "no more datagrams")


def input_lines() -> "Iterator[bytes]":
    """Yield standard input, cut after a newline. A last line without a newline gets one."""
    rest = b""
    while chunk := read_input():
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        yield lines + newline
        if len(rest) > CHUNK:
            break  # too long for a datagram, as the attempt to send it tells
    yield rest + b"\n"
