"""Batches: lines of an operation and two numbers each, with any of four operations.

They are a special case of the lines with a plan. Scripts send them most, and a batch needs no
split into shapes: it is three times as fast where the operations differ from line to line.
"""

from decimal import Decimal, DecimalException

from calcd.core.interpreter import Interpreter

DIGIT_COST = 0.3  # of each character of a line, in place of CHARACTER_COST: with the operation
_BATCH = 64  # lines that are calculated at once
# If lines have only these bytes (no n, so neither nan nor inf; no underscore; no control
# characters), str.split() finds the fields of the grammar, and Decimal() takes its numbers: one
# test of all lines replaces one of each operand.
_SUMS = b"0123456789+-.eE \t\n" + b"SOMAUBLDIV" + b"somaubldiv"
_SUM_CHARACTERS = frozenset(_SUMS.decode())
_NO_RESULT = (DecimalException, LookupError)


def reply_to_one(interpreter: Interpreter, line: str) -> str | None:
    """Reply to one line without its line end; return None if it has another form or no result."""
    fields = line.split()
    if len(fields) != 3 or not _SUM_CHARACTERS.issuperset(line):
        return None
    arithmetic = interpreter.context.arithmetic
    try:
        reply = arithmetic.calculate(*fields)
    except _NO_RESULT:
        return None
    interpreter.context.answer = Decimal(reply)
    interpreter.budget.spent += arithmetic.fast_cost + DIGIT_COST * len(line)
    return reply


def reply_to_many(interpreter: Interpreter, text: str, replies: list[str]) -> int:
    """Reply to lines of ASCII that each end in a newline; return how many got a reply.

    Fewer than all get one if a line has another form or no result, or the budget is exhausted.
    """
    count = text.count("\n")
    if len(text[: text.index("\n")].split()) != 3 or text.encode("ascii").translate(None, _SUMS):
        return 0
    # The mark cannot be a field, so its positions tell where lines end.
    fields = text.replace("\n", " ; ").split()
    if not fields[3::4].count(";") == count == len(fields) / 4:
        return 0
    context, budget = interpreter.context, interpreter.budget
    cost = context.arithmetic.fast_cost + DIGIT_COST * len(text) / count
    done = 0
    while done < count and not budget.exhausted:
        batch = fields[4 * done : 4 * (done + _BATCH)]
        try:
            replies += context.arithmetic.calculate_batch(batch[0::4], batch[1::4], batch[2::4])
        except _NO_RESULT:
            break
        context.answer = Decimal(replies[-1])
        budget.spent += len(batch) // 4 * cost
        done += len(batch) // 4
    return done
