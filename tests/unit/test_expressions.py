"""Expressions: random trees against an evaluator of their own, random soups, and errors."""

import decimal
import re
from dataclasses import dataclass
from decimal import Context, Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session

from calcd.core.commands import BY_NAME
from calcd.core.decimal128 import EMAX, EMIN, ROUNDINGS
from calcd.core.errors import RequestError


def ask(
    *lines: str, precision: int = 34, rounding: str = "half-even", notation: str = "plain"
) -> list[str]:
    """Give a session these lines, with time for all; return its replies."""
    session = new_session(precision, rounding, notation=notation)
    return (
        answered(session, "".join(f"{line}\n" for line in lines).encode()).decode().split("\n")[:-1]
    )


# Trees, what they are worth, and how they can be written


@dataclass(frozen=True)
class Node:
    """A number or name (no parts), a sign (one), an operator (two), or a function."""

    name: str
    parts: tuple["Node", ...] = ()


OPERATORS = {
    "+": "ADD",
    "-": "SUB",
    "−": "SUB",
    "*": "MUL",
    "×": "MUL",
    "/": "DIV",
    "÷": "DIV",
    "//": "IDIV",
    "%": "MOD",
    " mod ": "MOD",
    "^": "POW",
    "**": "POW",
    "!": "FACT",
}
SIGNS = {"+": Context.plus, "-": Context.minus, "−": Context.minus}
FUNCTIONS = {"sqrt": 1, "raiz": 1, "abs": 1, "neg": 1, "max": 2, "min": 2, "cmp": 2, "sub": 2}
FUNCTIONS |= {"quoc": 2, "exp": 1, "ln": 1, "média": 3, "trunc": 1}
VARIABLES = {"x": "0.75", "y_2": "-3", "Total": "1234567"}
LEVELS = {**dict.fromkeys("+-−", 1), **dict.fromkeys(["^", "**"], 4), "!": 5}  # 2: all others
SIGN = 3


def is_literal(node: Node) -> bool:
    return not node.parts and node.name not in VARIABLES


def worth(node: Node, context: Context) -> Decimal:
    """Work a tree out; an exception where it has no finite result."""
    parts = [worth(part, context) for part in node.parts]
    if not parts:
        return Decimal(VARIABLES.get(node.name, node.name))
    if len(parts) == 1 and node.name in SIGNS:
        if is_literal(node.parts[0]):  # a number with its sign, as it is written
            return parts[0] if node.name == "+" else parts[0].copy_negate()
        return SIGNS[node.name](context, parts[0])
    name = {"média": "MEAN"}.get(node.name, node.name.upper())
    result: Decimal = BY_NAME[OPERATORS.get(node.name, name)].function(context, *parts)
    return result


def is_unrounded(node: Node) -> bool:
    """Say whether a tree is a number, which is rounded at the end."""
    return not node.parts or (node.name in SIGNS and [*map(is_literal, node.parts)] == [True])


def level(node: Node) -> int:
    """Say how tightly a node's outermost operator binds."""
    if len(node.parts) == 1 and node.name in SIGNS:
        return SIGN
    return LEVELS.get(node.name, 2 if node.name in OPERATORS else 9)


