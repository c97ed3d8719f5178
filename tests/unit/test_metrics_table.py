"""The metrics as Prometheus's own library reads them."""

import math
import re
import time
from pathlib import Path

import pytest
from documents import OPERATIONS, first_cells
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import calcd
from calcd.daemon.counts import DaemonCounts
from calcd.daemon.metrics import METRICS, _Process, registry_of
from calcd.net import stats as module
from calcd.net.connection import TRANSPORTS
from calcd.net.stats import DROPS, REFUSALS, Counted, Stats

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """Return all samples of a scrape, by name and labels."""
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Stats:
    """Give those of a daemon that has a certificate, and adds up at each reading."""
    monkeypatch.setattr(module, "_SHARE", math.inf)
    stats, counts = Stats(list), DaemonCounts()
    counts.certificate_expiry = 1.9e9
    stats.include(counts.read)
    stats.include(lambda: {"connections_limit": {"": 7}})
    return stats


def scrape(stats: Stats) -> Samples:
    return parsed(generate_latest(registry_of(stats.read)).decode())


def test_each_counter_has_its_row_and_each_row_its_counter(stats: Stats) -> None:
    assert {row.name for row in METRICS} == set(stats.read())


def test_the_metrics_are_those_of_the_table(stats: Stats) -> None:
    served = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry_of(stats.read).collect()
        if not family.name.startswith("process_")
    }
    told = first_cells(OPERATIONS, "metric")
    assert len(told) == len(set(told))
    assert {name.replace("build_info", "build") for name in told} == served
    for row in METRICS:  # with its type and its label
        kind = "counter" if row.is_counter else "gauge"
        if row.name == "loop_lag_seconds":
            kind = "histogram"
        name = f"calcd_{row.name}{'_total' * row.is_counter}"
        label = f"`{row.label}` " if row.label else ""
        assert f"| `{name}` | {kind} | {label}| " in OPERATIONS.read_text()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("connections", TRANSPORTS),
        ("connections_refused", REFUSALS),
        ("datagrams_dropped", DROPS),
        ("reloads", ("success", "failure")),
    ],
)
def test_the_table_explains_each_label(name: str, labels: tuple[str, ...]) -> None:
    (row,) = re.findall(rf"^\| `calcd_{name}_total` \|.*", OPERATIONS.read_text(), re.MULTILINE)
    assert set(labels) <= set(re.findall("`([a-z-]+)`", row))


def test_the_numbers_are_those_of_the_server(stats: Stats) -> None:
    stats.refuse("busy", "BUSY")
    for lag in (0.0005, 0.2, 0.2, 99.0):
        stats.observe_lag(lag)
    samples = scrape(stats)
    assert samples["calcd_build_info", (("version", calcd.__version__),)] == 1
    assert samples["calcd_connections_limit", ()] == 7
    assert samples["calcd_connections_refused_total", (("reason", "busy"),)] == 1
    assert samples["calcd_errors_total", (("code", "BUSY"),)] == 1
    assert samples["calcd_errors_total", (("code", "SYNTAX"),)] == 0
    assert samples["calcd_tls_certificate_expiry_timestamp_seconds", ()] == 1.9e9
    buckets = [
        samples["calcd_loop_lag_seconds_bucket", (("le", bound),)]
        for bound in ("0.001", "0.1", "0.25", "10.0", "+Inf")
    ]
    assert buckets == [1, 1, 3, 3, 4]
    assert samples["calcd_loop_lag_seconds_count", ()] == 4
    assert samples["calcd_loop_lag_seconds_sum", ()] == pytest.approx(99.4005)


def test_without_tls_there_is_no_certificate() -> None:
    counts = DaemonCounts()
    counted: Counted = {**Stats(list).read(), **counts.read()}
    names = {family.name for family in registry_of(lambda: counted).collect()}
    assert "calcd_reloads" in names
    assert not [name for name in names if "certificate" in name]


def test_reloads_are_counted_by_their_result() -> None:
    counts, before = DaemonCounts(), time.time()
    last = "settings_last_reload_success_timestamp_seconds"

    def told() -> list[object]:
        found = counts.read()
        return [found["reloads"], found["settings_last_reload_successful"], found[last]]

    start = told()[2]
    assert told() == [{"success": 0, "failure": 0}, {"": 1}, start]
    counts.reloaded(is_success=False)
    assert told() == [{"success": 0, "failure": 1}, {"": 0}, start]
    counts.reloaded(is_success=True)
    assert told()[:2] == [{"success": 1, "failure": 1}, {"": 1}]
    (now,) = counts.read()[last].values()  # type: ignore[union-attr]
    assert now >= round(before, 3)


def test_the_process_is_told_where_there_is_no_proc_stat(tmp_path: Path) -> None:
    """As under the unit, whose ProcSubset=pid hides it."""
    (tmp_path / "self").symlink_to("/proc/self")
    hidden = {
        family.name: family.samples[0].value
        for family in _Process(proc=str(tmp_path), registry=None).collect()
    }
    shown = {family.name: family.samples[0].value for family in _Process(registry=None).collect()}
    assert hidden.keys() == shown.keys()
    assert len(hidden) == 6
    assert hidden["process_start_time_seconds"] == pytest.approx(
        shown["process_start_time_seconds"], abs=1
    )
    assert hidden["process_resident_memory_bytes"] > 1 << 20
