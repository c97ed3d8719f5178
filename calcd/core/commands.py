"""The table of operations, and those in it that are not arithmetic. No I/O."""

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

import calcd
from calcd.core.decimal128 import ROUNDINGS
from calcd.core.errors import RequestError, quoted
from calcd.core.messages import LANGUAGES, Language
from calcd.core.operations import ARITHMETIC, Operation

if TYPE_CHECKING:
    from calcd.core.session import Session

MOST_DIGITS = 1000  # that a session may ask for
_MARKS = set("(+-*/^%=,")  # where one of these is in a name, it is rather an expression
_SWITCH = {"on": True, "off": False}
_NO_VARIABLES = "no variables"


class Command(Operation):
    """An operation whose ``function`` takes the session and the operands as written."""


def operation_named(name: str, is_variable: bool = False) -> Operation:
    """Give the operation of that name; raise ``RequestError`` UNKNOWN-OPERATION."""
    try:
        return BY_NAME[name.upper()]
    except KeyError:
        template = "{} is no operation: HELP lists them"
        if is_variable or name.lower() in ("pi", "e", "ans") or _MARKS & set(name):
            template = "{} is no operation: begin an expression with =, as in: = 2*(3+4)"
        raise RequestError("UNKNOWN-OPERATION", template, quoted(name)) from None


def _upper(_: "Session", text: str) -> str:
    try:
        upper = text.encode("latin-1").decode("utf-8").upper()
    except UnicodeDecodeError:
        raise RequestError("INVALID-TEXT", "{} is not UTF-8", quoted(text)) from None
    if upper.startswith("ERR "):
        raise RequestError("INVALID-TEXT", "the reply would read as an error")
    return upper.encode("utf-8").decode("latin-1")


def _ping(session: "Session") -> str:
    session.pings += 1
    return "PONG"


def _version(_: "Session") -> str:
    return f"calcd {calcd.__version__}"


def _help(session: "Session", name: str = "") -> str:
    return help_line(session.language, name)


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


def _quit(session: "Session") -> str:
    session.finished = "quit"
    return "BYE"


def _precision(session: "Session", digits: str = "") -> str:
    if digits:
        if not (digits.isdecimal() and len(digits) <= 4 and 1 <= int(digits) <= MOST_DIGITS):
            template = "{} is not a whole number from 1 to {}"
            raise RequestError("INVALID-NUMBER", template, quoted(digits), MOST_DIGITS)
        session.arithmetic = session.arithmetic.changed(precision=int(digits))
    return str(session.arithmetic.precision)


def _rounding(session: "Session", mode: str = "") -> str:
    if mode:
        session.arithmetic = session.arithmetic.changed(rounding=_choice(mode, ROUNDINGS))
    return session.arithmetic.rounding


def _exact(session: "Session", switch: str = "") -> str:
    if switch:
        exact = _SWITCH[_choice(switch, _SWITCH)]
        session.arithmetic = session.arithmetic.changed(exact=exact)
    return "on" if session.arithmetic.exact else "off"


def _language(session: "Session", name: str = "") -> str:
    if name:
        session.language = LANGUAGES[_choice(name, LANGUAGES)]
    return session.language.name


def _choice(text: str, choices: Collection[str]) -> str:
    """Give what was chosen, in lower case; raise ``RequestError`` UNKNOWN-NAME."""
    if text.lower() in choices:
        return text.lower()
    raise RequestError("UNKNOWN-NAME", "{} is none of {}", quoted(text), ", ".join(choices))


def _vars(session: "Session") -> str:
    return session.memory.shown(session.arithmetic) or session.language.say(_NO_VARIABLES)


def _clear(session: "Session") -> str:
    session.memory.clear()
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
