"""Requests sent far ahead of their replies, over a connection that is renewed if it is lost."""

import time
from itertools import chain

from calcd.client.counting import ReplySplitter
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import IGNORED, REFUSALS, STATE_LOST, ClientError, describe, is_error
from calcd.client.transport import (
    MAX_RETRY_PAUSE,
    RETRY_PAUSE,
    UDP,
    Transport,
    connect,
    exchange,
    stream,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


# What a server says of a connection and not of a request. It serves no request after that.
ENDS = (*REFUSALS, b"ERR TIMEOUT")


class RefusedError(ClientError):
    """The server does not serve the connection: it has too many, or this one may not be."""


class Pipeline:
    """A connection on which many requests wait for their replies.

    A lost connection is renewed, and the requests without a reply are sent again: the server may
    have closed it because it was idle, or may have been restarted. `restore` is called with each
    new connection, to set again what was set on the one before. A connection that brings no reply
    after it was renewed is not renewed again, except for as long as the endpoint says that a server
    is waited for: a load balancer accepts and closes while no server is behind it. `setup` are
    requests, as lines, which `set_up` asks.

    All methods raise ClientError if a request gets no reply, and RefusedError if the server says
    that it serves none. A connection that was refused is not renewed.
    """

    def __init__(self, server: Transport, endpoint: Endpoint, setup: bytes) -> None:
        self._server = server
        self._endpoint = endpoint
        self._setup = lines_of(setup)
        self._splitter = ReplySplitter(0)
        self._unanswered: list[bytes] = []  # batches
        self._answered = 0  # requests of the first of them
        self._reused = False  # something was sent on the connection
        self._pauses: Iterator[bool] | None = None  # since connections bring nothing
        self.restore: Callable[[], None] = self.set_up_again

    @property
    def owed(self) -> int:
        """How many replies are still to come."""
        return self._splitter.expected

    def set_up(self, more: "Iterable[bytes]" = ()) -> list[bytes]:
        """Return the replies to the setup and to more requests, all on one connection."""
        requests = [*self._setup, *more]
        self._reused = bool(requests)
        lines = b"\n".join([*requests, b""])
        while True:
            splitter = ReplySplitter(len(requests))
            replies = []
            try:
                for reply in exchange(self._server, lines, splitter, self._endpoint):
                    self._check(reply)
                    replies.append(reply)
            except OSError as error:
                if splitter.started or not self._may_retry(error):
                    raise self._failure(error) from error
            else:
                return replies
            self._connect()

    def set_up_again(self, more: "Iterable[bytes]" = ()) -> None:
        """Do `set_up` on a new connection. Raise ClientError if a reply is an error."""
        for reply in self.set_up(more):
            if is_error(reply):
                raise ClientError(f"{self._endpoint.name}: {STATE_LOST}")

    def ask(self, requests: list[bytes]) -> list[bytes]:
        """Return the replies to requests, all without line ends."""
        return list(chain.from_iterable(self.replies(iter([b"\n".join([*requests, b""])]))))

    def replies(self, batches: "Iterator[bytes]") -> "Iterator[list[bytes]]":
        """Send batches of whole lines, none of them blank; yield the replies as they come.

        An empty batch tells that there is none yet, and may come only while replies are owed.
        """
        taken = self._taken(batches)
        if isinstance(self._server, UDP):  # one after the other
            for batch in taken:
                for datagram in self._server.replies(batch):
                    try:
                        replies = self._splitter.add(datagram)
                    except ConnectionAbortedError as error:
                        raise self._failure(error) from error
                    for reply in replies:
                        self._check(reply)
                    yield replies
            return
        renewable = True
        while True:
            try:
                for replies in stream(
                    self._server, taken, self._splitter, self._endpoint, reused=self._reused
                ):
                    self._reused = True
                    if replies and replies[-1].startswith(ENDS):
                        if others := replies[:-1]:
                            self._drop(len(others))
                            yield others
                        self._check(replies[-1])
                    elif replies:
                        renewable, self._pauses = True, None
                        self._drop(len(replies))
                        yield replies
                return
            except ConnectionAbortedError as error:
                raise self._failure(error) from error
            except ConnectionError as error:
                if not renewable and (self._splitter.rest or not self._may_retry(error)):
                    raise self._failure(error) from error
            except OSError as error:
                raise self._failure(error) from error
            renewable = False
            self._renew()
            taken = self._again(batches)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _taken(self, batches: "Iterator[bytes]") -> "Iterator[bytes]":
        for batch in batches:
            if batch:
                self._unanswered.append(batch)
                self._splitter.expected += batch.count(b"\n")
            yield batch

    def _again(self, batches: "Iterator[bytes]") -> "Iterator[bytes]":
        """Yield what has no reply yet, and then further batches."""
        lines = b"".join(self._unanswered).split(b"\n")[self._answered :]
        self._unanswered.clear()
        self._answered = 0
        if rest := b"\n".join(lines):
            yield from self._taken(iter([rest]))
        yield from self._taken(batches)

    def _drop(self, count: int) -> None:
        """Forget requests that have their replies."""
        self._answered += count
        while self._unanswered and self._answered >= (size := self._unanswered[0].count(b"\n")):
            del self._unanswered[0]
            self._answered -= size

    def _renew(self) -> None:
        self._splitter = ReplySplitter(0)
        self._reused = False
        self._connect()
        self.restore()

    def _connect(self) -> None:
        self._server.close()
        self._server = connect(self._endpoint, self._endpoint.addresses)

    def _may_retry(self, error: OSError) -> bool:
        """Wait before another attempt if a lost connection has brought nothing. Return whether."""
        if not isinstance(error, ConnectionError) or isinstance(error, ConnectionAbortedError):
            return False
        if self._pauses is None:
            self._pauses = pauses(self._endpoint.retry)
        return next(self._pauses, False)

    def _check(self, reply: bytes) -> None:
        """Raise RefusedError if a reply is no reply to a request. No other follows it."""
        if reply.startswith(ENDS):
            raise RefusedError(f"{self._endpoint.name}: {reply.decode(errors='backslashreplace')}")

    def _failure(self, error: OSError) -> ClientError:
        return ClientError(f"{self._endpoint.name}: {describe(error)}")


def lines_of(requests: bytes) -> list[bytes]:
    """Return requests, without blank lines."""
    return [line for line in requests.split(b"\n") if line.translate(None, IGNORED)]


def pauses(seconds: float) -> "Iterator[bool]":
    """Wait between attempts, longer each time, and yield True. End after this number of seconds."""
    end, pause = time.monotonic() + seconds, RETRY_PAUSE
    while time.monotonic() + pause < end:
        time.sleep(pause)
        yield True
        pause = min(2 * pause, MAX_RETRY_PAUSE)
