"""UDP: a datagram of lines, answered by a datagram of lines or not at all."""

import errno
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    daemons_in,
    datagrams_to,
    run_calcd,
    wait_until,
)
from hostile_clients import datagram_flood
from listening import failure, listening, needs_ipv6

from calcd.config.settings import Settings
from calcd.core.datagram import MAX_SIZE, DatagramSession
from calcd.net.deadline import Deadline
from calcd.net.listeners import Listener
from calcd.net.semaphore import FairSemaphore
from calcd.net.stats import Stats
from calcd.net.udp import Datagrams
from calcd.net.workers import Submit

DEFAULTS = Settings()
A_THIRD = b"0." + b"3" * 34 + b"\n"


# Over the wire


class Client:
    """A client over UDP of a daemon's endpoint; ``at`` is which one."""

    def __init__(self, daemon: Daemon, at: int = 0, ours: tuple[str, int] | None = None) -> None:
        urls = [url for url in daemon.endpoints if url.startswith("udp:")]
        found = re.fullmatch(r"udp://\[?([^]]+)\]?:(\d+)", urls[at])
        assert found
        self.address = (found[1], int(found[2]))
        family = socket.AF_INET6 if ":" in found[1] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT)
        if ours:
            self.socket.bind(ours)

    def send(self, asked: bytes, host: str = "") -> None:
        self.socket.sendto(asked, (host or self.address[0], self.address[1]))

    def ask(self, asked: bytes, host: str = "") -> bytes:
        """Give the answer; it must come from where it was asked."""
        self.send(asked, host)
        answered, sender = self.socket.recvfrom(1 << 16)
        assert sender[:2] == (host or self.address[0], self.address[1])
        return answered

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


