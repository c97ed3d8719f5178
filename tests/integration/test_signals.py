"""Signals: stop, reload, and ignored signals."""

import os
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
from helpers import TIMEOUT, Daemon, Daemons, bytes_unacked, read_all, wait_until


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


def test_request_without_a_newline_is_answered(start: Start) -> None:
    daemon = start("--message-wait", "60")
    with daemon.connect() as client:
        client.sendall(b"SOMA 2 2")
        daemon.signal(signal.SIGTERM)
        assert read_all(client) == b"4\n"
    assert daemon.stops_within(TIMEOUT)


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


def test_more_signals_do_not_change_a_stop(start_daemon: Daemons) -> None:
    # timeout(1) alone sends SIGTERM twice, and who has to wait has drain_timeout.
    daemon = start_daemon("--drain-timeout", "60")
    with daemon.connect() as client:
        send_until_nobody_reads(client)
        daemon.process.terminate()
        daemon.logs("stopping: SIGTERM")
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            daemon.process.send_signal(signum)
        replies = read_all(client)
    assert replies == LONG_REPLY * (len(replies) // len(LONG_REPLY)) != b""
    assert daemon.process.wait(TIMEOUT) == 0
    assert daemon.logs("stopped: 0 connections cut")


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
