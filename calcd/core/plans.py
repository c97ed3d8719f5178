"""Plans: how to compute lines that differ in their numbers alone.

The *shape* of a line is its text with a mark in place of each number: ``round(#*#, #)``. Scripts
send few shapes and many rows. So a shape that comes again is parsed once more, into a plan: a
function of the numbers. Nothing is remembered but how to read a line.

A plan computes what ``evaluate`` computes for the steps of the line, or raises one of
``NO_RESULT``; then the line is answered by the interpreter, which knows the reason. All sessions
share the plans: a plan depends on the text alone.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Context, Decimal, DecimalException
from itertools import repeat
from typing import Literal, Protocol

from calcd.core.budget import BudgetExceeded
from calcd.core.decimal128 import Arithmetic
from calcd.core.errors import RequestError
from calcd.core.expressions import ANSWER, CONSTANTS, Apply, Name, Statement, Step
from calcd.core.operations import DIRECT, ROUND, Fold, Operation
from calcd.core.rounding import quantum_of

MARK = "#"  # in place of a number; lines that have it are never planned
# What may be a number, and is not a part of a name; ``Decimal()`` decides.
NUMBER = re.compile(r"(?<!\w)([0-9.]++(?:[eE][+-]?[0-9]++)?+)", re.ASCII)
NO_RESULT = (DecimalException, RequestError, BudgetExceeded, LookupError)

_MAX_SHAPE = 200  # characters
_MAX_STEPS = 20  # about 300 bytes each
_MAX_PLANS = 16_384
_MAX_MEANINGS = 8192  # that are looked up for a new shape
_STEP_COST, _STEP_COST_IN_COLUMNS = 8, 2
_PRECISION_COST = 0.1  # of each step, for each digit of the precision
_PLUS, _MINUS = Decimal(1), Decimal(-1)

# Computes a part of a line. It is given what returns the next number of the line, the arithmetic,
# its context, and the values of names.
Node = Callable[["_Next", Arithmetic, Context, "Values"], Decimal]
_Next = Callable[[], Decimal]


class Values(Protocol):
    """The values of names, as ``CommandContext`` has them."""

    variables: dict[str, Decimal]
    answer: Decimal | None


class Plan:
    """How to compute the lines of a shape.

    ``count`` is how many numbers the shape has. ``compute`` returns the result, or raises one of
    ``NO_RESULT``. Zeros that rounding has left are still there: where there may be some, the result
    is that of ``steps``. ``name`` is that of an assignment. If it ``is_columnar``, no line depends
    on the one before, nor costs more than it: ``compute_columns`` is another way then.
    """

    __slots__ = (
        *("_is_quantized", "_steps", "compute", "count"),
        *("has_functions", "is_columnar", "name", "recently_used"),
    )

    def __init__(self, statement: Statement) -> None:
        self._steps = tuple(map(_without_digits, statement.steps))
        self.name = statement.name
        self.count = sum(isinstance(step, Decimal) for step in statement.steps)
        # Their own steps decide what was rounded.
        self.has_functions = any(
            isinstance(step, Apply) and step.operation.cheap_size is not None
            for step in statement.steps
        )
        names = {step.name for step in self._steps if isinstance(step, Name)}
        self.is_columnar = self.count > 0 and not (
            self.has_functions or names & {self.name, ANSWER, *CONSTANTS}
        )
        last = statement.steps[-1]
        self._is_quantized = isinstance(last, Apply) and last.operation is ROUND  # zeros are meant
        self.compute = _compiled(statement.steps)
        self.recently_used = False

    def cost(self, precision: int, in_columns: bool = False) -> float:
        """Return what the steps of a line cost, in the units of ``Budget``."""
        step_cost = _STEP_COST_IN_COLUMNS if in_columns else _STEP_COST
        return len(self._steps) * (step_cost + _PRECISION_COST * precision)

    def is_final(self, text: str, result: Decimal, notation: str, rounded: bool) -> bool:
        """Return whether the to-scientific-string of a result is its text in the notation.

        ``rounded`` tells whether the computation raised the condition.
        """
        if notation != "plain":
            return True
        if "E" in text or not result:
            return False
        return text[-1] != "0" or self._is_quantized or not (self.has_functions or rounded)

    def compute_columns(
        self, numbers: Sequence[str], context: Context, values: Values
    ) -> list[Decimal]:
        """Return the results of lines with these numbers; raise as ``compute`` if one has none.

        The flags of the context are then those of all lines.
        """
        rows = len(numbers) // self.count
        columns = iter([numbers[at :: self.count] for at in range(self.count)])
        stack: list[Iterable[Decimal]] = []
        for step in self._steps:
            match step:
                case Decimal():
                    column = map(Decimal, next(columns))
                    stack.append(map(Decimal.copy_negate, column) if step.is_signed() else column)
                case Name(name):
                    stack.append(repeat(values.variables[name], rows))
                case Apply(operation, count):
                    stack[-count:] = [_column(operation, context, stack[-count:])]
        if not isinstance(self._steps[-1], Apply):
            return list(map(context.create_decimal, stack[0]))
        return list(stack[0])

    def steps(self, numbers: Sequence[str]) -> list[Step]:
        """Return the steps of the line with these numbers."""
        texts = iter(numbers)
        return [
            Decimal(next(texts)).copy_sign(step) if isinstance(step, Decimal) else step
            for step in self._steps
        ]


def _without_digits(step: Step) -> Step:
    """Return a step without what differs from line to line: of a number its sign is left."""
    if isinstance(step, Decimal):
        return _MINUS if step.is_signed() else _PLUS
    return Name(step.name.lower(), 0) if isinstance(step, Name) else step


class Plans:
    """A bounded number of plans, by shape.

    A shape is planned when it comes for the second time. The oldest shape that was not used since
    it was last looked at goes first (second chance): so a client that sends ever new shapes costs
    the others no plan that they use. Shapes that mean the same share a plan. Safe to share between
    threads.
    """

    def __init__(self, limit: int = _MAX_PLANS) -> None:
        self._limit = limit
        # None: the shape has come once. False: it cannot be planned.
        self._plans: OrderedDict[str, Plan | Literal[False] | None] = OrderedDict()
        self._by_meaning: OrderedDict[Hashable, Plan] = OrderedDict()
        self.get = self._plans.get

    def add(
        self, shape: str, numbers: Sequence[str], statement: Callable[[], Statement | None]
    ) -> None:
        """Note a shape, or make a plan of it: ``statement`` parses the line with these numbers."""
        if len(shape) > _MAX_SHAPE:
            return
        if shape not in self._plans:
            self._make_room()
            self._plans[shape] = None
            return
        try:
            found = statement()
            read = list(map(Decimal, numbers))
        except NO_RESULT:
            return
        is_plannable = (
            found is not None
            and len(found.steps) <= _MAX_STEPS
            and read == [step.copy_abs() for step in found.steps if isinstance(step, Decimal)]
        )
        self._plans[shape] = self._plan(found) if found and is_plannable else False

    def _plan(self, statement: Statement) -> Plan:
        meaning = (
            statement.name,
            *(
                (step.operation.names, step.operands) if isinstance(step, Apply) else str(step)
                for step in map(_without_digits, statement.steps)
            ),
        )
        plan = self._by_meaning.get(meaning)
        if plan is None:
            if len(self._by_meaning) >= _MAX_MEANINGS:
                self._by_meaning.popitem(last=False)
            self._by_meaning[meaning] = plan = Plan(statement)
        return plan

    def __len__(self) -> int:
        return len(self._plans)

    def clear(self) -> None:
        """Forget all shapes."""
        self._plans.clear()
        self._by_meaning.clear()

    def _make_room(self) -> None:
        while len(self._plans) >= self._limit:
            shape, plan = self._plans.popitem(last=False)
            if not plan or not plan.recently_used:
                return
            plan.recently_used = False
            self._plans[shape] = plan


def _compiled(steps: Sequence[Step]) -> Node:
    """Return a function with the result of the steps."""
    stack: list[Node | None] = []  # None: the next number as it is written
    for step in steps:
        match step:
            case Decimal():
                stack.append(_negative if step.is_signed() else None)
            case Name():
                stack.append(_named(step.name))
            case Apply(operation, count):
                stack[-count:] = [_applied(operation, stack[-count:])]
    result = stack[0] or _number
    return result if isinstance(steps[-1], Apply) else _rounded(result)


def _number(following: _Next, _a: Arithmetic, _c: Context, _v: Values) -> Decimal:
    return following()


def _negative(following: _Next, _a: Arithmetic, _c: Context, _v: Values) -> Decimal:
    return following().copy_negate()


def _answer(_f: _Next, _a: Arithmetic, _c: Context, values: Values) -> Decimal:
    if values.answer is None:
        raise LookupError
    return values.answer


def _rounded(node: Node) -> Node:
    return lambda f, a, c, v: c.create_decimal(node(f, a, c, v))


def _named(typed: str) -> Node:
    name = typed.lower()
    if name == ANSWER:
        return _answer
    if name in CONSTANTS:
        return lambda f, a, c, v: a.constant(name)
    return lambda f, a, c, v: v.variables[name]


def _applied(operation: Operation, operands: Sequence[Node | None]) -> Node:
    """Return a function that applies an operation to operands; None: the next number."""
    function = operation.function
    if operation.cheap_size is None and len(operands) > 1:
        if isinstance(function, Fold):
            if len(operands) > 2 and not any(operands):
                return _folded(function.method, len(operands) - 1)
            result = operands[0]
            for operand in operands[1:]:
                result = _binary(function.method, result, operand)
            return result or _number
        if operation is ROUND:
            return _quantized(*operands)
        if len(operands) == 2:
            return _binary(DIRECT.get(operation, function), *operands)
    nodes = [operand or _number for operand in operands]
    if operation.cheap_size is None:
        return lambda f, a, c, v: function(c, *[node(f, a, c, v) for node in nodes])
    return lambda f, a, c, v: a.run(operation, [node(f, a, c, v) for node in nodes])


def _folded(method: Callable[..., Decimal], count: int) -> Node:
    """Return a function that applies a method to one number and to ``count`` more."""

    def node(f: _Next, _a: Arithmetic, c: Context, _v: Values) -> Decimal:
        result = f()
        for _ in range(count):
            result = method(c, result, f())
        return result

    return node


def _column(
    operation: Operation, context: Context, operands: Sequence[Iterable[Decimal]]
) -> list[Decimal]:
    """Apply an operation to columns of operands."""
    function, contexts = operation.function, repeat(context)
    if len(operands) > 1 and isinstance(function, Fold):
        result, *others = operands
        for other in others:
            result = map(function.method, contexts, result, other)
        return list(result)
    if len(operands) == 2:
        if operation is ROUND:
            number, places = operands[0], list(operands[1])
            quanta = {each: quantum_of(context, each) for each in set(places)}
            return list(map(context.quantize, number, map(quanta.__getitem__, places)))
        function = DIRECT.get(operation, function)
    return list(map(function, contexts, *operands))


def _quantized(number: Node | None, places: Node | None) -> Node:
    """Return a function that rounds to places, which are mostly those of the line before."""
    value_of, places_of = number or _number, places or _number
    last = Decimal(0), Decimal(1)

    def node(f: _Next, a: Arithmetic, c: Context, v: Values) -> Decimal:
        nonlocal last
        value, asked = value_of(f, a, c, v), places_of(f, a, c, v)
        known, quantum = last
        if asked != known:
            quantum = quantum_of(c, asked)
            last = asked, quantum
        return c.quantize(value, quantum)

    return node


def _binary(method: Callable[..., Decimal], left: Node | None, right: Node | None) -> Node:
    if left is None:
        if right is None:
            return lambda f, a, c, v: method(c, f(), f())
        return lambda f, a, c, v: method(c, f(), right(f, a, c, v))
    if right is None:
        return lambda f, a, c, v: method(c, left(f, a, c, v), f())
    return lambda f, a, c, v: method(c, left(f, a, c, v), right(f, a, c, v))


PLANS = Plans()  # those of all sessions of this process
