"""Turns: in the order of arrival, and a cheap one never behind several expensive ones."""

import threading
from collections.abc import Callable
from functools import partial

from helpers import wait_until

from calcd.net.turns import FairLock, Turns


def waits_behind(lock: FairLock, others: int) -> bool:
    return len(lock._waiting) > others


def in_order(lock: FairLock, names: str, held: Callable[[], object]) -> list[str]:
    """Let threads of these names wait for a lock, one after the other; tell who had it when."""
    had: list[str] = []

    def take(name: str) -> None:
        with lock:
            had.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in names]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(partial(waits_behind, lock, number), "the thread to wait")
        held()
    for thread in threads:
        thread.join()
    return had


def test_a_lock_is_given_in_the_order_of_arrival() -> None:
    lock = FairLock()
    for _ in range(3):
        assert in_order(lock, "abcdefgh", lambda: None) == list("abcdefgh")
    with lock:  # and is free again
        pass


def test_who_has_just_had_a_lock_waits_behind_the_others() -> None:
    lock, had = FairLock(), list[str]()

    def twice() -> None:
        for _ in range(2):
            with lock:
                had.append("twice")
                if len(had) == 1:
                    wait_until(lambda: len(lock._waiting) == 1, "the other to wait")

    def once() -> None:
        with lock:
            had.append("once")

    first = threading.Thread(target=twice)
    first.start()
    wait_until(lambda: had, "the first turn")
    second = threading.Thread(target=once)
    second.start()
    first.join()
    second.join()
    assert had == ["twice", "once", "twice"]


def test_an_exception_gives_the_lock_back() -> None:
    turns = Turns()
    for expensive in (True, False, True):
        try:
            with turns.take(expensive):
                raise ValueError
        except ValueError:
            pass
    with turns.take(True):
        pass


def test_a_cheap_turn_waits_for_one_expensive_line_at_the_most() -> None:
    turns, had = Turns(), list[str]()

    def take(name: str) -> None:
        with turns.take(name == "expensive"):
            had.append(name)

    with turns.take(True):
        expensive = [threading.Thread(target=take, args=("expensive",)) for _ in range(5)]
        for thread in expensive:
            thread.start()
        wait_until(lambda: len(turns._expensive._waiting) == 5, "expensive lines to wait")
        cheap = threading.Thread(target=take, args=("cheap",))
        cheap.start()
        wait_until(lambda: turns._turn._waiting, "the cheap one to wait")
    for thread in (*expensive, cheap):
        thread.join()
    assert had == ["cheap", *5 * ["expensive"]]
