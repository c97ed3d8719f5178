"""Expressions: parse text into steps for a stack machine, and evaluate the steps.

The grammar, each line binding tighter than the one before::

    sum      product { (+ | - | −) product }
    product  signed { (* | × | / | ÷ | // | % | mod) signed }
    signed   { + | - | − } power
    power    postfix [ (^ | **) signed ]       so to the right, and -2^2 is -4
    postfix  atom { ! }
    atom     number | name | function ( sum { , sum } ) | ( sum )
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from calcd.core import hints, operations
from calcd.core.decimal128 import UNSIGNED, Arithmetic
from calcd.core.errors import RequestError, printable
from calcd.core.operations import ARITHMETIC, Operation, canonical

MAX_DEPTH = 50  # of nested parentheses, calls and powers
MAX_NAME = 64  # characters
CONSTANTS = ("pi", "e")
ANSWER = "ans"
_TOKEN_COST = 30

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TOKEN = re.compile(
    rf"[ \t]*(?:(?P<number>{UNSIGNED})|(?P<name>[^\W\d_]\w*)|(?P<mark>\*\*|//|.)|(?P<end>$))",
    re.DOTALL,
)
_PREFIX = re.compile(r"(?<![\w.])0[xob]", re.IGNORECASE)  # of numbers that are not decimal
_GROUP = re.compile(r"[0-9]{3}")  # of digits, after a blank
_SEPARATOR = re.compile(r"[0-9][_'.][0-9]")
# What makes an expression go on from the last answer. ``mod (`` is a call.
_CONTINUATION = re.compile(r"[ \t]*(?:[*×/÷^]|mod(?![A-Za-z0-9_])[ \t]*[^ \t(=])", re.IGNORECASE)
_FUNCTIONS = {
    name: operation
    for rows in ARITHMETIC.values()
    for operation in rows
    for name in operation.names
}
_FUNCTION_NAMES = frozenset(_FUNCTIONS)
_SIGNS = {"+": operations.PLUS, "-": operations.NEGATE, "−": operations.NEGATE}
_SIGN_PRECEDENCE = 3  # between those of products and powers
# Precedence and operation of each operator.
_OPERATORS = {
    "+": (1, operations.ADD),
    "-": (1, operations.SUBTRACT),
    "−": (1, operations.SUBTRACT),
    "*": (2, operations.MULTIPLY),
    "×": (2, operations.MULTIPLY),
    "/": (2, operations.DIVIDE),
    "÷": (2, operations.DIVIDE),
    "//": (2, operations.QUOTIENT),
    "%": (2, operations.REMAINDER),
    "mod": (2, operations.REMAINDER),
    "^": (4, operations.POWER),
    "**": (4, operations.POWER),
}


class Name(NamedTuple):
    """Step: push the value of a name, in any case; ``column`` is for errors."""

    name: str
    column: int


class Apply(NamedTuple):
    """Step: replace the topmost ``operands`` numbers by the result of an operation."""

    operation: Operation
    operands: int


Step = Decimal | Name | Apply


class Statement(NamedTuple):
    """What a line computes; ``name``, in lower case, gets the result if it is not empty."""

    steps: list[Step]
    name: str = ""


class UnfinishedError(RequestError):
    """A syntax error that more text could correct."""


def is_name(text: str) -> bool:
    """Return whether a text has the form of a variable's name."""
    return _NAME.fullmatch(text) is not None and len(text) <= MAX_NAME


def parse(text: str, begin: int, arithmetic: Arithmetic, is_value: bool = False) -> list[Step]:
    """Parse the expression in ``text`` from ``begin`` on; raise ``RequestError``.

    An expression may go on from the last answer, and end in ``=``, unless it ``is_value`` of an
    assignment. The code is SYNTAX, UNKNOWN-NAME or WRONG-OPERANDS. Columns in errors are those of
    ``text``, from 1. Raise ``BudgetExceeded`` if the text is too long to be parsed now.
    """
    return _Parser(text, begin, arithmetic).parse(is_value)


def evaluate(
    steps: Sequence[Step],
    arithmetic: Arithmetic,
    value_of: Callable[[Name], Decimal],
    is_charged: bool = True,
) -> Decimal:
    """Return the result of the steps; raise ``RequestError`` if it is not finite.

    Without ``is_charged``, operations that never take long cost nothing.
    """
    stack: list[Decimal] = []
    for step in steps:
        match step:
            case Decimal():
                stack.append(step)
            case Name():
                stack.append(value_of(step))
            case Apply(operation, count):
                numbers = stack[-count:]
                if is_charged or operation.cheap_size is not None:
                    stack[-count:] = [arithmetic.run(operation, numbers)]
                else:
                    stack[-count:] = [arithmetic.result_of(operation.function, *numbers)]
    # The result of an operation is rounded already.
    return stack[0] if isinstance(steps[-1], Apply) else arithmetic.rounded(stack[0])


