"""Errors in the settings, and in the things that settings name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from calcd.core.errors import MAX_SHOWN, printable


class ConfigError(Exception):
    """A setting, or the file, address or account that it names, cannot be used.

    ``setting`` is its name, or None. ``source`` is where it is set: ``FILE:LINE``, a command-line
    option or None. ``reason`` says what is wrong, ``hint`` what to do. As text: all in one line.
    """

    def __init__(
        self, reason: str, hint: str = "", *, setting: str | None = None, source: str | None = None
    ) -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint
        self.setting = setting
        self.source = source

    def __str__(self) -> str:
        is_option = self.source is not None and self.source.startswith("--")
        name = "" if self.setting is None or is_option else _shown(self.setting)
        return ": ".join(part for part in (self.source, name, self.reason, self.hint) if part)

    def locate(self, sources: Mapping[str, str]) -> None:
        """Set ``source`` from a table of settings' sources, unless it is known."""
        if self.source is None and self.setting is not None:
            self.source = sources.get(self.setting)


class SettingsError(Exception):
    """Settings that are wrong: ``errors`` holds a ``ConfigError`` for each fault."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


@contextmanager
def wrong_settings(sources: Mapping[str, str]) -> Iterator[None]:
    """Turn a ``ConfigError`` of the block into a ``SettingsError`` with its source.

    For settings that no restart can make right. ``sources`` is a table of settings' sources.
    """
    try:
        yield
    except ConfigError as error:
        error.locate(sources)
        raise SettingsError([error]) from None


def _shown(name: str) -> str:
    return name if name.isidentifier() and len(name) <= MAX_SHOWN else printable(name)
