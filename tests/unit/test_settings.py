"""The settings: sources, values, and errors."""

import os
import re
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from calcd.config import settings as module
from calcd.config.errors import ConfigError, SettingsError
from calcd.config.file import Row, read_file
from calcd.config.networks import Networks, Proxies, parse_network
from calcd.config.settings import (
    SETTINGS,
    Settings,
    need_restart,
    option,
    read_settings,
)

CONFIG = ROOT / "etc" / "calcd.conf"


@pytest.fixture(autouse=True)
def no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the default file of this machine; return the path of the replacement."""
    path = tmp_path / "etc" / "calcd.conf"
    monkeypatch.setattr(module, "DEFAULT_FILE", str(path))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calcd.conf"


def read(file: Path, text: str | bytes, **options: str) -> Settings:
    """Read the settings from a file that has ``text``."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(str(file), options)


def problems(file: Path, text: str | bytes, **options: str) -> list[str]:
    """Return the errors in a file with ``text``, with the file's path in /."""
    with pytest.raises(SettingsError) as caught:
        read(file, text, **options)
    return [line.replace(str(file.parent), "") for line in map(str, caught.value.errors)]


def refusal(name: str, text: str) -> str:
    """Return the error for a value on the command line."""
    with pytest.raises(SettingsError) as caught:
        read_settings(None, {name: text})
    (error,) = caught.value.errors
    return str(error)


# The table


def test_without_file_and_options_the_defaults_hold() -> None:
    settings = read_settings(None, {})
    assert settings == Settings(log_to="stderr")
    assert [str(endpoint) for endpoint in settings.listen] == ["tcp://localhost:12000"]
    assert (settings.idle_timeout, settings.max_line, settings.reuse_port) == (300, 16384, False)


def test_in_the_background_the_log_and_pidfile_have_defaults_of_their_own() -> None:
    settings = read_settings(None, {}, background=True)
    assert (settings.log_to, settings.pidfile) == ("syslog", "/run/calcd/calcd.pid")


def test_in_the_background_there_is_no_stderr(file: Path) -> None:
    file.write_text("[calcd]\nlog_to = stderr\n")
    with pytest.raises(SettingsError, match=r"calcd.conf:2: log_to: 'stderr': expected syslog or"):
        read_settings(str(file), {}, background=True)
    with pytest.raises(SettingsError, match="--log-to: 'stderr': expected syslog or"):
        read_settings(None, {"log_to": "stderr"}, background=True)


def test_every_default_is_a_value_that_the_file_takes(file: Path) -> None:
    lines = [f"{row.name} = {row.metadata['text']}\n" for row in SETTINGS]
    assert read(file, "[calcd]\n" + "".join(lines)) == read_settings(None, {})


def test_the_settings_in_force_are_shown_as_they_are_written() -> None:
    settings = read_settings(
        None,
        {
            "listen": "tcp://[::1]:1 unix:///a?mode=660",
            "allow": "::1 10.0.0.0/8",
            "idle_timeout": "31622400",
            "reuse_port": "on",
        },
    )
    shown = str(settings)
    assert shown.startswith(
        "listen=tcp://[::1]:1,unix:///a?mode=0660 allow=::1/128,10.0.0.0/8 "
        "proxy_protocol_from= tls_certificate= "
    )
    assert " idle_timeout=31622400 " in shown
    assert " reuse_port=yes " in shown
    assert [pair.split("=")[0] for pair in shown.split(" ")] == [row.name for row in SETTINGS]


def test_the_defaults_in_force_are_shown_as_the_table_has_them() -> None:
    shown = str(read_settings(None, {"idle_timeout": "86399.999999"}))
    defaults = {row.name: row.metadata["text"] for row in SETTINGS}
    expected = {**defaults, "idle_timeout": "86399.999999", "log_to": "stderr"}
    expected["workers"] = str(len(os.sched_getaffinity(0)))
    assert shown == " ".join(f"{name}={text}" for name, text in expected.items())


