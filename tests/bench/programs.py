"""The programs that take part: built, started, and ended by their own process ids."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TIMEOUT = 30.0  # seconds that anything may take to start or to end
# A program must not outlive the benchmark, however that ends.
_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


class BenchError(Exception):
    """Why there is no figure: as text, for a person."""


class MissingError(BenchError):
    """A program that is not installed."""


def installed(program: str) -> str:
    """Give the path of a program; ``MissingError`` where there is none."""
    if (path := shutil.which(program)) is None:
        raise MissingError(f"{program} is not installed")
    return path


def build(name: str, directory: Path) -> Path:
    """Compile a C file that stands beside this one."""
    program = directory / name
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
    command = [installed("cc"), *flags, "-o", str(program), str(HERE / f"{name}.c")]
    subprocess.run(command, check=True, timeout=TIMEOUT)
    return program


def environment() -> dict[str, str]:
    """Give this environment less what a service manager may have put there."""
    managers = ("NOTIFY_", "LISTEN_", "WATCHDOG_", "JOURNAL_", "PYTHONPATH", "CALCD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(managers)}
    return {**kept, "PYTHONPATH": str(ROOT), "BC_LINE_LENGTH": "0"}


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    pipes: bool = False,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program; what it says goes to ``log``, or with ``pipes`` to us. End it in the end."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*_WITH_PARENT, *command],
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else file,
            stderr=file,
            env={**environment(), **variables},
            cwd=log.parent,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


class Calcd(NamedTuple):
    """A calcd that listens."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float  # from start to listening


@contextmanager
def calcd(
    log: Path,
    *options: str,
    port: int = 0,
    variables: Mapping[str, str] = MappingProxyType({}),
    before: str = "",
) -> Iterator[Calcd]:
    """Run calcd, logging to a file, with its defaults but for these options.

    ``before`` are Python statements that are run before it starts.
    """
    log.write_bytes(b"")
    where = ("-l", f"tcp://127.0.0.1:{port}", "--log-to", str(log))
    program = ["-m", "calcd"]
    if before:
        program = ["-c", f"{before}\nimport runpy; runpy.run_module('calcd')"]
    command = [sys.executable, *program, *where, *options]
    began = time.monotonic()
    with running(command, log, variables=variables) as process:
        found = _wait_for(log, rb"listening on tcp://127.0.0.1:(\d+)", process)
        yield Calcd(process, int(found), time.monotonic() - began)


@contextmanager
def echo(program: Path, log: Path) -> Iterator[int]:
    """Run the C server; give its port."""
    log.write_bytes(b"")
    with running([str(program)], log) as process:
        yield int(_wait_for(log, rb"(\d+)\n", process))


@contextmanager
def redis(log: Path) -> Iterator[int]:
    """Run a Redis that keeps nothing on disk; give its port."""
    program = installed("redis-server")
    log.write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as probe:  # it takes no port 0
        port = probe.getsockname()[1]
    settings = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    # Clients come from all of 127.0.0.0/8, which to Redis is not quite the loopback.
    settings += ["--protected-mode", "no"]
    with running([program, *settings], log) as process:
        _wait_for(log, rb"(Ready to accept connections)", process)
        yield port


@contextmanager
def bc(log: Path) -> Iterator[tuple[int, int]]:
    """Run bc; give the descriptors to read its answers from and to write sums to."""
    program = installed("bc")
    with running([program, "-q"], log, pipes=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"scale=34\n")
        process.stdin.flush()
        yield process.stdout.fileno(), process.stdin.fileno()


def _wait_for(log: Path, pattern: bytes, process: subprocess.Popen[bytes]) -> bytes:
    deadline = time.monotonic() + TIMEOUT
    while (found := re.search(pattern, log.read_bytes())) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{process.args!r} did not start: {log.read_text()[-500:]}")
        time.sleep(0.001)
    return found[1]


def resident(process: subprocess.Popen[bytes]) -> int:
    """Give a process's resident memory in bytes."""
    with suppress(OSError):
        pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0
