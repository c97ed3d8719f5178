"""The header that a proxy puts before the bytes of its client: the PROXY protocol.

HAProxy's doc/proxy-protocol.txt (revision of 2020/03/05) specifies both versions: a line of text
(section 2.1) and a binary block (section 2.2).
"""

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from calcd.core.closing import ERRORS, CloseReason
from calcd.core.errors import RequestError
from calcd.core.preamble import PROXY_SIGNATURE

if TYPE_CHECKING:  # slow to import, and only IPv6 clients of proxies need it
    from ipaddress import IPv6Address

MAX_LINE = 107  # bytes of version 1, with CR LF
# Bytes of version 2. Its length field allows 65,551, but a header "is always smaller than an MSS";
# nginx has the same limit. 536 bytes have room for the addresses alone.
MAX_BLOCK = 4096

_PREFIX = b"PROXY "
_UNKNOWN = b"PROXY UNKNOWN"
_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rb"(?:%b\.){3}%b" % (_OCTET, _OCTET)
_IPV6 = rb"[0-9A-Fa-f:.]{2,39}"
_PORT = rb"(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:TCP4 (%b) %b|TCP6 (%b) (%b)) (%b) (%b)\r\n"
    % (_IPV4, _IPV4, _IPV6, _IPV6, _PORT, _PORT)
)
_UNKNOWN_LINE = re.compile(rb"PROXY UNKNOWN(?: .*)?\r\n", re.DOTALL)
_MAX_PORT = 65_535

_FIXED = 16  # bytes of version 2 before the addresses: signature, command, family, length
_LOCAL, _PROXY = 0x20, 0x21  # the version in the high half, the command in the low one
_UNSPEC, _INET, _INET6, _UNIX = range(4)  # address families
_STREAM, _DGRAM = 1, 2  # transports; 0: unspecified
_ADDRESSES = {_INET: 4, _INET6: 16, _UNIX: 108}  # bytes of each of two
_PORTS = 4  # bytes of both, after the addresses of _INET and _INET6
_TLV_HEAD = 3  # bytes of type and length
_CRC32C, _CRC32C_SIZE = 3, 4
_CRC32C_POLYNOMIAL = 0x82F63B78  # of Castagnoli, with its bits reversed: RFC 4960, appendix B


class HeaderError(RequestError):
    """A connection that does not begin with a valid header; ``reason`` is why it ends."""

    def __init__(self, reason: CloseReason, error: RequestError) -> None:
        super().__init__(error.code, error.template, *error.arguments)
        self.reason = reason


class Header(NamedTuple):
    """A complete header, of ``size`` bytes.

    ``host`` and ``port`` are the client's, an IPv4 address for one that is mapped to IPv6;
    ``""``: the header does not tell. ``of_proxy``: the proxy asks for itself, as health checks do.
    """

    size: int
    host: str = ""
    port: int = 0
    of_proxy: bool = False


def parse(data: bytes) -> Header | None:
    """Return the header that a connection's first bytes begin with; None if more bytes are needed.

    Raise ``HeaderError`` as soon as no bytes that may follow make it a valid one.
    """
    if PROXY_SIGNATURE.startswith(data[: len(PROXY_SIGNATURE)]):
        return _parse_block(data)
    if _PREFIX.startswith(data[: len(_PREFIX)]):
        return _parse_line(data)
    raise HeaderError(CloseReason.NO_PROXY_HEADER, ERRORS[CloseReason.NO_PROXY_HEADER])


def invalid(fault: str) -> HeaderError:
    """Return the error of a header that has a fault."""
    error = RequestError("FORBIDDEN", "the PROXY header is not valid: {}", (fault,))
    return HeaderError(CloseReason.BAD_PROXY_HEADER, error)


# Version 1