def test_where_each_setting_is_set_can_be_looked_up(file: Path) -> None:
    file.write_text("[calcd]\nmax_line = 7\nidle_timeout = 8\n")
    assert read_settings(str(file), {"max_line": "9", "log_to": "syslog"}).sources == {
        "max_line": "--max-line",
        "idle_timeout": f"{file}:3",
        "log_to": "--log-to",
    }


def test_metrics_may_have_several_urls() -> None:
    settings = read_settings(None, {"metrics": "http://localhost:9112\n http://[::1]:9113"})
    assert [str(each) for each in settings.metrics] == [
        "http://localhost:9112",
        "http://[::1]:9113",
    ]
    assert read_settings(None, {"metrics": ""}).metrics == ()
    with pytest.raises(SettingsError) as raised:
        read_settings(None, {"metrics": "localhost:9112"})
    assert str(raised.value) == (
        "--metrics: 'localhost:9112': expected http://HOST:PORT, with [] round an IPv6 address, "
        "and without a path"
    )


def test_metrics_need_their_library_and_nothing_of_it_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert read_settings(None, {}).metrics == ()
    with pytest.raises(SettingsError) as raised:
        read_settings(None, {"metrics": "http://localhost:9112"})
    (error,) = raised.value.errors
    assert (error.setting, error.source) == ("metrics", "--metrics")
    assert "pip install '.[metrics]'" in error.hint


def test_some_settings_need_a_restart() -> None:
    old = read_settings(None, {})
    new = read_settings(
        None,
        {
            "listen": "tcp://localhost:1",
            "reuse_port": "yes",
            "metrics": "http://localhost:1",
            "pidfile": "/a",
            "user": "a",
            "group": "b",
            "idle_timeout": "1",
            "log_to": "/c",
        },
    )
    names = ["listen", "reuse_port", "metrics", "pidfile", "user", "group"]
    assert need_restart(old, new) == names
    assert need_restart(old, old) == []


# The file that explains them


def test_the_example_has_every_setting_of_the_table_in_order_with_its_default() -> None:
    rows = re.findall(r"^#(\w+) =(.*)$", CONFIG.read_text(), re.MULTILINE)
    assert [(name, text.strip()) for name, text in rows] == [
        (row.name, row.metadata["text"]) for row in SETTINGS
    ]


def test_the_example_explains_each_setting_right_above_it() -> None:
    text = CONFIG.read_text()
    for row in SETTINGS:
        assert re.search(rf"\n\n(# .*\n)+#{row.name} =", text), row.name
    assert max(map(len, text.splitlines())) < 80


def test_the_example_changes_nothing_as_it_is() -> None:
    assert read_settings(str(CONFIG), {}) == read_settings(None, {})
    assert read_file(str(CONFIG), "calcd") == ([], [])


def test_the_example_changes_nothing_with_every_setting_taken_in(file: Path) -> None:
    text, count = re.subn(r"^#(\w+ =)", r"\1", CONFIG.read_text(), flags=re.MULTILINE)
    assert count == len(SETTINGS)
    assert read(file, text) == read_settings(None, {})
    assert len(read_file(str(file), "calcd")[0]) == len(SETTINGS)


# The file


@pytest.mark.parametrize(
    "text",
    [
        "[calcd]\nmax_line = 7\n",
        "[calcd]\nmax_line=7",
        "\n# x\n; y\n[calcd]  # z\n\n   max_line   =   7   # seven\n",
        "[calcd]\r\nmax_line = 7\r\n",
        "\ufeff[calcd]\nmax_line = 7\n",
        "[calcd]\nmax_line =\n    7\n",
        "[calcd]\n  line_timeout = 3\n  max_line = 7\n",
        "[calcd]\nuser =\nmax_line = 7\n",
    ],
    ids=["plain", "tight", "comments", "crlf", "bom", "next line", "indented", "after empty"],
)
def test_a_file_may_be_written_in_many_ways(file: Path, text: str) -> None:
    assert read(file, text).max_line == 7


