"""What the tests share: a real daemon to talk to, and ways to wait that have a bound."""

import fcntl
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TIMEOUT = 20.0  # seconds that anything may take before a test calls it lost
ROOT = Path(__file__).parents[2]


def wait_until(happened: Callable[[], object], what: str, seconds: float = TIMEOUT) -> None:
    """Wait until ``happened()`` is true; fail the test, saying ``what`` did not, when it is not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.005)


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Ask one request; return its reply, with its line end."""
    connection.sendall(request)
    reply = b""
    while not reply.endswith(b"\n"):
        part = connection.recv(4096)
        assert part, f"the server closed after {reply!r}"
        reply += part
    return reply


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side ends; a reset is an error, as it is to any client."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def request_all(connection: socket.socket, requests: bytes) -> bytes:
    """Send ``requests``, end the input, and return all that comes back."""
    connection.sendall(requests)
    connection.shutdown(socket.SHUT_WR)
    return read_all(connection)


@contextmanager
def datagrams_to(daemon: "Daemon") -> Iterator[socket.socket]:
    """Give a socket for datagrams to a daemon's first UDP endpoint, of 127.0.0.1."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", daemon.port_of("udp")))
        yield client


def connect_with_little_room(address: tuple[str, int]) -> socket.socket:
    """Connect a client whose kernel takes hardly more than it reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(TIMEOUT)
    client.connect(address)
    return client


def bytes_unacked(connection: socket.socket) -> int:
    """Count the bytes sent that the other side's kernel does not have yet."""
    count = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def reset_on_close(connection: socket.socket) -> None:
    """Let the next close of a connection send RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def clean_environment(**more: str) -> dict[str, str]:
    """Give this environment less what systemd may have put into it, and ``more``."""
    systemds = ("NOTIFY_SOCKET", "JOURNAL_STREAM", "INVOCATION_ID")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in systemds and not name.startswith(("LISTEN_", "WATCHDOG_", "CALCD_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def drip_until_closed(connection: socket.socket, data: bytes, pause: float) -> bytes:
    """Send ``data`` a byte at a time, over and over, until the server closes."""
    connection.settimeout(pause)
    received = b""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        for byte in data:
            try:
                connection.send(bytes([byte]))
                part = connection.recv(1000)
            except TimeoutError:
                continue
            if not part:
                return received
            received += part
    raise AssertionError("the server never closed")


def send_until_nothing_moves(connection: socket.socket) -> None:
    """Ask and read nothing, until nothing has moved for half a second or the server has closed."""
    connection.settimeout(0.5)
    with suppress(TimeoutError, ConnectionError):
        while True:
            connection.send(b"DIV 1 3\n" * 10_000)


class NotifySocket:
    """The service manager's end of sd_notify."""

    def __init__(self, address: str) -> None:
        self.address = address  # a path, or @ and the name of an abstract address
        self.received: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(re.sub("^@", "\0", address))
        self._socket.setblocking(False)

    def has(self, state: str) -> bool:
        """Say whether a state has come, among all until now."""
        try:
            while True:
                self.received += self._socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return state in self.received

    def close(self) -> None:
        self._socket.close()