class Writer:
    """Writes a tree; parentheses where they are needed, and elsewhere as the dice fall."""

    def __init__(self, dice: Random, plain: bool) -> None:
        self._dice = dice
        self._plain = plain

    def write(self, node: Node) -> str:
        blank = self._blank
        parts = node.parts
        if node.name in FUNCTIONS:
            name = self._any_case(node.name)
            inside = f"{blank()},{blank()}".join(map(self.write, parts))
            text = f"{name}{blank()}({blank()}{inside}{blank()})"
        elif len(parts) == 2:
            # The left of a power is an atom; its right may be a sign, or a power again.
            # All else goes from left to right.
            own = level(node)
            power = own == LEVELS["^"]
            left = self._within(parts[0], own + 1 if power else own)
            right = self._within(parts[1], SIGN if power else own + 1)
            if node.name == "%" and level(parts[1]) == SIGN and not right.startswith("("):
                right = f"({right})"  # it would be taken for a percentage
            text = f"{left}{blank()}{node.name}{blank()}{right}"
        elif node.name == "!":
            text = f"{self._within(parts[0], level(node))}{blank()}!"
        elif parts:
            text = f"{node.name}{blank()}{self._within(parts[0], SIGN)}"
        else:
            text = self._any_case(node.name)
        if not self._plain and not is_literal(node) and self._dice.random() < 0.2:
            text = f"({blank()}{text}{blank()})"
        return text

    def _within(self, node: Node, minimum: int) -> str:
        text = self.write(node)
        return text if level(node) >= minimum else f"({text})"

    def _blank(self) -> str:
        return "" if self._plain else self._dice.choice(("", "", " ", "\t", "  "))

    def _any_case(self, name: str) -> str:
        return "".join(self._dice.choice((letter.lower(), letter.upper())) for letter in name)


literals = st.one_of(
    st.sampled_from([*VARIABLES, "0", "1", "2", "3", "10", "0.5", ".25", "7.", "1e3", "2E-2"]),
    st.integers(0, 10**40).map(str),
    st.decimals(0, 1000, allow_nan=False, places=3).map(str),
).map(Node)


def grown(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(
            lambda name, left, right: Node(name, (left, right)),
            st.sampled_from([mark for mark in OPERATORS if mark != "!"]),
            parts,
            parts,
        ),
        st.builds(lambda name, part: Node(name, (part,)), st.sampled_from([*SIGNS, "!"]), parts),
        st.sampled_from(sorted(FUNCTIONS)).flatmap(
            lambda name: st.tuples(*FUNCTIONS[name] * [parts]).map(lambda each: Node(name, each))
        ),
    )


trees = st.recursive(literals, grown, max_leaves=12)
contexts = st.tuples(st.sampled_from([1, 5, 16, 34, 60]), st.sampled_from(sorted(ROUNDINGS)))


@given(trees, contexts, st.randoms(use_true_random=False), st.booleans())
def test_an_expression_is_worth_what_its_tree_is(
    tree: Node, asked: tuple[int, str], dice: Random, bare: bool
) -> None:
    """Bare: with those parentheses alone that the order of operations needs."""
    precision, rounding = asked
    text = Writer(dice, bare).write(tree)
    lines = [f"{name} = {value}" for name, value in VARIABLES.items()]
    lines = ["PRECISION 34", *lines, f"PRECISION {precision}", f"ROUNDING {rounding}"]
    *_, reply, again = ask(*lines, f"= {text}", f"({text})", notation="scientific")
    plain = ask(*lines, f"= {text}")[-1]
    signals = (decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow)
    context = Context(precision, ROUNDINGS[rounding], EMIN, EMAX, 1, 1, [], list(signals))
    try:
        expected = worth(tree, context)
        if is_unrounded(tree):
            expected = context.create_decimal(expected)
    except (*signals, RequestError):
        assert re.match(
            r"ERR (DIVISION-BY-ZERO|DIVISION-UNDEFINED|OVERFLOW|INVALID-OPERATION) ", reply
        ), text
        assert plain == reply
    else:
        assert reply == str(expected), text
        assert Decimal(plain) == expected
    assert again == reply


