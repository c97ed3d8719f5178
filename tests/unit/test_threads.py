"""Threads that wait for work."""

import threading
from collections.abc import Iterator

import pytest
from helpers import TIMEOUT, wait_until

from calcd.net import threads
from calcd.net.threads import IdleThreads


@pytest.fixture
def pool() -> Iterator[IdleThreads]:
    """Give threads that are ended with the test."""
    idle = IdleThreads("test")
    yield idle
    idle.end(TIMEOUT)


def running() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "test"}


def test_jobs_run_at_once_however_many(pool: IdleThreads) -> None:
    all_here = threading.Barrier(51)
    for _ in range(50):
        pool.run(lambda: all_here.wait(TIMEOUT))
    all_here.wait(TIMEOUT)


def test_an_idle_thread_takes_the_next_job(pool: IdleThreads) -> None:
    ran_in: list[int] = []
    for _ in range(5):
        pool.run(lambda: ran_in.append(threading.get_ident()))
        wait_until(lambda: pool._idle == 1, "the thread to be idle again")
    assert len(ran_in) == 5
    assert len(set(ran_in)) == 1


def test_idle_threads_beyond_those_kept_end(pool: IdleThreads) -> None:
    go = threading.Event()
    for _ in range(threads.KEPT + 10):
        pool.run(lambda: go.wait(TIMEOUT))
    assert len(running()) == threads.KEPT + 10
    go.set()
    wait_until(lambda: len(running()) == threads.KEPT, "the others to end")


def test_the_end_ends_them_all() -> None:
    pool = IdleThreads("test")
    for _ in range(5):
        pool.run(lambda: None)
    pool.end(TIMEOUT)
    assert not running()
