"""One line of text in, one reply out. Knows nothing of line ends, transports and framing.

Lines and replies have one character for each byte (latin-1): a whole read is decoded at once
without loss, and only a line with other characters than ASCII is decoded as UTF-8.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple, Self

from calcd.core import hints
from calcd.core.budget import Budget, BudgetExceeded
from calcd.core.commands import (
    NAMES,
    Command,
    CommandContext,
    ReadStats,
    Setting,
    operation_called,
)
from calcd.core.decimal128 import UNSIGNED, Arithmetic
from calcd.core.errors import RequestError, from_wire, is_byte, printable, to_wire
from calcd.core.expressions import (
    ANSWER,
    CONSTANTS,
    MAX_NAME,
    Apply,
    Name,
    Statement,
    Step,
    UnfinishedError,
    evaluate,
    is_name,
    parse,
)
from calcd.core.messages import ENGLISH, Language
from calcd.core.operations import Operation, split_request

RESERVED = (*CONSTANTS, ANSWER)
MAX_VARIABLES = 100
CHARACTER_COST = 0.4  # of each character of a line: to decode, match, split, show in an error
_LINE_COST = 80  # of any line
_ERROR_COST = 400  # of an error, beside that
_OPERAND_COST = 30
_FIELD_COST = 5  # of a field that may be an operand
_SYNTAX_LIMIT = 4_000_000  # of ``is_request``
_LOG_COST = 400  # of a line that ``on_request`` logs

_OPERAND = re.compile(rf"[+−-]?{UNSIGNED}|[A-Za-z][A-Za-z0-9_]*+")
_ASSIGNMENT = re.compile(r"[ \t]*+([^ \t=]++)[ \t]*+=(?=[ \t]*+[^ \t])")
_WORD = re.compile(r"[^\W\d]\w*")
_MARK = re.compile(r"[-+*/^%!(),=×÷−]")
# A part of a token, perhaps, of at most 3 characters: of an exponent, of mod, of UTF-8.
_CUT = re.compile(r"(?:[0-9.]e[+-]?|(?<![^\W\d])mo?)\Z", re.IGNORECASE)
_NOT_A_NAME = re.compile(r"[0-9.]|.*[-+*/^%!(),×÷−]")  # but rather an expression before =


class Interpreter:
    """Replies to requests, and keeps what they set in ``context``.

    ``on_request`` is called with each request and its reply. ``on_bug`` is called with the request
    inside the ``except`` block of an unexpected exception. Both get decoded text. ``stats`` is
    that of ``CommandContext``.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        on_request: Callable[[str, str], None] | None = None,
        on_bug: Callable[[str], None] | None = None,
        language: Language = ENGLISH,
        stats: ReadStats | None = None,
    ) -> None:
        self.context = CommandContext(arithmetic, language, stats=stats)
        self.counters = self.context.counters
        self.budget = arithmetic.budget
        self.on_request = on_request
        self._on_bug = on_bug

    def reply(self, line: str) -> str | None:
        """Return the reply to a line without its line end; None if the line is blank.

        Raise ``BudgetExceeded`` if the line costs more than the budget allows; or MemoryError.
        """
        budget = self.budget
        before = budget.spent
        request = from_wire(line)
        try:
            budget.start_line(_LINE_COST + CHARACTER_COST * len(line))
            call = _Call.of(request)
            if not call.name:
                return None
            reply = self._result(request, call)
        except BudgetExceeded:
            budget.spent = before  # the line is not done
            raise
        except MemoryError:
            raise
        except RequestError as error:
            self.counters.count_error(error.code)
            budget.spent += _ERROR_COST
            reply = error.reply(self.context.language.translate)
        except Exception:  # a bug costs its request, not the session
            reply = from_wire(self.bug(request))
        if self.on_request is not None:
            budget.spent += _LOG_COST
            self.on_request(request, reply)
        return to_wire(reply)

    def bug(self, request: str) -> str:
        """Report an unexpected exception, and return its reply, without its line end."""
        if self._on_bug is not None:
            self._on_bug(request)
        return self.fail("INTERNAL", "internal error: the server's log has the details")

    def fail(self, code: str, template: str, *arguments: object) -> str:
        """Count an error, and return its reply, without its line end."""
        self.counters.count_error(code)
        return to_wire(
            RequestError(code, template, *arguments).reply(self.context.language.translate)
        )

    def _result(self, request: str, call: "_Call") -> str:
        """Return the reply to a request without an error; raise ``RequestError``."""
        operation, operands = call.operation, call.operands
        self.budget.charge(_FIELD_COST * len(operands))
        if isinstance(operation, Command) and operation.allows(len(operands)):
            return str(operation.function(self.context, *operands))
        statement = self._statement(request, call)
        try:
            result, text = self.compute(statement.steps)
        except RequestError as error:
            raise error if statement.name else self._true_error(request, error) from None
        self.context.answer = result
        if statement.name:
            self.context.variables[statement.name] = result
        return text

    def compute(self, steps: Sequence[Step], is_charged: bool = True) -> tuple[Decimal, str]:
        """Return the result of steps, as it is replied, and its text; see ``evaluate``."""
        arithmetic = self.context.arithmetic
        text = arithmetic.text(evaluate(steps, arithmetic, self._value_of, is_charged))
        return Decimal(text), text

    def plannable(self, line: str) -> Statement | None:
        """Return what a line of ASCII computes; None if it is a command.

        Raise ``RequestError`` if it computes nothing.
        """
        call = _Call.of(line)
        return None if isinstance(call.operation, Command) else self._statement(line, call)

    def _statement(self, request: str, call: "_Call") -> Statement:
        """Return what a request computes that is no command; raise ``RequestError``.

        It is an operation by name, else an assignment, else an expression.
        """
        operation, operands = call.operation, call.operands
        if operation and operation.allows(len(operands)) and _are_operands(operands):
            return Statement([*self._operands(operands), Apply(operation, len(operands))])
        name, begin = _find_expression(request)
        if name:
            self._check_name(name, request[begin:].strip())
            return Statement(parse(request, begin, self.context.arithmetic, True), name.lower())
        try:
            return Statement(parse(request, begin, self.context.arithmetic))
        except RequestError as error:
            raise self._true_error(request, error) from None

    def _true_error(self, request: str, error: RequestError) -> RequestError:
        """Return what is wrong with a request that is no expression, as ``error`` says."""
        if error.code not in ("SYNTAX", "UNKNOWN-NAME"):
            return error
        _, begin = _find_expression(request)
        text = request[begin:].rstrip(" \t")
        name, rest, operation, operands = _Call.of(text.removesuffix("="))
        if operation:
            if error.code == "UNKNOWN-NAME":
                return error
            if text[-1:] == "=" and operation.allows(len(operands)):
                operands.append("=")  # the rest may be right
            try:
                operation.check(len(operands), name.upper())
                if not isinstance(operation, Command):
                    self._operands(operands)
            except RequestError as own_error:
                return own_error
        elif (
            (error.code == "SYNTAX" or not rest)
            and _WORD.fullmatch(name)
            and not self._has_value(name)
            and (not _MARK.match(rest) or _are_operands(rest.split()))
        ):
            return self._unknown_operation(name, rest)
        return error

    def _unknown_operation(self, name: str, rest: str) -> RequestError:
        if meant := hints.meant(name, NAMES):
            template = "unknown operation {}: did you mean {}?"
        elif rest:
            template = "unknown operation {}: see HELP"
        else:
            template = "unknown operation or variable {}: see HELP"
        return RequestError("UNKNOWN-OPERATION", template, printable(name), (meant or "",))

    def _check_name(self, name: str, value: str) -> None:
        """Raise ``RequestError`` if ``value`` cannot be assigned to a name."""
        operation = operation_called(name)
        if operation or name.lower() in RESERVED:
            template = "{} is a reserved name: choose another"
            if isinstance(operation, Setting):
                template = "{} is a reserved name: to set it, write {}"
            raise RequestError("SYNTAX", template, printable(name), printable(f"{name} {value}"))
        if not is_name(name):
            template = (
                "invalid name {}: use a letter, then letters, digits or _, at most {} characters"
            )
            raise RequestError("SYNTAX", template, printable(name), MAX_NAME)
        variables = self.context.variables
        count = len(variables) + self.context.more_variables
        if name.lower() not in variables and count >= MAX_VARIABLES:
            template = "there are already {} variables: CLEAR removes them"
            raise RequestError("TOO-MANY-NAMES", template, MAX_VARIABLES)

    def _operands(self, operands: list[str]) -> list[Step]:
        """Return operands by name as steps; raise ``RequestError`` INVALID-NUMBER."""
        self.budget.charge(_OPERAND_COST * len(operands))
        number = self.context.arithmetic.number
        return [Name(each, 0) if self._has_value(each) else number(each) for each in operands]

    def _has_value(self, name: str) -> bool:
        name = name.lower()
        return name in self.context.variables or name in RESERVED

    def _value_of(self, name: Name) -> Decimal:
        """Return the value of a name in an expression; raise ``RequestError``."""
        context, key = self.context, name.name.lower()
        if key in context.variables:
            return context.variables[key]
        if key in CONSTANTS:
            return context.arithmetic.constant(key)
        if key == ANSWER:
            if context.answer is None:
                raise RequestError("UNKNOWN-NAME", "ANS has no value yet")
            return context.answer
        code, template = "UNKNOWN-NAME", "column {}: unknown variable {}: assign a value first"
        if not name.name.isascii():
            template = (
                "column {}: unknown variable {}: names have the letters a to z, without accents"
            )
        shown: object = name.name.upper()
        meant = hints.meant(name.name, NAMES) if name.name.isupper() else None
        if meant:  # as in SUM -1
            template, shown = "column {}: unknown variable {}: did you mean {}?", (meant,)
        if operation_called(name.name):
            code, template = "SYNTAX", "column {}: {} is an operation: HELP {} shows how it is used"
        raise RequestError(code, template, name.column, printable(name.name), shown)

    def is_request(self, line: str) -> bool:
        """Return whether a line is a whole request, or an error whatever follows."""
        request = from_wire(line)
        name, rest, operation, operands = _Call.of(request)
        if operation:
            has_all = len(operands) >= operation.min_operands
            if has_all and (isinstance(operation, Command) or _are_operands(operands)):
                return True
            if not rest:
                return False
        elif not rest and _WORD.fullmatch(name) and not self._has_value(name):
            return False  # only the beginning of a name, perhaps
        elif rest == "=" or (name[-1:] == "=" and not rest and _WORD.fullmatch(name[:-1])):
            return False  # only the beginning of an assignment, perhaps
        name, begin = _find_expression(request)
        try:
            budget = Budget(_SYNTAX_LIMIT)
            budget.start_line(0)
            parse(request, begin, Arithmetic(budget=budget), is_value=name != "")
        except UnfinishedError:
            return False
        except RequestError:
            return (
                has_all if operation else not (_CUT.search(request[-4:]) or is_byte(request[-1:]))
            )
        except BudgetExceeded:
            return True
        return True


class _Call(NamedTuple):
    """A request read as an operation by name: its first field, what follows it, what they mean."""

    name: str
    rest: str
    operation: Operation | None
    operands: list[str]

    @classmethod
    def of(cls, request: str) -> Self:
        """Return what a request calls; all is empty if it is blank."""
        name, rest = split_request(request)
        operation = operation_called(name)
        return cls(name, rest, operation, operation.split(rest) if operation else [])


def _are_operands(fields: list[str]) -> bool:
    """Return whether each field is a number or has the form of a name."""
    return all(map(_OPERAND.fullmatch, fields))


def _find_expression(request: str) -> tuple[str, int]:
    """Return the name that is to get a value, ``""`` if none, and where the expression begins."""
    assignment = _ASSIGNMENT.match(request)
    if assignment and not _NOT_A_NAME.match(assignment[1]):
        return assignment[1], assignment.end()
    expression = request.lstrip(" \t")
    return "", len(request) - len(expression) + expression.startswith("=")
