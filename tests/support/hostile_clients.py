"""Clients that mean no good, by the hundred; what they cost a daemon, and everyone else."""

import os
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from helpers import TIMEOUT, Daemon, ask, datagrams_to, wait_until

from calcd.net.threads import KEPT

TURNS, TRIES = 5, 3
TRIPS = 3000  # round trips of a turn
MOST_SLOWER = 3.0  # times, for everyone else


@dataclass(frozen=True)
class Usage:
    """What a daemon has at a moment; memory is in KiB."""

    threads: int
    descriptors: int
    memory: int
    most_memory: int

    @classmethod
    def of(cls, daemon: Daemon) -> "Usage":
        process = Path(f"/proc/{daemon.process.pid}")
        status = dict(re.findall(r"(\w+):\s+(\d+)", (process / "status").read_text()))
        return cls(
            int(status["Threads"]),
            len(os.listdir(process / "fd")),
            int(status["VmRSS"]),
            int(status["VmHWM"]),
        )

    def is_back_at(self, before: "Usage") -> bool:
        """Say whether nothing is left but threads that wait for work."""
        threads_left = self.threads - before.threads
        return self.descriptors <= before.descriptors and threads_left <= KEPT


def connect(daemon: Daemon, host: str = "127.0.0.1", room: int = 0, port: int = 0) -> socket.socket:
    """Connect from an address of this machine, with so little room for what is not read yet."""
    connection = socket.socket()
    try:
        connection.settimeout(TIMEOUT)
        if room:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.bind((host, 0))
        connection.connect((daemon.host, port or daemon.port))
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _working(work: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    """Run ``work`` in another thread, which ends soon after ``ended`` is set."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def dripping(
    clients: Sequence[socket.socket], do: Callable[[socket.socket], object], pause: float
) -> Iterator[None]:
    """Let each client do something now and then, ``pause`` seconds apart, in another thread."""
    ended = threading.Event()
    groups = [clients[first::10] for first in range(10)]

    def work() -> None:
        while not ended.is_set():
            for group in groups:
                for client in group:
                    with suppress(OSError):  # it may have been closed
                        do(client)
                if ended.wait(pause / 10):
                    return

    with _working(work, ended):
        yield


@contextmanager
def senders(daemon: Daemon, count: int, port: int = 0, first: bytes = b"S") -> Iterator[None]:
    """Clients that send ``first``, and then a byte now and then."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon, port=port)) for _ in range(count)]
        for client in clients:
            client.sendall(first)
        in_threads(daemon, count)
        with dripping(clients, lambda client: client.send(b"1"), 0.1):
            yield
    out_of_threads(daemon)


@contextmanager
def readers(daemon: Daemon, count: int) -> Iterator[None]:
    """Clients that ask for much at once, and then read a byte now and then."""
    requests = 64 * (b"UPPER " + 1000 * b"a" + b"\n")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon, room=4096)) for _ in range(count)]
        for client in clients:
            client.setblocking(False)
            with suppress(BlockingIOError):
                for _ in range(4):
                    client.send(requests)
        in_threads(daemon, count)
        wait_until(lambda: rests(daemon), "as many replies as the buffers hold")
        with dripping(clients, lambda client: client.recv(1), 0.1):
            yield
    out_of_threads(daemon)


FLOODING = """
import select, socket, sys, time
port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
requests = 8000 * b"DIV 1 3\\n"
clients = {}
poll = select.poll()
for _ in range(count):
    client = socket.create_connection(("127.0.0.1", port))
    client.setblocking(False)
    clients[client.fileno()] = client
    poll.register(client, select.POLLIN | select.POLLOUT)
print("flooding", flush=True)
until = time.monotonic() + seconds
while time.monotonic() < until:
    for fd, events in poll.poll(100):
        if events & select.POLLIN:
            clients[fd].recv(1 << 18)
        if events & select.POLLOUT:
            clients[fd].send(requests)
"""


