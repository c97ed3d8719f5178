"""The client's side of the protocol: count requests and replies, split replies, track state."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CHUNK = 65536  # bytes read at once, in each direction
# Bytes. The longest line has 1 MiB, and UPPER turns one byte into 3 at most.
MAX_REPLY = 4 << 20
MAX_NUMBER = 4096  # bytes of a line that a server compares with its own replies
MAX_TIMEOUT = 1e6  # seconds; the limit of poll() is twice as many
CLOSED = "connection closed by the server"
UNEXPECTED = "the server has sent more than was asked for"
TLS_ALERT = "the server replied with a TLS alert"
STATE_LOST = "a new connection has none of the names, settings and answers of the one before"
# Commands that change a setting of the connection if they have an operand, without accents.
SETTINGS = (
    *("PRECISION", "PRECISAO", "ROUNDING", "ARREDONDAMENTO", "EXACT", "EXATO", "EXACTO"),
    *("NOTATION", "NOTACAO", "LANGUAGE", "IDIOMA"),
)
CLEARS = ("CLEAR", "LIMPAR")
# What makes a request depend on the last answer: its name, or an operator at the start.
CONTINUES = r"\bans\b|^[ \t]*+=?[ \t]*+(?:[*/^×÷]|mod\b)"
# What makes no request by itself: blanks, NUL, the bytes of a byte order mark. `translate` deletes
# these and makes each other byte but the newline an x. A request that is not blank starts with x.
BLANKS = b" \t\r\0\xef\xbb\xbf"
NUMBER_BYTES = b"0123456789.eE+-\n" + BLANKS
MARKS = bytes(byte if byte == ord("\n") else ord("x") for byte in range(256))


class UsageError(Exception):
    """The command line is wrong. Exit status 2."""


class ClientError(Exception):
    """The run ended before every request had its reply. Exit status 3.

    Its cause is the error of the standard library, if there was one.
    """


def describe(error: Exception) -> str:
    """Return what went wrong. The words of the system and of OpenSSL are in lower case."""
    if reason := getattr(error, "reason", None):  # set by OpenSSL
        return str(reason).replace("_", " ").lower()
    if text := getattr(error, "strerror", None):
        return str(text).lower()
    return str(error)


def is_tls_alert(data: bytes) -> bool:
    """Return whether this begins with a TLS alert that is not encrypted (RFC 8446, 5.1 and 6).

    That is what a TLS server replies to plain text. It may hold a newline.
    """
    return data[:2] == b"\x15\x03" and data[3:5] == b"\0\2" and data[5:6] in (b"\1", b"\2")


def is_number(request: bytes) -> bool:
    """Return whether a request is a number as a server prints it, and nothing else."""
    if len(request) > MAX_NUMBER or request.translate(None, NUMBER_BYTES):  # such as inf, 1_000
        return False
    try:
        float(request)
    except ValueError:
        return False
    return True


def without_accents(text: str) -> str:
    """Return a text without the accents of its letters, as servers read names."""
    if text.isascii():
        return text
    from unicodedata import combining, normalize

    return "".join(each for each in normalize("NFD", text) if not combining(each))


class ReplyCounter:
    """Counts requests and replies chunk by chunk. A chunk may end anywhere."""

    def __init__(self) -> None:
        self.requests = self.replies = 0
        self.bytes_sent = 0
        self.errors = False  # at least one reply was an ERR
        self._marks = self._tail = b"\n"  # the end of the last chunk

    def add_requests(self, chunk: bytes) -> None:
        """Count the requests that start in a chunk sent to the server."""
        marks = self._marks + chunk.translate(MARKS, BLANKS)
        self.requests += marks.count(b"\nx")
        self.bytes_sent += len(chunk)
        self._marks = marks[-1:]

    def add_replies(self, chunk: bytes) -> None:
        """Count the replies that end in a chunk received from the server."""
        replies = self._tail + chunk
        self.replies += chunk.count(b"\n")
        self.errors = self.errors or b"\nERR " in replies
        self._tail = replies[-len("\nERR") :]

    def exit_status(self, server: str, reason: str, hint: str = "") -> int:
        """Return the exit status at the end of a connection: 1 after an ERR, else 0.

        Raise ClientError with the reason for the end if a request has no reply. The hint is added
        if there was no reply at all.
        """
        if self.replies < self.requests:
            missing = f"{self.requests - self.replies} of {self.requests}"
            hint = "" if self.replies else hint
            raise ClientError(f"{server}: {reason}; requests without a reply: {missing}{hint}")
        return int(self.errors)

    def close(self) -> None:
        """Do nothing. `Progress` finishes its line here."""


class ReplySplitter:
    """Splits a stream into the number of replies that is expected. A chunk may end anywhere."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.rest = bytearray()  # the start of a reply
        self.started = False  # has received anything

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the replies that end in a chunk, without their newlines.

        Raise ConnectionAbortedError if a reply is too long, if there are too many, or if there is a
        TLS alert in place of the first.
        """
        if not self.started and is_tls_alert(chunk):
            raise ConnectionAbortedError(TLS_ALERT)
        self.started = True
        first, *others = chunk.split(b"\n")
        self.rest += first
        if len(self.rest) > MAX_REPLY:  # the others are parts of one chunk
            raise ConnectionAbortedError(f"a reply has more than {MAX_REPLY} bytes")
        replies = [bytes(self.rest), *others[:-1]] if others else []
        if others:
            self.rest = bytearray(others[-1])
        self.expected -= len(replies)
        if self.expected < 0 or (self.rest and not self.expected):
            raise ConnectionAbortedError(UNEXPECTED)
        return replies


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
            self.names[name] = None
            return
        command, *operands = without_accents(request.upper()).split(None, 1) or [""]
        if command in CLEARS:
            self.names.clear()
        elif command in SETTINGS and operands:
            self._settings_changed = True

    def affects(self, requests: "Iterable[str]") -> bool:
        """Return True if the replies to these requests may depend on the state."""
        import re

        if self.has_settings:
            return True
        text = "\n".join(requests)
        return self._has_answer and bool(re.search(CONTINUES, text, re.IGNORECASE | re.MULTILINE))
