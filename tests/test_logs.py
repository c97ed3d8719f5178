"""The log: where it goes, what its lines are like, and what a reload changes."""

import io
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PATIENCE, Daemon, Daemons, clean_environment, read_all, wait_until

from calcd import logs
from calcd.logs import open_log, syslog_answers

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"

log = logging.getLogger("calcd.test")


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    """Give the tests' own log back, where one of them opened the daemon's."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    if before := logs._STREAM.setStream(io.StringIO()):
        before.close()


class Configured:
    """A daemon and its file of settings."""

    def __init__(self, start_daemon: Daemons, directory: Path, *lines: str) -> None:
        self.file = directory / "calcd.conf"
        self.write(*lines)
        self.daemon = start_daemon("-c", str(self.file))
        self._reloads = 0

    def write(self, *lines: str) -> None:
        listen = [] if any("listen" in line for line in lines) else ["listen = tcp://127.0.0.1:0"]
        self.file.write_text("\n".join(["[calcd]", *listen, *lines]) + "\n")

    def reload(self, *lines: str) -> None:
        """Let the daemon read these settings, and wait until it has."""
        self.write(*lines)
        self.daemon.notified.received.clear()
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.notified.has("READY=1"), "the end of the reload")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calcd.log"


# Places


def test_on_stderr_each_line_has_the_time_and_the_level(daemon: Daemon) -> None:
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
    daemon.logs("ended:")
    assert daemon.stop() == 0
    for line in daemon.log.splitlines():
        assert re.match(rf"{STAMP} (info|warning): \S", line), line


def test_in_the_journal_each_line_has_its_priority_and_no_time(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    """JOURNAL_STREAM names the very file that stderr is: here the daemon's log file."""
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
    assert "<4>user and group have no effect without -d" in lines
    assert [line for line in lines if re.fullmatch(r"<7>connection \S+: 'SOMA 2 2' -> '4'", line)]
    assert all(re.match(r"<[2-7]>\S", line) for line in lines)


def test_another_stderr_than_the_journals_has_time_stamps(start_daemon: Daemons) -> None:
    """A program that systemd started has sent its stderr, and ours, elsewhere."""
    daemon = start_daemon(JOURNAL_STREAM="1:2")
    assert re.match(rf"{STAMP} info: calcd ", daemon.log)


