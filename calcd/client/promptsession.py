"""The prompt's session with the server. It goes on when a connection ends."""

import re
import time

from calcd.client import transport
from calcd.client.counting import ReplySplitter
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import REFUSALS, STATE_LOST, ClientError, describe, is_quit
from calcd.client.state import SessionState
from calcd.client.streams import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = b"VERSION\n"
NAME_AND_VERSION = r"calcd [0-9A-Za-z.+-]{1,40}"
MAX_REASON = 300  # characters of a refusal that are shown
SHORT_TIMEOUT = 1.0  # seconds that the greeting, and the Tab key, wait for the server
RETRY_PAUSE = 0.5  # seconds between two attempts to reach a server that is away
TRIES = 3  # for a line that ends its connection without a reply


class NoReplyError(ClientError):
    """A line has no reply, and is not sent again. The session can go on."""


class PromptSession:
    """Asks one line after the other, and connects again where a connection is lost.

    `server` is the first connection. Each connection begins with `setup`, requests whose replies
    are not shown, and with `VERSION`. Its reply tells a server that is away, such as one behind
    HAProxy, from a server that closes because of a line.
    """

    def __init__(
        self, server: transport.Transport | None, endpoint: Endpoint, setup: bytes = b""
    ) -> None:
        self.endpoint = endpoint
        self.setup = setup
        self.state = SessionState()  # of the last connection
        self.connections = 1
        self.ended = False  # by QUIT
        self.unanswered: list[str] = []  # of the lines that were asked last
        self._server = server

    def greet(self) -> str:
        """Return the server's name and version, empty if it does not tell them in time.

        Raise ClientError if it refuses this client, or closes.
        """
        endpoint = briefly(self.endpoint)
        server = transport.UDP(endpoint) if self.endpoint.udp else self._server
        try:
            return hello(server, endpoint, self.setup) if server else ""
        except TimeoutError:
            self.close()  # a late reply would be taken for that to the first line
        except ConnectionAbortedError:
            raise
        except ClientError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
        except OSError as error:
            raise ClientError(f"{self._describe(error)}{self.endpoint.hint()}") from error
        return ""

    def ask(self, lines: list[str]) -> "Iterator[tuple[str, bytes]]":
        """Yield each line with its reply, up to `QUIT`. A lost connection is renewed.

        Raise NoReplyError for a line that three connections have left without a reply,
        ConnectionAbortedError for a reply that is too long or was not asked for.
        """
        self.unanswered = lines[:]
        failures = 0
        while self.unanswered and not self.ended:
            quits = [number for number, line in enumerate(self.unanswered, 1) if is_quit(line)]
            asked = self.unanswered[: min(quits, default=None)]
            if self._server is None:
                if quits and len(asked) == 1:  # a lost connection is what it asks for
                    self.unanswered.pop(0)
                    self.ended = True
                    break
                self._server = self._connect()
                self.connections += 1
                if self.state.affects(asked):
                    warn(STATE_LOST)
                self.state.reset()
            requests = "".join(f"{line}\n" for line in asked).encode(errors="surrogateescape")
            splitter = ReplySplitter(len(asked))
            try:
                for reply in transport.exchange(
                    self._server, requests, splitter, self.endpoint, reused=True
                ):
                    line = self.unanswered.pop(0)
                    self.ended = is_quit(line)
                    failures = 0
                    if not self.endpoint.udp:  # there, nothing is kept from one line to the next
                        self.state.record(line, reply.decode(errors="replace"))
                    yield line, reply
            except ConnectionAbortedError:
                raise
            except (ClientError, OSError) as error:
                failures += 1
                cannot_be_sent = isinstance(error, ClientError) and error.__cause__ is None
                if not cannot_be_sent:
                    self.close()
                if cannot_be_sent or failures == TRIES:
                    raise NoReplyError(self._describe(error)) from error

    def close(self) -> None:
        """Close the connection. The next line is asked on a new one."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _connect(self) -> transport.Transport:
        """Return a new connection to a server that replies. Try until there is one."""
        said: set[str] = set()
        while True:
            try:
                server = transport.connect(self.endpoint)
                try:
                    hello(server, self.endpoint, self.setup)
                except BaseException:
                    server.close()
                    raise
                return server
            except ConnectionAbortedError:
                raise
            except (ClientError, OSError) as error:
                reason = self._describe(error)
            if reason not in said:
                warn(reason)
            if not said:
                warn("trying again; Ctrl-C stops that")
            said.add(reason)
            time.sleep(RETRY_PAUSE)

    def _describe(self, error: Exception) -> str:
        """Return what went wrong, and with which server."""
        if isinstance(error, ClientError):
            return str(error)
        return f"{self.endpoint.name}: {describe(error)}"


def briefly(endpoint: Endpoint) -> Endpoint:
    """Return a copy whose deadline is near. Nothing that it is used for is reported."""
    limited = endpoint.within(SHORT_TIMEOUT)
    limited.verbose = False
    if endpoint.udp:  # each address gets its share
        share = min(SHORT_TIMEOUT, endpoint.timeout or SHORT_TIMEOUT) / len(endpoint.addresses)
        limited.timeout = share
    return limited


def hello(server: transport.Transport, endpoint: Endpoint, setup: bytes) -> str:
    """Begin a connection. Return the server's name and version, empty if it does not tell them.

    Raise ClientError if the server refuses this client, otherwise what `transport.exchange` does.
    """
    requests = setup + VERSION
    text = ""
    splitter = ReplySplitter(requests.count(b"\n"))
    for reply in transport.exchange(server, requests, splitter, endpoint):
        text = reply.decode(errors="replace")
        if text.encode().startswith(REFUSALS):
            raise ClientError(f"{endpoint.name}: {text[:MAX_REASON]}")
    return text if re.fullmatch(NAME_AND_VERSION, text) else ""
