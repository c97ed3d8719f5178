"""The manual pages say what the code has: options, settings, signals, exit statuses, variables."""

import re
import shlex
from dataclasses import Field
from pathlib import Path
from typing import Any

import pytest
from documents import OPERATIONS, PROTOCOL
from helpers import ROOT
from manuals import PAGES, Page
from options import choices, client_options, daemon_options

from calcd.client import cli
from calcd.client.fold import FOLDS
from calcd.config.settings import (
    BACKGROUND_PIDFILE,
    DEFAULT_FILE,
    SETTINGS,
    option,
    read_settings,
)
from calcd.daemon import cli as daemon_cli
from calcd.daemon.actions import ACTIONS

DAEMON, CLIENT, SETTINGS_PAGE = Page("calcd.8"), Page("calcc.1"), Page("calcd.conf.5")
BY_NAME = {item.head.split()[1]: item for item in SETTINGS_PAGE.items("Cm")}
CLIENT_PAGE = ROOT / "docs" / "clients.md"


def flags(source: str) -> set[str]:
    """Return the options that lines of mdoc name, such as ``Fl c Ar file , Fl -config``."""
    return {f"-{name}" for name in re.findall(r"\bFl (-?\w[\w-]*)", source)}


def test_calcd_has_each_option() -> None:
    heads = "\n".join(item.head for item in DAEMON.items("Fl"))
    settings = {option(row.name) for row in SETTINGS}
    named = {name for names in daemon_options() for name in names}
    assert flags(heads) == named - settings | {"--listen"}
    listed = DAEMON.section("DESCRIPTION").partition("It overrides the file:\n")[2]
    assert flags(listed.partition(".Pp\n")[0]) == settings


def test_an_option_is_told_with_both_of_its_names() -> None:
    heads = [item.head for item in [*DAEMON.items("Fl"), *CLIENT.items("Fl")]]
    for names in [*daemon_options(), *client_options()]:
        if len(names) > 1:
            found = [head for head in heads if flags(head) == set(names)]
            assert found, names


def test_calcc_has_each_option_with_its_value() -> None:
    rows = cli.OPTIONS + cli.COLUMN_OPTIONS + cli.TLS_OPTIONS
    heads = []
    for *names, value, _ in rows:
        argument = f" Ar {value.lower()}" if value else ""
        heads.append(" , ".join(f"Fl {name[1:]}{argument}" for name in names if name))
    assert [item.head for item in CLIENT.items("Fl")] == heads


def test_the_synopsis_of_calcc_is_its_usage() -> None:
    words = re.findall(r"Fl (-?\w[\w-]*)", CLIENT.section("SYNOPSIS"))
    usage = re.findall(r"(?<!\S)\[?-(-?\w[\w-]*)", cli.USAGE.partition("\n\n")[0])
    assert words == [*usage, "V"]


def test_calcd_has_each_action() -> None:
    (item,) = [item for item in DAEMON.items("Fl") if "--signal" in flags(item.head)]
    told = [each.head.removeprefix("Cm ") for each in DAEMON.items("Cm", item.text)]
    assert told == list(ACTIONS)
    assert f"Fl s Cm {' | '.join(told)}\n" in DAEMON.section("SYNOPSIS")


def test_calcd_has_each_signal() -> None:
    rows = re.findall(r"^\| (SIG[^|]+) \|", OPERATIONS.read_text(), re.MULTILINE)
    told = {name for row in rows for name in row.split(", ")}
    items = DAEMON.items("Dv", DAEMON.section("Signals"))
    assert {"SIGTERM", "SIGHUP"} <= told
    assert {name for item in items for name in re.findall(r"SIG\w+", item.head)} == told


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_a_setting_is_told_with_its_default(row: Field[Any]) -> None:
    item = BY_NAME[row.name]
    default = re.search(r" Pq default: Cm (.+)$", item.head)
    assert (default[1] if default else "") == row.metadata["text"]
    assert bool(default) != bool(re.search(r"^Empty by default[.:]", item.text, re.MULTILINE))
    assert ("\nA change needs a restart.\n" in item.text) == row.metadata["restart"]


def test_each_setting_is_told_once() -> None:
    told = [item.head.split()[1] for item in SETTINGS_PAGE.items("Cm")]
    assert sorted(told) == sorted(row.name for row in SETTINGS)


