"""Any bytes, any cut: the same replies from plans, from batches, and from a tree-walking evaluator.

The evaluator is written from docs/protocol.md and shares no code with calcd.
"""

import decimal
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from documents import PROTOCOL
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sessions import answered, new_session
from tree_walking import MODES, TreeWalker

from calcd.core import plans
from calcd.core.decimal128 import Arithmetic
from calcd.core.plans import PLANS, Node
from calcd.core.session import Session

numbers = st.one_of(
    st.integers(0, 12).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(
        [
            *(
                "0",
                "0.00",
                "-0",
                "0.10",
                ".5",
                "3.",
                "+7",
                "007",
                "2.50",
                "-1",
                "−2",
                "1e3",
                "1E+2",
            ),
            *("1e-9", "0e-40", "0e5", "1e6000", "-1e-6000", "9e6144", "1e-6170", "1e33", "1e34"),
            *("5e-34", "5e-36", "99999", "999995e-1", "123456789012345678901234567890123450.0"),
            *("0.1000000000000000000000000000000000000001", "1e99999999999999999999"),
        ]
    ),
)
NUMBER = "{}"  # in a template, where a number will stand
names = st.sampled_from(["x", "Y", "total", "ans", "Ans"])
signs = st.sampled_from(
    [*("+", "-", "*", "/", " + ", " - ", " * ", " / ", "//", " % ", " mod ", "×", "÷", "−", " -")]
)
blanks = st.sampled_from(["", "", " ", "\t"])
unary = st.sampled_from(["ABS", "neg", "SQRT", "Raiz"])
many = st.sampled_from(["ADD", "soma", "Mul", "MIN", "max", "MEAN", "Media", "média"])
two = st.sampled_from(["SUB", "sub", "DIV", "idiv", "QUOC", "MOD", "resto", "CMP", "comp"])


def _compound(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(parts, signs, parts).map("".join),
        st.tuples(parts, signs, parts).map("".join),
        st.tuples(blanks, parts, blanks).map(lambda each: f"({''.join(each)})"),
        parts.map(lambda part: f"-{part}"),
        parts.map(lambda part: f"+ {part}"),
        st.tuples(parts, st.sampled_from(["^2", "^3", "**0", "^-1", "!", "!"])).map("".join),
        st.tuples(parts, st.sampled_from(["2", "0", "-1", "5"])).map(
            "round({0[0]}, {0[1]})".format
        ),
        st.tuples(unary.filter(str.isascii), parts).map("{0[0]}({0[1]})".format),
        st.tuples(many.filter(str.isascii), st.lists(parts, min_size=1, max_size=3)).map(
            lambda each: f"{each[0]}({', '.join(each[1])})"
        ),
    )


