"""Load certificates and keys for TLS. Imported only when TLS is used: ssl is slow to import."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NoReturn

from calcd.config.errors import ConfigError
from calcd.core.errors import printable
from calcd.core.tls import server_context
from calcd.core.x509 import Certificate, RevocationList, read_certificate, read_pem

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
_LISTS = "certificate revocation lists in PEM"
_DER_START = b"\x30"  # the tag of what certificates, keys and revocation lists are
_MAX_NAME = 100  # characters of a name that a log line shows
_MAX_CHAIN = 3  # certificates of a client that a log line shows
_MAX_SERIAL = 40  # hexadecimal digits, as RFC 5280 allows (section 4.1.2.2); forged ones have more
_MAX_DESCRIPTION = 600  # characters of them all, escaped


def load_context(
    certificate: str, key: str, client_ca: str, client_crl: str = ""
) -> ssl.SSLContext:
    """Return the context for tls:// endpoints, loaded from the files at these paths.

    With an empty ``key``, the key is in the certificate's file. With ``client_ca``, each client
    needs a certificate that one of the certificates in that file has signed. With ``client_crl``,
    a revocation list of each authority in the client's chain must be in that file, and name none of
    its certificates. Raise ``ConfigError``.
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
    if client_crl:
        _load_revocation_lists(context, client_crl)
    return context


def _load_revocation_lists(context: ssl.SSLContext, path: str) -> None:
    """Let a context, which has its authorities, refuse what the lists in a file name."""
    authorities = context.cert_store_stats()["x509"]
    with _explain("tls_client_crl", path, _LISTS):
        lists = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        lists.load_verify_locations(path)
        context.load_verify_locations(path)
    if not lists.cert_store_stats()["crl"]:
        raise _without(_LISTS, "tls_client_crl", path)
    if context.cert_store_stats()["x509"] > authorities:  # that every client could be signed by
        reason = f"'{path}' has certificates that are not in tls_client_ca"
        hint = "remove them, or put them there if clients may be signed by them"
        raise ConfigError(reason, hint, setting="tls_client_crl")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def read_file(name: str, path: str) -> list[Certificate | RevocationList | None]:
    """Return the certificates and revocation lists of a setting's file; None for each broken one.

    Raise ``ConfigError``: the file may have been removed since the context was loaded.
    """
    with _explain(name, path, "PEM"), open(path, "rb") as file:
        return list(read_pem(file.read()))


def describe_chain(chain: Sequence[bytes]) -> str:
    """Return the certificates of a client, in DER and its own first, for the log."""
    signers, last = [], None
    for der in chain[:_MAX_CHAIN]:
        try:
            last = read_certificate(der)
        except ValueError:
            return "its certificate cannot be read"
        dates = f"valid from {timestamp(last.begin)} to {timestamp(last.end)}"
        serial = last.serial[:_MAX_SERIAL] + "..." * (len(last.serial) > _MAX_SERIAL)
        signers.append(f"{show(last.subject)}, serial {serial}, {dates}")
    if last is None:
        return "its certificate is not known"
    if last.issuer != last.subject:
        signers.append(show(last.issuer))
    text = "; signed by ".join(signers)
    return text if len(text) <= _MAX_DESCRIPTION else f"{text[:_MAX_DESCRIPTION]}..."


def show(name: str) -> str:
    """Return a certificate's name in quotes, for the log."""
    return printable(name, _MAX_NAME)


def timestamp(time: datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it: ``2026-01-31T12:00:00Z``."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


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
        if error.reason in (None, "NO_CERTIFICATE_OR_CRL_FOUND"):
            raise _without(expected, name, path) from None
        if error.reason in _MISMATCHES:
            reason = "does not have the key that the certificate was made for"
            hint = "name that key's file"
        else:
            reason = f"cannot be used: {error.reason.lower().replace('_', ' ')}"
            hint = "create a new key and certificate"
        raise ConfigError(f"'{path}' {reason}", hint, setting=name) from None
    except OSError as error:
        reason = f"'{path}' cannot be read: {error.strerror}"
        hint = "name another file, or let the daemon read it"
        raise ConfigError(reason, hint, setting=name) from None


def _without(expected: str, name: str, path: str) -> ConfigError:
    """Return the error of a setting's file that has nothing of what is expected."""
    is_der = False
    with suppress(OSError), open(path, "rb") as file:  # it may be gone by now
        is_der = file.read(1) == _DER_START
    hint = "it is in DER: convert it to PEM with openssl" if is_der else "name a file that has"
    return ConfigError(f"'{path}' does not have {expected}", hint, setting=name)
