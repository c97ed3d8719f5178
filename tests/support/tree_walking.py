"""A plain evaluator of lines: what docs/protocol.md says, and nothing of calcd's code.

A line becomes tokens, these become a tree, and a walk through the tree computes it. It knows what
scripts send: arithmetic, variables and the settings that change a result. For other lines it says
so, and then nothing has changed.
"""

import decimal
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import reduce
from math import factorial, isqrt
from typing import NoReturn

MODES = {
    mode: "ROUND_" + mode.upper().replace("-", "_")
    for mode in ["half-even", "half-up", "half-down", "up", "down", "ceiling", "floor", "05up"]
}
_DIGITS = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(f"[-+−]?{_DIGITS}")
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
_TOKEN = re.compile(rf"[ \t]*({_DIGITS}|{_NAME.pattern}|//|\*\*|[-+*/%^!(),=×÷−])")
_ASSIGNMENT = re.compile(rf"({_NAME.pattern})[ \t]*=(.+)")
_SPELLINGS = {"×": "*", "÷": "/", "−": "-", "**": "^"}
_CONTINUATIONS = ("*", "/", "//", "^")
# Of exact values between operations. What needs more digits is not for this evaluator.
_WIDE = Context(
    prec=30_000,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[decimal.Inexact, decimal.InvalidOperation],
)


class NotMineError(Exception):
    """A line, or a part of one, that this evaluator does not know."""


class WrongError(Exception):
    """A line that is an error; its text is the code, or "" where the page does not say which."""


# What an operation does with its operands, in the context of the session.
Function = Callable[..., Decimal]


def _exactly(method: Function, *numbers: Decimal) -> Decimal:
    try:
        return reduce(lambda left, right: method(_WIDE, left, right), numbers)
    except decimal.DecimalException:
        raise NotMineError from None


def _folded(method: Function) -> Function:
    def function(c: Context, *numbers: Decimal) -> Decimal:
        first, *others = numbers
        result = reduce(lambda left, right: method(c, left, right), others, first)
        return result if others else c.create_decimal(first)

    return function


def _check_divisor(dividend: Decimal, divisor: Decimal) -> None:
    if not divisor:
        raise WrongError("DIVISION-BY-ZERO" if dividend else "DIVISION-UNDEFINED")


def _divide(c: Context, dividend: Decimal, divisor: Decimal) -> Decimal:
    _check_divisor(dividend, divisor)
    return c.divide(dividend, divisor)


def _quotient(c: Context, dividend: Decimal, divisor: Decimal) -> Decimal:
    _check_divisor(dividend, divisor)
    return c.divide_int(dividend, divisor)  # as the specification has it: no more digits


def _remainder(c: Context, dividend: Decimal, divisor: Decimal) -> Decimal:
    _check_divisor(dividend, divisor)
    return c.create_decimal(_exactly(Context.remainder, dividend, divisor))


def _power(c: Context, base: Decimal, exponent: Decimal) -> Decimal:
    if exponent.copy_abs() > 100 or exponent != int(exponent) or len(base.as_tuple().digits) > 100:
        raise NotMineError
    if not base and not exponent:
        raise WrongError("INVALID-OPERATION")
    if not base and exponent > 0:
        return Decimal(0).copy_sign(base) if exponent % 2 else Decimal(0)
    exact = _exactly(Context.multiply, Decimal(1), *[base] * abs(int(exponent)))
    return _divide(c, Decimal(1), exact) if exponent < 0 else c.create_decimal(exact)


def _square_root(c: Context, number: Decimal) -> Decimal:
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if number and sign:
        raise WrongError("INVALID-OPERATION")
    coefficient = int("".join(map(str, digits))) * 10 ** (exponent % 2)
    root, scale = isqrt(coefficient), exponent // 2
    if root * root != coefficient:  # all digits that can matter, and one for the rest
        root, scale = 10 * isqrt(coefficient * 100 ** (c.prec + 2)) + 1, scale - c.prec - 3
    return c.create_decimal(Decimal(f"{'-' if sign else ''}{root}E{scale}"))


def _mean(c: Context, *numbers: Decimal) -> Decimal:
    return c.divide(_exactly(Context.add, *numbers), Decimal(len(numbers)))


def _factorial(c: Context, number: Decimal) -> Decimal:
    if number < 0 or number != number.to_integral_value():
        raise WrongError("INVALID-OPERATION")
    if number > 3000:
        raise WrongError("OVERFLOW")
    return c.create_decimal(Decimal(factorial(int(number))))


def _round(c: Context, number: Decimal, places: Decimal | None = None) -> Decimal:
    if places is None and number == number.to_integral_value():
        raise NotMineError  # the page does not say with which quantum
    places = places or Decimal(0)
    if places != places.to_integral_value() or places.copy_abs() > 10_000:
        raise WrongError("INVALID-OPERATION")
    return c.quantize(number, Decimal(f"1E{-int(places)}"))


