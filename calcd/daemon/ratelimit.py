"""Rate limit for log lines that clients cause.

A client that is refused, that sends nothing or that gets only errors could cause thousands of
lines a second at little cost. So could a limit that is reached again and again, or a bug that a
client triggers, with its traceback. All these lines come from loggers of ``calcd.net`` and of the
server for metrics, and each kind of line has a token bucket. A kind is a message before its values
are filled in, so a flood of one kind does not suppress another. Suppressed lines are counted and
reported, with the last of them as an example.

Lines of served clients, of ``calcd.access``, are not limited: such a client has sent more bytes
than its line has. At log level debug there is no rate limit.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from time import monotonic

BURST = 100  # lines: room for a normal event, such as many clients cut off at once
RATE = 10  # lines a second: about 1 KB/s, or 100 MB a day
REPORT_INTERVAL = 10.0  # seconds between two reports of suppressed lines

_LIMITED = ("calcd.net.", "calcd.daemon.metricsserver")  # names of loggers begin with one

log = logging.getLogger(__name__)


class _TokenBucket:
    def __init__(self, now: float) -> None:
        self._tokens, self._at = float(BURST), now

    def take(self, now: float) -> bool:
        """Take a token; return False if there is none."""
        self._tokens = min(BURST, self._tokens + (now - self._at) * RATE)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RateLimit(logging.Filter):
    """A filter for the log's handler. Its methods may be called from any thread.

    Call ``report`` regularly, and before the log is switched or closed. ``suppressed`` is how many
    lines it has suppressed since the start.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets = defaultdict[str, _TokenBucket](lambda: _TokenBucket(self._clock()))
        self._suppressed: dict[str, tuple[int, logging.LogRecord]] = {}  # count and last record
        self._since = 0.0  # when the first of those came
        self.suppressed = 0  # since the start

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if the line may be written; else count it."""
        if not record.name.startswith(_LIMITED):
            return True
        kind = record.msg
        with self._lock:
            now = self._clock()
            if self._buckets[kind].take(now):
                return True
            self.suppressed += 1
            if not self._suppressed:
                self._since = now
            count = self._suppressed[kind][0] if kind in self._suppressed else 0
            self._suppressed[kind] = count + 1, record
            return False

    def report(self, now: bool = False) -> None:
        """Log how many lines were suppressed, if any were and the interval is over or ``now``."""
        if not self._suppressed:  # nearly always: skip the lock
            return
        with self._lock:
            seconds = self._clock() - self._since
            if seconds < REPORT_INTERVAL and not now:
                return
            suppressed, self._suppressed = self._suppressed, {}
        for count, last in suppressed.values():
            lines = f"{count} line{'s' * (count > 1)}"
            message = "%s suppressed in the last %.0f s, such as: %s"
            log.log(last.levelno, message, lines, max(1, seconds), last.getMessage())


RATE_LIMIT = RateLimit()
