"""Where log lines go, and what they look like there.

Client bytes come to the log through ``errors.quoted``; as a second lock, no character that is
not printable leaves here, so a line in the log is always a line of the daemon's.
"""

import io
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import SysLogHandler
from typing import TextIO

from calcd.lograte import LOG_RATE

SYSLOG = "/dev/log"

# What no line shows need not be found out for each: thread, process, place in the code.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None

_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def open_log(target: str, level: str) -> None:
    """Send the log to ``target`` from now on: ``stderr``, ``syslog`` or a file's path.

    ``level`` is the least severe that is shown. Raise ``OSError`` where the file cannot be
    opened; the log then goes where it went before.
    """
    handler: logging.Handler
    stream: TextIO
    if target == "syslog":
        handler, stream = _Syslog(), io.StringIO()
    else:
        handler, stream = _STREAM, _stream(target)
        to_journal = target == "stderr" and _is_journal(sys.stderr.fileno())
        handler.setFormatter(_Lines(_priority_head if to_journal else _TimeHead()))
    LOG_RATE.tell(at_once=True)  # to where it was left out
    handler.filters = [] if level == "debug" else [LOG_RATE]
    before = _STREAM.setStream(stream)
    if before is not None:
        before.close()
    root = logging.getLogger()
    others, root.handlers = root.handlers, [handler]
    root.setLevel(level.upper())
    for other in others:
        if other is not handler:
            other.close()


def complain(words: str) -> None:
    """Say on stderr, in one line, what is not for the log or cannot get there."""
    with suppress(OSError):
        fd = sys.stderr.fileno()
        head = f"<{_PRIORITIES[logging.ERROR]}>" if _is_journal(fd) else "calcd: "
        os.write(fd, f"{head}{_printable(words)}\n".encode())


def syslog_answers() -> bool:
    """Tell whether there is a syslog that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(SYSLOG) == 0


class _Lines(logging.Formatter):
    """Gives a record as printable lines that have the same head, a traceback's too."""

    def __init__(self, head: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._head = head

    def format(self, record: logging.LogRecord) -> str:
        head, text = self._head(record), _printable(record.getMessage())
        if record.exc_info:
            traceback = self.formatException(record.exc_info).split("\n")
            text = f"\n{head}| ".join([text, *map(_printable, traceback)])
        return head + text


class _CountsLosses(logging.Handler):
    """A log that fails to be written, be it that the disk is full, does not stop the service.

    What is lost is told on stderr when that begins, and in the log when it is over.
    """

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        lost = self._lost
        super().emit(record)
        if 0 < lost == self._lost:
            self._lost = 0
            words = {"msg": f"{lost} log records were lost before the last one"}
            level = {"levelno": logging.WARNING, "levelname": "WARNING"}
            super().emit(logging.makeLogRecord(words | level))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 (logging's)
        if not self._lost:
            reason = getattr(sys.exc_info()[1], "strerror", None) or sys.exc_info()[1]
            complain(f"cannot write the log: {reason}: lines are lost until it can")
        self._lost += 1


class _Stream(_CountsLosses, logging.StreamHandler[TextIO]):
    def flush(self) -> None:
        """Do nothing: its streams hold nothing back."""


class _Syslog(_CountsLosses, SysLogHandler):
    append_nul = False

    def __init__(self) -> None:
        super().__init__(SYSLOG, facility=SysLogHandler.LOG_DAEMON)
        self.ident = f"calcd[{os.getpid()}]: "
        self.setFormatter(_Lines(lambda _: ""))


# The one for stderr and files: its stream changes, so that no record falls in between.
_STREAM = _Stream(io.StringIO())


def _stream(target: str) -> TextIO:
    """Open a stream that holds nothing back: what it could not write is not tried again."""
    file = os.dup(sys.stderr.fileno()) if target == "stderr" else target
    raw = io.FileIO(file, "ab")
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)


def _priority_head(record: logging.LogRecord) -> str:
    """Give the prefix that sd-daemon(3) reads; the journal stamps the time itself."""
    return f"<{_PRIORITIES[record.levelno]}>"


class _TimeHead:
    """Gives the prefix of a line that is for a file: ``2026-01-31 12:00:00,123 info: ``.

    To write a time costs more than the rest of a line, and the next is often of the same second.
    """

    _clock = logging.Formatter()
    _second = 0
    _text = ""

    def __call__(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._second, self._text = second, self._clock.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{self._text},{int(record.msecs):03d} {record.levelname.lower()}: "


def _is_journal(fd: int) -> bool:
    """Tell whether the descriptor is the very stream that systemd tied to the journal."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _printable(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
