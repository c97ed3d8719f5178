"""The table of all operations, and those of them that are not arithmetic."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache

import calcd
from calcd.core.decimal128 import MAX_PRECISION, NOTATIONS, ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError, printable, to_wire
from calcd.core.help import EXPRESSIONS, Help
from calcd.core.messages import ENGLISH, LANGUAGES, Language, language_called
from calcd.core.operations import ARITHMETIC, Operation, canonical

_SWITCH = ("on", "off")
_NO_VARIABLES = "no variables"
_VERSION = f"calcd {calcd.__version__}"
# How the reply to STATS starts. No request that has a result does: VERSION cannot be a variable.
STATS_START = "version="
_STATS = f"{STATS_START}{calcd.__version__}"
_STATS_COST = 1_000  # of a reply to STATS: about 50 numbers
ReadStats = Callable[[], Iterable[tuple[str, int | float]]]  # returns names and numbers


@dataclass(slots=True)
class Counters:
    """What a session has counted so far."""

    requests: int = 0  # those with an error reply too
    errors: int = 0
    pings: int = 0
    lines: int = 0  # line ends
    errors_by_code: dict[str, int] = field(default_factory=dict)

    def count_error(self, code: str) -> None:
        """Count an error reply."""
        self.errors += 1
        self.errors_by_code[code] = self.errors_by_code.get(code, 0) + 1


@dataclass(slots=True)
class CommandContext:
    """What a command reads and changes: the state of one session.

    The names of ``variables`` are in lower case. ``answer`` is the last number that was replied.
    ``more_variables`` is how many the session has beside these. ``stats`` returns what the server
    has counted, by name; None if no server has the session.
    """

    arithmetic: Arithmetic
    language: Language = ENGLISH
    variables: dict[str, Decimal] = field(default_factory=dict)
    more_variables: int = 0
    answer: Decimal | None = None
    counters: Counters = field(default_factory=Counters)
    quit: bool = False
    stats: ReadStats | None = None


class Command(Operation):
    """An operation whose ``function`` takes a ``CommandContext`` and the operands as text."""


class Setting(Command):
    """A command that shows a value, and sets it if it has an operand."""


# The operations by the topics of HELP, in its order. HELP names those of a topic in a line of at
# most 80 columns, so "settings" has no room for NOTATION and LANGUAGE.
TOPICS: dict[str, list[Operation]] = {
    **{topic: list(rows) for topic, rows in ARITHMETIC.items()},
    EXPRESSIONS: [],
    "settings": [],
    "session": [],
    "text": [],
}


def _command(
    topic: str, line: str, kind: type[Command] = Command
) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Add the decorated function to the table, with what its line of help says."""

    def add(function: Callable[..., str]) -> Callable[..., str]:
        TOPICS[topic].append(kind.from_help(line, function))
        return function

    return add


def operation_called(name: str) -> Operation | None:
    """Return the operation of that name, in any case, with or without accents."""
    return BY_NAME.get(name.upper() if name.isascii() else canonical(name))


@cache
def fixed_replies() -> frozenset[str]:
    """Return all replies of commands that do not depend on what a client has sent, as sent."""
    replies = {"PONG", "OK", "BYE", _VERSION, *ROUNDINGS, *NOTATIONS, *_SWITCH, *LANGUAGES}
    for language in LANGUAGES.values():
        replies.add(language.translate(_NO_VARIABLES))
    replies.update(_HELP.lines())
    return frozenset(map(to_wire, replies))


@_command("text", "MAIUSCULA|UPPER text...: the text in upper case; MAIUSCULA abc -> ABC")
def _upper(_: CommandContext, text: str) -> str:
    upper = text.upper()
    try:
        upper.encode()
    except UnicodeEncodeError:
        raise RequestError("INVALID-TEXT", "{} is not UTF-8", printable(text)) from None
    if upper.startswith("ERR "):
        raise RequestError("INVALID-TEXT", "the reply would look like an error")
    return upper


@_command(
    "settings",
    "PRECISAO|PRECISION [digits]: show or set the precision, in digits; PRECISAO 34 -> 34",
    Setting,
)
def _precision(context: CommandContext, digits: str = "") -> str:
    if digits:
        if not (
            digits.isascii()
            and digits.isdecimal()
            and len(digits) <= 4
            and 1 <= int(digits) <= MAX_PRECISION
        ):
            template = "{} is not an integer from 1 to {}"
            raise RequestError("INVALID-NUMBER", template, printable(digits), MAX_PRECISION)
        context.arithmetic = replace(context.arithmetic, precision=int(digits))
    return str(context.arithmetic.precision)


