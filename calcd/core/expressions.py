"""Expressions: parse text into steps for a stack machine, and evaluate the steps.

The grammar, each line binding tighter than the one before::

    sum      product { (+ | -) product }
    product  signed { (* | / | %) signed }
    signed   { + | - } power
    power    atom [ (^ | **) signed ]          so to the right, and -2^2 is -4
    atom     number | name | function ( sum { , sum } ) | ( sum )
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from calcd.core import operations
from calcd.core.decimal128 import UNSIGNED, Arithmetic
from calcd.core.errors import RequestError, printable
from calcd.core.operations import Operation

MAX_DEPTH = 50  # of nested parentheses, calls and powers
MAX_NAME = 64  # characters
_TOKEN_COST = 30

_WORD = r"[A-Za-z][A-Za-z0-9_]*"
_NAME = re.compile(_WORD)
_TOKEN = re.compile(
    rf"[ \t]*(?:(?P<number>{UNSIGNED})|(?P<name>{_WORD})|(?P<mark>\*\*|.)|(?P<end>$))", re.DOTALL
)
_FUNCTIONS = {name: operation for operation in operations.ARITHMETIC for name in operation.names}
_SIGNS = ("+", "-")
_SIGN_PRECEDENCE = 3  # between those of products and powers
# Precedence and operation of each operator.
_OPERATORS = {
    "+": (1, operations.ADD),
    "-": (1, operations.SUBTRACT),
    "*": (2, operations.MULTIPLY),
    "/": (2, operations.DIVIDE),
    "%": (2, operations.REMAINDER),
    "^": (4, operations.POWER),
    "**": (4, operations.POWER),
}


class Name(NamedTuple):
    """Step: push the value of a name, in lower case; ``column`` is for errors."""

    name: str
    column: int


class Negate(NamedTuple):
    """Step: negate the topmost number."""


class Apply(NamedTuple):
    """Step: replace the topmost ``operands`` numbers by the result of an operation."""

    operation: Operation
    operands: int


Step = Decimal | Name | Negate | Apply


class UnfinishedError(RequestError):
    """A syntax error that more text could correct."""


def is_name(text: str) -> bool:
    """Return whether a text has the form of a variable's name."""
    return _NAME.fullmatch(text) is not None and len(text) <= MAX_NAME


def parse(text: str, begin: int, arithmetic: Arithmetic) -> list[Step]:
    """Parse the expression in ``text`` from ``begin`` on; raise ``RequestError``.

    The code is SYNTAX, UNKNOWN-NAME or WRONG-OPERANDS. Columns in errors are those of ``text``,
    from 1. Raise ``BudgetExceeded`` if the text is too long to be parsed now.
    """
    return _Parser(text, begin, arithmetic).parse()


def evaluate(
    steps: Sequence[Step], arithmetic: Arithmetic, value_of: Callable[[Name], Decimal]
) -> Decimal:
    """Return the result of the steps; raise ``RequestError`` if it is not finite."""
    stack: list[Decimal] = []
    for step in steps:
        match step:
            case Decimal():
                stack.append(step)
            case Name():
                stack.append(value_of(step))
            case Negate():
                stack.append(stack.pop().copy_negate())
            case Apply(operation, count):
                stack[-count:] = [arithmetic.run(operation, stack[-count:])]
    # The result of an operation is rounded already, and would lose the sign of a zero.
    return stack[0] if isinstance(steps[-1], Apply) else arithmetic.rounded(stack[0])


class _Parser:
    """Precedence climbing parser; ``_ahead`` is the next token."""

    def __init__(self, text: str, begin: int, arithmetic: Arithmetic) -> None:
        self._tokens = _TOKEN.finditer(text, begin)
        self._arithmetic = arithmetic
        self._charge = arithmetic.budget.charge
        self._steps: list[Step] = []
        self._depth = 0
        self._kind = self._ahead = ""
        self._column = 0
        self._next()

    def parse(self) -> list[Step]:
        self._expression()
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
        return before

    def _unexpected(self, expected: str) -> RequestError:
        if self._kind == "end":
            template = "column {}: expected {}, got end of line"
            return UnfinishedError("SYNTAX", template, self._column, (expected,))
        template = "column {}: expected {}, got {}"
        if self._ahead == ",":
            template = "column {}: expected {}, got a comma: use a point before decimals"
        # The template for a comma leaves the last argument out.
        return RequestError("SYNTAX", template, self._column, (expected,), printable(self._ahead))

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            template = "column {}: more than {} nested parentheses or powers"
            raise RequestError("SYNTAX", template, self._column, MAX_DEPTH)

    def _expression(self, lower: int = 0) -> None:
        """Parse as far as operators have a higher precedence than ``lower``."""
        negative = False
        while self._ahead in _SIGNS:
            negative ^= self._next() == "-"
        if negative:
            self._expression(_SIGN_PRECEDENCE)
            self._steps.append(Negate())
        else:
            self._atom()
        while self._ahead in _OPERATORS:
            precedence, operation = _OPERATORS[self._ahead]
            if precedence <= lower:
                break
            is_power = precedence > _SIGN_PRECEDENCE
            if is_power:
                self._deeper()
            self._next()
            # From right to left, and an exponent may have a sign.
            self._expression(_SIGN_PRECEDENCE if is_power else precedence)
            self._steps.append(Apply(operation, 2))
            self._depth -= is_power

    def _atom(self) -> None:
        if self._kind == "number":
            self._steps.append(self._arithmetic.number(self._next()))
        elif self._kind == "name":
            column, name = self._column, self._next()
            if self._ahead == "(":
                self._call(name, column)
            else:
                self._steps.append(Name(name.lower(), column))
        elif self._ahead == "(":
            self._deeper()
            self._next()
            self._expression()
            self._close()
        else:
            raise self._unexpected("a number, a name or a parenthesis")

    def _call(self, name: str, column: int) -> None:
        operation = _FUNCTIONS.get(name.upper())
        if operation is None:
            template = "column {}: unknown function {}: HELP lists them"
            raise RequestError("UNKNOWN-NAME", template, column, printable(name))
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
        operation.check(count)
        self._steps.append(Apply(operation, count))

    def _close(self) -> None:
        if self._ahead != ")":
            raise self._unexpected("an operator or a parenthesis")
        self._next()
        self._depth -= 1
