"""Inherited sockets, sd_notify and the watchdog. The tests play the part of systemd."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    NotifySocket,
    clean_environment,
    request_all,
    wait_until,
)
from listening import needs_ipv6

from calcd.config.endpoints import parse_endpoint
from calcd.config.settings import Settings
from calcd.daemon import refusal
from calcd.daemon.systemd import Notifier, Watchdog
from calcd.net import listeners as module
from calcd.net.clients import Address
from calcd.net.listeners import inherited, listen
from calcd.net.server import Server

# Does what systemd does: makes sockets, moves them to descriptors 3 and on, and becomes calcd.
# LISTEN_PID is the pid that calcd will have, which only this very process knows.
HAND_OVER = """\
#!{python}
import os, socket, sys

def tcp(host="127.0.0.1", family=socket.AF_INET):
    return socket.create_server((host, 0), family=family)

def udp(host="127.0.0.1", family=socket.AF_INET):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock

def unix(path, kind=socket.SOCK_STREAM):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    if kind != socket.SOCK_DGRAM:
        sock.listen()
    return sock

files = {files}
for fd, file in enumerate(files, start=3):
    copy = os.dup2(file.fileno(), fd + 100)
for fd in range(3, 3 + len(files)):
    os.dup2(fd + 100, fd)
os.environ.update(LISTEN_PID={pid}, LISTEN_FDS={count}, LISTEN_FDNAMES={names!r})
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""

WRONG_KIND = (
    "is neither a listening stream socket nor a UDP socket: its unit needs ListenStream= and "
    "Accept=no, or ListenDatagram= with a port"
)


