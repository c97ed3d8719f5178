"""What single mechanisms of the daemon are worth: calcd with each, and without it."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from . import programs, sums
from .load import Bench, Contestant, Row
from .programs import TIMEOUT, Calcd
from .states import make_room

_MANY = 9000  # clients
_LARGE = 1_000_000  # bytes of a large request
_SENDERS = 64  # clients that send one at once
_RUSHES = 3
_SETTLE = 11.0  # seconds after the last client, in which memory is trimmed

_ROOM = ("--max-connections", str(_MANY + 500))
# Statements, run before the daemon starts, that take a mechanism away.
_NO_IDLE_THREADS = "import calcd.net.threads as m; m.KEPT = 0"
_ONE_GROUP = "import calcd.net.registry as m; m._MAX_GROUPS = 1"
_CONSTANT_INTERVAL = "import calcd.daemon.main as m; m._FEW_CONNECTIONS = 1 << 30"
_NO_JOBS = "import calcd.core.budget as m; m.Budget.charge = lambda *_: None"
# The lines that count bytes are taken out, and what is called for the rest does nothing.
_NO_COUNTING = """
import inspect, re, textwrap
from calcd.net import connection, stats
for name in "_read", "_write":
    text = inspect.getsource(getattr(connection.Connection, name))
    text, count = re.subn(r"self\\.(received|sent) \\+= length", "pass", text)
    assert count == 1, name
    exec(textwrap.dedent(text), vars(connection))
    setattr(connection.Connection, name, vars(connection)[name])
for name in "end", "observe_lag":
    setattr(stats.Stats, name, lambda *_: None)
stats.Traffic.add_answer = lambda *_: None
"""
_NO_TRIM = "import calcd.daemon.memory as m; m.trim = lambda: None"


def threads(bench: Bench) -> Iterator[Row]:
    """Idle threads are kept for the next client, and a new one need not be started."""
    what = "clients that each need a thread"
    yield _compare(bench, what, "/s", _NO_IDLE_THREADS, (), _one_after_the_other)


def groups(bench: Bench) -> Iterator[Row]:
    """At a stop, threads are woken in groups."""
    many = _many(bench)
    options = (*_ROOM, "--drain-timeout", "200")
    yield _compare(bench, f"stop with {many} threads", "s", _ONE_GROUP, options, _stop)


def interval(bench: Bench) -> Iterator[Row]:
    """The GIL's switch interval grows with the connections."""
    many = _many(bench)
    what = f"{many} clients, one at a time"

    def rate(bench: Bench, calcd: Calcd) -> float:
        return bench.ask(Contestant("calcd", sums.calcd, str(calcd.port)), many, 1).rate

    yield _compare(bench, what, "/s", _CONSTANT_INTERVAL, _ROOM, rate)


def memory(bench: Bench) -> Iterator[Row]:
    """Free memory is returned to the system."""
    what = f"memory after {_RUSHES} rushes of {_many(bench)} clients"
    options = (*_ROOM, "--max-line", str(_LARGE + 10))
    yield _compare(bench, what, "MiB", _NO_TRIM, options, _memory_after_rushes)


def networks(bench: Bench) -> Iterator[Row]:
    """What a list of networks in ``allow`` costs; the client is in the last one."""
    for count in (1, 10, 100, 1000):
        others = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(count - 1)]
        allow = ("--allow", " ".join([*others, "127.0.0.0/8"]))

        def rate(allow: tuple[str, ...]) -> float:
            with bench.calcd("networks", *allow) as calcd:
                whom = Contestant("calcd", sums.calcd, str(calcd.port))
                return bench.ask(whom, 16, 0).rate

        measured = bench.by_turns({"with": partial(rate, allow), "none": partial(rate, ())})
        what = f"connect, ask, close, {count} networks"
        yield Row(what, "/s", measured["with"], "none", measured["none"])