@contextmanager
def flooders(daemon: Daemon, count: int, seconds: float) -> Iterator[None]:
    """Clients that ask all they can and take the replies, as a process of their own."""
    command = [sys.executable, "-c", FLOODING, str(daemon.port), str(count), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"flooding\n"
        in_threads(daemon, count)
        yield
        process.kill()  # whatever is left of its time


# Of the last three addresses one is not allowed; each of the others has its limit.
FLOOD_LIMITS = (
    *("--max-connections", "40", "--max-connections-per-host", "20", "--allow", "127.0.0.0/29"),
)


class ConnectionFlood(threading.Thread):
    """Connections that meet FLOOD_LIMITS, one after the other; those that are served stay."""

    def __init__(self, daemon: Daemon, stack: ExitStack) -> None:
        super().__init__()
        self.came = {"4": 0, "ERR BUSY": 0, "ERR FORBIDDEN": 0}
        self._daemon, self._stack = daemon, stack

    def run(self) -> None:
        for number in range(2400):
            client = connect(self._daemon, f"127.0.0.{(1, 2, 9)[number % 3]}")
            client.sendall(b"SOMA 2 2\n")
            reply = client.recv(200).decode()
            self.came[next(kind for kind in self.came if reply.startswith(kind))] += 1
            if reply == "4\n":
                self._stack.enter_context(client)
            else:
                client.close()


@contextmanager
def connection_flood(daemon: Daemon) -> Iterator[ConnectionFlood]:
    """Run a flood of connections to its end."""
    with ExitStack() as stack:
        flood = ConnectionFlood(daemon, stack)
        flood.start()
        try:
            yield flood
        finally:
            flood.join()


@contextmanager
def few_descriptors(directory: Path) -> Iterator[Daemon]:
    """Give a daemon with a hard limit of 64 descriptors."""
    command = f"ulimit -n 64 && exec {sys.executable} -m calcd -l tcp://127.0.0.1:0"
    daemon = Daemon(["bash", "-c", command], directory / "daemon.log")
    try:
        yield daemon
    finally:
        assert daemon.stop() == 0


@contextmanager
def flood_past_all_descriptors(daemon: Daemon) -> Iterator[list[socket.socket]]:
    """Give the 32 clients that a daemon with few descriptors serves, while 400 others wait."""
    with ExitStack() as stack:
        inside = [stack.enter_context(connect(daemon)) for _ in range(32)]
        for client in inside:
            assert ask(client, b"PING\n") == b"PONG\n"
        for _ in range(400):
            stack.enter_context(connect(daemon))
        daemon.logs("limit reached: cannot accept: Too many open files: clients wait")
        yield inside


@contextmanager
def datagram_flood(daemon: Daemon, asked: bytes) -> Iterator[None]:
    """Send datagrams as fast as it goes, and look at no answer."""
    over = threading.Event()

    def send() -> None:
        with datagrams_to(daemon) as client:
            while not over.is_set():
                client.send(asked)

    with _working(send, over):
        yield


@contextmanager
def waiting_for_descriptors(daemon: Daemon, count: int = 20) -> Iterator[None]:
    """Let clients wait for a daemon that has no free descriptor, beside one that it serves."""
    with ExitStack() as stack:
        served = stack.enter_context(daemon.connect())
        assert ask(served, b"PING\n") == b"PONG\n"
        daemon.take_free_descriptors()
        for _ in range(count):
            stack.enter_context(daemon.connect())
        daemon.logs("limit reached: cannot accept")
        yield


def client_hello() -> bytes:
    """Return the first message of a TLS client."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.b")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@contextmanager
def half_done_handshakes(daemon: Daemon, count: int) -> Iterator[list[socket.socket]]:
    """Give so many clients of each kind: silent, with a whole ClientHello, with one that drips."""
    hello, port = client_hello(), daemon.port_of("tls")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon, port=port)) for _ in range(3 * count)]
        for client in clients[1::3]:
            client.sendall(hello)
        rest = {client: iter(hello[:-1]) for client in clients[2::3]}
        with dripping(list(rest), lambda client: client.send(bytes([next(rest[client])])), 0.1):
            yield clients


def in_threads(daemon: Daemon, count: int) -> None:
    wait_until(lambda: Usage.of(daemon).threads >= count, "a thread for each")


def rests(daemon: Daemon) -> bool:
    """Return whether the daemon has had nothing to compute for a moment."""
    before = daemon.cpu_seconds()
    time.sleep(0.05)  # five of the ticks in which that is counted
    return daemon.cpu_seconds() == before


def out_of_threads(daemon: Daemon) -> None:
    wait_until(lambda: Usage.of(daemon).threads <= 2 * KEPT, "the threads to end")


@dataclass(frozen=True)
class Trips:
    """Round trips in seconds, one for each turn, without and with something else going on."""

    quiet: list[float]
    beside: list[float]

    @property
    def slower(self) -> float:
        return median(self.beside) / median(self.quiet)

    def __str__(self) -> str:
        quiet, beside = (f"{median(trips) * 1e6:.0f} us" for trips in (self.quiet, self.beside))
        return f"round trip {beside}, quiet {quiet}: {self.slower:.2f} times"


def round_trip(daemon: Daemon) -> float:
    """Ask one request after the other; give the mean time of a round trip.

    A median would not see a time in which hardly anybody was answered: nor was anybody counted.
    """
    with daemon.connect() as connection:
        began = time.perf_counter()
        for number in range(TRIPS):
            connection.sendall(b"SOMA %d 1\n" % number)
            assert connection.recv(100) == b"%d\n" % (number + 1)
        return (time.perf_counter() - began) / TRIPS


def trips_beside(daemon: Daemon, attack: Callable[[], AbstractContextManager[object]]) -> Trips:
    """Measure turn by turn without and with the attack, in several turns.

    What noise has spoiled is tried again; a daemon that is slowed is so each time.
    """
    for _ in range(TRIES):
        trips = Trips([], [])
        for _ in range(TURNS):
            trips.quiet.append(round_trip(daemon))
            with attack():
                trips.beside.append(round_trip(daemon))
        if trips.slower <= MOST_SLOWER:
            break
    return trips


def until_closed(connections: Sequence[socket.socket], seconds: float) -> int:
    """Wait until the other side has closed them; return how many it has not in that time."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    waiting = {connection.fileno(): connection for connection in connections}
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and time.monotonic() < deadline:
        for fd, _ in poll.poll(100):
            try:
                ended = not waiting[fd].recv(1 << 16)
            except OSError:
                ended = True
            if ended:
                poll.unregister(fd)
                del waiting[fd]
    return len(waiting)
