"""A deadline that another thread may bring forward: that of a drain."""

import math
from time import monotonic


class Deadline:
    """A point in time. Methods may be called from any thread."""

    def __init__(self, seconds: float = math.inf) -> None:
        """Set it ``seconds`` from now."""
        self._has_passed = False
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """Set it ``seconds`` from now, unless ``pass_now`` was called."""
        self._at = monotonic() + seconds

    def left(self) -> float:
        """Return how many seconds are left; 0 if it has passed."""
        return 0.0 if self._has_passed else max(0.0, self._at - monotonic())

    def pass_now(self) -> None:
        """Let it have passed, for good."""
        self._has_passed = True
