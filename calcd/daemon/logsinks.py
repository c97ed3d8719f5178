"""Sinks: the places that log lines are written to, each with a descriptor of its own.

``send`` does not block: it raises ``BlockingIOError``, and poll(2) tells when to try again. Only
for a file the kernel has no such way: a write to a disk that stalls blocks.
"""

import errno
import os
import select
import socket
import stat
import sys
from typing import Protocol

_NEW_FILE_MODE = 0o640  # a log has addresses of clients, and at debug what they ask
# A pipe takes this many bytes as a whole or not at all, and mixes no other writer's into them.
_ATOMIC = select.PIPE_BUF


class NoReaderError(OSError):
    """A FIFO that no process reads."""


class Sink(Protocol):
    """Takes records that ``frame`` has made of lines.

    ``size`` is how many bytes one ``send`` should be given at most, as whole records; a longer
    record comes alone.
    """

    size: int

    def frame(self, line: str) -> bytes:
        """Return the bytes that stand for a line."""

    def send(self, data: bytes | memoryview) -> int:
        """Write; return how many bytes were taken.

        Raise ``BlockingIOError`` where none can be now, another ``OSError`` where writing fails.
        """

    def fileno(self) -> int:
        """Return the descriptor to wait for."""

    def close(self) -> None:
        """Close the descriptor."""


class StreamSink:
    """A file, a FIFO, a pipe or a terminal. It owns the descriptor that it is given."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        mode = os.fstat(fd).st_mode
        # Of these poll(2) is to be asked first. Some devices never say that they take data.
        self._polls = stat.S_ISFIFO(mode) or os.isatty(fd)
        self.size = sys.maxsize if stat.S_ISREG(mode) else _ATOMIC

    def frame(self, line: str) -> bytes:
        """Return the line in UTF-8, with its end."""
        return f"{line}\n".encode("utf-8", "backslashreplace")

    def send(self, data: bytes | memoryview) -> int:
        """Write, if there is room for it; return how many bytes were taken."""
        # Stderr's descriptor blocks: O_NONBLOCK would be for all processes that share it.
        if self._polls and not takes_data(self._fd, 0):
            raise BlockingIOError
        return os.write(self._fd, data[: self.size])

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def is_file_of(self, fd: int) -> bool:
        """Tell whether another descriptor is of the same file."""
        return os.path.samestat(os.fstat(self._fd), os.fstat(fd))


class SocketSink(StreamSink):
    """A stream socket, such as the stderr that systemd ties to the journal."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._socket = socket.socket(fileno=fd)

    def send(self, data: bytes | memoryview) -> int:
        """Send what there is room for; return how many bytes."""
        return self._socket.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Close the descriptor."""
        self._socket.close()


class SyslogSink:
    """The syslog's socket, which gets each record as a datagram.

    A syslog that is missing or restarted is looked for again with each record.
    """

    size = 0

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def frame(self, line: str) -> bytes:
        """Return the line in UTF-8."""
        return line.encode("utf-8", "backslashreplace")

    def send(self, data: bytes | memoryview) -> int:
        """Send a record, after another ``connect`` if need be."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            raise
        except OSError:
            self._socket.connect(self._path)
            return self._socket.send(data)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the descriptor."""
        self._socket.close()


def open_file(path: str) -> int:
    """Open a file to append to, made if need be; return its descriptor, which does not block.

    Raise ``NoReaderError`` for a FIFO that no process reads, another ``OSError`` where it cannot
    be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(path, flags, _NEW_FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):
            raise NoReaderError(errno.ENXIO, "it is a FIFO that no process reads", path) from None
        raise


def stderr_sink() -> StreamSink:
    """Return a sink for what stderr is now."""
    fd = os.dup(sys.stderr.fileno())
    return SocketSink(fd) if stat.S_ISSOCK(os.fstat(fd).st_mode) else StreamSink(fd)


def takes_data(fd: int, seconds: float) -> bool:
    """Wait until a descriptor takes data, or writing fails at once; say whether it is so."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
