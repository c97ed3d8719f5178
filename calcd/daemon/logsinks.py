"""Where log lines are written: a file, a pipe, a socket or the syslog.

``send`` writes lines, and returns 0 if poll(2) says for ``STALL_CHECK`` seconds that a write would
block. Only for regular files the kernel has no such call: a write to a disk that stalls blocks.
"""

import errno
import os
import select
import socket
import stat
from time import sleep

STALL_CHECK = 0.1  # seconds
_PAUSE = 0.01  # seconds after a write that would have blocked although poll(2) said otherwise
_MAX_DATAGRAM = 1 << 16  # bytes: the kernel refuses one that its buffer of about 200 KB cannot hold
_NEW_FILE_MODE = 0o640  # the log has clients' addresses, and at debug their requests


class NoReaderError(OSError):
    """A FIFO that no process reads."""


class FileSink:
    """A file, FIFO, pipe, terminal or stream socket. It owns its descriptor.

    ``end`` is what each line must end with.
    """

    end = b"\n"

    def __init__(self, fd: int) -> None:
        self.fd = fd
        mode = os.fstat(fd).st_mode
        # poll(2) first: O_NONBLOCK would change stderr for all processes that share it. Other
        # character devices may never report that they are ready.
        self._polls = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
        self._takes_all = stat.S_ISREG(mode)

    def send(self, data: bytes, start: int) -> int:
        """Write lines, from the index ``start`` on; return how many bytes were written."""
        if self._polls and not is_writable(self.fd, STALL_CHECK):
            return 0
        end = len(data)
        if not self._takes_all and end - start > select.PIPE_BUF:
            # A pipe takes PIPE_BUF bytes as a whole, and does not mix them with another writer's.
            end = start + select.PIPE_BUF
            end = data.rfind(self.end, start, end) + 1 or end
        try:
            return os.write(self.fd, data[start:end])
        except BlockingIOError:
            # Another process has filled the pipe meanwhile, or it is a device that poll(2) calls
            # writable at any time, such as a printer, or the master of a closed terminal.
            sleep(_PAUSE)
            return 0

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class SyslogSink:
    """The syslog's socket, which gets each line as a datagram. A line of more than 64 KiB is cut.

    If the syslog is missing or was restarted, the next ``send`` connects again.
    """

    end = b"\0"  # is not sent

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()

    def send(self, data: bytes, start: int) -> int:
        """Send the line at the index ``start``; return its size, with its end."""
        end = data.index(self.end, start)
        try:
            self._send(data[start : min(end, start + _MAX_DATAGRAM)])
        except BlockingIOError:
            is_writable(self.fd, STALL_CHECK)
            return 0
        return end + len(self.end) - start

    def _send(self, line: bytes) -> None:
        try:
            self._socket.send(line)
        except BlockingIOError:
            raise
        except OSError:
            self._socket.connect(self._path)
            self._socket.send(line)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def open_file(path: str) -> int:
    """Open a file to append to, or create it; return its descriptor, which does not block.

    Raise ``NoReaderError`` for a FIFO that no process reads, or another ``OSError``.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(path, flags, _NEW_FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):
            raise NoReaderError(errno.ENXIO, "no process reads this FIFO", path) from None
        raise


def is_writable(fd: int, timeout: float) -> bool:
    """Wait ``timeout`` seconds until a write would not block; return False if it still would."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout * 1000))
