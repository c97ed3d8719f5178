"""One section of an INI file, with the line that each setting stands on."""

import configparser
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from calcd.core.errors import printable


class InifileError(Exception):
    """A file that cannot be read.

    ``problems`` has a line for each thing that is wrong, with the file, the line where there
    is one, and why.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Row(NamedTuple):
    """A setting of the file, ``name = text``, and the line where it begins."""

    line: int
    name: str
    text: str


class _Parser(configparser.ConfigParser):
    """The library's parser, which knows a setting's line only while it reads it."""

    def __init__(self) -> None:
        self.lines: list[str] = []  # those it has read
        self.line_of: dict[str, int] = {}
        super().__init__(
            delimiters=("=",),
            inline_comment_prefixes=("#",),
            interpolation=None,
            default_section="",
        )

    def noted(self, lines: Iterable[str]) -> Iterator[str]:
        """Pass lines on, and note them."""
        for line in lines:
            self.lines.append(line.strip())
            yield line

    def optionxform(self, optionstr: str) -> str:
        """Note the line of a name, as it is met the first time; leave the name as it is."""
        self.line_of.setdefault(optionstr, len(self.lines))
        return optionstr


def read_inifile(path: str, section: str) -> list[Row]:
    """Read the settings under ``[section]``, the only one there may be, in the file's order.

    Raise ``InifileError`` where anything is wrong, caused by the OSError if there was one.
    """
    parser = _Parser()
    try:
        with open(path, encoding="utf-8-sig") as file:
            parser.read_file(parser.noted(file), source=path)
    except OSError as error:
        raise InifileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InifileError(f"{path}: expected a text in UTF-8") from None
    except configparser.DuplicateOptionError as error:
        first = parser.line_of[error.option]
        words = f"{error.option}: is on line {first} already"
        raise InifileError(f"{path}:{error.lineno}: {words}") from None
    except configparser.DuplicateSectionError as error:
        words = f"[{error.section}]: is there already"
        raise InifileError(f"{path}:{error.lineno}: {words}") from None
    except configparser.MissingSectionHeaderError as error:
        words = f"{printable(error.line.strip())}: expected [{section}] before it"
        raise InifileError(f"{path}:{error.lineno}: {words}") from None
    except configparser.ParsingError as error:
        wrong = {line: printable(parser.lines[line - 1]) for line, _ in error.errors}
        raise InifileError(
            *(f"{path}:{line}: {text}: expected NAME = VALUE" for line, text in wrong.items())
        ) from None
    if others := [f"[{name}]" for name in parser.sections() if name != section]:
        wrong = {_line_of(header, parser.lines): printable(header) for header in others}
        raise InifileError(
            *(f"{path}:{line}: {text}: expected [{section}] alone" for line, text in wrong.items())
        )
    rows = parser.items(section) if parser.has_section(section) else []
    return [Row(parser.line_of[name], name, text.strip()) for name, text in rows]


def _line_of(header: str, lines: list[str]) -> int:
    return 1 + next(number for number, line in enumerate(lines) if line.startswith(header))
