"""The daemon under attack: what it costs everyone else, and what is left of it afterwards."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from certificates import Certificates
from helpers import TIMEOUT, Daemon, Daemons, ask, read_all, wait_until
from hostile_clients import (
    MOST_SLOWER,
    Usage,
    connect,
    flooders,
    in_threads,
    readers,
    senders,
    trips_beside,
    until_closed,
)
from service import Report

from calcd.daemon.ratelimit import BURST, RATE

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
MANY = 200


# Slow clients


@pytest.mark.speed
@pytest.mark.parametrize("attack", [senders, readers], ids=["senders", "readers"])
def test_hundreds_of_slow_clients_slow_nobody_else(
    daemon: Daemon, report: Report, attack: Callable[[Daemon, int], AbstractContextManager[None]]
) -> None:
    before = Usage.of(daemon)
    trips = trips_beside(daemon, partial(attack, daemon, MANY))
    report(f"{MANY} of them; {trips}")
    assert trips.slower <= MOST_SLOWER
    wait_until(lambda: Usage.of(daemon).is_back_at(before), "what they had to be given back")


# Clients that ask a great deal


@pytest.mark.speed
def test_dozens_that_ask_a_great_deal_do_not_keep_a_prompt_client_waiting(
    daemon: Daemon, report: Report
) -> None:
    waits = []
    with flooders(daemon, 50, 10), daemon.connect() as connection:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            began = time.monotonic()
            assert ask(connection, b"SOMA 2 2\n") == b"4\n"
            waits.append(time.monotonic() - began)
    waits.sort()
    usual, most = waits[len(waits) // 2] * 1e3, waits[-1] * 1e3
    report(
        f"50 of them; {len(waits)} answers in 3 s, mostly after {usual:.2f} ms, {most:.0f} at most"
    )
    assert usual < 1
    assert most < 1000


# Floods of connections


def test_who_is_inside_is_answered_while_a_flood_meets_every_limit(
    start_daemon: Daemons, report: Report
) -> None:
    limits = {"max-connections": 40, "max-connections-per-host": 20, "allow": "127.0.0.0/29"}
    daemon = start_daemon(*(f"--{name}={value}" for name, value in limits.items()))
    before = Usage.of(daemon)
    came = {"4": 0, "ERR BUSY": 0, "ERR FORBIDDEN": 0}

    def flood(stack: ExitStack) -> None:
        for number in range(2400):
            # Of the last three one network is not allowed; each of the others has its limit.
            host = f"127.0.0.{(1, 2, 9)[number % 3]}"
            client = connect(daemon, host)
            client.sendall(b"SOMA 2 2\n")
            reply = client.recv(200).decode()
            came[next(kind for kind in came if reply.startswith(kind))] += 1
            if reply == "4\n":
                stack.enter_context(client)
            else:
                client.close()

    with ExitStack() as stack:
        insiders = [stack.enter_context(connect(daemon, f"127.0.0.{n}")) for n in (3, 4, 5)]
        for insider in insiders:
            assert ask(insider, b"PING\n") == b"PONG\n"
        flooding = threading.Thread(target=flood, args=(stack,))
        flooding.start()
        trips = []
        while flooding.is_alive():
            for insider in insiders:
                began = time.monotonic()
                assert ask(insider, b"SOMA 1 1\n") == b"2\n"
                trips.append(time.monotonic() - began)
        flooding.join()
    report(f"{came}, {len(trips)} requests of those inside, the slowest {max(trips) * 1e3:.1f} ms")
    assert came == {"4": 37, "ERR BUSY": 1600 - 37, "ERR FORBIDDEN": 800}
    assert max(trips) < 5
    wait_until(lambda: Usage.of(daemon).is_back_at(before), "what they had to be given back")
    with ExitStack() as stack:  # all places are free again
        for n in (1, 2):
            for _ in range(20):
                client = stack.enter_context(connect(daemon, f"127.0.0.{n}"))
                assert ask(client, b"PING\n") == b"PONG\n"


def test_a_flood_past_all_descriptors_does_not_make_it_spin_nor_stay(
    tmp_path: Path, report: Report
) -> None:
    """Those who are told BUSY have descriptors too, until they have read it."""
    command = f"ulimit -n 64 && exec {sys.executable} -m calcd -l tcp://127.0.0.1:0"
    daemon = Daemon(["bash", "-c", command], tmp_path / "daemon.log")
    try:
        before = Usage.of(daemon)
        with ExitStack() as stack:
            inside = [stack.enter_context(connect(daemon)) for _ in range(32)]
            for client in inside:
                assert ask(client, b"PING\n") == b"PONG\n"
            outside = [stack.enter_context(connect(daemon)) for _ in range(400)]
            daemon.logs("limit reached: cannot accept: Too many open files: clients wait")
            used, began = daemon.cpu_seconds(), time.monotonic()
            while (seconds := time.monotonic() - began) < 1:
                for client in inside:
                    assert ask(client, b"SOMA 1 1\n") == b"2\n"
                time.sleep(0.1)
            used = (daemon.cpu_seconds() - used) / seconds
            report(f"{used:.0%} of a processor, with {len(outside)} clients that wait")
            assert used < 0.3
        wait_until(lambda: Usage.of(daemon).is_back_at(before), "the descriptors")
        wait_until(lambda: daemon.ask(b"SOMA 2 2\n") == b"4\n", "an answer as ever")
        daemon.logs("below the limit again: the system has room")
    finally:
        assert daemon.stop() == 0


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_who_gets_no_thread_is_told_busy_and_the_others_go_on(
    tmp_path: Path, report: Report
) -> None:
    # The system counts the threads of a real user, unless it is root or may do all; as the
    # effective one is root, all files can be read as ever.
    user = str(1_500_000_000 + os.getpid())
    drop = ["setpriv", f"--ruid={user}", "--bounding-set=-sys_resource,-sys_admin"]
    limit = ["prlimit", "--nproc=12:12"]
    serve = [sys.executable, "-m", "calcd", "-l", "tcp://127.0.0.1:0"]
    tried = subprocess.run([*drop, *limit, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"cannot be another user here: {tried.stderr.decode()}")
    daemon = Daemon([*drop, *limit, *serve], tmp_path / "daemon.log")
    try:
        before = Usage.of(daemon)
        places, count = 12 - before.threads, 40
        for turn in (1, 2):  # and once more, when all have their threads back
            with ExitStack() as stack:
                clients = [stack.enter_context(connect(daemon)) for _ in range(count)]
                for client in clients:
                    client.sendall(b"PIN")  # who has begun a line needs a thread
                daemon.logs("limit reached: can't start new thread", turn * (count - places))
                refused = []
                for client in clients:
                    with suppress(ConnectionError):
                        client.sendall(b"G\nQUIT\n")
                    refused.append(read_all(client).startswith(b"ERR BUSY "))
            assert refused.count(False) == places
            wait_until(lambda: Usage.of(daemon).is_back_at(before), "the descriptors")
            assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
        report(f"{places} of {count} clients had a thread, the rest was told BUSY")
    finally:
        assert daemon.stop() == 0


# Requests without end, and nobody who reads


def test_floods_that_nobody_reads_have_their_bound_in_memory_and_time(
    start_daemon: Daemons, report: Report
) -> None:
    """HELP has the longest reply for its length: some 26 bytes for each that is sent.

    The kernel has its own bound for what it holds, tcp_wmem; that is no memory of the daemon's.
    """
    daemon = start_daemon("--send-timeout", "1.5")
    before, count = Usage.of(daemon), 16
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon, room=4096)) for _ in range(count)]
        for client in clients[::2]:
            client.sendall(b"PIN")  # it gets a thread, which reads more at once
        in_threads(daemon, count // 2)
        for client in clients[::2]:
            assert ask(client, b"G\n") == b"PONG\n"
        for client in clients:
            client.setblocking(False)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            for client in clients:
                with suppress(BlockingIOError):
                    client.send(20_000 * b"HELP\n")
            time.sleep(0.01)
        most = (Usage.of(daemon).most_memory - before.memory) / count
        report(f"{most:.0f} KiB for each of {count} clients at the most")
        assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
        daemon.logs("requests=[0-9]+ errors=0 .* how=unread", count)
    assert most < 800
    wait_until(lambda: Usage.of(daemon).is_back_at(before), "what they had to be given back")


# Handshakes


@pytest.fixture
def tls_daemon(start_daemon: Daemons, certificates: Certificates) -> Daemon:
    """Give a daemon that is there with TLS and without."""
    pair = certificates.server
    return start_daemon(
        *("-l", "tcp://127.0.0.1:0", "-l", "tls://127.0.0.1:0", "--line-timeout", "1.5"),
        *("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key)),
    )


def tls_port(daemon: Daemon) -> int:
    return int(re.findall(r"tls://127.0.0.1:(\d+)", " ".join(daemon.endpoints))[0])


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.b")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_handshakes_begun_and_left_end_in_the_time_of_a_line(
    tls_daemon: Daemon, report: Report
) -> None:
    hello, before = client_hello(), Usage.of(tls_daemon)
    with ExitStack() as stack:
        connect_tls = partial(connect, tls_daemon, port=tls_port(tls_daemon))
        clients = [stack.enter_context(connect_tls()) for _ in range(3 * 70)]
        began = time.monotonic()
        silent, greeted, slow = clients[0::3], clients[1::3], clients[2::3]
        for client in greeted:
            client.sendall(hello)
        for byte in hello[:20]:
            for client in slow:
                client.sendall(bytes([byte]))
            time.sleep(0.03)
        assert tls_daemon.ask(b"SOMA 2 2\n") == b"4\n"
        assert until_closed(clients, 1.5 + 5) == 0
        seconds = time.monotonic() - began
    report(
        f"{len(clients)} handshakes, all closed after {seconds:.1f} s with a line_timeout of 1.5"
    )
    assert len(silent) == 70
    tls_daemon.logs("requests=0 errors=0 .* how=handshake-timeout", BURST)
    wait_until(lambda: Usage.of(tls_daemon).is_back_at(before), "what they had to be given back")


@pytest.mark.speed
def test_hundreds_of_half_done_handshakes_slow_nobody_else(
    start_daemon: Daemons, certificates: Certificates, report: Report
) -> None:
    pair = certificates.server
    daemon = start_daemon(
        *("-l", "tcp://127.0.0.1:0", "-l", "tls://127.0.0.1:0"),
        *("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key)),
    )
    # A record of a handshake of the greatest length: what drips in is never all of it.
    first = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"
    attack = partial(senders, daemon, MANY, tls_port(daemon), first)
    trips = trips_beside(daemon, attack)
    report(f"{MANY} of them; {trips}")
    assert trips.slower <= MOST_SLOWER


# The log


def forgeries(daemon: Daemon, tls: int, path: Path) -> Iterator[bytes]:
    """Try to have a line of one's own in the log, in each way that a client has."""
    forged = b"x\n2001-01-01 00:00:00,000 info: forged\r\n\x1b[2Jforged"
    for host in ("127.0.0.1", "127.0.0.9"):  # served; forbidden
        with connect(daemon, host) as client:
            client.sendall(forged)
            client.shutdown(socket.SHUT_WR)
            yield read_all(client)
    with connect(daemon, port=tls) as client:
        client.sendall(forged)
        yield read_all(client)
    with connect(daemon, port=tls) as client:  # a name that is the client's own
        hello = client_hello().replace(b"a.b", b"\nf:")
        client.sendall(hello)
        client.shutdown(socket.SHUT_WR)
        yield read_all(client)
    for number in range(2):  # served; busy
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.bind(b"\0\n2001-01-01 info: forged %d %d" % (os.getpid(), number))
            client.connect(str(path))
            client.sendall(forged)
            client.shutdown(socket.SHUT_WR)
            yield read_all(client)


