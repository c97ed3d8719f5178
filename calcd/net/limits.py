"""How many connections may be open: in all, and from one host."""

import logging
import resource
import threading
from collections import Counter
from dataclasses import replace

from calcd.config.networks import counted_as
from calcd.config.settings import Settings
from calcd.core.errors import RequestError

log = logging.getLogger(__name__)

# Descriptors beyond one for each connection: standard streams, log, listeners, wake-up
# descriptors, and connections in their lingering close.
SPARE_DESCRIPTORS = 512


class RefusedError(RequestError):
    """A client that is not served; ``reason`` is one of ``calcd.net.stats.REFUSALS``."""

    def __init__(self, reason: str, code: str, template: str, *arguments: object) -> None:
        super().__init__(code, template, *arguments)
        self.reason = reason


class ConnectionLimiter:
    """Counts open connections. A limit that is reached is logged once, and so is its end.

    A host is an IPv4 address or an IPv6 network of /64: each of these is what one client has. A
    client of a Unix socket has none, ``""``, nor has one whose proxy has not named it yet.

    Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._active_by: Counter[str] = Counter()
        self._full = False
        self._full_for: set[str] = set()

    def acquire(self, host: str, settings: Settings) -> None:
        """Count a client from ``host`` in; ``""`` where it has no address. A limit of 0 is none.

        Raise ``RefusedError`` BUSY if a limit is reached.
        """
        host = counted_as(host)
        limit, limit_per_host = settings.max_connections, settings.max_connections_per_host
        with self._lock:
            if limit and self._active >= limit:
                if not self._full:
                    self._full = True
                    log.warning(
                        "limit reached: max_connections=%d: new clients get ERR BUSY", limit
                    )
                template = "{} connections are open, the server's limit"
                raise RefusedError("busy", "BUSY", template, limit)
            self._add(host, limit_per_host)
            self._active += 1

    def assign(self, host: str, settings: Settings) -> None:
        """Count for ``host`` a connection that was counted for ``""``, which needs no new place.

        Raise ``RefusedError`` BUSY if the host's limit is reached: it stays counted for ``""``.
        """
        with self._lock:
            self._add(counted_as(host), settings.max_connections_per_host)
            self._subtract("", 0)

    def _add(self, host: str, limit: int) -> None:
        if host and limit and self._active_by[host] >= limit:
            if host not in self._full_for:
                self._full_for.add(host)
                log.warning(
                    "limit reached: max_connections_per_host=%d: clients from %s get ERR BUSY",
                    limit,
                    host,
                )
            yours = "your /64 network" if ":" in host else "your address"
            template = "{} connections are open from {}, its limit"
            raise RefusedError("busy-host", "BUSY", template, limit, (yours,))
        self._active_by[host] += 1

    def release(self, host: str, settings: Settings) -> None:
        """Count a client out; the settings are those now in force."""
        host = counted_as(host)
        limit, limit_per_host = settings.max_connections, settings.max_connections_per_host
        with self._lock:
            self._active -= 1
            if self._full and _well_below(self._active, limit):
                self._full = False
                log.info(
                    "below the limit again: %d of max_connections=%d are open", self._active, limit
                )
            self._subtract(host, limit_per_host)

    def _subtract(self, host: str, limit: int) -> None:
        self._active_by[host] -= 1
        if not self._active_by[host]:
            del self._active_by[host]
        if host in self._full_for and _well_below(self._active_by[host], limit):
            self._full_for.discard(host)
            log.info("below the limit again: %d from %s are open", self._active_by[host], host)

    @property
    def active(self) -> int:
        """How many connections are open."""
        return self._active


def _well_below(active: int, limit: int) -> bool:
    """Return True once the count is well below the limit.

    The gap keeps the log from filling up at the boundary.
    """
    return not limit or active <= limit - max(1, limit // 10)


def raise_descriptor_limit(settings: Settings) -> Settings:
    """Raise the soft limit on descriptors to fit ``max_connections``.

    Return the settings, with fewer connections if the hard limit is too low for them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = fit = settings.max_connections
    needed = wanted + SPARE_DESCRIPTORS
    if needed > hard != resource.RLIM_INFINITY:
        # A limit near or below the spare ones leaves half of it to the clients.
        fit = min(wanted, max(hard - SPARE_DESCRIPTORS, hard // 2, 1))
        needed = hard
    if needed > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if fit == wanted:
        return settings
    message = "max_connections lowered from %d to %d: the hard limit on descriptors is too low"
    log.warning(message, wanted, fit)
    return replace(settings, max_connections=fit)
