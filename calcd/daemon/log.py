"""Where log lines go, and what they look like there.

Client bytes come to the log through ``errors.printable``; as a second lock, no character that is
not printable leaves here, so a line in the log is always a line of the daemon's.
"""

import logging
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import SysLogHandler

from calcd.daemon.logsinks import Sink, StreamSink, SyslogSink, open_file, stderr_sink, takes_data
from calcd.daemon.logwriter import LogWriter
from calcd.daemon.ratelimit import RATE_LIMIT

SYSLOG = "/dev/log"
_PATIENCE = 1.0  # seconds to wait for a log or a stderr that takes nothing

# What no line shows need not be found out for each: thread, process, place in the code.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None

log = logging.getLogger(__name__)

_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def open_log(target: str, level: str) -> None:
    """Send the log to ``target`` from now on: ``stderr``, ``syslog`` or a file's path.

    ``level`` is the least severe that is shown. A target that the log has already is kept as it
    is, unless its path leads to another file by now. Raise ``OSError`` where it cannot be opened;
    the log then goes where it went before.
    """
    writer = _new_writer(target)
    RATE_LIMIT.report(now=True)  # to where it was left out
    _HANDLER.filters = [] if level == "debug" else [RATE_LIMIT]
    before = _HANDLER.switch(writer, target) if writer else None
    root = logging.getLogger()
    others, root.handlers = root.handlers, [_HANDLER]
    root.setLevel(level.upper())
    for other in others:
        if other is not _HANDLER:
            other.close()
    if before and (lost := before.close(_PATIENCE)):
        log.warning("%d log records were lost: the log before this one did not take them", lost)


def flush_log() -> None:
    """Wait until all lines so far are written or lost, for a second at most."""
    if _HANDLER.writer:
        _HANDLER.writer.flush(_PATIENCE)


def close_log() -> None:
    """Write all lines so far, for a second at most, and end the log; later lines are lost."""
    target = _HANDLER.target
    before = _HANDLER.switch(None, "")
    if before and (lost := before.close(_PATIENCE)) and target != "stderr":
        print_error(f"{lost} log records were lost at the end: the log did not take them")


@contextmanager
def log_closed_at_end() -> Iterator[None]:
    """Close the log, if it was opened, when the block ends."""
    try:
        yield
    finally:
        close_log()


def print_error(words: str) -> None:
    """Say on stderr, in one line, what is not for the log or cannot get there.

    A stderr that takes nothing within a second is left alone.
    """
    with suppress(OSError):
        fd = sys.stderr.fileno()
        head = f"<{_PRIORITIES[logging.ERROR]}>" if _is_journal(fd) else "calcd: "
        line = f"{head}{_printable(words)}".encode()
        if takes_data(fd, _PATIENCE):
            # A pipe that takes data may have room for no more than this.
            os.write(fd, line[: select.PIPE_BUF - 1] + b"\n")


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


class _Handler(logging.Handler):
    """Hands lines to the writer of the log that is open, if one is.

    There is one handler for all logs: it goes from one to the next under its lock, so that no
    line falls in between.
    """

    writer: LogWriter | None = None
    target = ""

    def switch(self, writer: LogWriter | None, target: str) -> LogWriter | None:
        """Hand lines to another writer from now on; return the one before."""
        self.acquire()
        try:
            before, self.writer, self.target = self.writer, writer, target
            self.setFormatter(_formatter(target))
            return before
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        if self.writer is None:
            return
        try:
            self.writer.put(self.format(record))
        except Exception:  # what cannot be shown must not fail where it is logged
            self.writer.lose()


_HANDLER = _Handler()


def _new_writer(target: str) -> LogWriter | None:
    """Open a log; return what writes it, or None where it is the one that is open."""
    current = _HANDLER.writer if _HANDLER.target == target else None
    if current and target in ("stderr", "syslog"):
        return None
    sink = _open_sink(target)
    if current and isinstance(sink, StreamSink) and sink.is_file_of(current.sink.fileno()):
        sink.close()
        return None
    formatter = _formatter(target)  # its own, as it is for another thread

    def describe_loss(lost: int) -> str:
        words = f"{lost} log records were lost before this one"
        level = {"levelno": logging.WARNING, "levelname": "WARNING"}
        return formatter.format(logging.makeLogRecord({"msg": words, **level}))

    return LogWriter(sink, describe_loss, _do_nothing if target == "stderr" else print_error)


def _do_nothing(_: str) -> None:
    """Complain about stderr to nobody: there is no other place."""


def _open_sink(target: str) -> Sink:
    if target == "stderr":
        return stderr_sink()
    return SyslogSink(SYSLOG) if target == "syslog" else StreamSink(open_file(target))


def _formatter(target: str) -> logging.Formatter:
    if target == "syslog":
        return _SyslogLines()
    to_journal = target == "stderr" and _is_journal(sys.stderr.fileno())
    return _Lines(_priority_head if to_journal else _TimeHead())


class _SyslogLines(logging.Formatter):
    """Gives a record as a message for the syslog, which stamps the time itself."""

    _FACILITY = SysLogHandler.LOG_DAEMON << 3

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines(lambda _: "")
        self._ident = f"calcd[{os.getpid()}]: "

    def format(self, record: logging.LogRecord) -> str:
        priority = self._FACILITY | _PRIORITIES[record.levelno]
        return f"<{priority}>{self._ident}{self._lines.format(record)}"


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
