"""What a call and a line may cost.

The core has no clock. It counts the cost of what it does, in units of about 0.05 µs of CPU time,
so that no call takes long, and expensive lines can be told from cheap ones.
"""

import math

CHEAP_LINE_LIMIT = 4_000  # a line that costs more is expensive
CALL_LIMIT = 6_000  # of one call: once it has spent more, the remaining lines wait
TURN_LIMIT = 100_000  # of a call whose caller has a turn of its own: 5 ms


class BudgetExceeded(Exception):  # noqa: N818 - a limit, which may be raised later
    """A line costs more than it may."""


class Budget:
    """What one call may cost, and each line in it.

    ``spent`` is the cost of the call so far. Once it exceeds ``limit``, the remaining lines have
    to wait for another call. A line may cost ``line_limit``.
    """

    __slots__ = ("_line_end", "limit", "line_limit", "spent")

    def __init__(self, line_limit: float = CHEAP_LINE_LIMIT) -> None:
        self.line_limit = line_limit
        self.spent = 0.0
        self.limit: float = CALL_LIMIT
        self._line_end = math.inf  # what ``spent`` may not exceed

    def start_call(self, limit: float = CALL_LIMIT) -> None:
        """Start to count."""
        self.spent = 0.0
        self.limit = limit

    def start_line(self, cost: float) -> None:
        """Set the limit of the next line, and charge ``cost`` to it."""
        self._line_end = self.spent + self.line_limit
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
