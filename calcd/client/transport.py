"""Connections to the server: TCP, Unix socket, TLS and UDP, behind one interface.

All transports have `settimeout`, `sendall`, `recv` and `close`. All but UDP are sockets.

`_socket` is the C part of `socket`, and does all the work here. `import socket` takes 6 ms, where
Python itself needs 9 to start.
"""

import _socket
import os

from calcd.client.errors import ClientError, UsageError, describe
from calcd.client.protocol import BLANKS, CHUNK, CLOSED, MAX_TIMEOUT, UNEXPECTED
from calcd.client.streams import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import TypeAlias

    from _typeshed import ReadableBuffer

    Addresses = list[tuple[int, str | tuple[object, ...]]]  # each with its address family
    Transport: TypeAlias = "Stream | UDP"

Stream = _socket.socket
SHUT_WR = _socket.SHUT_WR
UDP_TRIES, UDP_TIMEOUT = 3, 5.0  # datagrams sent for a reply, and seconds in all
# OpenSSL's codes for a certificate that cannot be verified.
UNKNOWN_ISSUER, WRONG_NAME = (2, 18, 19, 20, 21), (62, 64)
FAMILIES = {"": _socket.AF_UNSPEC, "-4": _socket.AF_INET, "-6": _socket.AF_INET6}


class Endpoint:
    """Where the server is, and how to connect to it."""

    def __init__(self, host: str, port: str, path: str | None = None) -> None:
        self.host, self.port = host, port
        self.path = path  # of a Unix socket, in place of host and port
        self.name = f"{host} port {port}" if path is None else path  # in messages
        self.family = ""  # a key of FAMILIES
        self.udp = False
        self.tls: ssl.SSLContext | None = None
        self.servername: str | None = None  # the name that the server's certificate must have
        if path is None:  # certificates have no scope, as in fe80::1%eth0, and no final dot
            self.servername = host.partition("%")[0].removesuffix(".")
        self.timeout: float | None = None  # seconds for one step; None: no limit
        self.deadline = float("inf")  # for everything, by the monotonic clock
        self.verbose = self.check_only = False
        self.addresses: Addresses = []  # where the server was reached

    def within(self, seconds: float) -> "Endpoint":
        """Return a copy with a deadline that is so many seconds away."""
        import copy
        import time

        endpoint = copy.copy(self)
        endpoint.deadline = min(self.deadline, time.monotonic() + seconds)
        return endpoint

    def hint(self) -> str:
        """Return what may be wrong if there was no reply at all."""
        return "" if self.tls or self.udp else ": does it speak TLS (--ssl)?"

    def time_left(self) -> float | None:
        """Return the seconds that the next step may take, None for no limit.

        Raise TimeoutError after the deadline.
        """
        if self.deadline == float("inf"):
            return self.timeout
        import time

        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return min(left, self.timeout or left)


def resolve(endpoint: Endpoint) -> "Addresses":
    """Return the addresses of the server."""
    if endpoint.path is not None:
        return [(_socket.AF_UNIX, endpoint.path)]
    try:
        # As bytes: a str would load the idna codec, which is slow.
        host = endpoint.host.encode("ascii" if endpoint.host.isascii() else "idna")
        kind = _socket.SOCK_DGRAM if endpoint.udp else _socket.SOCK_STREAM
        port = os.fsencode(endpoint.port)
        found = _socket.getaddrinfo(host, port, FAMILIES[endpoint.family], kind)
    except (OSError, UnicodeError) as error:
        message = f"{endpoint.name}: name does not resolve: {describe(error)}"
        raise ClientError(message) from None
    return [(family, address) for family, _, _, _, address in found]


def connect(endpoint: Endpoint, addresses: "Addresses | None" = None) -> "Transport":
    """Connect to the server. Raise ClientError with the reason if that fails.

    The name of the server is not resolved if its addresses are given.
    """
    addresses = addresses or resolve(endpoint)
    server: Transport
    if endpoint.udp:
        server, success = UDP(endpoint, addresses), "replies over UDP"
        if endpoint.verbose or endpoint.check_only:  # UDP has no connection that could fail
            server.request(b"PING\n")
    else:
        server, success = connect_stream(endpoint, addresses), "connection succeeded"
        if endpoint.tls is not None:
            server = tls = TLS(server, endpoint.tls, endpoint)
            try:
                success += f", {tls.handshake()}"
            except ClientError:
                server.close()
                raise
    if endpoint.verbose:
        warn(f"{endpoint.name}: {success}")
    return server


def connect_stream(endpoint: Endpoint, addresses: "Addresses") -> Stream:
    """Connect to the first of these addresses that accepts."""
    reasons = []
    for family, address in addresses:
        server = None
        try:
            server = _socket.socket(family, _socket.SOCK_STREAM)
            server.settimeout(endpoint.time_left())
            server.connect(address)
            if family != _socket.AF_UNIX:
                # Data after the handshake must not wait for an acknowledgement.
                server.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            if server is not None:
                server.close()
            reasons.append(describe(error))
        else:
            endpoint.addresses = [(family, address)]
            return server
    raise unreachable(endpoint, reasons)


