"""One client's conversation: bytes in, bytes out, and no I/O in between.

Bytes become lines in one of three ways. Whole lines of plain bytes, as most clients send, are taken
as they are. Other text is searched for Ctrl-D and a partial line. From the first telnet command on,
commands are stripped first. Plain lines get their replies in ``fastpath``, all others one by one.

A line ends in LF or CR LF. CR CR LF ends it too (line ends that were translated twice), and so does
CR NUL (Enter in a telnet that sends each character). C programs send NUL, the end of a string: it
is skipped before a line, and behind one that has no end.
"""

import re

from calcd.core.budget import CALL_LIMIT, BudgetExceeded
from calcd.core.closing import ERRORS, CloseReason
from calcd.core.errors import from_wire
from calcd.core.fastpath import PLAIN, SHORT_LINE, reply_to_block
from calcd.core.interpreter import CHARACTER_COST, Interpreter
from calcd.core.job import Job, Outcome, failure, job_of, update
from calcd.core.preamble import (
    BYTE_ORDER_MARK,
    FIRST_BYTES,
    PROXY_SIGNATURE,
    foreign_protocol,
    is_incomplete,
    may_be_foreign,
    may_become_http,
)
from calcd.core.telnet import IAC, TelnetFilter

_LF = ord("\n")
_CTRL_D = b"\x04"
_CTRL_D_FIRST = re.compile(rb"^\0*+\x04", re.MULTILINE)

_MAX_PLAIN = 1 << 17  # bytes of lines that are tested for plain bytes
_BLOCK = 1 << 12  # characters that are split into fields together

_TELNET_PIECE = 512  # bytes that are stripped of telnet commands at once
_TELNET_COST = 8  # of each command
_TELNET_BYTE_COST = 0.1
_BLANK_LINE_COST = 7  # of one that is not among plain lines
_REPLY_CHARACTER_COST = 1  # bounds the replies that are held in memory