class _Parser:
    """Precedence climbing parser; ``_ahead`` is the next token."""

    def __init__(self, text: str, begin: int, arithmetic: Arithmetic) -> None:
        self._text = text
        self._begin = begin
        self._tokens = _TOKEN.finditer(text, begin)
        self._arithmetic = arithmetic
        self._charge = arithmetic.budget.charge
        self._steps: list[Step] = []
        self._depth = 0
        self._kind = self._ahead = ""
        self._column = 0
        self._next()

    def parse(self, is_value: bool) -> list[Step]:
        if not is_value and _CONTINUATION.match(self._text, self._begin):
            self._steps.append(Name(ANSWER, self._column))
            self._operators(0)
        else:
            self._expression()
        column = self._column
        if self._ahead == "=" and not is_value:
            self._next()
            if self._kind != "end":
                template = "column {}: only NAME = EXPRESSION has more after ="
                raise RequestError("SYNTAX", template, column)
        if self._kind != "end":
            raise self._unexpected("an operator")
        return self._steps

    def _next(self) -> str:
        """Advance by one token, and return it."""
        self._charge(_TOKEN_COST)
        before = self._ahead
        found = next(self._tokens)
        self._kind = found.lastgroup or ""
        self._ahead = found[self._kind]
        self._column = found.start(self._kind) + 1
        if self._kind == "name" and self._ahead.lower() == "mod":
            self._ahead = "mod"
        return before

    def _unexpected(self, expected: str) -> RequestError:
        if self._kind == "end":
            template = "column {}: expected {}, got end of line"
            return UnfinishedError("SYNTAX", template, self._column, (expected,))
        template = "column {}: expected {}, got {}"
        if self._ahead == ",":
            template = "column {}: expected {}, got a comma: write 1000.50, not 1,000.50"
        elif expected == "an operator":
            template = self._missing_operator()
        return RequestError("SYNTAX", template, self._column, (expected,), printable(self._ahead))

    def _missing_operator(self) -> str:
        """Return the template of an error at what stands where an operator is expected."""
        if _PREFIX.match(self._text, self._column - 2):
            return "column {}: expected {}, got {}: write numbers in decimal"
        if _SEPARATOR.match(self._text, self._column - 2):
            return "column {}: expected {}, got {}: write digits without separators"
        last = self._steps[-1]
        if isinstance(last, Name) and canonical(last.name) in _FUNCTIONS:
            return "column {}: expected {}, got {}: a function has parentheses, as in max(1, 2)"
        if self._kind == "number" and isinstance(last, Decimal):
            if _GROUP.fullmatch(self._ahead):
                return "column {}: expected {}, got {}: write digits without separators"
            return "column {}: expected {}, got {}: two numbers need an operator between them"
        if self._kind == "number" or self._ahead[0].isalpha() or self._ahead == "(":
            return "column {}: expected {}, got {}: write * to multiply"
        return "column {}: expected {}, got {}"

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            template = "column {}: more than {} nested parentheses or powers"
            raise RequestError("SYNTAX", template, self._column, MAX_DEPTH)

    def _expression(self, lower: int = 0) -> None:
        """Parse as far as operators have a higher precedence than ``lower``."""
        signs = []
        while self._ahead in _SIGNS:
            signs.append(_SIGNS[self._next()])
        begin, is_literal = len(self._steps), self._kind == "number"
        self._atom()
        self._operators(_SIGN_PRECEDENCE if signs else lower)
        number = self._steps[-1]
        if signs and is_literal and begin + 1 == len(self._steps) and isinstance(number, Decimal):
            # A number with its sign is one as it is written; other signs are operations.
            is_negative = signs.pop() is operations.NEGATE
            self._steps[-1] = number.copy_negate() if is_negative else number
        self._steps += [Apply(operation, 1) for operation in reversed(signs)]
        self._operators(lower)

    def _operators(self, lower: int) -> None:
        """Parse what follows an operand, as ``_expression`` does."""
        while self._ahead == "!":
            self._next()
            self._steps.append(Apply(operations.FACTORIAL, 1))
        while self._ahead in _OPERATORS:
            precedence, operation = _OPERATORS[self._ahead]
            if precedence <= lower:
                break
            is_power = precedence > _SIGN_PRECEDENCE
            if is_power:
                self._deeper()
            column, mark = self._column, self._next()
            if mark == "%" and self._kind not in ("number", "name") and self._ahead != "(":
                raise self._percent(column)
            # From right to left, and an exponent may have a sign.
            self._expression(_SIGN_PRECEDENCE if is_power else precedence)
            self._steps.append(Apply(operation, 2))
            self._depth -= is_power

    def _percent(self, column: int) -> RequestError:
        template = (
            "column {}: % is the remainder of a division: write 0.10 for 10%; a negative divisor "
            "needs parentheses"
        )
        error = UnfinishedError if self._kind == "end" else RequestError
        return error("SYNTAX", template, column)

    def _atom(self) -> None:
        if self._kind == "number":
            self._steps.append(self._arithmetic.number(self._next()))
        elif self._kind == "name":
            column, name = self._column, self._next()
            if self._ahead == "(" and name.lower() not in (*CONSTANTS, ANSWER):
                self._call(name, column)
            else:
                self._steps.append(Name(name, column))
        elif self._ahead == "(":
            self._deeper()
            self._next()
            self._expression()
            self._close()
        else:
            raise self._unexpected("a number, a name or a parenthesis")

    def _call(self, name: str, column: int) -> None:
        operation = _FUNCTIONS.get(canonical(name))
        if operation is None:
            template = "column {}: unknown function {}: see HELP, or write * to multiply"
            if meant := hints.meant(name, _FUNCTION_NAMES):
                template = "column {}: unknown function {}: did you mean {}?"
            raise RequestError("UNKNOWN-NAME", template, column, printable(name), (meant or "",))
        self._deeper()
        self._next()
        count = 0
        if self._ahead != ")":
            self._expression()
            count = 1
            while self._ahead == ",":
                self._next()
                self._expression()
                count += 1
        self._close()
        operation.check(count, name.upper())
        self._steps.append(Apply(operation, count))

    def _close(self) -> None:
        if self._ahead != ")":
            raise self._unexpected("an operator or a parenthesis")
        self._next()
        self._depth -= 1
