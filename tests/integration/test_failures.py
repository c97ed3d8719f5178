"""Under failure: a stop and reloads under load, no disk, no memory, a kill."""

import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from background_daemon import Background
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    changed_daemon,
    clean_environment,
    request_all,
    wait_until,
)
from load_client import LoadClient, run_clients

from tests.bench import sums

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")


# A load


@pytest.mark.parametrize("answers", [1_000, 50_000, 200_000])
def test_a_stop_under_load_answers_what_had_arrived_and_resets_nobody(
    answers: int, start_daemon: Daemons
) -> None:
    """Half of the clients are answered by the serving loop, half 1,000 deep by threads."""
    daemon = start_daemon("--drain-timeout", "60")
    questions = [sums.calcd(each) for each in sums.random_sums(1000, seed=answers)]
    pairs = [(request.encode(), reply.encode()) for request, reply in questions]
    with ExitStack() as stack:
        clients = [
            LoadClient(stack.enter_context(daemon.connect()), pairs, deep=number % 2 == 1)
            for number in range(100)
        ]
        run_clients(clients[::2], until=lambda: all(client.answered for client in clients[::2]))
        run_clients(clients, until=lambda: sum(client.answered for client in clients) > answers)
        # What the daemon's kernel has acknowledged has arrived.
        arrived = [client.arrived() for client in clients]
        daemon.process.terminate()
        run_clients(clients, until=lambda: all(client.ended for client in clients))
        for client, least in zip(clients, arrived, strict=True):
            assert client.wrong() == b""
            assert client.answered >= least
    assert daemon.process.wait(TIMEOUT) == 0
    assert daemon.logs("stopped: 0 connections cut")


def test_a_storm_of_reloads_disturbs_nobody_and_keeps_nothing(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    file, log = tmp_path / "calcd.conf", tmp_path / "calcd.log"

    def write(precision: int) -> None:
        lines = ("[calcd]", "listen = tcp://127.0.0.1:0", f"precision = {precision}")
        (tmp_path / "new").write_text("\n".join((*lines, f"log_to = {log}")) + "\n")
        (tmp_path / "new").replace(file)

    write(34)
    daemon = start_daemon("-c", str(file))
    port = re.search(r"listening on tcp://127\.0\.0\.1:(\d+)", log.read_text())
    assert port

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", int(port[1])), TIMEOUT)

    # Sums that fit into every precision that there will be.
    pairs = [(b"SOMA %d 1\n" % number, b"%d\n" % (number + 1)) for number in range(500)]
    before = daemon.count_descriptors()
    numbers = count()

    def storm() -> bool:
        if (number := next(numbers)) % 10 == 0:
            write(5 + number % 30)
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.003)  # so that they are not all taken for one
        return number >= 300

    with ExitStack() as stack:
        clients = [
            LoadClient(stack.enter_context(connect()), pairs, deep=number % 5 == 0)
            for number in range(20)
        ]
        run_clients(clients, until=storm)
        for client in clients:
            client.half_close()
        run_clients(clients, until=lambda: all(client.ended for client in clients))
        for client in clients:
            assert client.wrong() == b""
            assert client.answered == client.asked
    write(7)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: " precision=7 " in log.read_text(), "the last settings")
    with connect() as another:
        assert request_all(another, b"DIV 2 3\n") == b"0.6666667\n"
    assert log.read_text().count("settings in force") > 5
    wait_until(lambda: daemon.count_descriptors() == before, "the descriptors to be closed")
    assert daemon.count_threads() < 40  # 32 wait for the next clients


# No disk


