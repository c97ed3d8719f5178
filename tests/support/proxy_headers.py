"""Headers of the PROXY protocol, as a proxy makes them."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0, 1
INET, INET6, UNIX = 1, 2, 3
STREAM, DGRAM = 1, 2
CRC32C, NOOP = 3, 4


def line(source: str, port: int, destination: str = "", destination_port: int = 12000) -> bytes:
    """Return a header of version 1."""
    kind, other = ("TCP6", "2001:db8::2") if ":" in source else ("TCP4", "192.0.2.2")
    destination = destination or other
    return f"PROXY {kind} {source} {destination} {port} {destination_port}\r\n".encode()


def block(
    body: bytes = b"",
    command: int = PROXY,
    family: int = 0,
    transport: int = 0,
    version: int = 2,
    length: int | None = None,
) -> bytes:
    """Return a header of version 2 with a body of addresses and TLVs."""
    length = len(body) if length is None else length
    numbers = bytes((version << 4 | command, family << 4 | transport))
    return SIGNATURE + numbers + length.to_bytes(2) + body


def addressed(source: str, port: int, *tlvs: bytes, transport: int = STREAM) -> bytes:
    """Return a header of version 2 with the address of a client."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    other = "2001:db8::2" if ":" in source else "192.0.2.2"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, other)
    body = addresses + struct.pack(">HH", port, 12000) + b"".join(tlvs)
    return block(body, PROXY, INET6 if ":" in source else INET, transport)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def checksum(data: bytes) -> int:
    """Return the CRC32C, bit by bit, as a division of polynomials (RFC 3720, appendix B.4)."""
    remainder = 0
    message = data + bytes(4)
    for number, byte in enumerate(message):
        byte ^= 0xFF if number < 4 else 0
        for bit in range(8):
            remainder = remainder << 1 | byte >> bit & 1
            if remainder >> 32:
                remainder ^= 0x11EDC6F41
    return int(f"{remainder ^ 0xFFFFFFFF:032b}"[::-1], 2)


def checked(source: str, port: int, *tlvs: bytes) -> bytes:
    """Return a header of version 2 whose checksum is right."""
    empty = addressed(source, port, *tlvs, tlv(CRC32C, bytes(4)))
    return empty[:-4] + checksum(empty).to_bytes(4)
