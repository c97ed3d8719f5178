"""What accept() and recvmsg() give as a client's address."""

from typing import Any

from calcd.config.endpoints import joined

# Host, port and for IPv6 two more; for a Unix socket its path or name.
Address = tuple[Any, ...] | str | bytes


def name_of(address: Address) -> str:
    """Return a client's name for the log."""
    return joined(*address[:2]) if isinstance(address, tuple) else "unix"


def host_of(address: Address) -> str:
    """Return a client's host; ``""`` for one on a Unix socket."""
    return address[0] if isinstance(address, tuple) else ""
