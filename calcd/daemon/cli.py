"""The command line of calcd: an option for each setting, and a few others."""

import argparse
from dataclasses import dataclass
from typing import NoReturn

import calcd
from calcd.config.converters import absolute
from calcd.config.settings import DEFAULT_FILE, SETTINGS, option
from calcd.daemon.actions import ACTIONS

_MAX_MESSAGE = 200  # characters of an error message


@dataclass(frozen=True)
class CommandLine:
    """The parsed command line. ``options`` has the text of each setting that was given."""

    file: str | None
    background: bool
    check: bool
    action: str | None
    options: dict[str, str]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        if len(message) > _MAX_MESSAGE:
            message = message[:_MAX_MESSAGE] + "..."
        if not message.isprintable():
            message = message.encode("unicode_escape").decode("ascii")
        self.exit(2, f"calcd: {message}; see calcd -h\n")


def option_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="calcd",
        usage="calcd [-c FILE] [-l URL]... [-d] [--SETTING VALUE]...\n"
        "       calcd -t | -s ACTION [-c FILE] [--SETTING VALUE]...\n"
        "       calcd -V | -h",
        description="Exact decimal arithmetic as a network service with a line protocol.",
        epilog="-l can be repeated. In the file, settings have the same names, with _ for -.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(
        "-c",
        "--config",
        dest="file",
        metavar="FILE",
        type=absolute,
        help=f"configuration file (default: {DEFAULT_FILE}, if it exists)",
    )
    parser.add_argument(
        "-d", "--daemon", dest="background", action="store_true", help="run in the background"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "-t", "--test", dest="check", action="store_true", help="test the configuration, exit"
    )
    action.add_argument(
        "-s",
        "--signal",
        dest="action",
        metavar="ACTION",
        choices=ACTIONS,
        help=f"{', '.join(ACTIONS)}: act on the daemon that holds the pidfile",
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"calcd {calcd.__version__}",
        help="print the version, exit",
    )
    parser.add_argument("-h", "--help", action="help", help="print this help, exit")
    settings = parser.add_argument_group("settings")
    for row in SETTINGS:
        default = f" (default: {row.metadata['text']})" if row.metadata["text"] else ""
        settings.add_argument(
            *(["-l"] if row.name == "listen" else []),
            option(row.name),
            dest=row.name,
            action="append" if row.name == "listen" else "store",
            metavar="URL" if row.name == "listen" else "VALUE",
            help=(row.metadata["meaning"] + default).replace("%", "%%"),
        )
    return parser


def parse(arguments: list[str] | None = None) -> CommandLine:
    """Parse the command line, by default the process's; exit with status 2 if it is wrong."""
    given = vars(option_parser().parse_args(arguments))
    texts = {row.name: given[row.name] for row in SETTINGS if given[row.name] is not None}
    if "listen" in texts:
        texts["listen"] = " ".join(texts["listen"])
    return CommandLine(given["file"], given["background"], given["check"], given["action"], texts)
