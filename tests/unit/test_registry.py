"""Registry: the stop wakes connections in groups, waits for their end, and cuts the rest."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, cast

import pytest
from helpers import TIMEOUT

from calcd.net import deadline as deadline_module
from calcd.net import registry as module
from calcd.net.connection import Connection
from calcd.net.deadline import Deadline
from calcd.net.registry import Registry

NOW = 1000.0  # what the clock of a test says


class Open:
    """An open connection, as far as a registry knows it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.was_cut = False

    def cut(self) -> None:
        self.was_cut = True


class Group(Registry):
    """A registry of two groups that takes down what a drain waits for, and how many seconds."""

    def __init__(self) -> None:
        super().__init__(2 * module._GROUP)
        self.waits: list[tuple[set[socket.socket], float]] = []

    def _wait_for(self, sockets: set[socket.socket], deadline: Deadline, _: Any) -> None:
        self.waits.append((set(sockets), deadline.left()))


def no_wait(_: float = 0) -> None:
    pytest.fail("there is nothing to wait for")


@pytest.fixture
def opened() -> Iterator[list[Open]]:
    """Give four open connections."""
    with ExitStack() as undo:
        yield [Open(undo.enter_context(socket.socket())) for _ in range(4)]


def registered(registry: Registry, connections: list[Open]) -> Registry:
    for each in connections:
        registry.add(cast("Connection", each))
    return registry


def is_woken(stop_fd: int) -> bool:
    os.set_blocking(stop_fd, False)
    try:
        return os.eventfd_read(stop_fd) == 1
    except BlockingIOError:
        return False


@pytest.mark.parametrize(("expected", "groups"), [(0, 1), (63, 1), (64, 2), (1 << 20, 128)])
def test_there_are_groups_enough_for_those_expected(expected: int, groups: int) -> None:
    with closing(Registry(expected)) as registry:
        assert len(registry._stop_fds) == groups


def test_a_drain_wakes_all_and_waits_until_they_are_removed(opened: list[Open]) -> None:
    with closing(registered(Registry(64), opened)) as registry:

        def end(connection: Open) -> None:
            os.eventfd_read(registry.stop_fd(connection.sock))
            os.eventfd_write(registry.stop_fd(connection.sock), 1)  # for the next of its group
            registry.remove(connection.sock)

        threads = [threading.Thread(target=end, args=(each,)) for each in opened]
        for thread in threads:
            thread.start()
        changed = threading.Semaphore(0)
        deadline = Deadline(TIMEOUT)

        def wait(seconds: float) -> None:
            changed.acquire(timeout=seconds)

        cut = registry.drain(deadline, wait, changed.release)
        for thread in threads:
            thread.join()
        assert cut == []
        assert not any(each.was_cut for each in opened)


def test_a_drain_whose_time_is_over_cuts_without_waiting(opened: list[Open]) -> None:
    with closing(registered(Registry(0), opened)) as registry:
        registry.remove(opened[0].sock)
        opened[1].sock.close()  # as good as removed
        cut = registry.drain(Deadline(0), no_wait, lambda: None)
        assert {each.sock for each in cut} == {each.sock for each in opened[2:]}
        assert [each.was_cut for each in opened] == [False, False, True, True]


@pytest.mark.parametrize(("seconds", "pause"), [(10.0, 0.05), (0.06, 0.03)])
def test_each_full_group_has_a_pause_of_at_most_half_the_time(
    opened: list[Open], monkeypatch: pytest.MonkeyPatch, seconds: float, pause: float
) -> None:
    with closing(Group()) as registry:
        registered(registry, opened)
        monkeypatch.setattr(module, "_GROUP", 1)
        monkeypatch.setattr(deadline_module, "monotonic", lambda: NOW)
        assert len(registry.drain(Deadline(seconds), no_wait, lambda: None)) == 4
        groups = [
            {each.sock for each in opened if registry.stop_fd(each.sock) == fd}
            for fd in registry._stop_fds
        ]
        everyone = {each.sock for each in opened}
        assert [sockets for sockets, _ in registry.waits] == [*filter(None, groups), everyone]
        *pauses, last = [left for _, left in registry.waits]
        assert pauses == [pytest.approx(pause)] * len(pauses)
        assert last == pytest.approx(seconds)
        assert all(is_woken(fd) for fd in registry._stop_fds)


def test_groups_that_are_not_full_are_woken_together(
    opened: list[Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Group()) as registry:
        registered(registry, opened)
        monkeypatch.setattr(module, "_GROUP", len(opened))
        registry.drain(Deadline(0), no_wait, lambda: None)
        everyone = {each.sock for each in opened}
        assert [sockets for sockets, _ in registry.waits] == [everyone, everyone]


def test_a_connection_is_found_by_its_socket_until_it_is_removed(opened: list[Open]) -> None:
    with closing(registered(Registry(0), opened)) as registry:
        first = opened[0]
        assert registry.get(first.sock) is cast("Connection", first)
        registry.remove(first.sock)
        assert registry.get(first.sock) is None
        registry.remove(first.sock)  # which may be told twice


def test_it_may_be_closed_twice() -> None:
    with closing(Registry(0)) as registry:
        registry.close()


def test_a_drain_ends_when_its_deadline_is_brought_forward(opened: list[Open]) -> None:
    with closing(registered(Registry(0), opened)) as registry:
        deadline, waits = Deadline(TIMEOUT), 0

        def wait(_: float) -> None:
            nonlocal waits
            waits += 1
            deadline.pass_now()

        assert len(registry.drain(deadline, wait, lambda: None)) == len(opened)
        assert waits == 1


def test_no_group_has_a_pause_once_the_deadline_was_brought_forward(
    opened: list[Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROUP", 1)
    deadline = Deadline(TIMEOUT)
    with closing(Group()) as registry:
        wait_for = registry._wait_for

        def pass_now(*arguments: Any) -> None:
            wait_for(*arguments)
            deadline.pass_now()

        monkeypatch.setattr(registry, "_wait_for", pass_now)
        registered(registry, opened).drain(deadline, no_wait, lambda: None)
        first, *others = [left for _, left in registry.waits]
        assert first > 0
        assert others == [0] * len(others) != []
