"""Load certificates and keys for TLS. Imported only when TLS is used: ssl is slow to import."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn

from calcd.config.errors import ConfigError
from calcd.core.tls import server_context

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of DER


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


def not_after(path: str) -> float:
    """Return when the first certificate of a file in PEM ends, as Unix time.

    ``load_context`` must have accepted the file.
    """
    with open(path, encoding="latin-1") as file:
        _, begin, rest = file.read().partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    ((_, certificate),) = _elements(ssl.PEM_cert_to_DER_cert(begin + body + end))
    _, signed = next(_elements(certificate))
    fields = [contents for tag, contents in _elements(signed) if tag != _VERSION]
    _, (tag, ends) = _elements(fields[3])  # the validity: RFC 5280, section 4.1
    text = ends.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: RFC 5280, section 4.1.2.5.1
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and contents of each element of DER (X.690, section 8.1)."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size >= 0x80:  # the length of the length
            more = at + size - 0x80
            at, size = more, int.from_bytes(der[at:more])
        yield tag, der[at : at + size]
        at += size


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