@contextmanager
def on_a_small_disk(directory: Path, *options: str) -> Iterator[tuple[Daemon, Path]]:
    """Run a daemon that sees a disk of its own in the directory; give where we see it."""
    disk = directory / "disk"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=64k tmpfs {disk} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-m", "calcd"]
    where = ("-l", "tcp://127.0.0.1:0", "--log-to", f"{disk}/calcd.log")
    daemon = Daemon([*command, *where, *options], directory / "stderr")
    seen = Path(f"/proc/{daemon.process.pid}/root{disk}")
    try:
        daemon.endpoints = re.findall(r"listening on (\S+)", (seen / "calcd.log").read_text())
        yield daemon, seen
        assert daemon.stop() == 0
    finally:
        daemon.process.kill()
        daemon.stop()


def fill(directory: Path) -> Path:
    """Write a file until the disk is full."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return filler


@needs_root
def test_a_disk_that_becomes_full_is_told_and_what_it_missed_when_it_has_room(
    tmp_path: Path,
) -> None:
    with on_a_small_disk(tmp_path) as (daemon, disk):
        filler = fill(disk)
        for _ in range(50):  # more lines than the last page of the log has room for
            assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
        wait_until(lambda: daemon.log, "the complaint")
        daemon.notified.received.clear()
        daemon.process.send_signal(signal.SIGHUP)
        # At its end all lines so far have been written or lost, its own among them.
        wait_until(lambda: daemon.notified.has("READY=1"), "the end of the reload")
        assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
        filler.unlink()
        log = disk / "calcd.log"

        def told() -> bool:
            assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
            return re.search(r"warning: \d+ log records were lost", log.read_text()) is not None

        wait_until(told, "what was missed")
        assert set(daemon.log.splitlines()) == {
            "calcd: cannot write the log: No space left on device: lines are lost until it can"
        }


@needs_root
def test_a_pidfile_on_a_full_disk_is_told(tmp_path: Path) -> None:
    full = f"mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs {tmp_path} && cd {tmp_path} && "
    full += "yes >full 2>/dev/null; "
    full += f'exec {sys.executable} -m calcd -l tcp://127.0.0.1:0 --pidfile "{tmp_path}/calcd.pid"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", full],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 1
    path = tmp_path / "calcd.pid"
    assert done.stderr.startswith(
        f"calcd: --pidfile: '{path}' cannot be written: No space left on device"
    )
    assert done.stderr.count("\n") == 1


def test_a_log_whose_directory_is_gone_is_told_at_the_reload(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    directory = tmp_path / "log"
    directory.mkdir()
    log = directory / "calcd.log"
    path = tmp_path / "calcd.sock"
    daemon = start_daemon("-l", f"unix://{path}", "--log-to", str(log))

    def ask(requests: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))
            return request_all(client, requests)

    log.unlink()
    assert ask(b"SOMA 2 2\n") == b"4\n"
    directory.rmdir()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.logs(f"calcd: --log-to: cannot write the log {log}: No such file or directory")
    assert ask(b"SOMA 2 2\n") == b"4\n"
    directory.mkdir()
    daemon.process.send_signal(signal.SIGHUP)
    in_force = "settings in force"  # once the log goes there
    wait_until(lambda: log.exists() and in_force in log.read_text(), "the log")
    assert ask(b"SOMA 2 2\n") == b"4\n"
    wait_until(lambda: " ended: requests=1 " in log.read_text(), "a line")


# No memory


def test_a_request_that_memory_does_not_suffice_for_ends_alone(tmp_path: Path) -> None:
    with changed_daemon(tmp_path, "", "--max-line", "1048576") as daemon, daemon.connect() as other:
        pid = daemon.process.pid
        for client_is_new in (True, False):
            other.sendall(b"SOMA 2 2\n")
            assert other.recv(100) == b"4\n", client_is_new
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            limits = resource.prlimit(pid, resource.RLIMIT_AS)
            resource.prlimit(pid, resource.RLIMIT_AS, (size + (3 << 20), limits[1]))
            try:
                # Its upper case alone would need four bytes a character.
                with daemon.connect() as client, suppress(ConnectionResetError):
                    reply = request_all(client, b"UPPER " + "\u0101".encode() * 500_000 + b"\n")
                    assert reply == b"" or reply.startswith((b"ERR INTERNAL ", b"ERR BUSY "))
                other.sendall(b"SOMA 2 2\n")
                assert other.recv(100) == b"4\n"
            finally:
                resource.prlimit(pid, resource.RLIMIT_AS, limits)
        text = "\u0101" * 500_000
        assert daemon.ask(f"UPPER {text}\n".encode()).decode() == f"{text.upper()}\n"
        assert daemon.logs("MemoryError|can't start new thread")


# What fails once, as it is found by the daemon: on the way of a client that stays in the serving
# loop at first, and then begins a line.
FAILS = [
    "socket.socket.accept",
    "calcd.core.decimal128.Arithmetic.__init__",
    "calcd.core.decimal128.Arithmetic.calculate",
    "calcd.core.operations.Operation.split",
    "calcd.net.registry.Registry.add",
    "calcd.net.connection.Connection.__init__",
    "calcd.net.connection.Connection.run",
    "calcd.net.connection.Connection.log_end",
    "calcd.net.connection.Connection._block",
    "calcd.net.connection.Connection.step",
    "calcd.net.lingering.bytes_unacked",
    "calcd.net.limits.ConnectionLimiter.acquire",
    "calcd.core.session.Session.receive",
    "calcd.net.threads.IdleThreads.run",
]
ONCE = """
import calcd.daemon.main, os, pkgutil
owner, _, name = {path!r}.rpartition(".")
owner = pkgutil.resolve_name(owner)
real = getattr(owner, name)
def fail_once(*arguments, **options):
    setattr(owner, name, real)
    os.write(2, b"injected\\n")
    raise MemoryError
