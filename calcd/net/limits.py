"""How many connections may be open: in all, and from one host."""

import resource
import threading
from collections import Counter
from dataclasses import replace

from calcd.config.networks import counted_as
from calcd.config.settings import Settings
from calcd.daemon.ratelimit import bounded

log = bounded(__name__)

# Descriptors beyond one for each connection: standard streams, log, listeners, what threads
# wait for at the stop, and the connections that were told their last word and may read it yet.
SPARE_DESCRIPTORS = 512


class Places:
    """Counts open connections. A limit that is reached is logged once, and so is its end.

    A host is an IPv4 address or an IPv6 network of /64: each of these is what one client has.

    Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._taken_by: Counter[str] = Counter()
        self._full = False
        self._full_for: set[str] = set()

    def take(self, host: str, most: int, most_for_host: int) -> str:
        """Take a place for a client from ``host``, ``""`` where it has no address.

        Return ``""``, or why there is none, in words for the client. 0 is no limit.
        """
        host = counted_as(host)
        with self._lock:
            if most and self._taken >= most:
                if not self._full:
                    self._full = True
                    log.warning(
                        "limit reached: max_connections=%d: new clients are told BUSY", most
                    )
                return f"{most} connections are open, the server's limit"
            if host and most_for_host and self._taken_by[host] >= most_for_host:
                if host not in self._full_for:
                    self._full_for.add(host)
                    log.warning(
                        "limit reached: max_connections_per_host=%d: clients from %s are told BUSY",
                        most_for_host,
                        host,
                    )
                yours = "your /64 network" if ":" in host else "your address"
                return f"{most_for_host} connections are open from {yours}, its limit"
            self._taken += 1
            self._taken_by[host] += 1
            return ""

    def free(self, host: str, most: int, most_for_host: int) -> None:
        """Give a place back."""
        host = counted_as(host)
        with self._lock:
            self._taken -= 1
            self._taken_by[host] -= 1
            if not self._taken_by[host]:
                del self._taken_by[host]
            if self._full and _well_below(self._taken, most):
                self._full = False
                log.info("limit left: %d of max_connections=%d are open", self._taken, most)
            if host in self._full_for and _well_below(self._taken_by[host], most_for_host):
                self._full_for.discard(host)
                log.info("limit left: %d from %s are open", self._taken_by[host], host)

    @property
    def taken(self) -> int:
        """How many connections are open."""
        return self._taken


def _well_below(taken: int, most: int) -> bool:
    """Say whether a limit is left for good: a client more or less must not fill the log."""
    return not most or taken <= most - max(1, most // 10)


def fitting(settings: Settings) -> Settings:
    """Make room for the connections that the settings allow, or allow no more than fit."""
    fit = fit_descriptors(settings.max_connections)
    if fit == settings.max_connections:
        return settings
    log.warning(
        "max_connections lowered from %d to %d: the hard limit on descriptors is too low",
        settings.max_connections,
        fit,
    )
    return replace(settings, max_connections=fit)


def fit_descriptors(connections: int) -> int:
    """Raise this process's soft limit on descriptors so that so many connections fit.

    Return how many do: fewer where the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and needed > hard:
        # A limit near or below the spare ones leaves half of it to the clients.
        connections, needed = max(hard - SPARE_DESCRIPTORS, hard // 2, 1), hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return connections
