"""The grammar of PROXY headers: both versions, however their bytes are cut."""

import ipaddress

import proxy_headers as headers
import pytest
from header_strategies import HOSTS, PORTS, VALID, damaged
from hypothesis import given
from hypothesis import strategies as st

from calcd.core.closing import CloseReason
from calcd.core.proxyprotocol import Header, HeaderError, crc32c, parse

BAD, NONE = CloseReason.BAD_PROXY_HEADER, CloseReason.NO_PROXY_HEADER
LONGEST = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2)
UNIX_BODY = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


def told(data: bytes) -> str:
    """Return what the error of a header says."""
    with pytest.raises(HeaderError) as raised:
        parse(data)
    assert raised.value.reason is BAD
    return str(raised.value).removeprefix("ERR FORBIDDEN the PROXY header is not valid: ")


# Version 1


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1", 56324),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0", 0),
        (b"PROXY TCP4 255.249.199.10 1.1.1.1 65535 1\r\n", "255.249.199.10", 65535),
        (b"PROXY TCP6 2001:DB8::1 ::1 4000 12000\r\n", "2001:db8::1", 4000),
        (b"PROXY TCP6 2001:0db8:0:0:0:0:0:1 ::1 4 5\r\n", "2001:db8::1", 4),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4 5\r\n", "192.0.2.1", 4),
        (b"PROXY TCP6 ::ffff:c000:201 ::1 4 5\r\n", "192.0.2.1", 4),
        (LONGEST + b" 65535 65535\r\n", "ffff:" * 7 + "ffff", 65535),
    ],
)
def test_a_line_names_the_client(line: bytes, host: str, port: int) -> None:
    assert parse(line) == Header(len(line), host, port)
    assert parse(line + b"PING\r\n") == Header(len(line), host, port)


@pytest.mark.parametrize(
    "rest",
    [b"", b" ", b" TCP4 1.1.1.1", b" a\rb\nc\0d", b" " + b"ffff:" * 15 + b" 65535 65535"],
)
def test_what_follows_unknown_is_ignored(rest: bytes) -> None:
    line = b"PROXY UNKNOWN" + rest + b"\r\n"
    assert len(line) <= 107
    assert parse(line + b"PING\r\n") == Header(len(line), of_proxy=True)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",  # octal?
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1. 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 2001:db8:::1 ::2 1 2\r\n",
        b"PROXY TCP6 2001:db8::1::3 ::2 1 2\r\n",
        b"PROXY TCP6 2001:db8::1 x 1 2\r\n",
        b"PROXY TCP6 ::1 ::12345 1 2\r\n",
        b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN ".ljust(107 - 1, b"x") + b"\r\n",  # a byte too long
        b"PROXY TCP4 ".ljust(107, b"1"),
    ],
)
def test_a_line_that_is_not_exactly_right_is_refused(line: bytes) -> None:
    assert told(line).startswith("its line must be PROXY, TCP4 or TCP6, two addresses, ")


def test_a_line_has_107_bytes_at_most() -> None:
    line = b"PROXY UNKNOWN ".ljust(107 - 2, b"x") + b"\r\n"
    assert parse(line) == Header(107, of_proxy=True)
    assert parse(line[:-1]) is None


# Version 2


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("192.0.2.7", 40000, "192.0.2.7"),
        ("0.0.0.0", 0, "0.0.0.0"),
        ("255.255.255.255", 65535, "255.255.255.255"),
        ("2001:db8::7", 1, "2001:db8::7"),
        ("::ffff:192.0.2.7", 2, "192.0.2.7"),
    ],
)
def test_a_block_names_the_client(host: str, port: int, shown: str) -> None:
    block = headers.addressed(host, port)
    assert parse(block) == parse(block + b"PING\n") == Header(len(block), shown, port)


def test_it_may_have_values_of_any_type() -> None:
    tlvs = [headers.tlv(4, bytes(300))]
    tlvs += [headers.tlv(kind, bytes(kind % 20)) for kind in range(256) if kind != headers.CRC32C]
    block = headers.addressed("192.0.2.7", 4000, *tlvs)
    assert len(block) > 2048
    assert parse(block) == Header(len(block), "192.0.2.7", 4000)


def test_the_connection_of_a_proxy_itself_is_told_from_others() -> None:
    assert parse(headers.block(command=headers.LOCAL)) == Header(16, of_proxy=True)
    # Whatever it holds is to be ignored.
    local = headers.block(b"anything", headers.LOCAL, 15, 15)
    assert parse(local) == Header(24, of_proxy=True)
    assert parse(local[:-1]) is None


