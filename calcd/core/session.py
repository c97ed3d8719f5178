"""One client's conversation: bytes in, bytes out, and no I/O in between."""

import re
from typing import Any

from calcd.core.commands import BY_NAME
from calcd.core.decimal128 import Arithmetic, TooDearError
from calcd.core.errors import RequestError
from calcd.core.expressions import UnfinishedError, parse
from calcd.core.interpreter import CALL, LINE_LIMIT, Answers, expression_in
from calcd.core.operations import split_request
from calcd.core.telnet import IAC, TelnetFilter

_LF = ord("\n")
_CTRL_D = b"\x04"
_CTRL_D_FIRST = re.compile(rb"^\x04", re.MULTILINE)

# Of these bytes alone (no n, so neither nan nor inf; no underscore; no control characters)
# str.split() finds the fields that the grammar means, and decimal takes the numbers that it
# means: one test of a whole read stands for one of each operand.
_PLAIN = b"0123456789+-.eE \t\r\n" + b"SOMAUBLDIV" + b"somaubldiv"


_TELNET_PIECE = 512  # bytes that are stripped of telnet commands before others have their turn
_TELNET_COST = 8  # of each command, in units of work
_TELNET_BYTE_COST = 0.1
_LONG = 1 << 17  # bytes of lines that are not looked through to find them plain


