"""Listeners for a test, in its own process."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from calcd.config.endpoints import parse_endpoint
from calcd.config.errors import ConfigError
from calcd.net.listeners import Listener, listen


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@contextmanager
def listening(*urls: str, reuse_port: bool = False) -> Iterator[list[Listener]]:
    """Listen on endpoints; no address may be left out."""
    listeners, left_out = listen(map(parse_endpoint, urls), reuse_port)
    with ExitStack() as at_end:
        for listener in listeners:
            at_end.callback(listener.close)
        assert left_out == []
        yield listeners


def failure(*urls: str) -> str:
    """Return the error for endpoints that cannot be listened on."""
    with pytest.raises(ConfigError) as caught:
        listen(map(parse_endpoint, urls))
    return str(caught.value)
