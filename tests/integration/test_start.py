"""The start: command line, settings and limits of the process, and what it imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import stored
from helpers import TIMEOUT, Daemons, clean_environment, run_calcd

from calcd.net.limits import SPARE_DESCRIPTORS


def run_python(script: str, *options: str, arguments: tuple[str, ...] = ()) -> str:
    """Run a script in a Python of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", script, *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return done.stdout


# Command line and settings


def test_a_repeated_listen_is_listened_on(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "-l", f"tcp://127.0.0.1:0 unix://{path}")
    assert len(set(daemon.endpoints)) == 3
    assert daemon.endpoints[2] == f"unix://{path}"


def test_a_mistake_in_the_command_line_ends_it_with_status_2() -> None:
    ended = run_calcd("--idle", "3")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "calcd: unrecognized arguments: --idle 3; see calcd -h\n"


def test_it_starts_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = 'rmdir "$PWD" && exec "$@"'
    ended = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "calcd", "-c", "missing.conf"],
        cwd=gone,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        2,
        "calcd: /missing.conf: No such file or directory\n",
    )


def test_relative_paths_are_made_absolute(start_daemon: Daemons, tmp_path: Path) -> None:
    (tmp_path / "calcd.conf").write_text(
        "[calcd]\nlisten = tcp://127.0.0.1:0\nlog_to = ./logs/../calcd.log\n"
    )
    daemon = start_daemon("-c", "calcd.conf", "--pidfile", "calcd.pid")
    assert (tmp_path / "calcd.pid").read_text() == f"{daemon.process.pid}\n"
    log = (tmp_path / "calcd.log").read_text()
    assert f"log_to={tmp_path}/calcd.log metrics= pidfile={tmp_path}/calcd.pid " in log


def test_wrong_settings_end_it_with_status_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "calcd.conf").write_text("[calcd]\nidle_timeout = abc\nmax_lines = 3\n")
    ended = run_calcd("-c", str(tmp_path / "calcd.conf"), "--precision", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"calcd: {tmp_path}/calcd.conf:2: idle_timeout: 'abc': "
        "expected seconds without a unit: 0, or a number from 0.001 to 31622400\n"
        f"calcd: {tmp_path}/calcd.conf:3: max_lines: "
        "there is no such setting: do you mean max_line?\n"
        "calcd: --precision: '0': expected a whole number from 1 to 1000, in digits\n"
    )


def test_a_missing_file_is_reported_with_its_absolute_path() -> None:
    ended = run_calcd("-c", "missing/calcd.conf")
    assert ended.returncode == 2
    assert re.fullmatch(
        r"calcd: /.*/missing/calcd\.conf: No such file or directory\n", ended.stderr
    )


def test_a_start_with_a_wrong_certificate_ends_before_it_serves() -> None:
    key = stored("other").key
    options = ("-l", "tls://127.0.0.1:0", "--tls-certificate", str(stored("server").cert))
    ended = run_calcd(*options, "--tls-key", str(key))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"calcd: --tls-key: '{key}' does not have the key that the certificate "
        "was made for: name that key's file\n"
    )
    ended = run_calcd(*options[:2])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "calcd: --listen: 'tls://127.0.0.1:0': "
        "expected tls_certificate to be set too, to a file's path\n"
    )


# Limits


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fitting", "raised"),
    [
        (256, 4096, 1024, 1024, 1024 + SPARE_DESCRIPTORS),
        (4096, 4096, 1024, 1024, 4096),
        (256, 1024, 1024, 1024 - SPARE_DESCRIPTORS, 1024),
        (64, 64, 1024, 32, 64),
        (64, 64, 10, 10, 64),
        (16, 64, 10, 10, 64),
    ],
)
def test_the_soft_limit_is_raised_to_fit(
    soft: int, hard: int, wanted: int, fitting: int, raised: int
) -> None:
    printed = run_python(
        "import resource\n"
        "from calcd.config.settings import Settings\n"
        "from calcd.net.limits import raise_descriptor_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"fit = raise_descriptor_limit(Settings(max_connections={wanted})).max_connections\n"
        "print(fit, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert printed == f"{fitting} {raised} {hard}\n"


_ARENAS = """
import ctypes, sys, threading
from calcd.daemon.memory import limit_arenas
if sys.argv[1:]:
    limit_arenas()
barrier = threading.Barrier(20)
threads = [threading.Thread(target=lambda: (bytearray(5000), barrier.wait())) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def test_many_threads_share_two_arenas() -> None:
    def arenas(*limited: str) -> int:
        return run_python(_ARENAS, arguments=limited).count("<heap nr=")

    assert arenas("limited") == 2
    assert arenas() > 2


# Imports


def test_a_plain_daemon_does_not_import_ssl() -> None:
    printed = run_python(
        "import sys, calcd.daemon.main\n"
        "sys.argv = ['calcd', '-t', '-l', 'tcp://127.0.0.1:0']\n"
        "print(calcd.daemon.main.main(), 'ssl' in sys.modules)",
        "-S",
    )
    assert printed.splitlines()[-1] == "0 False"


def test_ipaddress_is_imported_only_where_a_network_is_named() -> None:
    printed = run_python(
        "import sys; from calcd.config.networks import *\n"
        "Networks().allows('::1'); counted_as('::1')\n"
        "before = 'ipaddress' in sys.modules; parse_network('::1')\n"
        "print(before, 'ipaddress' in sys.modules)",
        "-S",
    )
    assert printed == "False True\n"
