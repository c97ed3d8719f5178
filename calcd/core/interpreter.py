"""One line of text in, one reply out. Knows nothing of line ends, transports and framing.

A line has one character for each byte (latin-1): a whole read is decoded at once without loss,
and only UPPER decodes its operand as UTF-8.
"""

from collections.abc import Callable
from decimal import Decimal

from calcd.core.budget import Budget, BudgetExceeded
from calcd.core.commands import ANSWER, BY_NAME, CONSTANTS, Command, CommandContext, operation_named
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError, printable
from calcd.core.expressions import MAX_NAME, Name, UnfinishedError, evaluate, is_name, parse
from calcd.core.operations import split_request

MAX_VARIABLES = 100
CHARACTER_COST = 0.1  # of each character of a line: to decode, match, split, show in an error
BLANK_LINE_COST = 3
_LINE_COST = 80  # of any line, and again if it is an error
_OPERAND_COST = 30
_SYNTAX_LIMIT = 4_000_000  # of ``is_request``
_LOG_COST = 400  # of a line that ``on_request`` logs


class Interpreter:
    """Replies to requests, and keeps what they set in ``context``.

    ``on_request`` is called with each request and its reply. ``on_bug`` is called with the request
    inside the ``except`` block of an unexpected exception. Both get text with one character for
    each byte.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        on_request: Callable[[str, str], None] | None = None,
        on_bug: Callable[[str], None] | None = None,
    ) -> None:
        self.context = CommandContext(arithmetic)
        self.counters = self.context.counters
        self.budget = arithmetic.budget
        self.on_request = on_request
        self._on_bug = on_bug

    def reply(self, request: str) -> str | None:
        """Return the reply to a line without its line end; None if the line is blank.

        Raise ``BudgetExceeded`` if the line costs more than the budget allows; or MemoryError.
        """
        budget = self.budget
        before = budget.spent
        try:
            budget.start_line(_LINE_COST + CHARACTER_COST * len(request))
            name, rest = split_request(request)
            if not name:
                return None
            reply = self._result(request, name, rest)
        except BudgetExceeded:
            budget.spent = before  # the line is not done
            raise
        except MemoryError:
            raise
        except RequestError as error:
            self.counters.errors += 1
            budget.spent += _LINE_COST
            reply = error.reply(self.context.language.translate)
        except Exception:  # a bug costs its request, not the session
            if self._on_bug is not None:
                self._on_bug(request)
            reply = self.fail("INTERNAL", "internal error: the server's log has the details")
        if self.on_request is not None:
            budget.spent += _LOG_COST
            self.on_request(request, reply)
        return reply

    def fail(self, code: str, template: str, *arguments: object) -> str:
        """Count an error, and return its reply, without its line end."""
        self.counters.errors += 1
        return RequestError(code, template, *arguments).reply(self.context.language.translate)

    def _result(self, request: str, name: str, rest: str) -> str:
        """Return the reply to a request without an error; raise ``RequestError``."""
        context = self.context
        arithmetic = context.arithmetic
        begin, assigns = _find_expression(request, name, rest)
        if begin < 0:
            operation = operation_named(name, context.variables)
            operands = operation.operands_of(rest)
            if isinstance(operation, Command):
                return str(operation.function(context, *operands))
            self.budget.charge(_OPERAND_COST * len(operands))
            result = arithmetic.run(operation, [self._operand(each) for each in operands])
        else:
            if assigns:
                self._check_name(name)
            result = evaluate(parse(request, begin, arithmetic), arithmetic, self._value_of)
            if assigns:
                context.variables[name.lower()] = result
        context.answer = arithmetic.text(result)
        return context.answer

    def _check_name(self, name: str) -> None:
        """Raise ``RequestError`` if nothing can be assigned to a name."""
        if not is_name(name):
            template = (
                "invalid name {}: use a letter, then letters, digits or _, at most {} characters"
            )
            raise RequestError("SYNTAX", template, printable(name), MAX_NAME)
        if name.lower() in (*CONSTANTS, ANSWER) or name.upper() in BY_NAME:
            template = "{} is a reserved name: choose another"
            raise RequestError("SYNTAX", template, printable(name))
        variables = self.context.variables
        count = len(variables) + self.context.more_variables
        if name.lower() not in variables and count >= MAX_VARIABLES:
            template = "there are already {} variables: CLEAR removes them"
            raise RequestError("TOO-MANY-NAMES", template, MAX_VARIABLES)

    def _operand(self, operand: str) -> Decimal:
        name = operand.lower()
        if name in self.context.variables or name == ANSWER:
            return self._value_of(Name(name, 0))
        return self.context.arithmetic.number(operand)

    def _value_of(self, name: Name) -> Decimal:
        context = self.context
        if name.name in context.variables:
            return context.variables[name.name]
        if name.name in CONSTANTS:
            return context.arithmetic.constant(name.name)
        if name.name != ANSWER:
            template = "column {}: unknown variable {}: assign a value first"
            raise RequestError("UNKNOWN-NAME", template, name.column, printable(name.name))
        if not context.answer:
            raise RequestError("UNKNOWN-NAME", "ANS has no value yet")
        return context.arithmetic.number(context.answer)


def is_request(line: str) -> bool:
    """Return whether a line is a whole request, or an error whatever follows."""
    name, rest = split_request(line)
    begin, _ = _find_expression(line, name, rest)
    if begin >= 0:
        try:
            budget = Budget(_SYNTAX_LIMIT)
            budget.start_line(0)
            parse(line, begin, Arithmetic(budget=budget))
        except UnfinishedError:
            return False
        except (RequestError, BudgetExceeded):
            return True
        return True
    operation = BY_NAME.get(name.upper())
    if operation is None:  # an error whatever follows, once the name has ended
        return rest != ""
    return len(operation.split(rest)) >= operation.min_operands


def _find_expression(request: str, name: str, rest: str) -> tuple[int, bool]:
    """Return where in a request its expression begins, and whether the name gets its value.

    It begins at -1 if the request is an operation by name.
    """
    operation = BY_NAME.get(name.upper())
    takes_text = operation is not None and operation.takes_text
    if (rest == "=" or rest.startswith(("= ", "=\t"))) and not takes_text:
        return request.index("=", request.index(name) + len(name)) + 1, True
    if name[:1].isalpha():
        return -1, False
    return request.index(name) + (name[:1] == "="), False
