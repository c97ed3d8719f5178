"""A connection from a proxy, without a socket: its session, and then that of its client."""

from collections.abc import Callable

from sessions import finished, new_session

from calcd.core.errors import RequestError
from calcd.core.proxied import ProxiedSession
from calcd.core.proxyprotocol import Header
from calcd.core.session import Session
from calcd.core.tls import TlsSession


class Proxied:
    """What a connection does with a ``ProxiedSession``: another session takes its place."""

    def __init__(self, begin: Callable[[], Session | TlsSession] = new_session) -> None:
        self.headers: list[Header] = []
        self.errors: list[str] = []
        self.current: ProxiedSession | Session | TlsSession
        self.first = self.current = ProxiedSession(self._begin, self._refuse)
        self._make = begin

    def _begin(self, header: Header) -> Session | TlsSession:
        self.headers.append(header)
        self.current = session = self._make()
        return session

    def _refuse(self, error: RequestError, start: bytes) -> bytes:
        self.errors.append(f"{error} after {start!r}")
        return f"{error}\n".encode()

    def take(self, *reads: bytes) -> bytes:
        """Give it these reads; return the replies."""
        replies = b""
        for read in reads:
            replies += self.current.receive(read)
            replies += finished(self.current)
        return replies