expressions = st.recursive(
    st.one_of(st.just(NUMBER), st.just(NUMBER), names), _compound, max_leaves=6
)
operands = st.one_of(st.just(NUMBER), st.just(NUMBER), st.just(NUMBER), names)
templates = st.one_of(
    st.tuples(st.sampled_from(["SOMA", "sub", "Mul", "DIV"]), st.just("{}"), st.just("{}")).map(
        " ".join
    ),
    st.tuples(many, st.lists(operands, min_size=1, max_size=4).map(" ".join)).map(" ".join),
    st.tuples(two, operands, operands).map(" ".join),
    st.tuples(unary, operands).map(" ".join),
    st.sampled_from(["ROUND {} 2", "arred {} 0", "ROUND {} -1", "ROUND x {}", "POT {} 2", "fat 7"]),
    expressions,
    expressions,
    expressions.map("{}=".replace("{}", "{0}").format),
    expressions.map("= {0}".format),
    st.tuples(st.sampled_from(["*", "/", "// ", "^", "** ", "× ", "mod "]), expressions).map(
        "".join
    ),
    st.tuples(st.sampled_from(["x=", "x = ", "y =", "Total = "]), expressions).map("".join),
    # What is no computation, and what is wrong.
    st.sampled_from(
        [
            *("", " \t", "PING", "ping", "CLEAR", "z", "z 1", "z+{}", "SUB {}", "SOMA {} z", "%{}"),
            *("2({})", "{} {}", "({}", "{})", "{}+", "x == {}", "soma = {}", "ans = {}"),
            *("= x = {}", "MOD {}", "mod z", "SQRT z", "-z", "SUB", "foo {} {}", "x {}"),
            *("SOMA {},5 2", "SOMA 1_000 {}", "1.2.3", "{}#{}", "f({})", "{}%", "10 % -{}", "0x1F"),
            *("div({})", "neg(1, {})", "RAIZ {} {}", "SOMA nan {}", "x{}", "{}x", "{}e5", "{}.{}"),
        ]
    ),
    st.sampled_from(
        [
            *("PRECISION", "PRECISION 5", "precisao 34", "PRECISION 50", "PRECISION 0", "ROUNDING"),
            *("EXACT on", "exato OFF", "EXACT", "EXACT perhaps", "NOTATION scientific", "NOTATION"),
            *("notacao plain", "ROUNDING sideways", *(f"ROUNDING {mode}" for mode in MODES)),
        ]
    ),
)
# Lines of one shape, as a script sends them: as many as a batch has, at times.
blocks = st.tuples(templates, st.sampled_from([1, 2, 3, 5, 70])).flatmap(
    lambda each: st.lists(
        st.tuples(*each[0].count(NUMBER) * [numbers]).map(lambda row: each[0].format(*row)),
        min_size=1,
        max_size=5,
    ).map(lambda rows: rows * each[1] if each[1] == 70 else rows)
)
# Bytes that no line end, telnet command or end of input is made of: lines, mostly wrong ones. None
# begins with a byte order mark, which a first line would lose.
garbage = st.binary(min_size=1, max_size=30).map(
    lambda data: [
        data.translate(None, b"\n\r\0\4\xff").decode(errors="surrogateescape").lstrip("\ufeff")
    ]
)
mixed = st.lists(st.one_of(*6 * [blocks], garbage), min_size=1, max_size=8)
ends = st.sampled_from(["\n", "\r\n"])


def _replies(session: Session, reads: Sequence[bytes]) -> bytes:
    """Give a session these reads, and the end of its input; return its replies."""
    return answered(session, *filter(None, reads), b"")


def _check_walked(parts: Sequence[Sequence[str]], end: str, size: int, has_end: bool) -> None:
    """Compare the replies to lines with those of the tree walker, whichever way they are sent.

    ``has_end``: whether the last line has its line end. What the walker does not know is not sent.
    """
    walker = TreeWalker()
    sent: list[bytes] = []
    expected: list[tuple[str, str]] = []  # lines, and what their replies are
    for part in parts:
        walked = [(line, walker.reply(line)) for line in part]
        known = [(line, reply) for line, reply in walked if reply is not None]
        if known:
            lines = "".join(line + end for line, _ in known)
            sent.append(lines.encode(errors="surrogateescape"))
        expected += [(line, reply + end if reply else "") for line, reply in known]
    if expected and not has_end:
        sent[-1] = sent[-1].removesuffix(end.encode())
        line, reply = expected[-1]
        expected[-1] = line, reply.replace("\r", "")
    expected = [(line, reply) for line, reply in expected if reply]
    data = b"".join(sent)
    ways = [
        [data],
        sent,
        [line + b"\n" for line in data.split(b"\n")],
        [data[begin : begin + size] for begin in range(0, len(data), size)],
    ]
    PLANS.clear()
    for _ in range(3):
        for way in ways:
            replies = re.findall(".*\n", _replies(new_session(), way).decode())
            assert len(replies) == len(expected)
            for (line, right), reply in zip(expected, replies, strict=True):
                assert (line, _code(reply, right)) == (line, right)


def _code(reply: str, right: str) -> str:
    """Return a reply as the tree walker has it: without an error's words, if it tells the code."""
    found = re.fullmatch(r"(ERR) ([A-Z-]+) .*?(\r?\n)", reply)
    if not found:
        return reply
    return found[1] + found[3] if right.split() == ["ERR"] else f"ERR {found[2]}{found[3]}"


