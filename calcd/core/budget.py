"""What a call and a line may cost.

The core has no clock. It estimates the cost of what it does, in units of about 0.05 µs of CPU
time, so that no call takes long, and expensive lines can be told from cheap ones.
"""

import math

LINE_LIMIT = 4_000_000  # a line that costs more is an error
CHEAP_LINE_LIMIT = 4_000  # a line that costs more is expensive
CALL_LIMIT = 6_000  # of one call: once it has spent more, the remaining lines wait
TURN_LIMIT = 100_000  # of a call whose caller has a turn of its own: 5 ms


class BudgetExceeded(Exception):  # noqa: N818 - a limit, which may be raised later
    """A line costs more than it may."""


class Budget:
    """What one call may cost, and each line in it.

    ``spent`` is the cost of the call so far. Once it exceeds ``limit``, the remaining lines have
    to wait for another call. ``expensive`` says that the next call is for one line that costs much,
    and ``full_line`` that the present line is such a line, and may cost ``LINE_LIMIT``.
    """

    __slots__ = ("_allow_full_line", "_line_end", "expensive", "full_line", "limit", "spent")

    def __init__(self, line_limit: float = math.inf) -> None:
        self.spent = 0.0
        self.limit: float = CALL_LIMIT
        self.expensive = False
        self.full_line = False
        self._allow_full_line = False
        self._line_end = line_limit  # what ``spent`` may not exceed

    def start_call(self, limit: float = CALL_LIMIT) -> None:
        """Start to count; if its first line is ``expensive``, that may cost ``LINE_LIMIT``."""
        self.spent = 0.0
        self.limit = limit
        self._allow_full_line, self.expensive = self.expensive, False

    def start_line(self, cost: float) -> None:
        """Set the limit of the next line, and charge ``cost`` to it."""
        self.full_line = self._allow_full_line and self.spent == 0
        self._line_end = LINE_LIMIT if self.full_line else self.spent + CHEAP_LINE_LIMIT
        self.charge(cost)

    def charge(self, cost: float) -> None:
        """Add to ``spent``; raise ``BudgetExceeded`` instead if the line may not cost so much."""
        spent = self.spent + cost
        if spent > self._line_end:
            raise BudgetExceeded
        self.spent = spent

    @property
    def exhausted(self) -> bool:
        """Whether the remaining lines have to wait for another call."""
        return self.spent > self.limit