class HandOver:
    """Writes programs that stand for Python, and hand sockets to the calcd they run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(
        self, *files: str, pid: str = "str(os.getpid())", count: str = "", names: str = ""
    ) -> str:
        """Hand over what the expressions ``files`` make; ``pid`` and ``count`` are such, too."""
        script = self._directory / "hand-over"
        script.write_text(
            HAND_OVER.format(
                python=sys.executable,
                files=f"[{', '.join(files)}]",
                pid=pid,
                count=count or repr(str(len(files))),
                names=names or ":".join(["calcd.socket"] * len(files)),
            )
        )
        script.chmod(0o755)
        return str(script)


@pytest.fixture
def hand_over(tmp_path: Path) -> HandOver:
    return HandOver(tmp_path)


def failure(program: str) -> str:
    """Return what a calcd says that cannot run with what it was handed."""
    ended = subprocess.run(
        [program, "-m", "calcd", "-l", "tcp://127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    return ended.stderr.rstrip("\n")


# Inherited sockets


def test_sockets_from_systemd_take_the_place_of_the_setting(
    start_daemon: Daemons, hand_over: HandOver, tmp_path: Path
) -> None:
    path = str(tmp_path / "calcd.sock")
    daemon = start_daemon(
        "-l", f"unix://{tmp_path}/unused", python=hand_over("tcp()", f"unix({path!r})")
    )
    tcp, unix = daemon.logs("listening on", 2)
    assert re.search(
        r"listening on tcp://127\.0\.0\.1:\d+, from systemd in place of the setting$", tcp
    )
    assert unix.endswith(f"listening on unix://{path}, from systemd in place of the setting")
    assert not (tmp_path / "unused").exists()
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(path)
        client.sendall(b"PING\n")
        assert client.recv(100) == b"PONG\n"


@pytest.mark.parametrize(
    ("made", "url", "asked"),
    [
        ("udp()", r"udp://127\.0\.0\.1:\d+", ["127.0.0.1"]),
        ("udp('0.0.0.0')", r"udp://0\.0\.0\.0:\d+", ["127.0.0.1", "127.0.0.2"]),
        pytest.param(
            "udp('::', socket.AF_INET6)",  # for IPv4 too, unless its unit says otherwise
            r"udp://\[::\]:\d+",
            ["127.0.0.1", "127.0.0.2", "::1"],
            marks=needs_ipv6,
        ),
    ],
)
def test_a_udp_socket_from_systemd(
    start_daemon: Daemons, hand_over: HandOver, made: str, url: str, asked: list[str]
) -> None:
    daemon = start_daemon(python=hand_over(made, "tcp()"))
    assert re.fullmatch(url, daemon.endpoints[0])
    assert daemon.ask(b"PING\n") == b"PONG\n"
    for host in asked:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.connect((host, int(daemon.endpoints[0].rpartition(":")[2])))
            client.send(b"SOMA 2 2")
            assert client.recv(100) == b"4\n"


def test_the_file_of_a_socket_from_systemd_stays_at_the_stop(
    start_daemon: Daemons, hand_over: HandOver, tmp_path: Path
) -> None:
    path = tmp_path / "calcd.sock"
    daemon = start_daemon(python=hand_over(f"unix({str(path)!r})"))
    assert daemon.stop() == 0
    assert path.exists()


def test_sockets_for_another_process_are_left_alone(
    start_daemon: Daemons, hand_over: HandOver
) -> None:
    """A process may inherit the environment without the sockets."""
    daemon = start_daemon(python=hand_over("tcp('127.0.0.9')", pid="'1'"))
    (line,) = daemon.logs("listening on")
    assert re.search(r"listening on tcp://127\.0\.0\.1:\d+$", line)


def test_no_sockets_at_all(start_daemon: Daemons, hand_over: HandOver) -> None:
    (line,) = start_daemon(python=hand_over()).logs("listening on")
    assert "from systemd" not in line


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            ["tcp()", "unix('a', socket.SOCK_DGRAM)"],
            f"descriptor 4 {WRONG_KIND}",
        ),
        (
            ["socket.socket()"],
            f"descriptor 3 {WRONG_KIND}",
        ),
        (
            ["unix('a', socket.SOCK_SEQPACKET)"],
            f"descriptor 3 {WRONG_KIND}",
        ),
        (["open('/dev/null')"], "descriptor 3: Socket operation on non-socket"),
    ],
    ids=["datagram", "not listening", "packets", "no socket"],
)
def test_a_descriptor_that_is_no_listening_socket_is_an_error(
    hand_over: HandOver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert failure(hand_over(*files)) == f"calcd: a socket from systemd cannot be used: {reason}"


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        ("'1'", "descriptor 3: Bad file descriptor"),
        ("'one'", "LISTEN_FDS is 'one' and should be a number"),
    ],
)
def test_a_wrong_count_is_an_error(hand_over: HandOver, count: str, reason: str) -> None:
    told = failure(hand_over(count=count))
    assert told == f"calcd: a socket from systemd cannot be used: {reason}"


def test_a_wrong_number_of_names_is_an_error(hand_over: HandOver) -> None:
    assert failure(hand_over("tcp()", "tcp()", names="tls")) == (
        "calcd: a socket from systemd cannot be used: "
        "LISTEN_FDNAMES is 'tls' and should have 2 names"
    )


def test_a_socket_that_is_named_metrics_takes_the_place_of_that_setting(
    start_daemon: Daemons, hand_over: HandOver, tmp_path: Path
) -> None:
    path = str(tmp_path / "metrics.sock")
    program = hand_over("tcp()", "tcp()", f"unix({path!r})", names="calcd.socket:metrics:metrics")
    daemon = start_daemon("--metrics", "http://127.0.0.1:1", python=program)
    _, _, unix = daemon.logs("listening on .*, from systemd in place of the setting$", 3)
    assert f"unix://{path} for metrics," in unix
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", daemon.port_of("http"))),
        (socket.AF_UNIX, path),
    ):
        with socket.socket(family) as client:
            client.settimeout(TIMEOUT)
            client.connect(address)
            answer = request_all(client, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
            assert b"\ncalcd_requests_total 1.0\n" in answer


def test_a_socket_for_metrics_alone_leaves_the_setting_listen(
    start_daemon: Daemons, hand_over: HandOver
) -> None:
    daemon = start_daemon(python=hand_over("tcp()", names="metrics"))
    assert daemon.port_of("http")
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


def test_metrics_are_not_served_over_udp(hand_over: HandOver) -> None:
    assert failure(hand_over("udp()", names="metrics")) == (
        "calcd: a socket from systemd cannot be used: metrics are not served over UDP: its unit "
        "needs ListenStream="
    )


@pytest.mark.parametrize("names", [None, "", "calcd.socket:tls", "TLS:tls"])
def test_a_socket_that_is_named_tls_is_for_tls(
    monkeypatch: pytest.MonkeyPatch, names: str | None
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)
    monkeypatch.setattr(module, "_FIRST_FD", first := 200)
    with ExitStack() as undo:
        for fd in (first, first + 1):
            with socket.create_server(("127.0.0.1", 0)) as server:
                os.dup2(server.fileno(), fd)
        plain, other = inherited()
        for listener in plain, other:
            undo.callback(listener.close)
        assert str(plain.endpoint).startswith("tcp://127.0.0.1:")
        assert (plain.endpoint.tls, other.endpoint.tls) == (False, bool(names))
        assert str(other.endpoint).startswith("tls://" if names else "tcp://")


def test_child_processes_do_not_inherit_the_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "calcd.socket")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(module, "_FIRST_FD", server.fileno())
        os.set_inheritable(server.fileno(), True)
        (listener,) = inherited()
        assert not listener.endpoint.tls
        assert listener.socket.getsockname() == server.getsockname()
        assert not os.get_inheritable(listener.socket.detach())
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_the_settings_in_force_are_those_of_the_sockets(
    start_daemon: Daemons, hand_over: HandOver, tmp_path: Path
) -> None:
    file = tmp_path / "calcd.conf"
    file.write_text("[calcd]\nlisten = tcp://localhost:1\nreuse_port = yes\n")
    daemon = start_daemon("-c", str(file), python=hand_over("tcp()"))
    (line,) = daemon.logs("settings in force")
    assert f"listen={daemon.endpoints[0]} " in line
    assert " reuse_port=no " in line
    replaced = (
        "has no effect: the sockets that systemd holds take its place: change them in the socket "
        "unit"
    )
    assert daemon.logs(f"warning: {file}:2: listen: {replaced}$")
    assert daemon.logs(f"warning: {file}:3: reuse_port: {replaced}$")
    file.write_text("[calcd]\nlisten = tcp://localhost:2\n")
    daemon.process.send_signal(signal.SIGHUP)
    assert (
        daemon.logs("settings in force", 2)[1].partition("settings")[2]
        == (line.partition("settings")[2])
    )
    assert daemon.logs(f"warning: reload: {file}:2: listen: {replaced}$")
    assert "a restart is needed" not in daemon.log


# A start that fails

# Makes a socket with a client that waits in its queue; the test is its only user.
WITH_CLIENT = """\
(lambda server: (
    globals().update(client=socket.create_connection(server.getsockname())),
    os.set_inheritable(client.fileno(), True),
    print(client.fileno(), server.getsockname()[1], flush=True),
    server,
)[-1])(tcp())"""


def start_to_fail(program: str, *options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [program, "-m", "calcd", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (("--max-line", "long"), 2, "--max-line: 'long'"),
        (("--max-lin", "5"), 2, "unrecognized arguments"),
        (("-c", "/none/calcd.conf"), 2, "/none/calcd.conf: No such file"),
        (("--log-to", "/proc/nowhere"), 1, "cannot write the log"),
    ],
)
def test_clients_of_a_start_that_fails_are_told(
    hand_over: HandOver, options: tuple[str, ...], status: int, reason: str
) -> None:
    program = hand_over(WITH_CLIENT)
    with start_to_fail(program, *options) as failing:
        assert failing.stdout
        port = int(failing.stdout.readline().split()[1])
        for _ in range(2):  # it goes on after the first
            with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
                assert request_all(client, b"PING\n") == (
                    b"ERR BUSY the server cannot start: ask again later\n"
                )
        _, told = failing.communicate(timeout=TIMEOUT)
    first, last = told.decode().splitlines()
    assert reason in first
    assert last == "calcd: 3 clients got ERR BUSY, as calcd cannot start"
    assert failing.returncode == status


def test_a_start_that_fails_ends_at_once_without_a_client_or_at_sigterm(
    hand_over: HandOver,
) -> None:
    slow = "import calcd.daemon.refusal\ncalcd.daemon.refusal._STAY = 3600\n"
    slow += "import sys, calcd.daemon.main\nsys.exit(calcd.daemon.main.main())"
    with subprocess.Popen(
        [hand_over("tcp()", "udp()"), "-c", slow, "--max-line", "long"],
        stderr=subprocess.PIPE,
        env=clean_environment(),
    ) as failing:
        _, told = failing.communicate(timeout=TIMEOUT)
        assert (told.count(b"\n"), failing.returncode) == (1, 2), told
    with subprocess.Popen(
        [hand_over(WITH_CLIENT), "-c", slow, "--max-line", "long"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    ) as failing:
        assert failing.stdout
        port = int(failing.stdout.readline().split()[1])
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            assert request_all(client, b"PING\n").startswith(b"ERR BUSY ")
        failing.terminate()
        _, told = failing.communicate(timeout=TIMEOUT)
        assert b"2 clients got ERR BUSY" in told
        assert failing.returncode == 2


def test_a_stop_takes_no_client_that_waits_for_metrics_for_a_start_that_failed(
    start_daemon: Daemons, hand_over: HandOver
) -> None:
    daemon = start_daemon(python=hand_over("tcp()", "tcp()", names="calcd.socket:metrics"))
    with ExitStack() as waiting:
        for _ in range(20):  # more than are answered at once
            address = ("127.0.0.1", daemon.port_of("http"))
            waiting.enter_context(socket.create_connection(address, TIMEOUT))
        daemon.process.terminate()
        assert daemon.process.wait(TIMEOUT) == 0
    assert not daemon.notified.has("STATUS=cannot start: clients get ERR BUSY")


@pytest.mark.parametrize("flooded", [True, False])
def test_datagrams_of_a_start_that_fails_are_discarded_for_a_while(
    flooded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket:
        left = 1000

        def recv(self, _: int) -> bytes:
            self.left -= not flooded
            if not self.left:
                raise BlockingIOError
            return b"x"

    monkeypatch.setattr(refusal, "_DISCARD", 0.05 if flooded else TIMEOUT)
    refusal._discard(SimpleNamespace(socket=Socket()))  # type: ignore[arg-type]


# States


def test_ready_is_sent_when_the_daemon_accepts(daemon: Daemon) -> None:
    assert daemon.notified.received.count("READY=1") == 1
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


def test_the_status_tells_how_many_connections_are_open(
    daemon: Daemon, start_daemon: Daemons
) -> None:
    quiet = "STATUS=connections open: 0, requests a second: 0"
    wait_until(lambda: daemon.notified.has(quiet), "the status")
    watched = start_daemon(WATCHDOG_USEC="400000")  # sends it more often
    with watched.connect():
        busy = "STATUS=connections open: 1, requests a second: 0"
        wait_until(lambda: watched.notified.has(busy), "the new status")


def test_the_status_tells_that_requests_came(start_daemon: Daemons) -> None:
    daemon = start_daemon(WATCHDOG_USEC="400000")
    daemon.ask(b"SOMA 2 2\n" * 1000)

    def told() -> bool:
        daemon.notified.has("")
        return re.search(r"a second: [1-9]", " ".join(daemon.notified.received)) is not None

    wait_until(told, "a status with requests")


def test_a_reload_is_reported(daemon: Daemon) -> None:
    before = time.monotonic_ns() // 1000
    daemon.notified.received.clear()
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.notified.has("READY=1"), "the end of the reload")
    states = [state for state in daemon.notified.received if not state.startswith("STATUS=")]
    assert [state.split("=")[0] for state in states] == ["RELOADING", "MONOTONIC_USEC", "READY"]
    assert before <= int(states[1].split("=")[1]) <= time.monotonic_ns() // 1000


def test_a_stop_is_reported(daemon: Daemon) -> None:
    daemon.process.terminate()
    wait_until(lambda: daemon.notified.has("STOPPING=1"), "STOPPING=1")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    """Be the service manager of this process."""
    manager = NotifySocket(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    yield manager
    manager.close()


def test_the_requests_of_a_second_are_those_since_the_last_status(
    manager: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((1000.0, 1002.0, 1003.0, 1004.5, 1007.0))
    monkeypatch.setattr("calcd.daemon.systemd.time.monotonic", lambda: next(times))
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")  # so the interval is 2.5 s
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    notifier = Notifier()
    watchdog = Watchdog(notifier)
    for requests in (500, 700, 900, 905):
        watchdog.on_tick(7, lambda counted=requests: counted)  # type: ignore[misc]
    notifier.close()
    manager.has("")
    rates = [state.rpartition(" ")[2] for state in manager.received if "STATUS" in state]
    assert rates == ["250", "160", "2"]


@pytest.mark.parametrize("address", ["@calcd-test-nobody", "/nowhere/notify", "vsock:2:1", None])
def test_without_a_manager_that_listens_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str | None
) -> None:
    """No error is raised or logged, and without an address there is no socket."""
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.send("READY=1")
    notifier.reloading()
    notifier.close()
    notifier.send("STOPPING=1")
    assert caplog.messages == []


def test_a_manager_may_have_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        notifier = Notifier()
        notifier.send("READY=1", "STATUS=x")
        notifier.close()
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


def test_a_manager_with_an_abstract_address_gets_every_message(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "calcd", "-l", "tcp://127.0.0.1:0"]
    daemon = Daemon(command, tmp_path / "daemon.log", f"@calcd-test-{os.getpid()}")
    daemon.process.terminate()
    wait_until(lambda: daemon.notified.has("STOPPING=1"), "STOPPING=1")
    assert daemon.stop() == 0


def test_send_waits_for_a_busy_manager_but_the_watchdog_does_not(manager: NotifySocket) -> None:
    notifier = Notifier()
    for _ in range(10_000):  # more than the socket's queue takes
        notifier.send("WATCHDOG=1", wait=False)
    sender = threading.Thread(target=notifier.send, args=("READY=1",))
    sender.start()
    wait_until(lambda: manager.has("READY=1"), "READY=1")
    sender.join()
    notifier.close()


# The watchdog


def test_the_watchdog_is_fed(start_daemon: Daemons) -> None:
    daemon = start_daemon(WATCHDOG_USEC="400000")

    def fed() -> bool:
        return daemon.notified.has("READY=1") and daemon.notified.received.count("WATCHDOG=1") >= 6

    wait_until(fed, "six messages", 6 * 0.4)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "often"},
        {"WATCHDOG_USEC": "0"},
    ],
)
def test_without_a_watchdog_only_the_status_is_sent(
    manager: NotifySocket, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notifier = Notifier()
    Watchdog(notifier).on_tick(7)
    notifier.close()
    assert manager.has("STATUS=connections open: 7, requests a second: 0")
    assert not manager.has("WATCHDOG=1")


def test_the_watchdog_is_fed_twice_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if each tick comes just before the interval is over."""
    monkeypatch.setenv("WATCHDOG_USEC", "8000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    now = 0.0
    sent_at = []

    class Recorder(Notifier):
        def send(self, *states: str, wait: bool = True) -> None:
            assert (states, wait) == (("WATCHDOG=1", "STATUS=connections open: 3"), False)
            sent_at.append(now)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    watchdog = Watchdog(Recorder())
    while len(sent_at) < 10:
        watchdog.on_tick(3)
        now += watchdog.interval * 0.999  # just before it is time for the next
    gaps = [after - before for before, after in pairwise(sent_at)]
    assert watchdog.interval < max(gaps) <= 4


def test_a_loop_that_hangs_does_not_feed_the_watchdog(
    manager: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    notifier = Notifier()
    watchdog = Watchdog(notifier)
    stuck, free = threading.Event(), threading.Event()

    class StuckServer(Server):
        def get_request(self) -> tuple[socket.socket, Address]:
            stuck.set()
            assert free.wait(TIMEOUT)
            return super().get_request()

    listeners, _ = listen([parse_endpoint("tcp://127.0.0.1:0")])
    server = StuckServer(listeners, Settings(), watchdog.on_tick)
    loop = threading.Thread(target=server.serve_forever, args=(watchdog.interval,))
    loop.start()
    try:
        wait_until(lambda: manager.has("WATCHDOG=1"), "WATCHDOG=1")
        with socket.create_connection(listeners[0].socket.getsockname()):
            assert stuck.wait(TIMEOUT)
            manager.has("")  # takes in all that was sent before
            manager.received.clear()
            time.sleep(0.5)  # more than systemd waits
            assert not manager.has("WATCHDOG=1")
            free.set()
            wait_until(lambda: manager.has("WATCHDOG=1"), "WATCHDOG=1 of the freed loop")
    finally:
        free.set()
        server.drain(TIMEOUT)
        server.server_close()
        loop.join()
        notifier.close()
