"""What the kernel knows and does about a socket, and Python has no method for."""

import fcntl
import socket
import struct
import sys
import termios

_TIMEVAL = struct.Struct("@ll")


def set_wait(connection: socket.socket, option: int, seconds: float) -> None:
    """Let the kernel fail a read (SO_RCVTIMEO) or write (SO_SNDTIMEO) that waits longer.

    0 is for ever. The call fails with BlockingIOError.
    """
    whole = int(seconds)
    timeval = _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, option, timeval)


def unread(connection: socket.socket) -> int:
    """Count the bytes that have arrived and were not read yet."""
    return _count(connection, termios.FIONREAD)


def undelivered(connection: socket.socket) -> int:
    """Count the bytes that were sent and have not arrived at the peer's machine yet."""
    return _count(connection, termios.TIOCOUTQ)


def _count(connection: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(connection, request, bytes(4)), sys.byteorder)