# Precedence, by hand


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("2+2", "4"),
        ("2+3*4", "14"),
        ("2*3+4", "10"),
        ("10-3-2", "5"),
        ("100/10/2", "5"),
        ("100/10*2", "20"),
        ("7%4*2", "6"),
        ("2^3^2", "512"),
        ("2**3**2", "512"),
        ("(2^3)^2", "64"),
        ("= -2^2", "-4"),
        ("(-2)^2", "4"),
        ("2^-2", "0.25"),
        ("2^-2^2", "0.0625"),
        ("= --2", "2"),
        ("= -+-2", "2"),
        ("2--2", "4"),
        ("2*-3", "-6"),
        ("= -7%3", "-1"),
        ("= -2*-2", "4"),
        ("2*3^2", "18"),
        ("= -3*2^2", "-12"),
        ("1.50+1.50", "3.00"),
        ("= SQRT(2.25)/2", "0.75"),
        ("= max(1, 3, 2)", "3"),
        ("= ((((7))))", "7"),
        (".5+5.", "5.5"),
        ("1e3 + 1E-1", "1000.1"),
        ("= 1.0", "1.0"),
        ("= -0", "0"),
        ("2^3!", "64"),
        ("-3!", "-6"),
        ("3!^2", "36"),
        ("2^-3!", "0.015625"),
        ("3!!", "720"),
        ("(1+2)!", "6"),
        ("sqrt(9)!", "6"),
        ("7 // 2 * 2", "6"),
        ("7 mod 4*2", "6"),
        ("10 MOD 4", "2"),
        ("10mod 4", "2"),
        ("2×3÷4−1", "0.5"),
        ("−2^2", "-4"),
        ("2−−2", "4"),
        ("10%(-3)", "1"),
        ("10 mod -3", "1"),
        ("10 % 3", "1"),
        ("1e3", "1000"),
        ("2+2=", "4"),
        ("2 + 2 =", "4"),
        ("= 2+2=", "4"),
        ("5!=", "120"),
        ("max (1, 2) + 3", "5"),
        ("sqrt (4)", "2"),
        ("média(1, 2, 6)", "3"),
        ("MÉDIA (1, 2) * 2", "3.0"),
        ("0.1+0.2-0.3", "0.0"),
        ("(1)", "1"),
        ("\t2 +\t2 ", "4"),
    ],
)
def test_the_order_of_operations(text: str, worth: str) -> None:
    assert ask(text) == [worth]


def test_each_step_is_rounded() -> None:
    assert ask("1/3*3", "= 1/3+1/3+1/3", precision=5) == ["0.99999", "0.99999"]
    assert ask("= 1.25", "= -1.25", precision=2, rounding="ceiling") == ["1.3", "-1.2"]


def test_a_literal_is_taken_as_it_is_written() -> None:
    assert ask("1000007 - 1000000", "= 1000007", precision=3) == ["7", "1000000"]


# What is no expression


