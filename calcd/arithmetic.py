"""Decimal arithmetic: the context, the operand grammar, the operations, numbers as text.

The rules are those of the General Decimal Arithmetic specification (Cowlishaw, version 1.70)
with the parameters of IEEE 754-2008 decimal128. Nothing here does I/O.
"""

import decimal
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Context, Decimal
from functools import cache, cached_property
from itertools import repeat
from operator import call

from calcd.errors import RequestError, quoted
from calcd.operations import Operation

# decimal128: largest and smallest adjusted exponent, whatever the precision in force.
EMAX = 6144
EMIN = -6143

# A result whose first digit is farther than this from the point is printed with an exponent.
PLAIN_PLACES = 34

# The specification's eight modes, by its own names without the "round-".
ROUNDINGS = {
    "half-even": decimal.ROUND_HALF_EVEN,
    "half-up": decimal.ROUND_HALF_UP,
    "half-down": decimal.ROUND_HALF_DOWN,
    "up": decimal.ROUND_UP,
    "down": decimal.ROUND_DOWN,
    "ceiling": decimal.ROUND_CEILING,
    "floor": decimal.ROUND_FLOOR,
    "05up": decimal.ROUND_05UP,
}

# Narrower than what Decimal() takes: no underscores, no other scripts' digits, no NaN.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


# ``run`` takes the context and the operands as numbers.
OPERATIONS = (
    Operation(("SOMA", "ADD"), ("augend", "addend"), "the sum of two numbers", Context.add),
    Operation(
        ("SUB",), ("minuend", "subtrahend"), "the first number less the second", Context.subtract
    ),
    Operation(
        ("MUL",), ("multiplicand", "multiplier"), "the product of two numbers", Context.multiply
    ),
    Operation(
        ("DIV",), ("dividend", "divisor"), "the first number divided by the second", Context.divide
    ),
)

# By every name as it is mostly typed, for the fast path.
_BY_SPELLING: dict[str, Callable[[Context, Decimal, Decimal], Decimal]] = {
    spelling: operation.run
    for operation in OPERATIONS
    for name in operation.names
    for spelling in (name, name.lower())
}


@cache  # to copy one costs a quarter of what it costs to make one
def _context(precision: int, rounding: str) -> Context:
    return Context(
        prec=precision,
        rounding=ROUNDINGS[rounding],
        Emin=EMIN,
        Emax=EMAX,
        capitals=1,
        clamp=1,
        traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
    )


class Arithmetic:
    """Calculates in one precision and rounding. Not to be shared between threads.

    ``precision`` is in significant digits, ``rounding`` a key of ``ROUNDINGS``.
    """

    def __init__(self, precision: int = 34, rounding: str = "half-even") -> None:
        self.context = _context(precision, rounding).copy()
        # Only a result of more digits than this can have its first digit beyond the places.
        self._may_be_wide = precision > PLAIN_PLACES

    @cached_property
    def _exact(self) -> Context:
        """A context in which operands are taken as they are written, however long."""
        return Context(
            prec=decimal.MAX_PREC,
            Emin=decimal.MIN_EMIN,
            Emax=decimal.MAX_EMAX,
            traps=[decimal.InvalidOperation, decimal.Overflow],
        )

    def number(self, operand: str) -> Decimal:
        """Read an operand exactly; raise ``RequestError`` INVALID-NUMBER or OVERFLOW."""
        if _NUMBER.fullmatch(operand):
            return self._exact.create_decimal(operand)
        if "," in operand:
            raise RequestError(
                "INVALID-NUMBER",
                f"{quoted(operand)} has a comma: write a point before the decimals, "
                "and a blank between operands",
            )
        raise RequestError("INVALID-NUMBER", f"{quoted(operand)} is not a decimal number")

    def calculate(self, operation: Operation, operands: Sequence[str]) -> str:
        """Run an operation of the table on operands as written, and give the result as text.

        Raise ``RequestError`` where there is no finite result.
        """
        try:
            return self.text(operation.run(self.context, *map(self.number, operands)))
        except decimal.DivisionByZero:
            raise RequestError("DIVISION-BY-ZERO", "division by zero") from None
        except decimal.Overflow:
            raise RequestError(
                "OVERFLOW", f"the result is too large: numbers end below 1E+{EMAX + 1}"
            ) from None
        except decimal.InvalidOperation as signal:
            if decimal.DivisionUndefined not in signal.args[0]:
                raise
            raise RequestError("DIVISION-UNDEFINED", "0 divided by 0 is undefined") from None

    def calculate_plainly(self, name: str, left: str, right: str) -> str:
        """Do what ``calculate`` does, for an operation by its name and two operands.

        Faster, as the operands' grammar is not checked beyond what ``Decimal()`` does. Raise
        anything where there is no such operation, no number or no finite result.
        """
        result = _BY_SPELLING[name](self.context, Decimal(left), Decimal(right))
        text = str(result)
        return self._respelled(text, result) if "E" in text or self._may_be_wide else text

    def calculate_all(
        self, names: Iterable[str], lefts: Iterable[str], rights: Iterable[str]
    ) -> list[str]:
        """Do what ``calculate_plainly`` does for many; raise if one of them fails.

        Nearly all loops are ``map``'s own: the interpreter takes no step for each.
        """
        operators = map(_BY_SPELLING.__getitem__, names)
        operands = map(Decimal, lefts), map(Decimal, rights)
        results = list(map(call, operators, repeat(self.context), *operands))
        texts = list(map(str, results))
        for number, text in enumerate(texts):
            if "E" in text or self._may_be_wide:
                texts[number] = self._respelled(text, results[number])
        return texts

    def text(self, number: Decimal) -> str:
        """Print a finite number so that it reads back with the same value and quantum.

        Plain notation where the exponent is zero or negative and the first digit within
        ``PLAIN_PLACES`` of the point, else the specification's to-scientific-string.
        """
        return self._respelled(str(number), number)

    def _respelled(self, text: str, number: Decimal) -> str:
        """Take the specification's to-scientific-string, and give it our way."""
        if "E-" in text:  # there the specification goes scientific from the seventh place on
            if number.adjusted() >= -PLAIN_PLACES:
                return format(number, "f")
        elif self._may_be_wide and "E" not in text and number.adjusted() >= PLAIN_PLACES:
            return format(number, "E")
        return text
