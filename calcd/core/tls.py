"""A session inside TLS records: encrypted bytes in, encrypted bytes out, no I/O in between."""

import ssl
import sys
from collections.abc import Callable
from contextlib import suppress

from calcd.core.budget import CALL_LIMIT
from calcd.core.closing import CloseReason
from calcd.core.job import Job, Outcome
from calcd.core.session import Session

_RECORD = 1 << 14  # bytes, at most, of a record (RFC 8446, section 5.1)
_RECORD_COST = 100
_ALERT, _HANDSHAKE, _VERSION, _FATAL = 21, 22, b"\x03\x03", 2  # RFC 8446, 5.1 and 6; RFC 5246, 7.2
_DER = 2  # X509_FILETYPE_ASN1 of OpenSSL
_ALERTS = {"FORBIDDEN": 49, "BUSY": 80}  # access_denied, internal_error


def refusal(code: str) -> bytes:
    """Return the alert that tells a client, before any handshake, that it is not served.

    ``b""``: there is no alert for this error.
    """
    if code not in _ALERTS:
        return b""
    body = bytes((_FATAL, _ALERTS[code]))
    return bytes((_ALERT,)) + _VERSION + len(body).to_bytes(2) + body


def server_context() -> ssl.SSLContext:
    """Return a server's context with the protocol's settings, but without certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The length of a compressed line tells what is in it. Renegotiation would let a client ask
    # for one costly handshake after another.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # TLS 1.3 sends tickets unasked after the handshake. A client that only writes never reads
    # them, so its close would become a reset, which drops what it has written. In TLS 1.2 a
    # ticket replaces a client's certificate even after that has expired.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def _wrap(
    context: ssl.SSLContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> ssl.SSLObject:
    """Return the server's side of a new connection that does not resume an earlier session.

    TLS 1.2 resumes sessions by id (RFC 5246, section 7.3) without asking for the certificate
    again, so an expired one would be accepted. Python cannot turn OpenSSL's session cache off.
    But the cache belongs to the context that a connection is made with, even if the connection
    gets another context afterwards. So each connection is made with a context of its own, whose
    cache is empty. Without client certificates sessions may be resumed: that is as safe, and
    costs less.
    """
    if context.verify_mode == ssl.CERT_NONE:
        return context.wrap_bio(incoming, outgoing, server_side=True)
    own = server_context()
    # ``context =`` leaves these as they are: without the flags, no revocation list is looked at.
    own.verify_mode, own.verify_flags = context.verify_mode, context.verify_flags
    wrapped = own.wrap_bio(incoming, outgoing, server_side=True)
    wrapped.context = context
    return wrapped


def _chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return a client's certificates in DER, its own first, as far as OpenSSL has followed them.

    That is also known of a certificate that was refused.
    """
    if sys.version_info >= (3, 13):
        return tls.get_verified_chain()
    # The same method before 3.13 made it public.
    chain = tls._sslobj.get_verified_chain() or ()  # type: ignore[attr-defined]
    return [certificate.public_bytes(_DER) for certificate in chain]