def _parse_line(data: bytes) -> Header | None:
    """Parse a line: ``PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT``, CR LF.

    What follows UNKNOWN is ignored.
    """
    end = data.find(b"\r\n", 0, MAX_LINE) + 2
    if end < 2:
        may_be_unknown = _UNKNOWN.startswith(data[: len(_UNKNOWN)])
        if len(data) < MAX_LINE and (may_be_unknown or b"\n" not in data):
            return None
        raise _invalid_line()
    line = data[:end]
    found = _LINE.fullmatch(line)
    if not found:
        if _UNKNOWN_LINE.fullmatch(line):
            return Header(end, of_proxy=True)
        raise _invalid_line()
    ipv4, source, destination, port, other_port = found.groups()
    if int(port) > _MAX_PORT or int(other_port) > _MAX_PORT:
        raise _invalid_line()
    if ipv4:
        return Header(end, ipv4.decode(), int(port))
    from ipaddress import IPv6Address

    try:
        host = _text(IPv6Address(source.decode()))
        IPv6Address(destination.decode())
    except ValueError:
        raise _invalid_line() from None
    return Header(end, host, int(port))


def _invalid_line() -> HeaderError:
    return invalid(
        "its line must be PROXY, TCP4 or TCP6, two addresses, two ports, and CR LF within 107 bytes"
    )


def _text(address: "IPv6Address") -> str:
    """Return the text of an address; of an IPv4 one if it stands for that."""
    return str(address.ipv4_mapped or address)


# Version 2


def _parse_block(data: bytes) -> Header | None:
    """Parse the signature, the command, the family, the length, addresses and TLVs."""
    if len(data) < _FIXED:
        return None
    command, family, transport = data[12], data[13] >> 4, data[13] & 15
    size = _FIXED + int.from_bytes(data[14:_FIXED])
    if command not in (_LOCAL, _PROXY):
        raise invalid("its version must be 2, its command LOCAL or PROXY")
    if size > MAX_BLOCK:
        raise invalid("it is longer than 4096 bytes")
    if command == _LOCAL:  # the family and all that follows are to be ignored
        return Header(size, of_proxy=True) if len(data) >= size else None
    if family > _UNIX or transport > _DGRAM:
        raise invalid("its address family or transport is unknown")
    if transport == _DGRAM:
        raise invalid("its client sends datagrams")
    if _UNSPEC in (family, transport):  # the addresses are to be ignored
        return Header(size) if len(data) >= size else None
    length = _ADDRESSES[family]
    end = _FIXED + 2 * length + (0 if family == _UNIX else _PORTS)
    if end > size:
        raise invalid("its length has no room for what is in it")
    if len(data) < size:
        return None
    _check_tlvs(data[:size], end)
    if family == _UNIX:
        return Header(size)
    source, port = data[_FIXED : _FIXED + length], int.from_bytes(data[end - _PORTS : end - 2])
    if family == _INET:
        return Header(size, ".".join(map(str, source)), port)
    from ipaddress import IPv6Address

    return Header(size, _text(IPv6Address(source)), port)


def _check_tlvs(block: bytes, begin: int) -> None:
    """See that each type, length and value is whole, and that a checksum among them is right.

    The checksum is that of the header with zeros in its place (section 2.2.3).
    """
    checksum = None
    while begin < len(block):
        value = begin + _TLV_HEAD
        end = value + int.from_bytes(block[begin + 1 : value])
        if end > len(block):
            raise invalid("its length has no room for what is in it")
        if block[begin] == _CRC32C:
            checksum = value, end
        begin = end
    if checksum:
        value, end = checksum
        zeroed = block[:value] + bytes(_CRC32C_SIZE) + block[value + _CRC32C_SIZE :]
        given = int.from_bytes(block[value:end])
        if end - value != _CRC32C_SIZE or crc32c(zeroed) != given:
            raise invalid("its CRC32C checksum is wrong")


def crc32c(data: bytes) -> int:
    """Return the CRC32C of bytes (RFC 4960, appendix B)."""
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
