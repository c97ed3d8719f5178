"""Times that are promised, measured: run apart, as they need a machine that does nothing else."""

import re
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import pytest
from certificates import Certificates
from client_helpers import HOST, Servers, calcc, drip, receive
from helpers import (
    TIMEOUT,
    Daemons,
    ask,
    changed_daemon,
    connect_with_little_room,
    drip_until_closed,
    read_all,
    send_until_nothing_moves,
    wait_until,
)
from hostile_clients import half_done_handshakes, until_closed, waiting_for_descriptors
from load_client import LoadClient, run_clients
from service import Report

from calcd.client import cli, completion, promptsession
from calcd.net.deadline import Deadline
from calcd.net.lingering import LingeringCloser

pytestmark = pytest.mark.speed


# Of the client


@pytest.mark.parametrize("seconds", [1, 2])
@pytest.mark.parametrize("switches", ["-u", "-uzv"])
def test_calcc_over_udp_ends_when_its_time_is_over(switches: str, seconds: int) -> None:
    """The time is for all three datagrams."""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        began = time.monotonic()
        done = calcc(switches, "-w", seconds, "-e", "PING", HOST, silent.getsockname()[1])
        took = time.monotonic() - began
        silent.setblocking(False)
        assert [silent.recv(100) for _ in range(3)] == 3 * [b"PING\n"]
    assert done.returncode == 3
    assert seconds - 0.1 < took < seconds + 1.5


# The start of a TLS record that is never whole: as the first of a handshake, and after it.
HANDSHAKE, REPLY = b"\x16\x03\x03\x3f\xff", b"\x17\x03\x03\x3f\xff"


@pytest.mark.parametrize(
    ("start", "over_tls"),
    [(b"", False), (100_000 * b"A", False), (HANDSHAKE, True), (REPLY, True)],
    ids=["nothing", "much", "handshake", "reply"],
)
def test_a_list_of_operations_that_never_ends_is_given_up(
    start: bytes, over_tls: bool, serve: Servers, certificates: Certificates
) -> None:
    pair = certificates.server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    def drip_after_handshake(plain: socket.socket) -> None:
        raw = plain.dup()
        with raw, context.wrap_socket(plain, server_side=True) as connection:
            receive(connection, b"HELP\n")
            drip(raw, start)

    script = drip_after_handshake if start == REPLY else lambda plain: drip(plain, start)
    trust = ("--ssl-trustfile", str(certificates.authority.cert)) if over_tls else ()
    endpoint = cli.Options([*trust, HOST, str(serve(script))]).endpoint
    began = time.monotonic()
    assert completion.fetch_words(endpoint).operations == []
    took = time.monotonic() - began
    assert 0.9 * promptsession.SHORT_TIMEOUT < took < promptsession.SHORT_TIMEOUT + 3


# Of a connection


