"""What `Calculator` and `AsyncCalculator` share: all but input and output.

A `CalculatorSession` outlives its connections. It decides whether requests may be sent on a new
one, and what an error says. A `Batch` is the requests of one call, with the replies that have
arrived.
"""

from weakref import WeakSet

from calcd.client.counting import ReplySplitter
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import STATE_LOST, ClientError, describe, is_quit
from calcd.client.replies import QUOTED, CalculatorError, encode_request, parse_reply
from calcd.client.state import SessionState
from calcd.client.streams import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class CalculatorSession:
    """The arguments of a calculator, and what its last connection has on the server.

    Names and settings are those of all callers: threads, or tasks of asyncio. Where they are lost
    with a connection, each caller that has used it is told once. A caller that was not could take
    the result of another's new connection for one with its own settings.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.closed = False
        self._state = SessionState()
        self._used = False  # a request was sent on the connection
        self._splitter = ReplySplitter(0)  # of the last exchange
        self._replied = False  # a request has its reply
        self._last = ""  # reply of the current exchange
        self._callers: WeakSet[object] = WeakSet()  # that have used the connection
        self._untold: WeakSet[object] = WeakSet()  # whose names or settings were lost

    def describe(self, connected: bool) -> str:
        """Return the server and the state of the connection, for a `repr`."""
        tls = " over TLS" if self.endpoint.tls else ""
        state = "closed" if self.closed else "connected" if connected else "not connected"
        return printable(f"{self.endpoint.name}{tls}, {state}")

    def check_open(self) -> None:
        """Raise ValueError after `close`."""
        if self.closed:
            raise ValueError(printable(f"the calculator of {self.endpoint.name} is closed"))

    def check_state(self, requests: list[str], caller: object, connected: bool) -> None:
        """Raise ConnectionError if the replies may depend on what was lost with a connection.

        That is forgotten if there is no connection, as it belongs to none.
        """
        self.check_open()
        lost = False
        if not connected:
            if self._state.has_settings:
                self._untold |= self._callers
            lost = self._state.affects(requests)
            self._state.reset()
            self._callers.clear()
        if lost or caller in self._untold:
            self._untold.discard(caller)
            raise ConnectionError(
                printable(f"{self.endpoint.name}: the connection was lost, and {STATE_LOST}")
            )

    def start_connection(self) -> None:
        """Record that there is a new connection, or an attempt at one."""
        self._used = self._replied = False
        self._last = ""

    def start_exchange(self, caller: object, count: int) -> tuple[ReplySplitter, bool]:
        """Record that a caller sends this number of requests.

        Return what splits the replies, and whether the connection was used before.
        """
        self._callers.add(caller)
        self._last = ""
        self._splitter = ReplySplitter(count)
        reused, self._used = self._used, True
        return self._splitter, reused

    def record(self, request: str, reply: str) -> None:
        """Record a reply."""
        self._replied, self._last = True, reply
        self._state.record(request, reply)

    def explain(self, error: BaseException) -> BaseException:
        """Return the error of the standard library, and let it say where, and what may help.

        Its class and attributes stay as they are.
        """
        endpoint = self.endpoint
        if self.closed and isinstance(error, OSError | ClientError):
            return ConnectionAbortedError(printable(f"{endpoint.name}: the calculator was closed"))
        if isinstance(error, ClientError):  # it says so, and its cause does not
            reason = str(error)
            if not isinstance(error.__cause__, OSError):
                return ValueError(printable(reason))  # a host that cannot be a name
            error = error.__cause__
        elif not isinstance(error, OSError):
            return error
        else:
            reason = f"{endpoint.name}: {self._reason(error)}"
            if self._used and not self._replied and not self._splitter.started:
                reason += endpoint.hint()
            elif isinstance(error, ConnectionError) and self._last.startswith("ERR "):  # the reason
                reason += f", after {self._last[:QUOTED]}"
        number, text = error.errno, printable(reason)
        error.args = (text,) if number is None else (number, text)
        if number is not None:
            error.strerror = text
        return error

    def _reason(self, error: OSError) -> str:
        if isinstance(error, TimeoutError) and error.errno is None:
            return f"no reply for {self.endpoint.timeout:g} s" if self._used else "timed out"
        if self.endpoint.tls is not None:
            import ssl

            from calcd.client.tls import describe_tls

            if isinstance(error, ssl.SSLError):
                return f"TLS: {describe_tls(error, self.endpoint.hints)}"
        return describe(error)


class Batch:
    """The requests of one call, and the replies to the first of them."""

    def __init__(self, session: CalculatorSession, caller: object, lines: "Iterable[str]") -> None:
        """Take the requests. Raise TypeError or ValueError if one of them cannot be sent."""
        if isinstance(lines, str | bytes):  # each of its letters would be a request
            raise TypeError(f"requests must be a list of str, not {lines!r}")
        self._session, self._caller = session, caller
        self._requests = list(lines)
        self._encoded = [encode_request(request) for request in self._requests]
        if any(map(is_quit, self._requests[:-1])):
            raise ValueError("QUIT ends the connection: no request may follow it")
        self._replies: list[str] = []
        self._renewed = False  # must not connect once more

    @property
    def is_complete(self) -> bool:
        """Return whether each request has its reply."""
        return len(self._replies) == len(self._requests)

    @property
    def results(self) -> list[str | CalculatorError]:
        """Return the replies, errors as such."""
        return [parse_reply(reply) for reply in self._replies]

    def prepare(self, connected: bool) -> None:
        """Check that the requests without a reply may be sent, after a new connection if needed.

        Raise ValueError if the calculator is closed, ConnectionError if they depend on lost state.
        """
        unanswered = self._requests[len(self._replies) :]
        self._session.check_state(unanswered, self._caller, connected)
        self._renewed = self._renewed or not connected

    def start(self) -> tuple[bytes, ReplySplitter, bool]:
        """Start an exchange on a connection.

        Return what to send, what splits the replies, and whether the connection was used before.
        """
        first = len(self._replies)
        count = len(self._requests) - first
        splitter, reused = self._session.start_exchange(self._caller, count)
        return b"".join(self._encoded[first:]), splitter, reused

    def add(self, reply: bytes) -> None:
        """Add the next reply."""
        text = reply.decode(errors="replace")
        self._session.record(self._requests[len(self._replies)], text)
        self._replies.append(text)

    def fail(self, error: BaseException) -> None:
        """Return if a new connection may help after an error. Else raise it, explained."""
        lost = isinstance(error, ConnectionError) and not isinstance(error, ConnectionAbortedError)
        if not lost or self._renewed or self._session.closed:
            raise self._session.explain(error) from None
        self._renewed = True
