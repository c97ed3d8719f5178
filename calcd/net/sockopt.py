"""Linux socket options and ioctls that `socket` has no method for."""

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from contextlib import suppress

_IP_PKTINFO = 8  # Linux's number, which Python has no name for
_IN_PKTINFO = struct.Struct("@I4s4s")  # interface, address here, address in the packet's header
_IN6_ADDRESS = 16  # bytes of a struct in6_pktinfo; its interface follows

Ancillary = tuple[int, int, bytes]  # as recvmsg() gives it: level, type, data
PKTINFO_SPACE = socket.CMSG_SPACE(_IN6_ADDRESS + 4)  # bytes, for what enable_pktinfo() brings


def acknowledge_now(connection: socket.socket) -> None:
    """Acknowledge the next segment at once (TCP_QUICKACK, see tcp(7)); no effect without TCP.

    A client with Nagle's algorithm waits for the acknowledgement when there is no reply, as at the
    end of a handshake: a delayed one takes 0.04 s.
    """
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def bytes_readable(connection: socket.socket) -> int:
    """Return the number of bytes that have arrived and were not read yet (FIONREAD)."""
    return _count(connection, termios.FIONREAD)


def bytes_unacked(connection: socket.socket) -> int:
    """Return the number of bytes that the peer has not acknowledged yet (SIOCOUTQ)."""
    return _count(connection, termios.TIOCOUTQ)


def _count(connection: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(connection, request, bytes(4)), sys.byteorder)


def enable_pktinfo(sock: socket.socket) -> None:
    """Have ``recvmsg`` return with each datagram the address of this machine that it came to."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def reply_pktinfo(ancillary: Iterable[Ancillary]) -> list[Ancillary]:
    """Return the ancillary data for ``sendmsg`` to answer from the address that was asked.

    The kernel chooses the interface: the way back may be another.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, address, _ = _IN_PKTINFO.unpack(data)
            return [(level, kind, _IN_PKTINFO.pack(0, address, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return [(level, kind, data[:_IN6_ADDRESS].ljust(len(data), b"\0"))]
    return []