setattr(owner, name, fail_once)
"""


@pytest.mark.parametrize("path", FAILS)
def test_memory_that_runs_out_anywhere_costs_one_request_or_connection(
    path: str, tmp_path: Path
) -> None:
    said = {b"PING\n": b"PONG\n", b"SOMA 2 2\nSOM": b"4\n", b"A 2 2\nQUIT\n": b"4\nBYE\n"}
    with changed_daemon(tmp_path, ONCE.format(path=path), "--max-connections", "1") as daemon:
        before = daemon.count_descriptors()
        with daemon.connect() as client:
            for request, reply in said.items():
                client.sendall(request)
                received = client.recv(100)
                if not received:
                    break
                assert received == reply or received.startswith((b"ERR INTERNAL ", b"ERR BUSY "))
                time.sleep(0.05)  # so that it has to be waited for
            wait_until(lambda: "injected" in daemon.log, "the failure")
        wait_until(lambda: daemon.count_descriptors() == before, "the connection to be closed")
        assert daemon.ask(b"SOMA 2 2\nPING") == b"4\nPONG\n"  # so its place is free as well


# A kill


def test_a_killed_daemon_leaves_nothing_in_the_way_of_the_next(
    start_daemon: Daemons, background: Background
) -> None:
    """Pidfile and Unix socket are taken over, whichever way each of them is started."""
    path = background.socket_file

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))
            return request_all(client, b"SOMA 2 2\n")

    def in_the_foreground() -> Callable[[], None]:
        daemon = start_daemon("-l", f"unix://{path}", "--pidfile", str(background.pidfile))
        assert background.pid == daemon.process.pid

        return daemon.process.kill

    def in_the_background() -> Callable[[], None]:
        background.serve("-l", f"unix://{path}")

        return lambda: os.kill(background.pid, signal.SIGKILL)

    def nobody_listens() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(path)) == errno.ECONNREFUSED

    path.parent.mkdir()
    for start in (in_the_foreground, in_the_background, in_the_background, in_the_foreground):
        kill = start()
        assert ask() == b"4\n"
        kill()
        wait_until(nobody_listens, "its end")
        assert background.pidfile.exists()
    background.serve("-l", f"unix://{path}")
    assert ask() == b"4\n"
    assert background.act("stop") == (0, "", "")
    assert list(path.parent.iterdir()) == []
