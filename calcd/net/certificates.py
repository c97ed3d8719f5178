"""Load certificates and keys for TLS. Imported only when TLS is used: ssl is slow to import."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from calcd.config.errors import ConfigError
from calcd.core.tls import server_context

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


def load_context(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    """Return the context for tls:// endpoints, loaded from the files at these paths.

    With an empty ``key``, the key is in the certificate's file. With ``client_ca``, each client
    needs a certificate that one of the certificates in that file has signed. Raise ``ConfigError``.
    """
    if not certificate:
        raise ConfigError(
            "is not set, and a TLS endpoint needs it", "set its path", setting="tls_certificate"
        )
    context = server_context()
    with _explain("tls_certificate", certificate, "a certificate in PEM"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    name, path = ("tls_key", key) if key else ("tls_certificate", certificate)
    with _explain(name, path, "the certificate's private key in PEM"):
        with open(path, "rb"):  # load_cert_chain does not say which of its files cannot be read
            pass
        context.load_cert_chain(certificate, path, lambda: _refuse_passphrase(name, path))
    if client_ca:
        with _explain("tls_client_ca", client_ca, "certificates in PEM"):
            context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _refuse_passphrase(name: str, path: str) -> NoReturn:
    # By default OpenSSL would ask for the passphrase on the terminal, which a daemon does not have.
    hint = "store the key without one, readable by its owner alone"
    raise ConfigError(f"'{path}' needs a passphrase", hint, setting=name)


@contextmanager
def _explain(name: str, path: str, expected: str) -> Iterator[None]:
    """Turn errors in the block into a ``ConfigError`` of this setting and file."""
    try:
        yield
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            reason = "does not have the key that the certificate was made for"
            hint = "name that key's file"
        elif error.reason in (None, "NO_CERTIFICATE_OR_CRL_FOUND"):
            reason, hint = f"does not have {expected}", "name a file that has"
        else:
            reason = f"cannot be used: {error.reason.lower().replace('_', ' ')}"
            hint = "create a new key and certificate"
        raise ConfigError(f"'{path}' {reason}", hint, setting=name) from None
    except OSError as error:
        reason = f"'{path}' cannot be read: {error.strerror}"
        hint = "name another file, or let the daemon read it"
        raise ConfigError(reason, hint, setting=name) from None
