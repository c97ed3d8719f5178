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
    PROXY_HEADER = "proxy-header"  # from an address that none is accepted from
    NO_PROXY_HEADER = "no-proxy-header"  # from a proxy, which must send one
    BAD_PROXY_HEADER = "bad-proxy-header"
    PROXY_HEADER_TIMEOUT = "proxy-header-timeout"
    BUSY = "busy"  # a limit is reached for the client that a PROXY header names
    FORBIDDEN = "forbidden"  # that client may not connect


ERRORS = {  # ``max_line`` is for the braces
    CloseReason.LINE_TOO_LONG: RequestError("LINE-TOO-LONG", "a line has at most {} bytes"),
    CloseReason.LINE_TIMEOUT: RequestError(
        "TIMEOUT", "the line was not completed in time: end it with a newline"
    ),
    CloseReason.HTTP: RequestError("FORBIDDEN", "this is not an HTTP server"),
    CloseReason.PROXY_HEADER: RequestError("FORBIDDEN", "a PROXY header is not accepted here"),
    CloseReason.NO_PROXY_HEADER: RequestError(
        "FORBIDDEN", "a connection from this proxy must begin with a PROXY header"
    ),
    CloseReason.PROXY_HEADER_TIMEOUT: RequestError(
        "TIMEOUT", "the PROXY header was not completed in time"
    ),
}
