"""The figures of speed: calcd and a peer on the same sums, turn by turn."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from . import programs, sums
from .load import Bench, Contestant, Load, Row

# Of a contestant's run, what the figure is about.
Part = Callable[[Load], float]


def _rate(load: Load) -> float:
    return load.rate


def _wait(load: Load) -> float:
    return load.median * 1e6


def _rows(
    bench: Bench,
    what: str,
    load: tuple[int, int],
    part: Part,
    bars: dict[str, float],
) -> Iterator[Row]:
    """Measure calcd beside peers that have a bar each; ``load`` is clients and depth."""

    def measure(whom: Contestant) -> float:
        return part(bench.ask(whom, *load))

    with ExitStack() as stack:
        started = bench.start(stack, "calcd", *bars)
        turns = {name: partial(measure, whom) for name, whom in started.items()}
        measured = bench.by_turns(turns)
    ours = measured.pop("calcd")
    unit = "us" if part is _wait else "/s"
    for peer, theirs in measured.items():
        yield Row(what, unit, ours, peer, theirs, bars[peer], part is _rate)


def pipelined(bench: Bench) -> Iterator[Row]:
    """Throughput of clients that ask ahead."""
    yield from _rows(bench, "one client, 1,000 deep", (1, 1000), _rate, {"bc": 1.3})
    yield from _rows(bench, "8 clients, 200 deep", (8, 200), _rate, {"redis": 2.6})


def round_trips(bench: Bench) -> Iterator[Row]:
    """Clients that wait for each reply before they ask again."""
    yield from _rows(bench, "round trip, one client", (1, 1), _wait, {"echo": 1.15})
    yield from _rows(bench, "8 clients, one at a time", (8, 1), _rate, {"echo": 0.6})


def connections(bench: Bench) -> Iterator[Row]:
    """Clients that connect, ask one thing, close."""
    bars = {"echo": 0.8, "redis": 0.5}
    yield from _rows(bench, "connect, ask, close, 16 at once", (16, 0), _rate, bars)


def two_instances(bench: Bench) -> Iterator[Row]:
    """Two instances on one port against one, and against the C server."""
    with ExitStack() as stack:
        started = bench.start(stack, "calcd", "echo")
        share = ("--reuse-port", "yes")
        first = stack.enter_context(programs.calcd(bench.log("first"), *share))
        again = programs.calcd(bench.log("second"), *share, port=first.port)
        second = stack.enter_context(again)
        assert second.port == first.port
        both = Contestant("two", sums.calcd, str(first.port))
        deep = bench.by_turns(
            {
                "two": lambda: bench.ask(both, 16, 200).rate,
                "one": lambda: bench.ask(started["calcd"], 16, 200).rate,
            }
        )
        yield Row("two instances, 16 clients 200 deep", "/s", deep["two"], "one", deep["one"],
                  1.6, at_least=True)  # fmt: skip
        trips = bench.by_turns(
            {
                "two": lambda: bench.ask(both, 16, 1).rate,
                "echo": lambda: bench.ask(started["echo"], 16, 1).rate,
            }
        )
        yield Row("two instances, 16 clients one at a time", "/s", trips["two"], "echo",
                  trips["echo"], 0.75, at_least=True)  # fmt: skip


def flood(bench: Bench) -> Iterator[Row]:
    """The wait of a client that asks one at a time, beside one that floods 1,000 deep."""
    tails: list[float] = []
    with ExitStack() as stack:
        calcd = bench.start(stack, "calcd")["calcd"]

        def beside() -> float:
            with bench.asking(calcd, 1, 1000, 2 * bench.seconds + 1) as flooding:
                load = bench.ask(calcd, 1, 1)
                assert flooding.poll() is None, "the flood must last longer"
                _, complaint = flooding.communicate()
            assert not flooding.returncode, complaint
            tails.append(load.p99 * 1e3)
            return load.median * 1e6

        waits = bench.by_turns(
            {"quiet": lambda: bench.ask(calcd, 1, 1).median * 1e6, "flood": beside}
        )
    yield Row("wait beside a flood", "us", waits["flood"], "quiet", waits["quiet"], 5)
    yield Row("its 99th percentile", "ms", tails, bar=3)
