"""The log: targets, format, stalled logs, access lines, and reloads."""

import logging
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from certificates import stored
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    clean_environment,
    read_all,
    request_all,
    reset_on_close,
    run_calcd,
    wait_until,
)

from calcd.daemon import log as logs
from calcd.daemon.log import close_log, flush_log, open_log, syslog_answers
from calcd.daemon.ratelimit import BURST

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"

log = logging.getLogger("calcd.test")


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Restore the log of the tests after one has opened the daemon's."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield
    close_log()
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


class Configured:
    """A daemon and its configuration file."""

    def __init__(self, start_daemon: Daemons, directory: Path, *lines: str) -> None:
        self.file = directory / "calcd.conf"
        self.write(*lines)
        self.daemon = start_daemon("-c", str(self.file))
        self._reloads = 0

    def write(self, *lines: str) -> None:
        listen = [] if any("listen" in line for line in lines) else ["listen = tcp://127.0.0.1:0"]
        self.file.write_text("\n".join(["[calcd]", *listen, *lines]) + "\n")

    def reload(self, *lines: str) -> None:
        """Write these settings, reload the daemon, and wait for the end of the reload."""
        self.write(*lines)
        self.daemon.notified.received.clear()
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.notified.has("READY=1"), "the end of the reload")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calcd.log"


def reset_and_close(connection: socket.socket) -> None:
    """End a connection as HAProxy's check does: with RST."""
    reset_on_close(connection)
    connection.close()


def written(path: Path) -> str:
    """Flush the log; return its text."""
    flush_log()
    return path.read_text()


# Targets


def test_on_stderr_each_line_has_the_time_and_the_level(daemon: Daemon) -> None:
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
    daemon.logs("ended:")
    assert daemon.stop() == 0
    for line in daemon.log.splitlines():
        assert re.match(rf"{STAMP} (info|warning): \S", line), line


def test_in_the_journal_each_line_has_its_priority_and_no_time(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    """JOURNAL_STREAM names the file behind stderr: here the daemon's log file."""
    (tmp_path / "daemon-0.log").touch()
    status = (tmp_path / "daemon-0.log").stat()
    daemon = start_daemon(
        *("--user", "nobody", "--log-level", "debug"),  # one has a warning, without -d
        JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}",
    )
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
    daemon.logs("ended:")
    lines = daemon.log.splitlines()
    assert lines[0].startswith("<6>calcd ")
    assert "<4>--user: has no effect without -d" in lines
    assert [line for line in lines if re.fullmatch(r"<7>connection \S+: 'SOMA 2 2' -> '4'", line)]
    assert all(re.match(r"<[2-7]>\S", line) for line in lines)


def test_a_stderr_that_is_not_the_journal_has_timestamps(start_daemon: Daemons) -> None:
    """A program under systemd may have redirected its stderr before it starts calcd."""
    daemon = start_daemon(JOURNAL_STREAM="1:2")
    assert re.match(rf"{STAMP} info: calcd ", daemon.log)


def test_an_error_at_the_start_has_its_priority_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stderr:
        status = path.stat()
        ended = subprocess.run(
            [sys.executable, "-m", "calcd", "--precision", "0"],
            env=clean_environment(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}"),
            stderr=stderr,
            timeout=TIMEOUT,
            check=False,
        )
    assert ended.returncode == 2
    assert path.read_text().startswith("<3>--precision: '0': expected")


def test_a_traceback_is_marked_line_by_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        status = path.stat()
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        open_log("stderr", "info")
        try:
            raise ValueError("a client's\n<0>words\x1b[2J")
        except ValueError:
            log.exception("a bug")
    first, *rest, last_but_one, last = written(path).splitlines()
    assert (first, rest[0]) == ("<3>a bug", "<3>| Traceback (most recent call last):")
    assert last_but_one == "<3>| ValueError: a client's"
    assert last == r"<3>| <0>words\x1b[2J"
    assert all(line.startswith("<3>| ") for line in rest)


def test_no_message_forges_a_line(path: Path) -> None:
    open_log(str(path), "info")
    log.info("a\n2001-01-01T00:00:00.000Z info: forged\x1b[2J %s", "\r\u2028é\ud800")
    (line,) = written(path).splitlines()
    assert line.endswith(
        r"info: a\n2001-01-01T00:00:00.000Z info: forged\x1b[2J \r\u2028\xe9\ud800"
    )
    log.info("as it is: é €")
    assert written(path).endswith("info: as it is: é €\n")


