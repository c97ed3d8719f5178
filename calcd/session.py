"""One client's conversation: bytes in, bytes out, and no I/O in between."""

import re
from typing import Any

from calcd.answers import Answers, expression_in
from calcd.arithmetic import Arithmetic
from calcd.commands import BY_NAME
from calcd.errors import RequestError
from calcd.expressions import UnfinishedError, parse
from calcd.operations import split_request
from calcd.telnet import IAC, TelnetFilter

_LF = ord("\n")
_CTRL_D = b"\x04"
_CTRL_D_FIRST = re.compile(rb"^\x04", re.MULTILINE)

# Of these bytes alone (no n, so neither nan nor inf; no underscore; no control characters)
# str.split() finds the fields that the grammar means, and decimal takes the numbers that it
# means: one test of a whole read stands for one of each operand.
_PLAIN = b"0123456789+-.eE \t\r\n" + b"SOMAUBLDIV" + b"somaubldiv"


class Session(Answers):
    """Answers one client's requests; knows nothing of sockets, threads or the time.

    ``receive`` is given what each read brought and returns what is to be sent. The shell round
    it looks at ``finished``, ``line``, ``started``, ``line_ends`` and ``complete`` to decide how
    long to wait for more, and calls ``keep_silence`` or ``time_out`` when that time is over.

    No call takes long. What would is left ``unanswered``: then, before anything else is done,
    ``go_on`` is to be called until it is not; one such call may take as long as a line may.

    What it is made with is told at ``Answers``.
    """

    def __init__(self, *made_with: Any, **named: Any) -> None:
        super().__init__(*made_with, **named)
        self.line = b""  # the one that has no end yet; ``line_ends`` tells if it is the same one
        self._telnet = TelnetFilter()
        self._in_one_piece = False  # whether a single read brought all of it
        self._ending = ""  # how the session ends once the whole lines are answered

    @property
    def started(self) -> bool:
        """Whether a line was started, and not with blanks alone, that has no end yet."""
        return self.line.strip(b" \t") != b""

    @property
    def complete(self) -> bool:
        """Whether a whole request is there that only lacks its newline.

        A client that never sends one sends its request in one piece. Once a client has sent a
        newline it is known to end its lines, and the start of one is never a request.
        """
        if self.line_ends or not self._in_one_piece:
            return False
        request = self.line.decode("latin-1")
        name, rest = split_request(request)
        if (begin := expression_in(request, name, rest)) >= 0:
            try:
                parse(request, begin, Arithmetic())
            except UnfinishedError:
                return False
            except RequestError:  # an error, whatever follows
                return True
            return True
        operation = BY_NAME.get(name.upper())
        if operation is None:  # an error whatever follows, once the name has ended
            return rest != ""
        return len(operation.split(rest)) >= operation.least

    def receive(self, data: bytes) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return the replies."""
        if self.finished:
            return b""
        if not data:
            self._ending = "closed"
            if not self.line:
                self.finished = "closed"
                return b""
            return self._answer_started_line()
        within = self.line or self._telnet.active
        if not within and data[-1] == _LF and not data.translate(None, _PLAIN):
            # Whole lines, and bytes that mean nothing but themselves: nothing is to be unwrapped.
            return self._answer_lines(data.decode("latin-1"), True).encode("latin-1")
        if IAC in data or self._telnet.active:
            data = self._telnet.strip(data)
        self._ending = "interrupted" if self._telnet.interrupted else ""
        block = self.line + data if self.line else data
        if _CTRL_D in block and (found := _CTRL_D_FIRST.search(block)):
            block, self._ending = block[: found.start()], "ctrl-d"
        cut = block.rfind(b"\n") + 1
        if data:  # a telnet's sign of life is no piece of a line
            self._in_one_piece = cut > 0 or not self.started
        self.line = block[cut:]
        replies = ""
        if cut:
            whole = block[:cut]
            plain = not whole.translate(None, _PLAIN)
            replies = self._answer_lines(whole.decode("latin-1"), plain)
        return (replies + self._end_read()).encode("latin-1")

    def go_on(self) -> bytes:
        """Answer what was left; return the replies."""
        lines, self.unanswered = self.unanswered, ""
        self._patient = True
        replies = self._answer_lines(lines, self._plain)
        self._patient = False
        return (replies + self._end_read()).encode("latin-1")

    def keep_silence(self) -> bytes:
        """Answer the started line as it stands: its client waits."""
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

    def _end_read(self) -> str:
        """Do what follows the whole lines of a read, once they are answered."""
        if self.unanswered or self.finished:
            return ""
        self.finished = self._ending
        if len(self.line.removesuffix(b"\r")) > self._max_line:
            return self._line_too_long()
        return ""

    def _answer_started_line(self) -> bytes:
        line, self.line = self.line, b""
        ends = self.line_ends
        # It has no end yet, so its reply's is LF; but it may have come to the CR of one.
        replies = self._answer_lines(line.decode("latin-1") + "\n", False).replace("\r\n", "\n")
        self.line_ends = ends  # it had none
        return (replies + self._end_read()).encode("latin-1")
