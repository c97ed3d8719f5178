"""TLS of the client: the context for the command line's files, and a connection."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from calcd.client.endpoint import HINTS, Endpoint
from calcd.client.protocol import CHUNK, CLOSED, MAX_TIMEOUT, ClientError, UsageError, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from _typeshed import ReadableBuffer

# OpenSSL's codes for a certificate that cannot be verified.
UNKNOWN_ISSUER, WRONG_NAME = (2, 18, 19, 20, 21), (62, 64)


def tls_context(options: dict[str, str], servername: str | None) -> ssl.SSLContext:
    """Return a TLS context for the options of the command line.

    Raise UsageError if they cannot be used. It names the file at fault.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    trustfile, cert, key = (options.get(f"--ssl-{kind}") for kind in ("trustfile", "cert", "key"))
    if "--ssl-noverify" in options:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif servername is None:
        raise UsageError("TLS over a Unix socket needs --ssl-servername or --ssl-noverify")
    elif trustfile is None:
        context.load_default_certs()
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=servername)
    except ValueError:
        raise UsageError(f"invalid server name {servername}") from None
    for option, path in ("trustfile", trustfile), ("cert", cert), ("key", key):
        try:
            if path is not None:
                open(path, "rb").close()
        except OSError as error:  # ssl's own error does not name the file
            raise UsageError(f"--ssl-{option} {path}: {describe(error)}") from None
    if trustfile is not None:
        try:
            context.load_verify_locations(trustfile)
        except ssl.SSLError:
            raise UsageError(f"--ssl-trustfile {trustfile}: no certificate in it") from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own is enough
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            problem = "the key is of another certificate" if mismatch else "no certificate with key"
            where = f"{cert} and {key}" if key is not None else cert
            raise UsageError(f"--ssl-cert {where}: {problem}") from None
    elif key is not None:
        raise UsageError("--ssl-key needs --ssl-cert")
    return context


