"""Memory is given back when it has been used, and not all the time."""

import ctypes
import subprocess
import sys

import pytest
from helpers import clean_environment

from calcd.daemon import memory as trim
from calcd.daemon.memory import AFTER, EVERY, Trim, give_back


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the times at which memory was given back, by the clock of ``now``."""
    times: list[float] = []
    monkeypatch.setattr(trim, "give_back", lambda: times.append(now[0]))
    return times


now = [0.0]


def look_round(each: Trim, *looks: tuple[float, int]) -> None:
    for time, connections in looks:
        now[0] = time
        each(connections)


def test_nobody_was_there_nothing_is_given_back(given_back: list[float]) -> None:
    look_round(Trim(lambda: now[0]), (100, 0), (200, 0))
    assert given_back == []


def test_while_clients_are_there_it_is_given_back_now_and_then(given_back: list[float]) -> None:
    looks = [(100 + tenth / 10, 5) for tenth in range(250)]
    look_round(Trim(lambda: now[0]), *looks)
    assert given_back == [100, 100 + EVERY, 100 + 2 * EVERY]


def test_when_the_last_has_gone_it_is_given_back_soon_and_once(given_back: list[float]) -> None:
    look_round(Trim(lambda: now[0]), (100, 5), (100.5, 0), (100 + AFTER, 0), (105, 0), (200, 0))
    assert given_back == [100, 100 + AFTER]


def test_a_c_library_without_it_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back()


_ARENAS = """
import ctypes, sys, threading
from calcd.daemon.memory import limit_arenas
if sys.argv[1:]:
    limit_arenas()
barrier = threading.Barrier(20)
threads = [threading.Thread(target=lambda: (bytearray(5000), barrier.wait())) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def test_many_threads_share_two_arenas() -> None:
    def arenas(*limited: str) -> int:
        command = [sys.executable, "-c", _ARENAS, *limited]
        done = subprocess.run(command, capture_output=True, check=True, env=clean_environment())
        return done.stdout.count(b"<heap nr=")

    assert arenas("limited") == 2
    assert arenas() > 2
