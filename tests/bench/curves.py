"""Throughput against pipeline depth, and against clients: what the picture shows."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median

from .load import Bench, Contestant

_DEPTHS = (1, 3, 10, 30, 100, 300, 1000)
_CLIENTS = (1, 2, 4, 8, 16, 64, 256, 1000)


def measure(bench: Bench) -> dict[str, dict[str, dict[int, float]]]:
    """Measure all points, each contestant in turn at each."""
    by_depth = {depth: (1, depth) for depth in _few(bench, _DEPTHS)}
    by_clients = {clients: (clients, 1) for clients in _few(bench, _CLIENTS)}
    return {
        "one client, by pipeline depth": _curves(bench, by_depth, "calcd", "bc", "redis", "echo"),
        "one at a time, by clients": _curves(bench, by_clients, "calcd", "redis", "echo"),
    }


def _few(bench: Bench, points: tuple[int, ...]) -> tuple[int, ...]:
    return points[:2] if bench.quick else points


def _curves(
    bench: Bench, loads: Mapping[int, tuple[int, int]], *names: str
) -> dict[str, dict[int, float]]:
    def measure(whom: Contestant, load: tuple[int, int]) -> float:
        return bench.ask(whom, *load).rate

    with ExitStack() as stack:
        started = bench.start(stack, *names)
        curves: dict[str, dict[int, float]] = {name: {} for name in started}
        for point, load in loads.items():
            turns = {name: partial(measure, whom, load) for name, whom in started.items()}
            for name, rates in bench.by_turns(turns).items():
                curves[name][point] = median(rates)
    return curves
