"""Decimal arithmetic: contexts, the grammar of numbers, numbers as text, constants.

It follows the General Decimal Arithmetic specification (Cowlishaw, version 1.70) with the
parameters of IEEE 754-2008 decimal128.
"""

import decimal
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import cached_property, lru_cache
from itertools import repeat
from operator import call

from calcd.core import trigonometry
from calcd.core.budget import Budget
from calcd.core.errors import RequestError, printable
from calcd.core.exact import exponent_of
from calcd.core.operations import EXP, FAST_PATH, Operation

# Largest and smallest adjusted exponents of decimal128. They do not depend on the precision.
EMAX = 6144
EMIN = -6143

MAX_PRECISION = 1000  # digits
PLAIN_PLACES = 34  # see Arithmetic.text
NOTATIONS = ("plain", "scientific")

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
_NUMBER = re.compile(f"[+−-]?{UNSIGNED}")

# What is likely meant by an operand that is no number.
_HINTS = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (".*,", "{} has a comma: use a point before decimals, and a space between operands"),
        (
            "[+-]?[0-9.]+%$",
            "{} is a percentage: write it as a decimal number, such as 0.10 for 10%",
        ),
        (
            "[+-]?0[xob]",
            "{} is not decimal: hexadecimal, octal and binary numbers are not accepted",
        ),
        (
            r"[+-]?[0-9]++(?:[_']|\.[0-9]++\.)[0-9]",
            "{} has separators: write digits without separators",
        ),
        ("[+-]?(?:inf(?:inity)?|s?nan)$", "{} is not a finite number"),
        ("[a-z][a-z0-9_]*$", "{} is neither a number nor a variable"),
    )
)


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
    an error of a result that would be rounded. ``notation`` is one of ``NOTATIONS``: see ``text``.
    Operations are charged to ``budget``.
    """

    precision: int = 34
    rounding: str = "half-even"
    exact: bool = False
    notation: str = "plain"
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.context = _context(self.precision, self.rounding, self.exact).copy()
        self.fast_cost = 8 + 0.07 * self.precision  # of ``calculate``, of no characters
        self._is_plain = self.notation == "plain"
        self._max_integer_digits = max(PLAIN_PLACES, self.precision)  # in plain notation

    @cached_property  # most sessions need none
    def _unclamped(self) -> Context:
        """Plain notation leaves out the zeros that rounding has left, also where the clamp pads."""
        context = _context(self.precision, self.rounding, False).copy()
        context.clamp = 0
        return context

    def number(self, operand: str) -> Decimal:
        """Parse a number without rounding; raise ``RequestError`` INVALID-NUMBER.

        The decimal module holds exponents up to about 10**18, and raises rather than round.
        """
        if not _NUMBER.fullmatch(operand):
            raise _not_a_number(operand)
        try:
            return Decimal(operand.replace("−", "-"), self.context)
        except decimal.InvalidOperation:
            template = "{} has an exponent out of range"
            raise RequestError("INVALID-NUMBER", template, printable(operand)) from None

    def run(self, operation: Operation, numbers: Sequence[Decimal]) -> Decimal:
        """Return the result of an operation; raise ``RequestError`` if it has no finite result.

        Raise ``BudgetExceeded`` if it costs too much.
        """
        self.budget.charge(operation.cost(self.precision, numbers))
        return self.result_of(operation.function, *numbers)

    def rounded(self, number: Decimal) -> Decimal:
        """Round a number as if it were a result; raise the errors of ``run``."""
        return self.result_of(Context.create_decimal, number)

    def constant(self, name: str) -> Decimal:
        """Return ``pi`` or ``e``, rounded."""
        self.budget.charge(EXP.cost(self.precision, ()))
        return self.result_of(trigonometry.pi if name == "pi" else trigonometry.e)

    def result_of(self, function: Callable[..., Decimal], *numbers: Decimal) -> Decimal:
        """Return what a function makes of numbers, without the zeros that rounding has left.

        Where there may be some, the result is what would be replied: so an expression goes on as if
        it had been assigned to a name. Nothing is charged; raise the errors of ``run``.
        """
        context = self.context
        context.clear_flags()
        try:
            result = function(context, *numbers)
        except decimal.Overflow:
            template = "the result is too large: it must be below 1E+{}"
            raise RequestError("OVERFLOW", template, EMAX + 1) from None
        except decimal.Inexact:
            template = "the exact result does not fit in {} digits"
            raise RequestError("INEXACT", template, self.precision) from None
        if self._is_plain and context.flags[decimal.Rounded]:
            result = self._unclamped.normalize(result)
            # What is written without E+ has the value and the exponent of the result already.
            if not result or "E+" in str(result):
                return Decimal(self.text(result))
        return result

    def calculate(self, name: str, left: str, right: str) -> str:
        """Do ``calculate_batch`` for one operation."""
        function = FAST_PATH[name]
        operands = Decimal(left), Decimal(right)
        result = function(self.context, *operands)
        text = str(result)
        if self._is_plain and (text[-1] == "0" or "E" in text):
            return self._plain(text, result, function, operands)
        return text

    def calculate_batch(
        self, names: Iterable[str], lefts: Iterable[str], rights: Iterable[str]
    ) -> list[str]:
        """Return the results of operations on two operands each, all as text.

        The grammar is not checked, but for what ``Decimal()`` checks. Raise LookupError for an
        unknown operation, ``decimal.DecimalException`` for an operand that is no number and where
        there is no finite result. Almost all loops are those of ``map``, without bytecode for each
        element.
        """
        context = self.context
        context.clear_flags()
        functions = list(map(FAST_PATH.__getitem__, names))
        operands = list(map(Decimal, lefts)), list(map(Decimal, rights))
        results = list(map(call, functions, repeat(context), *operands))
        texts = list(map(str, results))
        if not self._is_plain:
            return texts
        if context.flags[decimal.Rounded] or not all(results) or "E" in "".join(texts):
            for at, text in enumerate(texts):
                if text[-1] == "0" or "E" in text:
                    of = operands[0][at], operands[1][at]
                    texts[at] = self._plain(text, results[at], functions[at], of)
        return texts

    def _plain(
        self,
        text: str,
        result: Decimal,
        function: Callable[..., Decimal],
        operands: tuple[Decimal, Decimal],
    ) -> str:
        """Return the text of a function's result whose to-scientific-string is ``text``."""
        exponent = text.find("E")
        digits = text if exponent < 0 else text[:exponent]
        # A result that was rounded has as many digits as the precision.
        if not result or (exponent >= 0 and digits[-1] == "0" and len(digits) >= self.precision):
            return self.text(self.result_of(function, *operands))
        if exponent >= 0:
            is_near = -PLAIN_PLACES <= result.adjusted() < self._max_integer_digits
            return format(result, "f") if is_near else text
        if "." not in text or len(text) <= self.precision:
            return text
        context = self.context
        context.clear_flags()
        function(context, *operands)
        return text.rstrip("0").rstrip(".") if context.flags[decimal.Rounded] else text

    def text(self, number: Decimal) -> str:
        """Return a finite number as text that reads back as the same value.

        The ``scientific`` notation is the specification's to-scientific-string, and keeps the
        quantum and the sign of zero. The ``plain`` notation has no exponent where the first digit
        is within ``PLAIN_PLACES`` of the point and the integer part has no more digits than that
        or than the precision; zero has no sign, no exponent and at most ``PLAIN_PLACES`` places.
        """
        text = str(number)
        if not self._is_plain or (
            number and "E" not in text and number.adjusted() < self._max_integer_digits
        ):
            return text
        if not number:
            places = min(PLAIN_PLACES, -exponent_of(number))
            return f"0.{'0' * places}" if places > 0 else "0"
        if -PLAIN_PLACES <= number.adjusted() < self._max_integer_digits:
            return format(number, "f")
        return format(number, "E")


def _not_a_number(operand: str) -> RequestError:
    """Return INVALID-NUMBER with what is likely wrong with an operand."""
    template = "{} is not a decimal number"
    for pattern, hint in _HINTS:
        if pattern.match(operand):
            template = hint
            break
    return RequestError("INVALID-NUMBER", template, printable(operand))
