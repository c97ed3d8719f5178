"""The figures of speed: calcd and a peer on the same sums, turn by turn."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial

from . import kinds, programs, sums
from .load import Bench, Contestant, Load, Row

# Of a contestant's run, what the figure is about.
Part = Callable[[Load], float]
_EXPRESSIONS = {"expressions of one shape": kinds.TAXED, "expressions of any shape": kinds.MIXED}


def rate(load: Load) -> float:
    """Answers a second."""
    return load.rate


def wait(load: Load) -> float:
    """The median wait in microseconds."""
    return load.median * 1e6


def beside(
    bench: Bench,
    contestants: Iterable[Contestant],
    what: str,
    load: tuple[int, int],
    part: Part,
    bars: Mapping[str, float | None],
) -> Iterator[Row]:
    """Measure calcd beside peers that have a bar each; ``load`` is clients and depth."""

    def measure(whom: Contestant) -> float:
        return part(bench.ask(whom, *load))

    measured = bench.by_turns({whom.name: partial(measure, whom) for whom in contestants})
    ours = measured.pop("calcd")
    unit = "us" if part is wait else "/s"
    for peer, theirs in measured.items():
        yield Row(what, unit, ours, peer, theirs, bars[peer], part is rate)


def _rows(
    bench: Bench, what: str, load: tuple[int, int], part: Part, bars: Mapping[str, float | None]
) -> Iterator[Row]:
    """Start calcd and the peers, and measure them."""
    with ExitStack() as stack:
        started = bench.start(stack, "calcd", *bars)
        yield from beside(bench, started.values(), what, load, part, bars)


def pipelined(bench: Bench) -> Iterator[Row]:
    """Throughput of clients that ask ahead."""
    yield from _rows(bench, "one client, 1,000 deep", (1, 1000), rate, {"bc": 1.7})
    yield from _rows(bench, "8 clients, 200 deep", (8, 200), rate, {"redis": 4})


def round_trips(bench: Bench) -> Iterator[Row]:
    """Clients that wait for each reply before they ask again."""
    yield from _rows(bench, "round trip, one client", (1, 1), wait, {"echo": 1.05, "bare": None})
    for what, kind in _EXPRESSIONS.items():
        with ExitStack() as stack:
            pairs = kind.pairs(len(bench.sums))["calcd"]
            asked = {"calcd": pairs, "echo": [(request, request) for request, _ in pairs]}
            started = []
            for name, whom in bench.start(stack, *asked).items():
                file = sums.write(bench.directory / f"{kind.name.split()[0]}.{name}", asked[name])
                started.append(whom._replace(lines=file))
            yield from beside(bench, started, f"round trip, {what}", (1, 1), wait, {"echo": 1.15})
    bars = {"echo": 1, "bare": None}
    yield from _rows(bench, "8 clients, one at a time", (8, 1), rate, bars)


def connections(bench: Bench) -> Iterator[Row]:
    """Clients that connect, ask one thing, close."""
    bars = {"echo": 1.4, "redis": 1, "bare": None}
    yield from _rows(bench, "connect, ask, close, 16 at once", (16, 0), rate, bars)


def two_instances(bench: Bench) -> Iterator[Row]:
    """Two instances on one port against one, and against the C server."""
    with ExitStack() as stack:
        started = bench.start(stack, "calcd", "echo")
        share = ("--reuse-port", "yes")
        first = stack.enter_context(bench.calcd("first", *share))
        again = bench.calcd("second", *share, port=first.port)
        second = stack.enter_context(again)
        assert second.port == first.port
        both = Contestant("two", sums.calcd, str(first.port))
        port = stack.enter_context(programs.bare(bench.python, bench.log("bare"), "0"))
        stack.enter_context(programs.bare(bench.python, bench.log("bare-too"), str(port)))
        floor = Contestant("two", sums.echo, str(port))
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
                "bare": lambda: bench.ask(floor, 16, 1).rate,
            }
        )
        for peer, bar in {"echo": 1, "bare": None}.items():
            yield Row("two instances, 16 clients one at a time", "/s", trips["two"], peer,
                      trips[peer], bar, at_least=True)  # fmt: skip


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
    yield Row("wait beside a flood", "us", waits["flood"], "quiet", waits["quiet"], 2.5)
    yield Row("its 99th percentile", "ms", tails, bar=1)