# Of 10.1.2.3, all of it ASCII.
_PROXY_HEADERS = {
    "version 1": "PROXY TCP4 10.1.2.3 10.1.2.4 40000 12000\r\n",
    "version 2": "\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\n\1\2\3\n\1\2\4\x0f\x20\x2e\x60",
}


def proxy(bench: Bench) -> Iterator[Row]:
    """What a PROXY header costs: clients that connect, ask once and close."""
    with ExitStack() as stack:
        plain = stack.enter_context(bench.calcd("plain"))
        trusting = stack.enter_context(
            bench.calcd("proxied", "--proxy-protocol-from", "127.0.0.0/8")
        )
        clients = {"none": Contestant("none", sums.calcd, str(plain.port))}
        pairs = [sums.calcd(asked) for asked in bench.sums]
        for version, header in _PROXY_HEADERS.items():
            file = bench.directory / f"{version}.sums"
            sums.write(file, ((header + request, reply) for request, reply in pairs))
            clients[version] = Contestant(version, sums.calcd, str(trusting.port), file)

        def rate(whom: Contestant) -> float:
            return bench.ask(whom, 16, 0).rate

        measured = bench.by_turns({name: partial(rate, whom) for name, whom in clients.items()})
    for version in _PROXY_HEADERS:
        what = f"connect, ask, close, behind a header of {version}"
        yield Row(what, "/s", measured[version], "none", measured["none"])


def workers(bench: Bench) -> Iterator[Row]:
    """What worker processes give for lines of 10 ms, and what they cost for lines of 1 ms."""
    rates = {
        "two": partial(_expensive_rate, bench, ("--workers", "2"), ""),
        "one": partial(_expensive_rate, bench, ("--workers", "1"), ""),
        "daemon": partial(_expensive_rate, bench, (), _NO_JOBS),
    }
    measured = bench.by_turns(rates)
    what = "lines of 10 ms, two workers"
    yield Row(what, "/s", measured["two"], "one", measured["one"], 1.7, at_least=True)
    yield Row(what, "/s", measured["two"], "the daemon", measured["daemon"], 1.7, at_least=True)
    waits = {
        "worker": partial(_expensive_wait, bench, ""),
        "daemon": partial(_expensive_wait, bench, _NO_JOBS),
    }
    measured = bench.by_turns(waits)
    yield Row("a line of 1 ms", "us", measured["worker"], "the daemon", measured["daemon"], 1.15)


def counting(bench: Bench) -> Iterator[Row]:
    """What it costs to count for STATS and metrics: CPU time of the daemon for an answer."""
    for what, scheme, load in (
        ("one client, 1,000 deep", "tcp", (1, 1000)),
        ("8 clients, one at a time", "tcp", (8, 1)),
        ("connect, ask, close, 16 at once", "tcp", (16, 0)),
        ("UDP: 8 clients, one at a time", "udp", (8, 1)),
    ):

        def cpu_time(scheme: str, load: tuple[int, int], before: str) -> float:
            with bench.calcd("counting", scheme=scheme, before=before) as calcd:
                target = str(calcd.port) if scheme == "tcp" else f"{scheme}:{calcd.port}"
                began = programs.cpu_seconds(calcd.process)
                answers = bench.ask(Contestant("calcd", sums.calcd, target), *load).answers
                return (programs.cpu_seconds(calcd.process) - began) / answers * 1e6

        turns = {
            "with": partial(cpu_time, scheme, load, ""),
            "without": partial(cpu_time, scheme, load, _NO_COUNTING),
        }
        measured = bench.by_turns(turns)
        yield Row(f"CPU time, {what}", "us", measured["with"], "without", measured["without"])


_PRECISE = ("--precision", "1000")


def _exponentials(count: int) -> bytes:
    """Return a line that takes about half a millisecond for each, to 1,000 digits."""
    return b"= " + b"+".join(b"exp(0.1%03d)" % number for number in range(count)) + b"\n"


