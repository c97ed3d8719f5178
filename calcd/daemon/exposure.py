"""What an operator is warned of: endpoints that are open to more than this machine."""

import logging
from collections.abc import Iterator, Sequence

from calcd.config.networks import packed
from calcd.config.settings import Settings
from calcd.net.listeners import Listener

log = logging.getLogger(__name__)

_ONE = bytes(15) + b"\x01"  # ::1


def warn(listeners: Sequence[Listener], settings: Settings, before: Settings | None = None) -> None:
    """Log each endpoint that serves everybody who can reach it from another machine.

    After a reload, only those that did not with the settings ``before``.
    """
    known = set(_exposed(listeners, before)) if before else set()
    for url in _exposed(listeners, settings):
        if url not in known:
            log.warning(
                "%s is open to everybody who can reach it: set allow to the networks of its "
                "clients, or use tls:// with tls_client_ca",
                url,
            )


def _exposed(listeners: Sequence[Listener], settings: Settings) -> Iterator[str]:
    if settings.allow.networks:
        return
    for listener in listeners:
        endpoint = listener.endpoint
        local = endpoint.path or _is_loopback(endpoint.host)
        if not (local or (listener.tls and settings.tls_client_ca)):
            yield str(endpoint)


def _is_loopback(host: str) -> bool:
    address = packed(host)
    return address[0] == 127 if len(address) == 4 else address == _ONE
