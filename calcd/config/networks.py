"""Networks of clients: who may connect, and who counts as one."""

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Network = IPv4Network | IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"  # begins an IPv6 address that stands for an IPv4 one


@dataclass(frozen=True)
class Networks:
    """Networks that clients may come from; none: from anywhere."""

    networks: tuple["Network", ...] = ()
    # The leading bits of their addresses, by the address's length in bytes and the number of
    # bits that follow: however many networks there are, a client is looked up a few times.
    _heads: dict[int, dict[int, set[int]]] = field(
        init=False, repr=False, compare=False, default_factory=lambda: {4: {}, 16: {}}
    )

    def __post_init__(self) -> None:
        for network in self.networks:
            rest = network.max_prefixlen - network.prefixlen
            heads = self._heads[network.max_prefixlen // 8].setdefault(rest, set())
            heads.add(int(network.network_address) >> rest)

    def __str__(self) -> str:
        return ",".join(map(str, self.networks))

    def allows(self, host: str) -> bool:
        """Say whether a client may connect from ``host``; ``""``, a Unix socket, always may."""
        if not self.networks or not host:
            return True
        address = packed(host)
        number = int.from_bytes(address)
        return any(number >> rest in heads for rest, heads in self._heads[len(address)].items())


def parse_network(text: str) -> "Network":
    """Read a network, or an address as one; raise ``ValueError`` that completes "expected ..."."""
    from ipaddress import IPv4Network, ip_interface  # takes a while, and few name networks

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
    """Give an address as bytes: 4, also of an IPv4 one that is written as IPv6, or 16."""
    if ":" not in host:
        return socket.inet_aton(host)
    address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) else address


def counted_as(host: str) -> str:
    """Say what a client's address counts as: itself, or the /64 network that is a host's in IPv6.

    An interface stays part of it: a link-local address means nothing without.
    """
    if ":" not in host:
        return host
    address = packed(host)
    if len(address) == 4:
        return socket.inet_ntoa(address)
    _, percent, interface = host.partition("%")
    network = socket.inet_ntop(socket.AF_INET6, address[:8] + bytes(8))
    return f"{network}{percent}{interface}/64"
