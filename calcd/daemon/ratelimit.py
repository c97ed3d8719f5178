"""How fast clients can make the log grow.

Who was answered has a line in any case: it is what the log is there for, and its client had to
make a connection for it and to ask, with more bytes on the wire than the line has. But whoever
is refused, asks nothing or gets nothing but errors would have a line for next to nothing, many
thousands a second. So would a limit that is reached and left again and again, or a bug that a
client has found, with its traceback.

So of each kind of such lines only ``BURST`` come at once, and ``RATE`` a second in the long run.
The rest is counted, and told with the last of them as an example: nothing is lost in silence.
A kind is a message before its values are filled in: there are only so many, and a flood of one
hides no other. At debug there is no bound: whoever looks for something there wants all of it.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from time import monotonic

BURST = 100  # lines: what a normal day has at once, such as clients that all are cut off
RATE = 10  # lines a second: some 1 KB/s, so 100 MB a day
TELL = 10.0  # seconds between two lines that tell of those left out

log = logging.getLogger(__name__)

_bounded: set[str] = set()  # names of loggers


def bounded(name: str) -> logging.Logger:
    """Give the logger of this name, for lines that clients cause: they are bounded."""
    _bounded.add(name)
    return logging.getLogger(name)


class _Kind:
    """How many more lines of a kind may come."""

    def __init__(self, now: float) -> None:
        self._room, self._at = float(BURST), now

    def has_room(self, now: float) -> bool:
        """Say whether one more may come now; if so it has."""
        self._room = min(BURST, self._room + (now - self._at) * RATE)
        self._at = now
        if self._room < 1:
            return False
        self._room -= 1
        return True


class LogRate(logging.Filter):
    """A filter for a log's handler. Methods may be called from any thread.

    ``tell`` is to be called every now and then, and when the log goes elsewhere or ends.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: defaultdict[str, _Kind] = defaultdict(lambda: _Kind(self._clock()))
        self._left_out: dict[str, tuple[int, logging.LogRecord]] = {}  # how many, the last one
        self._since = 0.0  # when the first of those was left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line may be written; count it if not."""
        if not record.name.startswith("calcd.net."):
            return True
        kind = record.msg
        with self._lock:
            now = self._clock()
            if self._kinds[kind].has_room(now):
                return True
            if not self._left_out:
                self._since = now
            count = self._left_out[kind][0] if kind in self._left_out else 0
            self._left_out[kind] = count + 1, record
            return False

    def tell(self, at_once: bool = False) -> None:
        """Log how many lines were left out, if there were any and it is time or ``at_once``."""
        if not self._left_out:  # as nearly always: no need for the lock
            return
        with self._lock:
            seconds = self._clock() - self._since
            if seconds < TELL and not at_once:
                return
            left_out, self._left_out = self._left_out, {}
        for count, last in left_out.values():
            words = "lines left out in the last %.0f s: %d, such as: %s"
            log.log(last.levelno, words, max(1, seconds), count, last.getMessage())


LOG_RATE = LogRate()
