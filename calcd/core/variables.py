"""What a session remembers: variables, and the last answer. No I/O."""

from decimal import Decimal

from calcd.core.commands import BY_NAME
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, quoted
from calcd.core.expressions import LONGEST_NAME, is_name

MOST_NAMES = 100
CONSTANTS = ("pi", "e")
ANSWER = "ans"


class Memory:
    """Variables by name, in lower case, and ``answer``: the last result, as it was replied."""

    def __init__(self) -> None:
        self.answer = ""
        self._values: dict[str, Decimal] = {}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def value_of(self, name: str, arithmetic: Arithmetic) -> Decimal | None:
        """Give what a name stands for, whatever its case; None if it is not known."""
        name = name.lower()
        if name == ANSWER:
            return arithmetic.number(self.answer) if self.answer else None
        if name in CONSTANTS:
            return arithmetic.constant(name)
        return self._values.get(name)

    def check(self, name: str) -> None:
        """Raise ``RequestError`` if nothing can be assigned to a name."""
        if not is_name(name):
            template = "{} is no name: a letter, then letters, digits or _, {} at the most"
            raise RequestError("SYNTAX", template, quoted(name), LONGEST_NAME)
        if name.lower() in (*CONSTANTS, ANSWER) or name.upper() in BY_NAME:
            template = "{} has a meaning already: assign to another name"
            raise RequestError("SYNTAX", template, quoted(name))
        if name.lower() not in self._values and len(self._values) >= MOST_NAMES:
            template = "there are {} names: CLEAR forgets them"
            raise RequestError("TOO-MANY-NAMES", template, MOST_NAMES)

    def assign(self, name: str, value: Decimal) -> None:
        """Let a name that was checked stand for a value."""
        self._values[name.lower()] = value

    def clear(self) -> None:
        """Forget everything."""
        self.answer = ""
        self._values.clear()

    def shown(self, arithmetic: Arithmetic) -> str:
        """Give names and values, in one line."""
        return " ".join(f"{name}={arithmetic.text(value)}" for name, value in self._values.items())
