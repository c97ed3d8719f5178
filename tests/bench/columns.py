"""What shells do with columns of numbers: calcc beside `bc`, `awk` and `python3 -c`.

Each tool gets the command that its users would write. The answers are worked out here, with
Python's fractions. A tool's answers are right if all of them are, to 34 digits.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import partial
from statistics import median
from typing import NamedTuple

from .load import Bench, Row
from .programs import ROOT, TIMEOUT, BenchError, MissingError, environment, installed

_ROWS = 200_000
_SINGLE = 100
_MOST_OF_BC = 3  # times as long as `paste -sd+ | bc` a sum may take
_DECIMAL = "import sys; from decimal import *; "
_NUMBERS = "map(Decimal, sys.stdin)"
_CALCC = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
from calcd.client.cli import main
sys.exit(main([*sys.argv[1:], "127.0.0.1", {port!r}]))
"""


class Task(NamedTuple):
    """What is to be done, the answers to a column of prices, and a command for each tool."""

    name: str
    answers: Callable[[list[Fraction]], list[Fraction]]
    commands: dict[str, str]


def _cents(prices: list[Fraction]) -> list[Fraction]:
    """Return 23% of each price, rounded half up to cents."""
    return [Fraction(int(price * 23 + Fraction(1, 2)), 100) for price in prices]


def _singles(_prices: list[Fraction]) -> list[Fraction]:
    return [Fraction(1, 10) + Fraction(f"0.{number}") for number in range(1, _SINGLE + 1)]


def _each_single(command: str) -> str:
    return f"for i in $(seq {_SINGLE}); do {command}; done"


TASKS = (
    Task(
        "sum of {:,} rows",
        lambda prices: [sum(prices, Fraction())],
        {
            "calcc": "calcc --fold SOMA < prices.txt",
            "bc": "paste -sd+ prices.txt | bc",
            "awk": "awk '{s += $1} END {print s}' prices.txt",
            "python3 -c": f"python3 -c '{_DECIMAL}print(sum({_NUMBERS}))' < prices.txt",
        },
    ),
    Task(
        "mean of {:,} rows",
        lambda prices: [sum(prices, Fraction()) / len(prices)],
        {
            "calcc": "calcc --fold MEDIA < prices.txt",
            "bc": 'echo "scale=34; ($(paste -sd+ prices.txt)) / $(wc -l < prices.txt)" | bc',
            "awk": "awk '{s += $1} END {print s / NR}' prices.txt",
            "python3 -c": f"python3 -c '{_DECIMAL}p = [*{_NUMBERS}]; "
            "print(sum(p) / len(p))' < prices.txt",
        },
    ),
    Task(
        "VAT of {:,} rows, to cents, half up",
        _cents,
        {
            "calcc": "calcc -e 'ROUNDING half-up' --each 'round({} * 0.23, 2)' < prices.txt",
            "bc": "sed 's|.*|scale=4; x=&*0.23; scale=2; (x+0.005)/1|' prices.txt | bc",
            "awk": "awk '{printf \"%.2f\\n\", $1 * 0.23}' prices.txt",
            "python3 -c": f'python3 -c \'{_DECIMAL}c = Decimal("0.01"); v = Decimal("0.23"); '
            "[print((Decimal(p) * v).quantize(c, ROUND_HALF_UP)) for p in sys.stdin]' < prices.txt",
        },
    ),
    Task(
        "largest of {:,} rows",
        lambda prices: [max(prices)],
        {
            "calcc": "calcc --fold MAX < prices.txt",
            "bc": "(sed 's|.*|if (& > m) m = &|' prices.txt; echo m) | bc",
            "awk": "awk 'NR == 1 || $1 > m {m = $1} END {print m}' prices.txt",
            "python3 -c": f"python3 -c '{_DECIMAL}print(max({_NUMBERS}))' < prices.txt",
        },
    ),
    Task(
        f"{_SINGLE} single sums, a command for each",
        _singles,
        {
            "calcc": _each_single('calcc -e "SOMA 0.1 0.$i"'),
            "bc": _each_single('echo "0.1 + 0.$i" | bc'),
            "awk": _each_single('awk "BEGIN {print 0.1 + 0.$i}"'),
            "python3 -c": _each_single('python3 -c "print(0.1 + 0.$i)"'),
        },
    ),
    Task(
        f"{_SINGLE} single sums, one command",
        _singles,
        {
            "calcc": f"{_each_single('echo SOMA 0.1 0.$i')} | calcc",
            "bc": f"{_each_single('echo 0.1 + 0.$i')} | bc",
            "awk": f"{_each_single('echo 0.1 0.$i')} | awk '{{print $1 + $2}}'",
            "python3 -c": f"{_each_single('echo 0.1 0.$i')} | python3 -c '{_DECIMAL}"
            "[print(sum(map(Decimal, row.split()))) for row in sys.stdin]'",
        },
    ),
)


