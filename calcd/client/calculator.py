"""`Calculator`, the Python API of the client."""

import os
import select

from calcd.client.protocol import (
    CHUNK,
    CLOSED,
    MAX_TIMEOUT,
    STATE_LOST,
    ReplySplitter,
    SessionState,
)
from calcd.client.streams import printable
from calcd.client.transport import check_idle

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable
    from decimal import Decimal
    from types import TracebackType


class CalculatorError(Exception):
    """An ERR reply. Its code is stable, its message is not. `str` escapes control characters."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return printable(f"{self.code} {self.message}")


class Calculator:
    """A connection to calcd.

        with Calculator("localhost", 12000) as calculator:
            calculator.evaluate("SOMA 0.1 0.2")  # Decimal("0.3")

    ``path`` is a Unix socket, and replaces host and port. ``timeout`` is in seconds, for the
    connection and then for each wait. None waits for ever. ``tls`` is the context for TLS, such as
    ``ssl.create_default_context()``. ``servername`` is the name that the server's certificate must
    have, by default the host.

    An ERR reply raises ``CalculatorError``. A failed connection raises what the standard library
    does: ``ConnectionError``, ``TimeoutError``, another ``OSError``. A request that is blank or has
    more than one line raises ``ValueError``, and so does any request after `close`.

    A lost connection is renewed once, and requests without a reply are sent again. The server may
    have closed it because it was idle. Names, settings and ``ans`` are lost with a connection.
    If replies could depend on them, ``ConnectionError`` is raised in place of a wrong result. A
    ``TimeoutError`` ends the connection, as a late reply would be taken for the next one. The next
    request then starts with a new connection and without state. A reply of more than 4 MiB, or one
    too many, ends the connection with ``ConnectionAbortedError``.

    A calculator must be used by one thread at a time.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 12000,
        *,
        path: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        tls: "ssl.SSLContext | None" = None,
        servername: str | None = None,
    ) -> None:
        if timeout is not None and not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"a timeout is more than 0 seconds, not {timeout}")
        self._host, self._port = host, port
        self._path = None if path is None else os.fspath(path)
        self._timeout = timeout
        self._tls = tls
        self._servername = host if servername is None and path is None else servername
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError,)
        self._state = SessionState()  # of the last connection
        self._used = False  # a request was sent on the connection
        self._closed = False
        self._server: socket.socket | None = self._connect()

    def evaluate(self, line: str) -> "Decimal":
        """Return the result of a request. Raise ValueError if it is not a number."""
        return parse_number(self.request(line))

    def request(self, line: str) -> str:
        """Return the reply to a request as text."""
        (reply,) = self.request_many([line])
        if isinstance(reply, CalculatorError):
            raise reply
        return reply

    def evaluate_many(self, lines: "Iterable[str]") -> "list[Decimal | CalculatorError]":
        """Return the results of many requests, sent without waiting for each reply.

        An error is returned in its place, and not raised.
        """
        replies = self.request_many(lines)
        return [reply if isinstance(reply, Exception) else parse_number(reply) for reply in replies]

    def request_many(self, lines: "Iterable[str]") -> list[str | CalculatorError]:
        """Return the replies to many requests as text, as `evaluate_many` does."""
        if self._closed:
            raise ValueError("the calculator is closed")
        requests = list(lines)
        encoded = [encode_request(request) for request in requests]
        replies: list[str] = []
        renewed = False
        while len(replies) < len(requests):
            renewed = renewed or self._server is None
            server = self._server or self._reconnect(requests[len(replies) :])
            try:
                self._exchange(server, requests, encoded, replies)
            except BaseException as error:
                self._disconnect()  # a late reply would be taken for that to the next request
                lost = isinstance(error, ConnectionError)
                if renewed or not lost or isinstance(error, ConnectionAbortedError):
                    raise
        return [parse_reply(reply) for reply in replies]

    def close(self) -> None:
        """Close the connection. Later requests raise ValueError."""
        self._closed = True
        self._disconnect()

    def __enter__(self) -> "Calculator":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def _connect(self) -> "socket.socket":
        """Return a new connection to the server."""
        import socket

        if self._path is None:
            server = socket.create_connection((self._host, self._port), self._timeout)
        else:
            server = socket.socket(socket.AF_UNIX)
        try:
            if self._path is None:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                server.settimeout(self._timeout)
                server.connect(self._path)
            if self._tls is not None:
                import ssl

                self._would_block = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
                server = self._tls.wrap_socket(server, server_hostname=self._servername)
            server.setblocking(False)
        except BaseException:
            server.close()
            raise
        self._used = False
        return server

    def _reconnect(self, requests: list[str]) -> "socket.socket":
        """Connect again. Raise ConnectionError if these requests may depend on lost state."""
        lost = self._state.affects(requests)
        self._state.reset()
        if lost:
            raise ConnectionError(f"the connection was lost, and {STATE_LOST}")
        self._server = self._connect()
        return self._server

    def _disconnect(self) -> None:
        """Close the connection, if there is one."""
        server, self._server = self._server, None
        if server is None:
            return
        try:
            if self._tls is not None:
                import ssl

                if isinstance(server, ssl.SSLSocket):
                    server.unwrap()  # sends close_notify, and does not block
        except (OSError, ValueError):
            return
        finally:
            server.close()

    def _exchange(
        self, server: "socket.socket", requests: list[str], encoded: list[bytes], replies: list[str]
    ) -> None:
        """Send the requests without a reply, and add their replies, both at the same time."""
        unsent = memoryview(b"".join(encoded[len(replies) :]))
        timeout = None if self._timeout is None else self._timeout * 1000
        splitter = ReplySplitter(len(requests) - len(replies))
        if self._used:
            check_idle(server, self._would_block)
        self._used = True
        poll = select.poll()
        poll.register(server, select.POLLIN | select.POLLOUT)
        while splitter.expected:
            if not poll.poll(timeout):
                raise TimeoutError(f"no reply for {self._timeout:g} s")
            try:
                if unsent:
                    unsent = unsent[server.send(unsent) :]
            except self._would_block:
                pass
            except ConnectionError:  # it accepts no more, but may have answered earlier requests
                unsent = unsent[:0]
            if not unsent:
                poll.modify(server, select.POLLIN)
            try:
                # Until nothing is left: poll does not report data that TLS has decrypted.
                while splitter.expected:
                    chunk = server.recv(CHUNK)
                    if not chunk:
                        raise ConnectionError(CLOSED)
                    for reply in splitter.add(chunk):
                        text = reply.decode(errors="replace")
                        self._state.record(requests[len(replies)], text)
                        replies.append(text)
            except self._would_block:
                pass


def encode_request(line: str) -> bytes:
    """Return a request as it is sent. Raise ValueError if it would not get exactly one reply."""
    if "\n" in line or "\r" in line:
        raise ValueError(f"a request is one line: {line!r}")
    if not line.strip(" \t"):
        raise ValueError("a blank request gets no reply")
    return line.encode() + b"\n"


def parse_reply(reply: str) -> str | CalculatorError:
    """Return a reply, as an error if it is an ERR."""
    if not reply.startswith("ERR "):
        return reply
    code, _, message = reply.removeprefix("ERR ").partition(" ")
    return CalculatorError(code, message)


def parse_number(reply: str) -> "Decimal":
    """Return a reply as a number, with all its digits. Raise ValueError if it is not one."""
    from decimal import Decimal, InvalidOperation

    try:
        value = Decimal(reply)
    except InvalidOperation:
        value = Decimal("NaN")
    if value.is_finite():
        return value
    raise ValueError(f"not a number, but {reply!r}: use request() for such replies")
