"""The client's side of TLS, without a socket."""

import ssl

import pytest
from sessions import answered

from calcd.core.tls import TlsSession


class Client:
    """The other side of a session: what it says goes through ``session.receive``."""

    def __init__(
        self,
        session: TlsSession,
        trusted: ssl.SSLContext,
        saved: ssl.SSLSession | None = None,
    ) -> None:
        self.session = session
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = trusted.wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost", session=saved
        )

    def shake_hands(self, size: int = 1 << 16) -> None:
        """Do the handshake, sending pieces of so many bytes at the most."""
        over = False
        while not over:
            try:
                self.tls.do_handshake()
                over = True
            except ssl.SSLWantReadError:
                pass
            self.send(self._outgoing.read(), size)

    def hear_the_verdict(self) -> None:
        """Do the handshake, and hear what the server thinks of the client's certificate.

        In TLS 1.3 the client's handshake is over before the server has judged.
        """
        self.shake_hands()
        self.heard()

    def sealed(self, text: bytes) -> bytes:
        """Encrypt."""
        self.tls.write(text)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Give close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def send(self, data: bytes, size: int = 1 << 16) -> None:
        for begin in range(0, len(data), size):
            self.take(answered(self.session, data[begin : begin + size]))

    def take(self, data: bytes) -> None:
        self._incoming.write(data)

    def heard(self) -> bytes:
        """Decrypt all that has come."""
        text = b""
        try:
            while part := self.tls.read(1 << 16):
                text += part
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return text

    def ask(self, text: bytes) -> bytes:
        self.send(self.sealed(text))
        return self.heard()

    @property
    def told_the_end(self) -> bool:
        """Say whether the server's close_notify has come."""
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLWantReadError:
            return False
