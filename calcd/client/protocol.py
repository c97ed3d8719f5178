"""What all parts of the client know of the protocol: its bytes, sizes, words and errors."""

CHUNK = 65536  # bytes read at once, in each direction
# Bytes. The longest line has 1 MiB, and UPPER turns one byte into 3 at most.
MAX_REPLY = 4 << 20
MAX_TIMEOUT = 1e6  # seconds; the limit of poll() is twice as many
ERROR = b"ERR "  # what a reply starts with that is no result
NO_ANSWER = b"ERR UNKNOWN-NAME ANS "  # starts the reply to `ans` where there is no last answer
CLOSED = "connection closed by the server"
TOO_LONG = f"a reply has more than {MAX_REPLY} bytes"
UNEXPECTED = "the server has sent more than was asked for"
TLS_ALERT = "the server replied with a TLS alert"
STATE_LOST = "a new connection has none of the names, settings and answers of the one before"
QUIT = ("QUIT", "EXIT", "SAIR")
# What a server sends that does not serve this client. It closes then, and has read no request.
REFUSALS = (b"ERR BUSY", b"ERR FORBIDDEN")
# What makes no request by itself: blanks, NUL, the bytes of a byte order mark.
IGNORED = b" \t\r\0\xef\xbb\xbf"
DIGITS = b"0123456789.eE+-"  # what numbers are made of


class UsageError(Exception):
    """The command line is wrong. Exit status 2."""


class ClientError(Exception):
    """The run ended before every request had its reply. Exit status 3.

    Its cause is the error of the standard library, if there was one.
    """


class UnknownHostError(ClientError):
    """The name of the server does not resolve."""


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


def is_number(text: bytes) -> bool:
    """Return whether a text is a number, and nothing else."""
    if text.translate(None, DIGITS):  # such as inf, 1_000
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_error(reply: bytes) -> bool:
    """Return whether a reply is an ERR."""
    return reply.startswith(ERROR)


def without_accents(text: str) -> str:
    """Return a text without the accents of its letters, as servers read names."""
    if text.isascii():
        return text
    from unicodedata import combining, normalize

    return "".join(each for each in normalize("NFD", text) if not combining(each))


def is_quit(request: str) -> bool:
    """Return whether a request asks the server to end the connection."""
    return request.strip(" \t").upper() in QUIT
