"""The log's writer: order, lost lines and their count, errors, and the end."""

import errno
import os
import threading
from collections.abc import Iterator

import pytest
from helpers import TIMEOUT, wait_until

from calcd.daemon import logwriter as module
from calcd.daemon.logsinks import FileSink, SyslogSink
from calcd.daemon.logwriter import LogWriter


class Sink(SyslogSink):
    """Keeps what it is sent. It can block, and it can fail."""

    def __init__(self, is_syslog: bool) -> None:
        self.is_syslog = is_syslog
        self.sent: list[str] = []
        self.entered = threading.Event()
        self.unblocked = threading.Event()
        self.unblocked.set()
        self.error: OSError | None = None
        self.is_closed = False

    def send(self, data: bytes, start: int) -> int:
        self.entered.set()
        assert self.unblocked.wait(TIMEOUT)
        if self.error:
            raise self.error
        end = data.index(self.end, start) + 1 if self.is_syslog else len(data)
        self.sent.append(data[start:end].decode())
        return end - start

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(params=[True, False], ids=["one line at once", "many lines at once"])
def sink(request: pytest.FixtureRequest) -> Sink:
    return Sink(request.param)


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def writer(sink: Sink, reports: list[str]) -> Iterator[LogWriter]:
    writer = LogWriter(sink, lambda lost: f"{lost} lost", reports.append)
    yield writer
    writer.close(TIMEOUT)
    assert sink.is_closed


def lines(sink: Sink) -> list[str]:
    """Return the lines that were sent."""
    return "".join(sink.sent).split("\0")[:-1]


def block(writer: LogWriter, sink: Sink) -> None:
    """Leave the writer stuck in a write of a line, ``0``."""
    sink.unblocked.clear()
    writer.put("0")
    assert sink.entered.wait(TIMEOUT)


def test_lines_come_in_their_order(writer: LogWriter, sink: Sink) -> None:
    for number in range(1000):
        writer.put(f"{number}")
    writer.flush(TIMEOUT)
    assert lines(sink) == [f"{number}" for number in range(1000)]


def test_lost_lines_are_counted_where_they_are_missing(
    writer: LogWriter, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LINES", 3)
    block(writer, sink)
    for number in range(1, 7):
        writer.put(f"{number}")
    sink.unblocked.set()
    wait_until(lambda: "3 lost" in lines(sink), "the count, without another line")
    writer.put("7")
    writer.lose()
    writer.flush(TIMEOUT)
    assert lines(sink) == ["0", "1", "2", "3", "3 lost", "7", "1 lost"]
    assert writer.close(TIMEOUT) == 0


def test_lines_lost_by_an_error_are_counted_before_the_next_line(
    writer: LogWriter, sink: Sink, reports: list[str]
) -> None:
    block(writer, sink)
    for number in range(1, 4):
        writer.put(f"{number}")
    sink.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sink.unblocked.set()
    writer.flush(TIMEOUT)
    writer.put("4")
    writer.flush(TIMEOUT)
    reason = "No space left on device: lines are lost until it can"
    assert reports == [f"cannot write the log: {reason}"]
    sink.error = None
    writer.put("5")
    writer.flush(TIMEOUT)
    assert lines(sink) == ["5 lost", "5"]


def test_the_end_counts_what_was_lost_without_a_line(writer: LogWriter, sink: Sink) -> None:
    sink.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for number in range(3):
        writer.put(f"{number}")
    writer.lose()
    assert writer.close(TIMEOUT) == 4


def test_the_end_does_not_wait_for_a_write_that_hangs(writer: LogWriter, sink: Sink) -> None:
    block(writer, sink)
    writer.put("1")
    try:
        assert writer.close(0.05) == 2
    finally:
        sink.unblocked.set()


def test_a_count_can_still_be_written_at_the_end(writer: LogWriter, sink: Sink) -> None:
    sink.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    writer.put("0")
    writer.flush(TIMEOUT)
    sink.error = None
    assert writer.close(TIMEOUT) == 0
    assert lines(sink) == ["1 lost"]


def test_a_device_that_is_full_although_poll_calls_it_writable_is_tried_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("calcd.daemon.logsinks.sleep", pauses.append)
    master, slave = os.openpty()
    os.close(slave)  # so that poll(2) always reports the master, with POLLHUP
    os.set_blocking(master, False)
    sink = FileSink(master)
    try:
        while sink.send(99 * b"x" + b"\n", 0):
            assert not pauses
        assert len(pauses) == 1
    finally:
        sink.close()
