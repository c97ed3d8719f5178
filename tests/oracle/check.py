"""One case: the product's result must be the true one, rounded once in the mode in force."""

import decimal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from random import Random

from calcd.core.decimal128 import EMAX, EMIN, MAX_PRECISION, ROUNDINGS
from calcd.core.errors import RequestError

from .functions import Function
from .operands import Numbers
from .rounding import rounded

_SHOWN = 40  # characters of an operand


@dataclass
class Tally:
    """What became of the cases of one function; ``seconds`` are of CPU time of the slowest."""

    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: str = ""


def random_precision(dice: Random) -> int:
    """Give a precision, mostly a small one."""
    kind = dice.random()
    if kind < 0.7:
        return dice.randrange(1, 60)
    if kind < 0.95:
        return dice.randrange(60, 250)
    return dice.choice((dice.randrange(250, MAX_PRECISION + 1), MAX_PRECISION))


def run(name: str, function: Function, cases: int, seed: int) -> Tally:
    """Check a function with random cases, which are the same for the same seed."""
    tally = Tally()
    for number in range(cases):
        dice = Random(f"{name} {seed + number}")
        precision = random_precision(dice)
        rounding = dice.choice(list(ROUNDINGS))
        numbers = function.operands(dice, precision)
        shown = f"{name} {shown_of(numbers)} ({precision} digits, {rounding})"
        context = Context(precision, ROUNDINGS[rounding], EMIN, EMAX, 1, 1, [], [])
        context.traps[decimal.Overflow] = True
        fault, seconds = check(function, context, numbers)
        if fault:
            tally.wrong.append(f"--seed {seed + number}: {shown}: {fault}")
        if seconds > tally.seconds:
            tally.seconds, tally.slowest = seconds, shown
        tally.cases += 1
    return tally


def check(function: Function, context: Context, numbers: Numbers) -> tuple[str, float]:
    """Return what is wrong, or ``""``, and the CPU time that the function took, in seconds."""
    began = time.thread_time()
    result: Decimal | None = None
    code = ""
    try:
        result = function.product(context, *numbers)
    except (RequestError, decimal.Overflow) as error:
        code = type(error).__name__
    seconds = time.thread_time() - began
    truth = function.truth(*numbers)
    if truth is None:
        return "" if code == "RequestError" else f"{result} {code}, but it is undefined", seconds
    right = rounded(truth, context)
    if right.overflows(context):
        return "" if code == "Overflow" else f"{result} {code}, but it is too large", seconds
    if result is None:
        return f"{code}, but it is {right}", seconds
    return _difference(result, right, context), seconds


def _difference(result: Decimal, right: Sequence[int], context: Context) -> str:
    coefficient, exponent, inexact = right
    expected = Decimal((coefficient < 0, tuple(map(int, str(abs(coefficient)))), exponent))
    if result != expected:
        return f"{result}, not {expected}"
    if context.flags[decimal.Inexact] != inexact:
        return f"{result}, whose condition Inexact must be {inexact}"
    if inexact and not context.flags[decimal.Rounded]:
        return f"{result}, whose condition Rounded must be True"
    if inexact and result.as_tuple().exponent != exponent:
        return f"{result}, which must have another quantum: {expected}"
    return ""


def shown_of(numbers: Numbers) -> str:
    """Shorten operands for a report."""
    texts = map(str, numbers)
    return " ".join(
        text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..({len(text)})" for text in texts
    )
