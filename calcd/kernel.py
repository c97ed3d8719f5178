"""What the kernel knows and does about a socket, and Python has no method for."""

import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

_TIMEVAL = struct.Struct("@ll")


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
