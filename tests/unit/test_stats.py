"""What the server counts: nothing twice, nothing lost, and no counter ever falls."""

import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from sessions import new_session

from calcd.config.settings import Settings
from calcd.core.errors import CODES
from calcd.net import stats as module
from calcd.net.connection import ENDS, Connection
from calcd.net.stats import DROPS, LAG_BOUNDS, REFUSALS, Histogram, Stats

ADDRESS = ("192.0.2.1", 1)
Open = Callable[..., Connection]


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add up at each reading."""
    monkeypatch.setattr(module, "_SHARE", math.inf)


@pytest.fixture
def connect() -> Iterator[Open]:
    """Give a way to make connections, each of which has answered what it was asked."""
    with ExitStack() as at_end:

        def connect(asked: bytes, address: tuple[str, int] | str = ADDRESS) -> Connection:
            ours, theirs = socket.socketpair()
            at_end.enter_context(ours)
            at_end.enter_context(theirs)
            connection = Connection(ours, address, new_session(), Settings(), stop_fd=-1)
            theirs.sendall(asked)
            connection.step()
            return connection

        yield connect


def numbers(stats: Stats) -> dict[str, int | float]:
    return dict(stats.fields())


def test_an_open_connection_counts_as_much_as_one_that_has_ended(connect: Open) -> None:
    open_now = [connect(b"SOMA 2 2\nDIV 1 0\n"), connect(b"X\n", "/run/client")]
    stats = Stats(lambda: open_now)

    def told() -> dict[str, int | float]:
        found = numbers(stats)
        return {name: found.get(name, 0) for name in names}

    names = (
        *("requests", "errors", "errors.DIVISION-BY-ZERO", "errors.UNKNOWN-OPERATION"),
        *("connections", "connections.tcp", "connections.unix", "received_bytes", "sent_bytes"),
    )
    before = told()
    assert list(before.values())[:-1] == [3, 2, 1, 1, 2, 1, 1, 19]
    assert before["sent_bytes"] > 19
    assert numbers(stats)["connections_open"] == 2
    for ended in list(open_now):
        ended.end("reset")
        stats.end(ended)  # it is still registered: a drain waits for it
        assert told() == before
        open_now.remove(ended)
        assert told() == before
    found = numbers(stats)
    assert (found["connections_open"], found["connections_closed.reset"]) == (0, 2)


@pytest.mark.parametrize(
    ("how", "reason"),
    [*((each, each) for each in ENDS), ("ehostunreach", "network-error"), ("", "quit")],
)
def test_a_connection_ends_for_one_of_a_few_reasons(connect: Open, how: str, reason: str) -> None:
    connection, stats = connect(b"QUIT\n"), Stats(list)
    if how:
        connection.end(how)
    stats.end(connection)
    closed = stats.read()["connections_closed"]
    assert not isinstance(closed, Histogram)
    assert {name for name, count in closed.items() if count} == {reason}


def test_no_counter_falls_while_connections_come_and_go(connect: Open) -> None:
    registered: dict[int, Connection] = {}
    connections = [connect(b"SOMA 2 2\nX\n") for _ in range(200)]
    lock, done = threading.Lock(), threading.Event()

    def still_there() -> list[Connection]:
        with lock:
            return list(registered.values())

    stats = Stats(still_there)

    def come_and_go() -> None:
        for number, each in enumerate(connections):
            with lock:
                registered[number] = each
            if number >= 10:
                gone = connections[number - 10]
                gone.end("reset")
                stats.end(gone)
                with lock:
                    del registered[number - 10]
        done.set()

    server = threading.Thread(target=come_and_go)
    server.start()
    last = numbers(stats)
    while not done.is_set():
        found = numbers(stats)
        for name in ("requests", "errors", "connections", "connections_closed", "received_bytes"):
            assert found[name] >= last[name], name
        last = found
    server.join()
    found = numbers(stats)
    names = ("connections_open", "connections", "connections_closed", "requests", "errors")
    assert [found[name] for name in names] == [10, 200, 190, 400, 200]


@pytest.mark.parametrize("in_loop", [True, False])
def test_errors_of_an_answer_are_counted_by_code(in_loop: bool) -> None:
    stats = Stats(list)
    stats.in_loop.datagrams, stats.in_loop.received = 1, 40
    (stats.in_loop if in_loop else stats).add_answer(
        5, b"4\nERR SYNTAX x\r\nERR NOT-OVER-UDP y\nERR SYNTAX z\n1\n"
    )
    found = numbers(stats)
    assert (found["requests"], found["errors"], found["errors.SYNTAX"]) == (5, 3, 2)
    assert (found["datagrams"], found["received_bytes"], found["sent_bytes"]) == (1, 40, 50)


def test_known_labels_begin_at_0() -> None:
    stats = Stats(list)
    counted = stats.read()
    for name, labels in (
        ("errors", CODES),
        ("connections_refused", REFUSALS),
        ("datagrams_dropped", DROPS),
    ):
        assert counted[name] == dict.fromkeys(labels, 0)
    stats.refuse("busy-host", "BUSY")
    stats.drop_datagram("send-failed")
    found = numbers(stats)
    assert (found["connections_refused.busy-host"], found["errors.BUSY"]) == (1, 1)
    assert found["datagrams_dropped.send-failed"] == 1


def test_a_lag_counts_at_the_lowest_bound_that_it_does_not_exceed() -> None:
    stats = Stats(list)
    for lag in (0.0, 0.001, 0.0011, 10.0, 11.0):
        stats.observe_lag(lag)
    histogram = stats.read()["loop_lag_seconds"]
    assert isinstance(histogram, Histogram)
    assert histogram.bounds == LAG_BOUNDS
    assert histogram.counts == (2, 1, *9 * [0], 0, 1, 1)
    assert histogram.total == pytest.approx(21.0021)
    found = numbers(stats)
    assert (found["loop_lag_seconds_count"], found["loop_lag_seconds_sum"]) == (5, 21.002)


def test_what_was_added_up_is_told_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding up takes a twentieth of the time at most, however often somebody asks."""
    monkeypatch.setattr(module, "_SHARE", 0.05)
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    monkeypatch.setattr(module, "thread_time", lambda: now)
    looks = []

    def look() -> list[Connection]:
        nonlocal now
        now += 0.010
        looks.append(now)
        return []

    stats = Stats(look)
    for later, times in ((0.0, 1), (0.1, 1), (0.09, 1), (0.02, 2), (0.05, 2)):
        now += later
        stats.read()
        assert len(looks) == times


def test_what_others_count_is_included() -> None:
    stats = Stats(list)
    stats.include(lambda: {"reloads": {"success": 2, "failure": 0}})
    found = numbers(stats)
    assert (found["reloads"], found["reloads.success"]) == (2, 2)
    assert "reloads.failure" not in found