@dataclass(frozen=True)
class Operation:
    function: Function
    least: int
    most: int

    def takes(self, count: int) -> bool:
        return self.least <= count <= self.most


_MANY = 10**9
_ROWS: list[tuple[str, Function, int, int]] = [
    ("ADD SOMA", _folded(Context.add), 1, _MANY),
    ("SUB", Context.subtract, 2, 2),
    ("MUL", _folded(Context.multiply), 1, _MANY),
    ("DIV", _divide, 2, 2),
    ("IDIV QUOC", _quotient, 2, 2),
    ("MOD RESTO", _remainder, 2, 2),
    ("POW POT", _power, 2, 2),
    ("ABS", Context.abs, 1, 1),
    ("NEG", Context.minus, 1, 1),
    ("CMP COMP", lambda _, left, right: left.compare(right), 2, 2),
    ("SQRT RAIZ", _square_root, 1, 1),
    ("MIN", _folded(Context.min), 1, _MANY),
    ("MAX", _folded(Context.max), 1, _MANY),
    ("MEAN MEDIA", _mean, 1, _MANY),
    ("FACT FAT", _factorial, 1, 1),
    ("ROUND ARRED", _round, 1, 2),
]
_OPERATIONS = {
    name: Operation(function, least, most)
    for names, function, least, most in _ROWS
    for name in names.split()
}
_ROUNDED = Operation(Context.create_decimal, 1, 1)
_PLUS = Operation(Context.plus, 1, 1)  # a sign, without a name
_SIGNS = {"+": "ADD", "-": "SUB", "*": "MUL", "/": "DIV", "//": "IDIV", "%": "MOD", "^": "POW"}
_BINARY = {sign: _OPERATIONS[name] for sign, name in [*_SIGNS.items(), ("mod", "MOD")]}
_CHOICES = {
    "precision": [str(digits) for digits in range(1, 1001)],
    "rounding": list(MODES),
    "exact": ["on", "off"],
    "notation": ["plain", "scientific"],
}
_SETTINGS = dict.fromkeys(["PRECISION", "PRECISAO"], "precision")
_SETTINGS |= dict.fromkeys(["ROUNDING", "ARREDONDAMENTO"], "rounding")
_SETTINGS |= dict.fromkeys(["EXACT", "EXACTO", "EXATO"], "exact")
_SETTINGS |= dict.fromkeys(["NOTATION", "NOTACAO"], "notation")
_WORDS = {"CLEAR": "OK", "LIMPAR": "OK", "PING": "PONG"}
# Names of what is not for this evaluator.
_OTHERS = re.compile(
    "ROOT|EXP|LN|LOG|LOG10|A?(SIN|SEN|COS|TAN)|GCD|MDC|LCM|MMC|PERM|COMB|FLOOR|PISO|CEIL|TETO|TRUNC"
    "|REDUCE|REDUZ|VARS|VARIAVEIS|VERSION|VERSAO|QUIT|EXIT|SAIR|UPPER|MAIUSCULA|LANGUAGE|IDIOMA"
    "|HELP|AJUDA|PI|E"
)
_RESERVED = {*_OPERATIONS, *_SETTINGS, *_WORDS, "ANS"}


@dataclass(frozen=True)
class Call:
    """A node that computes; the others are a number and a name, by themselves."""

    operation: Operation
    operands: "tuple[Node, ...]"


Node = Decimal | str | Call


def _number(text: str) -> Decimal:
    exponent = int(text.lower().partition("e")[2] or 0)
    if abs(exponent) > 10**6:
        raise WrongError("INVALID-NUMBER") if abs(exponent) >= 10**19 else NotMineError
    return Decimal(text.replace("−", "-"))


