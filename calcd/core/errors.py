"""Errors, and how text from a client is shown in them."""

from collections.abc import Callable

MAX_SHOWN = 40  # characters of a client's text that an error or a log line repeats


class RequestError(Exception):
    """A request without a result.

    ``code`` is for programs and never changes. ``template`` is for people: English, may be
    translated, with braces for ``arguments``. An argument that is a tuple has words, each of which
    is translated by itself. ``str()`` is the reply in English without its line end.
    """

    def __init__(self, code: str, template: str, *arguments: object) -> None:
        super().__init__(code, template, *arguments)
        self.code = code
        self.template = template
        self.arguments = arguments

    def __str__(self) -> str:
        return self.reply(str)

    def reply(self, translate: Callable[[str], str]) -> str:
        """Return the reply without its line end; ``translate`` is called with all its words."""
        arguments = [
            " ".join(map(translate, each)) if isinstance(each, tuple) else each
            for each in self.arguments
        ]
        return f"ERR {self.code} {translate(self.template).format(*arguments)}"


def printable(text: str) -> str:
    r"""Return text from outside in quotes, in printable ASCII, cut to ``MAX_SHOWN`` characters.

    A client's text has one character for each byte (latin-1), so ``é`` in UTF-8 becomes
    ``\xc3\xa9``. Nothing a client sends can move a terminal's cursor or forge a log line.
    """
    cut = "..." if len(text) > MAX_SHOWN else ""
    return f"'{text[:MAX_SHOWN].encode('unicode_escape').decode('ascii')}{cut}'"