class TlsSession:
    """A session whose bytes are encrypted both ways; it has the methods of ``Session``.

    An unfinished handshake counts as a partial line: it has the same deadline. ``on_refused`` is
    called when the client's certificate is refused, with OpenSSL's reason and with the certificates
    in DER from the client's own to its authority's, as far as they are known.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        session: Session,
        on_refused: Callable[[str, list[bytes]], None] = lambda _reason, _chain: None,
    ) -> None:
        self._session = session
        self._on_refused = on_refused
        self.counters, self.budget = session.counters, session.budget
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _wrap(context, self._incoming, self._outgoing)
        self._established = False
        self._first_byte = b""
        self._has_records = False  # that may be complete, but were not decrypted yet
        self._close_reason: CloseReason | None = None  # if it was not the session that ended
        self._error = ""  # OpenSSL's reason

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the session ended; None as long as it is open."""
        return self._close_reason or self._session.close_reason

    @property
    def close_word(self) -> str | None:
        """Word of the log for the close reason; for a TLS error it names OpenSSL's reason."""
        if self._close_reason is CloseReason.TLS_ERROR:
            return f"tls-{self._error}"
        return self.close_reason.value if self.close_reason else None

    @property
    def is_established(self) -> bool:
        """Whether the handshake is finished."""
        return self._established

    @property
    def has_received(self) -> bool:
        """Whether the client has sent a byte, apart from a whole handshake."""
        return self._session.has_received if self._established else self._first_byte != b""

    @property
    def has_partial_line(self) -> bool:
        """Whether the handshake is not finished, or there is a line without its end."""
        return not self._established or self._session.has_partial_line

    @property
    def partial_line_is_request(self) -> bool:
        """Whether the partial line is a whole request that only lacks its newline."""
        return self._session.partial_line_is_request

    @property
    def job(self) -> Job | None:
        """An expensive line, if that is next."""
        return self._session.job

    @property
    def pending(self) -> bool:
        """Whether input that has arrived still waits to be decrypted or for its reply."""
        return self._has_records or self._session.pending

    def receive(self, data: bytes, limit: float = CALL_LIMIT) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return the bytes to send."""
        if self.close_reason:
            return b""
        if not data:
            # Without close_notify the end may be an attacker's, who cuts a line so that it reads
            # as another request. Only a line that silence would have ended as well gets a reply.
            if self.partial_line_is_request:
                self._encrypt(self._session.receive(b""))
            else:
                self._close_reason = CloseReason.CLOSED
            return self._outgoing.read()
        self._first_byte = self._first_byte or data[:1]
        self._incoming.write(data)
        return self._read(limit)

    def resume(self, limit: float = CALL_LIMIT) -> bytes:
        """Process more of what is pending; return the bytes to send."""
        if self._session.pending:
            self._encrypt(self._session.resume(limit))
            limit -= self.budget.spent
        return self._read(limit)

    def _read(self, limit: float) -> bytes:
        """Decrypt and process the records that are there, within the budget."""
        session = self._session
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
            while limit >= 0 and not (session.close_reason or session.pending):
                limit -= _RECORD_COST
                # An empty read is the client's close_notify, the end of its input.
                self._encrypt(session.receive(self._tls.read(_RECORD), max(0.0, limit)))
                limit -= self.budget.spent
            self._has_records = session.close_reason is None
        except ssl.SSLWantReadError:
            self._has_records = False
        except ssl.SSLError as error:
            self._has_records = False
            self._close_reason = CloseReason.TLS_ERROR
            self._error = (error.reason or "broken").lower().replace("_", "-")
            if isinstance(error, ssl.SSLCertVerificationError):
                self._on_refused(error.verify_message, _chain(self._tls))
            if self._first_byte[0] != _HANDSHAKE:  # such as telnet
                fail = self._session.interpreter.fail
                return (fail("FORBIDDEN", "this endpoint accepts only TLS") + "\n").encode()
        return self._outgoing.read()

    def complete(self, outcome: Outcome | None, limit: float = CALL_LIMIT) -> bytes:
        """Take the outcome of the job, as ``Session`` does; return the bytes to send."""
        self._encrypt(self._session.complete(outcome, limit))
        return self._read(limit - self.budget.spent)

    def flush_partial_line(self) -> bytes:
        """Process the partial line as if it had ended, because its client waits."""
        self._encrypt(self._session.flush_partial_line())
        return self._outgoing.read()

    def time_out(self) -> bytes:
        """End the session because a handshake or a line was not completed in time."""
        if self._established:
            self._encrypt(self._session.time_out())
        else:
            self._close_reason = CloseReason.HANDSHAKE_TIMEOUT
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return close_notify: without it the client cannot tell the end from a cut."""
        if self._established and self._close_reason is not CloseReason.TLS_ERROR:
            with suppress(ssl.SSLError):  # it would wait for the client's, which may never come
                self._tls.unwrap()
        return self._outgoing.read()

    def _encrypt(self, replies: bytes) -> None:
        rest = memoryview(replies)
        while rest:
            rest = rest[self._tls.write(rest) :]
