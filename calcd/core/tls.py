"""A session under TLS: encrypted bytes in, encrypted bytes out, and no I/O in between."""

import ssl
from contextlib import suppress
from typing import Any

from calcd.core.interpreter import CALL
from calcd.core.session import Session
from calcd.net.certificates import wrap

_RECORD = 1 << 14  # bytes that a record has at the most (RFC 8446, 5.1)
_RECORD_COST = 100  # of each record, in units of work
_ALERT, _HANDSHAKE, _VERSION, _FATAL = 21, 22, b"\x03\x03", 2  # RFC 8446, 5.1 and 6; RFC 5246, 7.2
_ALERTS = {"FORBIDDEN": 49, "BUSY": 80}  # access_denied, internal_error


def refusal(code: str) -> bytes:
    """Give the alert that tells a client, before any handshake, that it is not served."""
    body = bytes((_FATAL, _ALERTS[code]))
    return bytes((_ALERT,)) + _VERSION + len(body).to_bytes(2) + body


class TlsSession(Session):
    """A session whose bytes are those of TLS, both ways.

    ``context`` is what ``calcd.net.certificates.context`` gives; the rest is for ``Session``. A
    handshake that is not finished counts as a line that is not: it has the same deadline.
    """

    def __init__(self, context: ssl.SSLContext, *rest: Any) -> None:
        super().__init__(*rest)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = wrap(context, self._incoming, self._outgoing)
        self._established = False
        self._first = b""  # byte that came
        self._undecrypted = False  # whether there may be records that were not looked at yet

    @property
    def started(self) -> bool:
        """Whether the handshake is not finished, or a line that was started."""
        return not self._established or super().started

    @property
    def pending(self) -> bool:
        """Whether something that has come is still to be decrypted or answered."""
        return self._undecrypted or super().pending

    def receive(self, data: bytes, limit: int = CALL) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return what is to be sent."""
        if self.finished:
            return b""
        self._start(limit)
        if not data:
            # Without close_notify it is not the client's own word that this is all. Whoever is
            # between could have cut a line short, so that it reads as another request: only one
            # that silence would have answered as well is answered.
            if self.complete:
                self._encrypt(self._end_input())
            else:
                self.finished = "closed"
            return self._outgoing.read()
        self._first = self._first or data[:1]
        self._incoming.write(data)
        return self._read()

    def go_on(self, limit: int = CALL) -> bytes:
        """Answer more of what is pending; return what is to be sent."""
        self._start(limit, self.expensive)
        self._encrypt(self._go_on())
        return self._read()

    def _read(self) -> bytes:
        """Decrypt and answer the records that are there, within the work of this call."""
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
            while not (self.finished or super().pending or self._spent):
                self.arithmetic.work += _RECORD_COST
                # An empty read is the client's close_notify: the end of input.
                text = self._tls.read(_RECORD)
                self._encrypt(self._take(text) if text else self._end_input())
            self._undecrypted = not self.finished
        except ssl.SSLWantReadError:
            self._undecrypted = False
        except ssl.SSLError as error:
            self._undecrypted = False
            reason = error.reason or "broken"
            self.finished = "tls-" + reason.lower().replace("_", "-")
            if self._first[0] != _HANDSHAKE:  # as from telnet
                return (self._fail("FORBIDDEN", "TLS alone is spoken here") + "\n").encode()
        return self._outgoing.read()

    def keep_silence(self) -> bytes:
        """Answer the started line as it stands: its client waits."""
        self._encrypt(super().keep_silence())
        return self._outgoing.read()

    def time_out(self) -> bytes:
        """Give up a handshake or a line that was not finished in time."""
        if self._established:
            self._encrypt(super().time_out())
        else:
            self.finished = "handshake-timeout"
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Give close_notify: without it the client could not tell the end from a cut."""
        if self._established and not self.finished.startswith("tls-"):
            with suppress(ssl.SSLError):  # it would wait for the client's, which may never come
                self._tls.unwrap()
        return self._outgoing.read()

    def _encrypt(self, replies: bytes) -> None:
        rest = memoryview(replies)
        while rest:
            rest = rest[self._tls.write(rest) :]
