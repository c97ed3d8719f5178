"""Requests and replies of the Python API: text that is sent, numbers and errors that come back."""

from calcd.client.streams import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

QUOTED = 100  # characters of a reply that a message repeats


class CalculatorError(Exception):
    """An ERR reply. Its code is stable, its message is not. `str` escapes control characters."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return printable(f"{self.code} {self.message}")


def encode_request(line: str) -> bytes:
    """Return a request as it is sent.

    Raise ValueError if it would not get exactly one reply, TypeError if it is not a str.
    """
    if not isinstance(line, str):
        raise TypeError(f"a request must be a str, not {line!r}")
    if "\n" in line or "\r" in line:
        raise ValueError(f"a request is one line: {line!r}")
    if not line.strip(" \t\0\ufeff"):
        raise ValueError("a blank request gets no reply")
    if line.lstrip("\0").startswith("\x04"):
        raise ValueError("a request that begins with Ctrl-D ends the connection without a reply")
    return line.encode() + b"\n"


def parse_reply(reply: str) -> str | CalculatorError:
    """Return a reply, as an error if it is an ERR."""
    if not reply.startswith("ERR "):
        return reply
    code, _, message = reply.removeprefix("ERR ").partition(" ")
    return CalculatorError(code, message)


def parse_number(reply: str) -> "Decimal":
    """Return a reply as a number, with all its digits. Raise ValueError if it is not one."""
    from decimal import Context, Decimal

    value = Decimal(reply, Context(traps=[]))  # NaN if it is not a number; never rounded
    if value.is_finite():
        return value
    shown = repr(reply[:QUOTED]) + "..." * (len(reply) > QUOTED)
    raise ValueError(f"not a number, but {shown}: use request() for such replies")


def parse_numbers(replies: "Iterable[str | CalculatorError]") -> "list[Decimal | CalculatorError]":
    """Return replies as numbers. Errors stay in their places."""
    return [reply if isinstance(reply, Exception) else parse_number(reply) for reply in replies]


def result(reply: str | CalculatorError) -> str:
    """Return the reply to a single request. Raise it if it is an error."""
    if isinstance(reply, CalculatorError):
        raise reply
    return reply
