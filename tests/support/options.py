"""What the command line and the settings take, from the code that parses them."""

import re

from calcd.client import cli
from calcd.config.settings import SETTINGS
from calcd.daemon.cli import option_parser


def daemon_options() -> list[list[str]]:
    """Return the names of each option of calcd: those of a row of its help."""
    rows = re.findall(r"^  (-.*)", option_parser().format_help(), re.MULTILINE)
    return [re.findall(r"(?:^|, )(--?[\w-]+)", row) for row in rows]


def client_options() -> list[list[str]]:
    """Return the names of each option of calcc."""
    tables = cli.OPTIONS + cli.COLUMN_OPTIONS + cli.TLS_OPTIONS
    return [[first, long] if long else [first] for first, long, *_ in tables]


def choices() -> dict[str, list[str]]:
    """Return the words that a setting takes, for those that take one of a few: from its error."""
    found = {}
    for row in SETTINGS:
        try:
            row.metadata["convert"]("?")
        except ValueError as error:
            _, is_choice, words = str(error).partition(": expected one of ")
            if is_choice:
                found[row.name] = words.split(", ")
    return found
