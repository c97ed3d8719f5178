"""The figures of many clients at once, of the client, and of the start."""

import filecmp
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

from . import programs, sums
from .load import Bench, Contestant, Row
from .programs import ROOT, TIMEOUT, BenchError, MissingError

_IDLE = 9000
_BUSY = 1000
_LINES = 1_000_000
# What the installed script does, from this checkout.
_SCRIPT = f"""if True:
    import sys
    sys.path[0] = {str(ROOT)!r}
    from calcd.client.cli import main
    sys.exit(main())
"""
_STARTS = 10  # of a client, for one measurement


def idle(bench: Bench) -> Iterator[Row]:
    """Many clients that have asked once: what they cost, and the stop with them."""
    many = make_room(200 if bench.quick else _IDLE)
    memory, alone, beside, stops = [], [], [], []
    for _ in range(bench.rounds):
        log = bench.log("idle")
        with ExitStack() as stack:
            options = ("--max-connections", str(many + 100))
            calcd = stack.enter_context(bench.calcd("idle", *options))
            whom = Contestant("calcd", sums.calcd, str(calcd.port))
            alone.append(bench.ask(whom, 1, 1).median * 1e6)
            before = programs.resident(calcd.process)
            for _ in range(many):
                client = socket.create_connection(("127.0.0.1", calcd.port), TIMEOUT)
                stack.enter_context(client).sendall(b"PING\n")
                if client.recv(100) != b"PONG\n":
                    raise BenchError("wrong answer to PING")
            memory.append((programs.resident(calcd.process) - before) / many / 1024)
            beside.append(bench.ask(whom, 1, 1).median * 1e6)
            began = time.monotonic()
            calcd.process.send_signal(signal.SIGTERM)
            if status := calcd.process.wait(TIMEOUT):
                raise BenchError(f"calcd ended with {status}: {log.read_text()[-500:]}")
            stops.append(time.monotonic() - began)
    yield Row(f"memory of each of {many} idle clients", "KiB", memory, bar=16)
    yield Row(f"round trip beside {many} idle clients", "us", beside, "none", alone, 1.5)
    yield Row(f"stop with {many} idle clients", "s", stops, bar=3)


def busy(bench: Bench) -> Iterator[Row]:
    """Many clients that all ask at once: does the serving loop still come round?"""
    many = make_room(100 if bench.quick else _BUSY)
    gaps, rates = [], []
    for _ in range(bench.rounds):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            name = f"\0calcd-bench-{time.monotonic_ns()}"
            manager.bind(name)
            manager.settimeout(TIMEOUT)
            # A beat is due every tenth of a second.
            watched = {"NOTIFY_SOCKET": "@" + name[1:], "WATCHDOG_USEC": "400000"}
            with bench.calcd("busy", variables=watched) as calcd:
                whom = Contestant("calcd", sums.calcd, str(calcd.port))
                beats: list[float] = []
                over = threading.Event()
                listening = threading.Thread(target=_listen, args=(manager, beats, over))
                listening.start()
                try:
                    load = bench.ask(whom, many, 1, 2 * bench.seconds)
                finally:
                    over.set()
                    listening.join()
        rates.append(load.rate)
        gaps.append(max(later - sooner for sooner, later in pairwise(beats)))
    yield Row(f"longest gap in the beat, {many} busy clients", "s", gaps, bar=1)
    yield Row(f"{many} clients, one at a time", "/s", rates)


def _listen(manager: socket.socket, beats: list[float], over: threading.Event) -> None:
    while not over.is_set() or len(beats) < 2:
        if b"WATCHDOG=1" in manager.recv(4096):
            beats.append(time.monotonic())


def client(bench: Bench) -> Iterator[Row]:
    """How long `calcc -e` takes, from start to exit, beside an interpreter that does nothing."""
    with ExitStack() as stack:
        calcd = bench.start(stack, "calcd")["calcd"]
        ways = {"calcd.client -e": [bench.python, "-c", _SCRIPT]}
        script = Path(bench.python).with_name("calcc")
        if script.exists():
            ways["calcc -e, installed"] = [str(script)]
        else:
            bench.notes.append(f"left out: calcc is not installed beside {bench.python}")
        ask = ["-e", "SOMA 0.1 0.2", "127.0.0.1", calcd.target]
        turns = {way: partial(_time, [*command, *ask], b"0.3\n") for way, command in ways.items()}
        turns["bare"] = partial(_time, [bench.python, "-c", "pass"], b"")
        measured = bench.by_turns(turns)
    for way in ways:
        yield Row(way, "ms", measured[way], "bare", measured["bare"], 1.6)


def _time(command: list[str], answer: bytes) -> float:
    began = time.perf_counter()
    for _ in range(_STARTS):
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=True
        )
        if run.stdout != answer:
            raise BenchError(f"wrong answer: {run.stdout!r}")
    return (time.perf_counter() - began) / _STARTS * 1e3


def file(bench: Bench) -> Iterator[Row]:
    """A long file through `calcc` and through OpenBSD's nc."""
    lines = 20_000 if bench.quick else _LINES
    requests, replies = (bench.directory / name for name in ("requests", "replies"))
    pairs = [sums.calcd(each) for each in bench.sums]
    for path, side in ((requests, 0), (replies, 1)):
        text = "".join(pair[side] for pair in pairs)
        path.write_text(text * (lines // len(pairs)))
    with ExitStack() as stack:
        port = bench.start(stack, "calcd")["calcd"].target
        calcc = [bench.python, "-c", _SCRIPT, "127.0.0.1", port]

        def through(command: list[str]) -> float:
            came = bench.directory / "came"
            with requests.open("rb") as source, came.open("wb") as sink:
                began = time.perf_counter()
                subprocess.run(command, stdin=source, stdout=sink, timeout=TIMEOUT, check=True)
                took = time.perf_counter() - began
            if not filecmp.cmp(came, replies, shallow=False):
                raise BenchError(f"wrong answers through {command[0]}")
            return took

        turns = {"calcc": lambda: through(calcc)}
        try:
            netcat = [programs.installed("nc.openbsd"), "-N", "127.0.0.1", port]
            turns["nc"] = lambda: through(netcat)
        except MissingError as missing:
            bench.notes.append(f"left out: {missing}")
        measured = bench.by_turns(turns)
    if "nc" in measured:
        yield Row(f"{lines:,} lines through calcc", "s", measured["calcc"], "nc", measured["nc"], 2)
    else:
        yield Row(f"{lines:,} lines through calcc", "s", measured["calcc"])


def start(bench: Bench) -> Iterator[Row]:
    """From start to listening."""
    seconds = []
    for _ in range(bench.rounds):
        with bench.calcd("start") as calcd:
            seconds.append(calcd.seconds * 1e3)
    yield Row("from start to listening", "ms", seconds)


def make_room(clients: int) -> int:
    """Raise the limit on descriptors for so many clients; give how many fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = min(clients, hard - 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return clients
