"""The table of operations, and those in it that are not arithmetic. No I/O."""

from typing import TYPE_CHECKING

import calcd
from calcd.arithmetic import OPERATIONS
from calcd.errors import RequestError, quoted
from calcd.operations import Operation

if TYPE_CHECKING:
    from calcd.session import Session


class Command(Operation):
    """An operation whose ``run`` takes the session and the operands as written."""


def operation_named(name: str) -> Operation:
    """Give the operation of that name; raise ``RequestError`` UNKNOWN-OPERATION."""
    try:
        return BY_NAME[name.upper()]
    except KeyError:
        words = f"{quoted(name)} is no operation: HELP lists them"
        raise RequestError("UNKNOWN-OPERATION", words) from None


def _upper(_: "Session", text: str) -> str:
    try:
        upper = text.encode("latin-1").decode("utf-8").upper()
    except UnicodeDecodeError:
        raise RequestError("INVALID-TEXT", f"{quoted(text)} is not UTF-8") from None
    if upper.startswith("ERR "):
        raise RequestError("INVALID-TEXT", "the reply would read as an error")
    return upper.encode("utf-8").decode("latin-1")


def _ping(session: "Session") -> str:
    session.pings += 1
    return "PONG"


def _version(_: "Session") -> str:
    return f"calcd {calcd.__version__}"


def _help(_: "Session", name: str = "") -> str:
    if name:
        operation = operation_named(name)
        also = "".join(f", also {alias}" for alias in operation.names[1:])
        return f"{operation.usage}: {operation.meaning}{also}"
    names = ", ".join("|".join(operation.names) for operation in TABLE)
    return f"{names}; HELP SOMA tells how SOMA is used"


def _quit(session: "Session") -> str:
    session.finished = "quit"
    return "BYE"


TABLE = (
    *OPERATIONS,
    Command(("MAIUSCULA", "UPPER"), ("text...",), "the text in upper case", _upper),
    Command(("PING",), (), "PONG: a sign of life", _ping),
    Command(("VERSION",), (), "the server's name and version", _version),
    Command(("HELP",), ("[operation]",), "the operations, or how one is used", _help),
    Command(("QUIT",), (), "BYE, and the end of the session", _quit),
)
BY_NAME = {name: operation for operation in TABLE for name in operation.names}
