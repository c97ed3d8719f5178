"""Strip telnet commands from a stream of bytes (RFC 854, RFC 855).

calcd does not negotiate options; telnet clients work without. But what they send by themselves
(Ctrl-C is ``IAC IP IAC DO TIMING-MARK``) must not become part of the next line.
"""

import re

IAC = b"\xff"
_CONTENT = rb"(?:[^\xff]++|\xff[^\xf0])*+"  # of a subnegotiation
_COMMAND = re.compile(
    rb"\xff(?:"
    rb"(?P<byte>\xff)|"
    rb"(?P<interrupt>\xf4)|"
    rb"[\xec-\xf9]|"  # EOF (RFC 1184) to GA: nothing follows
    rb"[\xfb-\xfe].|"  # WILL, WONT, DO, DONT: an option byte follows
    rb"\xfa" + _CONTENT + rb"\xff\xf0|"
    rb"(?P<unfinished>[\xfb-\xfe]?\Z|\xfa" + _CONTENT + rb"(?P<end>\xff?)\Z)"
    rb")",  # else it is no command, and a byte of the text
    re.DOTALL,
)


class TelnetFilter:
    """Strips the commands from the bytes of successive reads.

    Until the first IAC there is nothing to do; ``active`` tells whether there was one.
    """

    def __init__(self) -> None:
        self.active = False
        self.interrupted = False  # by IAC IP; the bytes after it are dropped
        self.held = b""  # the start of a command that the last read cut in two

    def strip(self, data: bytes) -> bytes:
        """Return ``data`` without commands; IAC IAC becomes one byte 255."""
        self.active = self.active or IAC in data
        data, self.held = self.held + data, b""
        text = bytearray()
        end = 0
        for found in _COMMAND.finditer(data):
            text += data[end : found.start()]
            end = found.end()
            kind = found.lastgroup
            if kind == "byte":
                text += IAC
            elif kind == "interrupt":
                self.interrupted = True
                return bytes(text)
            elif kind == "unfinished":
                # Without the content of a subnegotiation: it is not used, and may be endless.
                self.held = IAC + found["unfinished"][:1] + (found["end"] or b"")
        return bytes(text + data[end:])

    def flush(self) -> bytes:
        """Return a last IAC that nothing follows: it is no command."""
        if self.held != IAC:
            return b""
        self.held = b""
        return IAC
