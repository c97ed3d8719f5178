"""Strip telnet commands from a stream of bytes (RFC 854, RFC 855).

calcd does not negotiate options; telnet clients work without. But what they send by themselves
(Ctrl-C is ``IAC IP IAC DO TIMING-MARK``) must not become part of the next line. A client that sends
each character as it is typed sends CR NUL for Enter.
"""

import re

IAC = b"\xff"
_IP = 0xF4
_SB = 0xFA
_NEGOTIATION = range(0xFB, 0xFF)  # WILL, WONT, DO, DONT: an option byte follows
_COMMANDS = range(0xEC, 0xFA)  # EOF (RFC 1184) to GA: nothing follows
_CONTENT = re.compile(rb"(?:[^\xff]++|\xff[^\xf0])*+", re.DOTALL)  # of a subnegotiation
_SUBNEGOTIATION = re.compile(_CONTENT.pattern + rb"\xff\xf0", re.DOTALL)


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
        start = 0
        while (at := data.find(IAC, start)) >= 0:
            text += data[start:at]
            start = _end_of_command(data, at)
            if start < 0:
                # Without the content of a subnegotiation: it is not used, and may be endless.
                self.held = data[at : at + 2] + _CONTENT.sub(b"", data[at + 2 :], count=1)
                return bytes(text)
            command = data[at + 1]
            if command == _IP:
                self.interrupted = True
                return bytes(text)
            if command == IAC[0]:
                text += IAC
        return bytes(text + data[start:])


def _end_of_command(data: bytes, at: int) -> int:
    """Return where the command at ``at`` ends; -1 if more bytes are needed."""
    if at + 1 == len(data):
        return -1
    command = data[at + 1]
    if command == _SB:
        found = _SUBNEGOTIATION.match(data, at + 2)
        return found.end() if found else -1
    if command in _NEGOTIATION:
        return at + 3 if at + 2 < len(data) else -1
    if command in _COMMANDS or command == IAC[0]:
        return at + 2
    return at + 1  # not a command: drop IAC alone, since the byte after it may be a newline
