"""The command: which figures to measure, how often, and where the report goes."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from . import (
    columns,
    curves,
    figures,
    kinds,
    mechanisms,
    picture,
    profiles,
    report,
    states,
    transports,
)
from .load import Bench, Row
from .programs import PYTHON, BenchError, version

FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "pipelined": figures.pipelined,
    "kinds": kinds.measure,
    "trips": figures.round_trips,
    "instances": figures.two_instances,
    "connections": figures.connections,
    "flood": figures.flood,
    "tls": transports.tls,
    "udp": transports.udp,
    "idle": states.idle,
    "busy": states.busy,
    "client": states.client,
    "file": states.file,
    "start": states.start,
    "columns": columns.columns,
}
# Measured only where they are named.
MECHANISMS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "threads": mechanisms.threads,
    "groups": mechanisms.groups,
    "interval": mechanisms.interval,
    "memory": mechanisms.memory,
    "networks": mechanisms.networks,
    "proxy": mechanisms.proxy,
    "workers": mechanisms.workers,
    "counting": mechanisms.counting,
    "profile": profiles.measure,
}


def main() -> int:
    """Measure; the exit status is 0 when all answers were right, whatever the bars say."""
    options = _options()
    rows: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="calcd-bench-") as directory:
        try:
            bench = Bench(
                Path(directory), options.seconds, options.rounds, options.quick, options.python
            )
            for name in options.figures or FIGURES:
                rows[name] = []
                for row in (FIGURES | MECHANISMS)[name](bench):
                    rows[name].append(row)
                    print(report.line(row), flush=True)
            drawn = curves.measure(bench) if options.picture else None
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    for note in bench.notes:
        print(note)
    if options.json:
        report.write_json(options.json, bench, list(chain(*rows.values())), drawn)
    if drawn:
        picture.draw(options.picture, rows.get("kinds", []), drawn)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bench",
        description="Measure calcd beside its peers, turn by turn; every answer is checked.",
    )
    parser.add_argument(
        "figures",
        nargs="*",
        metavar="FIGURE",
        help=f"all, or some of: {', '.join(FIGURES)}; "
        f"or what single mechanisms are worth: {', '.join(MECHANISMS)}",
    )
    parser.add_argument("--rounds", type=int, help="turns of each contestant (5)")
    parser.add_argument("--seconds", type=float, help="that one turn of asking takes (1)")
    parser.add_argument(
        "--quick", action="store_true", help="see that all of it works: little of each, once"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw throughput, as SVG")
    parser.add_argument(
        "--python",
        metavar="PROGRAM",
        default=PYTHON if version(PYTHON) >= (3, 11) else sys.executable,
        help="Python that runs calcd and its client (%(default)s)",
    )
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES | MECHANISMS):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.05 if options.quick else 1.0)
    return options


if __name__ == "__main__":
    sys.exit(main())