BOTH = ("-l", "udp://127.0.0.1:0 tcp://127.0.0.1:0")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon with UDP and TCP, to tests that leave it as it is."""
    with daemons_in(tmp_path_factory.mktemp("udp")) as daemons:
        yield daemons(*BOTH)


def test_datagrams_are_answered_each_by_one(both: Daemon) -> None:
    assert re.fullmatch(r"udp://127\.0\.0\.1:[1-9]\d*", both.endpoints[0])
    with Client(both) as client:
        assert client.ask(b"SOMA 2 2\nDIV 1 3\n") == b"4\n" + A_THIRD
        assert client.ask(b"PING") == b"PONG\n"
    assert both.ask(b"SOMA 2 2\n") == b"4\n"


def test_the_servers_precision_and_rounding_hold_over_tcp_and_udp(start_daemon: Daemons) -> None:
    daemon = start_daemon(*BOTH, "--precision", "5", "--rounding", "up")
    assert daemon.ask(b"DIV 1 3\nROUNDING\n") == b"0.33334\nup\n"
    with Client(daemon) as client:
        assert client.ask(b"DIV 1 3\n") == b"0.33334\n"


def test_nothing_is_kept_between_datagrams(both: Daemon) -> None:
    with Client(both) as client:
        assert client.ask(b"SOMA 2 2\nQUIT\nPING\n") == b"4\nBYE\n"
        assert client.ask(b"SUB 2 ").startswith(b"ERR WRONG-OPERANDS ")
        assert client.ask(b"x = 3\n") == b"3\n"
        assert client.ask(b"x+1\n").startswith(b"ERR UNKNOWN-NAME ")


@pytest.mark.parametrize("asked", [b"", b"\n", b" \r\n\t", b"ERR words\n", b"4\n-.5e3\r\n"])
def test_what_has_no_request_has_no_answer(both: Daemon, asked: bytes) -> None:
    with Client(both) as client:
        client.send(asked)
        assert client.ask(b"PING\n") == b"PONG\n"


def test_the_largest_datagrams_are_answered(both: Daemon) -> None:
    with Client(both) as client:
        lines = MAX_SIZE // 9
        assert client.ask(b"SOMA 2 2\n" * lines) == b"4\n" * lines
        assert MAX_SIZE - 1000 < len(client.ask(b"HELP\n" * (MAX_SIZE // 5))) <= MAX_SIZE


def test_random_datagrams_do_no_harm(both: Daemon) -> None:
    random = Random(1)
    words = [b"SOMA ", b"HELP", b"\n", b"\r\n", b"\xff\xf4", b"\xff", b"9e999", b"UPPER ", b"\x04"]
    with Client(both) as client:
        for number in range(3000):
            size = random.choice((1, 10, 200, 2000))
            some = random.choice((random.randbytes(size), b"".join(random.choices(words, k=20))))
            client.send(some)
            if number % 20 == 0:
                client.send(b"SOMA 1e9 %d" % number)
                while (answered := client.socket.recv(1 << 16)) != b"%d\n" % (10**9 + number):
                    assert b"ERR INTERNAL" not in answered
    assert "Traceback" not in both.log


def test_at_debug_each_request_has_a_line(start_daemon: Daemons) -> None:
    daemon = start_daemon(*BOTH, "--log-level", "debug")
    with Client(daemon) as client:
        client.ask(b"SOMA 2 2\nDIV 1 \x1b\n")
        port = client.socket.getsockname()[1]
    first, second = daemon.logs(f"debug: datagram 127.0.0.1:{port}: ", 2)
    assert first.endswith(": 'SOMA 2 2' -> '4'")
    assert r"'DIV 1 \x1b' -> 'ERR INVALID-NUMBER" in second


def test_at_info_a_datagram_has_none(both: Daemon) -> None:
    with Client(both) as client:
        client.ask(b"DIV 1 0")
        assert f":{client.socket.getsockname()[1]}" not in both.log


# Whence and whither


def test_an_answer_comes_from_the_address_that_was_asked(start_daemon: Daemons) -> None:
    with Client(start_daemon("-l", "udp://0.0.0.0:0")) as client:
        for host in "127.0.0.1", "127.0.0.2", "127.3.4.5":
            assert client.ask(b"PING", host) == b"PONG\n"


@needs_ipv6
def test_the_ipv6_wildcard_is_ipv6_only(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "udp://[::]:0")
    with Client(daemon) as client:
        assert client.ask(b"PING", "::1") == b"PONG\n"
    with listening("udp://[::]:0") as (listener,):
        assert listener.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_nobody_else_hears_a_word(start_daemon: Daemons) -> None:
    daemon = start_daemon(*BOTH, "--allow", "127.0.0.2")
    with Client(daemon) as other, Client(daemon, ours=("127.0.0.2", 0)) as allowed:
        for _ in range(100):  # as many as a queue has room for, whatever the load
            other.send(b"PING")
        assert allowed.ask(b"PING") == b"PONG\n"
        other.socket.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.socket.recv(100)
        port = other.socket.getsockname()[1]
        assert daemon.stop() == 0
    told = re.findall(
        r"warning: (\d+) datagrams dropped: sender is not allowed "
        rf"\(last from 127\.0\.0\.1:{port}\)$",
        daemon.log,
        re.MULTILINE,
    )
    assert sum(map(int, told)) == 100
    assert len(told) <= 2  # when the first came, and at the stop


def test_a_server_is_not_answered(start_daemon: Daemons) -> None:
    """Its port tells: that of another calcd, or that of a service such as echo."""
    daemon = start_daemon(*BOTH)
    with ExitStack() as open_ones:
        asking = open_ones.enter_context(Client(daemon))
        ports = [asking.address[1], *([7] if os.geteuid() == 0 else [])]
        servers = [
            open_ones.enter_context(Client(daemon, ours=("127.0.0.2", port))) for port in ports
        ]
        for server in servers:
            server.send(b"PING")
        assert asking.ask(b"PING") == b"PONG\n"
        for server in servers:
            server.socket.settimeout(0)
            with pytest.raises(BlockingIOError):
                server.socket.recv(100)
    daemon.logs(f"{len(ports)} datagrams dropped: source port is reserved")


def test_ports_from_1024_on_are_those_of_clients() -> None:
    with serving() as (answering, listener), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.2", 1024))
        client.settimeout(TIMEOUT)
        client.sendto(b"PING", listener.socket.getsockname())
        assert answering.serve(listener, DEFAULTS)
        assert client.recv(100) == b"PONG\n"


# Endpoints


def test_two_daemons_do_not_get_the_same_port(both: Daemon) -> None:
    ended = run_calcd("-l", both.endpoints[0])
    assert ended.returncode == 1
    assert f"cannot listen on {both.endpoints[0]}: Address already in use" in ended.stderr


def test_unless_they_are_to_share_it(start_daemon: Daemons) -> None:
    first = start_daemon(*BOTH, "--reuse-port", "yes", "--log-level", "debug")
    again = ("-l", first.endpoints[0], "--reuse-port", "yes", "--log-level", "debug")
    second = start_daemon(*again)

    def both_answered() -> bool:
        with Client(first) as client:
            assert client.ask(b"PING") == b"PONG\n"
        return "'PONG'" in first.log and "'PONG'" in second.log

    wait_until(both_answered, "an answer from each")


def test_tcp_and_udp_have_the_same_port(start_daemon: Daemons) -> None:
    with listening("tcp://127.0.0.1:0") as (listener,):
        port = listener.endpoint.port
    daemon = start_daemon("-l", f"tcp://127.0.0.1:{port} udp://127.0.0.1:{port}")
    assert daemon.endpoints == [f"tcp://127.0.0.1:{port}", f"udp://127.0.0.1:{port}"]
    with Client(daemon) as client:
        assert client.ask(b"PING") == daemon.ask(b"PING") == b"PONG\n"


def test_a_name_stands_for_all_its_addresses() -> None:
    with listening("tcp://localhost:0") as tcp, listening("udp://localhost:0") as udp:
        assert [each.endpoint.host for each in udp] == [each.endpoint.host for each in tcp]
        assert len({each.endpoint.port for each in udp}) == 1


def test_the_check_tells_of_an_address_that_is_not_here() -> None:
    told = failure("udp://192.0.2.1:12000")
    assert told.endswith("this machine has no such address")
    checked = run_calcd("-t", "-l", "udp://192.0.2.1:12000")
    assert (checked.returncode, told in checked.stderr) == (2, True)


# Reload and stop


def test_a_reload_holds_for_the_next_datagram(start_daemon: Daemons, tmp_path: Path) -> None:
    settings = tmp_path / "calcd.conf"
    settings.write_text("[calcd]\nlisten = udp://127.0.0.1:0\n")
    daemon = start_daemon("-c", str(settings))
    with Client(daemon) as client:
        assert client.ask(b"DIV 1 3") == A_THIRD
        settings.write_text("[calcd]\nlisten = udp://127.0.0.1:0\nprecision = 5\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logs("settings in force", 2)
        assert client.ask(b"DIV 1 3") == b"0.33333\n"


def test_a_stop_answers_what_has_arrived(start_daemon: Daemons) -> None:
    daemon = start_daemon(*BOTH)
    large = b"X\n" * 30_000
    with Client(daemon) as client:
        daemon.process.send_signal(signal.SIGSTOP)
        client.send(large)
        for number in range(40):
            client.send(b"SOMA %d 0" % number)
        daemon.process.terminate()
        daemon.process.send_signal(signal.SIGCONT)
        answers = {client.socket.recv(1 << 16) for _ in range(41)}
        assert {b"%d\n" % number for number in range(40)} < answers
    assert daemon.stop() == 0


# Floods


def status(daemon: Daemon, name: str) -> int:
    """Give a number of a daemon's /proc status."""
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.parametrize("asked", [b"SOMA 2 2\n", b"X\n" * 200, b"X\n" * 30_000])
def test_connections_are_answered_during_a_flood(start_daemon: Daemons, asked: bytes) -> None:
    daemon = start_daemon(*BOTH)
    with datagram_flood(daemon, asked):
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            with daemon.connect() as connection:
                for _ in range(20):
                    connection.sendall(b"SOMA 2 2\n")
                    assert connection.recv(100) == b"4\n"
        assert status(daemon, "Threads") < 24
        assert status(daemon, "VmRSS") < 150 << 10  # KiB
    with Client(daemon) as client:
        wait_until(lambda: answers_soon(client), "an answer after the flood")


