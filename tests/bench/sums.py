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
NAMES = {"+": "SOMA", "-": "SUB", "*": "MUL", "/": "DIV"}
_DECIMAL128 = decimal.Context(prec=DIGITS, Emin=-6143, Emax=6144, clamp=1)
# Enough for every exact sum and product, and to see where a quotient is to be cut.
EXACT = decimal.Context(prec=10 * DIGITS, rounding=decimal.ROUND_DOWN)
_METHODS = {
    "+": decimal.Context.add,
    "-": decimal.Context.subtract,
    "*": decimal.Context.multiply,
    "/": decimal.Context.divide,
}


class Sum(NamedTuple):
    """One sum: two operands as written, and what is done with them."""

    left: str
    sign: str
    right: str


Pair = tuple[str, str]  # a request and the one right reply
Dialect = Callable[[Sum], Pair]


def random_sums(count: int, seed: int = 1) -> list[Sum]:
    """Give so many sums, the four operations mixed, with 1 to 34 digits an operand."""
    chance = random.Random(seed)
    return [random_sum(chance) for _ in range(count)]


def random_sum(chance: random.Random) -> Sum:
    """Give one of them."""
    return Sum(_operand(chance), chance.choice("+-*/"), _operand(chance))


def _operand(chance: random.Random) -> str:
    digits = [str(chance.randint(1, 9)), *chance.choices("0123456789", k=chance.randrange(DIGITS))]
    places = chance.randrange(len(digits))
    if places:
        digits.insert(len(digits) - places, ".")
    return chance.choice(("", "", "-")) + "".join(digits)


def calcd(asked: Sum) -> Pair:
    """Ask as calcd is asked."""
    result = decimal128(asked.sign, Decimal(asked.left), Decimal(asked.right))
    return f"{NAMES[asked.sign]} {asked.left} {asked.right}\n", f"{plain(result)}\n"


def decimal128(sign: str, left: Decimal, right: Decimal) -> Decimal:
    """Work out as calcd does, without the zeros that rounding has left."""
    context = _DECIMAL128.copy()
    result = _METHODS[sign](context, left, right)
    return result.normalize(context) if context.flags[decimal.Rounded] else result


def square_root(number: Decimal) -> Decimal:
    """Give a square root as calcd does."""
    context = _DECIMAL128.copy()
    result = context.sqrt(number)
    return result.normalize(context) if context.flags[decimal.Rounded] else result


def plain(number: Decimal) -> str:
    """Write a number as calcd does, in plain notation."""
    if not number:
        return f"{0:.{max(0, min(DIGITS, places(number)))}f}"
    return f"{number:f}" if -DIGITS <= number.adjusted() < DIGITS else f"{number:E}"


def bc(asked: Sum) -> Pair:
    """Ask as bc is, which was told ``scale=34``."""
    result = scaled(asked.sign, Decimal(asked.left), Decimal(asked.right))
    return f"{asked.left} {asked.sign} {asked.right}\n", f"{of_bc(result)}\n"


def scaled(sign: str, left: Decimal, right: Decimal) -> Decimal:
    """Work out as bc does, which was told ``scale=34``."""
    one, other = places(left), places(right)
    kept = {
        "*": min(one + other, max(DIGITS, one, other)),
        "/": DIGITS,
    }.get(sign, max(one, other))
    return cut(_METHODS[sign](EXACT, left, right), kept)


def cut(number: Decimal, to: int) -> Decimal:
    """Drop the digits after so many places."""
    return number.quantize(Decimal(1).scaleb(-to), context=EXACT)


def places(number: Decimal) -> int:
    """Give how many decimals a number is written with."""
    return -int(number.as_tuple().exponent)


def of_bc(number: Decimal) -> str:
    """Write a number as bc does."""
    text = f"{number:f}" if number else "0"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def redis(asked: Sum) -> Pair:
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


def echo(asked: Sum) -> Pair:
    """Ask as calcd is asked, of a server that sends it back."""
    request, _ = calcd(asked)
    return request, request


def write(file: Path, asked: Iterable[Pair]) -> Path:
    """Write requests and replies as the load generator reads them."""
    pairs = list(asked)
    lengths = [len(text) for pair in pairs for text in pair]
    texts = ["".join(pair[side] for pair in pairs).encode() for side in (0, 1)]
    file.write_bytes(struct.pack(f"={1 + len(lengths)}I", len(pairs), *lengths) + b"".join(texts))
    return file


def _bulk(word: str) -> str:
    return f"${len(word)}\r\n{word}\r\n"