def describe_tls(error: OSError, hints: dict[str, str] = HINTS) -> str:
    """Return what went wrong with TLS, and which of the options may help."""
    reason = describe(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"the server's certificate: {error.verify_message.rstrip('.')}"
        if error.verify_code in WRONG_NAME:
            return f"{reason}: see {hints['servername']}"
        unknown = error.verify_code in UNKNOWN_ISSUER
        return f"{reason}: see {hints['trust']}" if unknown else reason
    _, is_alert, alert = reason.partition(" alert ")
    if not is_alert:
        return f"{reason}: does the server speak TLS, 1.2 or later?"
    reason = f"refused by the server: {alert}"
    if any(word in alert for word in ("certificate", "unknown ca", "handshake failure")):
        reason += f": does it want a certificate that it trusts ({hints['certificate']})?"
    return reason


def tls_failure(endpoint: Endpoint, error: OSError) -> ClientError:
    """Return the error for a TLS connection that failed."""
    return ClientError(f"{endpoint.name}: TLS: {describe_tls(error, endpoint.hints)}")


class TLS(socket.socket):
    """A TLS connection that is used like a socket.

    It buffers nothing that `poll` would not report. It can also half-close. `ssl.SSLSocket`
    cannot: its `unwrap` reads on, and loses the replies that it reads.
    """

    def __init__(
        self, plain: "_socket.socket", endpoint: Endpoint, context: ssl.SSLContext
    ) -> None:
        name = endpoint.servername
        if context.check_hostname and not name:  # `wrap_bio` would check no name
            raise ValueError("check_hostname requires servername")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._endpoint = endpoint
        self._unsent = b""  # encrypted
        self._accepted = 0  # bytes given to `send` that it has not yet reported as sent
        self._received = False  # any application data
        self._lost: ConnectionError | None = None  # what a send reported
        super().__init__(fileno=plain.detach())

    def handshake(self) -> str:
        """Perform the handshake. Return the version and how the certificate was verified.

        The timeout is for all of it.
        """
        endpoint = self._endpoint.within(self._endpoint.timeout or MAX_TIMEOUT)
        try:
            while not self._advance_handshake():
                self.settimeout(endpoint.time_left())
                # Only peek: data after the handshake must stay where `poll` reports it.
                peeked = super().recv(CHUNK, socket.MSG_PEEK)
                if not peeked:
                    raise OSError(CLOSED)
                self._incoming.write(peeked)
            if endpoint.check_only:  # a TLS 1.3 server verifies our certificate only now
                self.shutdown(socket.SHUT_WR)
                ended = False
                while not ended:
                    self.settimeout(endpoint.time_left())
                    with suppress(BlockingIOError):
                        ended = not self.recv(CHUNK)
        except OSError as error:
            raise tls_failure(self._endpoint, error) from error
        verified = self._tls.context.verify_mode != ssl.CERT_NONE
        verified_for = f"verified for {endpoint.servername}" if verified else "not verified"
        return f"{self._tls.version()}, certificate {verified_for}"

    def _advance_handshake(self) -> bool:
        """Continue the handshake with the peeked bytes. Return True once it is complete."""
        peeked = self._incoming.pending
        complete = self._call(self._tls.do_handshake)
        super().recv(peeked - self._incoming.pending)
        self._incoming.read()
        return complete

    def _call(self, operation: Callable[[], object]) -> bool:
        """Call a TLS operation, and send its output. Return False if it needs more input."""
        try:
            operation()
        except ssl.SSLWantReadError:
            return False
        finally:  # after an error there is an alert to send
            self._flush()
        return True

    def _flush(self) -> None:
        """Send encrypted data. Raise BlockingIOError if not all of it can be sent now."""
        try:
            while self._unsent or self._outgoing.pending:
                self._unsent = self._unsent or self._outgoing.read()
                self._unsent = self._unsent[super().send(self._unsent) :]
        except ConnectionError as error:  # `recv` reports it, after an alert that may tell why
            self._unsent, self._lost = b"", error

    def send(self, data: "ReadableBuffer", _flags: int = 0, /) -> int:
        """Send a part of `data`. After a BlockingIOError call again with the same data."""
        try:
            self._accepted = self._accepted or self._tls.write(data)
        except ssl.SSLWantReadError:  # a new handshake has to end first
            raise BlockingIOError from None
        self._flush()
        accepted, self._accepted = self._accepted, 0
        return accepted

    def shutdown(self, _how: int, /) -> None:
        """Half-close: send close_notify, and keep reading.

        `unwrap` loses no reply, as `recv` and the handshake leave it nothing to read.
        """
        self._call(self._tls.unwrap)

    def recv(self, size: int, _flags: int = 0, /) -> bytes:
        """Return the decrypted data that has arrived, empty at the end.

        Raise BlockingIOError if a TLS record is incomplete, also on a blocking socket.
        """
        encrypted = super().recv(size)
        self._incoming.write(encrypted)
        data = b""
        try:
            while part := self._tls.read(size):
                data += part
        except ssl.SSLWantReadError:
            if encrypted and not data:
                self._flush()  # what answers a new handshake
                raise BlockingIOError from None
            if self._lost and not encrypted and not data:  # the kernel reports a reset only once
                raise self._lost from None
            self._received = self._received or data != b""
            return data
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            if not data and not self._received:  # TLS 1.3 reports a failed handshake here
                raise tls_failure(self._endpoint, error) from error
            if not data:
                raise
        if data:  # so that `poll` reports the end as well
            with suppress(OSError):  # after a reset, which `poll` reports anyway
                super().shutdown(socket.SHUT_RD)
        return data

    def close(self) -> None:
        """Close. Send close_notify if that does not block."""
        try:
            self.setblocking(False)
            self.shutdown(socket.SHUT_WR)
        except OSError:
            return
        finally:
            super().close()
