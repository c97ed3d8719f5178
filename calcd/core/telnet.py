"""Strip telnet commands from a stream of bytes (RFC 854, RFC 855).

calcd does not negotiate options; telnet clients work without. But what they send by themselves
(Ctrl-C is ``IAC IP IAC DO TIMING-MARK``) must not become part of the next line. A client that sends
each character as it is typed sends CR NUL for Enter.
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
    rb")?",  # not a command: drop IAC alone, since the byte after it may be a newline
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
        self._held_return = b""  # a CR that NUL or LF may follow

    def strip(self, data: bytes) -> bytes:
        """Return ``data`` without commands; IAC IAC becomes one byte 255, CR NUL becomes CRLF."""
        before = b""
        if not self.active:  # before the first IAC it may be any client
            before, iac, after = data.partition(IAC)
            self.active, data = iac != b"", iac + after
        text = self._held_return + self._strip_commands(self.held + data)
        self._held_return = b"\r" if text.endswith(b"\r") else b""
        return before + text.removesuffix(b"\r").replace(b"\r\0", b"\r\n")

    def _strip_commands(self, data: bytes) -> bytes:
        self.held = b""
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
