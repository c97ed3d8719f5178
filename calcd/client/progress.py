"""Progress of a long file, shown by tqdm on a terminal that nothing else is written to."""

import os
import stat
import time

from calcd.client.counting import ReplyCounter
from calcd.client.streams import STDERR, STDIN, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROGRESS_AFTER = 1.0  # seconds; a shorter run shows no progress


def bytes_left(descriptor: int) -> int | None:
    """Return how many bytes of a file are unread, None if it is not a regular file."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR)


class Progress(ReplyCounter):
    """A counter that shows its progress.

    tqdm is imported when there is something to show, as its import takes longer than a short run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._started = time.time()  # tqdm's clock
        visible = os.isatty(STDERR) and not os.isatty(STDIN) and not os.isatty(STDOUT)
        # The reader of a pipe may write to the terminal itself.
        visible = visible and not stat.S_ISFIFO(os.fstat(STDOUT).st_mode)
        self._due = self._started + PROGRESS_AFTER if visible else float("inf")
        self._total = bytes_left(STDIN) if visible else None

    def add_replies(self, chunk: bytes) -> None:
        """Count replies, and show the progress."""
        super().add_replies(chunk)
        if self._due < time.time():
            self._due = float("inf")
            self._bar = self._new_bar()
        if self._bar is not None:
            # The unit is bytes of input, as the input has a known size. Only those that were
            # answered count: a slow server accepts many requests ahead.
            answered = self.bytes_sent * self.replies // max(self.requests, self.replies, 1)
            self._bar.update(answered - self._bar.n)

    def _new_bar(self) -> "Any":
        """Return a progress bar, None if tqdm is not installed."""
        try:
            from tqdm import tqdm
        except ImportError:
            return None
        tqdm.monitor_interval = 0  # no thread
        size = {"total": self._total, "unit": "B", "unit_scale": True}
        bar = tqdm(**size, delay=PROGRESS_AFTER, miniters=1, dynamic_ncols=True)
        bar.start_t = bar.last_print_t = self._started
        return bar

    def close(self) -> None:
        """Finish the line of the progress bar."""
        if self._bar is not None:
            self._bar.close()
