"""Signals: stop, reload, and ignored signals."""

import os
import re
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from background_daemon import Background
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    bytes_unacked,
    connect_with_little_room,
    read_all,
    run_calcd,
    wait_until,
)
from helpers import (
    ask as ask_all,
)


@dataclass
class Running:
    """A daemon, in the foreground or in the background."""

    pid: int
    connect: Callable[[], socket.socket]
    has_stopped: Callable[[], bool]  # as asked
    read_log: Callable[[], str]

    def signal(self, *signals: int) -> None:
        for each in signals:
            os.kill(self.pid, each)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop the process, so that it gets all that comes meanwhile at once."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def stops_within(self, seconds: float) -> bool:
        try:
            wait_until(self.has_stopped, "the stop", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log ends with {self.read_log()[-1000:]}") from None
        return True


Start = Callable[..., Running]


@pytest.fixture(params=["foreground", "background"])
def start(request: pytest.FixtureRequest, start_daemon: Daemons, background: Background) -> Start:
    """Start a daemon with options; each test runs in foreground and background."""

    def in_the_foreground(*options: str) -> Running:
        daemon = start_daemon(*options)
        return Running(
            daemon.process.pid,
            daemon.connect,
            lambda: daemon.process.poll() == 0,
            lambda: daemon.log,
        )

    def in_the_background(*options: str) -> Running:
        background.serve(*options)
        return Running(
            background.pid,
            background.connect,
            lambda: not background.processes() and "stopped: " in background.log,
            lambda: background.log,
        )

    return in_the_foreground if request.param == "foreground" else in_the_background


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Send a request; return its reply."""
    connection.sendall(request)
    return connection.recv(1000)


def sums(first: int, last: int) -> bytes:
    return b"".join(b"SOMA %d 1\n" % number for number in range(first, last))


# A stop


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_idle_clients_do_not_hold_up_a_stop(signum: int, start: Start) -> None:
    daemon = start("--drain-timeout", "60")
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(5)]
        assert [ask(client, b"PING\n") for client in clients] == [b"PONG\n"] * 5
        daemon.signal(signum)
        assert daemon.stops_within(TIMEOUT)
        assert [client.recv(1) for client in clients] == [b""] * 5


def test_what_has_arrived_is_answered(start: Start) -> None:
    daemon = start()
    with daemon.connect() as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        with daemon.held():
            client.sendall(sums(0, 1000))
            daemon.signal(signal.SIGTERM)
        assert read_all(client) == b"".join(b"%d\n" % (number + 1) for number in range(1000))
    assert daemon.stops_within(TIMEOUT)


def test_clients_not_accepted_yet_are_answered(start: Start) -> None:
    daemon = start()
    with ExitStack() as stack:
        with daemon.held():
            clients = [stack.enter_context(daemon.connect()) for _ in range(20)]
            for client in clients:
                client.sendall(b"SOMA 2 2\n")
            daemon.signal(signal.SIGTERM)
        assert [read_all(client) for client in clients] == [b"4\n"] * 20
    assert daemon.stops_within(TIMEOUT)


def test_requests_without_a_newline_are_answered_and_counted(start: Start) -> None:
    daemon = start("--message-wait", "60")
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(3)]
        for client in clients:
            client.sendall(b"SOMA 2 2")
        daemon.signal(signal.SIGTERM)
        assert [read_all(client) for client in clients] == [b"4\n"] * 3
    assert daemon.stops_within(TIMEOUT)
    assert "stopped: 0 connections cut, 3 requests answered during the drain" in daemon.read_log()


def test_client_that_keeps_sending_sees_whole_replies_and_an_end(start: Start) -> None:
    daemon = start()
    with daemon.connect() as client:
        received = b"".join(asking_on(client, lambda: daemon.signal(signal.SIGTERM)))
    assert received.endswith(b"\n")
    numbers = [int(reply) for reply in received.split()]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert daemon.stops_within(TIMEOUT)


def asking_on(client: socket.socket, when_answered: Callable[[], None]) -> Iterator[bytes]:
    """Send sums without a pause, until the server ends; yield what comes back.

    ``when_answered`` is called when the first reply has come. A reset is an error.
    """
    client.setblocking(False)
    numbers = count()
    unsent = b""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while events := selector.select(TIMEOUT):
            if events[0][1] & selectors.EVENT_READ:
                received = client.recv(1 << 16)
                if not received:
                    return
                when_answered()
                when_answered = lambda: None  # noqa: E731
                yield received
            else:
                unsent = unsent or b"".join(b"SOMA %d 1\n" % next(numbers) for _ in range(100))
                unsent = unsent[client.send(unsent) :]
    pytest.fail("the server neither reads nor ends")


LONG_REQUEST, LONG_REPLY = b"UPPER " + b"a" * 1000 + b"\n", b"A" * 1000 + b"\n"


def send_until_nobody_reads(client: socket.socket) -> None:
    """Ask without reading, until the server does not read either: nobody takes its replies."""
    client.settimeout(0.2)
    unsent = b""
    with suppress(TimeoutError):
        while True:
            unsent = unsent or LONG_REQUEST * 100
            unsent = unsent[client.send(unsent) :]
    client.settimeout(TIMEOUT)


def test_client_that_never_reads_is_cut_in_the_end(start: Start) -> None:
    daemon = start("--drain-timeout", "0.5")
    with daemon.connect() as client:
        send_until_nobody_reads(client)
        daemon.signal(signal.SIGTERM)
        assert daemon.stops_within(TIMEOUT)
    assert " how=cut\n" in daemon.read_log()
    assert "stopped: 1 connections cut" in daemon.read_log()


def test_client_that_asks_on_before_it_reads_loses_no_reply(start_daemon: Daemons) -> None:
    daemon = start_daemon("--drain-timeout", "60")
    with daemon.connect() as client:
        client.sendall(LONG_REQUEST * 100)
        wait_until(lambda: not bytes_unacked(client), "the requests to arrive")
        daemon.process.terminate()
        daemon.logs("stopping: ")
        for _ in range(20):
            client.sendall(LONG_REQUEST)
            time.sleep(0.01)
        replies = read_all(client)
    assert replies == LONG_REPLY * (len(replies) // len(LONG_REPLY))
    assert len(replies) >= 100 * len(LONG_REPLY)
    assert daemon.process.wait(TIMEOUT) == 0


def test_two_stops_that_come_together_are_one(start: Start) -> None:
    """timeout(1) alone sends SIGTERM twice."""
    daemon = start("--drain-timeout", "60")
    with daemon.connect() as client:
        send_until_nobody_reads(client)
        with daemon.held():
            daemon.signal(signal.SIGTERM, signal.SIGINT)
        replies = read_all(client)
    assert replies == LONG_REPLY * (len(replies) // len(LONG_REPLY)) != b""
    assert daemon.stops_within(TIMEOUT)
    assert "stopping: SIGINT" in daemon.read_log()
    assert "stopped: 0 connections cut" in daemon.read_log()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_stop_ends_the_drain_at_once(signum: int, start: Start) -> None:
    daemon = start("--drain-timeout", "3600")
    with daemon.connect() as client:
        send_until_nobody_reads(client)
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: SIGTERM" in daemon.read_log(), "the stop")

        def has_stopped() -> bool:
            with suppress(ProcessLookupError):
                daemon.signal(signum)
            return daemon.has_stopped()

        wait_until(has_stopped, "the stop")
    told = f"stopping at once: a second signal, {signal.Signals(signum).name}"
    assert told in daemon.read_log()
    assert re.search(r"warning: stopped: 1 connections cut, \d+ requests", daemon.read_log())


def test_a_second_stop_does_not_wait_for_a_client_that_lingers(start_daemon: Daemons) -> None:
    """Its replies are sent, but it takes none of them."""
    daemon = start_daemon("--drain-timeout", "3600")
    with connect_with_little_room((daemon.host, daemon.port)) as client:
        client.sendall(40 * LONG_REQUEST)
        wait_until(lambda: not bytes_unacked(client), "the requests to arrive")
        daemon.process.terminate()
        daemon.logs(" how=stopped")

        def has_stopped() -> bool:
            daemon.process.send_signal(signal.SIGTERM)
            return daemon.process.poll() is not None

        wait_until(has_stopped, "the stop")
    assert daemon.process.returncode == 0
    daemon.logs("stopped: 0 connections cut")


def test_signals_of_no_stop_do_not_change_a_stop(start: Start) -> None:
    daemon = start("--drain-timeout", "60")
    with daemon.connect() as client:
        send_until_nobody_reads(client)
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: SIGTERM" in daemon.read_log(), "the stop")
        daemon.signal(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        wait_until(lambda: "SIGUSR2: settings in force" in daemon.read_log(), "the answer")
        replies = read_all(client)
    assert replies == LONG_REPLY * (len(replies) // len(LONG_REPLY)) != b""
    assert daemon.stops_within(TIMEOUT)
    assert "reloading" not in daemon.read_log()
    assert "stopped: 0 connections cut" in daemon.read_log()


def test_a_reload_during_a_stop_fails(background: Background) -> None:
    background.serve("--drain-timeout", "60")
    with background.connect() as client:
        send_until_nobody_reads(client)
        os.kill(background.pid, signal.SIGTERM)
        wait_until(lambda: "stopping: SIGTERM" in background.log, "the stop")
        assert background.act("reload") == (1, "", "calcd: calcd is stopping\n")
        assert background.act("reopen") == (0, "", "")
        read_all(client)
    wait_until(lambda: not background.processes(), "the stop")


def test_stop_during_the_start_releases_everything(background: Background) -> None:
    with background.paused_start() as daemon:
        daemon.terminate()
        background.resume_start()
        assert daemon.communicate(timeout=TIMEOUT) == ("", "")
    assert daemon.returncode == 0
    assert "stopping: SIGTERM" in background.log
    assert list(background.pidfile.parent.iterdir()) == []


# A reload


def test_many_reloads_disturb_no_client(background: Background) -> None:
    background.serve()
    reloads_are_over = threading.Event()
    replies: list[bytes] = []

    def keep_asking() -> None:
        with background.connect() as client:
            while not reloads_are_over.is_set():
                replies.append(ask(client, b"DIV 1 8\n"))

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            os.kill(background.pid, signal.SIGHUP)
            time.sleep(0.002)  # so that they are not all taken for one
        wait_until(lambda: background.log.count("settings in force") > 1, "a reload")
        wait_until(lambda: len(replies) > 100, "replies")
    finally:
        reloads_are_over.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert set(replies) == {b"0.125\n"}
    assert background.act("stop") == (0, "", "")


def test_sigusr1_opens_the_log_again(start_daemon: Daemons, tmp_path: Path) -> None:
    log, file = tmp_path / "calcd.log", tmp_path / "calcd.conf"
    file.write_text(f"[calcd]\nlisten = tcp://127.0.0.1:0\nlog_to = {log}\nprecision = 3\n")
    daemon = start_daemon("-c", str(file))
    url = re.findall(r"listening on tcp://(\S+):(\d+)", log.read_text())[0]
    log.rename(tmp_path / "old.log")
    file.write_text("[calcd]\nprecision = none\n")  # which it does not read
    daemon.process.send_signal(signal.SIGUSR1)
    wait_until(log.exists, "the new log")
    with socket.create_connection((url[0], int(url[1])), TIMEOUT) as client:
        assert ask(client, b"DIV 1 3\n") == b"0.333\n"
    wait_until(lambda: " ended: requests=1 " in log.read_text(), "the connection's line")
    assert "SIGUSR1: the log is open again" in log.read_text()
    assert " ended: " not in (tmp_path / "old.log").read_text()


def test_a_log_that_cannot_be_opened_again_stays(background: Background) -> None:
    directory = background.directory / "logs"
    directory.mkdir()
    log = directory / "calcd.log"
    with background.command("-d", "-l", "tcp://127.0.0.1:0", "--log-to", log) as start:
        assert start.wait(TIMEOUT) == 0
    moved = directory.rename(background.directory / "moved") / "calcd.log"
    status, _, told = background.act("reopen")
    assert status == 1
    assert told == (
        f"calcd: --log-to: cannot write the log {log}: No such file or directory: "
        "name another with --log-to\n"
    )
    assert f"error: the log stays as it was: --log-to: cannot write the log {log}" in (
        moved.read_text()
    )


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_sigusr2_logs_the_settings_in_force_at_any_level(level: str, start_daemon: Daemons) -> None:
    daemon = start_daemon("--log-level", level)
    daemon.process.send_signal(signal.SIGUSR2)
    daemon.logs(f" {level}: SIGUSR2: settings in force: listen=.* log_level={level} ")
    assert daemon.stop() == 0


def test_workers_take_no_signals_of_the_daemon(start: Start) -> None:
    """A Ctrl-C, a hangup or a systemctl kill signals all processes, and a drain needs the jobs."""
    daemon = start("--precision", "1000")
    with daemon.connect() as client:
        assert ask_all(client, b"EXP 0.1234\n").startswith(b"1.1313")
        (worker,) = [
            int(child)
            for task in Path(f"/proc/{daemon.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
        for name in names:
            os.kill(worker, signal.Signals[name])
        found = re.search(r"^SigBlk:\s*(\w+)$", Path(f"/proc/{worker}/status").read_text(), re.M)
        assert found
        blocked = {each.name for each in signal.Signals if int(found[1], 16) >> each - 1 & 1}
        assert blocked == {*names}
        assert ask_all(client, b"EXP 0.1234\n").startswith(b"1.1313")
        assert Path(f"/proc/{worker}").exists()


# Ignored signals


@contextmanager
def ignoring(signum: int, directory: Path) -> Iterator[Daemon]:
    """Run a daemon in the foreground that was started with a signal ignored."""
    code = f"import signal; signal.signal({signum:d}, signal.SIG_IGN)\n"
    code += "import sys, calcd.daemon.main; sys.exit(calcd.daemon.main.main())"
    command = [sys.executable, "-c", code, "-l", "tcp://127.0.0.1:0"]
    daemon = Daemon(command, directory / "daemon.log")
    try:
        yield daemon
    finally:
        daemon.process.terminate()
        daemon.stop()


def test_background_job_of_a_shell_ignores_sigint(tmp_path: Path) -> None:
    with ignoring(signal.SIGINT, tmp_path) as daemon:
        daemon.process.send_signal(signal.SIGINT)  # of two signals the lower number comes first
        assert daemon.stop(signal.SIGTERM) == 0
        assert "SIGTERM" in daemon.logs("stopping: ")[0]


def test_nohup_ignores_sighup(tmp_path: Path) -> None:
    with ignoring(signal.SIGHUP, tmp_path) as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.stop(signal.SIGTERM) == 0
        assert len(daemon.logs("settings in force")) == 1


def test_a_reload_of_a_daemon_that_ignores_sighup_fails(tmp_path: Path) -> None:
    with ignoring(signal.SIGHUP, tmp_path) as daemon:
        pid = str(daemon.process.pid)
        done = run_calcd("-s", "reload", MAINPID=pid, INVOCATION_ID="test")
        assert done.returncode == 1
        assert done.stderr == (
            f"calcd: pid {pid} does not take SIGHUP: it was started with the signal ignored, or is "
            "an older version of calcd\n"
        )


def test_with_d_no_signal_is_ignored(background: Background) -> None:
    # It has its own session, so it gets no signals of a terminal that it should ignore.
    for_one = "import signal; signal.signal({:d}, signal.SIG_IGN)"
    background.serve(code="\n".join(map(for_one.format, (signal.SIGHUP, signal.SIGINT))))
    assert background.act("reload") == (0, "", "")
    wait_until(lambda: background.log.count("settings in force") == 2, "the reload")
    os.kill(background.pid, signal.SIGINT)
    wait_until(lambda: not background.processes(), "the stop")
    assert "stopping: SIGINT" in background.log


# A bug


def test_end_of_the_serving_loop_is_status_1(tmp_path: Path) -> None:
    code = """
import sys, calcd.daemon.main
def service_actions(server):
    if server.limiter.active:
        raise RuntimeError("injected")
calcd.daemon.main.Server.service_actions = service_actions
sys.exit(calcd.daemon.main.main())
"""
    daemon = Daemon([sys.executable, "-c", code, "-l", "tcp://127.0.0.1:0"], tmp_path / "log")
    try:
        with daemon.connect() as client:
            client.sendall(b"SOMA 2 2\n")
            assert read_all(client) == b"4\n"
        assert daemon.process.wait(TIMEOUT) == 1
    finally:
        daemon.stop()
    assert daemon.logs("critical: the serving loop ended by a bug")
    assert daemon.logs("RuntimeError: injected")
    assert daemon.logs("stopped: ")