def test_no_client_forges_a_log_line_whether_it_is_served_or_not(
    start_daemon: Daemons, certificates: Certificates, tmp_path: Path
) -> None:
    pair, path = certificates.server, tmp_path / "calcd.sock"
    daemon = start_daemon(
        *("-l", "tcp://127.0.0.1:0", "-l", "tls://127.0.0.1:0", "-l", f"unix://{path}"),
        *("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key)),
        *("--allow", "127.0.0.0/29", "--log-level", "debug", "--max-connections", "1"),
    )
    for _ in forgeries(daemon, tls_port(daemon), path):
        daemon.logs(" ended: ")
    with connect(daemon) as inside:
        assert ask(inside, b"PING\n") == b"PONG\n"
        told = list(forgeries(daemon, tls_port(daemon), path))
        assert [reply.startswith(b"ERR BUSY ") for reply in told[-2:]] == [True, True]
    assert daemon.stop() == 0
    assert daemon.log.isascii()
    for line in daemon.log.splitlines():
        assert re.match(rf"{STAMP} (debug|info|warning): \S", line), line
        assert "forged" not in re.sub(r": '.*' -> '.*'$", "", line), line  # which quotes it


def test_floods_of_the_refused_and_of_bad_requests_fill_the_log_at_the_rate_that_is_stated(
    start_daemon: Daemons, report: Report
) -> None:
    """BURST lines of a kind at once, RATE a second: some 1 KB/s."""
    daemon = start_daemon("--allow", "127.0.0.1")
    began, before = time.monotonic(), len(daemon.log)
    count = {"forbidden": 0, "closed": 0}

    def flood(seconds: float) -> float:
        """Return how many connections in a time are far more than the limit of lines."""
        return 6 * (BURST + RATE * seconds)

    while (seconds := time.monotonic() - began) < 2 or sum(count.values()) < flood(seconds):
        with connect(daemon, "127.0.0.2") as refused:
            read_all(refused)
            count["forbidden"] += 1
        assert daemon.ask(100 * b"what\n").count(b"ERR ") == 100
        count["closed"] += 1
    daemon.logs("how=closed")
    size = len(daemon.log) - before
    assert daemon.stop() == 0
    report(f"{sum(count.values())} connections in {seconds:.0f} s, {size / 1024:.0f} KiB of log")
    assert size < 2 * (BURST + RATE * (seconds + 1)) * 120
    for how, connections in count.items():
        shown = re.findall(rf" info: connection \S+ ended: .*how={how}$", daemon.log, re.M)
        left = re.findall(
            rf": (\d+) lines suppressed .* such as: connection .*how={how}$", daemon.log, re.M
        )
        assert len(shown) + sum(map(int, left)) == connections
