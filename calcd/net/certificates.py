"""TLS: certificates and keys become a context. Imported only where there is a use for it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from calcd.core.errors import StartError

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


class TlsError(StartError):
    """TLS that cannot be had; as text, the setting that is wrong, why, and what to do."""


def context(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    """Make what the connections of tls:// endpoints begin with, from the files of these paths.

    An empty ``key`` means that it is in the certificate's file; where ``client_ca`` is not
    empty, a client needs a certificate that one of those in it has signed. Raise ``TlsError``.
    """
    if not certificate:
        raise TlsError("tls_certificate: is not set, and a TLS endpoint needs it: set its path")
    made = _bare()
    with _blaming("tls_certificate", certificate, "a certificate in PEM"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    name, path = ("tls_key", key) if key else ("tls_certificate", certificate)
    with _blaming(name, path, "the certificate's private key in PEM"):
        with open(path, "rb"):  # for load_cert_chain does not say which file it means
            pass
        made.load_cert_chain(certificate, path, lambda: _refuse_passphrase(name, path))
    if client_ca:
        with _blaming("tls_client_ca", client_ca, "certificates in PEM"):
            made.load_verify_locations(client_ca)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def wrap(
    context: ssl.SSLContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> ssl.SSLObject:
    """Return the server's side of a new connection; it does not resume an earlier session.

    TLS 1.2 resumes sessions by id (RFC 5246, 7.3), without asking for the certificate again, so
    one that has expired would be accepted. Python cannot turn OpenSSL's session cache off. But
    the cache is that of the context that a connection is made with, also after the connection
    has been given another context: made with its own, it has an empty cache, which ends with it.
    Without client certificates sessions may be resumed: that is as safe, and costs less.
    """
    if context.verify_mode == ssl.CERT_NONE:
        return context.wrap_bio(incoming, outgoing, server_side=True)
    own = _bare()
    own.verify_mode = context.verify_mode  # the one setting that a change of context leaves out
    made = own.wrap_bio(incoming, outgoing, server_side=True)
    made.context = context
    return made


def _bare() -> ssl.SSLContext:
    """Return a server's context with the protocol's settings, and without certificates."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # A compressed line tells by its length what is in it; a client could ask for one costly
    # handshake after the other.
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Tickets would be sent unasked for after the handshake of TLS 1.3. A client that only writes
    # never reads them, so its close would become a reset, which drops what it has written. In
    # TLS 1.2 a ticket stands for a client's certificate even after that has expired.
    made.num_tickets = 0
    made.options |= ssl.OP_NO_TICKET
    return made


def _refuse_passphrase(name: str, path: str) -> NoReturn:
    # Without this it would be asked for on the terminal that a daemon does not have.
    raise TlsError(f"{name}: '{path}' needs a passphrase: store the key without one, for its owner")


@contextmanager
def _blaming(name: str, path: str, expected: str) -> Iterator[None]:
    """Say of what goes wrong which setting it is, which file, and what to do."""
    try:
        yield
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            words = "does not have the key that the certificate was made for: name that one"
        elif error.reason in (None, "NO_CERTIFICATE_OR_CRL_FOUND"):
            words = f"does not have {expected}: name a file that has"
        else:
            reason = error.reason.lower().replace("_", " ")
            words = f"cannot be used: {reason}: have a new key and certificate made"
        raise TlsError(f"{name}: '{path}' {words}") from None
    except OSError as error:
        words = f"cannot be read: {error.strerror}: name another, or let the daemon read it"
        raise TlsError(f"{name}: '{path}' {words}") from None
