"""A client's name, session and refusal, and the log lines of its requests."""

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from calcd.config.endpoints import join_host_port
from calcd.config.networks import packed
from calcd.config.settings import Settings
from calcd.core.closing import CloseReason
from calcd.core.commands import ReadStats
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, printable
from calcd.core.interpreter import Interpreter
from calcd.core.messages import LANGUAGES
from calcd.core.session import Session

if TYPE_CHECKING:  # a daemon without TLS need not import ssl
    from ssl import SSLContext

    from calcd.core.proxied import ProxiedSession
    from calcd.core.proxyprotocol import Header
    from calcd.core.tls import TlsSession

log = logging.getLogger(__name__)

_TLS_HANDSHAKE = b"\x16"  # a record's type, its first byte (RFC 8446, section 5.1)

# As accept(2) and recvmsg(2) give it: host, port and for IPv6 two more; for a Unix socket its
# path or name.
Address = tuple[Any, ...] | str | bytes


def name_of(address: Address) -> str:
    """Return a client's name for the log: ``HOST:PORT``, or ``unix``."""
    return join_host_port(*address[:2]) if isinstance(address, tuple) else "unix"


def host_of(address: Address) -> str:
    """Return a client's host; ``""`` for a Unix socket."""
    return address[0] if isinstance(address, tuple) else ""


def is_address(address: Address, host: str, port: int) -> bool:
    """Return whether an address has this host, which is one in digits or ``""``, and this port."""
    if not (host and isinstance(address, tuple)):
        return False
    return address[1] == port and packed(address[0]) == packed(host)


def new_arithmetic(settings: Settings) -> Arithmetic:
    """Return the arithmetic of a new session."""
    return Arithmetic(settings.precision, settings.rounding, notation=settings.notation)


def new_session(
    address: Address, settings: Settings, tls: "SSLContext | None", stats: ReadStats
) -> "Session | TlsSession":
    """Return a session for a new connection; with a context for TLS, inside TLS records."""
    loggers = request_loggers("connection", address)
    language = LANGUAGES[settings.language]
    interpreter = Interpreter(new_arithmetic(settings), *loggers, language, stats)
    session = Session(interpreter, settings.max_line)
    if tls is None:
        return session
    from calcd.core.tls import TlsSession

    return TlsSession(tls, session, partial(_log_refused_certificate, address))


def _log_refused_certificate(address: Address, reason: str, chain: list[bytes]) -> None:
    """Log whose certificate was refused, and who has signed it: any of them may be the reason."""
    from calcd.net.certificates import describe_chain

    message = "connection %s: certificate refused: %s: %s"
    log.info(message, name_of(address), reason, describe_chain(chain))


def new_proxied_session(
    address: Address,
    settings: Settings,
    tls: bool,
    begin: "Callable[[Header], Session | TlsSession]",
) -> "ProxiedSession":
    """Return a session for a new connection from a proxy; see ``ProxiedSession``."""
    from calcd.core.proxied import ProxiedSession

    def refuse(error: RequestError, start: bytes) -> bytes:
        from calcd.core.proxyprotocol import HeaderError

        if not isinstance(error, HeaderError):
            return refusal(error, settings, tls)
        if error.reason is CloseReason.BAD_PROXY_HEADER:
            log.warning("connection %s refused: %s", name_of(address), error)
        # Without a valid header this may be anybody, such as telnet.
        return refusal(error, settings, tls and start.startswith(_TLS_HANDSHAKE))

    return ProxiedSession(begin, refuse)


def refuse(sock: socket.socket, error: RequestError, settings: Settings, tls: bool) -> None:
    """Tell a client that it is not served, if it is still there; before a handshake, by alert."""
    with suppress(OSError):
        sock.send(refusal(error, settings, tls), socket.MSG_DONTWAIT)


def refusal(error: RequestError, settings: Settings, tls: bool) -> bytes:
    """Return what tells a client that it is not served; before a handshake, an alert."""
    if tls:
        from calcd.core.tls import refusal as alert

        return alert(error.code)
    return f"{error.reply(LANGUAGES[settings.language].translate)}\n".encode()


def request_loggers(
    kind: str, address: Address
) -> tuple[Callable[[str, str], None] | None, Callable[[str], None]]:
    """Return ``on_request`` and ``on_bug`` of an ``Interpreter``.

    ``kind`` is what its lines begin with: ``connection`` or ``datagram``.
    """

    def log_request(request: str, reply: str) -> None:
        log.debug(f"{kind} %s: %s -> %s", name_of(address), printable(request), printable(reply))

    def log_bug(request: str) -> None:
        log.exception(
            f"{kind} %s: a bug, met at the request %s", name_of(address), printable(request)
        )

    return (log_request if log.isEnabledFor(logging.DEBUG) else None), log_bug