def test_times_sort_over_the_end_of_daylight_saving(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Berlin, 2026-10-25T02:30 came twice: at 00:30 and at 01:30 UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        open_log(str(path), "info")
        first = datetime(2026, 10, 25, tzinfo=UTC).timestamp()
        for minutes in range(0, 180, 30):
            record = {"created": first + 60 * minutes, "msecs": 7.5, "levelno": logging.INFO}
            log.handle(
                logging.makeLogRecord(
                    record | {"name": "x", "levelname": "INFO", "msg": str(minutes)}
                )
            )
        lines = written(path).splitlines()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert lines[1] == "2026-10-25T00:30:00.007Z info: 30"
    assert lines == sorted(lines)
    assert [datetime.fromisoformat(line.split()[0]).timestamp() for line in lines] == [
        first + 60 * minutes + 0.007 for minutes in range(0, 180, 30)
    ]


def test_lines_are_appended_to_a_file(path: Path) -> None:
    path.write_text("from before\n")
    open_log(str(path), "info")
    log.info("new")
    assert re.fullmatch(rf"from before\n{STAMP} info: new\n", written(path))


def test_the_level_is_the_least_severe_that_is_logged(path: Path) -> None:
    for level, shown in {"debug": 4, "info": 3, "warning": 2, "error": 1}.items():
        path.write_text("")
        open_log(str(path), level)
        for least in logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR:
            log.log(least, "x")
        assert len(written(path).splitlines()) == shown


def test_a_file_that_cannot_be_opened_leaves_the_log_where_it_was(path: Path) -> None:
    open_log(str(path), "info")
    with pytest.raises(FileNotFoundError):
        open_log(str(path.parent / "none" / "calcd.log"), "debug")
    log.info("still here")
    log.debug("no more than before")
    assert written(path).endswith("info: still here\n")


def test_no_record_is_lost_or_cut_while_the_log_is_reopened(tmp_path: Path) -> None:
    """Four threads log while the log switches from file to file."""
    paths = [tmp_path / str(number) for number in range(20)]
    open_log(str(paths[0]), "info")

    def work(name: int) -> None:
        for number in range(500):
            log.info("thread=%d record=%d.", name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for path in paths[1:]:
        open_log(str(path), "info")
    for thread in threads:
        thread.join()
    flush_log()
    lines = [line for path in paths for line in path.read_text().splitlines()]
    records = [line.split(" info: ")[1] for line in lines]
    assert len(records) == len(set(records)) == 2000
    assert all(re.fullmatch(r"thread=\d record=\d+\.", record) for record in records)


# A syslog


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path for a test's own syslog."""
    path = tmp_path / "log"
    monkeypatch.setattr(logs, "SYSLOG", str(path))
    return path


def syslogd(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(TIMEOUT)
    return listener


def test_syslog_gets_each_line_with_its_priority(syslog: Path) -> None:
    with syslogd(syslog) as listener:
        assert syslog_answers()
        open_log("syslog", "info")
        log.info("é")
        assert listener.recv(1000).decode() == f"<30>calcd[{os.getpid()}]: é"
        log.error("x", exc_info=KeyError("y"))
        assert listener.recv(1000).decode() == f"<27>calcd[{os.getpid()}]: x\n| KeyError: 'y'"


def test_a_line_that_is_too_long_for_syslog_is_cut(syslog: Path) -> None:
    """The settings are one line, and may have thousands of networks."""
    with syslogd(syslog) as listener:
        open_log("syslog", "info")
        log.info("x" * 300_000)
        log.info("next")
        assert listener.recv(1 << 20).endswith(b"x" * 65_000)
        assert listener.recv(1000).endswith(b"]: next")


def test_a_missing_syslog_is_reported_on_stderr_and_lost_lines_to_the_next_syslog(
    syslog: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not syslog_answers()
    open_log("syslog", "info")
    log.info("one")
    flush_log()
    log.info("two")
    flush_log()
    assert capfd.readouterr().err == (
        "calcd: cannot write the log: No such file or directory: lines are lost until it can\n"
    )
    with syslogd(syslog) as listener:
        log.info("three")
        assert listener.recv(1000).endswith(b": 2 log records were lost before this one")
        assert listener.recv(1000).endswith(b": three")
    with syslogd(syslog) as restarted:
        log.info("four")
        assert restarted.recv(1000).endswith(b": four")
    assert capfd.readouterr().err == ""


# A log that cannot be written


def test_a_full_disk_does_not_stop_the_service(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    daemon = start_daemon("--log-to", "/dev/full", "-l", f"unix://{path}")
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))
            client.sendall(b"SOMA 2 2\nQUIT\n")
            assert read_all(client) == b"4\nBYE\n"
    assert daemon.stop() == 0
    assert daemon.log == (  # 3 lines are the start's, 2 the stop's
        "calcd: cannot write the log: No space left on device: lines are lost until it can\n"
        "calcd: 8 log records were lost at the end: the log did not take them\n"
    )


def test_lost_lines_are_reported_when_the_disk_has_room_again(path: Path) -> None:
    """A limit on the file's size simulates a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    open_log(str(path), "info")
    log.info("one")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(written(path)), limits[1]))
        log.info("two")
        flush_log()
        log.info("three")
        flush_log()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    log.info("four")
    lines = [line.partition(" ")[2] for line in written(path).splitlines()]
    told = "warning: 2 log records were lost before this one"
    assert lines == ["info: one", told, "info: four"]


def test_a_line_that_was_written_in_part_is_completed_when_there_is_room(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    open_log(str(path), "info")
    log.info("one")
    try:
        size = len(written(path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, limits[1]))
        log.info("two")
        assert len(written(path)) == size + size // 2
        for line in "three", "four":
            log.info(line)
            flush_log()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    log.info("five")
    lines = [re.sub(STAMP, "", line) for line in written(path).splitlines()]
    told = " warning: 2 log records were lost before this one"
    assert lines == [" info: one", " info: two", told, " info: five"]


def test_a_stderr_that_cannot_be_written_does_not_stop_the_service(tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    command = f"exec {sys.executable} -m calcd -l unix://{path} 2> /dev/full"
    daemon = Daemon(["sh", "-c", command], tmp_path / "daemon.log")
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))
            client.sendall(b"SOMA 2 2\nQUIT\n")
            assert read_all(client) == b"4\nBYE\n"
    finally:
        assert daemon.stop() == 0


# A log that stalls

_numbers = count()  # of daemons: each has files of its own
MANY = 2500  # connections: their lines exceed the capacity of a pipe
MORE = 15_000  # requests: their lines at debug exceed pipe and queue


@contextmanager
def running(directory: Path, *options: str, code: str = "") -> Iterator[Daemon]:
    """Run a daemon on ``served(directory)``, in whose process ``code`` runs first."""
    program = f"{code}\nimport sys, calcd.daemon.main\nsys.exit(calcd.daemon.main.main())"
    command = [sys.executable, "-c", program, "-l", f"unix://{served(directory)}", *options]
    daemon = Daemon(command, directory / f"daemon-{next(_numbers)}.log")
    try:
        yield daemon
    finally:
        daemon.process.kill()
        daemon.stop()


def served(directory: Path) -> Path:
    return directory / "calcd.sock"


def ask(directory: Path, requests: bytes = b"SOMA 2 2\n") -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(served(directory)))
        return request_all(client, requests)


def is_answered(directory: Path, times: int = 1, requests: int = 1) -> None:
    for _ in range(times):
        assert ask(directory, b"SOMA 2 2\n" * requests) == b"4\n" * requests


@contextmanager
def fifo_that_stalls(path: Path) -> Iterator[int]:
    """Open a FIFO for reading, and do not read."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def read_until_closed(fd: int, text: list[str]) -> None:
    """Read from a FIFO until its last writer closes it."""
    os.set_blocking(fd, True)
    with os.fdopen(os.dup(fd)) as file:
        text.extend(file)


def stderr_is(path: Path) -> str:
    """Return code that opens a path as stderr, in blocking mode like a shell's pipe."""
    return f"import os\nos.dup2(os.open({str(path)!r}, os.O_WRONLY), 2)"


# Makes a stream socket stderr, and calls it the journal's, as systemd does.
JOURNAL = """
import os, socket
journal = socket.socket(socket.AF_UNIX)
journal.connect({!r})
os.dup2(journal.fileno(), 2)
journal.close()
os.environ["JOURNAL_STREAM"] = "{{0.st_dev}}:{{0.st_ino}}".format(os.fstat(2))
"""


def test_a_stalled_pipe_as_stderr_blocks_neither_service_nor_stop(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    with fifo_that_stalls(pipe), running(tmp_path, code=stderr_is(pipe)) as daemon:
        is_answered(tmp_path, MANY)
        assert daemon.stop() == 0


@contextmanager
def running_with_journal(directory: Path) -> Iterator[tuple[Daemon, socket.socket]]:
    """Run a daemon whose stderr goes to a journal; give it, and the journal's end."""
    path = directory / "journal"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with running(directory, code=JOURNAL.format(str(path))) as daemon:
            journal, _ = listener.accept()
            with journal:
                yield daemon, journal


def test_a_frozen_journal_blocks_neither_service_nor_stop(tmp_path: Path) -> None:
    with running_with_journal(tmp_path) as (daemon, _):
        is_answered(tmp_path, MANY)
        assert daemon.stop() == 0


def test_a_journal_that_recovers_gets_every_line(tmp_path: Path) -> None:
    with running_with_journal(tmp_path) as (daemon, journal), ThreadPoolExecutor() as pool:
        is_answered(tmp_path, MANY)
        read = pool.submit(read_all, journal)
        assert daemon.stop() == 0
        lines = read.result(TIMEOUT).decode().splitlines()
    assert sum(" ended: requests=1 " in line for line in lines) == MANY


def test_a_stalled_syslog_blocks_neither_service_nor_stop(tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    code = f"import calcd.daemon.log\ncalcd.daemon.log.SYSLOG = {str(path)!r}"
    with syslogd(path), running(tmp_path, "--log-to", "syslog", code=code) as daemon:
        is_answered(tmp_path, 200)
        assert daemon.stop() == 0
    # How many lines fit into the socket's queue depends on the kernel.
    assert re.fullmatch(
        r"calcd: \d+ log records were lost at the end: the log did not take them\n", daemon.log
    )


def test_a_syslog_that_recovers_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    code = f"import calcd.daemon.log\ncalcd.daemon.log.SYSLOG = {str(path)!r}"
    with (
        syslogd(path) as listener,
        running(tmp_path, "--log-to", "syslog", code=code) as daemon,
        ThreadPoolExecutor() as pool,
    ):
        is_answered(tmp_path, 200)
        stopped = pool.submit(daemon.stop)
        lines = [listener.recv(1000).decode()]
        while "stopped: 0 connections cut" not in lines[-1]:
            lines.append(listener.recv(1000).decode())
        assert stopped.result(TIMEOUT) == 0
    assert sum(" ended: requests=1 " in line for line in lines) == 200
    assert daemon.log == ""


def test_lines_lost_to_a_stalled_fifo_are_reported_on_stderr(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    with (
        fifo_that_stalls(fifo),
        running(tmp_path, "--log-to", str(fifo), "--log-level", "debug") as daemon,
    ):
        is_answered(tmp_path, requests=MORE)
        daemon.logs("calcd: the log takes no more lines: they are lost until it does")
        is_answered(tmp_path)
        assert daemon.stop() == 0
    _, end = daemon.log.splitlines()
    assert re.fullmatch(r"calcd: \d+ log records were lost at the end: .*", end)


@pytest.mark.parametrize("is_stderr", [True, False], ids=["stderr", "FIFO"])
def test_lines_lost_to_a_stalled_log_are_reported_in_it_when_it_recovers(
    tmp_path: Path, is_stderr: bool
) -> None:
    def serve() -> None:
        is_answered(tmp_path, requests=MORE)
        is_answered(tmp_path, 100)

    healthy = tmp_path / "healthy"
    with running(tmp_path, "--log-to", str(healthy), "--log-level", "debug") as daemon:
        serve()
        assert daemon.stop() == 0
    logged = len(healthy.read_text().splitlines())

    fifo = tmp_path / "fifo"
    target, code = ("stderr", stderr_is(fifo)) if is_stderr else (str(fifo), "")
    seen: list[str] = []
    with (
        fifo_that_stalls(fifo) as fd,
        running(tmp_path, "--log-to", target, "--log-level", "debug", code=code) as daemon,
    ):
        serve()
        reader = threading.Thread(target=read_until_closed, args=(fd, seen))
        reader.start()
        wait_until(lambda: any("records were lost" in line for line in seen), "the loss")
        assert daemon.stop() == 0
        reader.join()
    assert all(re.match(rf"{STAMP} (debug|info|warning): ", line) for line in seen)
    (told,) = [line for line in seen if "records were lost" in line]
    lost = re.fullmatch(r".* warning: (\d+) log records were lost before this one\n", told)
    assert lost
    assert len(seen) - 1 + int(lost[1]) == logged


# Simulates a disk that stalls: writes to the log do not return, other writes do.
DISK = """
import os, time
real = os.write
def write(fd, data):
    while os.path.exists({held!r}) and os.readlink(f"/proc/self/fd/{{fd}}") == {log!r}:
        time.sleep(0.01)
    return real(fd, data)
os.write = write
"""


def test_a_stalled_disk_blocks_neither_service_nor_stop(tmp_path: Path, path: Path) -> None:
    held = tmp_path / "held"
    code = DISK.format(held=str(held), log=str(path))
    with running(tmp_path, "--log-to", str(path), code=code) as daemon:
        held.touch()
        is_answered(tmp_path, 100)
        held.unlink()
        wait_until(lambda: path.read_text().count(" ended: ") == 100, "the lines")
        held.touch()
        is_answered(tmp_path, 100)
        assert daemon.stop() == 0
    assert daemon.log == (  # the start's three lines are there, and the stop's two are not
        "calcd: 102 log records were lost at the end: the log did not take them\n"
    )


def test_a_reload_leaves_a_stalled_log(tmp_path: Path, path: Path) -> None:
    fifo, file = tmp_path / "fifo", tmp_path / "calcd.conf"
    file.write_text(f"[calcd]\nlog_to = {fifo}\n")
    with fifo_that_stalls(fifo), running(tmp_path, "-c", str(file)) as daemon:
        is_answered(tmp_path, MANY)
        file.write_text(f"[calcd]\nlog_to = {path}\n")
        daemon.notified.received.clear()
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.notified.has("READY=1"), "the end of the reload")
        first, second, *_ = path.read_text().splitlines()
        assert re.search(
            r" warning: \d+ log records were lost: the previous log did not take them", first
        )
        assert "info: settings in force: " in second
        assert f" log_to={path} " in second
        is_answered(tmp_path)
        wait_until(lambda: " ended: " in path.read_text(), "the connection's line")
        assert descriptors_of(daemon, fifo) == []
        assert daemon.stop() == 0
    assert path.read_text().splitlines()[-1].count("info: stopped: 0 connections cut, ") == 1


def descriptors_of(daemon: Daemon, path: Path) -> list[str]:
    """Return the daemon's descriptors of a file."""
    fds = Path(f"/proc/{daemon.process.pid}/fd").iterdir()
    return [fd.name for fd in fds if fd.is_symlink() and os.readlink(fd) == str(path)]


def test_a_reload_with_a_stalled_stderr_keeps_it(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "calcd.conf"
    file.write_text("[calcd]\nprecision = 3\n")
    with (
        fifo_that_stalls(pipe),
        running(tmp_path, "-c", str(file), code=stderr_is(pipe)) as daemon,
    ):
        is_answered(tmp_path, MANY)
        for precision in range(4, 7):
            file.write_text(f"[calcd]\nprecision = {precision}\n")
            daemon.notified.received.clear()
            daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: daemon.notified.has("READY=1"), "the end of the reload")
            assert ask(tmp_path, b"DIV 1 3\n") == b"0." + b"3" * precision + b"\n"
        names = [
            task.joinpath("comm").read_text()
            for task in Path(f"/proc/{daemon.process.pid}/task").iterdir()
        ]
        assert len(descriptors_of(daemon, pipe)) <= 3, names  # stderr, its opening, and the log's
        assert daemon.stop() == 0


def test_a_fifo_without_a_reader_is_an_error_at_the_start(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ended = run_calcd("-l", f"unix://{served(tmp_path)}", "--log-to", str(fifo))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"calcd: --log-to: cannot write the log {fifo}: no process reads this FIFO: "
        "start its reader first, or name another with --log-to\n"
    )


def test_a_reload_to_a_fifo_without_a_reader_leaves_the_log_where_it_was(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    configured = Configured(start_daemon, tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    configured.reload(f"log_to = {fifo}")
    configured.daemon.logs(
        "error: reload: .*log_to: cannot write the log .*: no process reads this FIFO: "
    )
    assert configured.daemon.ask(b"SOMA 2 2\n") == b"4\n"
    assert len(ended(configured.daemon)) == 1


def test_an_error_message_for_a_stalled_stderr_is_dropped() -> None:
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 4096)
        os.set_blocking(write_end, True)
        ended = subprocess.run(
            [sys.executable, "-m", "calcd", "--precision", "0"],
            env=clean_environment(),
            stderr=write_end,
            timeout=TIMEOUT,
            check=False,
        )
        assert ended.returncode == 2
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_new_log_is_not_readable_for_all_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        for umask, mode in {0o000: 0o640, 0o022: 0o640, 0o077: 0o600}.items():
            os.umask(umask)
            new = tmp_path / f"{umask:o}.log"
            open_log(str(new), "info")
            assert stat.S_IMODE(new.stat().st_mode) == mode
        old = tmp_path / "old.log"
        old.touch()
        old.chmod(0o604)
        open_log(str(old), "info")
        assert stat.S_IMODE(old.stat().st_mode) == 0o604
    finally:
        os.umask(before)


# A line for each connection


def ended(daemon: Daemon, times: int = 1) -> list[str]:
    """Wait for the lines of connections that ended; return them without time and address."""
    lines = daemon.logs(" ended: ", times)
    head = rf"{STAMP} (info|debug): connection 127\.0\.0\.1:\d+ ended: "
    assert all(re.match(head, line) for line in lines), lines
    return [re.sub(r"seconds=\d+\.\d{3} ", "", line.split(" ended: ")[1]) for line in lines]


def test_each_connection_has_one_line_when_it_ends(daemon: Daemon) -> None:
    asked = {
        b"SOMA 2 2\nDIV 1 0\n": "requests=2 errors=1 how=closed",
        b"PING\nQUIT\nSOMA 2 2\n": "requests=2 errors=0 how=quit",
        b"\n": "requests=0 errors=0 how=closed",
        b"SOMA 2 2\n" * 1000: "requests=1000 errors=0 how=closed",
        b"SOMA 2 2\n\x04": "requests=1 errors=0 how=ctrl-d",
        b"SOMA 2 2\n\xff\xf4": "requests=1 errors=0 how=interrupted",
        b"1" * 16385 + b"\n": "requests=1 errors=1 how=line-too-long",
    }
    for requests in asked:
        daemon.ask(requests)
    assert ended(daemon, len(asked)) == list(asked.values())
    assert daemon.stop() == 0
    assert daemon.log.count("connection 127.0.0.1:") == len(asked)


def test_the_line_has_the_clients_address(daemon: Daemon) -> None:
    with daemon.connect() as client:
        host, port = client.getsockname()
        client.sendall(b"\n")
    daemon.logs(rf"info: connection {host}:{port} ended: requests=0 errors=0 seconds=\d\.\d+ how=")


def test_a_connection_with_nothing_but_pings_is_logged_at_debug(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    configured = Configured(start_daemon, tmp_path)
    daemon = configured.daemon
    assert daemon.ask(b"PING\nping\n") == b"PONG\nPONG\n"
    assert daemon.ask(b"PING\nSOMA 2 2\n") == b"PONG\n4\n"
    assert ended(daemon) == ["requests=2 errors=0 how=closed"]
    configured.reload("log_level = debug")
    assert daemon.ask(b"PING\n") == b"PONG\n"
    assert ended(daemon, 2)[1] == "requests=1 errors=0 how=closed"
    assert len(daemon.logs("debug: connection .* ended: ")) == 1


PROBES: dict[str, Callable[[socket.socket], None]] = {
    "closed": socket.socket.close,
    "reset": reset_and_close,
}


@pytest.mark.parametrize("how", PROBES)
@pytest.mark.parametrize("scheme", ["tcp", "tls", "unix"])
def test_a_probe_that_sends_nothing_is_logged_at_debug(
    start_daemon: Daemons, tmp_path: Path, scheme: str, how: str
) -> None:
    """Load balancers connect, and close or reset the connection without a byte."""
    server = stored("server")
    certificate = ("--tls-certificate", str(server.cert), "--tls-key", str(server.key))
    urls = ("tcp://127.0.0.1:0", "tls://127.0.0.1:0", f"unix://{tmp_path}/calcd.sock")
    endpoints = [option for url in urls for option in ("-l", url)]
    for level, shown in ("info", 0), ("debug", 1):
        daemon = start_daemon(*endpoints, *certificate, "--log-level", level)
        if scheme == "unix":
            probe = socket.socket(socket.AF_UNIX)
            probe.connect(f"{tmp_path}/calcd.sock")
            how = "closed"  # a Unix socket knows no reset of its own
        else:
            probe = socket.create_connection(("127.0.0.1", daemon.port_of(scheme)), TIMEOUT)
        PROBES[how](probe)
        assert daemon.stop() == 0  # what waits in the queue is served before
        line = rf"connection \S+ ended: requests=0 errors=0 seconds=\S+ how={how}"
        assert len(re.findall(f" debug: {line}", daemon.log)) == shown
        assert len(re.findall(line, daemon.log)) == shown


def test_a_client_that_sent_something_or_stayed_is_no_probe(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.05")
    with daemon.connect() as silent:
        assert read_all(silent) == b""
    daemon.logs("info: connection .* requests=0 errors=0 .* how=idle-timeout")
    for start in b"\n", b"\xef\xbb\xbf", b"SOMA", b"\xff\xf1":
        with daemon.connect() as client:
            client.sendall(start)
            client.shutdown(socket.SHUT_WR)
            read_all(client)
    daemon.logs("info: connection .* ended: .* how=closed", 4)
    with daemon.connect() as client:
        client.sendall(b"\n")
        reset_on_close(client)
    daemon.logs("info: connection .* ended: .* how=reset")


def test_at_debug_starts_and_requests_are_shown(start_daemon: Daemons) -> None:
    daemon = start_daemon("--log-level", "debug")
    with daemon.connect() as client:
        host, port = client.getsockname()
        client.sendall(b"SOMA 2 2\r\nfoo\n")
        client.shutdown(socket.SHUT_WR)
        read_all(client)
    daemon.logs("ended:")
    shown = re.findall(rf"debug: connection {host}:{port}:? (.*)", daemon.log)
    assert shown[:2] == ["opened: open=1", "'SOMA 2 2' -> '4'"]
    assert shown[2].startswith("'foo' -> 'ERR UNKNOWN-OPERATION ")


def test_what_a_client_sends_is_shown_escaped_and_cut(start_daemon: Daemons) -> None:
    daemon = start_daemon("--log-level", "debug")
    daemon.ask(b"\x1b[2J\r2001-01-01 info: forged\nUPPER \xc3\xa9\x00\n" + b"x" * 1000 + b"\n")
    daemon.logs("ended:")
    assert daemon.log.replace("\n", "").isprintable()
    lines = daemon.log.splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    assert max(map(len, (line for line in lines if " -> " in line))) < 250
    requests = re.findall(r"debug: connection \S+: ('.*') -> ", daemon.log)
    assert requests == [
        r"'\x1b[2J\r2001-01-01 info: forged'",
        r"'UPPER é\x00'",
        f"'{'x' * 40}...'",
    ]


# A reload


@pytest.mark.parametrize("line", ["", "nonsense"], ids=["settings right", "settings wrong"])
def test_a_reload_reopens_the_file(
    start_daemon: Daemons, tmp_path: Path, path: Path, line: str
) -> None:
    daemon_and_file = Configured(start_daemon, tmp_path, f"log_to = {path}")
    old = path.rename(tmp_path / "calcd.log.1")
    assert not path.exists()
    daemon_and_file.reload(f"log_to = {path}", line)
    assert "settings in force: " in path.read_text()
    before = old.read_text()
    assert re.search("listening on tcp://127.0.0.1:", before)
    endpoint = re.search(r"tcp://127\.0\.0\.1:(\d+)\n", before)
    assert endpoint
    with socket.create_connection(("127.0.0.1", int(endpoint[1])), TIMEOUT) as client:
        client.sendall(b"QUIT\n")
        assert read_all(client) == b"BYE\n"
    wait_until(lambda: " ended: " in path.read_text(), "the connection's line")
    assert old.read_text() == before


def test_a_log_that_cannot_be_reopened_stays_where_it_is(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    configured = Configured(start_daemon, tmp_path)
    configured.reload(f"log_to = {tmp_path}/none/calcd.log", "precision = 3")
    assert configured.daemon.ask(b"DIV 1 3\n") == b"0." + b"3" * 34 + b"\n"  # all or nothing
    configured.daemon.logs("error: reload: the settings stay as they were")
    configured.daemon.logs(
        r"error: reload: .*log_to: cannot write the log .*No such file or directory: name"
    )
    assert "log_to=stderr " in configured.daemon.logs("settings in force", 2)[1]


def test_a_reload_changes_the_level(start_daemon: Daemons, tmp_path: Path) -> None:
    configured = Configured(start_daemon, tmp_path, "log_level = error")
    daemon = configured.daemon
    assert daemon.log == ""
    configured.reload("log_level = info")
    daemon.logs("info: settings in force: ")
    configured.reload("log_level = warning")
    lines = len(daemon.log.splitlines())
    assert daemon.stop() == 0
    assert len(daemon.log.splitlines()) == lines


def test_wrong_settings_leave_the_old_ones_in_force(start_daemon: Daemons, tmp_path: Path) -> None:
    configured = Configured(start_daemon, tmp_path, "precision = 3")
    configured.reload("precision = 4", "max_line = 0", "idle_time = 3")
    told = [line.split(" error: ")[1] for line in configured.daemon.logs(" error: ", 3)]
    assert told == [
        f"reload: {configured.file}:4: max_line: '0': "
        "expected a whole number from 1 to 1048576, in digits",
        f"reload: {configured.file}:5: idle_time: "
        "there is no such setting: do you mean idle_timeout?",
        "reload: the settings stay as they were",
    ]
    assert configured.daemon.ask(b"DIV 2 3\n") == b"0.667\n"


def test_a_reload_reports_settings_that_need_a_restart(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    configured = Configured(start_daemon, tmp_path)
    configured.reload(
        *("listen = tcp://127.0.0.1:1", "reuse_port = yes", f"pidfile = {tmp_path}/pid"),
        *("user = nobody", "group = nogroup", "precision = 3"),
    )
    told = [line.partition(" warning: ")[2] for line in configured.daemon.logs(" warning: ", 3)]
    assert told == [
        f"reload: {configured.file}:5: user: has no effect without -d",
        f"reload: {configured.file}:6: group: has no effect without -d",
        "reload: a restart is needed to change listen, reuse_port, pidfile",
    ]
    in_force = configured.daemon.logs("settings in force", 2)[1]
    assert "listen=tcp://127.0.0.1:0 " in in_force
    assert " reuse_port=no " in in_force
    assert " precision=3 " in in_force
    assert in_force.endswith(" pidfile= user= group=")
    assert configured.daemon.ask(b"DIV 2 3\n") == b"0.667\n"


def test_new_settings_are_for_new_connections_and_cut_none(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    configured = Configured(start_daemon, tmp_path, "precision = 3", "idle_timeout = 0")
    with configured.daemon.connect() as before:
        before.sendall(b"DIV 2 3\n")
        assert before.recv(100) == b"0.667\n"
        configured.reload("precision = 5", "idle_timeout = 1", "max_connections = 2")
        with configured.daemon.connect() as after:
            after.sendall(b"DIV 2 3\n")
            assert read_all(after) == b"0.66667\n"  # and it is closed, for it was idle
        before.sendall(b"DIV 2 3\n")
        assert before.recv(100) == b"0.667\n"
        before.shutdown(socket.SHUT_WR)
        assert read_all(before) == b""
    assert ended(configured.daemon, 2) == [
        "requests=1 errors=0 how=idle-timeout",
        "requests=2 errors=0 how=closed",
    ]


def test_a_new_limit_holds_at_once(start_daemon: Daemons, tmp_path: Path) -> None:
    configured = Configured(start_daemon, tmp_path)
    with configured.daemon.connect() as one, configured.daemon.connect() as two:
        for client in one, two:
            client.sendall(b"PING\n")
            assert client.recv(100) == b"PONG\n"
        configured.reload("max_connections = 1")
        with configured.daemon.connect() as refused:
            assert read_all(refused).startswith(b"ERR BUSY ")
        for client in one, two:
            client.sendall(b"PING\n")
            assert client.recv(100) == b"PONG\n"


# The rate limit


def refuse_many(daemon_log_level: str, start_daemon: Daemons) -> str:
    daemon = start_daemon("--allow", "127.0.0.2", "--log-level", daemon_log_level)
    for _ in range(3 * BURST):
        with daemon.connect() as refused:
            assert refused.recv(100).startswith(b"ERR FORBIDDEN ")
    assert daemon.stop() == 0
    return daemon.log


def test_a_daemon_that_stops_reports_suppressed_lines(start_daemon: Daemons) -> None:
    log = refuse_many("info", start_daemon)
    shown = len(re.findall(r"info: connection \S+ ended: .* how=forbidden", log))
    told = re.findall(r"info: (\d+) lines? suppressed in the last \d+ s, such as: connection", log)
    assert BURST <= shown < 2 * BURST
    assert shown + sum(map(int, told)) == 3 * BURST


def test_at_debug_there_is_no_limit(start_daemon: Daemons) -> None:
    log = refuse_many("debug", start_daemon)
    assert log.count("how=forbidden") == 3 * BURST
    assert "suppressed" not in log


def test_a_served_client_always_has_a_line_and_others_are_limited(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    asked = {b"SOMA 1 1\nDIV 1 0\n": b"2\nERR", b"DIV 1 0\n": b"ERR", b"\n": b""}
    for requests, replies in asked.items():
        for _ in range(3 * BURST):
            assert daemon.ask(requests).startswith(replies)
    assert daemon.stop() == 0
    assert daemon.log.count("requests=2 errors=1 ") == 3 * BURST
    assert daemon.log.count("requests=1 errors=1 ") < 2 * BURST
    assert daemon.log.count("requests=0 errors=0 ") < BURST
