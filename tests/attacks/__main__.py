"""The command: attack a daemon in each way, and print what everybody else has seen of it."""

import argparse
import multiprocessing
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from certificates import Authority
from helpers import ROOT, daemons_in

from .attacks import ROWS, Row, Target
from .prompt import BEAT, waits_beside

_HEAD = "| # | attack | it saw | fast client waits: median | 99% | worst | longest beat |"


def main() -> int:
    """Attack; print a row of a table for each."""
    options = _options()
    print(_HEAD)
    print("| --- " * (_HEAD.count("|") - 1) + "|")
    for row in ROWS:
        if not options.rows or row.number in options.rows:
            with tempfile.TemporaryDirectory(prefix="calcd-attack-") as name:
                print(_attacked(row, Path(name), options), flush=True)
    return 0


def _attacked(row: Row, directory: Path, options: argparse.Namespace) -> str:
    authority = Authority(directory)
    server = authority.issue("server", "DNS:localhost,IP:127.0.0.1")
    authority.issue("client")
    tls = ["--tls-certificate", str(server.cert), "--tls-key", str(server.key)]
    tls += ["--tls-client-ca", str(authority.cert)] if row.number == "5" else []
    listen = "tcp://127.0.0.1:0 tls://127.0.0.1:0 udp://127.0.0.1:0 udp://127.0.0.1:0"
    with daemons_in(directory) as start:
        daemon = start(
            *("-l", listen, *tls, *row.settings),
            python=options.python,
            PYTHONPATH=str(options.checkout),
            WATCHDOG_USEC=str(int(BEAT * 1e6)),
        )
        ports: dict[str, list[int]] = defaultdict(list)
        for scheme, port in re.findall(r"(\w+)://127\.0\.0\.1:(\d+)", " ".join(daemon.endpoints)):
            ports[scheme].append(int(port))
        target = Target(ports, daemon.process.pid, directory, options.checkout, options.seconds)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()

        def attack() -> None:
            try:
                theirs.send(row.attack(target))
            except OSError as error:  # the connection was cut, or there was no answer in a minute
                theirs.send(f"ended by {error!r}")

        process = context.Process(target=attack)
        process.start()
        waits = waits_beside(daemon, options.seconds)
        saw = ours.recv() if ours.poll(30) else "no end in 30 s"
        process.kill()
        process.join()
    return f"| {row.number} | {row.name} | {saw} | {waits} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.attacks",
        description="Attack a daemon, and measure how long a fast client waits beside it.",
    )
    parser.add_argument("rows", nargs="*", metavar="NUMBER", help="of the attacks; else all")
    parser.add_argument("--seconds", type=float, default=5, help="of each attack (5)")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="of the daemon (this one)")
    parser.add_argument("--python", default=sys.executable, help="that runs the daemon (this one)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