def test_a_file_without_settings_changes_nothing(file: Path) -> None:
    assert read(file, "") == read(file, "[calcd]\n") == read_settings(None, {})


def test_listen_may_go_over_several_lines(file: Path) -> None:
    settings = read(
        file,
        "[calcd]\n"
        "listen = tcp://127.0.0.1:1\n"
        "    # the one for the neighbours\n"
        "    tcp://[::1]:2   # and a comment\n"
        "\n"
        "\tunix:///tmp/a tcp://localhost:3\n"
        "max_line = 7\n",
    )
    assert " ".join(map(str, settings.listen)) == (
        "tcp://127.0.0.1:1 tcp://[::1]:2 unix:///tmp/a tcp://localhost:3"
    )
    assert settings.max_line == 7


def test_a_comment_begins_after_a_blank(file: Path) -> None:
    assert read(file, "[calcd]\nlog_to = /tmp/a#b #c\n").log_to == "/tmp/a#b"
    assert read(file, "[calcd]\nuser = #c\n").user == ""


def test_a_value_may_have_an_equals_sign(file: Path) -> None:
    settings = read(file, "[calcd]\nlisten = unix:///a?mode=0660&group=b\nlog_to = /c=d\n")
    assert str(settings.listen[0]) == "unix:///a?mode=0660&group=b"
    assert settings.log_to == "/c=d"


def test_each_setting_knows_the_line_where_it_begins(file: Path) -> None:
    file.write_text("# 1\n[calcd]\n\na = 1\nb =\n  2\n  3\n\nc = 4\n")
    rows, errors = read_file(str(file), "calcd")
    assert rows == [
        Row("a", "1", f"{file}:4"),
        Row("b", "2\n3", f"{file}:5"),
        Row("c", "4", f"{file}:9"),
    ]
    assert errors == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_line = 7\n", ":1: 'max_line = 7': expected [calcd] before it"),
        ("[calcd]\nmax_lin = 7\n", ":2: max_lin: there is no such setting: do you mean max_line?"),
        ("[calcd]\nidle-timeout = 7", ":2: 'idle-timeout': there is no such setting: do you mean "),
        ("[calcd]\nLISTEN = x", ":2: LISTEN: there is no such setting: calcd -h lists them"),
        ("[calcd]\nuser = a\n\nuser = b\n", ":4: user: is set already, at /calcd.conf:2"),
        ("[calcd]\n[calculator]\nx = 1\n", ":2: '[calculator]': expected [calcd] alone"),
        ("  max_line = 7\n", ":1: 'max_line = 7': expected [calcd] before it"),
        ("[calcd]\nuser = a\n[calcd]\n", ":3: [calcd]: is there already"),
        ("[DEFAULT]\nmax_line = 7\n", ":1: '[DEFAULT]': expected [calcd] alone"),
        ("[calcd]\nmax_line 7\n", ":2: 'max_line 7': expected NAME = VALUE"),
        ("[calcd]\nmax_line: 7\n", ":2: 'max_line: 7': expected NAME = VALUE"),
        ("[calcd]\n= 7\n", ":2: '= 7': expected NAME = VALUE"),
        ("[calcd\nmax_line = 7\n", ":1: '[calcd': expected [calcd] before it"),
        ("[calcd]\nuser = a\n\nmax_line = x", ":4: max_line: 'x': expected a whole number from"),
        (b"[calcd]\nuser = \xff\n", ": expected a text in UTF-8"),
    ],
)
def test_an_error_in_the_file_has_its_line(file: Path, text: str | bytes, problem: str) -> None:
    assert problems(file, text)[0].startswith(f"/calcd.conf{problem}")