def test_what_keeps_it_from_starting_has_its_priority_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stderr:
        status = path.stat()
        ended = subprocess.run(
            [sys.executable, "-m", "calcd", "--precision", "0"],
            env=clean_environment(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}"),
            stderr=stderr,
            timeout=PATIENCE,
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
    first, *rest, last_but_one, last = path.read_text().splitlines()
    assert (first, rest[0]) == ("<3>a bug", "<3>| Traceback (most recent call last):")
    assert last_but_one == "<3>| ValueError: a client's"
    assert last == r"<3>| <0>words\x1b[2J"
    assert all(line.startswith("<3>| ") for line in rest)


def test_no_message_forges_a_line(path: Path) -> None:
    open_log(str(path), "info")
    log.info("a\n2001-01-01 00:00:00,000 info: forged\x1b[2J %s", "\r\u2028é\ud800")
    (line,) = path.read_text().splitlines()
    assert line.endswith(r"info: a\n2001-01-01 00:00:00,000 info: forged\x1b[2J \r\u2028\xe9\ud800")
    log.info("as it is: é €")
    assert path.read_text().endswith("info: as it is: é €\n")


def test_a_file_is_written_on(path: Path) -> None:
    path.write_text("from before\n")
    open_log(str(path), "info")
    log.info("new")
    assert re.fullmatch(rf"from before\n{STAMP} info: new\n", path.read_text())


def test_the_level_is_the_least_that_is_shown(path: Path) -> None:
    for level, shown in {"debug": 4, "info": 3, "warning": 2, "error": 1}.items():
        path.write_text("")
        open_log(str(path), level)
        for least in logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR:
            log.log(least, "x")
        assert len(path.read_text().splitlines()) == shown


def test_a_file_that_cannot_be_opened_leaves_the_log_where_it_was(path: Path) -> None:
    open_log(str(path), "info")
    with pytest.raises(FileNotFoundError):
        open_log(str(path.parent / "none" / "calcd.log"), "debug")
    log.info("still here")
    log.debug("no more than before")
    assert path.read_text().endswith("info: still here\n")


def test_no_record_is_lost_or_cut_while_the_log_is_opened_anew(tmp_path: Path) -> None:
    """Four threads log all the time, as the file changes under them."""
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
    lines = [line for path in paths for line in path.read_text().splitlines()]
    records = [line.split(" info: ")[1] for line in lines]
    assert len(records) == len(set(records)) == 2000
    assert all(re.fullmatch(r"thread=\d record=\d+\.", record) for record in records)


# A syslog


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the path where the syslog is to listen that a test makes."""
    path = tmp_path / "log"
    monkeypatch.setattr(logs, "SYSLOG", str(path))
    return path


def syslogd(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(PATIENCE)
    return listener


def test_syslog_gets_each_line_with_its_priority(syslog: Path) -> None:
    with syslogd(syslog) as listener:
        assert syslog_answers()
        open_log("syslog", "info")
        log.info("é")
        assert listener.recv(1000).decode() == f"<30>calcd[{os.getpid()}]: é"
        log.error("x", exc_info=KeyError("y"))
        assert listener.recv(1000).decode() == f"<27>calcd[{os.getpid()}]: x\n| KeyError: 'y'"


def test_a_syslog_that_is_missing_is_told_on_stderr_and_what_it_missed_to_itself(
    syslog: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not syslog_answers()
    open_log("syslog", "info")
    log.info("one")
    log.info("two")
    assert capfd.readouterr().err == (
        "calcd: cannot write the log: No such file or directory: lines are lost until it can\n"
    )
    with syslogd(syslog) as listener:
        log.info("three")
        assert listener.recv(1000).endswith(b": three")
        assert listener.recv(1000).endswith(b": 2 log records were lost before the last one")
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
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"SOMA 2 2\nQUIT\n")
            assert read_all(client) == b"4\nBYE\n"
    assert daemon.stop() == 0
    assert daemon.log == (
        "calcd: cannot write the log: No space left on device: lines are lost until it can\n"
    )


def test_a_disk_that_has_room_again_is_told_what_it_missed(path: Path) -> None:
    """A file's largest size stands for the disk's: it can be changed back."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    open_log(str(path), "info")
    log.info("one")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
        log.info("two")
        log.info("three")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    log.info("four")
    lines = [line[24:] for line in path.read_text().splitlines()]
    told = "warning: 2 log records were lost before the last one"
    assert lines == ["info: one", "info: four", told]


def test_a_stderr_that_cannot_be_written_does_not_stop_the_service(tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    command = f"exec {sys.executable} -m calcd -l unix://{path} 2> /dev/full"
    daemon = Daemon(["sh", "-c", command], tmp_path / "daemon.log")
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"SOMA 2 2\nQUIT\n")
            assert read_all(client) == b"4\nBYE\n"
    finally:
        assert daemon.stop() == 0


# A line for each connection


def ended(daemon: Daemon, times: int = 1) -> list[str]:
    """Wait for the lines of connections that ended; give them without time and address."""
    lines = daemon.logs(" ended: ", times)
    head = rf"{STAMP} (info|debug): connection 127\.0\.0\.1:\d+ ended: "
    assert all(re.match(head, line) for line in lines), lines
    return [re.sub(r"seconds=\d+\.\d{3} ", "", line.split(" ended: ")[1]) for line in lines]


def test_each_connection_has_one_line_when_it_ends(daemon: Daemon) -> None:
    asked = [b"SOMA 2 2\nDIV 1 0\n", b"PING\nQUIT\nSOMA 2 2\n", b"", b"SOMA 2 2\n" * 1000]
    for requests in asked:
        daemon.ask(requests)
    assert ended(daemon, len(asked)) == [
        "requests=2 errors=1 how=closed",
        "requests=2 errors=0 how=quit",
        "requests=0 errors=0 how=closed",
        "requests=1000 errors=0 how=closed",
    ]
    assert daemon.stop() == 0
    assert daemon.log.count("connection 127.0.0.1:") == len(asked)


def test_the_line_has_the_clients_address(daemon: Daemon) -> None:
    with daemon.connect() as client:
        host, port = client.getsockname()
    daemon.logs(rf"info: connection {host}:{port} ended: requests=0 errors=0 seconds=\d\.\d+ how=")


def test_a_connection_that_asked_nothing_but_ping_is_for_debug(
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
    assert daemon.log.isascii()
    assert daemon.log.replace("\n", "").isprintable()
    lines = daemon.log.splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    assert max(map(len, (line for line in lines if " -> " in line))) < 250
    requests = re.findall(r"debug: connection \S+: ('.*') -> ", daemon.log)
    assert requests == [
        r"'\x1b[2J\r2001-01-01 info: forged'",
        r"'UPPER \xc3\xa9\x00'",
        f"'{'x' * 40}...'",
    ]


# A reload


@pytest.mark.parametrize("line", ["", "nonsense"], ids=["settings right", "settings wrong"])
def test_a_reload_opens_the_file_anew(
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
    with socket.create_connection(("127.0.0.1", int(endpoint[1])), PATIENCE) as client:
        client.sendall(b"QUIT\n")
        assert read_all(client) == b"BYE\n"
    wait_until(lambda: " ended: " in path.read_text(), "the connection's line")
    assert old.read_text() == before


def test_a_log_that_cannot_be_opened_anew_stays_where_it_is(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    configured = Configured(start_daemon, tmp_path)
    configured.reload(f"log_to = {tmp_path}/none/calcd.log", "precision = 3")
    assert configured.daemon.ask(b"DIV 1 3\n") == b"0." + b"3" * 34 + b"\n"  # all or nothing
    configured.daemon.logs("error: reload: the settings stay as they were")
    configured.daemon.logs(r"error: reload: cannot write the log: .*No such file or directory: '/")
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


def test_a_restart_is_asked_for_where_one_is_needed(start_daemon: Daemons, tmp_path: Path) -> None:
    configured = Configured(start_daemon, tmp_path)
    configured.reload(
        *("listen = tcp://127.0.0.1:1", "reuse_port = yes", f"pidfile = {tmp_path}/pid"),
        *("user = nobody", "group = nogroup", "precision = 3"),
    )
    (line,) = configured.daemon.logs(" warning: ")
    assert line.endswith(
        "reload: a restart is needed to change listen, reuse_port, pidfile, user, group"
    )
    in_force = configured.daemon.logs("settings in force", 2)[1]
    assert "listen=tcp://127.0.0.1:0 " in in_force
    assert " reuse_port=no precision=3 " in in_force
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