NUMBER = "expected a number, a name or a parenthesis"
OPERATOR = "expected an operator"
PERCENT = (
    "SYNTAX column {}: % is the remainder of a division: write 0.10 for 10%; a negative divisor "
    "needs parentheses"
)
OR = "see HELP, or write * to multiply"
COMMA = "write 1000.50, not 1,000.50"
CLOSE = "expected an operator or a parenthesis"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("=", f"SYNTAX column 2: {NUMBER}, got end of line"),
        ("= ", f"SYNTAX column 3: {NUMBER}, got end of line"),
        ("2+", f"SYNTAX column 3: {NUMBER}, got end of line"),
        ("  2 +  ", f"SYNTAX column 8: {NUMBER}, got end of line"),
        ("2+*3", f"SYNTAX column 3: {NUMBER}, got '*'"),
        ("2 3", f"SYNTAX column 3: {OPERATOR}, got '3': two numbers need an operator between them"),
        ("2 x", f"SYNTAX column 3: {OPERATOR}, got 'x': write * to multiply"),
        ("2 e", f"SYNTAX column 3: {OPERATOR}, got 'e': write * to multiply"),
        ("2(3)", f"SYNTAX column 2: {OPERATOR}, got '(': write * to multiply"),
        ("(2)(3)", f"SYNTAX column 4: {OPERATOR}, got '(': write * to multiply"),
        ("pi 2", f"SYNTAX column 4: {OPERATOR}, got '2': write * to multiply"),
        ("2)", f"SYNTAX column 2: {OPERATOR}, got ')'"),
        ("(2", f"SYNTAX column 3: {CLOSE}, got end of line"),
        ("(2 3)", f"SYNTAX column 4: {CLOSE}, got '3'"),
        ("()", f"SYNTAX column 2: {NUMBER}, got ')'"),
        (
            "= 1,5",
            f"SYNTAX column 4: expected an operator, got a comma: {COMMA}",
        ),
        ("= (1,5)", f"SYNTAX column 5: {CLOSE}, got a comma: {COMMA}"),
        ("= ,5", f"SYNTAX column 3: {NUMBER}, got a comma: {COMMA}"),
        ("= max(1,)", f"SYNTAX column 9: {NUMBER}, got ')'"),
        ("= max(1", f"SYNTAX column 8: {CLOSE}, got end of line"),
        ("2***3", f"SYNTAX column 4: {NUMBER}, got '*'"),
        (
            "= 1..2",
            f"SYNTAX column 5: {OPERATOR}, got '.2': two numbers need an operator between them",
        ),
        ("= .", f"SYNTAX column 3: {NUMBER}, got '.'"),
        ("= 1e", f"SYNTAX column 4: {OPERATOR}, got 'e': write * to multiply"),
        ("= 1_000", f"SYNTAX column 4: {OPERATOR}, got '_': write digits without separators"),
        ("1'000", f"SYNTAX column 2: {OPERATOR}, got ''': write digits without separators"),
        ("= 0x10", f"SYNTAX column 4: {OPERATOR}, got 'x10': write numbers in decimal"),
        ("2+0B1", f"SYNTAX column 4: {OPERATOR}, got 'B1': write numbers in decimal"),
        ("10x", f"SYNTAX column 3: {OPERATOR}, got 'x': write * to multiply"),
        ("1,000 + 1", f"SYNTAX column 2: {OPERATOR}, got a comma: {COMMA}"),
        ("1 000", f"SYNTAX column 3: {OPERATOR}, got '000': write digits without separators"),
        (
            "été+1",
            "UNKNOWN-NAME column 1: unknown variable 'été': names have the letters a to z, without "
            "accents",
        ),
        ("pi(2)", f"SYNTAX column 3: {OPERATOR}, got '(': write * to multiply"),
        ("SUM -1", "UNKNOWN-NAME column 1: unknown variable 'SUM': did you mean ADD?"),
        ("sum -1", "UNKNOWN-NAME column 1: unknown variable 'sum': assign a value first"),
        ("x == 5", f"SYNTAX column 4: {NUMBER}, got '='"),
        ("2+2 = 4", "SYNTAX column 5: only NAME = EXPRESSION has more after ="),
        ("= = 4", f"SYNTAX column 3: {NUMBER}, got '='"),
        ("x = y = 4", f"SYNTAX column 7: {OPERATOR}, got '='"),
        ("x = 5 =", f"SYNTAX column 7: {OPERATOR}, got '='"),
        ("10%", PERCENT.format(3)),
        ("10% + 5", PERCENT.format(3)),
        ("100 + 10% - 5", PERCENT.format(9)),
        ("10 % -3", PERCENT.format(4)),
        ("(10%)*2", PERCENT.format(4)),
        ("10%*2", PERCENT.format(3)),
        ("%3", f"SYNTAX column 1: {NUMBER}, got '%'"),
        ("!3", f"SYNTAX column 1: {NUMBER}, got '!'"),
        ("2×3×", f"SYNTAX column 5: {NUMBER}, got end of line"),
        ("2²", f"SYNTAX column 2: {OPERATOR}, got '²'"),
        (
            "1.000.000",
            f"SYNTAX column 6: {OPERATOR}, got '.000': write digits without separators",
        ),
        ("Foo+1", "UNKNOWN-NAME column 1: unknown variable 'Foo': assign a value first"),
        ("2 € 3", f"SYNTAX column 3: {OPERATOR}, got '€'"),
        (
            "= SUB 5 3",
            f"SYNTAX column 7: {OPERATOR}, got '5': a function has parentheses, as in max(1, 2)",
        ),
        ("2 + sqrt", "SYNTAX column 5: 'sqrt' is an operation: HELP SQRT shows how it is used"),
        ("2 + PING", "SYNTAX column 5: 'PING' is an operation: HELP PING shows how it is used"),
        ("= $", f"SYNTAX column 3: {NUMBER}, got '$'"),
        ("= \x00", rf"SYNTAX column 3: {NUMBER}, got '\x00'"),
        ("x = 2+", f"SYNTAX column 7: {NUMBER}, got end of line"),
        ("x = y", "UNKNOWN-NAME column 5: unknown variable 'y': assign a value first"),
        ("= 2*(z)", "UNKNOWN-NAME column 6: unknown variable 'z': assign a value first"),
        ("foo(2)", f"UNKNOWN-NAME column 1: unknown function 'foo': {OR}"),
        ("2*foo (2)", f"UNKNOWN-NAME column 3: unknown function 'foo': {OR}"),
        ("ping()", f"UNKNOWN-NAME column 1: unknown function 'ping': {OR}"),
        ("sqr(2)", "UNKNOWN-NAME column 1: unknown function 'sqr': did you mean SQRT?"),
        ("= ans", "UNKNOWN-NAME ANS has no value yet"),
        ("= sqrt()", "WRONG-OPERANDS SQRT needs 1 operand, got 0: SQRT number"),
        ("= sqrt(1,2)", "WRONG-OPERANDS SQRT needs 1 operand, got 2: SQRT number"),
        ("= sub(1)", "WRONG-OPERANDS SUB needs 2 operands, got 1: SUB minuend subtrahend"),
        ("= 1/0", "DIVISION-BY-ZERO division by zero"),
        ("= 1%0", "DIVISION-BY-ZERO division by zero"),
        ("= 0/0", "DIVISION-UNDEFINED 0 divided by 0 is undefined"),
        ("= 9e6144*9", "OVERFLOW the result is too large: it must be below 1E+6145"),
        ("= sqrt(-1)", "INVALID-OPERATION square root of a negative number"),
        (
            "(-2)^0.5",
            "INVALID-OPERATION a negative number to a power that is not whole",
        ),
        (
            "= " + "(" * 51 + "1" + ")" * 51,
            "SYNTAX column 53: more than 50 nested parentheses or powers",
        ),
        (
            "= (1)+(1)+" + "(" * 51 + "1" + ")" * 51,
            "SYNTAX column 61: more than 50 nested parentheses or powers",
        ),
        (
            "= " + "^".join(52 * ["1"]),
            "SYNTAX column 104: more than 50 nested parentheses or powers",
        ),
    ],
)
def test_an_error_says_what_was_expected_and_where(text: str, error: str) -> None:
    assert ask(text) == [f"ERR {error}"]