@pytest.mark.parametrize(("name", "words"), choices().items())
def test_a_setting_is_told_with_the_words_that_it_takes(name: str, words: list[str]) -> None:
    item = BY_NAME[name]
    head = item.head.partition(" Pq ")[0]
    assert set(words) <= set(re.findall(r"[\w-]+", f"{head} {item.text}"))


def test_there_are_settings_that_take_one_of_a_few_words() -> None:
    assert set(choices()) == {"rounding", "notation", "language", "log_level"}


def test_calcc_has_each_operation_of_a_fold() -> None:
    (item,) = [item for item in CLIENT.items("Fl") if "--fold" in flags(item.head)]
    assert set(FOLDS) <= set(re.findall(r"[A-Z]{3,}", item.text))


def test_the_exit_statuses_are_those_of_the_documents() -> None:
    (sentence,) = re.findall("^Exit status: (.*)", OPERATIONS.read_text(), re.MULTILINE)
    heads = [item.head for item in DAEMON.items(r"\d", DAEMON.section("EXIT STATUS"))]
    assert heads == re.findall(r"\b\d\b", sentence)
    table = CLIENT_PAGE.read_text().split("| exit status | meaning |", 1)[1].split("\n\n", 1)[0]
    heads = [item.head for item in CLIENT.items(r"\d", CLIENT.section("EXIT STATUS"))]
    assert heads == re.findall(r"^\| (\d) \|", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "packages"), [(DAEMON, ["config", "core", "daemon", "net"]), (CLIENT, ["client"])]
)
def test_the_variables_are_those_that_the_code_reads(page: Page, packages: list[str]) -> None:
    told = {
        name
        for item in page.items("Ev", page.section("ENVIRONMENT"))
        for name in re.findall(r"[A-Z_]{4,}", item.head)
    }
    read = {
        name
        for package in packages
        for path in (ROOT / "calcd" / package).glob("*.py")
        for name in re.findall(
            r'(?:os\.environ|environment)(?:\.get\(|\[)"([A-Z_]+)"', path.read_text()
        )
    }
    assert read
    assert read <= told


def test_the_files_are_those_of_the_code() -> None:
    files = [item.head for item in DAEMON.items("Pa", DAEMON.section("FILES"))]
    assert {f"Pa {DEFAULT_FILE}", f"Pa {BACKGROUND_PIDFILE}"} <= set(files)


def test_the_units_are_those_that_there_are() -> None:
    sources = "".join(path.read_text() for path in PAGES)
    named = re.findall(r"^\.Pa (calcd[\w@-]*\.(?:service|socket))(?: ,)?$", sources, re.MULTILINE)
    assert {path.name for path in (ROOT / "systemd").iterdir()} == set(named)


def test_the_endpoints_are_those_of_the_protocol() -> None:
    schemes = set(re.findall(r"^\| `(\w+://)", PROTOCOL.read_text(), re.MULTILINE))
    assert schemes == set(re.findall(r"^\.It Li (\w+://)", BY_NAME["listen"].text, re.MULTILINE))


def examples(page: Page) -> list[str]:
    """Return the lines of the examples of a page."""
    source = page.section("EXAMPLES")
    blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", source, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"^\.Dl (.*)$", source, re.MULTILINE)


def test_the_commands_of_the_examples_can_be_given() -> None:
    given = [line[2:] for page in (DAEMON, CLIENT) for line in examples(page) if line[1] == " "]
    assert len(given) > 10
    for line in given:
        for command in re.sub(r" [<>] \S+", "", line).split(" && "):
            program, *arguments = shlex.split(command)
            if program == "calcc":
                assert list(cli.parse(arguments))
            elif program == "calcd":
                daemon_cli.parse(arguments)
            else:
                assert command == "systemctl reload calcd"


def test_the_files_of_the_examples_can_be_read(tmp_path: Path) -> None:
    _, *files = "\n".join(examples(SETTINGS_PAGE)).split("[calcd]\n")
    assert len(files) == 2
    for text in files:
        (tmp_path / "calcd.conf").write_text(f"[calcd]\n{text}")
        settings = read_settings(str(tmp_path / "calcd.conf"), {})
        assert len(settings.sources) == text.count(" = ")


def test_the_pages_are_in_the_sections_that_their_names_tell() -> None:
    for path in PAGES:
        name, _, section = path.name.rpartition(".")
        assert f"\n.Dt {name.upper()} {section}\n" in path.read_text()
