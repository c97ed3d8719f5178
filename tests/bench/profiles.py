"""Where the serving loop's time goes: shares of it, by Python's profiler.

The profiler adds to each call of a function in Python, so the share of Python is less than it
shows. Shares change little on a busy machine, where microseconds do.
"""

import pstats
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import sums
from .load import Bench, Contestant, Row
from .programs import TIMEOUT

# Run before the daemon starts; the profile is written at its end.
_PROFILED = """
import atexit, cProfile
from calcd.net.server import Server
profile = cProfile.Profile()
def serve(self, *arguments, serve=Server.serve_forever):
    profile.runcall(serve, self, *arguments)
Server.serve_forever = serve
atexit.register(profile.dump_stats, {!r})
"""
_LOADS = {
    "8 clients one at a time": (8, 1),
    "connect, ask, close, 16 at once": (16, 0),
}
_LEAST = 0.01  # of the time that is worth a row
_SYSTEM_CALL = re.compile(r"'(\w+)' of '(?:_socket\.socket|select\.epoll)'|socket\.(close) at")


def measure(bench: Bench) -> Iterator[Row]:
    """Percent of the serving loop's time, but for its waits."""
    for what, load in _LOADS.items():
        rounds: list[Counter[str]] = []
        for _ in range(bench.rounds):
            file = bench.directory / "profile"
            with bench.calcd("profile", before=_PROFILED.format(str(file))) as calcd:
                bench.ask(Contestant("calcd", sums.calcd, str(calcd.port)), *load)
                calcd.process.terminate()
                calcd.process.wait(TIMEOUT)
            rounds.append(_shares(file))
        for part, share in (rounds[0]).most_common():
            if share >= 100 * _LEAST:
                yield Row(f"{what}: {part}", "%", [each[part] for each in rounds])


def _shares(file: Path) -> Counter[str]:
    """Return the percentages of the parts of a profile."""
    parts = Counter[str]()
    for (path, _, name), (_, _, own, _, _) in pstats.Stats(str(file)).stats.items():  # type: ignore[attr-defined]
        parts[_part(path, name)] += own
    del parts["system call poll"]  # it waits
    whole = sum(parts.values())
    return Counter({part: 100 * own / whole for part, own in parts.items()})


def _part(path: str, name: str) -> str:
    """Return what a function is a part of."""
    if call := _SYSTEM_CALL.search(name):
        return f"system call {(call[1] or call[2]).strip('_')}"
    if found := re.search(r"/(calcd/(?:core|net|daemon))/", path):
        return found[1]
    if found := re.search(r"/(logging|socket)\b", path):
        return f"the library's {found[1]}"
    return "built-in functions and other modules"
