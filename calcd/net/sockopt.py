"""What the kernel knows and does about a socket, and Python has no method for."""

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from contextlib import suppress

_TIMEVAL = struct.Struct("@ll")
_IP_PKTINFO = 8  # Linux's number, which Python has no name for
_IN_PKTINFO = struct.Struct("@I4s4s")  # interface, address here, address in the packet's header
_IN6_ADDRESS = 16  # bytes of a struct in6_pktinfo; its interface follows

Ancillary = tuple[int, int, bytes]  # as recvmsg() gives it: level, type, data
DESTINATION_ROOM = socket.CMSG_SPACE(_IN6_ADDRESS + 4)  # bytes, for what tell_destination() brings


def set_read_wait(connection: socket.socket, seconds: float) -> None:
    """Let the kernel fail a read that waits longer (SO_RCVTIMEO), with BlockingIOError."""
    whole = int(seconds)
    timeval = _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def acknowledge_now(connection: socket.socket) -> None:
    """Acknowledge what arrives next at once (TCP_QUICKACK, see tcp(7)); no TCP, no effect.

    A client that has Nagle's algorithm waits for that when we have nothing to reply, as at the
    end of a handshake: without this for 0.04 s.
    """
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def unread(connection: socket.socket) -> int:
    """Count the bytes that have arrived and were not read yet."""
    return _count(connection, termios.FIONREAD)


def undelivered(connection: socket.socket) -> int:
    """Count the bytes that were sent and have not arrived at the peer's machine yet."""
    return _count(connection, termios.TIOCOUTQ)


def _count(connection: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(connection, request, bytes(4)), sys.byteorder)


def tell_destination(sock: socket.socket) -> None:
    """Let ``recvmsg`` tell with each datagram to which of this machine's addresses it came."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def from_there(told: Iterable[Ancillary]) -> list[Ancillary]:
    """Give what lets ``sendmsg`` answer a datagram from the address to which it came.

    The interface is left to the kernel: the way back may be another.
    """
    for level, kind, data in told:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, address, _ = _IN_PKTINFO.unpack(data)
            return [(level, kind, _IN_PKTINFO.pack(0, address, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return [(level, kind, data[:_IN6_ADDRESS].ljust(len(data), b"\0"))]
    return []