def test_a_setting_that_was_continued_by_accident_is_shown_whole(file: Path) -> None:
    (problem,) = problems(file, "[calcd]\nmax_line = 7\n  user = a\n")
    assert problem.startswith("/calcd.conf:2: max_line: '7\\nuser = a': expected a whole number")


def test_all_errors_are_reported_at_once(file: Path) -> None:
    told = problems(
        file,
        "[calcd]\nmax_line = x\nidle_timeot = 1\nlisten = tcp://a:1 tcp://b unix:c\n",
        rounding="sideways",
    )
    assert [line.split(" expected ")[0] for line in told] == [
        "/calcd.conf:2: max_line: 'x':",
        "/calcd.conf:3: idle_timeot: there is no such setting: do you mean idle_timeout?",
        "/calcd.conf:4: listen: 'tcp://b':",
        "/calcd.conf:4: listen: 'unix:c':",
        "--rounding: 'sideways':",
    ]


def test_every_wrong_network_is_reported(file: Path) -> None:
    assert problems(file, "[calcd]\nallow = ::1 a\n  ::1%lo\n") == [
        "/calcd.conf:2: allow: 'a': "
        "expected a network or address: 192.168.1.0/24, 2001:db8::/32, ::1",
        "/calcd.conf:2: allow: '::1%lo': "
        "expected an address without %: it is allowed on every interface",
    ]


def test_every_setting_that_needs_a_certificate_is_reported(file: Path) -> None:
    text = "[calcd]\nlisten = tls://a:1 tcp://a:2 tls://a:3\ntls_certificate =\ntls_key = /k\n"
    wanted = ": expected tls_certificate to be set too, to a file's path"
    assert problems(file, text, tls_client_ca="/ca") == [
        f"/calcd.conf:2: listen: 'tls://a:1'{wanted}",
        f"/calcd.conf:2: listen: 'tls://a:3'{wanted}",
        f"/calcd.conf:4: tls_key: '/k'{wanted}",
        f"--tls-client-ca: '/ca'{wanted}",
    ]
    read(file, text, tls_client_ca="/ca", tls_certificate="/c")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path, reason in {
        tmp_path / "missing": "No such file or directory",
        tmp_path: "Is a directory",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        with pytest.raises(SettingsError) as caught:
            read_settings(str(path), {})
        assert [*map(str, caught.value.errors)] == [f"{path}: {reason}"]


def test_the_default_file_is_read_where_it_exists(no_default_file: Path) -> None:
    no_default_file.parent.mkdir()
    no_default_file.write_text("[calcd]\nmax_line = 7\n")
    assert read_settings(None, {}).max_line == 7
    no_default_file.write_text("[calcd]\nmax_line = x\n")
    with pytest.raises(SettingsError, match=r"etc/calcd\.conf:2: max_line: 'x'"):
        read_settings(None, {})


def test_a_default_file_that_exists_and_cannot_be_read_is_an_error(no_default_file: Path) -> None:
    no_default_file.mkdir(parents=True)
    with pytest.raises(SettingsError, match="Is a directory"):
        read_settings(None, {})


def test_options_override_the_file_and_the_file_the_defaults(
    file: Path,
) -> None:
    settings = read(file, "[calcd]\nmax_line = 7\nidle_timeout = 8\n", max_line="9")
    assert (settings.max_line, settings.idle_timeout, settings.line_timeout) == (9, 8, 10)


# The values


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("idle_timeout", "0", 0),
        ("idle_timeout", "0.0", 0),
        ("idle_timeout", "0.001", 0.001),
        ("message_wait", ".5", 0.5),
        ("message_wait", "2.", 2),
        ("drain_timeout", "31622400", 366 * 86400),
        ("max_line", "007", 7),
        ("max_line", "1048576", 1 << 20),
        ("max_connections", "1", 1),
        ("max_connections_per_host", "0", 0),
        ("precision", "1000", 1000),
        ("rounding", "Half-UP", "half-up"),
        ("rounding", "05up", "05up"),
        ("notation", "Scientific", "scientific"),
        *(("language", text, "pt") for text in ("pt", "PT", "pt-BR", "pt_PT", "pt_BR.UTF-8")),
        ("language", "en_US", "en"),
        ("log_level", "DEBUG", "debug"),
        ("reuse_port", "Yes", True),
        ("reuse_port", "off", False),
        ("log_to", "syslog", "syslog"),
        ("log_to", "", "stderr"),
        ("pidfile", "", ""),
        ("user", "www-data", "www-data"),
        ("allow", "", Networks()),
        ("allow", " \n", Networks()),
        ("proxy_protocol_from", "", Proxies()),
        ("proxy_protocol_from", "Unix", Proxies(unix=True)),
        ("proxy_protocol_from", "::1\nunix", Proxies(Networks((parse_network("::1"),)), unix=True)),
        ("allow", "::1\n10.0.0.0/8", Networks((parse_network("::1"), parse_network("10.0.0.0/8")))),
        ("tls_certificate", "/a", "/a"),
        ("tls_client_ca", "", ""),
    ],
)
def test_value(name: str, text: str, value: object) -> None:
    assert getattr(read_settings(None, {name: text}), name) == value


