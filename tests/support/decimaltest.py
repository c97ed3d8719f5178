"""The cases that came with the General Decimal Arithmetic specification, as Python carries them."""

import sysconfig
from collections.abc import Iterator
from decimal import Context
from functools import cache
from pathlib import Path
from typing import NamedTuple

_IN_PYTHON = "test/decimaltestdata"


class Case(NamedTuple):
    """One case: ``name operation operands -> expected conditions``, and the context it is for.

    ``limits`` are the largest and smallest exponents and the clamp; words are in lower case.
    """

    name: str
    operation: str
    operands: tuple[str, ...]
    expected: str
    conditions: frozenset[str]
    precision: int
    rounding: str
    limits: tuple[int, int, int]


def directory() -> Path | None:
    """Find the cases: in the running Python's test package, else in one of Debian's."""
    candidates = [
        Path(sysconfig.get_path("stdlib"), _IN_PYTHON),
        *sorted(Path("/usr/lib").glob(f"python3*/{_IN_PYTHON}")),
    ]
    return next((found for found in candidates if found.is_dir()), None)


@cache
def all_cases(found: Path) -> list[Case]:
    """Give the cases of all files; those that are in two files twice."""
    return [case for path in sorted(found.glob("*.decTest")) for case in _cases_of(path)]


def _cases_of(path: Path) -> Iterator[Case]:
    default = Context()
    directives = {
        "precision": str(default.prec),
        "rounding": "half_even",
        "maxexponent": str(default.Emax),
        "minexponent": str(default.Emin),
        "clamp": "0",
    }
    for line in path.read_text("utf-8").splitlines():
        fields = _fields(line)
        if "->" in fields:
            arrow = fields.index("->")
            yield Case(
                fields[0],
                fields[1].lower(),
                tuple(fields[2:arrow]),
                fields[arrow + 1],
                frozenset(condition.lower() for condition in fields[arrow + 2 :]),
                int(directives["precision"]),
                directives["rounding"].replace("_", "-"),
                (
                    int(directives["maxexponent"]),
                    int(directives["minexponent"]),
                    int(directives["clamp"]),
                ),
            )
        elif fields:
            key, _, value = "".join(fields).partition(":")
            directives[key.lower()] = value.lower()


def _fields(line: str) -> list[str]:
    """Split a line at blanks, but for those in quotes; leave its comment out."""
    fields: list[str] = []
    for field in line.split():
        if fields and fields[-1][:1] in "'\"" and not _closed(fields[-1]):
            fields[-1] += f" {field}"
        elif field.startswith("--"):
            break
        else:
            fields.append(field)
    return [field[1:-1] if field[:1] in "'\"" else field for field in fields]


def _closed(field: str) -> bool:
    """Say whether a field that starts with a quote ends with it."""
    return len(field) > 1 and field.endswith(field[0])
