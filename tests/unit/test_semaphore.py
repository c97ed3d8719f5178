"""The semaphore: in the order of arrival, and so many at the same time."""

import threading
from collections.abc import Callable
from functools import partial

from helpers import wait_until

from calcd.net.semaphore import FairSemaphore


def waits_behind(semaphore: FairSemaphore, others: int) -> bool:
    return len(semaphore._waiting) > others


def in_order(semaphore: FairSemaphore, names: str, held: Callable[[], object]) -> list[str]:
    """Let threads of these names wait for it, one after the other; tell who had it when."""
    had: list[str] = []

    def take(name: str) -> None:
        with semaphore:
            had.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in names]
    with semaphore:
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(partial(waits_behind, semaphore, number), "the thread to wait")
        held()
    for thread in threads:
        thread.join()
    return had


def test_a_semaphore_is_given_in_the_order_of_arrival() -> None:
    semaphore = FairSemaphore()
    for _ in range(3):
        assert in_order(semaphore, "abcdefgh", lambda: None) == list("abcdefgh")
    with semaphore:  # and is free again
        pass


def test_a_semaphore_lets_so_many_in_at_the_same_time() -> None:
    semaphore = FairSemaphore(2)
    for _ in range(2):
        with semaphore:
            assert in_order(semaphore, "abcd", lambda: None) == list("abcd")


def test_who_has_just_had_a_semaphore_waits_behind_the_others() -> None:
    semaphore, had = FairSemaphore(), list[str]()

    def twice() -> None:
        for _ in range(2):
            with semaphore:
                had.append("twice")
                if len(had) == 1:
                    wait_until(lambda: len(semaphore._waiting) == 1, "the other to wait")

    def once() -> None:
        with semaphore:
            had.append("once")

    first = threading.Thread(target=twice)
    first.start()
    wait_until(lambda: had, "the first turn")
    second = threading.Thread(target=once)
    second.start()
    first.join()
    second.join()
    assert had == ["twice", "once", "twice"]


def test_an_exception_gives_the_semaphore_back() -> None:
    semaphore = FairSemaphore()
    for _ in range(3):
        try:
            with semaphore:
                raise ValueError
        except ValueError:
            pass
    with semaphore:
        pass
