"""Lines in, replies out: what every transport and framing has in common. No I/O.

A line is text with one character for each byte (latin-1): that costs one decoding for a whole
read, loses nothing, and only UPPER looks at it as UTF-8.
"""

from collections.abc import Callable
from decimal import Decimal

from calcd.core.commands import BY_NAME, Command, operation_named
from calcd.core.decimal128 import Arithmetic, TooDearError
from calcd.core.errors import RequestError, quoted
from calcd.core.expressions import Name, evaluate, parse
from calcd.core.messages import ENGLISH
from calcd.core.operations import split_request
from calcd.core.variables import ANSWER, Memory

_MUCH = 300  # characters
_GROUP = 64  # lines
_BLOCK = 1 << 12  # characters that are split into fields together
_SHORT = 1024  # characters of a line whose numbers are worked with before their cost is known
# Units of work (see ``Operation.cost``; each is about 0.05 µs).
LINE_LIMIT = 4_000_000  # a line that costs more is an error
_CHEAP_LINE = 4_000  # a line that costs more is expensive: the others must not wait for it
CALL = 6_000  # after so much in one call, the rest of the lines has to wait
TURN = 100_000  # the same, in a call whose caller has the turn: 5 ms
_LINE_COST = 80  # of any line, and as much again if it is an error
_BLANK_COST = 3
_CHARACTER_COST = 0.1  # of a line: it is decoded, matched, split, and shown in an error
_SUM_CHARACTER_COST = 0.3  # of one whose numbers are multiplied or divided as well
_REPLY_COST = 1  # of each character of a reply, so that not too many of them are held
_LOG_COST = 400  # of a line that is logged