class Session(Answers):
    """Answers one client's requests; knows nothing of sockets, threads or the time.

    ``receive`` is given what each read brought and returns what is to be sent. The shell round
    it looks at ``finished``, ``started``, ``line_ends`` and ``complete`` to decide how long to
    wait for more, and calls ``keep_silence`` or ``time_out`` when that time is over.

    No call takes long. What is left over is ``pending``: then, before anything else is done,
    ``go_on`` is to be called until nothing is. Where that is ``expensive``, such a call may take
    as long as a line may.

    What it is made with is told at ``Answers``.
    """

    def __init__(self, *made_with: Any, **named: Any) -> None:
        super().__init__(*made_with, **named)
        self._line = bytearray()  # the one that has no end yet
        self._telnet = TelnetFilter()
        self._input = b""  # of the last read, not looked at yet
        self._started = False  # whether the line has more than blanks
        self._in_one_piece = False  # whether a single read brought all of it
        self._complete: bool | None = None  # None: not known yet
        self._ending = ""  # how the session ends once the whole lines are answered

    @property
    def line(self) -> bytes:
        """The line that has no end yet; ``line_ends`` tells if it is the same one."""
        return bytes(self._line)

    @property
    def started(self) -> bool:
        """Whether a line was started, and not with blanks alone, that has no end yet."""
        return self._started

    @property
    def pending(self) -> bool:
        """Whether something that has come is still to be answered."""
        return bool(self.unanswered or self._input)

    @property
    def complete(self) -> bool:
        """Whether a whole request is there that only lacks its newline.

        A client that never sends one sends its request in one piece. Once a client has sent a
        newline it is known to end its lines, and the start of one is never a request.
        """
        if self.line_ends or not self._started or not self._in_one_piece:
            return False
        if self._complete is None:  # a long line takes a while to look through
            self._complete = _is_complete(self._line.decode("latin-1"))
        return self._complete

    def receive(self, data: bytes, limit: int = CALL) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return the replies.

        ``limit`` is the work that may be done for it, in units of ``Operation.cost``.
        """
        if self.finished:
            return b""
        self._start(limit)
        if not data:
            return self._end_input()
        return self._take(data)

    def go_on(self, limit: int = CALL) -> bytes:
        """Answer more of what is pending; return the replies.

        A first line that is ``expensive`` may take all of its time, whatever the ``limit``.
        """
        self._start(limit, self.expensive)
        return self._go_on()

    def keep_silence(self) -> bytes:
        """Answer the started line as it stands: its client waits."""
        self._start()
        return self._answer_started_line()

    def time_out(self) -> bytes:
        """Give up a started line that was not finished in time."""
        self.finished = "line-timeout"
        self.requests += 1
        reply = self._fail("TIMEOUT", "the line was not finished in time: end it with a newline")
        return (reply + "\n").encode("latin-1")

    def farewell(self) -> bytes:
        """Give what is to be sent last of all, however the connection ends."""
        return b""

    def _take(self, data: bytes) -> bytes:
        """Take what a read brought, within the work of this call."""
        within = self._line or self._telnet.active
        if not within and data[-1] == _LF and not data.translate(None, _PLAIN):
            # Whole lines, and bytes that mean nothing but themselves: nothing is to be unwrapped.
            return self._answer_lines(data.decode("latin-1"), True).encode("latin-1")
        if IAC not in data and not self._telnet.active:
            return (self._take_text(data, False) + self._end_read()).encode("latin-1")
        return self._take_telnet(data, False)

    def _go_on(self) -> bytes:
        lines, self.unanswered = self.unanswered, ""
        replies = self._answer_lines(lines, self._plain) if lines else ""
        data, self._input = self._input, b""
        if self.finished:
            data = b""
        if data and (self.unanswered or self._spent):
            self._input, data = data, b""
        if data:
            return replies.encode("latin-1") + self._take_telnet(data, True)
        return (replies + self._end_read()).encode("latin-1")

    def _take_telnet(self, data: bytes, same_read: bool) -> bytes:
        """Take what may have telnet commands in it, piece by piece: each takes its time."""
        replies = ""
        begin = 0
        while begin < len(data) and not (self._ending or self.unanswered or self.finished):
            if begin and self._spent:
                break
            piece = data[begin : begin + _TELNET_PIECE]
            begin += len(piece)
            commands = 1 + piece.count(IAC)
            self.arithmetic.work += _TELNET_COST * commands + _TELNET_BYTE_COST * len(piece)
            text = self._telnet.strip(piece)
            if self._telnet.interrupted:
                self._ending = "interrupted"
            if text:  # a telnet's sign of life is no piece of a line
                replies += self._take_text(text, same_read)
            same_read = True
        self._input = b"" if self._ending or self.finished else data[begin:]
        return (replies + self._end_read()).encode("latin-1")

    def _take_text(self, data: bytes, same_read: bool) -> str:
        """Take text; ``same_read``: the read that brought it has brought some before."""
        if _CTRL_D in data:
            # At the start of a line, which the text may begin in the middle of.
            found = _CTRL_D_FIRST.search(data, 1 if self._line else 0)
            if found:
                data, self._ending = data[: found.start()], "ctrl-d"
        cut = data.rfind(b"\n") + 1
        if not same_read or cut:
            self._in_one_piece = cut > 0 or not self._started
        self._complete = None
        whole, rest = (bytes(self._line) + data[:cut], data[cut:]) if cut else (b"", data)
        if cut:
            self._line.clear()
            self._started = False
        self._line += rest
        self._started = self._started or rest.strip(b" \t") != b""
        if not whole:
            return ""
        plain = len(whole) <= _LONG and not whole.translate(None, _PLAIN)
        return self._answer_lines(whole.decode("latin-1"), plain)

    def _end_input(self) -> bytes:
        self._ending = "closed"
        if not self._line:
            self.finished = "closed"
            return b""
        return self._answer_started_line()

    def _end_read(self) -> str:
        """Do what follows the whole lines of a read, once they are answered."""
        if self.unanswered or self._input or self.finished:
            return ""
        self.finished = self._ending
        length = len(self._line)
        if length > self._max_line and length - self._line.endswith(b"\r") > self._max_line:
            return self._line_too_long()
        return ""

    def _answer_started_line(self) -> bytes:
        line = self._line.decode("latin-1")
        self._line.clear()
        self._started = False
        return (self._answer_lines(line, False) + self._end_read()).encode("latin-1")


def _is_complete(request: str) -> bool:
    """Say whether a line is a whole request, or an error whatever follows."""
    name, rest = split_request(request)
    if (begin := expression_in(request, name, rest)) >= 0:
        arithmetic = Arithmetic()
        arithmetic.most = LINE_LIMIT
        try:
            parse(request, begin, arithmetic)
        except UnfinishedError:
            return False
        except (RequestError, TooDearError):
            return True
        return True
    operation = BY_NAME.get(name.upper())
    if operation is None:  # an error whatever follows, once the name has ended
        return rest != ""
    return len(operation.split(rest)) >= operation.min_operands
