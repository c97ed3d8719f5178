"""What a client that asks and reads promptly waits for, whatever others do meanwhile."""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from statistics import median

import pytest
from certificates import Certificates
from helpers import TIMEOUT, Daemon, Daemons, ask, datagrams_to, wait_until
from hostile_clients import (
    FLOOD_LIMITS,
    MOST_SLOWER,
    Usage,
    connect,
    connection_flood,
    datagram_flood,
    flooders,
    half_done_handshakes,
    readers,
    senders,
    trips_beside,
)
from service import Report

pytestmark = pytest.mark.speed

MANY = 200


@pytest.fixture
def tls_daemon(start_daemon: Daemons, certificates: Certificates) -> Daemon:
    """Give a daemon that is there with TLS and without."""
    pair = certificates.server
    return start_daemon(
        *("-l", "tcp://127.0.0.1:0", "-l", "tls://127.0.0.1:0"),
        *("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key)),
    )


@pytest.mark.parametrize("attack", [senders, readers], ids=["senders", "readers"])
def test_hundreds_of_slow_clients_slow_nobody_else(
    daemon: Daemon, report: Report, attack: Callable[[Daemon, int], AbstractContextManager[None]]
) -> None:
    before = Usage.of(daemon)
    trips = trips_beside(daemon, partial(attack, daemon, MANY))
    report(f"{MANY} of them; {trips}")
    assert trips.slower <= MOST_SLOWER
    wait_until(lambda: Usage.of(daemon).is_back_at(before), "what they had to be given back")


@pytest.mark.parametrize("many", [50, MANY])
def test_hundreds_that_ask_a_great_deal_do_not_keep_a_prompt_client_waiting(
    many: int, daemon: Daemon, report: Report
) -> None:
    waits = []
    with flooders(daemon, many, 10), daemon.connect() as connection:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            began = time.monotonic()
            assert ask(connection, b"SOMA 2 2\n") == b"4\n"
            waits.append(time.monotonic() - began)
    waits.sort()
    usual, most = waits[len(waits) // 2] * 1e3, waits[-1] * 1e3
    report(
        f"{many} of them; {len(waits)} answers in 3 s, "
        f"mostly after {usual:.2f} ms, {most:.0f} at most"
    )
    assert usual < 1
    assert most < 1000


def test_who_is_inside_waits_not_long_while_a_flood_meets_every_limit(
    start_daemon: Daemons, report: Report
) -> None:
    daemon = start_daemon(*FLOOD_LIMITS)
    waits = []
    with connect(daemon, "127.0.0.3") as inside:
        assert ask(inside, b"PING\n") == b"PONG\n"
        with connection_flood(daemon) as flood:
            while flood.is_alive():
                began = time.monotonic()
                assert ask(inside, b"SOMA 1 1\n") == b"2\n"
                waits.append(time.monotonic() - began)
    report(f"{len(waits)} requests of who is inside, the slowest {max(waits) * 1e3:.1f} ms")
    assert max(waits) < 5


def test_prompt_clients_do_not_wait_while_others_wait_for_descriptors(daemon: Daemon) -> None:
    """Accepting pauses for 0.1 s at a time."""
    with daemon.connect() as prompt, ExitStack() as waiting:
        assert ask(prompt, b"PING\n") == b"PONG\n"
        daemon.take_free_descriptors()
        waiting.enter_context(daemon.connect())
        daemon.logs("limit reached: cannot accept")
        began = time.monotonic()
        for _ in range(50):
            assert ask(prompt, b"PING\n") == b"PONG\n"
        assert time.monotonic() - began < 4


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


def test_hundreds_of_half_done_handshakes_slow_nobody_else(
    tls_daemon: Daemon, report: Report
) -> None:
    # A record of a handshake of the greatest length: what drips in is never all of it.
    first = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"
    attack = partial(senders, tls_daemon, MANY, tls_daemon.port_of("tls"), first)
    trips = trips_beside(tls_daemon, attack)
    report(f"{MANY} of them; {trips}")
    assert trips.slower <= MOST_SLOWER


def test_half_done_handshakes_delay_no_other_handshake(
    tls_daemon: Daemon, certificates: Certificates
) -> None:
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    with half_done_handshakes(tls_daemon, 70):
        began = time.monotonic()
        plain = connect(tls_daemon, port=tls_daemon.port_of("tls"))
        with trusted.wrap_socket(plain, server_hostname="localhost") as connection:
            assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_handshake_waits_for_no_delayed_acknowledgement(
    version: ssl.TLSVersion, tls_daemon: Daemon, certificates: Certificates
) -> None:
    """A client with Nagle's algorithm would wait for it 0.04 s."""
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    trusted.minimum_version = trusted.maximum_version = version
    address = "127.0.0.1", tls_daemon.port_of("tls")
    took = []
    for _ in range(15):
        with socket.create_connection(address, TIMEOUT) as plain:
            began = time.monotonic()
            with trusted.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"SOMA 2 2\n")
                assert connection.recv(100) == b"4\n"
            took.append(time.monotonic() - began)
    assert median(took) < 0.03


@pytest.mark.parametrize("asked", [b"SOMA 2 2\n", b"X\n" * 200, b"X\n" * 30_000])
def test_a_flood_of_datagrams_keeps_no_connection_waiting(
    start_daemon: Daemons, asked: bytes
) -> None:
    daemon = start_daemon("-l", "udp://127.0.0.1:0 tcp://127.0.0.1:0")
    waits = []
    with datagram_flood(daemon, asked):
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            with daemon.connect() as connection:
                for _ in range(20):
                    began = time.monotonic()
                    assert ask(connection, b"SOMA 2 2\n") == b"4\n"
                    waits.append(time.monotonic() - began)
    assert median(waits) < 0.5
    assert max(waits) < 5
