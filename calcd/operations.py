"""A request's first word and the rest: what an operation is and what it takes. No I/O."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from calcd.errors import RequestError

_BLANKS = " \t"
_FIELD = re.compile(r"[^ \t]+")


@dataclass(frozen=True)
class Operation:
    """A row of the operations table: help, operand count and errors all come from it.

    ``names`` are in upper case, the first is the one that help shows. ``operands`` are what
    help calls them; ``[x]`` may be left out, and ``x...`` takes the rest of the line.
    """

    names: tuple[str, ...]
    operands: tuple[str, ...]
    meaning: str
    run: Callable[..., Any]

    @property
    def least(self) -> int:
        """How many operands it takes at the least."""
        return sum(not operand.startswith("[") for operand in self.operands)

    @property
    def usage(self) -> str:
        """How it is asked: ``SOMA augend addend``."""
        return " ".join((self.names[0], *self.operands))

    def split(self, rest: str) -> list[str]:
        """Split what followed the name into operands, however many there are."""
        if self.operands and self.operands[-1].endswith("..."):
            return [rest] if rest else []
        return _FIELD.findall(rest)

    def take(self, rest: str) -> list[str]:
        """Split what followed the name into operands; raise WRONG-OPERANDS if it takes others."""
        operands = self.split(rest)
        if self.least <= len(operands) <= len(self.operands):
            return operands
        least, most = self.least, len(self.operands)
        count = f"{most}" if least == most else f"{least} to {most}"
        noun = "operand" if most == 1 else "operands"
        came = f"{len(operands)} came"
        raise RequestError(
            "WRONG-OPERANDS", f"{self.names[0]} takes {count} {noun}, {came}: {self.usage}"
        )


def split_request(request: str) -> tuple[str, str]:
    """Return a request's name as it was typed and what follows it; blank: ``("", "")``."""
    stripped = request.strip(_BLANKS)
    name = _FIELD.match(stripped)
    if name is None:
        return "", ""
    return name[0], stripped[name.end() :].lstrip(_BLANKS)
