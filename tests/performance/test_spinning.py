"""Who waits takes no processor time."""

import time
from collections.abc import Callable
from pathlib import Path
from socket import socket

import pytest
from helpers import Daemon, Daemons, ask, connect_with_little_room, wait_until
from hostile_clients import few_descriptors, flood_past_all_descriptors
from service import Report

pytestmark = pytest.mark.speed


def cpu_share(daemon: Daemon, meanwhile: Callable[[], object] = lambda: None) -> float:
    """Return how much of a processor a daemon uses in a second."""
    used, began = daemon.cpu_seconds(), time.monotonic()
    while (seconds := time.monotonic() - began) < 1:
        meanwhile()
        time.sleep(0.1)
    return (daemon.cpu_seconds() - used) / seconds


def test_a_flood_past_all_descriptors_does_not_make_it_spin(tmp_path: Path, report: Report) -> None:
    with few_descriptors(tmp_path) as daemon, flood_past_all_descriptors(daemon) as inside:

        def ask_all() -> None:
            for client in inside:
                assert ask(client, b"SOMA 1 1\n") == b"2\n"

        share = cpu_share(daemon, ask_all)
    report(f"{share:.0%} of a processor, with 400 clients that wait")
    assert share < 0.3


def test_the_loop_does_not_spin_while_a_client_waits_for_a_descriptor(daemon: Daemon) -> None:
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        daemon.take_free_descriptors()
        with daemon.connect() as waiting:
            waiting.sendall(b"SOMA 2 2\n")
            daemon.logs("limit reached: cannot accept: Too many open files: clients wait")
            assert cpu_share(daemon) < 0.3


def read_nothing(client: socket) -> None:
    """Ask for more than the kernel holds, and leave more to be read."""
    client.sendall(600 * (b"UPPER " + 1000 * b"a" + b"\n"))


def begin_a_line(client: socket) -> None:
    client.sendall(b"SOMA 2 ")


@pytest.mark.parametrize("do", [read_nothing, begin_a_line])
def test_nobody_spins_beside_a_client_that_has_a_thread(
    start_daemon: Daemons, do: Callable[[socket], None]
) -> None:
    daemon = start_daemon()
    with connect_with_little_room((daemon.host, daemon.port)) as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        before = daemon.count_threads()
        do(client)
        wait_until(lambda: daemon.count_threads() > before, "its thread")
        wait_until(lambda: cpu_share(daemon) < 0.1, "the requests to be answered")
        assert cpu_share(daemon) < 0.1