def columns(bench: Bench) -> Iterator[Row]:
    """What columns take; a table with each command, its time and whether it is right is a note."""
    chance = random.Random(1)
    count = _ROWS // 100 if bench.quick else _ROWS
    texts = [f"{chance.randrange(1, 100_000) / 100:.2f}" for _ in range(count)]
    (bench.directory / "prices.txt").write_text("\n".join([*texts, ""]))
    prices = list(map(Fraction, texts))
    table = ["| task | command | ms | right |", "| --- | --- | --- | --- |"]
    with ExitStack() as stack:
        port = bench.start(stack, "calcd")["calcd"].target
        script = bench.directory / "calcc"
        script.write_text(_CALCC.format(python=bench.python, root=str(ROOT), port=port))
        script.chmod(0o755)
        for task in TASKS:
            name = task.name.format(count)
            answers = task.answers(prices)
            right: dict[str, bool] = {}
            turns = {
                tool: partial(_time, bench, command, answers, tool, right)
                for tool, command in task.commands.items()
                if _is_there(bench, tool)
            }
            measured = bench.by_turns(turns)
            if not right["calcc"]:
                raise BenchError(f"wrong answer from {task.commands['calcc']}")
            for tool, times in measured.items():
                shown = task.commands[tool].replace("|", r"\|")
                verdict = "yes" if right[tool] else "no"
                table.append(f"| {name} | `{shown}` | {median(times):,.0f} | {verdict} |")
            bar = _MOST_OF_BC if task is TASKS[0] and not bench.quick else None
            peer = "bc" if "bc" in measured else ""
            yield Row(name, "ms", measured["calcc"], peer, measured.get("bc", ()), bar)
    bench.notes += table


def _is_there(bench: Bench, tool: str) -> bool:
    try:
        return tool == "calcc" or bool(installed(tool.split()[0]))
    except MissingError as missing:
        if (note := f"left out: {missing}") not in bench.notes:
            bench.notes.append(note)
        return False


def _time(
    bench: Bench, command: str, answers: list[Fraction], tool: str, right: dict[str, bool]
) -> float:
    """Return the milliseconds of a command in a shell, and note whether it is right."""
    path = f"{bench.directory}:{os.path.dirname(bench.python)}:{os.environ['PATH']}"
    variables = environment()
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled
    began = time.perf_counter()
    done = subprocess.run(
        ["sh", "-c", command],
        stdout=subprocess.PIPE,
        timeout=10 * TIMEOUT,
        check=False,
        cwd=bench.directory,
        env=variables | {"PATH": path},
        text=True,
    )
    took = time.perf_counter() - began
    right[tool] = are_right(done.stdout.split(), answers)
    return took * 1e3


def are_right(printed: list[str], answers: list[Fraction]) -> bool:
    """Return whether each answer was printed, or the nearest number of 34 digits."""
    context = Context(prec=34)
    try:
        numbers = [context.plus(Decimal(text)) for text in printed]
    except InvalidOperation:
        return False
    nearest = [context.divide(each.numerator, each.denominator) for each in answers]
    return numbers == nearest