class Answers:
    """Answers lines, and remembers what they have set.

    Lines that one call has no time for become ``unanswered``; ``expensive`` says whether the
    first of them takes long by itself. ``max_line`` is in bytes, without the line end.
    ``on_request`` is called with each request and its reply, and ``on_bug`` with the request
    inside the ``except`` block of an exception that nobody expected; both are text with one
    character for each byte.
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
        self.line_ends = 0  # seen so far
        self.unanswered = ""  # lines that have no reply yet
        self.expensive = False
        self.arithmetic = arithmetic
        self.memory = Memory()
        self.language = ENGLISH
        self._max_line = max_line
        self._on_request = on_request
        self._on_bug = on_bug
        self._plain = False  # whether the lines at hand are of plain bytes alone
        self._patient = False  # whether a first line may take all of its time
        self._limit = CALL  # the work of this call

    def _start(self, limit: int = CALL, patient: bool = False) -> None:
        """Begin a call: count its work from here on."""
        self.arithmetic.work = 0
        self.expensive = False
        self._limit, self._patient = limit, patient

    @property
    def _spent(self) -> bool:
        """Whether the work of this call is done, and the rest has to wait."""
        return self.arithmetic.work > self._limit

    def _answer_lines(self, text: str, plain: bool) -> str:
        """Answer lines, newlines included; ``plain``: they have plain bytes alone.

        The last one may lack its newline where they are not plain. Lines that there is no time
        for become ``unanswered``.
        """
        self._plain = plain
        if not plain or self._on_request is not None:
            return self._answer_by_rules(text)
        if len(text) <= _BLOCK:
            return self._answer_block(text)
        replies = []
        end = 0
        while (begin := end) < len(text):
            # A line that is longer than a block is one by itself.
            end = text.rfind("\n", begin, begin + _BLOCK) + 1 or text.index("\n", begin) + 1
            replies.append(self._answer_block(text[begin:end]))
            if self.unanswered or self.finished:
                self.unanswered += "" if self.finished else text[end:]
                break
        return "".join(replies)

    def _answer_block(self, text: str) -> str:
        """Answer whole lines of plain bytes."""
        short = len(text) <= min(self._max_line, _SHORT) or not self._has_long_line(text)
        if short and "\r" not in text:
            return self._answer_plainly(text, "\n")
        if short and text.count("\r") == text.count("\n") == text.count("\r\n"):
            return self._answer_plainly(text, "\r\n")
        return self._answer_by_rules(text)

    def _has_long_line(self, text: str) -> bool:
        """Say whether a line has more characters than the fast path takes, its CR among them."""
        begin, most = 0, min(self._max_line, _SHORT) + 1  # with its LF
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
            done = self._answer_sums(text, fields, replies)
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

    def _answer_sums(self, text: str, fields: list[str], replies: list[str]) -> int:
        """Answer lines of three fields and a mark, each group at once unless one line fails.

        Return how many lines were taken.
        """
        arithmetic, count = self.arithmetic, len(fields) // 4
        each = self._cost_of_sum(len(text) / count)
        lines: list[str] = []  # as they stand, where they are needed
        for done in range(0, count, _GROUP):
            group = fields[4 * done : 4 * (done + _GROUP)]
            try:
                replies += arithmetic.calculate_all(group[0::4], group[1::4], group[2::4])
                self.memory.answer = replies[-1]
            except Exception:
                lines = lines or text.split("\n")
                most = len(group) // 4
                taken = self._answer_one_by_one(lines[done : done + most], most, replies)
                if taken < most:
                    return done + taken
            else:
                arithmetic.work += len(group) // 4 * each
            if self._spent:
                return min(count, done + _GROUP)
        return count

    def _cost_of_sum(self, length: float) -> float:
        """Estimate the work of a line of three fields that has so many characters."""
        return 8 + 0.07 * self.arithmetic.precision + _SUM_CHARACTER_COST * length

    def _answer_one_by_one(self, lines: list[str], count: int, replies: list[str]) -> int:
        """Answer the first so many lines; return how many were taken."""
        arithmetic, memory, limit = self.arithmetic, self.memory, self._limit
        calculate = arithmetic.calculate_plainly
        work, each = arithmetic.work, self._cost_of_sum(0)
        for done in range(count):
            if work > limit:
                arithmetic.work = work
                return done
            line = lines[done]
            fields = line.split()
            if not fields:
                work += _BLANK_COST + _CHARACTER_COST * len(line)
                continue
            try:
                name, left, right = fields
                memory.answer = reply = calculate(name, left, right)
                work += each + _SUM_CHARACTER_COST * len(line)
            except Exception:
                arithmetic.work = work
                try:
                    reply = self._answer(line.removesuffix("\r"))
                except TooDearError:
                    return done
                work = arithmetic.work
            replies.append(reply)
        arithmetic.work = work
        return count

    def _answer_by_rules(self, text: str) -> str:
        """Answer lines that may have their CR still; each reply ends as its request did."""
        replies: list[str] = []
        end = -1
        # Not split all at once: a read has many lines, and mostly replies for the first of them.
        while (begin := end + 1) < len(text):
            if self._spent:
                self.unanswered = text[begin:]
                break
            end = text.find("\n", begin)
            has_end = end >= 0
            if not has_end:  # the last line, which its client does not end
                end = len(text)
            line = text[begin:end]
            request = line.removesuffix("\r")
            if len(request) > self._max_line:
                self.line_ends += 1
                replies.append(self._line_too_long())
                break
            if len(request) <= _SHORT and not request.strip(" \t"):
                self.line_ends += has_end
                self.arithmetic.work += _BLANK_COST + _CHARACTER_COST * len(line)
                continue
            try:
                reply = self._answer(request)
            except TooDearError:
                self.unanswered = text[begin:]
                break
            self.line_ends += has_end
            if not reply:
                continue
            self.requests += 1
            replies += [reply, "\r\n" if has_end and request != line else "\n"]
            self.arithmetic.work += _REPLY_COST * len(reply)
            if self.finished:
                break
        return "".join(replies)

    def _answer(self, request: str) -> str:
        """Answer one request, without its line end; ``""`` if it is blank.

        Raise ``TooDearError`` if it is expensive, unless this call is for such a line and has
        done nothing else: then it may take all of the time that a line has.
        """
        arithmetic = self.arithmetic
        may_take_all = self._patient and arithmetic.work == 0
        arithmetic.most = LINE_LIMIT if may_take_all else arithmetic.work + _CHEAP_LINE
        try:
            arithmetic.charge(_LINE_COST + _CHARACTER_COST * len(request))
            name, rest = split_request(request)
            if not name:
                return ""
            reply = self._result(request, name, rest)
        except TooDearError:
            if not may_take_all:
                self.expensive = True
                raise
            template = "this takes too long for one line: ask for fewer digits, or in parts"
            reply = self._fail("INVALID-OPERATION", template)
        except RequestError as error:
            self.errors += 1
            self.arithmetic.work += _LINE_COST
            reply = error.reply(self.language.say)
        except Exception:  # a fault of ours must cost its request, not the session
            if self._on_bug is not None:
                self._on_bug(request)
            reply = self._fail("INTERNAL", "a fault of the server, which has logged it")
        if self._on_request is not None:
            self.arithmetic.work += _LOG_COST
            self._on_request(request, reply)
        return reply

    def _result(self, request: str, name: str, rest: str) -> str:
        """Give the reply to a request that goes well; raise ``RequestError``."""
        begin = expression_in(request, name, rest)
        if begin < 0:
            operation = operation_named(name, name in self.memory)
            operands = operation.operands_of(rest)
            if isinstance(operation, Command):
                return str(operation.function(self, *operands))
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


def expression_in(request: str, name: str, rest: str) -> int:
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