def test_fifty_within_each_other_are_none_too_many() -> None:
    assert ask("= " + "(" * 50 + "1" + ")" * 50) == ["1"]
    assert ask("= " + "^".join(51 * ["1"])) == ["1"]
    assert ask("= " + "sqrt(" * 50 + "1" + ")" * 50) == ["1"]
    assert ask("= " + "+".join(60 * ["(1)"])) == ["60"]


tokens = st.sampled_from(
    [
        *(*"+-*/%^(),=.0123456789()()", "**", "1.5", "1e5", "9e6144", "x", "pi", "e", "ans"),
        *("sqrt", "max", "fact(", "SOMA", "PRECISION", "x = ", *" \t_$\x00\xe9"),
    ]
)


@given(st.lists(tokens, max_size=25).map("".join))
def test_any_tokens_get_one_reply(soup: str) -> None:
    line = f"= {soup}"
    replies = ask("x = 2", line)
    assert len(replies) == 2
    assert not replies[1].startswith("ERR INTERNAL")
    if replies[1].startswith(("ERR SYNTAX ", "ERR UNKNOWN-NAME ")):
        column = re.search(r" column (\d+): ", replies[1])
        if column is None:
            assert replies[1].endswith(("ANS has no value yet", "at most 64 characters"))
            return
        assert 1 <= int(column[1]) <= len(line) + 1
