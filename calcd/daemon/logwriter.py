"""Writes log lines in a thread of its own, so that a log that stalls delays no other thread.

Lines wait in a queue. Where it is full, or writing fails, lines are lost. They are counted, and
a line in the log says how many, where they are missing.
"""

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from time import monotonic, sleep

from calcd.daemon.logsinks import Sink, takes_data

MOST_LINES = 10_000  # that wait: some 2 MB
_PAUSE = 0.015  # seconds between two writes, so that under load one takes many lines
_LOOK = 0.1  # seconds between looks whether it is time to give up, while the sink is full


class LogWriter:
    """A bounded queue of lines, and the thread that writes them to a sink.

    ``describe_loss`` makes a line of a number of lines that were lost: it stands in the log
    where they are missing. ``complain`` is called by the thread, with words, when writing begins
    to fail. A line may be a record of several lines: it is written, or lost, as one.

    Raise ``OSError`` where the system refuses a thread; the sink is closed then, as at the end.
    """

    def __init__(
        self, sink: Sink, describe_loss: Callable[[int], str], complain: Callable[[str], None]
    ) -> None:
        self.sink = sink
        self._describe_loss = describe_loss
        self._complain = complain
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)  # of the thread
        self._progress = threading.Condition(self._lock)  # of those who wait for the thread
        # Under the lock:
        self._lines: list[str] = []
        self._refused = 0  # lines that came after those, and found no room
        self._idle = False  # whether the thread waits for a line
        self._hurry = True  # whether it is not to pause before it writes
        self._deadline: float | None = None  # when it gives up; None: not asked to end
        self._taken = self._written = 0  # times that lines were taken, and dealt with
        self._in_hand = 0  # lines taken, and refused ones, that are not dealt with yet
        self._lost = 0  # lines that the log has to tell of; the thread alone changes it
        # The thread's alone:
        self._ended = False  # whether it has taken the last lines
        self._rest = b""  # of a line that was written in part
        self._failing = False  # whether it has complained, and no line was written since
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            sink.close()
            raise OSError(errno.EAGAIN, str(error)) from None

    def put(self, line: str) -> None:
        """Let a line be written. It waits for nothing; where the queue is full the line is lost."""
        with self._lock:
            if len(self._lines) < MOST_LINES:
                self._lines.append(line)
            else:
                self._refused += 1
            if self._idle:
                self._idle = False
                self._wake.notify()

    def lose(self) -> None:
        """Count a line that could not even be made."""
        with self._lock:
            self._refused += 1

    def flush(self, seconds: float) -> None:
        """Wait until all lines so far are written or lost, for ``seconds`` at most."""
        with self._lock:
            goal = self._taken
            if self._lines:
                goal += 1
                self._hurry = True
                self._wake.notify()
            self._progress.wait_for(lambda: self._written >= goal, seconds)

    def close(self, seconds: float) -> int:
        """Write what is there, for ``seconds`` at most, and close the sink.

        Return how many lines were lost without a word of it in the log. No ``put`` may follow.
        """
        with self._lock:
            self._deadline = monotonic() + seconds
            self._hurry, self._idle = True, False
            self._wake.notify()
        self._thread.join(seconds + 2 * _LOOK)
        # A thread that is stuck in a write has its lines in hand still. It ends when that does.
        with self._lock:
            rest = 1 if self._rest else 0
            return self._lost + rest + self._in_hand + len(self._lines) + self._refused

    def _run(self) -> None:
        while not self._ended:
            try:
                self._write(self._take())
                self._settle(self._in_hand, written=0)  # those that were refused
                # Of these it tells at once; a sink that fails is tried with the next line.
                if self._ended or not self._failing:
                    self._catch_up()
            except Exception as error:  # no memory, for one: the log has to outlive it
                self._fail(error)
                self._settle(self._in_hand, written=0)
                sleep(_PAUSE)
            with self._lock:
                self._written = self._taken
                self._progress.notify_all()
        with suppress(OSError):
            self.sink.close()

    def _take(self) -> list[str]:
        """Wait for lines, and take all."""
        with self._lock:
            if not self._hurry:
                self._wake.wait_for(lambda: self._hurry, _PAUSE)
            while not (self._lines or self._refused or self._deadline):
                self._idle = True
                self._wake.wait()
            self._idle = self._hurry = False
            lines, self._lines = self._lines, []
            self._in_hand, self._refused = len(lines) + self._refused, 0
            self._taken += 1
            self._ended = self._deadline is not None
            return lines

    def _write(self, lines: list[str]) -> None:
        """Write lines, as many at once as the sink allows, and settle what became of them."""
        for chunk in self._chunks(map(self.sink.frame, lines)):
            written = self._send(chunk) if self._catch_up() else 0
            if written == len(chunk):
                self._failing = False
            self._settle(len(chunk), written)

    def _chunks(self, records: Iterable[bytes]) -> Iterator[list[bytes]]:
        chunk: list[bytes] = []
        size = 0
        for record in records:
            size += len(record)
            if chunk and size > self.sink.size:
                yield chunk
                chunk, size = [], len(record)
            chunk.append(record)
        if chunk:
            yield chunk

    def _settle(self, lines: int, written: int) -> None:
        """Count so many lines in hand as dealt with: ``written`` of them, the others lost."""
        with self._lock:
            self._in_hand -= lines
            self._lost += lines - written

    def _catch_up(self) -> bool:
        """Finish what was written in part, and tell what was lost; say whether all is done."""
        if self._rest:
            self._rest = self._rest[self._deliver(self._rest) :]
        if self._rest:
            return False
        if lost := self._lost:
            if not self._send([self.sink.frame(self._describe_loss(lost))]):
                return False
            with self._lock:
                self._lost -= lost
        return not self._rest

    def _send(self, records: Sequence[bytes]) -> int:
        """Send records; return how many were written, be it in part: ``_rest`` is what is left."""
        data = b"".join(records)
        sent = self._deliver(data)
        if sent == len(data):
            return len(records)
        written = 0
        while sent >= len(records[written]):
            sent -= len(records[written])
            written += 1
        if sent:  # the disk became full amid a line, which is completed when there is room
            self._rest = records[written][sent:]
            written += 1
        return written

    def _deliver(self, data: bytes) -> int:
        """Send bytes; return how many were sent, fewer where that fails or it is time to end."""
        view, sent = memoryview(data), 0
        try:
            while sent < len(view) and not (self._deadline and monotonic() >= self._deadline):
                try:
                    sent += self.sink.send(view[sent:])
                except BlockingIOError:
                    self._wait()
        except OSError as error:
            self._fail(error)
        return sent

    def _wait(self) -> None:
        """Wait a while for the sink to take data."""
        if not takes_data(self.sink.fileno(), _LOOK) and self._refused:
            self._complain_once("the log takes no more: lines are lost until it does")

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        self._complain_once(f"cannot write the log: {reason}: lines are lost until it can")

    def _complain_once(self, words: str) -> None:
        if not self._failing:
            self._failing = True
            with suppress(Exception):
                self._complain(words)
