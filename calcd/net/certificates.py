"""TLS: certificates and keys become a context. Imported only where there is a use for it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from calcd.core.errors import StartError
from calcd.core.tls import server_context

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
    made = server_context()
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
