"""The fair queue: in order for each host, the hosts in turn, within its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcd.net.fairqueue import FairQueue


def drained(queue: FairQueue[int]) -> list[int]:
    items = []
    while queue:
        items.append(queue.get())
    return items


def test_items_of_one_host_keep_their_order() -> None:
    queue: FairQueue[int] = FairQueue(10, 10)
    for number in range(5):
        assert queue.put("192.0.2.1", number)
    assert drained(queue) == [0, 1, 2, 3, 4]


def test_hosts_take_turns() -> None:
    queue: FairQueue[int] = FairQueue(100, 100)
    for number in range(4):
        queue.put("192.0.2.1", number)
    queue.put("192.0.2.2", 10)
    queue.put("192.0.2.2", 11)
    queue.put("", 20)
    assert drained(queue) == [0, 10, 20, 1, 11, 2, 3]


def test_a_host_that_comes_again_waits_behind_the_others() -> None:
    queue: FairQueue[int] = FairQueue(100, 100)
    queue.put("a", 0)
    queue.put("b", 1)
    assert queue.get() == 0
    queue.put("a", 2)
    assert drained(queue) == [1, 2]


def test_addresses_of_one_ipv6_network_are_one_host() -> None:
    queue: FairQueue[int] = FairQueue(100, 2)
    assert queue.put("2001:db8::1", 0)
    assert queue.put("2001:db8::2", 1)
    assert not queue.put("2001:db8::3", 2)
    assert queue.put("2001:db8:0:1::1", 3)
    assert drained(queue) == [0, 3, 1]


def test_limits_refuse_and_removing_makes_room() -> None:
    queue: FairQueue[int] = FairQueue(3, 2)
    assert [queue.put("a", 0), queue.put("a", 1), queue.put("a", 2)] == [True, True, False]
    assert [queue.put("b", 3), queue.put("c", 4)] == [True, False]
    assert queue.get() == 0
    assert queue.put("c", 5)
    assert drained(queue) == [3, 1, 5]
    assert not queue
    with pytest.raises(KeyError):
        queue.get()


@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=60))
def test_whatever_is_put_comes_out_once_and_in_order_for_its_host(steps: list[str | None]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(20, 8)
    put, got = [], []
    for number, host in enumerate(steps):
        if host is None:
            if queue:
                got.append(queue.get())
        elif queue.put(host, (host, number)):
            put.append((host, number))
    while queue:
        got.append(queue.get())
    assert sorted(got) == sorted(put)
    for host in "abc":
        assert [each for each in got if each[0] == host] == [
            each for each in put if each[0] == host
        ]