@pytest.mark.parametrize(
    ("family", "transport", "body"),
    [
        (0, 0, b""),
        (0, 0, b"anything"),
        (0, headers.STREAM, b""),
        (headers.INET, 0, b""),
        (headers.INET6, 0, b"abc"),
        (headers.UNIX, headers.STREAM, UNIX_BODY),
        (headers.UNIX, headers.STREAM, UNIX_BODY + headers.tlv(headers.NOOP, b"x")),
    ],
)
def test_a_client_without_an_address_has_none(family: int, transport: int, body: bytes) -> None:
    block = headers.block(body, headers.PROXY, family, transport)
    assert parse(block) == (len(block), "", 0, False)
    assert parse(block[:-1]) is None


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (headers.block(version=1), "its version must be 2, its command LOCAL or PROXY"),
        (headers.block(version=3), "its version must be 2, its command LOCAL or PROXY"),
        (headers.block(command=2), "its version must be 2, its command LOCAL or PROXY"),
        (headers.block(family=4), "its address family or transport is unknown"),
        (headers.block(transport=3), "its address family or transport is unknown"),
        (headers.block(family=15, transport=1), "its address family or transport is unknown"),
        (headers.addressed("192.0.2.7", 1, transport=headers.DGRAM), "its client sends datagrams"),
        (headers.addressed("::1", 1, transport=headers.DGRAM), "its client sends datagrams"),
        (headers.block(bytes(11), 1, headers.INET, 1), "no room"),
        (headers.block(bytes(35), 1, headers.INET6, 1), "no room"),
        (headers.block(bytes(215), 1, headers.UNIX, 1), "no room"),
        (headers.addressed("192.0.2.7", 1, b"\4"), "no room"),
        (headers.addressed("192.0.2.7", 1, b"\4\0"), "no room"),
        (headers.addressed("192.0.2.7", 1, b"\4\0\2x"), "no room"),
        (headers.addressed("192.0.2.7", 1, headers.tlv(3, bytes(4))), "its CRC32C"),
        (headers.addressed("192.0.2.7", 1, headers.tlv(3, bytes(3))), "its CRC32C"),
        (headers.block(length=4096 - 15), "it is longer than 4096 bytes"),
        (headers.block(length=65535, command=headers.LOCAL), "it is longer than 4096 bytes"),
    ],
)
def test_a_block_that_is_wrong_is_refused_with_its_fault(block: bytes, fault: str) -> None:
    assert fault in told(block)


def test_a_block_may_have_4096_bytes() -> None:
    assert parse(headers.block(length=4096 - 16)) is None
    block = headers.block(bytes(4096 - 16))
    assert parse(block) == Header(4096)


# The checksum


@given(st.binary(max_size=100))
def test_the_checksum_is_that_of_the_rfc(data: bytes) -> None:
    assert crc32c(b"123456789") == headers.checksum(b"123456789") == 0xE3069283
    if len(data) >= 4:
        assert crc32c(data) == headers.checksum(data)


@given(st.integers(0, 7), st.data())
def test_a_checked_header_that_a_bit_is_changed_in_is_refused(
    bit: int, data: st.DataObject
) -> None:
    values = [headers.tlv(headers.NOOP, b"padding"), headers.tlv(0x20, b"tls")]
    block = headers.checked("203.0.113.7", 4000, *values)
    assert parse(block) == Header(len(block), "203.0.113.7", 4000)
    place = data.draw(st.integers(16, 16 + 12 - 1))  # an address or a port
    wrong = bytearray(block)
    wrong[place] ^= 1 << bit
    assert told(bytes(wrong)) == "its CRC32C checksum is wrong"


# Any bytes


@given(HOSTS, PORTS)
def test_any_client_is_named(host: str, port: int) -> None:
    address = ipaddress.ip_address(host)
    shown = str(getattr(address, "ipv4_mapped", None) or address)
    for header in headers.line(host, port), headers.addressed(host, port):
        assert parse(header) == (len(header), shown, port, False)


Outcome = Header | str


def outcome_of(data: bytes) -> tuple[Outcome, int]:
    """Give bytes one by one until there is an outcome; return it, and how many that took."""
    for count in range(len(data) + 1):
        try:
            if header := parse(data[:count]):
                return header, count
        except HeaderError as error:
            return f"{error.reason} {error}", count
    return "more", len(data)


@given(st.one_of(damaged(), st.binary(max_size=150)), st.binary(max_size=20))
def test_any_bytes_have_one_outcome_however_they_are_cut(start: bytes, rest: bytes) -> None:
    data = start + rest
    outcome, count = outcome_of(data)
    for length in range(len(data) + 1):
        try:
            found: Header | str | None = parse(data[:length])
        except HeaderError as error:
            found = f"{error.reason} {error}"
        assert found == (None if length < count or outcome == "more" else outcome)
    if isinstance(outcome, Header):
        assert outcome.size == count


@given(VALID, st.binary(max_size=20))
def test_a_header_ends_where_it_should(header: bytes, rest: bytes) -> None:
    found = parse(header + rest)
    assert found
    assert found.size == len(header)


@pytest.mark.parametrize(
    "start",
    [b"SOMA 2 2\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PROXYTCP4", b"proxy ", b"\r\nPING\n"],
)
def test_another_start_is_no_header(start: bytes) -> None:
    with pytest.raises(HeaderError) as raised:
        parse(start)
    assert raised.value.reason is NONE
    assert str(raised.value).endswith("a connection from this proxy must begin with a PROXY header")
