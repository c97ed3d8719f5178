"""Distinct random sums, as each contestant is asked them, each with the one right answer.

The answers are worked out here, by other means than calcd's own, and to each contestant's
rules: decimal128, bc's truncation at ``scale`` digits, Redis's binary floating point.
"""

import decimal
import random
import struct
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

DIGITS = 34
_NAMES = {"+": "SOMA", "-": "SUB", "*": "MUL", "/": "DIV"}
_DECIMAL128 = decimal.Context(prec=DIGITS, Emin=-6143, Emax=6144, clamp=1)
# Enough for every exact sum and product, and to see where a quotient is to be cut.
_EXACT = decimal.Context(prec=10 * DIGITS, rounding=decimal.ROUND_DOWN)


class Sum(NamedTuple):
    """One sum: two operands as written, and what is done with them."""

    left: str
    sign: str
    right: str


Dialect = Callable[[Sum], tuple[str, str]]


def random_sums(count: int, seed: int = 1) -> list[Sum]:
    """Give so many sums, the four operations mixed, with 1 to 34 digits an operand."""
    chance = random.Random(seed)
    return [Sum(_operand(chance), chance.choice("+-*/"), _operand(chance)) for _ in range(count)]


def _operand(chance: random.Random) -> str:
    digits = [str(chance.randint(1, 9)), *chance.choices("0123456789", k=chance.randrange(DIGITS))]
    places = chance.randrange(len(digits))
    if places:
        digits.insert(len(digits) - places, ".")
    return chance.choice(("", "", "-")) + "".join(digits)


def calcd(asked: Sum) -> tuple[str, str]:
    """Ask as calcd is asked."""
    context = _DECIMAL128.copy()
    result = _worked_out(context, asked)
    if context.flags[decimal.Rounded]:
        result = result.normalize(context)
    is_plain = -DIGITS <= result.adjusted() < DIGITS
    text = f"{result:f}" if is_plain else str(result)
    if not result:
        text = text.removeprefix("-")
    return f"{_NAMES[asked.sign]} {asked.left} {asked.right}\n", f"{text}\n"


def bc(asked: Sum) -> tuple[str, str]:
    """Ask as bc is, which was told ``scale=34``."""
    exact = _worked_out(_EXACT, asked)
    left, right = _places(asked.left), _places(asked.right)
    places = {
        "*": min(left + right, max(DIGITS, left, right)),
        "/": DIGITS,
    }.get(asked.sign, max(left, right))
    cut = exact.quantize(Decimal(1).scaleb(-places), context=_EXACT)
    text = f"{cut:f}" if cut else "0"
    if text.lstrip("-").startswith("0."):
        text = text.replace("0.", ".", 1)
    return f"{asked.left} {asked.sign} {asked.right}\n", f"{text}\n"


def redis(asked: Sum) -> tuple[str, str]:
    """Ask as Redis is: EVAL, in whose Lua all numbers are binary."""
    left, right = float(asked.left), float(asked.right)
    result = {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "/": left / right,
    }[asked.sign]
    script = f"return string.format('%.17g', ARGV[1] {asked.sign} ARGV[2])"
    words = ("EVAL", script, "0", asked.left, asked.right)
    request = f"*{len(words)}\r\n" + "".join(map(_bulk, words))
    return request, _bulk(f"{result:.17g}")


def echo(asked: Sum) -> tuple[str, str]:
    """Ask as calcd is asked, of a server that sends it back."""
    request, _ = calcd(asked)
    return request, request


def write_sums(file: Path, sums: Iterable[Sum], dialect: Dialect) -> Path:
    """Write requests and replies as the load generator reads them."""
    pairs = [dialect(each) for each in sums]
    lengths = [len(text) for pair in pairs for text in pair]
    texts = ["".join(pair[side] for pair in pairs).encode() for side in (0, 1)]
    file.write_bytes(struct.pack(f"={1 + len(lengths)}I", len(pairs), *lengths) + b"".join(texts))
    return file


def _worked_out(context: decimal.Context, asked: Sum) -> Decimal:
    left, right = Decimal(asked.left), Decimal(asked.right)
    work = {
        "+": context.add,
        "-": context.subtract,
        "*": context.multiply,
        "/": context.divide,
    }[asked.sign]
    return work(left, right)


def _places(operand: str) -> int:
    return len(operand.partition(".")[2])


def _bulk(word: str) -> str:
    return f"${len(word)}\r\n{word}\r\n"
