"""Times that are promised, measured: run apart, as they need a machine that does nothing else."""

import socket
import ssl
import time
from contextlib import ExitStack, suppress
from statistics import median

import pytest
from certificates import Certificates
from client_helpers import HOST, calcc
from helpers import (
    TIMEOUT,
    Daemons,
    ask,
    connect_with_little_room,
    datagrams_to,
    wait_until,
)

from calcd.net.lingering import LingeringCloser

pytestmark = pytest.mark.speed


@pytest.mark.parametrize("seconds", [1, 2])
def test_calcc_over_udp_ends_when_its_time_is_over(seconds: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        began = time.monotonic()
        done = calcc("-u", "-w", seconds, "-e", "PING", HOST, silent.getsockname()[1])
        took = time.monotonic() - began
    assert done.returncode != 0
    assert seconds - 0.1 < took < seconds + 0.8


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
        closer.finish(TIMEOUT)
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
    closer.finish(TIMEOUT)
    assert 0.9 * most < took < most + 1.5


def test_datagrams_do_not_wait_while_connections_have_no_room(start_daemon: Daemons) -> None:
    """Accepting pauses for 0.1 s at a time."""
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "-l", "udp://127.0.0.1:0")
    daemon.take_free_descriptors()
    with daemon.connect(), datagrams_to(daemon) as datagrams:
        daemon.logs("limit reached: cannot accept")
        began = time.monotonic()
        for number in range(50):
            datagrams.send(b"SOMA %d 1\n" % number)
            assert datagrams.recv(100) == b"%d\n" % (number + 1)
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_handshake_waits_for_no_delayed_acknowledgement(
    version: ssl.TLSVersion, start_daemon: Daemons, certificates: Certificates
) -> None:
    """A client with Nagle's algorithm would wait for it 0.04 s."""
    pair = certificates.server
    files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    daemon = start_daemon("-l", "tls://127.0.0.1:0", *files)
    port = daemon.port_of("tls")
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    trusted.minimum_version = trusted.maximum_version = version
    took = []
    for _ in range(15):
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
            began = time.monotonic()
            with trusted.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"SOMA 2 2\n")
                assert connection.recv(100) == b"4\n"
            took.append(time.monotonic() - began)
    assert median(took) < 0.03
