"""Telnet commands in a byte stream, stripped (RFC 854, RFC 855). No I/O.

calcd never negotiates; a telnet client works without. But what such a client sends by itself
(Ctrl-C is ``IAC IP IAC DO TIMING-MARK``) must not stick to the next line; and one that sends
characters as they are typed sends CR NUL for Enter.
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
    """Takes bytes as they come and gives back those that are text.

    Until the first IAC there is nothing to do; ``active`` says whether it has come.
    """

    def __init__(self) -> None:
        self.active = False
        self.interrupted = False  # IAC IP came: what followed it is dropped
        self.held = b""  # a command that the last read cut in two
        self._held_return = b""  # a CR whose NUL or LF may be still to come

    def strip(self, data: bytes) -> bytes:
        """Return ``data`` less its commands; IAC IAC is one byte 255, and CR NUL is CRLF."""
        before = b""
        if not self.active:  # the client shows only now that it is a telnet
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
                # Not what a subnegotiation says: nobody asks for it, and it may have no end.
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
    """Return where the command that begins at ``at`` ends; -1 if the rest is yet to come."""
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
    return at + 1  # no command: IAC goes alone, lest a newline be lost with it
