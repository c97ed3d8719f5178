"""`Calculator`, the Python API of the client."""

import os

from calcd.client.endpoint import Endpoint
from calcd.client.protocol import MAX_TIMEOUT, STATE_LOST, ClientError, ReplySplitter, SessionState
from calcd.client.streams import printable
from calcd.client.transport import Transport, connect, exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from decimal import Decimal


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
    more than one line raises ``ValueError``, and so does any request after `close`. An argument of
    a wrong type raises ``TypeError``, one out of range ``ValueError``.

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
        if path is None:
            if not isinstance(host, str):
                raise TypeError(f"host must be a str, not {host!r}")
            if not isinstance(port, int | str):
                raise TypeError(f"port must be an int, not {port!r}")
            port = int(port)
            if not 0 < port < 65536:  # getaddrinfo takes a larger one modulo 65536
                raise ValueError(f"port must be 1 to 65535, not {port}")
        if timeout is not None and not 0 < timeout <= MAX_TIMEOUT:
            limit = f"more than 0 seconds, and at most {MAX_TIMEOUT:.0f}"
            raise ValueError(f"timeout must be {limit}, not {timeout}")
        if tls is not None:
            from ssl import SSLContext

            if not isinstance(tls, SSLContext):
                raise TypeError(f"tls must be an ssl.SSLContext, not {tls!r}")
        elif servername is not None:
            raise ValueError("servername is only meaningful with tls")
        self._endpoint = Endpoint(host, str(port), None if path is None else os.fspath(path))
        self._endpoint.timeout = timeout
        self._endpoint.tls = tls
        if servername is not None:
            self._endpoint.servername = servername
        self._state = SessionState()  # of the last connection
        self._closed = False
        self._server: Transport | None = self._connect()

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
        if isinstance(lines, str):  # each of its letters would be a request
            raise TypeError(f"requests must be a list of str, not {lines!r}")
        requests = list(lines)
        encoded = [encode_request(request) for request in requests]
        replies: list[str] = []
        renewed = self._server is None
        while len(replies) < len(requests):
            try:
                self._exchange(requests, encoded, replies)
            except ConnectionError as error:
                if renewed or isinstance(error, ConnectionAbortedError):
                    raise
                renewed = True
        return [parse_reply(reply) for reply in replies]

    def close(self) -> None:
        """Close the connection. Later requests raise ValueError."""
        self._closed = True
        self._disconnect()

    def __enter__(self) -> "Calculator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> Transport:
        self._used = False  # no request was sent on the connection
        try:
            return connect(self._endpoint)
        except ClientError as error:
            raise error.__cause__ or error from None

    def _disconnect(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _exchange(self, requests: list[str], encoded: list[bytes], replies: list[str]) -> None:
        """Send the requests without a reply, and add their replies. Connect first if needed.

        Raise ConnectionError if these requests may depend on the state of a lost connection.
        """
        first = len(replies)
        if self._server is None:
            lost = self._state.affects(requests[first:])
            self._state.reset()
            if lost:
                raise ConnectionError(f"the connection was lost, and {STATE_LOST}")
            self._server = self._connect()
        reused, self._used = self._used, True
        unsent = b"".join(encoded[first:])
        splitter = ReplySplitter(len(requests) - first)
        try:
            for reply in exchange(self._server, unsent, splitter, self._endpoint, reused=reused):
                text = reply.decode(errors="replace")
                self._state.record(requests[len(replies)], text)
                replies.append(text)
        except BaseException as error:
            self._disconnect()  # a late reply would be taken for that to the next request
            if isinstance(error, ClientError):
                raise error.__cause__ or error from None
            if isinstance(error, TimeoutError) and error.errno is None:
                raise TimeoutError(f"no reply for {self._endpoint.timeout:g} s") from None
            raise


def encode_request(line: str) -> bytes:
    """Return a request as it is sent.

    Raise ValueError if it would not get exactly one reply, TypeError if it is not a str.
    """
    if not isinstance(line, str):
        raise TypeError(f"a request must be a str, not {line!r}")
    if "\n" in line or "\r" in line:
        raise ValueError(f"a request is one line: {line!r}")
    if not line.strip(" \t\0\ufeff"):
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
    from decimal import Context, Decimal

    value = Decimal(reply, Context(traps=[]))  # NaN if it is not a number; never rounded
    if value.is_finite():
        return value
    raise ValueError(f"not a number, but {reply!r}: use request() for such replies")
