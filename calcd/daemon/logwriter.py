"""Writes log lines in a thread of its own, so that a log that stalls delays no other thread.

Lines wait in a queue. If the queue is full, or if writing fails, lines are lost. Lines are
numbered: a gap in the numbers of written lines is what was lost there, and a line reports it.
"""

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import SimpleQueue
from time import monotonic

from calcd.daemon.logsinks import STALL_CHECK, FileSink, SyslogSink

MAX_LINES = 10_000  # in the queue: about 2 MB
_MAX_BATCH = 500  # lines to write at once
_PAUSE = 0.015  # seconds to collect lines: under load, one write takes many of them

# How many lines there were before, and a line, or an event to set once those are written or lost.
_Entry = tuple[int, str | threading.Event | None]


class LogWriter:
    """A bounded queue of lines, and the thread that writes them to a sink.

    ``describe_loss`` returns the line for a number of lost lines. The thread calls ``report``
    with a sentence when writing begins to fail. A line may be a record of several lines: it is
    written or lost as a whole.

    ``put`` and ``lose`` must not be called by two threads at once: a log handler's lock sees to it.
    Raise ``OSError`` if the system refuses a thread; the sink is closed then, as at the end.
    """

    def __init__(
        self,
        sink: FileSink | SyslogSink,
        describe_loss: Callable[[int], str],
        report: Callable[[str], None],
    ) -> None:
        self.sink = sink
        self._describe_loss = describe_loss
        self._report = report
        self._queue = SimpleQueue[_Entry]()
        self._count = 0  # of lines so far, which is the next line's number
        self._hurry = threading.Event()  # ends the pause
        self._deadline = inf  # of close()
        # Of the thread alone:
        self._next = 0  # number of the first line that is neither written nor reported as lost
        self._rest = b""  # of a line that was written in part: a full disk may have room again
        self._failing = False  # no write has succeeded since the last report
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            sink.close()
            raise OSError(errno.EAGAIN, str(error)) from None

    def put(self, line: str) -> None:
        """Queue a line, without waiting; if the queue is full, the line is lost."""
        if self._queue.qsize() < MAX_LINES:
            self._queue.put((self._count, line))
        self._count += 1

    def lose(self) -> None:
        """Count a line that could not be formatted as lost."""
        self._count += 1
        if self._queue.empty():
            self._queue.put((self._count, None))

    def flush(self, timeout: float) -> None:
        """Wait until all lines so far are written or lost, for ``timeout`` seconds at most."""
        done = threading.Event()
        self._queue.put((self._count, done))
        self._hurry.set()
        done.wait(timeout)

    def close(self, timeout: float) -> int:
        """Write what is queued, for ``timeout`` seconds at most, and close the sink.

        Return how many lines were lost without a line about it in the log. No ``put`` may follow.
        """
        self._deadline = monotonic() + timeout
        self._queue.put((self._count, None))
        self._hurry.set()
        self._thread.join(timeout + 2 * STALL_CHECK)
        # A thread that is stuck in a write ends with that write.
        return self._count - self._next + bool(self._rest)

    def _run(self) -> None:
        while self._deadline == inf or not self._queue.empty():
            entries: list[_Entry] = []
            try:
                entries = self._take()
                self._write(entries)
            except Exception as error:  # not only OSError: the log must survive a lack of memory
                reason = getattr(error, "strerror", None) or error
                self._report_once(f"cannot write the log: {reason}: lines are lost until it can")
            for _, item in entries:
                if isinstance(item, threading.Event):
                    item.set()
        with suppress(OSError):
            self.sink.close()

    def _take(self) -> list[_Entry]:
        """Wait for entries, and take them from the queue."""
        entries = [self._queue.get()]
        if self._queue.empty():
            self._hurry.wait(_PAUSE)
            self._hurry.clear()
        while len(entries) < _MAX_BATCH and not self._queue.empty():
            entries.append(self._queue.get())
        count = self._count
        if self._queue.empty():  # so all lines before ``count`` have been taken, or are lost
            entries.append((count, None))
        return entries

    def _write(self, entries: list[_Entry]) -> None:
        """Write the entries' lines, and lines about lost ones before and between them."""
        records = [(self._rest, self._next)]  # each with the number of the line that follows
        for number, item in entries:
            if (lost := number - records[-1][1]) > 0:
                records.append((self._encode(self._describe_loss(lost)), number))
            if isinstance(item, str):
                records.append((self._encode(item), number + 1))
        data = b"".join([record for record, _ in records])
        sent = 0
        try:
            while sent < len(data) and monotonic() < self._deadline:
                size = self.sink.send(data, sent)
                sent += size
                if size == 0 and self._queue.qsize() >= MAX_LINES:
                    self._report_once("the log takes no more lines: they are lost until it does")
            if data and sent == len(data):
                self._failing = False
        finally:
            for record, following in records:
                if record and sent <= 0:
                    break
                self._rest, self._next = record[sent:], following
                sent -= len(record)

    def _encode(self, line: str) -> bytes:
        return line.encode("utf-8", "backslashreplace") + self.sink.end

    def _report_once(self, sentence: str) -> None:
        if not self._failing:
            self._failing = True
            with suppress(Exception):
                self._report(sentence)
