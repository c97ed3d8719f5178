"""What can go wrong, and how a client's own words are shown when it does."""

SHOWN = 40  # characters of a client's text that an error or a log line repeats


class RequestError(Exception):
    """A request that has no result: ``code`` is stable, ``words`` are for a person.

    As text it is the reply, without its line end.
    """

    def __init__(self, code: str, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def __str__(self) -> str:
        return f"ERR {self.code} {self.words}"


def quoted(text: str) -> str:
    r"""Show what somebody sent or wrote: in quotes, in printable ASCII, cut to ``SHOWN``.

    A client's text has one character for each byte (latin-1), so its ``é`` in UTF-8 is shown
    as ``\xc3\xa9``: nothing a client sends can move a terminal's cursor or forge a log line.
    """
    cut = "..." if len(text) > SHOWN else ""
    return f"'{text[:SHOWN].encode('unicode_escape').decode('ascii')}{cut}'"


class StartError(Exception):
    """The daemon cannot run; as text, one line that says why, and what to do."""