@pytest.mark.parametrize(
    "text", ["0.5s", "1e3", "-1", "+1", "\u0661", "inf", "nan", "", " 1", "1,5", "1_0", ".", "0x1"]
)
@pytest.mark.parametrize("name", ["idle_timeout", "line_timeout", "max_line", "precision"])
def test_a_number_is_written_in_plain_ascii_digits(name: str, text: str) -> None:
    shown = text.encode("unicode_escape").decode()
    assert refusal(name, text).startswith(f"{option(name)}: '{shown}': expected ")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("line_timeout", "0", "seconds without a unit: a number from 0.001 to 31622400"),
        ("line_timeout", "0.0009", "seconds without a unit: a number from 0.001 to 31622400"),
        ("idle_timeout", "0.0009", "seconds without a unit: 0, or a number from 0.001 to 31622400"),
        ("send_timeout", "31622400.1", "seconds without a unit: a number from 0.001 to 31622400"),
        ("send_timeout", "9" * 400, "seconds without a unit: a number from 0.001 to 31622400"),
        ("max_line", "0", "a whole number from 1 to 1048576, in digits"),
        ("max_line", "1048577", "a whole number from 1 to 1048576, in digits"),
        ("max_line", "1.0", "a whole number from 1 to 1048576, in digits"),
        ("max_connections", "0", "a whole number from 1 to 1000000, in digits"),
        ("max_connections", "9" * 5000, "a whole number from 1 to 1000000, in digits"),
        ("precision", "1001", "a whole number from 1 to 1000, in digits"),
        ("rounding", "half_even", "one of half-even, half-up, half-down, up, down, ceiling, floor"),
        ("notation", "sci", "one of plain, scientific"),
        ("language", "fr", "one of en, pt"),
        ("language", "", "one of en, pt"),
        ("log_level", "warn", "one of debug, info, warning, error"),
        ("reuse_port", "maybe", "yes or no"),
        ("log_to", "sysolg", "stderr, syslog or a file's path, such as /var/log/calcd.log or ./"),
        ("log_to", "/var/log/", "stderr, syslog or a file's path, such as /var/log/calcd.log"),
        ("log_to", "/var/log/\x1b[2J", "a path of printable characters"),
        ("pidfile", "/run/\0", "a path of printable characters"),
        ("user", "a b", "a name without blanks"),
        ("group", "a\nb", "a name without blanks"),
        ("allow", "localhost", "a network or address: 192.168.1.0/24, 2001:db8::/32, ::1"),
        ("proxy_protocol_from", "unix://", "a network or address: 192.168.1.0/24, "),
        ("proxy_protocol_from", "10.0.0.1/8", "10.0.0.0/8 for the network, or 10.0.0.1 for "),
        ("allow", "::1 10.0.0.1/8", "10.0.0.0/8 for the network, or 10.0.0.1 for that address"),
        ("listen", "unix:///a?mode=9", "a mode in octal digits, such as mode=0660, not 'mode=9'"),
        ("listen", "tls://a:1", "tls_certificate to be set too, to a file's path"),
        ("tls_key", "/a", "tls_certificate to be set too, to a file's path"),
        ("tls_client_ca", "/a", "tls_certificate to be set too, to a file's path"),
        ("tls_client_crl", "/a", "tls_client_ca to be set too, to a file's path"),
        ("tls_certificate", "/a\0", "a path of printable characters"),
    ],
)
def test_an_error_says_what_was_expected(name: str, text: str, expected: str) -> None:
    assert f": expected {expected}" in refusal(name, text)


