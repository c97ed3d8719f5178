"""The command line of calcd: the table of settings, and a few options beside it."""

import argparse
from dataclasses import dataclass
from typing import NoReturn

import calcd
from calcd.config.converters import absolute
from calcd.config.settings import DEFAULT_FILE, SETTINGS, option
from calcd.daemon.actions import ACTIONS

_SHOWN = 200  # characters of a mistake that are repeated


@dataclass(frozen=True)
class CommandLine:
    """What was asked for. ``options`` are settings by name, as they were written."""

    file: str | None
    background: bool
    check: bool
    action: str | None
    options: dict[str, str]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line that a person can act on, and status 2."""
        if len(message) > _SHOWN:
            message = message[:_SHOWN] + "..."
        if not message.isprintable():
            message = message.encode("unicode_escape").decode("ascii")
        self.exit(2, f"calcd: {message}; see calcd -h\n")


def parse(arguments: list[str] | None = None) -> CommandLine:
    """Read the command line, by default the process's; exit with 2 where it is wrong."""
    parser = _Parser(
        prog="calcd",
        usage="calcd [-c FILE] [-l URL]... [-d] [--SETTING VALUE]...\n"
        "       calcd -t | -s ACTION | -V | -h",
        description="Exact decimal arithmetic as a network service, asked in lines of text.",
        epilog="-l can be repeated. Each setting can stand in the file too, by its name with _ "
        "for -.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c",
        dest="file",
        metavar="FILE",
        type=absolute,
        help=f"settings (default: {DEFAULT_FILE}, where it exists)",
    )
    parser.add_argument("-d", dest="background", action="store_true", help="run in the background")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("-t", dest="check", action="store_true", help="check the settings, exit")
    instead.add_argument(
        "-s", dest="action", choices=ACTIONS, help="act on the daemon that holds the pidfile"
    )
    parser.add_argument("-V", action="version", version=f"calcd {calcd.__version__}")
    settings = parser.add_argument_group("settings")
    for row in SETTINGS:
        default = f" (default: {row.metadata['text']})" if row.metadata["text"] else ""
        settings.add_argument(
            *(["-l"] if row.name == "listen" else []),
            option(row.name),
            dest=row.name,
            action="append",
            metavar="URL" if row.name == "listen" else "VALUE",
            help=(row.metadata["meaning"] + default).replace("%", "%%"),
        )
    found = vars(parser.parse_args(arguments))
    options = {
        # -l may be given several times; of any other setting the last one holds.
        row.name: " ".join(found[row.name]) if row.name == "listen" else found[row.name][-1]
        for row in SETTINGS
        if found[row.name] is not None
    }
    return CommandLine(found["file"], found["background"], found["check"], found["action"], options)
