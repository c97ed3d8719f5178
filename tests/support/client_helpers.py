"""Helpers for the tests of calcc: run it, serve it from a script, give it a terminal."""

import fcntl
import os
import pty
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers import TIMEOUT, clean_environment, read_all, reset_on_close, wait_until

COMMAND = [sys.executable, "-m", "calcd.client"]
HOST = "127.0.0.1"

Script = Callable[[socket.socket], None]


# -- Running the client --------------------------------------------------------------------------


def calcc(
    *arguments: object,
    stdin: Any = b"",
    stdout: Any = subprocess.PIPE,
    command: list[str] = COMMAND,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run the client to its end. ``stdin`` is what it reads, or a file."""
    source = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run(
        [*command, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT,
        check=False,
        env=clean_environment(**environment),
        **source,
    )


@contextmanager
def running(*arguments: object, **streams: Any) -> Iterator[Any]:
    """Yield a running client with pipes for its streams. Kill it at the end of the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(
        command, bufsize=0, env=clean_environment(), **{**pipes, **streams}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_replies_come_at_once(process: Any) -> None:
    """Ask a running client, while its input is open; then end its input."""
    for number in range(3):
        process.stdin.write(b"SOMA %d 1\n" % number)
        assert process.stdout.read(10) == b"%d\n" % (number + 1)
    process.stdin.close()
    assert process.wait(TIMEOUT) == 0


def assert_input_waits_for_replies(process: Any) -> None:
    """Give a running client of an echo server all that it takes; then read as much."""
    chunk = b"%01023d\n" % 7 * 64
    os.set_blocking(process.stdin.fileno(), False)
    sent = 0
    while select.select([], [process.stdin], [], 0.3)[1]:
        sent += os.write(process.stdin.fileno(), chunk)
        assert sent < 256 << 20  # all that the sockets' and pipes' buffers hold is far less
    process.stdin.close()
    received = 0
    while data := process.stdout.read(1 << 20):
        received += len(data)
    assert received == sent


def bundle(path: Path) -> None:
    """Make the client one file, as its users do."""
    command = [sys.executable, "-m", "calcd.client.bundle", str(path)]
    done = calcc(command=command)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which ``calcc`` is the client."""
    function = f'calcc() {{ {" ".join(COMMAND)} "$@"; }}\n'
    return calcc(command=["bash", "-c", function + script])


def wait_until_asleep(process: Any) -> None:
    """Wait until a process sleeps in a system call, which a signal then interrupts."""
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "it to wait")


def small_pipe() -> tuple[int, int]:
    """Return a pipe of one page, less than a single read from the server."""
    pipe = os.pipe()
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    return pipe


def wait_until_full(process: Any, pipe: int) -> None:
    """Wait until a process waits for room in a pipe. The test holds the same end of it."""
    wait_until(lambda: not select.select([], [pipe], [], 0)[1], "the pipe to be full")
    wait_until_asleep(process)


def error_message(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the only line on standard error, without the name of the program."""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("calcc: ")
    return line.removeprefix("calcc: ")


# -- Servers that run a script -------------------------------------------------------------------


class Servers:
    """Starts servers that run a script for each connection, one after the other."""

    def __init__(self) -> None:
        self.over = threading.Event()  # set at the end of the test: see silent()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def __call__(self, *scripts: Script, at: Any = (HOST, 0)) -> int:
        """Start a server, by default on a free port of 127.0.0.1. Return its port."""
        family = socket.AF_UNIX if isinstance(at, str) else socket.AF_INET
        if family == socket.AF_INET and ":" in at[0]:
            family = socket.AF_INET6
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(at)
        listener.listen()
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=self._serve, args=(listener, scripts))
        self._threads.append(thread)
        thread.start()
        return 0 if family == socket.AF_UNIX else int(listener.getsockname()[1])

    def _serve(self, listener: socket.socket, scripts: tuple[Script, ...]) -> None:
        try:
            with listener:
                for script in scripts:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(TIMEOUT)
                        script(connection)
        except BaseException as failure:
            self._failures.append(failure)

    def silent(self, _connection: socket.socket) -> None:
        """Keep the connection open until the end of the test, and do nothing."""
        assert self.over.wait(TIMEOUT)

    def wait(self) -> None:
        """Wait until all scripts have ended, and the servers with them."""
        for thread in self._threads:
            thread.join()
        assert not self._failures

    def stop(self) -> None:
        self.over.set()
        self.wait()


def echo(connection: socket.socket) -> None:
    """Send back what comes, as it comes."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def answer(replies: bytes) -> Script:
    """Send these replies after the end of the requests."""

    def script(connection: socket.socket) -> None:
        read_all(connection)
        connection.sendall(replies)

    return script


def greeted(script: Script, setup: bytes = b"") -> Script:
    """Reply to the requests with which the prompt begins a connection. Then run a script."""

    def greet_and_run(connection: socket.socket) -> None:
        receive(connection, setup + b"VERSION\n")
        connection.sendall(setup + b"calcd 1.2.3\n")
        script(connection)

    return greet_and_run


def receive(connection: socket.socket, expected: bytes) -> None:
    """Read exactly these bytes."""
    data = b""
    while len(data) < len(expected):
        more = connection.recv(len(expected) - len(data))
        assert more, f"only {data!r}"
        data += more
    assert data == expected


def drip(connection: socket.socket, start: bytes = b"") -> None:
    """Send this, and then a byte each tenth of a second, for longer than any timeout."""
    with suppress(OSError):
        connection.sendall(start)
        for _ in range(int(2 * TIMEOUT / 0.1)):
            connection.sendall(b"A")
            time.sleep(0.1)


def reset(connection: socket.socket) -> None:
    """End the connection with RST."""
    reset_on_close(connection)
    connection.close()


# -- Terminals ----------------------------------------------------------------------------------


class Terminal:
    """A client on a terminal of its own, and its keyboard."""

    def __init__(
        self, home: Path, *arguments: object, redirect: str = "", ignored: str = "", **more: str
    ) -> None:
        self.screen = b""  # what has been shown and was not yet expected
        self._keyboard, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 80))
        try:
            # The first terminal that a session's first process opens is the one whose Ctrl-C
            # it gets.
            trap = f"trap '' {ignored};" if ignored else ""
            script = f'{trap} exec "$@" <>{os.ttyname(terminal)} >&0 2>&0 {redirect}'
            self.process = subprocess.Popen(
                # Not as under nohup, or as a shell's background job: with signals ignored.
                [
                    *("env", "--default-signal=HUP,INT", "sh", "-c", script, "sh"),
                    *COMMAND,
                    *map(str, arguments),
                ],
                start_new_session=True,
                env=clean_environment(
                    **{
                        "HOME": str(home),
                        "TERM": "xterm",
                        "LC_ALL": "C.UTF-8",
                        "NO_COLOR": "1",
                        **more,
                    }
                ),
            )
        finally:
            self._terminal = terminal

    def type(self, text: str | bytes) -> None:
        os.write(self._keyboard, text if isinstance(text, bytes) else text.encode())

    def interrupt(self) -> None:
        wait_until_asleep(self.process)
        self.type(CTRL_C)

    def expect(self, text: str) -> str:
        """Wait for this text on the screen. Return the text before it."""
        wanted = text.replace("\n", "\r\n").encode()
        deadline = time.monotonic() + TIMEOUT
        while wanted not in self.screen:
            assert self._look(deadline), f"{text!r} is not in {self.screen!r}"
        before, _, self.screen = self.screen.partition(wanted)
        return before.decode(errors="replace").replace("\r\n", "\n")

    def _look(self, deadline: float) -> bool:
        if not select.select([self._keyboard], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        self.screen += os.read(self._keyboard, 4096)
        return True

    def end(self) -> int:
        """Wait for the client to end. Return its exit status."""
        status = self.process.wait(TIMEOUT)
        while self._look(0):
            pass
        return status

    def resize(self, columns: int) -> None:
        termios.tcsetwinsize(self._terminal, (24, columns))

    def hang_up(self) -> int:
        """Close the terminal, as its window does. Return the exit status of the client."""
        os.close(self._terminal)
        os.close(self._keyboard)
        self._keyboard = self._terminal = -1
        return self.process.wait(TIMEOUT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._keyboard >= 0:
            os.close(self._keyboard)
            os.close(self._terminal)


@contextmanager
def terminal(home: Path, *arguments: object, **more: str) -> Iterator[Terminal]:
    """Yield a terminal on which the client runs."""
    terminal = Terminal(home, *arguments, **more)
    try:
        yield terminal
    finally:
        terminal.close()


PROMPT = "calcc> "
CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"
