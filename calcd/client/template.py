"""Requests made from rows: a template with fields in braces."""

import os
import re

from calcd.client.protocol import UsageError, without_accents
from calcd.client.rows import BLANKS, MINUS, is_number_field, not_a_number, shown, split_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

# A brace, a field, or what is neither.
PARTS = re.compile(r"\{\{|\}\}|\{([0-9]{0,9})\}|(\{[^{}]*\}?|\})")
# An operation with operands that are separated by blanks: fields, numbers and names.
OPERATION_LINE = re.compile(r"[ \t]*([^\W\d]\w*)([ \t]+(\{[0-9]*\}|[+-]?[\w.]+))+[ \t]*")
NO_OPERATIONS = ("pi", "e", "ans", "mod")  # words that may begin an expression
# What ends an operand before a field, so that the sign of a value would be an operator.
OPERAND = re.compile(rb"[\w.)!][ \t]*\Z")
NO_OPERAND = re.compile(
    rb"(\bmod[ \t]*|(\A|(?<![\w.])[0-9.]+)e)\Z", re.IGNORECASE
)  # {1}e{2} is a number
SIGNS = (b"+", b"-", MINUS)
POWERS = ("^", "**", "!")  # bind tighter than the sign of a number before them
UNSENDABLE = b"\0\xff"  # CR NUL ends a line, and 255 begins a telnet command
TEXT_OPERATIONS = ("UPPER", "MAIUSCULA")  # take the rest of the line, whatever it is


class Template:
    """A request with `{}` for the row, `{2}` for its second field, `{{` and `}}` for braces.

    A value is a number or one of `names`, which the session has values for. Any other text could
    change what the request means, and is only taken by operations on text. So could a row of
    several fields, as `10 -3` before `* 2`: `{}` is such a row only among operands, those of an
    operation or, where commas separate fields, those of a function. A value is put in parentheses
    where the sign of a negative number would get lost: before a power or a factorial, and after
    `%`.
    """

    def __init__(self, text: str, separator: bytes | None) -> None:
        self._separator = separator
        self.names: Container[bytes] = ()
        first_word = without_accents(text.split(None, 1)[0] if text.strip() else "").upper()
        self._takes_text = first_word in TEXT_OPERATIONS
        self._first_name = first_word.lower().encode()
        self._is_operation = (
            OPERATION_LINE.fullmatch(text) is not None and first_word.lower() not in NO_OPERATIONS
        )
        self.fields: list[int] = []  # the number of each field; 0 for the row
        literals = []  # one more than fields
        pieces = []  # of a literal
        begin = 0
        for part in PARTS.finditer(text):
            pieces.append(text[begin : part.start()])
            begin = part.end()
            if part[2]:
                reason = "is not a field: {} is the row, {2} its second field, {{ a brace"
                raise UsageError(f"--each {text}: {part[2]} {reason}")
            if part[1] is None:
                pieces.append(part[0][0])
            else:
                self.fields.append(int(part[1] or 0))
                literals.append("".join(pieces))
                pieces = []
        literals.append("".join([*pieces, text[begin:]]))
        if not self.fields:
            raise UsageError(f"--each {text}: {{}} stands for the row, and is missing")
        if "\n" in text or "\r" in text:
            raise UsageError("--each takes one line")
        if not self._takes_text:
            self._check_gaps(text, literals)
            self._parenthesize(literals)
        self.literals = [os.fsencode(literal) for literal in literals]
        # For each field, whether it follows an operand.
        self._follows = [
            bool(OPERAND.search(before)) and not NO_OPERAND.search(before)
            for before in [b" " + self.literals[0], *self.literals[1:-1]]
        ]
        self._format = b"%b".join(literal.replace(b"%", b"%%") for literal in self.literals)

    def _check_gaps(self, text: str, literals: list[str]) -> None:
        """Raise UsageError if nothing stands between two fields: 3 and -4 would be 3-4."""
        for gap in literals[1:-1]:
            if not (gap if self._is_operation else gap.strip(" \t")):
                raise UsageError(f"--each {text}: an operator is missing between two fields")

    def _may_subtract(self, at: int) -> bool:
        """Return whether the sign of a value at this place would be an operator."""
        is_operation = self._is_operation and self._first_name not in self.names
        return self._follows[at] and not (is_operation or self._takes_text)

    def _takes_several(self, at: int) -> bool:
        """Return whether the field at this place among `fields` may be a row of several fields."""
        if self._takes_text:
            return True
        if self._separator is None:
            return self._is_operation and self._first_name not in self.names
        before, after = self.literals[at].rstrip(BLANKS), self.literals[at + 1].lstrip(BLANKS)
        in_call = before.endswith((b"(", b",")) and after.startswith((b")", b","))
        return self._separator == b"," and in_call

    @staticmethod
    def _parenthesize(literals: list[str]) -> None:
        for at in range(1, len(literals)):
            before, after = literals[at - 1].rstrip(" \t"), literals[at].lstrip(" \t")
            has_power = after.startswith(POWERS) and before[-1:] in ("", *"(,=+-*/%^")
            if has_power or before.endswith("%"):
                literals[at - 1] += "("
                literals[at] = ")" + literals[at]

    def fill(self, row: bytes) -> bytes:
        """Return the request for a row, without a newline. Raise ValueError for a bad row."""
        fields = split_fields(row, self._separator)
        row = row.strip(BLANKS)
        values = []
        for at, number in enumerate(self.fields):
            if number > len(fields):
                raise ValueError(f"there is no field {number} in {shown(row)}")
            if number == 0 and len(fields) > 1 and not self._takes_several(at):
                self._check(fields)
                raise ValueError(f"{shown(row)} has {len(fields)} fields: {{1}} is the first")
            self._check(fields if number == 0 else [fields[number - 1]])
            values.append(row if number == 0 else fields[number - 1])
            if values[-1].startswith(SIGNS) and self._may_subtract(at):
                raise ValueError(f"the sign of {shown(values[-1])} would be an operator")
        return self._format % tuple(values)

    def fill_numbers(self, rows: list[bytes], count: int) -> bytes | None:
        """Return lines of requests for rows that are numbers; None if `fill` must make them.

        None of the rows is blank, and they have this number of fields in all.
        """
        if self.fields != [0] or self._separator is not None:
            return None
        if self._may_subtract(0) or (count > len(rows) and not self._takes_several(0)):
            return None
        before, after = self.literals
        return before + (after + b"\n" + before).join(rows) + after + b"\n"

    def _check(self, fields: list[bytes]) -> None:
        for field in fields:
            if self._takes_text:
                if len(field.translate(None, UNSENDABLE)) < len(field):
                    raise ValueError(f"{shown(field)} has a byte that no text has: 0 or 255")
            elif not (is_number_field(field) or field.lower() in self.names):
                raise ValueError(not_a_number(field))