class Daemon:
    """A calcd that runs in the foreground, as a process of its own."""

    def __init__(
        self, command: list[str], log_file: Path, notify: str = "", **environment: str
    ) -> None:
        self.log_file = log_file
        self.notified = NotifySocket(notify or str(log_file.with_suffix(".notify")))
        with log_file.open("wb") as log:
            # Not as under nohup, or as a shell's background job: with their signals ignored.
            self.process = subprocess.Popen(
                ["env", "--default-signal=HUP,INT", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(NOTIFY_SOCKET=self.notified.address, **environment),
                cwd=log_file.parent,
            )
        try:
            wait_until(
                lambda: self.notified.has("READY=1") or self.process.poll() is not None, "READY=1"
            )
            assert self.process.poll() is None, self.log
        except BaseException:
            self.process.kill()
            self.stop()
            raise
        self.endpoints = re.findall(r"listening on (\S+[^,\s])", self.log)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def host(self) -> str:
        return self._tcp[1].strip("[]")

    @property
    def port(self) -> int:
        return int(self._tcp[2])

    @property
    def _tcp(self) -> re.Match[str]:
        found = re.search(r"tcp://(\S+):(\d+)", " ".join(self.endpoints))
        assert found, self.log
        return found

    def port_of(self, scheme: str) -> int:
        """Return the port of its first endpoint of a scheme: tcp, tls or udp."""
        url = next(url for url in self.endpoints if url.startswith(f"{scheme}:"))
        return int(url.rpartition(":")[2])

    def count_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def count_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def take_free_descriptors(self) -> None:
        """Lower its limit of open files to those that it has."""
        pid = self.process.pid
        count = self.count_descriptors()
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))

    def connect(self, timeout: float = TIMEOUT) -> socket.socket:
        """Connect to its (first) TCP endpoint."""
        return socket.create_connection((self.host, self.port), timeout)

    def ask(self, requests: bytes) -> bytes:
        """Send ``requests``, end the input, and return all that comes back."""
        with self.connect() as connection:
            return request_all(connection, requests)

    def logs(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until the log has lines that match, so many of them, and return them."""
        found: list[str] = []

        def enough() -> bool:
            found[:] = [line for line in self.log.splitlines() if re.search(pattern, line)]
            return len(found) >= times

        wait_until(enough, f"{times} of {pattern!r} in the log:\n{self.log[-2000:]}")
        return found

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send it a signal and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.notified.close()
        return self.process.wait(TIMEOUT)


# What makes a job of each line that is not blank, when it is run before a daemon starts.
ALL_JOBS = """
from calcd.core import budget, session
budget.Budget.__init__.__defaults__ = (-1,)
session.PLAIN = b""
"""


def _command(code: str, python: str = sys.executable) -> list[str]:
    """Return a command that runs this code, and then calcd."""
    code = f"import sys\n{code}\nimport calcd.daemon.main\nsys.exit(calcd.daemon.main.main())"
    return [python, "-c", code]


class Daemons:
    """Starts daemons for one test, and stops those that still run at its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Daemon] = []

    def __call__(
        self, *options: str, python: str = sys.executable, code: str = "", **environment: str
    ) -> Daemon:
        """Start one with these options, on a free port of 127.0.0.1 if none of them is ``-l``.

        ``code`` is run first in its process.
        """
        if not {"-l", "--listen", "-c"} & set(options):
            options = ("-l", "tcp://127.0.0.1:0", *options)
        log_file = self._directory / f"daemon-{len(self._started)}.log"
        command = _command(code, python) if code else [python, "-m", "calcd"]
        daemon = Daemon([*command, *options], log_file, **environment)
        self._started.append(daemon)
        return daemon

    def stop(self) -> None:
        for daemon in self._started:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGTERM)
        for daemon in self._started:
            daemon.stop()
            assert "Traceback" not in daemon.log, daemon.log


@contextmanager
def daemons_in(directory: Path) -> Iterator[Daemons]:
    """Give a ``Daemons`` whose daemons are stopped in the end."""
    daemons = Daemons(directory)
    try:
        yield daemons
    finally:
        daemons.stop()


@contextmanager
def changed_daemon(
    directory: Path, code: str, *options: str, **environment: str
) -> Iterator[Daemon]:
    """Run a daemon in whose process this code has been run first; its log may have tracebacks."""
    command = [*_command(code), "-l", "tcp://127.0.0.1:0", *options]
    daemon = Daemon(command, directory / "changed.log", **environment)
    try:
        yield daemon
        assert daemon.stop() == 0
    finally:
        daemon.process.kill()
        daemon.stop()


def run_program(command: list[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with this as its input."""
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        env=clean_environment(),
    )


def run_calcd(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run calcd to its end, as one does from a shell."""
    return subprocess.run(
        [sys.executable, "-m", "calcd", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(**environment),
        check=False,
    )
