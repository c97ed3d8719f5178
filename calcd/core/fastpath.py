"""The fast path: blocks of whole lines in ASCII, in batches and by plans.

Its replies equal those of ``Interpreter.reply``, which gets the lines that have no plan yet, and
those that have no result.
"""

from decimal import Decimal, Rounded
from functools import partial

from calcd.core.batch import DIGIT_COST, reply_to_many, reply_to_one
from calcd.core.budget import BudgetExceeded
from calcd.core.interpreter import Interpreter
from calcd.core.plans import MARK, NO_RESULT, NUMBER, PLANS, Plan

# What lines on the fast path are made of.
PLAIN = bytes(set(range(0x20, 0x7F)) - {ord(MARK)}) + b"\t\r\n"
SHORT_LINE = 1024  # characters of a line whose numbers are used before their cost is known
_PIECE = 1024  # characters that are split into shapes and numbers together
_MIN_ROWS = 8  # lines of one shape that are worth computing in columns
_MAX_ROWS = 64
_COLUMN_SHARE = 0.4  # of a line's own cost, where it is computed in columns
_PLAN_COST = 10  # of a line with a plan
_AGAIN = 4  # times its steps, where a line is computed step by step as well


def reply_to_block(interpreter: Interpreter, text: str, max_line: int) -> tuple[str, str] | None:
    """Reply to complete lines of plain bytes, a few thousand characters of them.

    Return the replies with their line ends, and the lines that wait for another call. Return None
    if this is not for the fast path: a line has more than ``max_line`` characters, or the line ends
    differ.
    """
    if len(text) > max_line and _has_longer_line(text, max_line):
        return None
    counters = interpreter.counters
    count = text.count("\n")
    if count == 1:
        line = text[:-1].removesuffix("\r")
        reply = reply_to_one(interpreter, line)
        if reply is not None:
            counters.lines += 1
            counters.requests += 1
            return reply + text[len(line) :], ""
    end = "\n"
    if "\r" in text:
        end = "\r\n"
        if not text.count("\r") == count == text.count(end):
            return None
        text = text.replace(end, "\n")
    replies: list[str] = []
    done = reply_to_many(interpreter, text, replies) if count > 1 else 0
    if done < count and not interpreter.budget.exhausted:
        begin = len("\n".join(text.split("\n", done)[:done])) + 1 if done else 0
        while begin < len(text):
            # A line that is longer than a piece is one by itself.
            end_of_piece = text.rfind("\n", begin, begin + _PIECE) + 1
            piece = text[begin : end_of_piece or text.index("\n", begin) + 1]
            taken = _Piece(interpreter, piece, replies).reply()
            done += taken
            if taken < piece.count("\n"):
                break
            begin += len(piece)
    counters.lines += done
    counters.requests += len(replies)
    replies.append("")
    return end.join(replies), end.join(text.split("\n")[done:]) if done < count else ""


def _has_longer_line(text: str, max_line: int) -> bool:
    """Return whether a line, with its CR, has more than ``max_line`` characters."""
    begin = 0
    while len(text) - begin > max_line + 1:  # with its LF
        begin = text.rfind("\n", begin, begin + max_line + 1) + 1
        if not begin:
            return True
    return False


