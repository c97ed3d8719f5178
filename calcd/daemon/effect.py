"""Which settings have an effect here, with these sockets, in the foreground or background."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from socket import SO_REUSEPORT, SOL_SOCKET

from calcd.config.errors import ConfigError
from calcd.config.settings import Settings
from calcd.net.listeners import Listener

_REPLACED = "has no effect: the sockets that systemd holds take its place"


def in_force(settings: Settings, listeners: Sequence[Listener], background: bool) -> Settings:
    """Return the settings with what is true here in place of what has no effect.

    ``listeners`` are all, also those of metrics. Sockets from systemd take the place of ``listen``
    and ``metrics``, and only with -d the daemon becomes another user. A setting that has no effect
    cannot change, so a reload asks for no restart for it.
    """
    if not background:
        settings = replace(settings, user="", group="")
    if inherited := _inherited(listeners, http=False):
        shared = (each.socket.getsockopt(SOL_SOCKET, SO_REUSEPORT) for each in inherited)
        endpoints = tuple(listener.endpoint for listener in inherited)
        settings = replace(settings, listen=endpoints, reuse_port=all(shared))
    if inherited := _inherited(listeners, http=True):
        settings = replace(settings, metrics=tuple(each.endpoint for each in inherited))
    return settings


def _inherited(listeners: Sequence[Listener], http: bool) -> list[Listener]:
    """Return those from systemd, for metrics with ``http``, else for clients."""
    return [each for each in listeners if each.inherited and each.endpoint.http == http]


def without_effect(
    settings: Settings,
    background: bool,
    sockets: str = "",
    metrics_sockets: str = "",
    tls: bool | None = None,
) -> list[str]:
    """Return a sentence for each setting that was set, and that has no effect.

    ``sockets`` says which systemd unit holds the sockets and where to change that; empty: none
    does. ``metrics_sockets`` says it of those for metrics. ``tls`` is whether there is a TLS
    endpoint; None: ask ``listen``.
    """
    if tls is None:
        tls = any(endpoint.tls for endpoint in settings.listen)
    reasons: list[tuple[Iterable[str], str]] = []
    if sockets:
        reasons.append((("listen", "reuse_port"), f"{_REPLACED}: {sockets}"))
    if metrics_sockets:
        reasons.append((("metrics",), f"{_REPLACED}: {metrics_sockets}"))
    if not background:
        reasons.append((("user", "group"), "has no effect without -d"))
    if not tls:
        names = ("tls_certificate", "tls_key", "tls_client_ca", "tls_client_crl")
        reasons.append((names, "has no effect: there is no tls:// endpoint"))
    if not settings.workers:
        reasons.append((("line_cpu_timeout",), "has no effect with workers = 0"))
    return [
        str(ConfigError(reason, setting=name, source=settings.sources[name]))
        for names, reason in reasons
        for name in names
        if name in settings.sources and getattr(settings, name) not in ("", False)
    ]


def effect_warnings(
    settings: Settings, listeners: Sequence[Listener], background: bool
) -> list[str]:
    """Return ``without_effect`` for a daemon with these listeners, also those of metrics."""
    return without_effect(
        settings,
        background,
        "change them in the socket unit" if _inherited(listeners, http=False) else "",
        "change them in the socket unit" if _inherited(listeners, http=True) else "",
        any(listener.endpoint.tls for listener in listeners),
    )
