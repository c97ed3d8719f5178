"""Networks of clients: which may connect, and which addresses count as one host."""

import socket
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Network = IPv4Network | IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"  # begins an IPv6 address that stands for an IPv4 one
_IPV6_LOOPBACK = bytes(15) + b"\x01"  # ::1


@dataclass(frozen=True)
class Networks:
    """Networks that clients may connect from. Without networks, all clients may connect."""

    networks: tuple["Network", ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, self.networks))

    def allows(self, host: str) -> bool:
        """Return True if ``host`` may connect; ``""``, a client of a Unix socket, always may."""
        return not self.networks or not host or host in self

    def __contains__(self, host: str) -> bool:
        """Return True if the address ``host`` is in one of the networks."""
        if not self.networks:
            return False
        address = packed(host)
        number = int.from_bytes(address)
        return any(
            length == len(address) and number >> host_bits in prefixes
            for (length, host_bits), prefixes in self._prefixes.items()
        )

    @cached_property
    def _prefixes(self) -> dict[tuple[int, int], set[int]]:
        """Prefixes as integers, by address length in bytes and number of host bits.

        A look-up takes as long as there are prefix lengths, not networks: who is refused may ask
        for it many times a second.
        """
        found = defaultdict(set)
        for network in self.networks:
            host_bits = network.max_prefixlen - network.prefixlen
            prefix = int(network.network_address) >> host_bits
            found[network.max_prefixlen // 8, host_bits].add(prefix)
        return found


@dataclass(frozen=True)
class Proxies:
    """The proxies whose connections begin with a PROXY header: by network, or of Unix sockets."""

    networks: Networks = Networks()
    unix: bool = False

    def __str__(self) -> str:
        return ",".join(filter(None, (str(self.networks), "unix" * self.unix)))

    def __contains__(self, host: str) -> bool:
        """Return True if connections from ``host`` do; ``""`` is a client of a Unix socket."""
        return host in self.networks if host else self.unix

    @property
    def are_everybody(self) -> bool:
        """Whether one of the networks has all addresses of IPv4 or IPv6."""
        return any(network.prefixlen == 0 for network in self.networks.networks)


def parse_network(text: str) -> "Network":
    """Parse a network, or an address as one. A ``ValueError`` says what was expected."""
    from ipaddress import IPv4Network, ip_interface  # slow to import, seldom needed

    if "%" in text:
        raise ValueError("an address without %: it is allowed on every interface")
    try:
        given = ip_interface(text)
    except ValueError:
        raise ValueError("a network or address: 192.168.1.0/24, 2001:db8::/32, ::1") from None
    network = given.network
    if given.ip != network.network_address:
        raise ValueError(f"{network} for the network, or {given.ip} for that address alone")
    mapped = getattr(given.ip, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= len(_MAPPED) * 8:
        return IPv4Network((mapped, network.prefixlen - len(_MAPPED) * 8))
    return network


def packed(host: str) -> bytes:
    """Return an address as 16 bytes, or 4 for IPv4, also when it is mapped to IPv6."""
    if ":" not in host:
        return socket.inet_aton(host)
    address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) else address


def is_loopback(host: str) -> bool:
    """Return True if only this machine reaches the address: ``::1``, or one of ``127.0.0.0/8``."""
    address = packed(host)
    return address[0] == 127 if len(address) == 4 else address == _IPV6_LOOPBACK


def counted_as(host: str) -> str:
    """Return the host that a client's address counts as: itself, or its /64 network for IPv6.

    A scope (``%eth0``) is kept: a link-local address is not unique without it.
    """
    if ":" not in host:
        return host
    address = packed(host)
    if len(address) == 4:
        return socket.inet_ntoa(address)
    _, percent, scope = host.partition("%")
    network = socket.inet_ntop(socket.AF_INET6, address[:8] + bytes(8))
    return f"{network}{percent}{scope}/64"