class Session:
    """Splits a client's bytes into lines and returns the replies of its interpreter.

    Give ``receive`` the bytes of each read; send what it returns. No call takes long: what is
    left over is ``pending``. Then call ``resume`` until nothing is, before anything else. If the
    next line is expensive, it is in ``job``: have it done, and call ``complete`` instead.

    ``has_partial_line``, ``partial_line_is_request`` and ``counters.lines`` tell how long to wait
    for more bytes; when that time is over, call ``flush_partial_line`` or ``time_out``.
    ``close_reason`` is None as long as the session is open. ``max_line`` is in bytes, without the
    line end.
    """

    is_established = True  # it has no handshake

    def __init__(self, interpreter: Interpreter, max_line: int = 16384) -> None:
        self.interpreter = interpreter
        self.budget = interpreter.budget
        self.counters = interpreter.counters
        self.close_reason: CloseReason | None = None
        self.has_partial_line = False  # a line without its end, of more than blanks
        self._max_line = max_line
        self._max_fast_line = min(max_line, SHORT_LINE)
        self.job: Job | None = None
        self._job_end = ""  # the line end of the job's line; "" if that has none
        self._lines = ""  # that have no reply yet
        self._lines_are_plain = False
        self._input = b""  # the part of the last read that is not processed yet
        self._start: bytes | None = b""  # first bytes, until it is known what they are
        self._partial_line = bytearray()
        self._is_one_read = False  # whether a single read brought all of the partial line
        self._is_request: bool | None = None  # the partial line; None: not known yet
        self._closing: CloseReason | None = None  # once the complete lines have replies
        self._telnet = TelnetFilter()

    @property
    def close_word(self) -> str | None:
        """Word of the log for the close reason."""
        return self.close_reason.value if self.close_reason else None

    @property
    def has_received(self) -> bool:
        """Whether the client has sent a byte."""
        return self._start != b""

    @property
    def pending(self) -> bool:
        """Whether input that has arrived still waits for its reply."""
        return bool(self._lines or self._input or self.job)

    @property
    def partial_line_is_request(self) -> bool:
        """Whether the partial line is a whole request that only lacks its newline.

        A client that never sends a newline sends its request in one read. Once a client has sent
        a newline, it is known to end its lines, and a partial line is never a request.
        """
        if self.counters.lines or not self.has_partial_line or not self._is_one_read:
            return False
        if self._is_request is None:  # parsing a long line takes a while
            line = self._partial_line.decode("latin-1")
            self._is_request = line.endswith("\0") or (
                self.interpreter.is_request(line)
                and (self.counters.requests > 0 or not may_become_http(line))
            )
        return self._is_request

    def receive(self, data: bytes, limit: float = CALL_LIMIT) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return the replies.

        ``limit`` is what the call may cost, in the units of ``Budget``.
        """
        if self.close_reason is not None:
            return b""
        if not data:
            self._closing = CloseReason.CLOSED
            return self.flush_partial_line()
        self.budget.start_call(limit)
        if self._start is not None:
            if self._start or data[0] in FIRST_BYTES:
                return self._take_start(self._start + data, limit)
            self._start = None
        within_line = self._partial_line or self._telnet.active
        if not within_line and data[-1] == _LF and not data.translate(None, PLAIN):
            return self._reply_to_lines(data.decode("latin-1"), True).encode("latin-1")
        if IAC not in data and not self._telnet.active:
            return (self._take_text(data, False) + self._end_read()).encode("latin-1")
        return self._take_telnet(data, False)

    def resume(self, limit: float = CALL_LIMIT) -> bytes:
        """Process more of what is pending, unless there is a job; return the replies."""
        if self.job:
            return b""
        self.budget.start_call(limit)
        lines, self._lines = self._lines, ""
        replies = self._reply_to_lines(lines, self._lines_are_plain) if lines else ""
        data, self._input = self._input, b""
        if data and self.close_reason is None:
            if not (self.pending or self.budget.exhausted):
                return replies.encode("latin-1") + self._take_telnet(data, True)
            self._input = data
        return (replies + self._end_read()).encode("latin-1")

    def complete(self, outcome: Outcome | None, limit: float = CALL_LIMIT) -> bytes:
        """Take the outcome of the job, and process more; return the replies.

        Without an outcome the reply is an error: the job was refused.
        """
        job, self.job = self.job, None
        if job is None:
            return self.resume(limit)
        if outcome is None:
            template = "the server cannot take this expensive request now: ask again later"
            outcome = failure(job, "OVERLOADED", template)
        interpreter = self.interpreter
        self.counters.lines += self._job_end != ""
        update(interpreter.context, job, outcome)
        if outcome.reply is None:
            return self.resume(limit)
        self.counters.requests += 1
        if interpreter.on_request is not None:
            interpreter.on_request(from_wire(job.line), from_wire(outcome.reply))
        if outcome.quit:
            self.close_reason = CloseReason.QUIT
            self._lines, self._input = "", b""
        reply = (outcome.reply + (self._job_end or "\n")).encode("latin-1")
        return reply + self.resume(limit)

    def flush_partial_line(self) -> bytes:
        """Process the partial line as if it had ended, because its client waits."""
        self.budget.start_call()
        if self._start:  # blank lines, a partial line: no reply
            self._take_text(self._start, False)
            self._start = None
        self._partial_line += self._telnet.flush()
        line = self._partial_line.rstrip(b"\0").decode("latin-1")
        self._partial_line.clear()
        self.has_partial_line = False
        replies = self._reply_to_lines(line, False) if line else ""
        return (replies + self._end_read()).encode("latin-1")

    def time_out(self) -> bytes:
        """End the session because the partial line was not completed in time."""
        return self._refuse(CloseReason.LINE_TIMEOUT).encode("latin-1")

    def close(self) -> bytes:
        """Return the bytes to be sent last of all, however the connection ends."""
        return b""

    # Bytes to lines

    def _take_start(self, start: bytes, limit: float) -> bytes:
        """Take the first bytes of the connection, or hold them back until more have come."""
        if is_incomplete(start):
            self._start = start
            self.has_partial_line = start.strip(b"\r\n\0") != b""
            return b""
        self._start, self.has_partial_line = None, False
        if start.startswith(PROXY_SIGNATURE):
            return self._refuse(CloseReason.PROXY_HEADER).encode("latin-1")
        rest = start.removeprefix(BYTE_ORDER_MARK)
        return self.receive(rest, limit) if rest else b""

    def _take_telnet(self, data: bytes, same_read: bool) -> bytes:
        """Take bytes that may have telnet commands, in pieces, until the budget is exhausted."""
        replies = ""
        begin = 0
        while begin < len(data) and not (self._closing or self.pending or self.close_reason):
            if begin and self.budget.exhausted:
                break
            piece = data[begin : begin + _TELNET_PIECE]
            begin += len(piece)
            commands = 1 + piece.count(IAC)
            self.budget.spent += _TELNET_COST * commands + _TELNET_BYTE_COST * len(piece)
            text = self._telnet.strip(piece)
            if self._telnet.interrupted:
                self._closing = CloseReason.INTERRUPTED
            if text:  # a command alone, such as NOP, is not a part of a line
                replies += self._take_text(text, same_read)
            same_read = True
        self._input = b"" if self._closing or self.close_reason else data[begin:]
        return (replies + self._end_read()).encode("latin-1")

    def _take_text(self, data: bytes, same_read: bool) -> str:
        """Take bytes without commands; ``same_read``: the same read has brought some before."""
        if b"\0" in data:
            if self._partial_line.endswith(b"\r") and data.startswith(b"\0"):
                data = b"\n" + data[1:]
            data = data.replace(b"\r\0", b"\r\n")
            if not self._partial_line:
                data = data.lstrip(b"\0")
            same_read = same_read or not data.strip(b"\0")  # NUL alone is no other part of a line
        if _CTRL_D in data:
            # Only at the start of a line counts, and data may begin in the middle of one.
            found = _CTRL_D_FIRST.search(data, 1 if self._partial_line else 0)
            if found:
                data, self._closing = data[: found.start()], CloseReason.CTRL_D
        cut = data.rfind(b"\n") + 1
        if cut or not same_read:
            self._is_one_read = cut > 0 or not self.has_partial_line
        self._is_request = None
        if not cut:
            self._partial_line += data
            self.has_partial_line = self.has_partial_line or data.strip(b" \t") != b""
            return ""
        lines = bytes(self._partial_line) + data[:cut]
        rest = data[cut:].lstrip(b"\0")
        self._partial_line = bytearray(rest)
        self.has_partial_line = rest.strip(b" \t") != b""
        plain = len(lines) <= _MAX_PLAIN and not lines.translate(None, PLAIN)
        return self._reply_to_lines(lines.decode("latin-1"), plain)

    def _end_read(self) -> str:
        """End the session if it is time, once all complete lines of a read have replies."""
        if self.pending or self.close_reason:
            return ""
        self.close_reason = self._closing
        line, most = self._partial_line, self._max_line
        # Two CR at its end may belong to the line end.
        if len(line) > most and len(line.removesuffix(b"\r").removesuffix(b"\r")) > most:
            return self._refuse(CloseReason.LINE_TOO_LONG)
        return ""

    # Lines to replies

    def _reply_to_lines(self, text: str, plain: bool) -> str:
        """Reply to lines with their line ends; ``plain``: they have only plain bytes.

        If they are not plain, the last one may lack its newline. Lines beyond the budget become
        pending.
        """
        self._lines_are_plain = plain
        if not plain or self.interpreter.on_request is not None:
            return self._reply_by_rules(text)
        if len(text) <= _BLOCK:
            return self._reply_to_block(text)
        replies = []
        end = 0
        while (begin := end) < len(text):
            # A line that is longer than a block is one by itself.
            end = text.rfind("\n", begin, begin + _BLOCK) + 1 or text.index("\n", begin) + 1
            replies.append(self._reply_to_block(text[begin:end]))
            if self.close_reason:
                break
            if self._lines or self.job:
                self._lines += text[end:]
                break
        return "".join(replies)

    def _reply_to_block(self, text: str) -> str:
        if not self.counters.requests and may_be_foreign(text):
            return self._reply_by_rules(text)
        found = reply_to_block(self.interpreter, text, self._max_fast_line)
        if found is None:
            return self._reply_by_rules(text)
        replies, self._lines = found
        if self.interpreter.context.quit:
            self.close_reason, self._lines = CloseReason.QUIT, ""
        elif self._lines and not self.budget.exhausted:  # the first of them is expensive
            lines, self._lines = self._lines, ""
            return replies + self._reply_by_rules(lines)
        return replies

    def _reply_by_rules(self, text: str) -> str:
        """Reply to lines with any line ends; each reply ends as its request does."""
        replies: list[str] = []
        interpreter, budget, counters = self.interpreter, self.budget, self.counters
        end = -1
        # Not split all at once: a read may have many lines, and the budget lets few get a reply.
        while (begin := end + 1) < len(text):
            if budget.exhausted:
                self._lines = text[begin:]
                break
            end = text.find("\n", begin)
            has_end = end >= 0
            if not has_end:  # a partial line
                end = len(text)
            line, line_end = text[begin:end].lstrip("\0"), "\n"
            request = line.removesuffix("\r")
            if has_end and request != line:
                request, line_end = request.removesuffix("\r"), "\r\n"
            if len(request) > self._max_line:
                counters.lines += 1
                replies.append(self._refuse(CloseReason.LINE_TOO_LONG))
                break
            if len(request) <= SHORT_LINE and not request.strip(" \t"):
                counters.lines += has_end
                budget.spent += _BLANK_LINE_COST + CHARACTER_COST * len(line)
                continue
            if not counters.requests:
                reason = foreign_protocol(request)
                if reason is not None:
                    replies.append(self._refuse(reason))
                    break
            try:
                reply = interpreter.reply(request)
            except BudgetExceeded:
                self.job = job_of(request, interpreter.context)
                self._job_end = line_end if has_end else ""
                self._lines = text[end + 1 :]
                break
            counters.lines += has_end
            if reply is None:
                continue
            counters.requests += 1
            replies += [reply, line_end]
            budget.spent += _REPLY_CHARACTER_COST * len(reply)
            if interpreter.context.quit:
                self.close_reason = CloseReason.QUIT
                break
        return "".join(replies)

    def _refuse(self, reason: CloseReason) -> str:
        """End the session because of what its client has sent; return the reply that says so."""
        self.close_reason = reason
        self.counters.requests += 1
        error = ERRORS[reason]
        return self.interpreter.fail(error.code, error.template, self._max_line) + "\n"
