"""What tests of the background share: daemons started with -d, and an eye on every process."""

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from helpers import TIMEOUT, clean_environment, request_all, wait_until

USER = pwd.getpwnam("daemon")  # is on every system, and owns nothing that matters

_numbers = count()

# Code for ``Background.command``: the daemon waits for a file before it opens its log.
_WAITS_FOR_A_FILE = """
import calcd.daemon.reload, os, time
real = calcd.daemon.reload.open_log
def open_log(*arguments):
    while not os.path.exists({!r}):
        time.sleep(0.005)
    real(*arguments)
calcd.daemon.reload.open_log = open_log
"""


class Background:
    """A daemon that is started with -d, in a directory of its own.

    Its processes bear a mark in their environment, so that none can be left behind unseen.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pidfile = directory / "run" / "calcd.pid"
        self.socket_file = directory / "run" / "calcd.sock"
        self.log_file = directory / "calcd.log"
        self._resume_file = directory / "resume"
        self._mark = f"{os.getpid()}.{next(_numbers)}"

    @contextmanager
    def command(
        self, *options: object, code: str = "", **popen: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """Run calcd with this pidfile; ``code`` runs first, and may change what it will find."""
        program = ["-m", "calcd"]
        if code:
            program = [
                "-c",
                f"{code}\nimport sys, calcd.daemon.main\nsys.exit(calcd.daemon.main.main())",
            ]
        arguments = [sys.executable, *program, "--pidfile", self.pidfile, *options]
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": self.directory,
            "env": clean_environment(CALCD_TEST_MARK=self._mark),
        }
        with subprocess.Popen([*map(str, arguments)], **{**settings, **popen}) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def paused_start(self, *options: object) -> Iterator[subprocess.Popen[str]]:
        """Run ``command`` until the daemon has a pid; ``resume_start`` resumes it."""
        where = ("-l", f"unix://{self.socket_file}", "--log-to", self.log_file)
        code = _WAITS_FOR_A_FILE.format(str(self._resume_file))
        with self.command(*where, *options, code=code) as process:
            wait_until(lambda: self.pidfile.exists() and self.pidfile.read_text(), "a pid")
            yield process

    def resume_start(self) -> None:
        """Resume a paused start."""
        self._resume_file.touch()

    def run(self, *options: object, **popen: Any) -> subprocess.CompletedProcess[str]:
        """Run ``command`` until it ends."""
        with self.command(*options, **popen) as process:
            output, errors = process.communicate(timeout=TIMEOUT)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def start(self, *options: object, **popen: Any) -> subprocess.CompletedProcess[str]:
        """Run ``calcd -d``, on a free port and with a log file if the options say nothing else."""
        where = () if "-l" in options else ("-l", "tcp://127.0.0.1:0")
        return self.run("-d", *where, "--log-to", self.log_file, *options, **popen)

    def serve(self, *options: object, **popen: Any) -> None:
        """Run ``calcd -d`` as ``start`` does, and see that it says nothing and succeeds."""
        done = self.start(*options, **popen)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr

    def act(self, action: str) -> tuple[int, str, str]:
        """Run ``calcd -s``; return its exit status and what it said on each stream."""
        done = self.run("-s", action)
        return done.returncode, done.stdout, done.stderr

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def connect(self) -> socket.socket:
        """Connect to its last TCP endpoint."""
        *_, (host, port) = re.findall(r"listening on tcp://(\S+):(\d+)", self.log)
        return socket.create_connection((host, int(port)), TIMEOUT)

    def ask(self, requests: bytes) -> bytes:
        """Send ``requests``, end the input, and return all that comes back."""
        with self.connect() as connection:
            return request_all(connection, requests)

    def status(self, name: str) -> list[str]:
        """Return what /proc says of the daemon by that name: ``Uid``, ``Groups``."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:(.*)$", text, re.MULTILINE)
        assert found, text
        return found[1].split()

    def processes(self) -> list[int]:
        """Find every process that came of what was run here."""
        mark = f"CALCD_TEST_MARK={self._mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """End what still runs, whatever went wrong."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.processes(), "the last of the daemon's processes")


@contextmanager
def background_in(directory: Path) -> Iterator[Background]:
    """Give a ``Background`` that leaves nothing behind."""
    background = Background(directory)
    try:
        yield background
    finally:
        background.end()
