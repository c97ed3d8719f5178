"""The daemon under attack: who is still answered, and what is left of it afterwards."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from certificates import Certificates
from helpers import TIMEOUT, Daemon, Daemons, ask, read_all, wait_until
from hostile_clients import (
    FLOOD_LIMITS,
    Usage,
    client_hello,
    connect,
    connection_flood,
    few_descriptors,
    flood_past_all_descriptors,
    half_done_handshakes,
    in_threads,
    until_closed,
)
from service import Report

from calcd.daemon.ratelimit import BURST, RATE

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


# Floods of connections


def test_who_is_inside_is_answered_while_a_flood_meets_every_limit(
    start_daemon: Daemons, report: Report
) -> None:
    daemon = start_daemon(*FLOOD_LIMITS)
    before = Usage.of(daemon)
    with ExitStack() as stack:
        insiders = [stack.enter_context(connect(daemon, f"127.0.0.{n}")) for n in (3, 4, 5)]
        for insider in insiders:
            assert ask(insider, b"PING\n") == b"PONG\n"
        with connection_flood(daemon) as flood:
            while flood.is_alive():
                for insider in insiders:
                    assert ask(insider, b"SOMA 1 1\n") == b"2\n"
    report(f"{flood.came}")
    assert flood.came == {"4": 37, "ERR BUSY": 1600 - 37, "ERR FORBIDDEN": 800}
    wait_until(lambda: Usage.of(daemon).is_back_at(before), "what they had to be given back")
    with ExitStack() as stack:  # all places are free again
        for n in (1, 2):
            for _ in range(20):
                client = stack.enter_context(connect(daemon, f"127.0.0.{n}"))
                assert ask(client, b"PING\n") == b"PONG\n"


def test_who_is_inside_is_answered_during_a_flood_past_all_descriptors(tmp_path: Path) -> None:
    """Those who are told BUSY have descriptors too, until they have read it."""
    with few_descriptors(tmp_path) as daemon:
        before = Usage.of(daemon)
        with flood_past_all_descriptors(daemon) as inside:
            for _ in range(10):
                for client in inside:
                    assert ask(client, b"SOMA 1 1\n") == b"2\n"
        wait_until(lambda: Usage.of(daemon).is_back_at(before), "the descriptors")
        wait_until(lambda: daemon.ask(b"SOMA 2 2\n") == b"4\n", "an answer as ever")
        daemon.logs("below the limit again: the system has room")


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
    """HELP has the longest reply for its length: some 16 bytes for each that is sent.

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


def test_handshakes_begun_and_left_end(tls_daemon: Daemon) -> None:
    before = Usage.of(tls_daemon)
    with half_done_handshakes(tls_daemon, 70) as clients:
        assert tls_daemon.ask(b"SOMA 2 2\n") == b"4\n"
        assert until_closed(clients, TIMEOUT) == 0
    tls_daemon.logs("requests=0 errors=0 .* how=handshake-timeout", BURST)
    wait_until(lambda: Usage.of(tls_daemon).is_back_at(before), "what they had to be given back")


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
    for _ in forgeries(daemon, daemon.port_of("tls"), path):
        daemon.logs(" ended: ")
    with connect(daemon) as inside:
        assert ask(inside, b"PING\n") == b"PONG\n"
        told = list(forgeries(daemon, daemon.port_of("tls"), path))
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
    seconds = time.monotonic() - began  # taken last: no line came later
    assert daemon.stop() == 0
    report(f"{sum(count.values())} connections in {seconds:.0f} s, {size / 1024:.0f} KiB of log")
    assert size < 2 * (BURST + RATE * (seconds + 1)) * 120
    for how, connections in count.items():
        shown = re.findall(rf" info: connection \S+ ended: .*how={how}$", daemon.log, re.M)
        left = re.findall(
            rf": (\d+) lines suppressed .* such as: connection .*how={how}$", daemon.log, re.M
        )
        assert len(shown) + sum(map(int, left)) == connections
