"""The fast path: lines of plain bytes, nearly all of them a name and two numbers.

Its replies equal those of ``Interpreter.reply``, which gets the lines that fail here.
"""

from calcd.core.budget import BudgetExceeded
from calcd.core.interpreter import BLANK_LINE_COST, CHARACTER_COST, Interpreter

# If a read has only these bytes (no n, so neither nan nor inf; no underscore; no control
# characters), str.split() finds the fields of the grammar, and Decimal() takes its numbers: one
# test of a whole read replaces one of each operand.
PLAIN = b"0123456789+-.eE \t\r\n" + b"SOMAUBLDIV" + b"somaubldiv"
SHORT_LINE = 1024  # characters of a line whose numbers are used before their cost is known
_BATCH = 64  # lines that are calculated at once
_MIN_BATCH_TEXT = 300  # characters from which on that is faster
_DIGIT_COST = 0.3  # of each character, in place of CHARACTER_COST: with the operation on it


def reply_to_block(interpreter: Interpreter, text: str, max_line: int) -> tuple[str, str] | None:
    """Reply to complete lines of plain bytes, a few thousand characters of them.

    Return the replies with their line ends, and the lines that wait for another call. Return None
    if this is not for the fast path: a line has more than ``max_line`` characters, or the line ends
    differ.
    """
    if len(text) > max_line and _has_longer_line(text, max_line):
        return None
    end = "\n"
    if "\r" in text:
        end = "\r\n"
        if not text.count("\r") == text.count("\n") == text.count(end):
            return None
    replies: list[str] = []
    fields = _split_fields(text) if len(text) > _MIN_BATCH_TEXT else []
    if fields:
        count = len(fields) // 4
        done = _reply_in_batches(interpreter, text, fields, replies)
    else:
        lines = text.split("\n")
        lines.pop()  # what follows the last newline
        count = len(lines)
        done = _reply_line_by_line(interpreter, lines, replies)
    counters = interpreter.counters
    counters.lines += done
    counters.requests += len(replies)
    replies.append("")
    return end.join(replies), "\n".join(text.split("\n")[done:]) if done < count else ""


def _has_longer_line(text: str, max_line: int) -> bool:
    """Return whether a line, with its CR, has more than ``max_line`` characters."""
    begin = 0
    while len(text) - begin > max_line + 1:  # with its LF
        begin = text.rfind("\n", begin, begin + max_line + 1) + 1
        if not begin:
            return True
    return False


def _split_fields(text: str) -> list[str]:
    """Split lines of three fields, with a mark for each line end; return ``[]`` for others."""
    # The mark cannot be a field, so its positions tell where lines end.
    fields = text.replace("\n", " ; ").split()
    ends = text.count("\n")
    return fields if fields[3::4].count(";") == ends == len(fields) / 4 else []


def _reply_in_batches(
    interpreter: Interpreter, text: str, fields: list[str], replies: list[str]
) -> int:
    """Reply to lines, line by line where one of a batch fails; return how many got a reply."""
    context, budget, count = interpreter.context, interpreter.budget, len(fields) // 4
    cost = context.arithmetic.fast_cost + _DIGIT_COST * len(text) / count
    lines: list[str] = []  # split only if they are needed
    for done in range(0, count, _BATCH):
        batch = fields[4 * done : 4 * (done + _BATCH)]
        size = len(batch) // 4
        try:
            replies += context.arithmetic.calculate_batch(batch[0::4], batch[1::4], batch[2::4])
            context.answer = replies[-1]
            budget.spent += size * cost
        except Exception:
            lines = lines or text.split("\n")
            taken = _reply_line_by_line(interpreter, lines[done : done + size], replies)
            if taken < size:
                return done + taken
        if budget.exhausted:
            return done + size
    return count


def _reply_line_by_line(interpreter: Interpreter, lines: list[str], replies: list[str]) -> int:
    """Reply to lines; return how many were taken."""
    budget, context = interpreter.budget, interpreter.context
    calculate, cost = context.arithmetic.calculate_unchecked, context.arithmetic.fast_cost
    limit, spent = budget.limit, budget.spent
    for done, line in enumerate(lines):
        if spent > limit:
            budget.spent = spent
            return done
        fields = line.split()
        if not fields:
            spent += BLANK_LINE_COST + CHARACTER_COST * len(line)
            continue
        try:
            name, left, right = fields
            context.answer = reply = calculate(name, left, right)
            spent += cost + _DIGIT_COST * len(line)
        except Exception:
            budget.spent = spent
            try:
                reply = interpreter.reply(line.removesuffix("\r")) or ""
            except BudgetExceeded:
                return done
            spent = budget.spent
        replies.append(reply)
    budget.spent = spent
    return len(lines)