def unreachable(endpoint: Endpoint, reasons: list[str]) -> ClientError:
    """Return the error for a server that none of its addresses has reached."""
    hint = ": is calcd running there?" if "connection refused" in reasons else ""
    return ClientError(f"{endpoint.name}: {', '.join(dict.fromkeys(reasons))}{hint}")


def receive(server: "Transport", endpoint: Endpoint) -> bytes:
    """Return the next bytes, empty at the end. Raise TimeoutError if that takes too long."""
    while True:
        server.settimeout(endpoint.time_left())
        try:
            return server.recv(CHUNK)
        except BlockingIOError:  # an incomplete TLS record
            continue


def check_idle(
    server: Stream, would_block: "tuple[type[OSError], ...]" = (BlockingIOError,)
) -> None:
    """Raise ConnectionError if the server has closed, or has sent anything since its last reply.

    The socket is non-blocking. `would_block` is what it raises if there is nothing to read.
    """
    try:
        more = server.recv(CHUNK)
    except would_block:
        return
    raise ConnectionAbortedError(UNEXPECTED) if more else ConnectionError(CLOSED)


def tls_context(files: dict[str, str], servername: str | None, *, verify: bool) -> "ssl.SSLContext":
    """Return a TLS context for the files of the command line, by option.

    Raise UsageError if they cannot be used.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # else a read may have to wait for a write
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif servername is None:
        raise UsageError("TLS over a Unix socket needs --ssl-servername or --ssl-noverify")
    elif "--ssl-trustfile" not in files:
        context.load_default_certs()
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=servername)
    except ValueError:
        raise UsageError(f"invalid server name {servername}") from None
    load_certificates(context, files)
    return context


def load_certificates(context: "ssl.SSLContext", files: dict[str, str]) -> None:
    """Load the files of the command line. Raise UsageError that names the file at fault."""
    import ssl

    for option, path in files.items():
        try:
            open(path, "rb").close()
        except OSError as error:  # ssl's own error does not name the file
            raise UsageError(f"{option} {path}: {describe(error)}") from None
    trustfile, cert, key = (files.get(f"--ssl-{kind}") for kind in ("trustfile", "cert", "key"))
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


def describe_tls(error: OSError) -> str:
    """Return what went wrong with TLS, and which option may help."""
    import ssl

    reason = describe(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"the server's certificate: {error.verify_message.rstrip('.')}"
        if error.verify_code in WRONG_NAME:
            return f"{reason}: see --ssl-servername"
        return f"{reason}: see --ssl-trustfile" if error.verify_code in UNKNOWN_ISSUER else reason
    if " alert " not in reason:
        return f"{reason}: does the server speak TLS, 1.2 or later?"
    alert = reason.partition(" alert ")[2]
    reason = f"refused by the server: {alert}"
    if any(word in alert for word in ("certificate", "unknown ca", "handshake failure")):
        reason += ": does it want a certificate that it trusts (--ssl-cert)?"
    return reason


class TLS(Stream):
    """A TLS connection that is used like a socket.

    It buffers nothing that `poll` would not report. It can also half-close. `ssl.SSLSocket`
    cannot: its `unwrap` reads on, and loses the replies that it reads.
    """

    def __init__(self, plain: Stream, context: "ssl.SSLContext", endpoint: Endpoint) -> None:
        import ssl

        super().__init__(fileno=plain.detach())
        self.settimeout(endpoint.timeout)
        self._endpoint = endpoint
        self._verified = context.verify_mode != ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=endpoint.servername
        )
        self._unsent = b""  # encrypted
        self._accepted = 0  # bytes given to `send` that it has not yet reported as sent
        self._received = False  # any application data

    def handshake(self) -> str:
        """Perform the handshake. Return the version and how the certificate was verified."""
        timeout = self._endpoint.timeout
        endpoint = self._endpoint.within(MAX_TIMEOUT if timeout is None else timeout)
        try:
            while not self._advance_handshake():
                self.settimeout(endpoint.time_left())
                # Only peek: data after the handshake must stay where `poll` reports it.
                peeked = super().recv(CHUNK, _socket.MSG_PEEK)
                if not peeked:
                    raise OSError(CLOSED)
                self._incoming.write(peeked)
            if endpoint.check_only:  # a TLS 1.3 server verifies our certificate only now
                self.shutdown(SHUT_WR)
                while receive(self, endpoint):
                    pass
            self.settimeout(timeout)
        except OSError as error:
            raise ClientError(f"{endpoint.name}: TLS: {describe_tls(error)}") from None
        verified = f"verified for {endpoint.servername}" if self._verified else "not verified"
        return f"{self._tls.version()}, certificate {verified}"

    def _advance_handshake(self) -> bool:
        """Continue the handshake with the peeked bytes. Return True once it is complete."""
        peeked = self._incoming.pending
        complete = self._call(self._tls.do_handshake)
        super().recv(peeked - self._incoming.pending)
        self._incoming.read()
        return complete

    def _call(self, operation: "Callable[[], object]") -> bool:
        """Call a TLS operation, and send its output. Return False if it needs more input."""
        import ssl

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
        except ConnectionError:  # `recv` reports it, after an alert that may tell the reason
            self._unsent = b""

    def send(self, data: "ReadableBuffer", _flags: int = 0, /) -> int:
        """Send all of `data`. After a BlockingIOError call again with the same data."""
        self._accepted = self._accepted or self._tls.write(data)
        self._flush()
        accepted, self._accepted = self._accepted, 0
        return accepted

    def sendall(self, data: "ReadableBuffer", _flags: int = 0, /) -> None:
        """Send all of `data`, however long that takes."""
        self.send(data)

    def shutdown(self, _how: int, /) -> None:
        """Half-close: send close_notify, and keep reading.

        `unwrap` loses no reply, as `recv` and the handshake leave it nothing to read.
        """
        self._call(self._tls.unwrap)

    def recv(self, size: int, _flags: int = 0, /) -> bytes:
        """Return the decrypted data that has arrived, empty at the end.

        Raise BlockingIOError if a TLS record is incomplete, also on a blocking socket.
        """
        import ssl

        data = encrypted = b""
        while True:
            try:
                while part := self._tls.read(size):
                    data += part
            except ssl.SSLWantReadError:
                if encrypted and not data:
                    raise BlockingIOError from None
                if not data and (encrypted := super().recv(size)):
                    self._incoming.write(encrypted)
                    continue
                self._received = self._received or data != b""
                return data
            except ssl.SSLZeroReturnError:
                pass
            except ssl.SSLError as error:
                if not data and not self._received:  # TLS 1.3 reports a failed handshake here
                    message = f"{self._endpoint.name}: TLS: {describe_tls(error)}"
                    raise ClientError(message) from None
                if not data:
                    raise
            try:
                if data:  # so that `poll` reports the end as well
                    super().shutdown(_socket.SHUT_RD)
            except OSError:  # after a reset, which `poll` reports anyway
                return data
            return data

    def close(self) -> None:
        """Close. Send close_notify if that does not block."""
        try:
            self.setblocking(False)
            self.shutdown(SHUT_WR)
        except OSError:
            return
        finally:
            super().close()


class UDP:
    """Requests and replies in datagrams.

    A request is sent when its reply is read. Each has a port of its own, so that a late reply is
    not taken for that to the next request. The socket is connected, so that the kernel drops
    datagrams from other addresses.
    """

    def __init__(self, endpoint: Endpoint, addresses: "Addresses") -> None:
        self._endpoint = endpoint
        self._endpoint.addresses = addresses
        self._timeout = endpoint.timeout
        self._queue: list[bytes] = []  # the last one is the next
        self._partial_line = b""

    def settimeout(self, seconds: float | None, /) -> None:
        """Set how long to wait for a reply, in seconds, at each address."""
        self._timeout = seconds

    def sendall(self, data: bytes, /) -> None:
        """Queue requests. Raise ClientError if one is too long for a datagram."""
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        lines = [line + b"\n" for line in lines if line.translate(None, BLANKS)]
        self._queue[:0] = reversed(lines)
        if len(self._partial_line) > CHUNK:
            raise ClientError(f"{self._endpoint.name}: message too long")

    def recv(self, _size: int, /) -> bytes:
        """Return the reply to the next request, empty after the last."""
        return self.request(self._queue.pop()) if self._queue else b""

    def request(self, request: bytes) -> bytes:
        """Return the reply to a request. Raise ClientError if none arrives."""
        reasons = []
        for family, address in self._endpoint.addresses:
            server = _socket.socket(family, _socket.SOCK_DGRAM)
            try:
                server.connect(address)
                reply = self._exchange(server, request)
            except OSError as error:
                reasons.append(describe(error))
            else:
                self._endpoint.addresses = [(family, address)]
                return reply
            finally:
                server.close()
        raise unreachable(self._endpoint, reasons)

    def _exchange(self, server: Stream, request: bytes) -> bytes:
        timeout = self._timeout or UDP_TIMEOUT
        server.settimeout(timeout / UDP_TRIES)
        for _ in range(UDP_TRIES):  # a datagram may be lost; sending it again is harmless
            server.send(request)
            try:
                return server.recv(CHUNK)
            except TimeoutError:
                pass
        raise OSError(f"no reply in {timeout:g} s")

    def close(self) -> None:
        """Do nothing: no socket is open between two requests."""
