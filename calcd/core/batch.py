"""The fast path: blocks of whole lines in ASCII, by plans and in batches.

Its replies equal those of ``Interpreter.reply``, which gets the lines that have no plan yet, and
those that have no result. Lines of an operation and two numbers, sent many together, are a special
case that is three times as fast.
"""

from decimal import Decimal, DecimalException
from functools import partial

from calcd.core.budget import BudgetExceeded
from calcd.core.interpreter import Interpreter
from calcd.core.plans import MARK, NO_RESULT, NUMBER, PLANS

# What lines on the fast path are made of.
PLAIN = bytes(set(range(0x20, 0x7F)) - {ord(MARK)}) + b"\t\r\n"
# If a block has only these bytes (no n, so neither nan nor inf; no underscore; no control
# characters), str.split() finds the fields of the grammar, and Decimal() takes its numbers: one
# test of a whole block replaces one of each operand.
_SUMS = b"0123456789+-.eE \t\n" + b"SOMAUBLDIV" + b"somaubldiv"
_SUM_CHARACTERS = frozenset(_SUMS.decode())
SHORT_LINE = 1024  # characters of a line whose numbers are used before their cost is known
_PIECE = 1024  # characters that are split into shapes and numbers together
_BATCH = 64  # lines that are calculated at once
_PLAN_COST = 10  # of a line with a plan, and for each of its steps
_STEP_COST = 8
_PRECISION_COST = 0.1  # of each step, for each digit of the precision
_DIGIT_COST = 0.3  # of each character, in place of CHARACTER_COST: with the operation on it


def reply_to_block(interpreter: Interpreter, text: str, max_line: int) -> tuple[str, str] | None:
    """Reply to complete lines of plain bytes, a few thousand characters of them.

    Return the replies with their line ends, and the lines that wait for another call. Return None
    if this is not for the fast path: a line has more than ``max_line`` characters, or the line ends
    differ.
    """
    if len(text) > max_line and _has_longer_line(text, max_line):
        return None
    count = text.count("\n")
    if count == 1:
        line = text[:-1].removesuffix("\r")
        reply = _reply_to_sum(interpreter, line)
        if reply is not None:
            return reply + text[len(line) :], ""
    end = "\n"
    if "\r" in text:
        end = "\r\n"
        if not text.count("\r") == count == text.count(end):
            return None
        text = text.replace(end, "\n")
    replies: list[str] = []
    done = _reply_in_batches(interpreter, text, replies)
    if done < count and not interpreter.budget.exhausted:
        begin = len("\n".join(text.split("\n", done)[:done])) + 1 if done else 0
        while begin < len(text):
            # A line that is longer than a piece is one by itself.
            end_of_piece = text.rfind("\n", begin, begin + _PIECE) + 1
            piece = text[begin : end_of_piece or text.index("\n", begin) + 1]
            taken = _reply_by_plans(interpreter, piece, replies)
            done += taken
            if taken < piece.count("\n"):
                break
            begin += len(piece)
    counters = interpreter.counters
    counters.lines += done
    counters.requests += len(replies)
    replies.append("")
    return end.join(replies), end.join(text.split("\n")[done:]) if done < count else ""


def _reply_to_sum(interpreter: Interpreter, line: str) -> str | None:
    """Reply to an operation on two numbers; return None if a line is none or has no result."""
    fields = line.split()
    if len(fields) != 3 or not _SUM_CHARACTERS.issuperset(line):
        return None
    context, counters = interpreter.context, interpreter.counters
    arithmetic = context.arithmetic
    try:
        reply = arithmetic.calculate(*fields)
    except (DecimalException, LookupError):
        return None
    except MemoryError:
        raise
    except Exception:  # a bug, which the line's own reply will show
        return None
    context.answer = Decimal(reply)
    interpreter.budget.spent += arithmetic.fast_cost + _DIGIT_COST * len(line)
    counters.lines += 1
    counters.requests += 1
    return reply


def _has_longer_line(text: str, max_line: int) -> bool:
    """Return whether a line, with its CR, has more than ``max_line`` characters."""
    begin = 0
    while len(text) - begin > max_line + 1:  # with its LF
        begin = text.rfind("\n", begin, begin + max_line + 1) + 1
        if not begin:
            return True
    return False