@_command(
    "settings",
    f"ARREDONDAMENTO|ROUNDING [{'|'.join(ROUNDINGS)}]: show or set how results are rounded (HELP "
    "digits: operations that round); ARREDONDAMENTO half-even -> half-even",
    Setting,
)
def _rounding(context: CommandContext, mode: str = "") -> str:
    if mode:
        context.arithmetic = replace(context.arithmetic, rounding=_choice(mode, ROUNDINGS))
    return context.arithmetic.rounding


@_command(
    "settings",
    f"EXATO|EXACTO|EXACT [{'|'.join(_SWITCH)}]: show or set whether rounding is an error; "
    "EXATO off -> off",
    Setting,
)
def _exact(context: CommandContext, switch: str = "") -> str:
    if switch:
        exact = _choice(switch, _SWITCH) == "on"
        context.arithmetic = replace(context.arithmetic, exact=exact)
    return "on" if context.arithmetic.exact else "off"


@_command(
    "text",
    f"NOTACAO|NOTATION [{'|'.join(NOTATIONS)}]: show or set how numbers are written; "
    "NOTACAO plain -> plain",
    Setting,
)
def _notation(context: CommandContext, notation: str = "") -> str:
    if notation:
        notation = _choice(notation, NOTATIONS)
        context.arithmetic = replace(context.arithmetic, notation=notation)
    return context.arithmetic.notation


@_command(
    "text",
    f"IDIOMA|LANGUAGE [{'|'.join(LANGUAGES)}]: show or set the language of errors and help; "
    "IDIOMA en -> en",
    Setting,
)
def _language(context: CommandContext, name: str = "") -> str:
    if name:
        context.language = language_called(name) or LANGUAGES[_choice(name, LANGUAGES)]
    return context.language.name


def _choice(text: str, choices: Collection[str]) -> str:
    """Return the choice in lower case; raise ``RequestError`` UNKNOWN-NAME if it is none."""
    if text.lower() in choices:
        return text.lower()
    raise RequestError("UNKNOWN-NAME", "{} is not one of {}", printable(text), ", ".join(choices))


@_command(
    "session", f"VARIAVEIS|VARS: list the variables and their values; VARIAVEIS -> {_NO_VARIABLES}"
)
def _vars(context: CommandContext) -> str:
    if not context.variables:
        return context.language.translate(_NO_VARIABLES)
    text = context.arithmetic.text
    return " ".join(f"{name}={text(value)}" for name, value in context.variables.items())


@_command("session", "LIMPAR|CLEAR: remove the variables and ANS; LIMPAR -> OK")
def _clear(context: CommandContext) -> str:
    context.variables.clear()
    context.answer = None
    return "OK"


@_command("session", "PING: check that the server answers; PING -> PONG")
def _ping(context: CommandContext) -> str:
    context.counters.pings += 1
    return "PONG"


@_command("session", f"VERSAO|VERSION: the server's name and version; VERSAO -> {_VERSION}")
def _version(_: CommandContext) -> str:
    return _VERSION


@_command("text", f"STATS: what the server has counted since its start; STATS -> {_STATS}")
def _stats(context: CommandContext) -> str:
    context.arithmetic.budget.charge(_STATS_COST)
    counted = context.stats() if context.stats else ()
    return " ".join((_STATS, *(f"{name}={number}" for name, number in counted)))


@_command(
    "text",
    "AJUDA|HELP [topic]: list the topics, or explain a topic or an operation; "
    "AJUDA PING -> PING: check that the server answers; PING -> PONG",
)
def _help(context: CommandContext, name: str = "") -> str:
    return _HELP.line(context.language, name)


@_command("session", "SAIR|EXIT|QUIT: reply BYE and end the session; SAIR -> BYE")
def _quit(context: CommandContext) -> str:
    context.quit = True
    return "BYE"


TABLE = tuple(operation for rows in TOPICS.values() for operation in rows)
BY_NAME: dict[str, Operation] = {name: operation for operation in TABLE for name in operation.names}
NAMES = frozenset(BY_NAME)
_HELP = Help(TOPICS)
