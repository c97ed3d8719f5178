"""The variables of a session, and its last result."""

from decimal import Decimal

from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError

MAX_VARIABLES = 100
CONSTANTS = ("pi", "e")
ANSWER = "ans"


class Variables:
    """Values by name, in lower case; ``answer`` is the last result, as it was replied."""

    def __init__(self) -> None:
        self.answer = ""
        self._values: dict[str, Decimal] = {}

    def __contains__(self, name: object) -> bool:
        return str(name).lower() in self._values

    def value_of(self, name: str, arithmetic: Arithmetic) -> Decimal | None:
        """Return the value of a variable, a constant or ANS in any case; None if it is unknown."""
        name = name.lower()
        if name == ANSWER:
            return arithmetic.number(self.answer) if self.answer else None
        if name in CONSTANTS:
            return arithmetic.constant(name)
        return self._values.get(name)

    def check_room(self, name: str) -> None:
        """Raise ``RequestError`` TOO-MANY-NAMES if there is no room for a new variable."""
        if name.lower() not in self._values and len(self._values) >= MAX_VARIABLES:
            template = "there are already {} variables: CLEAR removes them"
            raise RequestError("TOO-MANY-NAMES", template, MAX_VARIABLES)

    def assign(self, name: str, value: Decimal) -> None:
        """Set a variable."""
        self._values[name.lower()] = value

    def clear(self) -> None:
        """Remove all variables and the last result."""
        self.answer = ""
        self._values.clear()

    def listing(self, arithmetic: Arithmetic) -> str:
        """Return all names and values in one line."""
        return " ".join(f"{name}={arithmetic.text(value)}" for name, value in self._values.items())
