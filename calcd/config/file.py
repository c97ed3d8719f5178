"""Read a configuration file: one [section], NAME = VALUE, comments, continuation lines."""

import re
from typing import NamedTuple

from calcd.config.errors import ConfigError
from calcd.core.errors import printable

_COMMENT = re.compile(r"(?:^|\s)#.*|^\s*;.*", re.DOTALL)


class Row(NamedTuple):
    """A setting that is set: its name, its text and where, such as ``FILE:LINE``."""

    name: str
    text: str
    source: str


def read_file(path: str, section: str) -> tuple[list[Row], list[ConfigError]]:
    """Read the settings in ``[section]``, the only section that the file may have.

    ``#`` after a blank or at the start of a line begins a comment, and so does ``;`` at the start.
    A line that is indented more than the setting before it continues that setting's value.

    Return the settings, in order, and an error for each line that is wrong. Raise ``OSError``
    if the file cannot be read.
    """
    rows: dict[str, Row] = {}
    errors: list[ConfigError] = []
    header = f"[{section}]"
    found = ""  # the last header
    name, indent = "", 0  # of the setting that a line may continue; "": none
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [_COMMENT.sub("", line).rstrip() for line in file]
    except UnicodeDecodeError:
        return [], [ConfigError("expected a text in UTF-8", source=path)]
    for number, line in enumerate(lines, start=1):
        source, text = f"{path}:{number}", line.lstrip()
        before, equals, after = (part.strip() for part in text.partition("="))
        if not text:
            continue
        if name and len(line) - len(text) > indent:
            whole = f"{rows[name].text}\n{text}".lstrip()
            rows[name] = rows[name]._replace(text=whole)
            continue
        name, fault, setting = "", "", None
        if text.startswith("[") and text.endswith("]"):
            if text != header:
                fault = f"{printable(text)}: expected {header} alone"
            elif found:
                fault = f"{header}: is there already"
            found = text
        elif not found:
            fault = f"{printable(text)}: expected {header} before it"
            return [], [ConfigError(fault, source=source)]
        elif found == header and not (before and equals):
            fault = f"{printable(text)}: expected NAME = VALUE"
        elif found == header and before in rows:
            fault, setting = f"is set already, at {rows[before].source}", before
        elif found == header:
            name, indent = before, len(line) - len(text)
            rows[name] = Row(name, after, source)
        if fault:
            errors.append(ConfigError(fault, setting=setting, source=source))
    return list(rows.values()), errors
