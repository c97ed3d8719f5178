"""The table of all operations, and those of them that are not arithmetic."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache

import calcd
from calcd.core.decimal128 import MAX_PRECISION, ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError, printable
from calcd.core.messages import ENGLISH, LANGUAGES, Language
from calcd.core.operations import ARITHMETIC, Operation

CONSTANTS = ("pi", "e")
ANSWER = "ans"
_MARKS = set("(+-*/^%=,")  # of an expression: no name has one of these
_SWITCH = ("on", "off")
_NO_VARIABLES = "no variables"
_EXPRESSIONS_HELP = "expressions: 2*(3+4), x = sqrt(2), = x^2; HELP SOMA shows details"
_VERSION = f"calcd {calcd.__version__}"


@dataclass(slots=True)
class Counters:
    """What a session has counted so far."""

    requests: int = 0  # those with an error reply too
    errors: int = 0
    pings: int = 0
    lines: int = 0  # line ends


@dataclass(slots=True)
class CommandContext:
    """What a command reads and changes: the state of one session.

    The names of ``variables`` are in lower case. ``answer`` is the last result, as it was replied.
    ``more_variables`` is how many the session has beside these.
    """

    arithmetic: Arithmetic
    variables: dict[str, Decimal] = field(default_factory=dict)
    more_variables: int = 0
    answer: str = ""
    language: Language = ENGLISH
    counters: Counters = field(default_factory=Counters)
    quit: bool = False


class Command(Operation):
    """An operation whose ``function`` takes a ``CommandContext`` and the operands as text."""


_COMMANDS: list[Command] = []


def _command(help_line: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Add the decorated function to the table, with what its line of help says."""

    def add(function: Callable[..., str]) -> Callable[..., str]:
        _COMMANDS.append(Command.from_help(help_line, function))
        return function

    return add


def operation_named(name: str, variables: Collection[str] = ()) -> Operation:
    """Return the operation of that name in any case; raise ``RequestError`` UNKNOWN-OPERATION."""
    try:
        return BY_NAME[name.upper()]
    except KeyError:
        template = "unknown operation {}: HELP lists them"
        if name.lower() in (*variables, *CONSTANTS, ANSWER) or _MARKS & set(name):
            template = "unknown operation {}: begin an expression with =, as in: = 2*(3+4)"
        raise RequestError("UNKNOWN-OPERATION", template, printable(name)) from None


def help_line(language: Language, name: str = "") -> str:
    """Return the list of operations, or how to use one; raise ``RequestError`` as above."""
    translate = language.translate
    if name:
        operation = operation_named(name)
        usage = " ".join(map(translate, operation.usage))
        also = "".join(f", {translate('also')} {alias}" for alias in operation.names[1:])
        example = f"{operation.example} -> {translate(operation.example_reply)}"
        return f"{usage}: {translate(operation.help)}{also}; {example}"
    kinds = "; ".join(
        f"{translate(kind)}: {', '.join('|'.join(operation.names) for operation in rows)}"
        for kind, rows in KINDS.items()
    )
    return f"{kinds}; {translate(_EXPRESSIONS_HELP)}"


@cache
def fixed_replies() -> frozenset[str]:
    """Return all replies of commands that do not depend on what a client has sent."""
    replies = {"PONG", "OK", "BYE", _VERSION, *ROUNDINGS, *_SWITCH, *LANGUAGES}
    for language in LANGUAGES.values():
        replies.add(language.translate(_NO_VARIABLES))
        replies |= {help_line(language, name) for name in ("", *BY_NAME)}
    return frozenset(replies)


@_command("MAIUSCULA|UPPER text...: the text in upper case; MAIUSCULA abc -> ABC")
def _upper(_: CommandContext, text: str) -> str:
    try:
        upper = text.encode("latin-1").decode("utf-8").upper()
    except UnicodeDecodeError:
        raise RequestError("INVALID-TEXT", "{} is not UTF-8", printable(text)) from None
    if upper.startswith("ERR "):
        raise RequestError("INVALID-TEXT", "the reply would look like an error")
    return upper.encode("utf-8").decode("latin-1")


@_command("PRECISION [digits]: show or set the precision, in digits; PRECISION 34 -> 34")
def _precision(context: CommandContext, digits: str = "") -> str:
    if digits:
        if not (digits.isdecimal() and len(digits) <= 4 and 1 <= int(digits) <= MAX_PRECISION):
            template = "{} is not an integer from 1 to {}"
            raise RequestError("INVALID-NUMBER", template, printable(digits), MAX_PRECISION)
        context.arithmetic = replace(context.arithmetic, precision=int(digits))
    return str(context.arithmetic.precision)


@_command("ROUNDING [mode]: show or set the rounding mode; ROUNDING half-even -> half-even")
def _rounding(context: CommandContext, mode: str = "") -> str:
    if mode:
        context.arithmetic = replace(context.arithmetic, rounding=_choice(mode, ROUNDINGS))
    return context.arithmetic.rounding


@_command("EXACT [on|off]: show or set whether rounding is an error; EXACT off -> off")
def _exact(context: CommandContext, switch: str = "") -> str:
    if switch:
        exact = _choice(switch, _SWITCH) == "on"
        context.arithmetic = replace(context.arithmetic, exact=exact)
    return "on" if context.arithmetic.exact else "off"


@_command("LANGUAGE [en|pt]: show or set the language of errors and help; LANGUAGE en -> en")
def _language(context: CommandContext, name: str = "") -> str:
    if name:
        context.language = LANGUAGES[_choice(name, LANGUAGES)]
    return context.language.name


def _choice(text: str, choices: Collection[str]) -> str:
    """Return the choice in lower case; raise ``RequestError`` UNKNOWN-NAME if it is none."""
    if text.lower() in choices:
        return text.lower()
    raise RequestError("UNKNOWN-NAME", "{} is not one of {}", printable(text), ", ".join(choices))


@_command(f"VARS: list the variables and their values; VARS -> {_NO_VARIABLES}")
def _vars(context: CommandContext) -> str:
    if not context.variables:
        return context.language.translate(_NO_VARIABLES)
    text = context.arithmetic.text
    return " ".join(f"{name}={text(value)}" for name, value in context.variables.items())


@_command("CLEAR: remove the variables and ANS; CLEAR -> OK")
def _clear(context: CommandContext) -> str:
    context.variables.clear()
    context.answer = ""
    return "OK"


@_command("PING: check that the server answers; PING -> PONG")
def _ping(context: CommandContext) -> str:
    context.counters.pings += 1
    return "PONG"


@_command(f"VERSION: the server's name and version; VERSION -> {_VERSION}")
def _version(_: CommandContext) -> str:
    return _VERSION


@_command(
    "HELP [operation]: list the operations, or show how to use one; "
    "HELP PING -> PING: check that the server answers; PING -> PONG"
)
def _help(context: CommandContext, name: str = "") -> str:
    return help_line(context.language, name)


@_command("QUIT: reply BYE and end the session; QUIT -> BYE")
def _quit(context: CommandContext) -> str:
    context.quit = True
    return "BYE"


KINDS: dict[str, tuple[Operation, ...]] = {
    "arithmetic": ARITHMETIC,
    "text": tuple(each for each in _COMMANDS if each.takes_text),
    "session": tuple(each for each in _COMMANDS if not each.takes_text),
}
TABLE = tuple(operation for rows in KINDS.values() for operation in rows)
BY_NAME: dict[str, Operation] = {name: operation for operation in TABLE for name in operation.names}
