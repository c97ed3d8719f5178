"""What the server has counted since its start, for STATS and for metrics.

What a connection has counted so far is in the connection and its session: only the thread that
serves it adds to that, without a lock. It is added to the totals when the connection ends, and to
a copy of them when somebody asks.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, thread_time

from calcd.core.closing import CloseReason
from calcd.core.errors import CODES, code_of
from calcd.net.connection import ENDS, TRANSPORTS, Connection

REFUSALS = ("busy", "busy-host", "forbidden", "no-thread")
DROPS = (
    *("not-allowed", "reserved-port", "too-expensive", "too-many-large", "too-many-expensive"),
    *("no-thread", "send-failed", "bug"),
)
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHARE = 0.05  # of a processor's time, at most, to add up what the open connections have counted
_R = ord("R")
_ENDS = (*(each.value for each in CloseReason), *ENDS)


@dataclass(frozen=True)
class Histogram:
    """How many values there were from each bound to the next, and the sum of all values.

    A value that equals a bound counts as below it. The last count is of those above all bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


# By the value of its label; ``""`` is the key where a counter has no label.
Series = Mapping[str, int | float]
Counted = Mapping[str, Series | Histogram]  # by name


@dataclass(slots=True)
class Traffic:
    """What has come in and gone out; of TLS the encrypted bytes."""

    datagrams: int = 0
    requests: int = 0
    received: int = 0
    sent: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def include(self, other: "Traffic") -> None:
        """Add another one."""
        self.datagrams += other.datagrams
        self.requests += other.requests
        self.received += other.received
        self.sent += other.sent
        self.errors.update(other.errors.copy())  # a copy, as its thread may add to it

    def add(self, connection: Connection) -> None:
        """Add what a connection has counted."""
        counters = connection.counters
        self.requests += counters.requests
        self.received += connection.received
        self.sent += connection.sent
        if counters.errors:
            self.errors.update(counters.errors_by_code.copy())

    def add_answer(self, requests: int, answer: bytes) -> None:
        """Add an answer over UDP to so many requests."""
        self.requests += requests
        self.sent += len(answer)
        if _R in answer and b"ERR " in answer:  # to search for one byte takes a tenth of the time
            lines = answer.decode("latin-1").split("\n")
            self.errors.update(code_of(line) for line in lines if line.startswith("ERR "))