class _Piece:
    """Lines as shapes and numbers. Those before ``_done`` have got their replies."""

    __slots__ = (
        *("_begin", "_by_rows", "_done", "_following", "_interpreter", "_line_cost", "_numbers"),
        *("_shapes", "_text", "_replies"),
    )

    def __init__(self, interpreter: Interpreter, text: str, replies: list[str]) -> None:
        parts = NUMBER.split(text)
        self._shapes = MARK.join(parts[0::2]).split("\n")  # the last one is that of no line
        self._numbers = parts[1::2]
        self._text = text
        self._line_cost = _PLAN_COST + DIGIT_COST * len(text) / (len(self._shapes) - 1)
        self._interpreter = interpreter
        self._by_rows = False  # since a line had no result
        self._replies = replies
        self._move_to(0, 0)

    def _move_to(self, lines: int, numbers: int) -> None:
        """Continue behind a number of lines, which have a number of numbers."""
        self._done, self._begin = lines, numbers
        self._following = map(Decimal, self._numbers[numbers:]).__next__

    def _line(self) -> str:
        return self._text.split("\n", self._done + 1)[self._done]

    def reply(self) -> int:
        """Reply to the lines by plans, or else by the interpreter; return how many were taken.

        Fewer than all are taken if a line is too expensive, the budget is exhausted, or the client
        has quit.
        """
        shapes, values = self._shapes, self._interpreter.context
        budget = self._interpreter.budget
        count = len(shapes) - 1
        while self._done < count and budget.spent <= budget.limit and not values.quit:
            shape = shapes[self._done]
            plan = PLANS.get(shape)
            if plan and (not plan.name or plan.name in values.variables):
                before = self._done
                try:
                    if shapes[before + 1] == shape and (rows := self._rows_at_once(plan, shape)):
                        self._compute_columns(plan, rows)
                    else:
                        self._compute_rows(plan, shape)
                except NO_RESULT:  # a line has none
                    self._by_rows = True
                    self._move_to(self._done, self._begin)
                except MemoryError:
                    raise
                except Exception:  # a bug costs its line, not the session
                    self._replies.append(self._interpreter.bug(self._line()))
                    self._move_to(self._done + 1, self._begin + plan.count)
                if self._done > before:
                    continue
            try:
                self._reply_by_rules(shape, is_new=plan is None)
            except BudgetExceeded:
                break
        return self._done

    def _reply_by_rules(self, shape: str, is_new: bool) -> None:
        """Have the interpreter reply to a line, and its shape planned if that ``is_new``."""
        line = self._line()
        reply = self._interpreter.reply(line)
        end = self._begin + shape.count(MARK)
        if reply is not None:
            self._replies.append(reply)
            if is_new and not reply.startswith("ERR "):
                statement = partial(self._interpreter.plannable, line)
                PLANS.add(shape, self._numbers[self._begin : end], statement)
        self._move_to(self._done + 1, end)

    def _rows_at_once(self, plan: Plan, shape: str) -> int:
        """Return how many lines of the same shape to compute in columns; 0 if too few."""
        if self._by_rows or not plan.is_columnar:
            return 0
        budget = self._interpreter.budget
        most = min(_MAX_ROWS, int((budget.limit - budget.spent) / self._cost_in_columns(plan)))
        shapes, rows = self._shapes[self._done : self._done + most], 0
        while rows < len(shapes) and shapes[rows] == shape:
            rows += 1
        return rows if rows >= _MIN_ROWS else 0

    def _cost_in_columns(self, plan: Plan) -> float:
        precision = self._interpreter.context.arithmetic.precision
        return _COLUMN_SHARE * self._line_cost + plan.cost(precision, in_columns=True)

    def _compute_rows(self, plan: Plan, shape: str) -> None:
        """Reply to lines of one shape, one by one, until the budget is exhausted.

        Raise one of ``NO_RESULT`` at the first line that has none.
        """
        shapes, plan.recently_used = self._shapes, True
        values, budget = self._interpreter.context, self._interpreter.budget
        arithmetic, following = values.arithmetic, self._following
        context = arithmetic.context
        cost = self._line_cost + plan.cost(arithmetic.precision)
        while shapes[self._done] == shape and budget.spent <= budget.limit:
            if plan.has_functions:
                budget.start_line(0)
            context.clear_flags()
            result = plan.compute(following, arithmetic, context, values)
            reply = str(result)
            if (reply[-1] == "0" or "E" in reply) and not plan.is_final(
                reply, result, arithmetic.notation, context.flags[Rounded]
            ):
                result, reply = self._by_steps(plan, self._begin)
            values.answer = result
            if plan.name:
                values.variables[plan.name] = result
            self._replies.append(reply)
            budget.spent += cost
            self._done += 1
            self._begin += plan.count

    def _compute_columns(self, plan: Plan, rows: int) -> None:
        """Reply to a number of lines of one shape at once, in the loops of ``map``.

        Raise one of ``NO_RESULT`` if any of them has none, and reply to none then.
        """
        plan.recently_used = True
        values = self._interpreter.context
        arithmetic = values.arithmetic
        context = arithmetic.context
        end = self._begin + rows * plan.count
        context.clear_flags()
        results = plan.compute_columns(self._numbers[self._begin : end], context, values)
        replies = list(map(str, results))
        rounded = context.flags[Rounded]
        if rounded or not all(results) or "E" in "".join(replies):
            for row, reply in enumerate(replies):
                if (reply[-1] == "0" or "E" in reply) and not plan.is_final(
                    reply, results[row], arithmetic.notation, rounded
                ):
                    begin = self._begin + row * plan.count
                    results[row], replies[row] = self._by_steps(plan, begin)
        values.answer = results[-1]
        if plan.name:
            values.variables[plan.name] = results[-1]
        self._replies += replies
        self._interpreter.budget.spent += rows * self._cost_in_columns(plan)
        self._move_to(self._done + rows, end)

    def _by_steps(self, plan: Plan, begin: int) -> tuple[Decimal, str]:
        """Compute a line as the interpreter does, which removes zeros that only rounding left."""
        interpreter = self._interpreter
        interpreter.budget.start_line(0)
        interpreter.budget.spent += _AGAIN * plan.cost(interpreter.context.arithmetic.precision)
        numbers = self._numbers[begin : begin + plan.count]
        return interpreter.compute(plan.steps(numbers), False)