def test_a_silent_client_is_let_go_in_its_time(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.5")
    began = time.monotonic()
    with daemon.connect() as connection:
        assert read_all(connection) == b""
        assert 0.45 < time.monotonic() - began < 3


def test_a_drip_of_bytes_does_not_stretch_a_lines_time(start_daemon: Daemons) -> None:
    daemon = start_daemon("--line-timeout", "0.5")
    with daemon.connect() as connection:
        began = time.monotonic()
        assert drip_until_closed(connection, b"1", 0.05).startswith(b"ERR TIMEOUT ")
        assert 0.45 < time.monotonic() - began < 3


def test_a_client_that_reads_nothing_is_cut_in_its_time(start_daemon: Daemons) -> None:
    daemon = start_daemon("--send-timeout", "1.5")
    with daemon.connect() as connection:
        began = time.monotonic()
        send_until_nothing_moves(connection)
        moved = time.monotonic() - began
        [line] = daemon.logs("how=unread")
    seconds = float(line.split("seconds=")[1].split()[0])
    assert 1.4 < seconds < moved + 1.5 + 3


def test_handshakes_begun_and_left_end_in_the_time_of_a_line(
    start_daemon: Daemons, certificates: Certificates, report: Report
) -> None:
    """Though bytes drip in."""
    pair = certificates.server
    daemon = start_daemon(
        *("-l", "tls://127.0.0.1:0", "-l", "tcp://127.0.0.1:0", "--line-timeout", "1.5"),
        *("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key)),
    )
    began = time.monotonic()
    with half_done_handshakes(daemon, 70) as clients:
        assert until_closed(clients, TIMEOUT) == 0
        took = time.monotonic() - began
    report(f"{len(clients)} handshakes, all closed after {took:.1f} s with a line_timeout of 1.5")
    assert 1.4 < took < 1.5 + 5


# The clock that is set is not the machine's: each way to ask what time it is gets this offset.
CLOCK = """
import os, time
def set_clock(name):
    real = getattr(time, name)
    def now(*clock):
        if clock and clock[0] != time.CLOCK_REALTIME:
            return real(*clock)
        seconds = float(open(os.environ["CALCD_TEST_CLOCK"]).read())
        return real(*clock) + type(real(*clock))(seconds * (10**9 if name.endswith("_ns") else 1))
    setattr(time, name, now)
for name in ("time", "time_ns", "clock_gettime", "clock_gettime_ns"):
    set_clock(name)
"""
DAY = 86_400


@pytest.mark.parametrize("seconds", [-400 * DAY, 400 * DAY], ids=["back", "forward"])
def test_a_clock_that_is_set_moves_no_deadline(seconds: int, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")

    def set_clock() -> None:
        (tmp_path / "new").write_text(str(seconds))
        (tmp_path / "new").replace(clock)

    waits = {"message-wait": 0.6, "line-timeout": 1.0, "idle-timeout": 1.3, "send-timeout": 0.8}
    options = [word for name, wait in waits.items() for word in (f"--{name}", str(wait))]
    took: dict[str, float] = {}
    with (
        changed_daemon(
            tmp_path, CLOCK, *options, "--drain-timeout", "60", CALCD_TEST_CLOCK=str(clock)
        ) as daemon,
        ExitStack() as stack,
    ):

        def ends(name: str, said: bytes, expected: bytes) -> None:
            began = time.monotonic()  # before the daemon's own time begins
            with daemon.connect() as client:
                client.sendall(said)
                assert re.match(expected, client.recv(1000))
                took[name] = time.monotonic() - began

        def unread() -> None:
            with daemon.connect() as client:
                client.sendall(b"PING\n")
                assert client.recv(100) == b"PONG\n"
                fills = threading.Thread(target=send_until_nothing_moves, args=(client,))
                began = time.monotonic()
                fills.start()
                daemon.logs("how=unread")
                took["send-timeout"] = time.monotonic() - began
                fills.join()

        waiting = [
            threading.Thread(target=ends, args=("message-wait", b"SOMA 2 2", rb"4\n")),
            threading.Thread(target=ends, args=("line-timeout", b"SUB 2", rb"ERR TIMEOUT ")),
            threading.Thread(target=ends, args=("idle-timeout", b"", rb"\Z")),
            threading.Thread(target=unread),
        ]
        for thread in waiting:
            thread.start()
            stack.callback(thread.join)
        time.sleep(0.3)  # so that all of them wait
        set_clock()
        assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
        for thread in waiting:
            thread.join(TIMEOUT)
        # The daemon has seen its clock jump, and that is all it has made of it.
        assert len({line[:4] for line in daemon.log.splitlines()}) > 1
        for name, wait in waits.items():
            assert wait * 0.95 < took[name] < wait + 3, name
        with daemon.connect() as client:
            client.sendall(b"SOMA 2 2\n")
            assert client.recv(100) == b"4\n"
            clock.write_text("0")
            began = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - began < 3
            assert client.recv(1) == b""


# Of a stop


@pytest.mark.parametrize("most", ["64", "8192"], ids=["few groups", "many groups"])
def test_the_drain_ends_in_time_beside_clients_that_do_not_read(
    start_daemon: Daemons, most: str
) -> None:
    """And a client that closes meanwhile does not end it for the others."""
    daemon = start_daemon("--drain-timeout", "2", "--max-connections", most)
    requests = 400 * (b"UPPER " + 1000 * b"a" + b"\n")
    with ExitStack() as open_ones:
        clients = []
        for _ in range(20):
            address = daemon.host, daemon.port
            client = open_ones.enter_context(connect_with_little_room(address))
            client.sendall(requests)
            clients.append(client)
        began = time.monotonic()
        daemon.process.terminate()
        daemon.logs("stopping: ")
        clients.pop().close()
        assert daemon.process.wait(TIMEOUT) == 0
        took = time.monotonic() - began
    assert "stopped: 19 connections cut" in daemon.log
    assert 1.9 < took < 3.5


def test_a_stop_beside_a_hundred_busy_clients_takes_as_long_as_their_last_requests(
    start_daemon: Daemons,
) -> None:
    daemon = start_daemon("--drain-timeout", "60")
    pairs = [(b"SOMA 2 2\n", b"4\n")]
    with ExitStack() as stack:
        clients = [
            LoadClient(stack.enter_context(daemon.connect()), pairs, deep=number % 2 == 1)
            for number in range(100)
        ]
        run_clients(clients, until=lambda: sum(client.answered for client in clients) > 50_000)
        began = time.monotonic()
        daemon.process.terminate()
        run_clients(clients, until=lambda: all(client.ended for client in clients))
        assert daemon.process.wait(TIMEOUT) == 0
        took = time.monotonic() - began
    assert daemon.logs("stopped: 0 connections cut")
    assert took < 1.5  # 0.3 s; it was 2 to 9 while threads took no turns to read and write


def test_a_client_that_keeps_sending_does_not_stretch_the_stop(start_daemon: Daemons) -> None:
    daemon = start_daemon("--drain-timeout", "60")
    with daemon.connect() as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        began = time.monotonic()
        daemon.process.terminate()
        client.settimeout(0.002)
        ended = False
        while not ended:
            assert time.monotonic() - began < TIMEOUT
            with suppress(TimeoutError):
                client.sendall(b"PING\n")
                ended = not client.recv(4096)
    assert daemon.process.wait(TIMEOUT) == 0
    assert time.monotonic() - began < 3


def test_a_stop_without_descriptors_keeps_its_time(start_daemon: Daemons) -> None:
    daemon = start_daemon("--drain-timeout", "2")
    with waiting_for_descriptors(daemon):
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 2 + 3


# Of a lingering close


def test_a_lingering_close_ends_soon_after_its_client_has_closed() -> None:
    took = []
    for _ in range(15):
        closer = LingeringCloser()
        closer.timeout = TIMEOUT
        closer.start()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), TIMEOUT)
            server = listener.accept()[0]
        closer.close(server)
        began = time.monotonic()
        client.close()
        closer.finish(Deadline(TIMEOUT))
        took.append(time.monotonic() - began)
        assert server.fileno() == -1
    assert median(took) < 0.2


@pytest.mark.parametrize("sends", [False, True], ids=["quiet", "sending"])
def test_a_lingering_close_ends_in_its_time(sends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``timeout`` with a quiet client, after LINGER_TIME with one that keeps sending."""
    most = 0.5
    closer = LingeringCloser()
    closer.timeout = TIMEOUT if sends else most
    monkeypatch.setattr("calcd.net.lingering.LINGER_TIME", most if sends else TIMEOUT)
    closer.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), TIMEOUT)
        server = listener.accept()[0]

    def closed_on_us() -> bool:
        if sends:
            with suppress(ConnectionError):
                client.sendall(b"x")
        return server.fileno() == -1

    with client:
        began = time.monotonic()
        closer.close(server)
        wait_until(closed_on_us, "the server to close")
        took = time.monotonic() - began
    closer.finish(Deadline(TIMEOUT))
    assert 0.9 * most < took < most + 1.5
