"""A queue in which the hosts that have something in it take turns."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from calcd.config.networks import counted_as

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items in the order of arrival for each host; the hosts take turns.

    A host is what limits count: an IPv4 address or an IPv6 network of /64.
    """

    def __init__(self, limit: int, limit_per_host: int) -> None:
        self._limit, self._limit_per_host = limit, limit_per_host
        self._by_host: OrderedDict[str, deque[Item]] = OrderedDict()  # the next host comes first
        self._length = 0

    def __bool__(self) -> bool:
        return self._length > 0

    def put(self, host: str, item: Item) -> bool:
        """Add an item; return False if a limit is reached."""
        host = counted_as(host)
        items = self._by_host.get(host, deque())
        if self._length >= self._limit or len(items) >= self._limit_per_host:
            return False
        items.append(item)
        self._by_host.setdefault(host, items)
        self._length += 1
        return True

    def get(self) -> Item:
        """Remove and return the next item; raise KeyError if there is none."""
        host, items = self._by_host.popitem(last=False)
        if len(items) > 1:
            self._by_host[host] = items  # its next turn comes after those of all other hosts
        self._length -= 1
        return items.popleft()
