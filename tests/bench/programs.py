"""The programs that take part: built, started, and ended by their own process ids."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PYTHON = "/usr/bin/python3"  # the distribution's
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
    """Compile a C file that stands beside this one; ``NAME-tls`` is NAME.c with TLS."""
    program, source = directory / name, HERE / f"{name.removesuffix('-tls')}.c"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [installed("cc"), *flags, "-o", str(program), str(source)]
    if name.endswith("-tls"):
        _check_for_openssl(command[0])
        command += ["-DTLS", "-lssl"]
    subprocess.run(command, check=True, timeout=TIMEOUT)
    return program


def _check_for_openssl(compiler: str) -> None:
    command = [compiler, "-fsyntax-only", "-include", "openssl/ssl.h", "-x", "c", os.devnull]
    if subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode:
        raise MissingError("OpenSSL's header files (libssl-dev) are not installed")


def certificate(directory: Path) -> Path:
    """Make a certificate for this machine; give a file that has it and its key."""
    pem, key = directory / "server.pem", directory / "server.key"
    make = [installed("openssl"), "req", "-x509", "-days", "1", "-subj", "/CN=localhost", "-noenc"]
    make += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-keyout", str(key), "-out", str(pem)]
    subprocess.run(make, capture_output=True, timeout=TIMEOUT, check=True)
    pem.write_text(pem.read_text() + key.read_text())
    return pem


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


def version(python: str) -> tuple[int, ...]:
    """Give the version of a Python; ``()`` where there is none."""
    command = [python, "-c", "import sys; print(*sys.version_info[:3])"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(map(int, done.stdout.split()))


@contextmanager
def calcd(
    python: str,
    log: Path,
    endpoint: str,
    *options: str,
    variables: Mapping[str, str] = MappingProxyType({}),
    before: str = "",
) -> Iterator[Calcd]:
    """Run calcd, logging to a file, with its defaults but for these options.

    ``before`` are Python statements that are run before it starts.
    """
    log.write_bytes(b"")
    where = ("-l", endpoint, "--log-to", str(log))
    program = ["-m", "calcd"]
    if before:
        program = ["-c", f"{before}\nimport runpy; runpy.run_module('calcd')"]
    command = [python, *program, *where, *options]
    began = time.monotonic()
    with running(command, log, variables=variables) as process:
        found = _wait_for(log, rb"listening on \w+://127.0.0.1:(\d+)", process)
        yield Calcd(process, int(found), time.monotonic() - began)


@contextmanager
def echo(program: Path, log: Path, *options: str) -> Iterator[int]:
    """Run the C server; give its port."""
    log.write_bytes(b"")
    with running([str(program), *options], log) as process:
        yield int(_wait_for(log, rb"(\d+)\n", process))


@contextmanager
def bare(python: str, log: Path, *port: str) -> Iterator[int]:
    """Run the Python server that only echoes; give its port."""
    log.write_bytes(b"")
    with running([python, str(HERE / "bare.py"), *port], log) as process:
        yield int(_wait_for(log, rb"(\d+)\n", process))


@contextmanager
def redis(log: Path) -> Iterator[int]:
    """Run a Redis that keeps nothing on disk; give its port."""
    program = installed("redis-server")
    log.write_bytes(b"")
    port = _free_port()
    settings = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    # Clients come from all of 127.0.0.0/8, which to Redis is not quite the loopback.
    settings += ["--protected-mode", "no"]
    with running([program, *settings], log) as process:
        _wait_for(log, rb"(Ready to accept connections)", process)
        yield port


_HAPROXY = """
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen tls
    bind 127.0.0.1:{} ssl crt {}
    server plain 127.0.0.1:{}
"""


@contextmanager
def haproxy(log: Path, pem: Path, server: int) -> Iterator[int]:
    """Run HAProxy, which speaks TLS for the server on another port; give its own port."""
    program = installed("haproxy")
    configuration, port = log.with_suffix(".cfg"), _free_port()
    configuration.write_text(_HAPROXY.format(port, pem, server))
    log.write_bytes(b"")
    with running([program, "-db", "-f", str(configuration)], log) as process:
        deadline = time.monotonic() + TIMEOUT
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"HAProxy did not start: {log.read_text()[-500:]}")
            time.sleep(0.01)
        yield port


def _free_port() -> int:
    """Give a port for a program that takes no port 0."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT):
        return True
    return False


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


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Give the CPU time that a process's threads have used, in seconds; those that ended, not."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def resident(process: subprocess.Popen[bytes]) -> int:
    """Give a process's resident memory in bytes."""
    with suppress(OSError):
        pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0
