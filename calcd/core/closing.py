"""Why a session ends, and what its client is told if that is an error."""

import enum

from calcd.core.errors import RequestError


class CloseReason(enum.Enum):
    """Why a session ended. The values are the words of the log."""

    CLOSED = "closed"  # end of input
    QUIT = "quit"
    CTRL_D = "ctrl-d"
    INTERRUPTED = "interrupted"  # by telnet's Interrupt Process
    LINE_TOO_LONG = "line-too-long"
    LINE_TIMEOUT = "line-timeout"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    TLS_ERROR = "tls-error"
    HTTP = "http"  # the first line is an HTTP request
    PROXY_HEADER = "proxy-header"


ERRORS = {  # ``max_line`` is for the braces
    CloseReason.LINE_TOO_LONG: RequestError("LINE-TOO-LONG", "a line has at most {} bytes"),
    CloseReason.LINE_TIMEOUT: RequestError(
        "TIMEOUT", "the line was not completed in time: end it with a newline"
    ),
    CloseReason.HTTP: RequestError("FORBIDDEN", "this is not an HTTP server"),
    CloseReason.PROXY_HEADER: RequestError("FORBIDDEN", "a PROXY header is not accepted here"),
}
