"""The table of all operations, and those of them that are not arithmetic."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache

import calcd
from calcd.core.decimal128 import ROUNDINGS, Arithmetic
from calcd.core.errors import RequestError, quoted
from calcd.core.messages import ENGLISH, LANGUAGES, Language
from calcd.core.operations import ARITHMETIC, Operation
from calcd.core.variables import Variables

MAX_PRECISION = 1000  # digits
_MARKS = set("(+-*/^%=,")  # where one of these is in a name, it is rather an expression
_SWITCH = {"on": True, "off": False}
_NO_VARIABLES = "no variables"


@dataclass(slots=True)
class CommandContext:
    """What a command reads and changes: the state of one session."""

    arithmetic: Arithmetic
    variables: Variables = field(default_factory=Variables)
    language: Language = ENGLISH
    pings: int = 0
    quit: bool = False


class Command(Operation):
    """An operation whose ``function`` takes a ``CommandContext`` and the operands as text."""


def operation_named(name: str, is_variable: bool = False) -> Operation:
    """Give the operation of that name; raise ``RequestError`` UNKNOWN-OPERATION."""
    try:
        return BY_NAME[name.upper()]
    except KeyError:
        template = "{} is no operation: HELP lists them"
        if is_variable or name.lower() in ("pi", "e", "ans") or _MARKS & set(name):
            template = "{} is no operation: begin an expression with =, as in: = 2*(3+4)"
        raise RequestError("UNKNOWN-OPERATION", template, quoted(name)) from None


def _upper(_: CommandContext, text: str) -> str:
    try:
        upper = text.encode("latin-1").decode("utf-8").upper()
    except UnicodeDecodeError:
        raise RequestError("INVALID-TEXT", "{} is not UTF-8", quoted(text)) from None
    if upper.startswith("ERR "):
        raise RequestError("INVALID-TEXT", "the reply would read as an error")
    return upper.encode("utf-8").decode("latin-1")


def _ping(context: CommandContext) -> str:
    context.pings += 1
    return "PONG"


def _version(_: CommandContext) -> str:
    return f"calcd {calcd.__version__}"


def _help(context: CommandContext, name: str = "") -> str:
    return help_line(context.language, name)


def help_line(language: Language, name: str = "") -> str:
    """Give the operations, or how one is used; raise ``RequestError`` if there is none of it."""
    say = language.say
    if name:
        operation = operation_named(name)
        also = "".join(f", {say('also')} {alias}" for alias in operation.names[1:])
        usage = " ".join([operation.names[0], *map(say, operation.operands)])
        example = f"{operation.example} -> {operation.answer}"
        return f"{usage}: {say(operation.help)}{also}; {example}"
    kinds = "; ".join(
        f"{say(kind)}: {', '.join('|'.join(operation.names) for operation in rows)}"
        for kind, rows in KINDS.items()
    )
    return f"{kinds}; {say('expressions: 2*(3+4), x = sqrt(2), = x^2; HELP SOMA tells more')}"


def _quit(context: CommandContext) -> str:
    context.quit = True
    return "BYE"


def _precision(context: CommandContext, digits: str = "") -> str:
    if digits:
        if not (digits.isdecimal() and len(digits) <= 4 and 1 <= int(digits) <= MAX_PRECISION):
            template = "{} is not a whole number from 1 to {}"
            raise RequestError("INVALID-NUMBER", template, quoted(digits), MAX_PRECISION)
        context.arithmetic = context.arithmetic.replace(precision=int(digits))
    return str(context.arithmetic.precision)


def _rounding(context: CommandContext, mode: str = "") -> str:
    if mode:
        context.arithmetic = context.arithmetic.replace(rounding=_choice(mode, ROUNDINGS))
    return context.arithmetic.rounding


def _exact(context: CommandContext, switch: str = "") -> str:
    if switch:
        exact = _SWITCH[_choice(switch, _SWITCH)]
        context.arithmetic = context.arithmetic.replace(exact=exact)
    return "on" if context.arithmetic.exact else "off"


def _language(context: CommandContext, name: str = "") -> str:
    if name:
        context.language = LANGUAGES[_choice(name, LANGUAGES)]
    return context.language.name


def _choice(text: str, choices: Collection[str]) -> str:
    """Give what was chosen, in lower case; raise ``RequestError`` UNKNOWN-NAME."""
    if text.lower() in choices:
        return text.lower()
    raise RequestError("UNKNOWN-NAME", "{} is none of {}", quoted(text), ", ".join(choices))


def _vars(context: CommandContext) -> str:
    return context.variables.listing(context.arithmetic) or context.language.say(_NO_VARIABLES)


def _clear(context: CommandContext) -> str:
    context.variables.clear()
    return "OK"


_TEXT = (
    Command(
        ("MAIUSCULA", "UPPER"),
        ("text...",),
        "the text in upper case",
        _upper,
        "MAIUSCULA abc",
        "ABC",
    ),
)
_SESSION = (
    Command(
        ("PRECISION",),
        ("[digits]",),
        "how many digits a result has",
        _precision,
        "PRECISION 34",
        "34",
    ),
    Command(
        ("ROUNDING",),
        ("[mode]",),
        "how a result is rounded",
        _rounding,
        "ROUNDING half-even",
        "half-even",
    ),
    Command(
        ("EXACT",),
        ("[on|off]",),
        "whether a result that would be rounded is an error",
        _exact,
        "EXACT off",
        "off",
    ),
    Command(("LANGUAGE",), ("[en|pt]",), "the language of words", _language, "LANGUAGE en", "en"),
    Command(("VARS",), (), "the variables and their values", _vars, "VARS", "no variables"),
    Command(("CLEAR",), (), "forget the variables and ANS", _clear, "CLEAR", "OK"),
    Command(("PING",), (), "PONG: a sign of life", _ping, "PING", "PONG"),
    Command(
        ("VERSION",),
        (),
        "the server's name and version",
        _version,
        "VERSION",
        f"calcd {calcd.__version__}",
    ),
    Command(
        ("HELP",),
        ("[operation]",),
        "the operations, or how one is used",
        _help,
        "HELP PING",
        "PING: PONG: a sign of life; PING -> PONG",
    ),
    Command(("QUIT",), (), "BYE, and the end of the session", _quit, "QUIT", "BYE"),
)
KINDS: dict[str, tuple[Operation, ...]] = {
    "arithmetic": ARITHMETIC,
    "text": _TEXT,
    "session": _SESSION,
}
TABLE = tuple(operation for rows in KINDS.values() for operation in rows)
BY_NAME: dict[str, Operation] = {name: operation for operation in TABLE for name in operation.names}


@cache
def fixed_replies() -> frozenset[str]:
    """Give every reply of a command that does not depend on what a client has sent."""
    replies = {"PONG", "OK", "BYE", f"calcd {calcd.__version__}", *ROUNDINGS, *_SWITCH, *LANGUAGES}
    for language in LANGUAGES.values():
        replies.add(language.say(_NO_VARIABLES))
        replies |= {help_line(language, name) for name in ("", *BY_NAME)}
    return frozenset(replies)