@pytest.mark.parametrize(
    "name", ["max_line", "idle_timeout", "rounding", "listen", "log_to", "allow"]
)
@pytest.mark.parametrize("text", ["\x1b[2Jcalcd: all is well\a", "x" * 10_000, "é\u202e\ud800"])
def test_an_error_is_one_short_printable_line(name: str, text: str) -> None:
    problem = refusal(name, text.replace(" ", "_"))
    assert problem.isprintable()
    assert len(problem) < 300


def test_an_unknown_name_is_one_short_printable_line(file: Path) -> None:
    for text in ("x" * 10_000 + " = 1", "\x1b[2J = 1", "\x1b[2J"):
        (problem,) = problems(file, f"[calcd]\n{text}\n")
        assert problem.isprintable()
        assert len(problem) < 200


# Paths


def test_relative_paths_start_where_the_program_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where it is now: with -d, a reload finds it in another directory."""
    before = read_settings(None, {"log_to": "./a", "pidfile": "b"})
    monkeypatch.chdir(tmp_path)
    assert read_settings(None, {"log_to": "./a", "pidfile": "b"}) == before


def test_every_line_that_is_no_setting_is_reported(file: Path) -> None:
    told = problems(file, "[calcd]\nnonsense\nmax_line = 7\nmore of it\n")
    assert told == [
        "/calcd.conf:2: 'nonsense': expected NAME = VALUE",
        "/calcd.conf:4: 'more of it': expected NAME = VALUE",
    ]


# Errors


@pytest.mark.parametrize(
    ("setting", "source", "text"),
    [
        (None, None, "why: what to do"),
        ("user", None, "user: why: what to do"),
        ("user", "/etc/calcd.conf:7", "/etc/calcd.conf:7: user: why: what to do"),
        ("user", "--user", "--user: why: what to do"),
        (None, "/etc/calcd.conf:7", "/etc/calcd.conf:7: why: what to do"),
        ("a b", "/etc/calcd.conf:7", "/etc/calcd.conf:7: 'a b': why: what to do"),
        ("a" * 40, None, "a" * 40 + ": why: what to do"),
        ("a" * 41, None, f"'{'a' * 40}...': why: what to do"),
        ("\x1b[2J", None, r"'\x1b[2J': why: what to do"),
    ],
)
def test_the_text_is_one_line(setting: str | None, source: str | None, text: str) -> None:
    error = ConfigError("why", "what to do", setting=setting, source=source)
    assert str(error) == text
    assert (error.reason, error.hint) == ("why", "what to do")
    assert (error.setting, error.source) == (setting, source)


def test_the_source_is_looked_up_once() -> None:
    error = ConfigError("why", setting="user")
    error.locate({})
    assert str(error) == "user: why"
    error.locate({"user": "/etc/calcd.conf:7", "group": "--group"})
    error.locate({"user": "--user"})
    assert str(error) == "/etc/calcd.conf:7: user: why"


def test_settings_have_an_error_for_each_fault() -> None:
    errors = [ConfigError("one"), ConfigError("two", setting="user")]
    assert SettingsError(errors).errors == errors
    assert str(SettingsError(errors)) == "one; user: two"
