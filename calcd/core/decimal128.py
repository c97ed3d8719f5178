"""Decimal arithmetic: contexts, the grammar of numbers, numbers as text, constants.

It follows the General Decimal Arithmetic specification (Cowlishaw, version 1.70) with the
parameters of IEEE 754-2008 decimal128.
"""

import decimal
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import cache, lru_cache
from itertools import repeat
from operator import call

from calcd.core.budget import Budget
from calcd.core.errors import RequestError, printable
from calcd.core.operations import DIVISIONS, EXP, FAST_PATH, Operation

# Largest and smallest adjusted exponents of decimal128. They do not depend on the precision.
EMAX = 6144
EMIN = -6143

MAX_PRECISION = 1000  # digits
_PI_DIGITS = MAX_PRECISION + 20  # more, so that rounding is never in doubt

# A result whose first digit is further from the point than this is printed with an exponent.
PLAIN_PLACES = 34

# The eight modes of the specification; its names without "round-".
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

# Narrower than Decimal(): no underscores, no digits of other scripts, no NaN. The quantifiers are
# possessive, so that a mismatch takes linear time.
UNSIGNED = r"(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
_NUMBER = re.compile(f"[+-]?{UNSIGNED}")


@lru_cache  # a copy costs a quarter of a new context
def _context(precision: int, rounding: str, exact: bool) -> Context:
    traps = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
    return Context(
        prec=precision,
        rounding=ROUNDINGS[rounding],
        Emin=EMIN,
        Emax=EMAX,
        capitals=1,
        clamp=1,
        traps=[*traps, decimal.Inexact] if exact else traps,
    )


@dataclass(eq=False)
class Arithmetic:
    """Calculates in one precision and rounding. Not to be shared between threads.

    ``precision`` is in significant digits, ``rounding`` a key of ``ROUNDINGS``; ``exact`` makes
    an error of a result that would be rounded. Operations are charged to ``budget``.
    """

    precision: int = 34
    rounding: str = "half-even"
    exact: bool = False
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.context = _context(self.precision, self.rounding, self.exact).copy()
        self.fast_cost = 8 + 0.07 * self.precision  # of ``calculate_unchecked``, of no characters
        # Without this many digits no plain result has its first digit beyond PLAIN_PLACES.
        self._may_be_wide = self.precision > PLAIN_PLACES

    def number(self, operand: str) -> Decimal:
        """Parse a number without rounding; raise ``RequestError`` INVALID-NUMBER.

        The decimal module holds exponents up to about 10**18, and raises rather than round.
        """
        template = "{} is not a decimal number"
        if _NUMBER.fullmatch(operand):
            try:
                return Decimal(operand, self.context)
            except decimal.InvalidOperation:
                template = "{} has an exponent out of range"
        elif "," in operand:
            template = "{} has a comma: use a point before decimals, and a space between operands"
        raise RequestError("INVALID-NUMBER", template, printable(operand))

    def run(self, operation: Operation, numbers: Sequence[Decimal]) -> Decimal:
        """Return the result of an operation; raise ``RequestError`` if it has no finite result.

        Raise ``BudgetExceeded`` if it costs too much.
        """
        self.budget.charge(operation.cost(self.precision, numbers))
        try:
            result: Decimal = operation.function(self.context, *numbers)
        except (decimal.Overflow, decimal.Inexact) as signal:
            raise self._does_not_fit(signal) from None
        except (decimal.DivisionByZero, decimal.InvalidOperation):
            raise self._undefined(operation, numbers) from None
        if not result.is_finite():  # such as the logarithm of 0
            raise self._undefined(operation, numbers)
        return result

    def rounded(self, number: Decimal) -> Decimal:
        """Round a number as if it were a result; raise the errors of ``run``."""
        try:
            return self.context.plus(number)
        except (decimal.Overflow, decimal.Inexact) as signal:
            raise self._does_not_fit(signal) from None

    def _does_not_fit(self, signal: decimal.Inexact) -> RequestError:
        if isinstance(signal, decimal.Overflow):
            template = "the result is too large: it must be below 1E+{}"
            return RequestError("OVERFLOW", template, EMAX + 1)
        template = "the exact result does not fit in {} digits"
        return RequestError("INEXACT", template, self.precision)

    def _undefined(self, operation: Operation, numbers: Sequence[Decimal]) -> RequestError:
        if operation in DIVISIONS and numbers[-1] == 0:
            if numbers[0] == 0:
                return RequestError("DIVISION-UNDEFINED", "0 divided by 0 is undefined")
            return RequestError("DIVISION-BY-ZERO", "division by zero")
        shown = " ".join(printable(str(number))[1:-1] for number in numbers)
        template = "{} has no result of {} digits or fewer for {}"
        return RequestError(
            "INVALID-OPERATION", template, operation.names[0], self.precision, shown
        )

    def constant(self, name: str) -> Decimal:
        """Return ``pi`` or ``e``, rounded."""
        if name == "pi":
            return self.rounded(_pi())
        return self.run(EXP, (Decimal(1),))

    def calculate_unchecked(self, name: str, left: str, right: str) -> str:
        """Return the result of an operation, by name, on two operands as text.

        This is fast: the grammar is not checked, but for what ``Decimal()`` checks. Raise any
        exception for an unknown operation, an operand that is not a number or no finite result.
        """
        result = FAST_PATH[name](self.context, Decimal(left), Decimal(right))
        text = str(result)
        return self._reformat(text, result) if "E" in text or self._may_be_wide else text

    def calculate_batch(
        self, names: Iterable[str], lefts: Iterable[str], rights: Iterable[str]
    ) -> list[str]:
        """Do ``calculate_unchecked`` for many; raise if one of them fails.

        Almost all loops are those of ``map``, without bytecode for each element.
        """
        operators = map(FAST_PATH.__getitem__, names)
        operands = map(Decimal, lefts), map(Decimal, rights)
        results = list(map(call, operators, repeat(self.context), *operands))
        texts = list(map(str, results))
        for number, text in enumerate(texts):
            if "E" in text or self._may_be_wide:
                texts[number] = self._reformat(text, results[number])
        return texts

    def text(self, number: Decimal) -> str:
        """Return a finite number as text that keeps its value and quantum.

        The notation is plain if the exponent is zero or negative and the first digit is within
        ``PLAIN_PLACES`` of the point, else the specification's to-scientific-string.
        """
        return self._reformat(str(number), number)

    def _reformat(self, text: str, number: Decimal) -> str:
        """Convert the specification's to-scientific-string into our notation."""
        if "E-" in text:  # the specification uses it from the seventh place on
            if number.adjusted() >= -PLAIN_PLACES:
                return format(number, "f")
        elif self._may_be_wide and "E" not in text and number.adjusted() >= PLAIN_PLACES:
            return format(number, "E")
        return text


@cache
def _pi() -> Decimal:
    """Return pi, truncated after ``_PI_DIGITS`` decimals: Machin's 16 atan(1/5) - 4 atan(1/239)."""
    guard_digits = 10
    total, one = 0, 10 ** (_PI_DIGITS + guard_digits)
    for factor, divisor in ((16, 5), (-4, 239)):
        power, number = factor * one // divisor, 1
        while power:
            total += power // number
            power, number = -power // divisor**2, number + 2
    return Decimal(f"{total // 10**guard_digits}E-{_PI_DIGITS}")
