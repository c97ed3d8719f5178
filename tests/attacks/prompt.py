"""What everybody else sees of an attack: the waits of a fast client, and the watchdog's beat."""

import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from helpers import Daemon

_PAUSE = 0.002  # seconds between a reply and the next request
BEAT = 2.0  # seconds, as WATCHDOG_USEC: four beats are sent in this time


@dataclass(frozen=True)
class Waits:
    """The waits of a client that asks one cheap request at a time, in seconds."""

    waits: Sequence[float]
    beat: float  # the longest gap between two of the watchdog's beats

    @property
    def median(self) -> float:
        return median(self.waits)

    @property
    def p99(self) -> float:
        return quantiles(self.waits, n=100)[98] if len(self.waits) > 1 else self.worst

    @property
    def worst(self) -> float:
        return max(self.waits)

    def __str__(self) -> str:
        times = (self.median, self.p99, self.worst)
        return " | ".join([*(f"{each * 1e3:,.1f} ms" for each in times), f"{self.beat:.1f} s"])


class Beat(threading.Thread):
    """Takes down when the watchdog's beats come."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._socket = daemon.notified._socket
        self._ended = threading.Event()
        self._gap = 0.0
        self._last = time.monotonic()

    def run(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            if b"WATCHDOG=1" in self._socket.recv(4096):
                now = time.monotonic()
                self._gap, self._last = max(self._gap, now - self._last), now

    def end(self) -> float:
        """Stop; return the longest gap, in seconds."""
        self._ended.set()
        self.join()
        return max(self._gap, time.monotonic() - self._last)


def waits_beside(daemon: Daemon, seconds: float) -> Waits:
    """Ask, one request at a time, for so long; what has no reply at the end counts as it stands."""
    waits: list[float] = []
    beat = Beat(daemon)
    beat.start()
    until = time.monotonic() + seconds
    with socket.create_connection((daemon.host, daemon.port)) as client:
        while (began := time.monotonic()) < until:
            client.settimeout(until - began + 1)
            client.sendall(b"SOMA 2 2\n")
            try:
                assert client.recv(100) == b"4\n"
            except TimeoutError:
                waits.append(time.monotonic() - began)
                break
            waits.append(time.monotonic() - began)
            time.sleep(_PAUSE)
    return Waits(waits, beat.end())
