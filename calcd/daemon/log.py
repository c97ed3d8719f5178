"""The daemon's log: where lines go, and their format there.

Text from clients comes to the log through ``errors.printable``. As a second safeguard, characters
that are not printable are escaped here, so that no client can forge a line.
"""

import logging
import os
import select
import socket
import sys
import syslog
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from calcd.config.errors import SettingsError
from calcd.daemon.logsinks import FileSink, SyslogSink, is_writable, open_file
from calcd.daemon.logwriter import LogWriter
from calcd.daemon.ratelimit import RATE_LIMIT

SYSLOG = "/dev/log"
_TIMEOUT = 1.0  # seconds to wait for a log or a stderr that stalls

# No line shows thread, process or place in the code: do not collect them for each record.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None

log = logging.getLogger(__name__)

_PRIORITIES = {
    logging.DEBUG: syslog.LOG_DEBUG,
    logging.INFO: syslog.LOG_INFO,
    logging.WARNING: syslog.LOG_WARNING,
    logging.ERROR: syslog.LOG_ERR,
    logging.CRITICAL: syslog.LOG_CRIT,
}


def open_log(target: str, level: str) -> None:
    """Send the log to ``target`` from now on: ``stderr``, ``syslog`` or the path of a file.

    A target that is open already stays open, unless its path leads to another file by now.
    ``level`` is the least severe level that is logged. Raise ``OSError`` if the target cannot be
    opened; then the log stays where it was.
    """
    writer = _new_writer(target)
    RATE_LIMIT.report(now=True)  # in the log that lacks the lines
    _HANDLER.filters = [] if level == "debug" else [RATE_LIMIT]
    previous = _HANDLER.switch(writer, target) if writer else None
    root = logging.getLogger()
    root.handlers = [_HANDLER]
    root.setLevel(level.upper())
    if previous and (lost := previous.close(_TIMEOUT)):
        log.warning("%d log records were lost: the previous log did not take them", lost)


def flush_log() -> None:
    """Wait until all lines so far are written or lost, for one second at most."""
    if _HANDLER.writer:
        _HANDLER.writer.flush(_TIMEOUT)


def close_log() -> None:
    """Write all lines so far, for one second at most, and close the log; later lines are lost."""
    target = _HANDLER.target
    previous = _HANDLER.switch(None, "")
    if previous and (lost := previous.close(_TIMEOUT)) and target != "stderr":
        print_error(f"{lost} log records were lost at the end: the log did not take them")


def print_error(sentence: str) -> None:
    """Print one line on stderr that is not for the log, or that the log cannot take.

    Give up if stderr takes nothing within a second.
    """
    _print(sentence, syslog.LOG_ERR)


def print_warning(sentence: str) -> None:
    """Print a line as ``print_error`` does, of less importance."""
    _print(f"warning: {sentence}", syslog.LOG_WARNING)


def _print(sentence: str, priority: int) -> None:
    with suppress(OSError):
        fd = sys.stderr.fileno()
        head = f"<{priority}>" if _is_journal(fd) else "calcd: "
        line = f"{head}{_printable(sentence)}".encode()
        if is_writable(fd, _TIMEOUT):
            # A pipe that is writable has room for PIPE_BUF bytes, and maybe for no more.
            os.write(fd, line[: select.PIPE_BUF - 1] + b"\n")


def print_errors(error: SettingsError) -> None:
    """Print a line on stderr for each of the errors."""
    for each in error.errors:
        print_error(str(each))


def syslog_answers() -> bool:
    """Return True if a syslog listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(SYSLOG) == 0


class _Handler(logging.Handler):
    """Passes lines to the writer of the open log, if there is one.

    One handler serves all logs. It switches under its lock, so no line is lost in between.
    """

    writer: LogWriter | None = None
    target = ""

    def switch(self, writer: LogWriter | None, target: str) -> LogWriter | None:
        """Pass lines to another writer from now on; return the previous one."""
        self.acquire()
        try:
            previous, self.writer, self.target = self.writer, writer, target
            self.formatter = _formatter(target)
            return previous
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        if self.writer is None:
            return
        try:
            self.writer.put(self.format(record))
        except Exception:  # a bug in a log call must not fail its caller
            self.writer.lose()


_HANDLER = _Handler()


def _new_writer(target: str) -> LogWriter | None:
    """Open a log; return its writer, or None if it is the log that is open."""
    sink: FileSink | SyslogSink
    if target == "syslog":
        sink = SyslogSink(SYSLOG)
    else:
        sink = FileSink(os.dup(sys.stderr.fileno()) if target == "stderr" else open_file(target))
    current = _HANDLER.writer.sink if _HANDLER.writer and _HANDLER.target == target else None
    if current and (target == "syslog" or os.path.sameopenfile(sink.fd, current.fd)):
        sink.close()
        return None
    formatter = _formatter(target)

    def describe_loss(lost: int) -> str:
        message = f"{lost} log records were lost before this one"
        level = {"levelno": logging.WARNING, "levelname": "WARNING"}
        return formatter.format(logging.makeLogRecord({"msg": message, **level}))

    # There is nowhere to report that stderr cannot be written.
    return LogWriter(sink, describe_loss, print_error if target != "stderr" else lambda _: None)


class _Formatter(logging.Formatter):
    """Formats a record as printable lines, each with a head; a traceback's are marked with |.

    ``is_one_record``: several lines are one message, which has one head.
    """

    def __init__(
        self, head: Callable[[logging.LogRecord], str], is_one_record: bool = False
    ) -> None:
        super().__init__()
        self._head = head
        self._is_one_record = is_one_record

    def format(self, record: logging.LogRecord) -> str:
        head, text = self._head(record), _printable(record.getMessage())
        if record.exc_info:
            traceback = self.formatException(record.exc_info).split("\n")
            start = "\n| " if self._is_one_record else f"\n{head}| "
            text = start.join([text, *map(_printable, traceback)])
        return head + text


def _formatter(target: str) -> _Formatter:
    if target == "syslog":
        return _Formatter(_syslog_head, is_one_record=True)
    to_journal = target == "stderr" and _is_journal(sys.stderr.fileno())
    return _Formatter(_journal_head if to_journal else _time_head)


def _syslog_head(record: logging.LogRecord) -> str:
    """Return priority, facility and name; the syslog adds the time."""
    return f"<{syslog.LOG_DAEMON | _PRIORITIES[record.levelno]}>calcd[{os.getpid()}]: "


def _journal_head(record: logging.LogRecord) -> str:
    """Return the priority, as sd-daemon(3) defines it; the journal adds the time."""
    return f"<{_PRIORITIES[record.levelno]}>"


def _time_head(record: logging.LogRecord) -> str:
    """Return time and level: ``2026-01-31T12:00:00.123Z info: ``.

    The time is UTC, as RFC 3339 writes it: local times run backwards when daylight saving ends.
    """
    milliseconds = int(record.msecs)
    return f"{_time(int(record.created))}.{milliseconds:03d}Z {record.levelname.lower()}: "


@lru_cache(maxsize=1)  # to format the time costs more than the rest of a line
def _time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _is_journal(fd: int) -> bool:
    """Return True if the descriptor is the stream that systemd connected to the journal."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _printable(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