class _Parser:
    """Reads an expression: a method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        self._at = end = 0
        self._codes: set[str] = set()  # of calls, and of names, that are wrong
        while text[end:].strip(" \t"):
            found = _TOKEN.match(text, end)
            if found is None:
                raise WrongError("SYNTAX")
            self._tokens.append(_SPELLINGS.get(found[1], found[1]))
            end = found.end()
        self._tokens.append("")  # the end

    def parse(self) -> Node:
        if self._next in _CONTINUATIONS or self._goes_on_with_mod():
            self._tokens.insert(0, "ans")
        node = self._sum()
        if self._next:
            self._fail("SYNTAX")
        if self._codes:
            self._fail(*self._codes)
        return node

    def _fail(self, *codes: str) -> NoReturn:
        """Raise an error; where several things are wrong, any of them may be told."""
        self._codes.update(codes)
        raise WrongError(self._codes.pop() if len(self._codes) == 1 else "")

    def _goes_on_with_mod(self) -> bool:
        return self._next.lower() == "mod" and self._tokens[self._at + 1] not in ("(", "")

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self, *tokens: str) -> str:
        """Take the next token if it is one of these; else return "", which is none."""
        token = self._next.lower()
        if not token or token not in tokens:
            return ""
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if not self._take(token):
            self._fail("SYNTAX")

    def _sum(self) -> Node:
        node = self._product()
        while sign := self._take("+", "-"):
            node = Call(_BINARY[sign], (node, self._product()))
        return node

    def _product(self) -> Node:
        node = self._signed()
        while sign := self._take("*", "/", "//", "%", "mod"):
            if sign == "%" and self._next in ("+", "-"):
                self._fail("SYNTAX")
            node = Call(_BINARY[sign], (node, self._signed()))
        return node

    def _signed(self) -> Node:
        sign = self._take("+", "-")
        if not sign:
            return self._power()
        if self._next[:1] in ("+", "-"):
            operand = self._signed()
        else:
            operand = self._power()
            if isinstance(operand, Decimal) and self._tokens[self._at - 1] != ")":
                return operand.copy_negate() if sign == "-" else operand
        return Call(_OPERATIONS["NEG"] if sign == "-" else _PLUS, (operand,))

    def _power(self) -> Node:
        node = self._postfix()
        if self._take("^"):
            return Call(_BINARY["^"], (node, self._signed()))
        return node

    def _postfix(self) -> Node:
        node = self._atom()
        while self._take("!"):
            node = Call(_OPERATIONS["FACT"], (node,))
        return node

    def _atom(self) -> Node:
        token = self._next
        self._at += bool(token)
        if token == "(":
            node = self._sum()
            self._expect(")")
            return node
        if _NUMBER.fullmatch(token):
            try:
                return _number(token)
            except WrongError as error:
                self._codes.add(str(error))
                return Decimal(0)
        name = token.upper()
        if not _NAME.fullmatch(token) or len(token) > 64:
            self._fail("SYNTAX")
        if _OTHERS.fullmatch(name):
            raise NotMineError
        if self._take("("):
            return self._call(name)
        if name in _RESERVED and name != "ANS":
            self._codes.add("SYNTAX")
        return name

    def _call(self, name: str) -> Node:
        if self._next == ")":
            self._codes.update(["SYNTAX", "WRONG-OPERANDS"])
            self._at += 1
            return name
        operands = [self._sum()]
        while self._take(","):
            operands.append(self._sum())
        self._expect(")")
        operation = _OPERATIONS.get(name)
        if operation is None:
            self._codes.add("UNKNOWN-NAME")
            return name
        if not operation.takes(len(operands)):
            self._codes.add("WRONG-OPERANDS")
        return Call(operation, tuple(operands))


@dataclass
class TreeWalker:
    """A session: ``reply`` to each of its lines."""

    precision: str = "34"
    rounding: str = "half-even"
    exact: str = "off"
    notation: str = "plain"
    variables: dict[str, Decimal] = field(default_factory=dict)
    ans: Decimal | None = None

    def reply(self, line: str) -> str | None:
        """Return the reply to a line, "" for a blank line.

        Of an error it is ``ERR CODE``, or ``ERR`` where the page does not say which. None: this
        evaluator does not know the line, which has changed nothing.
        """
        line = line.strip(" \t")
        try:
            return self._reply(line) if line else ""
        except WrongError as error:
            # Such a letter may be taken for a part of a name. An exponent out of range may be what
            # is wrong first.
            if str(error) == "SYNTAX" and re.search("[^\x00-\x7f]|_|[eE][+-]?[0-9]{5}", line):
                return "ERR"
            return f"ERR {error}".rstrip()
        except NotMineError:
            return None

    def _reply(self, line: str) -> str:
        first, *others = line.replace("\t", " ").split(" ")
        others = list(filter(None, others))
        name = _without_accents(first).upper()
        if name in _SETTINGS:
            return self._set(name, others)
        if name in _WORDS:
            if others:
                raise WrongError("WRONG-OPERANDS" if all(map(_is_operand, others)) else "")
            if name != "PING":
                self.variables, self.ans = {}, None
            return _WORDS[name]
        if _OTHERS.fullmatch(name):
            raise NotMineError
        if name in _OPERATIONS:
            return self._operate(name, others, line)
        found = _ASSIGNMENT.fullmatch(line)
        if found:
            return self._assign(found[1].upper(), found[2])
        text = line.removeprefix("=").removesuffix("=").strip(" \t")
        if not text or "=" in (text[0], text[-1]):
            raise NotMineError
        if text.upper() in _RESERVED - {"ANS"}:
            raise WrongError("")
        try:
            tree = _Parser(text).parse()
        except WrongError:
            if not re.match(r"[0-9.(+-]", first) and not re.fullmatch(
                f"({_TOKEN.pattern})+", first
            ):
                raise WrongError("") from None  # it may be taken for the name of an operation
            if not others or not _NAME.fullmatch(first) or name in {*self.variables, *_RESERVED}:
                raise
            raise WrongError("UNKNOWN-OPERATION" if all(map(_is_operand, others)) else "") from None
        if tree == text.upper() and tree not in {*self.variables, "ANS"}:
            raise WrongError("UNKNOWN-OPERATION")
        return self._result(tree)

    def _set(self, name: str, others: list[str]) -> str:
        attribute = _SETTINGS[name]
        if len(others) > 1:
            raise WrongError("WRONG-OPERANDS" if all(map(_is_operand, others)) else "")
        for value in others:
            if value.isdecimal() and value.startswith("0") and int(value):
                raise NotMineError  # the page does not say
            if value.lower() not in _CHOICES[attribute]:
                raise WrongError("INVALID-NUMBER" if attribute == "precision" else "UNKNOWN-NAME")
            setattr(self, attribute, value.lower())
        return str(getattr(self, attribute))

    def _operate(self, name: str, others: list[str], line: str) -> str:
        operation, codes = _OPERATIONS[name], set()
        if not operation.takes(len(others)):
            codes.add("WRONG-OPERANDS")
        if not all(map(_is_operand, others)):
            codes.add("INVALID-NUMBER")
        if codes:
            if others and others[0].startswith("="):
                raise WrongError("SYNTAX" if others[1:] or others[0] != "=" else "")
            try:
                tree = _Parser(line.removesuffix("=")).parse()
            except WrongError as error:
                codes |= {str(error)} - {"SYNTAX"}
                raise WrongError(codes.pop() if len(codes) == 1 else "") from None
            return self._result(tree)
        operands: list[Node] = []
        for each in map(str.upper, others):
            if each in ("PI", "E"):
                raise NotMineError
            if _NAME.fullmatch(each) and each not in {*self.variables, "ANS"}:
                codes.add("INVALID-NUMBER")
            elif each == "ANS" and self.ans is None:
                codes.add("UNKNOWN-NAME")
            operands.append(each if _NAME.fullmatch(each) else _number(each))
        if codes:
            raise WrongError(codes.pop() if len(codes) == 1 else "")
        return self._result(Call(operation, tuple(operands)))

    def _assign(self, name: str, text: str) -> str:
        text = text.strip(" \t")
        if text.startswith("=") or _is_reserved(name) or len(name) > 64:
            raise WrongError("SYNTAX")
        if "=" in text or text[0] in "*/^×÷" or text[:3].lower() == "mod":
            raise NotMineError
        reply = self._result(_Parser(text).parse())
        self.variables[name] = Decimal(reply)
        return reply

    def _result(self, tree: Node) -> str:
        value = self._walk(tree)
        if not isinstance(tree, Call):
            value = self._apply(_ROUNDED, value)
        reply = self._text(value)
        self.ans = Decimal(reply)
        return reply

    def _walk(self, node: Node) -> Decimal:
        match node:
            case Call(operation, operands):
                return self._apply(operation, *map(self._walk, operands))
            case Decimal():
                return node
        value = self.ans if node == "ANS" else self.variables.get(node)
        if value is None:
            raise WrongError("UNKNOWN-NAME")
        return value

    def _apply(self, operation: Operation, *operands: Decimal) -> Decimal:
        traps = [decimal.Overflow, decimal.InvalidOperation]
        context = Context(
            int(self.precision), MODES[self.rounding], -6143, 6144, clamp=1, traps=traps
        )
        try:
            result = operation.function(context, *operands)
        except decimal.Overflow:
            raise WrongError("OVERFLOW") from None
        except decimal.InvalidOperation:
            raise WrongError("INVALID-OPERATION") from None
        is_asked_for = operation.function is _round
        if self.exact == "on" and context.flags[decimal.Inexact] and not is_asked_for:
            raise WrongError("INEXACT")
        if self.notation == "plain" and context.flags[decimal.Rounded] and not is_asked_for:
            return Decimal(self._text(_WIDE.normalize(result)))
        return result

    def _text(self, value: Decimal) -> str:
        if self.notation == "scientific":
            return str(value)
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        if not value:
            return "0." + "0" * min(34, -exponent) if exponent < 0 else "0"
        if -34 <= value.adjusted() < max(34, int(self.precision)):
            return f"{value:f}"
        return f"{value:E}"


def _is_reserved(name: str) -> bool:
    return bool(name in _RESERVED or _OTHERS.fullmatch(name))


def _is_operand(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text) or _NAME.fullmatch(text))


def _without_accents(text: str) -> str:
    return re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))
