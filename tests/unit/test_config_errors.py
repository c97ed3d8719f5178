"""Errors of settings: what they carry, and their text."""

import pytest

from calcd.config.errors import ConfigError, SettingsError


@pytest.mark.parametrize(
    ("setting", "source", "text"),
    [
        (None, None, "why: what to do"),
        ("user", None, "user: why: what to do"),
        ("user", "/etc/calcd.conf:7", "/etc/calcd.conf:7: user: why: what to do"),
        ("user", "--user", "--user: why: what to do"),
        (None, "/etc/calcd.conf:7", "/etc/calcd.conf:7: why: what to do"),
        ("a b", "/etc/calcd.conf:7", "/etc/calcd.conf:7: 'a b': why: what to do"),
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
