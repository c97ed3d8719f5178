"""What can go wrong, and how a client's own words are shown when it does."""

from collections.abc import Callable

SHOWN = 40  # characters of a client's text that an error or a log line repeats


class RequestError(Exception):
    """A request that has no result: ``code`` is stable, ``words`` are for a person.

    ``words`` are a template in English, which may be translated, and what its braces stand for.
    As text the error is the reply in English, without its line end.
    """

    def __init__(self, code: str, template: str, *shown: object) -> None:
        super().__init__(code, template, *shown)
        self.code = code
        self.template = template
        self.shown = shown

    def __str__(self) -> str:
        return self.reply(str)

    def reply(self, translated: Callable[[str], str]) -> str:
        """Give the reply, its words translated, without its line end."""
        shown = [translated(each) if isinstance(each, Word) else each for each in self.shown]
        return f"ERR {self.code} {translated(self.template).format(*shown)}"


class Word(str):
    """Something that an error shows, and that is translated as its template is."""

    __slots__ = ()


def quoted(text: str) -> str:
    r"""Show what somebody sent or wrote: in quotes, in printable ASCII, cut to ``SHOWN``.

    A client's text has one character for each byte (latin-1), so its ``é`` in UTF-8 is shown
    as ``\xc3\xa9``: nothing a client sends can move a terminal's cursor or forge a log line.
    """
    cut = "..." if len(text) > SHOWN else ""
    return f"'{text[:SHOWN].encode('unicode_escape').decode('ascii')}{cut}'"


class StartError(Exception):
    """The daemon cannot run; as text, one line that says why, and what to do."""