class Stats:
    """Counts for a server. Methods may be called from any thread.

    ``in_loop`` is for the datagrams of the serving loop, which alone adds to it. What others have
    counted, such as the daemon, is added by ``include``.
    """

    def __init__(self, connections: Callable[[], Iterable[Connection]]) -> None:
        """Make the counters. ``connections`` returns those that are open, and maybe ended ones."""
        self._connections = connections
        self.in_loop = Traffic()
        self._lock = threading.Lock()  # for the following
        self._traffic = Traffic()  # of datagrams, and of connections that have ended
        self._ended: Counter[tuple[str, str]] = Counter()  # connections by transport and reason
        self._refused: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._failed_handshakes = 0
        self._lags = [0] * (len(LAG_BOUNDS) + 1)
        self._lag_total = 0.0
        self._sources: list[Callable[[], Counted]] = []
        self._reading = threading.Lock()  # for the next two
        self._last: Counted = {}
        self._last_until = 0.0

    def include(self, source: Callable[[], Counted]) -> None:
        """Include what a function returns; to be called before the server serves."""
        self._sources.append(source)

    # Connections

    def end(self, connection: Connection) -> None:
        """Add what a connection has counted to the totals: it counts no more."""
        with self._lock:
            connection.is_counted = True
            self._traffic.add(connection)
            self._ended[connection.transport, connection.end_reason] += 1
            if connection.has_failed_handshake:
                self._failed_handshakes += 1

    def refuse(self, reason: str, code: str = "") -> None:
        """Count a client that got an error in place of being served, for one of ``REFUSALS``.

        ``code`` is that of the error, unless the connection's session counts it.
        """
        with self._lock:
            self._refused[reason] += 1
            if code:
                self._traffic.errors[code] += 1

    # Datagrams

    def add_answer(self, requests: int, answer: bytes) -> None:
        """Count the answer of a thread to a datagram of so many requests."""
        with self._lock:
            self._traffic.add_answer(requests, answer)

    def drop_datagram(self, reason: str) -> None:
        """Count a datagram that gets no answer, for one of the reasons in ``DROPS``."""
        with self._lock:
            self._dropped[reason] += 1

    # The serving loop

    def observe_lag(self, seconds: float) -> None:
        """Take how late the serving loop comes round."""
        with self._lock:
            self._lags[bisect_left(LAG_BOUNDS, seconds)] += 1
            self._lag_total += seconds

    # Reading

    def read(self) -> Counted:
        """Return all that was counted until now, or a little before.

        To add up thousands of connections takes some ms. So the last sums are returned again, for
        twenty times as long as they took.
        """
        with self._reading:
            if monotonic() >= self._last_until:
                begin = thread_time()
                counted = dict(self._count())
                for source in self._sources:
                    counted |= source()
                self._last = counted
                self._last_until = monotonic() + (thread_time() - begin) / _SHARE
            return self._last

    def count_requests(self) -> int:
        """Return how many requests were replied to until now."""
        with self._lock:
            open_now = self._open()
            ended = self._traffic.requests + self.in_loop.requests
        return ended + sum(each.counters.requests for each in open_now)

    def fields(self) -> Iterator[tuple[str, int | float]]:
        """Yield names and numbers, as STATS has them.

        Where there is a label, the sum of all is followed by each that is not 0.
        """
        for name, series in self.read().items():
            if isinstance(series, Histogram):
                yield f"{name}_count", sum(series.counts)
                yield f"{name}_sum", round(series.total, 3)
                continue
            yield name, sum(series.values())
            for label, number in series.items():
                if label and number:
                    yield f"{name}.{label}", number

    def _open(self) -> list[Connection]:
        return [each for each in self._connections() if not each.is_counted]

    def _count(self) -> Iterator[tuple[str, Series | Histogram]]:
        with self._lock:
            # At one moment: a connection is either in the totals, or among the open ones.
            open_now = self._open()
            traffic, ended = Traffic(), self._ended.copy()
            for part in self._traffic, self.in_loop:
                traffic.include(part)
            refused, dropped = self._refused.copy(), self._dropped.copy()
            failed_handshakes = self._failed_handshakes
            lag = Histogram(LAG_BOUNDS, tuple(self._lags), self._lag_total)
        transports, reasons = Counter[str](), Counter[str]()
        for (transport, reason), count in ended.items():
            transports[transport] += count
            reasons[reason] += count
        for connection in open_now:
            traffic.add(connection)
            transports[connection.transport] += 1
        yield "connections_open", {"": len(open_now)}
        yield "connections", _from_0(TRANSPORTS, transports)
        yield "connections_refused", _from_0(REFUSALS, refused)
        yield "connections_closed", _from_0(_ENDS, reasons)
        yield "requests", {"": traffic.requests}
        yield "errors", _from_0(CODES, traffic.errors)
        yield "received_bytes", {"": traffic.received}
        yield "sent_bytes", {"": traffic.sent}
        yield "datagrams", {"": traffic.datagrams}
        yield "datagrams_dropped", _from_0(DROPS, dropped)
        yield "tls_handshakes_failed", {"": failed_handshakes}
        yield "loop_lag_seconds", lag
        yield "threads", {"": threading.active_count()}


def _from_0(labels: tuple[str, ...], counter: Counter[str]) -> Series:
    """Return a series with all its labels: a graph of a new one would miss the first event."""
    return dict.fromkeys(labels, 0) | counter
