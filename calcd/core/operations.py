"""A request's first word and the rest: what an operation is and what it takes. No I/O."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from calcd.core.errors import RequestError

_BLANKS = " \t"
_FIELD = re.compile(r"[^ \t]+")


@dataclass(frozen=True)
class Operation:
    """A row of the operations table: help, operand count and errors all come from it.

    ``names`` are in upper case, the first is the one that help shows. ``operands`` are what
    help calls them; ``[x]`` may be left out, ``[x...]`` too or come any number of times, and
    ``x...`` takes the rest of the line. ``example`` is a request, and
    ``answer`` its reply in a session that has just begun.
    ``dear`` tells how its work grows with the square of the digits, and ``further`` estimates
    what there is besides, from the precision and the numbers.
    """

    names: tuple[str, ...]
    operands: tuple[str, ...]
    meaning: str
    run: Callable[..., Any]
    example: str
    answer: str
    dear: float = 0.0
    further: Callable[..., float] | None = None

    @property
    def least(self) -> int:
        """How many operands it takes at the least."""
        return sum(not operand.startswith("[") for operand in self.operands)

    @property
    def most(self) -> float:
        """How many it takes at the most."""
        return math.inf if self.operands and "...]" in self.operands[-1] else len(self.operands)

    @property
    def takes_text(self) -> bool:
        """Whether its operand is the rest of the line."""
        return self.operands != () and self.operands[-1].endswith("...")

    @property
    def usage(self) -> str:
        """How it is asked: ``SUB minuend subtrahend``."""
        return " ".join((self.names[0], *self.operands))

    def work(self, precision: int, numbers: Sequence[Decimal]) -> float:
        """Estimate the work with these numbers, in units of about 0.05 µs."""
        # A text's length is nearly the count of digits, and costs much less than a tuple of them.
        digits = max(precision, *(len(str(number)) for number in numbers))
        work = 60 + 0.3 * digits + self.dear * digits * digits
        work *= max(1, len(numbers) - 1)
        return work + self.further(precision, *numbers) if self.further else work

    def split(self, rest: str) -> list[str]:
        """Split what followed the name into operands, however many there are."""
        if self.takes_text:
            return [rest] if rest else []
        return _FIELD.findall(rest)

    def take(self, rest: str) -> list[str]:
        """Split what followed the name into operands; raise WRONG-OPERANDS if it takes others."""
        operands = self.split(rest)
        self.check(len(operands))
        return operands

    def check(self, came: int) -> None:
        """Raise ``RequestError`` WRONG-OPERANDS if it does not take so many operands."""
        least, most = self.least, self.most
        if least <= came <= most:
            return
        if most == math.inf:
            template = "{} takes {} operands or more, {} came: {}"
            raise RequestError("WRONG-OPERANDS", template, self.names[0], least, came, self.usage)
        if least < most:
            template = "{} takes {} to {} operands, {} came: {}"
            raise RequestError(
                "WRONG-OPERANDS", template, self.names[0], least, most, came, self.usage
            )
        template = "{} takes {} operand, {} came: {}"
        if most != 1:
            template = "{} takes {} operands, {} came: {}"
        raise RequestError("WRONG-OPERANDS", template, self.names[0], most, came, self.usage)


def split_request(request: str) -> tuple[str, str]:
    """Return a request's name as it was typed and what follows it; blank: ``("", "")``."""
    stripped = request.strip(_BLANKS)
    name = _FIELD.match(stripped)
    if name is None:
        return "", ""
    return name[0], stripped[name.end() :].lstrip(_BLANKS)
