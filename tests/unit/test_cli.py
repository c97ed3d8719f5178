"""The command line: one table of settings, a few options beside it, one line for a mistake."""

import os
import re

import pytest

import calcd
from calcd.config.settings import SETTINGS, option
from calcd.daemon.cli import option_parser, parse


def test_nothing_is_asked_for_by_an_empty_line() -> None:
    line = parse([])
    assert (line.file, line.background, line.check, line.action) == (None, False, False, None)
    assert line.options == {}


def test_every_setting_is_an_option_with_its_text_left_as_it_is() -> None:
    arguments = [part for row in SETTINGS for part in (option(row.name), f" {row.name} ")]
    assert parse(arguments).options == {row.name: f" {row.name} " for row in SETTINGS}


def test_listen_is_repeated() -> None:
    line = parse(["-l", "tcp://a:1", "--listen", "tcp://b:2 unix:///c"])
    assert line.options["listen"].split() == ["tcp://a:1", "tcp://b:2", "unix:///c"]


def test_of_any_other_setting_the_last_one_holds() -> None:
    assert parse(["--max-line", "1", "--max-line=2"]).options == {"max_line": "2"}


def test_a_value_may_begin_with_a_minus_and_a_digit() -> None:
    assert parse(["--idle-timeout", "-1"]).options == {"idle_timeout": "-1"}


def test_the_file_is_known_by_its_whole_path() -> None:
    assert parse(["-c", "etc/../calcd.conf"]).file == os.path.abspath("calcd.conf")


def parse_and_exit(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    """Parse arguments that end the program; return its exit status and what it printed."""
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    return ended.value.code, *capsys.readouterr()


def test_help_lists_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    status, shown, errors = parse_and_exit(["-h"], capsys)
    assert (status, errors) == (0, "")
    told = "".join(shown.split())  # it breaks lines at blanks, and words at hyphens
    for row in SETTINGS:
        metavar = "URL" if row.name == "listen" else "VALUE"
        default = f"(default: {row.metadata['text']})" if row.metadata["text"] else ""
        expected = f"{option(row.name)} {metavar} {row.metadata['meaning']} {default}"
        assert "".join(expected.split()) in told


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_and_exit([option], capsys) == (0, f"calcd {calcd.__version__}\n", "")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["-c", "f"], ["--config=f"]),
        (["-d"], ["--daemon"]),
        (["-t"], ["--test"]),
        (["-s", "stop"], ["--signal", "stop"]),
        (["-l", "tcp://a:1"], ["--listen", "tcp://a:1"]),
    ],
)
def test_a_long_option_is_its_short_form(short: list[str], long: list[str]) -> None:
    assert parse(short) == parse(long) != parse([])


def test_every_option_has_a_long_form() -> None:
    rows = re.findall("^  (-.*)", option_parser().format_help(), re.MULTILINE)
    assert len(rows) == 6 + len(SETTINGS)
    assert [row for row in rows if not re.search("(^|, )--[a-z]", row)] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--idle-timeot", "3"], "unrecognized arguments: --idle-timeot 3"),
        (["--idle"], "unrecognized arguments: --idle"),
        (["--idle-timeout"], "argument --idle-timeout: expected one argument"),
        (["-c"], "argument -c/--config: expected one argument"),
        (["12000"], "unrecognized arguments: 12000"),
        (["-s", "restart"], "argument -s/--signal: invalid choice: 'restart'"),
        (["-t", "-s", "stop"], "argument -s/--signal: not allowed with argument -t/--test"),
        (["--vers"], "unrecognized arguments: --vers"),
        (["a\n\x1b[2Jb"], r"unrecognized arguments: a\n\x1b[2Jb"),
        (["x" * 10_000], "unrecognized arguments: xxxxxxxxxx"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown, errors = parse_and_exit(arguments, capsys)
    assert (status, shown) == (2, "")
    assert re.fullmatch(r"calcd: [\x20-\x7e]{1,300}; see calcd -h\n", errors)
    assert errors.startswith(f"calcd: {words}")
