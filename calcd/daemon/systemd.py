"""Tell systemd about the service: states, status and watchdog (sd_notify(3))."""

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

_SEND_TIMEOUT = struct.pack("@ll", 1, 0)  # one second, as SO_SNDTIMEO takes it
_STATUS_INTERVAL = 5.0  # seconds between status messages if there is no watchdog


class Notifier:
    """Sends states to the service manager; without NOTIFY_SOCKET it does nothing.

    The socket stays open, so that the watchdog is fed even when no descriptor is left.
    """

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        # @ stands for the NUL of an abstract address.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if path else None
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)

    def send(self, *states: str, wait: bool = True) -> None:
        """Send states such as ``READY=1``; errors are ignored.

        With ``wait``, wait for a busy manager, for one second at most.
        """
        if self._socket is not None:
            flags = 0 if wait else socket.MSG_DONTWAIT
            with suppress(OSError):
                self._socket.sendto("\n".join(states).encode(), flags, self._address)

    @property
    def is_listened_to(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def reloading(self) -> None:
        """Send that a reload has begun; ``READY=1`` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()


class Watchdog:
    """Feeds systemd's watchdog and updates the status, both from the serving loop.

    ``interval`` is how often, in seconds: a quarter of WatchdogSec. The serving loop calls
    ``on_tick`` at least that often, so two messages are never more than half of it apart, as
    sd_watchdog_enabled(3) asks.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._next = 0.0
        self._states: list[str] = []
        self._counted = time.monotonic(), 0  # when requests were counted, and how many there were
        self.interval = _STATUS_INTERVAL
        with suppress(KeyError, ValueError):
            timeout = int(os.environ["WATCHDOG_USEC"]) / 1e6
            if timeout and os.environ.get("WATCHDOG_PID") in (None, str(os.getpid())):
                self._states, self.interval = ["WATCHDOG=1"], timeout / 4

    def on_tick(self, connections: int, count_requests: Callable[[], int] = lambda: 0) -> None:
        """Send, if it is time, the states, how many connections are open, and the load.

        ``count_requests`` returns how many requests were replied to since the start.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.interval
            status = f"STATUS=connections open: {connections}"
            if self._notifier.is_listened_to:
                status += f", requests a second: {self._rate(now, count_requests()):.0f}"
            self._notifier.send(*self._states, status, wait=False)

    def _rate(self, now: float, requests: int) -> float:
        """Return the requests of each second since the last call."""
        at, before = self._counted
        self._counted = now, requests
        return (requests - before) / (now - at) if now > at else 0.0