def answers_soon(client: Client) -> bool:
    client.socket.settimeout(0.2)
    try:
        return client.ask(b"PING") == b"PONG\n"
    except TimeoutError:  # its queue was full, or there were too many large ones
        return False


# What fails


class Failing(socket.socket):
    """A socket on which nothing can be sent."""

    def sendmsg(self, *_: object) -> int:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


@contextmanager
def serving(
    kind: type[socket.socket] = socket.socket, submit: Submit = lambda *_: None
) -> Iterator[tuple[Datagrams, Listener]]:
    """Give what answers datagrams, and a listener for it."""
    with kind(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield Datagrams(FairSemaphore(), submit, (), Stats(list)), Listener(sock)


def ask(listener: Listener, asked: bytes) -> socket.socket:
    """Send a datagram; give the socket for the answer."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(TIMEOUT)
    client.sendto(asked, listener.socket.getsockname())
    return client


def test_expensive_datagrams_count_as_one_host_whoever_sent_them() -> None:
    hosts: list[str] = []

    def submit(host: str, *_: object) -> None:
        hosts.append(host)

    with (
        serving(submit=submit) as (answering, listener),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ask(listener, b"EXP 0.1234"),
    ):
        other.bind(("127.0.0.2", 0))
        other.sendto(b"EXP 0.1234", listener.socket.getsockname())
        for _ in range(2):  # a call may end after the first
            answering.serve(listener, Settings(precision=1000))
    assert len(hosts) == 2
    assert len(set(hosts)) == 1


def test_an_answer_that_cannot_be_sent_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Failing) as (answering, listener):
        for _ in range(3):
            ask(listener, b"PING").close()
            assert answering.serve(listener, DEFAULTS)
            answering.report_dropped()
        answering.report_dropped(at_once=True)
    told = [message.rpartition(" (last from")[0] for message in caplog.messages]
    assert told == [
        f"{count} datagrams dropped: cannot send the answer: no buffer space available"
        for count in (1, 2)
    ]


def test_who_is_gone_before_the_answer_does_no_harm(both: Daemon) -> None:
    for _ in range(50):
        with Client(both) as client:
            client.send(b"PING")
    with Client(both) as client:
        assert client.ask(b"PING") == b"PONG\n"


def test_nothing_to_be_answered_is_no_answer() -> None:
    with serving() as (answering, listener):
        assert not answering.serve(listener, DEFAULTS)


@pytest.mark.parametrize("asked", [b"PING", b"PING\n" * 1000])
def test_a_bug_costs_an_answer_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: bytes
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with serving() as (answering, listener):
        monkeypatch.setattr(DatagramSession, "resume", broken)
        with ask(listener, asked) as client:
            port = client.getsockname()[1]
        assert answering.serve(listener, DEFAULTS)
        answering.finish(Deadline(TIMEOUT))
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)
    assert record.getMessage() == f"datagram 127.0.0.1:{port}: a bug lost its answer"


def test_a_bug_in_a_request_is_logged_and_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("calcd.core.interpreter.evaluate", broken)
    with serving() as (answering, listener), ask(listener, b"sqrt(4)") as client:
        port = client.getsockname()[1]
        assert answering.serve(listener, DEFAULTS)
        assert client.recv(2000).startswith(b"ERR INTERNAL ")
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)
    told = f"datagram 127.0.0.1:{port}: a bug, met at the request 'sqrt(4)'"
    assert record.getMessage() == told


def test_what_the_serving_loop_has_begun_a_thread_goes_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []
    begin = DatagramSession.__init__

    def count(session: DatagramSession, *arguments: Any) -> None:
        begun.append(threading.current_thread())
        begin(session, *arguments)

    monkeypatch.setattr(DatagramSession, "__init__", count)
    with serving() as (answering, listener), ask(listener, b"POW 2 0.5\n" * 30) as client:
        assert answering.serve(listener, DEFAULTS)
        assert client.recv(2000).count(b"1.414213562373095") == 30
        answering.finish(Deadline(TIMEOUT))
    assert begun == [threading.current_thread()]


def test_no_more_than_some_large_ones_are_answered_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = threading.Event()

    resume = DatagramSession.resume

    def slow(session: DatagramSession, *limit: float) -> None:
        assert free.wait(TIMEOUT)
        resume(session, *limit)

    with serving() as (answering, listener), ExitStack() as open_ones:
        monkeypatch.setattr(DatagramSession, "resume", slow)
        clients = [open_ones.enter_context(ask(listener, b"PING\n" * 200)) for _ in range(10)]
        while answering.serve(listener, DEFAULTS):
            pass
        free.set()
        assert [client.recv(2000) for client in clients[:8]] == [b"PONG\n" * 200] * 8
        answering.finish(Deadline(TIMEOUT))
    (told,) = caplog.messages
    assert told.startswith("2 datagrams dropped: too many large ones at once (last from ")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (MemoryError(), "no memory"),
    ],
)
def test_without_a_thread_what_asks_much_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise error

    with serving() as (answering, listener):
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        for _ in range(10):  # more than there are places: each is given back
            ask(listener, b"X" * 1000).close()
            answering.serve(listener, DEFAULTS)
        answering.finish(Deadline(TIMEOUT))
    (told,) = caplog.messages
    assert told.startswith(f"10 datagrams dropped: {reason} (last from ")


# Datagrams at their limits

# A daemon for which any datagram asks too much that is not answered at once.
EASILY_TOO_MUCH = """
import sys, calcd.daemon.main, calcd.core.datagram
calcd.core.datagram._DATAGRAM_LIMIT = 1
sys.exit(calcd.daemon.main.main())
"""


def test_after_datagrams_that_ask_too_much_others_are_still_answered(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EASILY_TOO_MUCH, "-l", "udp://127.0.0.1:0"]
    daemon = Daemon(command, tmp_path / "daemon.log")
    too_much = 60 * b"EXP 0.1234\n"
    large = 40 * b"SOMA 0000000002 2\n"  # so that it is answered by a thread as well
    assert len(large) > 512
    try:
        with datagrams_to(daemon) as client:
            for _ in range(10):
                client.send(too_much)
                client.send(large)
                assert client.recv(1 << 16) == 40 * b"4\n"
    finally:
        assert daemon.stop() == 0
    assert "datagrams dropped: it costs too much" in daemon.log
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize(("digits", "fits"), [(611, True), (612, False)])
def test_an_answer_that_just_fits_is_not_cut(
    start_daemon: Daemons, digits: int, fits: bool
) -> None:
    """The answer to a small datagram has at most 1232 bytes."""
    daemon = start_daemon("-l", "udp://127.0.0.1:0")
    with datagrams_to(daemon) as client:
        client.send(b"PRECISION %d\nDIV 1 3\nDIV 1 3\n" % digits)
        answer = client.recv(1 << 16)
    a_third = b"0." + digits * b"3" + b"\n"
    whole = b"%d\n" % digits + 2 * a_third
    assert len(whole) == (1232 if fits else 1234)
    assert (answer == whole) == fits
    assert answer.startswith(b"%d\n" % digits + a_third)
    assert (b"ERR REPLY-TOO-LONG " in answer) != fits
