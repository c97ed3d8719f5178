"""Free memory is returned to the system after use, and not all the time."""

import ctypes

import pytest

from calcd.daemon import memory as module
from calcd.daemon.memory import INTERVAL, MemoryTrimmer, trim

now = [0.0]


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the times of trims, by the clock of ``now``."""
    times: list[float] = []
    monkeypatch.setattr(module, "trim", lambda: times.append(now[0]))
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return times


def run_ticks(*ticks: tuple[float, int]) -> None:
    """Tick at these times with so many connections."""
    trimmer = MemoryTrimmer()
    for time, connections in ticks:
        now[0] = time
        trimmer.on_tick(connections)


def test_without_clients_there_is_no_trim(trims: list[float]) -> None:
    run_ticks((100, 0), (200, 0))
    assert trims == []


def test_with_clients_there_is_a_trim_at_intervals(trims: list[float]) -> None:
    run_ticks(*((100 + tenth / 10, 5) for tenth in range(250)))
    assert trims == [100, 100 + INTERVAL, 100 + 2 * INTERVAL]


def test_after_the_last_client_there_is_one_trim(trims: list[float]) -> None:
    run_ticks((100, 5), (100.5, 0), (100 + INTERVAL, 0), (115, 0), (200, 0))
    assert trims == [100, 100 + INTERVAL]


def test_a_c_library_without_it_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    trim()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    trim()
