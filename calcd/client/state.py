"""The state that requests leave on the server, as far as a client can tell it."""

from calcd.client.protocol import without_accents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_START = 4096  # bytes of a line that tell what it changes
# Commands that change a setting of the connection if they have an operand, without accents.
SETTINGS = (
    *("PRECISION", "PRECISAO", "ROUNDING", "ARREDONDAMENTO", "EXACT", "EXATO", "EXACTO"),
    *("NOTATION", "NOTACAO", "LANGUAGE", "IDIOMA"),
)
CLEARS = ("CLEAR", "LIMPAR")
# Bytes of which one is in each line that may change names or settings and is in ASCII.
CHANGES = (
    *(b"=", b"PRECIS", b"ROUNDING", b"ARREDONDA", b"EXACT", b"EXATO"),
    *(b"NOTA", b"LANGUAGE", b"IDIOMA", *(name.encode() for name in CLEARS)),
)
MAX_NAMES = 100  # that a server keeps for one connection
# What makes a request depend on the last answer: its name, or an operator at the start.
CONTINUES = r"\bans\b|^[ \t]*+=?[ \t]*+(?:[*/^×÷]|mod\b)"


class SessionState:
    """The state that requests have left on the server, which lasts as long as the connection."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, as the server does for a new connection."""
        self.names: dict[str, None] = {}  # in the order of their assignment
        self._settings_changed = False
        self._has_answer = False

    @property
    def has_settings(self) -> bool:
        """Return whether names or settings would be lost with the connection."""
        return bool(self.names) or self._settings_changed

    def record(self, request: str, reply: str) -> None:
        """Record what a request has changed, given its reply."""
        if reply.startswith("ERR "):
            return
        self._has_answer = True
        name, _, value = request.partition("=")
        name = name.strip(" \t")
        if name.isidentifier() and value.strip() and not value.startswith("="):
            if len(self.names) < MAX_NAMES:
                self.names[name] = None
            return
        command, *operands = without_accents(request.upper()).split(None, 1) or [""]
        if command in CLEARS:
            self.names.clear()
        elif command in SETTINGS and operands:
            self._settings_changed = True

    def affects(self, requests: "Iterable[str]") -> bool:
        """Return True if the replies to these requests may depend on the state."""
        return self.has_settings or (self._has_answer and continues("\n".join(requests)))


def continues(text: str) -> bool:
    """Return whether any of these lines may depend on the last answer."""
    import re

    return bool(re.search(CONTINUES, text, re.IGNORECASE | re.MULTILINE))


class StreamState(SessionState):
    """The state that a stream of requests may have left, as far as the requests alone tell it."""

    def __init__(self) -> None:
        super().__init__()
        self._cut = b""  # a line that goes on in the next chunk; its start alone tells

    def end_line(self) -> None:
        """End the last line: it had its reply without a newline."""
        if self._cut:
            self.add(b"\n")

    def add(self, chunk: bytes) -> None:
        """Record the requests of a chunk, which may end anywhere."""
        lines, _, rest = (self._cut + chunk).rpartition(b"\n")
        self._cut = rest[:MAX_START]
        upper = lines.upper()
        if upper.isascii() and not any(change in upper for change in CHANGES):
            return  # most chunks: to look at each line would cost more than all the rest
        for line in lines.split(b"\n"):
            self.record(line.decode(errors="replace"), "")
