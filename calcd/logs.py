"""Where log lines go, and what they look like there.

Client bytes come to the log through ``errors.quoted``; as a second lock, no character that is
not printable leaves here, so a line in the log is always a line of the daemon's.
"""

import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

SYSLOG = "/dev/log"

_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_DAEMON = 3 << 3  # the facility, in syslog's numbers
_SYSLOG_PATIENCE = struct.pack("@ll", 1, 0)  # a second, as SO_SNDTIMEO takes it


def open_log(target: str, level: str) -> None:
    """Send the log to ``target`` from now on: ``stderr``, ``syslog`` or a file's path.

    ``level`` is the least severe that is shown. Raise ``OSError`` where the file cannot be
    opened; the log then goes where it went before.
    """
    _LOG.switch(_output(target))
    root = logging.getLogger()
    root.handlers = [_LOG]
    root.setLevel(level.upper())


def syslog_answers() -> bool:
    """Tell whether there is a syslog that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(SYSLOG) == 0


class _Output(Protocol):
    """Where records are written; ``write`` raises ``OSError`` where it cannot.

    ``wait`` says whether it may take a moment.
    """

    def write(self, record: logging.LogRecord, wait: bool, /) -> None: ...

    def close(self) -> None: ...


class _Log(logging.Handler):
    """The one handler there is: its output changes, so that no record falls in between.

    A log that cannot be written, be it that the disk is full, does not stop the service. What
    it loses is told on stderr when that begins, and in the log when it is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._output: _Output | None = None
        self._lost = 0

    def switch(self, output: _Output | None) -> None:
        """Write to ``output`` from now on, and close what was written to before."""
        self.acquire()
        before, self._output = self._output, output
        self.release()
        if before is not None:
            before.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the one who logs it is not told how that went."""
        if self._output is None:
            return
        healthy = not self._lost  # else a record is not waited for: it would be one after another
        try:
            if self._lost:
                note = _warning(f"{self._lost} log records were lost before this")
                self._output.write(note, False)
                self._lost = 0
            self._output.write(record, healthy)
        except OSError as error:
            if healthy:
                _tell_stderr(f"cannot write the log: {error.strerror}: lines are lost until it can")
            self._lost += 1
        except Exception:  # a bug in what was logged
            self.handleError(record)


_LOG = _Log()


class _File:
    """A file or stream. A record is one write: so several instances can share a file."""

    def __init__(self, fd: int, head: Callable[[logging.LogRecord], str]) -> None:
        self._fd = fd
        self._head = head

    def write(self, record: logging.LogRecord, _wait: bool) -> None:
        head = self._head(record)
        os.write(self._fd, "".join(f"{head}{line}\n" for line in _lines(record)).encode())

    def close(self) -> None:
        os.close(self._fd)


class _Syslog:
    """The syslog of this machine, which may come and go: each line is sent to its address."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SYSLOG_PATIENCE)

    def write(self, record: logging.LogRecord, wait: bool) -> None:
        flags = 0 if wait else socket.MSG_DONTWAIT
        head = f"<{_DAEMON | _PRIORITIES[record.levelno]}>calcd[{os.getpid()}]: "
        for line in _lines(record):
            self._socket.sendto(f"{head}{line}".encode(), flags, SYSLOG)

    def close(self) -> None:
        self._socket.close()


def _output(target: str) -> _Output:
    if target == "syslog":
        return _Syslog()
    if target == "stderr":
        fd = os.dup(sys.stderr.fileno())
        return _File(fd, _priority_head if _is_journal(fd) else _time_head)
    return _File(os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), _time_head)


def _lines(record: logging.LogRecord) -> list[str]:
    """Give a record as printable lines; a mark tells a traceback's from the daemon's own."""
    lines = [_printable(record.getMessage())]
    if record.exc_info:
        traceback = _FORMATTER.formatException(record.exc_info).split("\n")
        lines += [f"| {_printable(line)}" for line in traceback]
    return lines


def _printable(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")


def _priority_head(record: logging.LogRecord) -> str:
    """Give the prefix that sd-daemon(3) reads; the journal stamps the time itself."""
    return f"<{_PRIORITIES[record.levelno]}>"


def _time_head(record: logging.LogRecord) -> str:
    return f"{_FORMATTER.formatTime(record)} {record.levelname.lower()}: "


_FORMATTER = logging.Formatter()


def _is_journal(fd: int) -> bool:
    """Tell whether the descriptor is the very stream that systemd tied to the journal."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _warning(words: str) -> logging.LogRecord:
    level = logging.WARNING
    return logging.makeLogRecord(
        {"levelno": level, "levelname": logging.getLevelName(level), "msg": words}
    )


def _tell_stderr(words: str) -> None:
    with suppress(OSError):  # it may be what cannot be written
        os.write(sys.stderr.fileno(), f"calcd: {words}\n".encode())