def _expensive_rate(bench: Bench, options: tuple[str, ...], before: str) -> float:
    """Return how many lines of 10 ms of eight clients are answered a second."""
    line = _exponentials(20)
    with (
        bench.calcd("workers", *_PRECISE, *options, before=before) as calcd,
        _clients(calcd, 8) as clients,
    ):
        poll, by_fd = select.poll(), {client.fileno(): client for client in clients}
        for client in clients:
            poll.register(client, select.POLLIN)
            client.sendall(line)
            _receive_line(client)  # the workers have started
            client.sendall(line)
        count, until = 0, time.monotonic() + bench.seconds
        while time.monotonic() < until:
            for fd, _ in poll.poll(100):
                _receive_line(by_fd[fd])
                by_fd[fd].sendall(line)
                count += 1
    return count / bench.seconds


def _expensive_wait(bench: Bench, before: str) -> float:
    """Return the median microseconds that a client waits for a line of 1 ms."""
    line = _exponentials(2)
    with (
        bench.calcd("workers", *_PRECISE, before=before) as calcd,
        _clients(calcd, 1) as clients,
    ):
        waits, until = [], time.monotonic() + bench.seconds
        while time.monotonic() < until:
            began = time.monotonic()
            clients[0].sendall(line)
            _receive_line(clients[0])
            waits.append(time.monotonic() - began)
    return median(waits) * 1e6


def _receive_line(client: socket.socket) -> None:
    while not client.recv(1 << 16).endswith(b"\n"):
        pass


def _compare(
    bench: Bench,
    what: str,
    unit: str,
    without: str,
    options: tuple[str, ...],
    measure: Callable[[Bench, Calcd], float],
) -> Row:
    """Measure calcd as it is and after the statements ``without``, turn by turn."""

    def turn(before: str) -> float:
        with bench.calcd("mechanism", *options, before=before) as calcd:
            return measure(bench, calcd)

    measured = bench.by_turns({"with": partial(turn, ""), "without": partial(turn, without)})
    return Row(what, unit, measured["with"], "without", measured["without"])


def _many(bench: Bench) -> int:
    return make_room(100 if bench.quick else _MANY)


def _one_after_the_other(bench: Bench, calcd: Calcd) -> float:
    """Connect, begin a second line, which takes a thread, and close; return how many a second."""
    count, until = 0, time.monotonic() + bench.seconds
    while time.monotonic() < until:
        with socket.create_connection(("127.0.0.1", calcd.port), TIMEOUT) as client:
            client.sendall(b"PING\nP")
            client.recv(100)
        count += 1
    return count / bench.seconds


def _stop(bench: Bench, calcd: Calcd) -> float:
    with _clients(calcd, _many(bench)) as clients:
        for client in clients:
            client.sendall(b"P")  # the rest of the line never comes
        time.sleep(1)
        began = time.monotonic()
        calcd.process.terminate()
        calcd.process.wait(10 * TIMEOUT)
        return time.monotonic() - began


def _memory_after_rushes(bench: Bench, calcd: Calcd) -> float:
    for _ in range(_RUSHES):
        with _clients(calcd, _many(bench)) as clients:
            for client in clients:
                client.sendall(b"SOMA 0.125 3\n" * 400)
            for client in clients:
                _receive(client, 400 * len("3.125\n"))
        with _clients(calcd, _SENDERS) as clients:
            for client in clients:  # all lines are there before the first is complete
                client.sendall(b"UPPER " + b"x" * _LARGE)
            for client in clients:
                client.sendall(b"\n")
                _receive(client, _LARGE + 1)
    time.sleep(_SETTLE)
    return programs.resident(calcd.process) / (1 << 20)


@contextmanager
def _clients(calcd: Calcd, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        address = ("127.0.0.1", calcd.port)
        yield [
            stack.enter_context(socket.create_connection(address, TIMEOUT)) for _ in range(count)
        ]


def _receive(client: socket.socket, size: int) -> None:
    while size > 0:
        part = client.recv(1 << 20)
        assert part, "the server must not end the connection"
        size -= len(part)
