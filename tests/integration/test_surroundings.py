"""A daemon that has little around it, as in a container: each client is served all the same."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import Daemon, changed_daemon

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="namespaces of its own need root and util-linux",
)
CALCD = [sys.executable, "-m", "calcd", "-l", "tcp://127.0.0.1:0", "-c", os.devnull]
# At 34 digits, too many functions for the serving loop: a worker process computes them.
EXPENSIVE = b"= " + b"+".join(40 * [b"exp(0.1234)+ln(3)"]) + b"\n"


@contextmanager
def surrounded(directory: Path, *command: str) -> Iterator[Daemon]:
    """Start a daemon with a command; end it in the end, whatever has happened."""
    daemon = Daemon([*command], directory / "daemon.log")
    try:
        yield daemon
        assert "Traceback" not in daemon.log
    finally:
        daemon.process.kill()
        daemon.stop()


def assert_serves(daemon: Daemon) -> None:
    """See that it answers, by itself and with a worker process."""
    easy, hard = daemon.ask(b"SOMA 2 2\n" + EXPENSIVE).splitlines()
    assert easy == b"4"
    assert hard.startswith(b"89.19")


@needs_namespaces
def test_as_process_1_it_serves_and_stops(tmp_path: Path) -> None:
    apart = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with surrounded(tmp_path, *apart, *CALCD) as daemon:
        assert daemon.logs(" starts, pid 1$")
        assert_serves(daemon)
        outside = daemon.process.pid
        (child,) = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert daemon.process.wait(20) == 0


@needs_namespaces
@pytest.mark.parametrize(
    "without",
    [
        "mount -o remount,bind,ro /",
        "mount -t tmpfs -o ro none /dev/shm",
        "mount -t tmpfs -o ro none /proc",
        "unset HOME TZ PATH LANG LC_ALL",
    ],
)
def test_what_a_container_may_lack_is_not_missed(without: str, tmp_path: Path) -> None:
    shell = ("unshare", "--mount", "sh", "-ec", f'{without}\nexec "$@"', "sh")
    with surrounded(tmp_path, *shell, *CALCD) as daemon:
        assert_serves(daemon)
        assert daemon.stop() == 0


def test_a_limit_of_a_billion_descriptors_costs_nothing(tmp_path: Path) -> None:
    """What has a loop or a table for each possible descriptor would not get to its first client."""
    code = "import resource; resource.getrlimit = lambda _: (10**9, 10**9)"
    with changed_daemon(tmp_path, code) as daemon:
        assert_serves(daemon)
