"""What a program may send before its first line, or in place of it.

Editors and shells put a byte order mark before text. A web page can make a browser send HTTP to
any port of its user's machine, and the lines of the body would be requests (cross-protocol
attack). A PROXY header (HAProxy's PROXY protocol, versions 1 and 2) names the client of a proxy;
its bytes are no requests either.
"""

import re

from calcd.core.closing import CloseReason

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
FIRST_BYTES = BYTE_ORDER_MARK[:1] + PROXY_SIGNATURE[:1]

_PROXY_LINE = re.compile(r"PROXY (?:TCP4|TCP6|UNKNOWN)(?: .*)?", re.DOTALL)  # of version 1
# RFC 9112, section 3: a method, a target in one of its forms, a version. The preface of HTTP/2 has
# this form too. "UPPER text HTTP/1.1" does not: such a target has no slash or colon.
_HTTP_LINE = re.compile(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]++ (?:/[^ ]*+|\*|[^ /:]++:[^ ]*+) HTTP/[0-9]\.[0-9]"
)
# The method has at least three letters: PI /2 is an expression.
_HTTP_START = re.compile(r"[A-Z]{3,} (?:/|\*|[^ :]*+:)")


def is_incomplete(start: bytes) -> bool:
    """Return whether these first bytes become a mark or a signature, if the right ones follow."""
    return any(
        len(start) < len(whole) and whole.startswith(start)
        for whole in (BYTE_ORDER_MARK, PROXY_SIGNATURE)
    )


def may_become_http(line: str) -> bool:
    """Return whether the beginning of a first line may go on as one of HTTP's."""
    return _HTTP_START.match(line) is not None and not _HTTP_LINE.fullmatch(line)


def may_be_foreign(text: str) -> bool:
    """Return whether a text may have a line of another protocol."""
    return "HTTP/" in text or "PROXY" in text


def foreign_protocol(line: str) -> CloseReason | None:
    """Return why a first line, without its end, ends the session: it is of another protocol."""
    if _HTTP_LINE.fullmatch(line):
        return CloseReason.HTTP
    return CloseReason.PROXY_HEADER if _PROXY_LINE.fullmatch(line) else None
