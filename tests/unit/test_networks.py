"""Networks: syntax, membership, and what counts as one host."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcd.config.networks import Networks, Proxies, counted_as, parse_network


def networks(text: str) -> Networks:
    return Networks(tuple(map(parse_network, text.split())))


# What may be named


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.0/8", "127.0.0.0/8"),
        ("192.168.1.7", "192.168.1.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("fe80::/10", "fe80::/10"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/80", "::/80"),
    ],
)
def test_a_network_is_read_and_shown(text: str, shown: str) -> None:
    assert str(networks(text)) == shown


def test_networks_are_shown_as_they_are_named() -> None:
    assert str(networks("::1 127.0.0.0/8\n10.0.0.1")) == "::1/128,127.0.0.0/8,10.0.0.1/32"
    assert str(Networks()) == ""


def test_the_same_networks_are_equal() -> None:
    assert networks("::1 10.0.0.1") == networks("0::1/128 10.0.0.1/32") != networks("::1")
    assert hash(networks("::1")) == hash(networks("::1/128"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "10", "10.0.0", "010.0.0.1", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/"),
        *("/8", "10.0.0.0/8/8", "10.0.0.0/8,", "[::1]", "::1/129", ":::", "\u0661.0.0.1", "1" * 99),
    ],
)
def test_a_wrong_network_is_reported_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a network or address: 192.168.1.0/24, 2001:db8::/32, "):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.1.2.3/8", "10.0.0.0/8 for the network, or 10.1.2.3 for that address alone"),
        ("2001:db8::1/64", "2001:db8::/64 for the network, or 2001:db8::1 for that address alone"),
        ("fe80::1%eth0", "an address without %: it is allowed on every interface"),
        ("fe80::%eth0/10", "an address without %: it is allowed on every interface"),
    ],
)
def test_host_bits_are_reported_with_a_correction(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        parse_network(text)


# Who is in them


@pytest.mark.parametrize(
    ("named", "inside", "outside"),
    [
        ("127.0.0.0/8", ["127.0.0.1", "127.255.255.255", "::ffff:127.0.0.1"], ["128.0.0.0", "::1"]),
        ("10.1.2.3", ["10.1.2.3", "::ffff:a01:203"], ["10.1.2.2", "10.1.2.4"]),
        ("::1", ["::1", "0:0::1"], ["::", "::2", "127.0.0.1", "0.0.0.1"]),
        ("fe80::/10", ["fe80::1", "fe80::1%eth0", "febf::1%2"], ["fec0::1", "fe7f::%eth0"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::1", "2001:db8::1"]),
        ("::/0", ["::1", "2001:db8::1"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ("::ffff:10.0.0.0/104", ["10.9.9.9", "::ffff:10.9.9.9"], ["11.0.0.0", "::10.9.9.9"]),
        ("10.0.0.0/8 10.0.0.0/9 ::1", ["10.255.0.0", "10.0.0.1", "::1"], ["11.0.0.0", "::3"]),
    ],
)
def test_who_may_connect(named: str, inside: list[str], outside: list[str]) -> None:
    allowed = networks(named)
    assert [host for host in inside if not allowed.allows(host)] == []
    assert [host for host in outside if allowed.allows(host)] == []


def test_without_networks_everybody_may_connect() -> None:
    assert all(map(Networks().allows, ("", "1.2.3.4", "::1", "fe80::1%eth0")))


def test_clients_of_a_unix_socket_always_may() -> None:
    assert networks("10.0.0.0/8").allows("")


_V4 = st.integers(0, 2**32 - 1)
# Addresses that often share their first bits, and those that wrap IPv4.
_V6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.builds(lambda head, rest: head << 125 | rest, st.integers(0, 3), st.integers(0, 255)),
    _V4.map(lambda number: 0xFFFF << 32 | number),
)
_NETWORKS = st.one_of(
    st.builds(lambda n, bits: ipaddress.IPv4Network((n, bits), False), _V4, st.integers(0, 32)),
    st.builds(lambda n, bits: ipaddress.IPv6Network((n, bits), False), _V6, st.integers(0, 128)),
)
_HOSTS = st.one_of(_V4.map(ipaddress.IPv4Address), _V6.map(ipaddress.IPv6Address))


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def expected(address: Address, named: list[Network]) -> bool:
    """Return the answer of ipaddress, also for IPv4 addresses mapped to IPv6."""
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in parse_network(str(network)) for network in named)


@given(st.lists(_NETWORKS, min_size=1), _HOSTS)
def test_any_answer_is_that_of_ipaddress(named: list[Network], host: Address) -> None:
    assert networks(" ".join(map(str, named))).allows(str(host)) == expected(host, named)


@given(st.lists(_NETWORKS, min_size=1))
def test_a_network_ends_where_it_should(named: list[Network]) -> None:
    allowed = networks(" ".join(map(str, named)))
    for network in named:
        first, last = int(network[0]), int(network[-1])
        for number in {max(first - 1, 0), first, last, min(last + 1, 2**network.max_prefixlen - 1)}:
            host = type(network[0])(number)
            assert allowed.allows(str(host)) == expected(host, named)


# Who counts as one


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("", ""),
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::%eth0/64"),
        ("fe80::2%eth1", "fe80::%eth1/64"),
    ],
)
def test_what_a_host_counts_as(host: str, counted: str) -> None:
    assert counted_as(host) == counted


@given(_HOSTS)
def test_an_ipv6_host_counts_as_its_network(host: Address) -> None:
    counted = counted_as(str(host))
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is None:
        assert ipaddress.ip_network(counted) == ipaddress.ip_network((host, 64), strict=False)
    else:
        assert ipaddress.ip_address(counted) == getattr(host, "ipv4_mapped", None) or host


# Proxies


def test_proxies_are_told_by_network_and_those_of_unix_sockets_by_a_word() -> None:
    nobody = Proxies()
    assert not any(host in nobody for host in ("", "192.0.2.1", "::1"))
    some = Proxies(networks("192.0.2.0/30 ::1"))
    assert [
        host for host in ("", "192.0.2.1", "::ffff:192.0.2.2", "192.0.2.4", "::1") if host in some
    ] == [
        "192.0.2.1",
        "::ffff:192.0.2.2",
        "::1",
    ]
    assert str(some) == "192.0.2.0/30,::1/128"
    both = Proxies(networks("::1"), unix=True)
    assert "" in both
    assert "::1" in both
    assert str(both) == "::1/128,unix"
    assert str(Proxies(unix=True)) == "unix"
    assert str(nobody) == ""
