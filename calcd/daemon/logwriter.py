"""Writes log lines in a thread of its own, so that a log that stalls delays no other thread.

Lines wait in a queue. If the queue is full, or if writing fails, lines are lost. The next line
that can be written is preceded by a line that says how many.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from calcd.daemon.logsinks import FileSink, SyslogSink, is_writable

MAX_LINES = 10_000  # in the queue: about 2 MB
_PAUSE = 0.015  # seconds to collect lines: under load, one write takes many of them
_POLL = 0.1  # seconds between checks of the deadline while the sink is full


class LogWriter:
    """A bounded queue of lines, and the thread that writes them to a sink.

    ``describe_loss`` returns the line for a number of lost lines. The thread calls ``report``
    with a sentence when writing begins to fail. A line may be a record of several lines: it is
    written or lost as a whole.

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
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # for the thread
        self._progress = threading.Condition(self._lock)  # for flush()
        # Under the lock. A number in the queue is a count of lines lost at that place.
        self._queue: deque[bytes | int] = deque()
        self._queued = self._handled = 0  # entries that were put into the queue; that left it
        self._lost = 0  # lines lost and not reported, and those that are just being written
        self._hurry = True  # write at once, without the pause
        self._deadline: float | None = None  # of close()
        # Of the thread alone:
        self._rest = b""  # of a line that was written in part
        self._failing = False  # no write has succeeded since the last report
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            sink.close()
            raise OSError(errno.EAGAIN, str(error)) from None

    def put(self, line: str) -> None:
        """Queue a line, without waiting; if the queue is full, the line is lost."""
        record = self._encode(line)
        with self._lock:
            if len(self._queue) < MAX_LINES:
                self._append(record)
            else:
                self._append_loss()

    def lose(self) -> None:
        """Count a line that could not be formatted as lost."""
        with self._lock:
            self._append_loss()

    def flush(self, timeout: float) -> None:
        """Wait until all lines so far are written or lost, for ``timeout`` seconds at most."""
        with self._lock:
            goal, self._hurry = self._queued, True
            self._work.notify()
            self._progress.wait_for(lambda: self._handled >= goal, timeout)

    def close(self, timeout: float) -> int:
        """Write what is queued, for ``timeout`` seconds at most, and close the sink.

        Return how many lines were lost without a line about it in the log. No ``put`` may follow.
        """
        with self._lock:
            self._deadline, self._hurry = monotonic() + timeout, True
            self._work.notify()
        self._thread.join(timeout + 2 * _POLL)
        # A thread that is stuck in a write ends with that write.
        with self._lock:
            queued = sum(each if isinstance(each, int) else 1 for each in self._queue)
            return self._lost + queued + bool(self._rest)

    def _append(self, entry: bytes | int) -> None:
        self._queue.append(entry)
        self._queued += 1
        if len(self._queue) == 1:
            self._work.notify()

    def _append_loss(self) -> None:
        if self._queue and isinstance(count := self._queue[-1], int):
            self._queue[-1] = count + 1
        else:
            self._append(1)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._write()
            except Exception as error:  # such as no memory: the log must survive it
                self._fail(error)
                sleep(_PAUSE)
            with self._lock:
                self._handled = self._queued - len(self._queue)
                self._progress.notify_all()
        with suppress(Exception):
            self._write()  # the count of lost lines, if there are any
        with suppress(OSError):
            self.sink.close()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to write; return False at the end."""
        with self._lock:
            if not self._queue:
                self._work.wait_for(lambda: self._hurry, _PAUSE)
            if not self._queue:
                self._hurry = False
            # While writing fails, the count of lost lines waits for the next line.
            self._work.wait_for(
                lambda: self._queue or self._deadline or (self._lost and not self._failing)
            )
            return bool(self._queue) or not self._deadline

    def _write(self) -> None:
        """Write what is overdue, and then as many queued lines as one write takes."""
        caught_up = self._write_records(self._take_overdue())
        lines = self._take_lines()
        if caught_up:
            self._write_records([(line, 1) for line in lines])

    def _take_overdue(self) -> list[tuple[bytes, int]]:
        """Return the rest of a line, and a line about lost lines; see ``_write_records``."""
        records = [(self._rest, 0)]
        with self._lock:
            while self._queue and isinstance(count := self._queue[0], int):
                self._queue.popleft()
                self._lost += count
            if self._lost:
                records.append((self._encode(self._describe_loss(self._lost)), self._lost))
        return records

    def _take_lines(self) -> list[bytes]:
        """Take lines from the queue. They count as lost until they are written."""
        lines: list[bytes] = []
        size = 0
        with self._lock:
            while self._queue and isinstance(line := self._queue[0], bytes):
                size += len(line)
                if lines and size > self.sink.max_bytes:
                    break
                self._queue.popleft()
                self._lost += 1
                lines.append(line)
        return lines

    def _write_records(self, records: list[tuple[bytes, int]]) -> bool:
        """Write records; return False if not all of it was written.

        Each comes with the number of lines that are not lost, or not unreported, once it is
        written. A record of which a part was written, on a full disk, is completed later.
        """
        data = b"".join(record for record, _ in records)
        sent = self._send(data)
        if is_complete := sent == len(data):
            self._failing = self._failing and not data
        with self._lock:
            for record, count in records:
                if record and sent <= 0:
                    break
                self._rest = record[sent:]
                self._lost -= count
                sent -= len(record)
        return is_complete

    def _encode(self, line: str) -> bytes:
        return f"{line}{self.sink.end}".encode("utf-8", "backslashreplace")

    def _send(self, data: bytes) -> int:
        """Send bytes; return how many were sent, fewer on an error or at the deadline."""
        view, sent = memoryview(data), 0
        try:
            while sent < len(view) and not (self._deadline and monotonic() >= self._deadline):
                try:
                    sent += self.sink.send(view[sent:])
                except BlockingIOError:
                    self._wait_for_sink()
        except OSError as error:
            self._fail(error)
        return sent

    def _wait_for_sink(self) -> None:
        stalled = not is_writable(self.sink.fd, _POLL)
        if stalled and self._queue and isinstance(self._queue[-1], int):
            self._report_once("the log takes no more lines: they are lost until it does")

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        self._report_once(f"cannot write the log: {reason}: lines are lost until it can")

    def _report_once(self, sentence: str) -> None:
        if not self._failing:
            self._failing = True
            with suppress(Exception):
                self._report(sentence)
