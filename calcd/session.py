"""One client's conversation: bytes in, bytes out, and no I/O in between.

Inside, a line is text with one character for each byte (latin-1): that costs one decoding for
a whole read, loses nothing, and only UPPER looks at it as UTF-8.
"""

import re
from collections.abc import Callable

from calcd.arithmetic import Arithmetic
from calcd.commands import BY_NAME, Command, operation_named
from calcd.errors import RequestError
from calcd.operations import split_request
from calcd.telnet import IAC, TelnetFilter

_LF = ord("\n")
_MUCH = 300  # characters
_GROUP = 64  # lines
_CTRL_D = b"\x04"
_CTRL_D_FIRST = re.compile(rb"^\x04", re.MULTILINE)

# Of these bytes alone (no n, so neither nan nor inf; no underscore; no control characters)
# str.split() finds the fields that the grammar means, and decimal takes the numbers that it
# means: one test of a whole read stands for one of each operand.
_PLAIN = b"0123456789+-.eE \t\r\n" + b"SOMAUBLDIV" + b"somaubldiv"


class Session:
    """Answers one client's requests; knows nothing of sockets, threads or the time.

    ``receive`` is given what each read brought and returns what is to be sent. The shell round
    it looks at ``finished``, ``line``, ``started``, ``line_ends`` and ``complete`` to decide how
    long to wait for more, and calls ``keep_silence`` or ``time_out`` when that time is over.

    ``max_line`` is in bytes, without the line end. ``on_request`` is called with each request
    and its reply, and ``on_bug`` with the request inside the ``except`` block of an exception
    that nobody expected; both are text with one character for each byte.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        max_line: int = 1024,
        on_request: Callable[[str, str], None] | None = None,
        on_bug: Callable[[str], None] | None = None,
    ) -> None:
        self.finished = ""  # how the session ended, in a word; until then empty
        self.requests = 0
        self.errors = 0
        self.pings = 0
        self.line = b""  # the one that has no end yet
        self.line_ends = 0  # seen so far: tells whether ``line`` is still the same one
        self._arithmetic = arithmetic
        self._max_line = max_line
        self._on_request = on_request
        self._on_bug = on_bug
        self._telnet = TelnetFilter()
        self._in_one_piece = False  # whether a single read brought all of it

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
        name, rest = split_request(self.line.decode("latin-1"))
        operation = BY_NAME.get(name.upper())
        if operation is None:  # an error whatever follows, once the name has ended
            return rest != ""
        return len(operation.split(rest)) >= operation.least

    def receive(self, data: bytes) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return the replies."""
        if self.finished:
            return b""
        if not data:
            self.finished = "closed"
            return self._answer_started_line() if self.line else b""
        within = self.line or self._telnet.active
        if not within and data[-1] == _LF and not data.translate(None, _PLAIN):
            # Whole lines, and bytes that mean nothing but themselves: nothing is to be unwrapped.
            return self._answer_lines(data, plain=True).encode("latin-1")
        if IAC in data or self._telnet.active:
            data = self._telnet.strip(data)
        ended = "interrupted" if self._telnet.interrupted else ""
        block = self.line + data if self.line else data
        if _CTRL_D in block and (found := _CTRL_D_FIRST.search(block)):
            block, ended = block[: found.start()], "ctrl-d"
        cut = block.rfind(b"\n") + 1
        if data:  # a telnet's sign of life is no piece of a line
            self._in_one_piece = cut > 0 or not self.started
        self.line = block[cut:]
        replies = ""
        if cut:
            whole = block[:cut]
            replies = self._answer_lines(whole, plain=not whole.translate(None, _PLAIN))
        if not self.finished:
            self.finished = ended
            if len(self.line.removesuffix(b"\r")) > self._max_line:
                replies += self._line_too_long()
        return replies.encode("latin-1")

    def keep_silence(self) -> bytes:
        """Answer the started line as it stands: its client waits."""
        return self._answer_started_line()

    def farewell(self) -> bytes:
        """Give what is to be sent last of all, however the connection ends."""
        return b""

    def _answer_started_line(self) -> bytes:
        line, self.line = self.line, b""
        # It has no end yet, so its reply's is LF; but it may have come to the CR of one.
        reply = self._answer_by_rules([line.decode("latin-1")]).replace("\r\n", "\n")
        return reply.encode("latin-1")

    def time_out(self) -> bytes:
        """Give up a started line that was not finished in time."""
        self.finished = "line-timeout"
        self.requests += 1
        reply = self._fail("TIMEOUT", "the line was not finished in time: end it with a newline")
        return (reply + "\n").encode("latin-1")

    def _answer_lines(self, block: bytes, plain: bool) -> str:
        """Answer whole lines, newlines included; ``plain``: they have plain bytes alone."""
        text = block.decode("latin-1")
        short = len(text) <= self._max_line or not self._has_long_line(text)
        if plain and short and self._on_request is None:
            if "\r" not in text:
                return self._answer_plainly(text, "\n")
            if text.count("\r") == text.count("\n") == text.count("\r\n"):
                return self._answer_plainly(text, "\r\n")
        lines = text.split("\n")[:-1]
        self.line_ends += len(lines)
        return self._answer_by_rules(lines)

    def _has_long_line(self, text: str) -> bool:
        """Say whether a line has more than ``max_line`` characters, its CR among them."""
        begin, most = 0, self._max_line + 1  # with its LF
        while len(text) - begin > most:
            begin = text.rfind("\n", begin, begin + most) + 1
            if not begin:
                return True
        return False

    def _answer_plainly(self, text: str, end: str) -> str:
        """Answer lines of plain characters, nearly all of them sums: the fast path.

        It tries what the rules would come to; whatever fails is answered by the rules.
        """
        replies: list[str] = []
        fields = _fields_of_sums(text) if len(text) > _MUCH else []
        if fields:
            self.line_ends += len(fields) // 4
            for first in range(0, len(fields), 4 * _GROUP):
                self._answer_sums(fields[first : first + 4 * _GROUP], replies)
        else:
            lines = text.split("\n")
            lines.pop()  # what follows the last newline
            self.line_ends += len(lines)
            self._answer_one_by_one(lines, replies)
        self.requests += len(replies)
        replies.append("")
        return end.join(replies)

    def _answer_sums(self, fields: list[str], replies: list[str]) -> None:
        """Answer lines of three fields and a mark all at once, unless one of them fails."""
        try:
            replies += self._arithmetic.calculate_all(fields[0::4], fields[1::4], fields[2::4])
        except Exception:
            lines = [" ".join(fields[i : i + 3]) for i in range(0, len(fields), 4)]
            self._answer_one_by_one(lines, replies)

    def _answer_one_by_one(self, lines: list[str], replies: list[str]) -> None:
        calculate = self._arithmetic.calculate_plainly
        for line in lines:
            try:
                name, left, right = line.split()
                replies.append(calculate(name, left, right))
            except Exception:
                reply = self._answer(line.removesuffix("\r"))
                if reply is not None:
                    replies.append(reply)

    def _answer_by_rules(self, lines: list[str]) -> str:
        """Answer lines that may have their CR still; each reply ends as its request did."""
        replies = []
        for line in lines:
            request = line.removesuffix("\r")
            if len(request) > self._max_line:
                replies.append(self._line_too_long())
                break
            reply = self._answer(request)
            if reply is None:
                continue
            self.requests += 1
            replies += [reply, "\n" if request == line else "\r\n"]
            if self.finished:
                break
        return "".join(replies)

    def _answer(self, request: str) -> str | None:
        """Answer one request, without its line end; None if it is blank."""
        name, rest = split_request(request)
        if not name:
            return None
        try:
            operation = operation_named(name)
            operands = operation.take(rest)
            if isinstance(operation, Command):
                reply = str(operation.run(self, *operands))
            else:
                reply = self._arithmetic.calculate(operation, operands)
        except RequestError as error:
            reply = self._fail(error.code, error.words)
        except Exception:  # a fault of ours must cost its request, not the session
            if self._on_bug is not None:
                self._on_bug(request)
            reply = self._fail("INTERNAL", "a fault of the server, which has logged it")
        if self._on_request is not None:
            self._on_request(request, reply)
        return reply

    def _line_too_long(self) -> str:
        self.finished = "line-too-long"
        self.requests += 1
        words = f"a line has at most {self._max_line} bytes"
        return self._fail("LINE-TOO-LONG", words) + "\n"

    def _fail(self, code: str, words: str) -> str:
        self.errors += 1
        return str(RequestError(code, words))


def _fields_of_sums(text: str) -> list[str]:
    """Split lines of plain characters, if each has three fields; give a fourth for its end."""
    # A mark that no field can be tells what stands where.
    fields = text.replace("\n", " ; ").split()
    ends = text.count("\n")
    return fields if fields[3::4].count(";") == ends == len(fields) / 4 else []
