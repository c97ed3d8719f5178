"""One client's conversation: bytes in, bytes out, and no I/O in between.

Inside, a line is text with one character for each byte (latin-1): that costs one decoding for
a whole read, loses nothing, and only UPPER looks at it as UTF-8.
"""

import re
from collections.abc import Callable
from decimal import Decimal

from calcd.arithmetic import Arithmetic, TooDearError
from calcd.commands import BY_NAME, Command, operation_named
from calcd.errors import RequestError, quoted
from calcd.expressions import Name, UnfinishedError, evaluate, parse
from calcd.memory import ANSWER, Memory
from calcd.operations import split_request
from calcd.telnet import IAC, TelnetFilter
from calcd.words import ENGLISH

_LF = ord("\n")
_MUCH = 300  # characters
_GROUP = 64  # lines
# Units of work (see ``Operation.work``; each is about 0.05 µs): what a line may take, and what
# is done before what is left has to wait for ``go_on``.
_MOST_FOR_LINE = 4_000_000
_MOST_AT_ONCE = 200_000
_WORK_FOR_LINE = 80  # and as much again if it is an error
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

    No call takes long. What would is left ``unanswered``: then, before anything else is done,
    ``go_on`` is to be called until it is not; one such call may take as long as a line may.

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
        self.arithmetic = arithmetic
        self.memory = Memory()
        self.language = ENGLISH
        self._max_line = max_line
        self._on_request = on_request
        self._on_bug = on_bug
        self._telnet = TelnetFilter()
        self._in_one_piece = False  # whether a single read brought all of it
        self.unanswered = ""  # whole lines that have no reply yet
        self._plain = False  # they are of plain bytes alone
        self._ending = ""  # how the session ends once they have
        self._patient = False  # whether a first line may take all of its time

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
        if (begin := _expression_in(request, name, rest)) >= 0:
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

    def _answer_lines(self, text: str, plain: bool) -> str:
        """Answer whole lines, newlines included; ``plain``: they have plain bytes alone.

        Those that would take too long after the others become ``unanswered``.
        """
        self.arithmetic.work = 0
        self._plain = plain
        if plain and self._on_request is None:
            short = len(text) <= self._max_line or not self._has_long_line(text)
            if short and "\r" not in text:
                return self._answer_plainly(text, "\n")
            if short and text.count("\r") == text.count("\n") == text.count("\r\n"):
                return self._answer_plainly(text, "\r\n")
        return self._answer_by_rules(text)

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
            count = len(fields) // 4
            done = self._answer_sums(fields, replies)
        else:
            lines = text.split("\n")
            count = len(lines) - 1  # the last is what follows the last newline
            done = self._answer_one_by_one(lines, count, replies)
        if done < count:
            self.unanswered = "\n".join(text.split("\n")[done:])
        self.line_ends += done
        self.requests += len(replies)
        replies.append("")
        return end.join(replies)

    def _answer_sums(self, fields: list[str], replies: list[str]) -> int:
        """Answer lines of three fields and a mark, each group at once unless one line fails.

        Return how many lines were taken.
        """
        arithmetic, count = self.arithmetic, len(fields) // 4
        for done in range(0, count, _GROUP):
            group = fields[4 * done : 4 * (done + _GROUP)]
            try:
                replies += arithmetic.calculate_all(group[0::4], group[1::4], group[2::4])
                self.memory.answer = replies[-1]
            except Exception:
                lines = [" ".join(group[i : i + 3]) for i in range(0, len(group), 4)]
                taken = self._answer_one_by_one(lines, len(lines), replies)
                if taken < len(lines):
                    return done + taken
            arithmetic.work += _GROUP * (30 + 0.3 * arithmetic.precision)
            if arithmetic.work > _MOST_AT_ONCE:
                return min(count, done + _GROUP)
        return count

    def _answer_one_by_one(self, lines: list[str], count: int, replies: list[str]) -> int:
        """Answer the first so many lines; return how many were taken."""
        arithmetic, memory = self.arithmetic, self.memory
        calculate = arithmetic.calculate_plainly
        work, each = arithmetic.work, 30 + 0.3 * arithmetic.precision
        for done in range(count):
            if work > _MOST_AT_ONCE:
                return done
            fields = lines[done].split()
            if not fields:
                continue
            try:
                name, left, right = fields
                memory.answer = reply = calculate(name, left, right)
                work += each
            except Exception:
                arithmetic.work = work
                try:
                    reply = self._answer(lines[done].removesuffix("\r"))
                except TooDearError:
                    return done
                work = arithmetic.work
            replies.append(reply)
        arithmetic.work = work
        return count

    def _answer_by_rules(self, text: str) -> str:
        """Answer lines that may have their CR still; each reply ends as its request did."""
        replies = []
        end = -1
        # Not split all at once: a read has many lines, and mostly replies for the first of them.
        while (begin := end + 1) < len(text):
            end = text.index("\n", begin)
            line = text[begin:end]
            request = line.removesuffix("\r")
            if len(request) > self._max_line:
                self.line_ends += 1
                replies.append(self._line_too_long())
                break
            if not request.strip(" \t"):  # many of them must not take long either
                self.line_ends += 1
                continue
            try:
                reply = self._answer(request)
            except TooDearError:
                self.unanswered = text[begin:]
                break
            self.line_ends += 1
            self.requests += 1
            replies += [reply, "\n" if request == line else "\r\n"]
            self.arithmetic.work += 3 * len(reply)
            if self.finished:
                break
        return "".join(replies)

    def _answer(self, request: str) -> str:
        """Answer one request, without its line end, that is not blank.

        Raise ``TooDearError`` if that would take too long after what has been done already.
        """
        name, rest = split_request(request)
        arithmetic = self.arithmetic
        if arithmetic.work > _MOST_AT_ONCE:
            raise TooDearError
        may_take_all = self._patient and arithmetic.work == 0
        arithmetic.work += _WORK_FOR_LINE
        arithmetic.most = _MOST_FOR_LINE if may_take_all else _MOST_AT_ONCE
        try:
            reply = self._result(request, name, rest)
        except TooDearError:
            if not may_take_all:
                raise
            template = "this takes too long for one line: ask for fewer digits, or in parts"
            reply = self._fail("INVALID-OPERATION", template)
        except RequestError as error:
            self.errors += 1
            arithmetic.work += _WORK_FOR_LINE
            reply = error.reply(self.language.say)
        except Exception:  # a fault of ours must cost its request, not the session
            if self._on_bug is not None:
                self._on_bug(request)
            reply = self._fail("INTERNAL", "a fault of the server, which has logged it")
        if self._on_request is not None:
            self._on_request(request, reply)
        return reply

    def _result(self, request: str, name: str, rest: str) -> str:
        """Give the reply to a request that goes well; raise ``RequestError``."""
        begin = _expression_in(request, name, rest)
        if begin < 0:
            operation = operation_named(name, name in self.memory)
            operands = operation.take(rest)
            if isinstance(operation, Command):
                return str(operation.run(self, *operands))
            self.arithmetic.charge(30 * len(operands))
            result = self.arithmetic.run(operation, [self._operand(each) for each in operands])
        else:
            assigns = _assigns(name, rest)
            if assigns:
                self.memory.check(name)
            steps = parse(request, begin, self.arithmetic)
            result = evaluate(steps, self.arithmetic, self._value_of)
            if assigns:
                self.memory.assign(name, result)
        self.memory.answer = self.arithmetic.text(result)
        return self.memory.answer

    def _operand(self, operand: str) -> Decimal:
        if operand in self.memory or operand.lower() == ANSWER:
            return self._value_of(Name(operand, 0))
        return self.arithmetic.number(operand)

    def _value_of(self, name: Name) -> Decimal:
        value = self.memory.value_of(name.name, self.arithmetic)
        if value is not None:
            return value
        if name.name.lower() == ANSWER:
            raise RequestError("UNKNOWN-NAME", "there is no answer yet")
        template = "column {}: {} is not known: assign to it first"
        raise RequestError("UNKNOWN-NAME", template, name.column, quoted(name.name))

    def _line_too_long(self) -> str:
        self.finished = "line-too-long"
        self.requests += 1
        return self._fail("LINE-TOO-LONG", "a line has at most {} bytes", self._max_line) + "\n"

    def _fail(self, code: str, template: str, *shown: object) -> str:
        self.errors += 1
        return RequestError(code, template, *shown).reply(self.language.say)


def _assigns(name: str, rest: str) -> bool:
    """Say whether a request assigns: its second field is ``=``, unless its first takes text."""
    if rest != "=" and not rest.startswith(("= ", "=\t")):
        return False
    operation = BY_NAME.get(name.upper())
    return operation is None or not operation.takes_text


def _expression_in(request: str, name: str, rest: str) -> int:
    """Say where in a request its expression begins; -1 if it is an operation by name."""
    if _assigns(name, rest):
        return request.index("=", request.index(name) + len(name)) + 1
    if name[:1].isalpha():
        return -1
    return request.index(name) + (name[:1] == "=")


def _fields_of_sums(text: str) -> list[str]:
    """Split lines of plain characters, if each has three fields; give a fourth for its end."""
    # A mark that no field can be tells what stands where.
    fields = text.replace("\n", " ; ").split()
    ends = text.count("\n")
    return fields if fields[3::4].count(";") == ends == len(fields) / 4 else []