def _reply_in_batches(interpreter: Interpreter, text: str, replies: list[str]) -> int:
    """Reply to lines of an operation and two numbers each; return how many got a reply.

    That are less than all if a batch fails, if a line is another, or if the budget is exhausted.
    """
    count = text.count("\n")
    if count == 1 or len(text[: text.index("\n")].split()) != 3:
        return 0
    if text.encode("ascii").translate(None, _SUMS):
        return 0
    # The mark cannot be a field, so its positions tell where lines end.
    fields = text.replace("\n", " ; ").split()
    if not fields[3::4].count(";") == count == len(fields) / 4:
        return 0
    context, budget = interpreter.context, interpreter.budget
    cost = context.arithmetic.fast_cost + _DIGIT_COST * len(text) / count
    for done in range(0, count, _BATCH):
        batch = fields[4 * done : 4 * (done + _BATCH)]
        try:
            replies += context.arithmetic.calculate_batch(batch[0::4], batch[1::4], batch[2::4])
        except (DecimalException, LookupError):
            return done
        except MemoryError:
            raise
        except Exception:  # a bug, which the line's own reply will show
            return done
        context.answer = Decimal(replies[-1])
        budget.spent += len(batch) // 4 * cost
        if budget.exhausted:
            return done + len(batch) // 4
    return count


def _reply_by_plans(interpreter: Interpreter, text: str, replies: list[str]) -> int:
    """Reply to lines by their plans, or else by the interpreter; return how many were taken.

    That are less than all if a line is too expensive, the budget is exhausted, or the client has
    quit.
    """
    parts = NUMBER.split(text)
    shapes = MARK.join(parts[0::2]).split("\n")
    shapes.pop()  # what follows the last newline
    numbers = parts[1::2]
    lines: list[str] = []  # split only if they are needed
    values, budget = interpreter.context, interpreter.budget
    variables, arithmetic = values.variables, values.arithmetic
    context = arithmetic.context
    line_cost = _PLAN_COST + _DIGIT_COST * len(text) / len(shapes)
    step_cost = _STEP_COST + _PRECISION_COST * arithmetic.precision
    begin = 0  # of the numbers of a line
    following = map(Decimal, numbers).__next__
    for done, shape in enumerate(shapes):
        if budget.spent > budget.limit:
            return done
        plan = PLANS.get(shape)
        if plan and (not plan.name or plan.name in variables):
            end = begin + plan.count
            try:
                if plan.has_functions:
                    budget.start_line(0)
                context.clear_flags()
                result = plan.compute(following, arithmetic, context, values)
                reply = str(result)
                is_candidate = reply[-1] == "0" or "E" in reply
                if is_candidate and not plan.is_final(reply, result, arithmetic):
                    budget.start_line(0)
                    result, reply = interpreter.compute(plan.steps(numbers[begin:end]), False)
                begin = end
                values.answer = result
                if plan.name:
                    variables[plan.name] = result
                plan.recently_used = True
                budget.spent += line_cost + plan.length * step_cost
                replies.append(reply)
                continue
            except NO_RESULT:
                pass
            except MemoryError:
                raise
            except Exception:  # a bug costs its line, not the session
                lines = lines or text.split("\n")
                replies.append(interpreter.bug(lines[done]))
                begin = end
                following = map(Decimal, numbers[begin:]).__next__
                continue
        end = begin + shape.count(MARK)
        lines = lines or text.split("\n")
        try:
            answer = interpreter.reply(lines[done])
        except BudgetExceeded:
            return done
        if answer is not None:
            replies.append(answer)
            if plan is None and not answer.startswith("ERR "):
                PLANS.add(shape, numbers[begin:end], partial(interpreter.plannable, lines[done]))
        if values.quit:
            return done + 1
        begin = end
        following = map(Decimal, numbers[begin:]).__next__
        arithmetic = values.arithmetic
        context = arithmetic.context
        step_cost = _STEP_COST + _PRECISION_COST * arithmetic.precision
    return len(shapes)