@given(mixed, ends, st.integers(1, 400), st.booleans())
def test_any_lines_get_the_replies_of_the_tree_walker(
    parts: list[list[str]], end: str, size: int, has_end: bool
) -> None:
    _check_walked(parts, end, size, has_end)


@given(
    st.lists(
        st.one_of(
            st.tuples(blocks, ends).map(lambda each: "".join(line + each[1] for line in each[0])),
            st.sampled_from(
                ["LANGUAGE pt\n", "UPPER a\n", "pi\n", "sin(2)\n", "QUIT\n", "VARS\r\n"]
            ),
            st.binary(max_size=40),
        ).map(lambda part: part if isinstance(part, bytes) else part.encode()),
        max_size=8,
    ).map(b"".join),
    st.integers(1, 400),
)
def test_any_bytes_get_the_replies_that_they_get_without_plans(data: bytes, size: int) -> None:
    reads = [data[begin : begin + size] for begin in range(0, len(data), size)]
    logged: list[tuple[str, str]] = []
    ruled = new_session(on_request=lambda *each: logged.append(each))  # neither plans nor batches
    expected = _replies(ruled, [data])
    PLANS.clear()
    for _ in range(3):
        for way in ([data], reads):
            session = new_session()
            assert _replies(session, way) == expected
            assert session.close_reason == ruled.close_reason
            assert session.counters == ruled.counters
            context, right = session.interpreter.context, ruled.interpreter.context
            assert str(context.answer) == str(right.answer)
            assert str(context.variables) == str(right.variables)


def _swapped_in_plans(patch: pytest.MonkeyPatch) -> None:
    made = plans._binary

    def swapped(method: Callable[..., Decimal], left: Node | None, right: Node | None) -> Node:
        return made(lambda context, one, other: method(context, other, one), left, right)

    patch.setattr(plans, "_binary", swapped)


def _swapped_in_batches(patch: pytest.MonkeyPatch) -> None:
    made = Arithmetic.calculate_batch

    def swapped(
        self: Arithmetic, names: Sequence[str], lefts: Sequence[str], rights: Sequence[str]
    ) -> list[str]:
        return made(self, names, rights, lefts)

    patch.setattr(Arithmetic, "calculate_batch", swapped)


def _another_rounding_everywhere(patch: pytest.MonkeyPatch) -> None:
    made = Arithmetic.__post_init__

    def rounding_down(self: Arithmetic) -> None:
        made(self)
        self.context.rounding = decimal.ROUND_DOWN

    patch.setattr(Arithmetic, "__post_init__", rounding_down)


def _zeros_kept_everywhere(patch: pytest.MonkeyPatch) -> None:
    def text(_: Arithmetic, number: Decimal) -> str:
        return str(number)

    patch.setattr(Arithmetic, "text", text)


@pytest.mark.parametrize(
    "break_it",
    [
        _swapped_in_plans,
        _swapped_in_batches,
        _another_rounding_everywhere,
        _zeros_kept_everywhere,
    ],
)
def test_the_comparison_finds_what_is_broken(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)

    @settings(max_examples=1000, phases=[Phase.generate], database=None, derandomize=True)
    @given(mixed, ends, st.integers(1, 400), st.booleans())
    def check(parts: list[list[str]], end: str, size: int, has_end: bool) -> None:
        _check_walked(parts, end, size, has_end)

    with pytest.raises(AssertionError):
        check()
    PLANS.clear()  # of broken plans


def test_the_tree_walker_knows_the_examples_of_the_protocol() -> None:
    """Its replies are those that the page's tables show, where the line is one that it knows."""
    known = 0
    rows = re.findall(r"^\| (`[^|]*`) \| (`[^|]*`) \|$", PROTOCOL.read_text(), re.MULTILINE)
    for cells in rows:
        requests, replies = (re.findall("`(.*?)`", cell) for cell in cells)
        walker = TreeWalker()
        for request, reply in zip(requests, replies, strict=True):
            found = walker.reply(request)
            known += found is not None
            shown = " ".join(reply.split(" ")[:2]) if reply.startswith("ERR ") else reply
            assert found in (None, shown), request
    assert known > 60
