"""Addresses of clients, as accept(2) and recvmsg(2) give them."""

from typing import Any

from calcd.config.endpoints import join_host_port

# Host, port and for IPv6 two more; for a Unix socket its path or name.
Address = tuple[Any, ...] | str | bytes


def name_of(address: Address) -> str:
    """Return a client's name for the log: ``HOST:PORT``, or ``unix``."""
    return join_host_port(*address[:2]) if isinstance(address, tuple) else "unix"


def host_of(address: Address) -> str:
    """Return a client's host; ``""`` for a Unix socket."""
    return address[0] if isinstance(address, tuple) else ""
