"""The metrics, as Prometheus's client library writes them.

Imported only where metrics are served: the library is optional, and slow to import.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

import calcd
from calcd.net.stats import Counted, Histogram, Series

_PREFIX = "calcd_"


@dataclass(frozen=True)
class Row:
    """A row of the table: how a counter of ``Stats`` is described to Prometheus.

    ``name`` has neither prefix nor suffix. ``label`` is the name of its label, ``""`` for none.
    """

    name: str
    help: str
    label: str = ""
    is_counter: bool = True


METRICS = (
    Row("connections_open", "Open connections.", is_counter=False),
    Row("connections_limit", "The setting max_connections in force.", is_counter=False),
    Row("connections", "Connections that were served, by transport.", "transport"),
    Row("connections_refused", "Clients that got BUSY or FORBIDDEN, by reason.", "reason"),
    Row("connections_closed", "Connections that have ended, by reason.", "reason"),
    Row("requests", "Requests that were replied to, over all transports."),
    Row("errors", "Error replies, by code.", "code"),
    Row("received_bytes", "Bytes received from clients; of TLS the encrypted ones."),
    Row("sent_bytes", "Bytes sent to clients; of TLS the encrypted ones."),
    Row("datagrams", "Datagrams received."),
    Row("datagrams_dropped", "Datagrams left without an answer, by reason.", "reason"),
    Row("tls_handshakes_failed", "TLS connections that ended without a finished handshake."),
    Row(
        "tls_certificate_expiry_timestamp_seconds",
        "When the TLS certificate in force expires, as Unix time.",
        is_counter=False,
    ),
    Row("loop_lag_seconds", "How late the serving loop comes round.", is_counter=False),
    Row("threads", "Threads of the daemon.", is_counter=False),
    Row("log_lines_suppressed", "Log lines that the rate limit has suppressed."),
    Row("reloads", "Reloads of the settings, by result.", "result"),
    Row(
        "settings_last_reload_successful",
        "1 if the last reload was a success, or there was none; else 0.",
        is_counter=False,
    ),
    Row(
        "settings_last_reload_success_timestamp_seconds",
        "When the settings in force were read, as Unix time.",
        is_counter=False,
    ),
    Row("start_time_seconds", "When the daemon started, as Unix time.", is_counter=False),
)


def registry_of(read: Callable[[], Counted]) -> CollectorRegistry:
    """Return a registry of the library that calls ``read`` at each scrape."""
    registry = CollectorRegistry(auto_describe=True)  # a scrape may ask for some names alone
    registry.register(_StatsCollector(read))
    _Process(registry=registry)
    return registry


class _StatsCollector(Collector):
    def __init__(self, read: Callable[[], Counted]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        version = {"version": calcd.__version__}
        yield InfoMetricFamily(f"{_PREFIX}build", "The version of calcd.", version)
        counted = self._read()
        for row in METRICS:
            if row.name in counted:  # there may be no certificate
                yield _family(row, counted[row.name])


def _family(row: Row, series: Series | Histogram) -> Metric:
    name = _PREFIX + row.name
    if isinstance(series, Histogram):
        return HistogramMetricFamily(name, row.help, _buckets(series), series.total)
    kind = CounterMetricFamily if row.is_counter else GaugeMetricFamily
    family = kind(name, row.help, labels=[row.label] if row.label else [])
    for label, number in series.items():
        family.add_metric([label] if row.label else [], number)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return bounds and counts as Prometheus has them: each count includes those before."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return [(bound, sum(histogram.counts[: place + 1])) for place, bound in enumerate(bounds)]


class _Process(ProcessCollector):
    """The library's metrics of the process, where the unit shows no ``/proc/stat`` as well.

    The library reads there when the machine was booted, and would leave out everything.
    """

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
