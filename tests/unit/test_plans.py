"""Plans: the replies are those of the interpreter, whichever way a line goes."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session

from calcd.core.decimal128 import ROUNDINGS, Arithmetic
from calcd.core.expressions import Statement
from calcd.core.interpreter import Interpreter
from calcd.core.plans import NUMBER, PLANS, Plan, Plans

numbers = st.one_of(
    st.sampled_from(["0", "1", "2", "3", "0.10", "2.50", "-1", "1e3", "1e-9", "0e-40", "1e6000"]),
    st.decimals(-1000, 1000, places=2).map(str),
    st.integers(0, 10**36).map(str),
)
SHAPES = [
    *(
        "SOMA {} {}",
        "SOMA {} {} {}",
        "Mul {} {}",
        "sub {} {}",
        "DIV {} {}",
        "MIN {} {} {}",
        "SOMA {}",
    ),
    *("ROUND {} 2", "round({}*0.23, 2)", "= round({}/3, {})", "TRUNC {} 1", "SQRT {}", "x = {}"),
    *("x = x + {}", "ans + {}", "*{}", "x*{}", "({}+{})*{}/{}", "{}+{}-{}", "{}^2", "{}!", "-{}"),
    *(
        "{} % {}",
        "{} // {}",
        "y",
        "pi*{}",
        "MEAN {} {}",
        "{}=",
        "2({})",
        "{} {}",
        "x == {}",
        "z = {}",
    ),
    *(
        "MAX {} ans",
        "x*y - {}",
        "-{} - -{}",
        "ROUND {} {}",
        "MUL x {}",
        "exp({})/{}",
        "(1/3*{} + {}) - {}",
        "NEG {}",
        "{}.{}",
        "{}e5",
        "#{}",
    ),
    *("UPPER {}", "PING", "", "  ", "SOMA {} x", "1e20+{}+{}/3-1e20"),
]
SETTINGS = [
    *(
        "PRECISION 5",
        "PRECISION 34",
        "PRECISION 50",
        "EXACT on",
        "EXACT off",
        "NOTATION scientific",
    ),
    *("NOTATION plain", "CLEAR", "LANGUAGE pt", *(f"ROUNDING {mode}" for mode in ROUNDINGS)),
]
lines = st.one_of(
    st.sampled_from(SETTINGS),
    st.sampled_from(SHAPES).flatmap(
        lambda shape: st.lists(
            st.tuples(*shape.count("{}") * [numbers]).map(lambda each: shape.format(*each)),
            min_size=1,
            max_size=20,  # more than are computed in columns
        ).map("\n".join)
    ),
)


def forget() -> None:
    PLANS.clear()


@given(st.lists(lines, max_size=12), st.sampled_from(["\n", "\r\n"]), st.integers(1, 400))
def test_any_lines_get_the_replies_of_the_interpreter(
    parts: list[str], end: str, size: int
) -> None:
    """Sent ahead, again with plans, one by one, and cut anywhere, against lines without plans."""
    text = "".join(line + end for part in parts for line in part.split("\n"))
    data = text.encode()
    logged: list[tuple[str, str]] = []
    ruled = new_session(on_request=lambda *each: logged.append(each))  # knows no plans
    expected = answered(ruled, data) if data else b""
    forget()
    for _ in range(3):
        planned = new_session()
        assert (answered(planned, data) if data else b"") == expected
        assert planned.counters == ruled.counters
        context, right = planned.interpreter.context, ruled.interpreter.context
        assert context.variables == right.variables
        assert list(map(str, context.variables.values())) == list(
            map(str, right.variables.values())
        )
        assert str(context.answer) == str(right.answer)
        cut = new_session()
        pieces = [data[begin : begin + size] for begin in range(0, len(data), size)]
        assert b"".join(answered(cut, piece) for piece in pieces) == expected


@pytest.mark.parametrize("rows", [3, 20])  # one by one, and in columns
@pytest.mark.parametrize("precision", [34, 5, 50])
@pytest.mark.parametrize("places", ["-6144", "-6111", "-6100", "6176", "6148"])
def test_places_at_the_limits_of_the_exponent_are_not_those_of_another_precision(
    rows: int, precision: int, places: str
) -> None:
    lines = [f"round({number}, {places})" for number in ["9e6143", "8e6110", "5"] * rows]
    forget()
    for digits in precision, 1, 34:
        settings = ["NOTATION scientific", "ROUNDING up", f"PRECISION {digits}"]
        data = "".join(f"{line}\n" for line in [*settings, *lines]).encode()
        ruled = new_session(on_request=lambda *_: None)  # knows no plans
        assert answered(new_session(), data) == answered(ruled, data)


def test_a_shape_is_planned_when_it_comes_for_the_second_time() -> None:
    forget()
    session = new_session()
    for count, expected in enumerate([None, None, True]):
        assert bool(PLANS.get("(#+#)*#")) is bool(expected), count
        answered(session, b"(1+2)*%d\n" % count)
    assert answered(session, b"(1.5+2)*-3\n") == b"-10.5\n"
    assert PLANS.get("(#+#)*-#") is None


@pytest.mark.parametrize(
    "line", ["PING", "SOMA 1 x", "1/0", "2(3)", "UPPER a", "PRECISION 9", "1.2.3"]
)
def test_what_is_no_computation_is_never_planned(line: str) -> None:
    forget()
    session = new_session()
    for _ in range(4):
        answered(session, f"{line}\n".encode())
    assert not any(PLANS.get(shape) for shape in ("PING", "SOMA # x", "#(#)", "UPPER a", "#.#"))


def plan(cache: Plans, shape: str, line: str) -> None:
    """Have a shape planned, as if its line had come twice."""
    interpreter = Interpreter(Arithmetic())
    interpreter.budget.start_call()

    def statement() -> Statement | None:
        interpreter.budget.start_line(0)
        return interpreter.plannable(line)

    for _ in range(2):
        cache.add(shape, NUMBER.findall(line), statement)


def test_there_is_an_end_to_plans_and_those_in_use_stay() -> None:
    cache = Plans(100)
    plan(cache, "#+#", "1+2")
    for number in range(1000):
        found = cache.get("#+#")
        assert found
        found.recently_used = True
        plan(cache, f"#+#*x{number}", f"1+2*x{number}")
        assert len(cache) <= 100
    assert cache.get("#+#*x999")
    assert cache.get("#+#*x1") is None


def test_what_cannot_be_planned_is_not_tried_again() -> None:
    forget()
    session = new_session()
    answered(session, 3 * b"PING\n")
    assert PLANS.get("PING") is False


def test_a_long_shape_is_not_planned() -> None:
    cache = Plans()
    for line in ("1" + "+1" * 10, "1" + " " * 200 + "+1"):
        shape = NUMBER.sub("#", line)
        plan(cache, shape, line)
        assert not cache.get(shape)


def test_shapes_that_mean_the_same_share_a_plan() -> None:
    cache = Plans()
    lines = ["1+2*x", "= 1 + 2*X", "1+2 * x =", "1+2*y", "1-2*x", "1+-2*x", "z = 1+2*x"]
    for line in lines:
        plan(cache, NUMBER.sub("#", line), line)
    first, *others = (cache.get(NUMBER.sub("#", line)) for line in lines)
    assert first
    assert [each is first for each in others] == [True, True, False, False, False, False]
    assert all(others)


def test_a_number_of_a_shape_may_be_out_of_range_or_none() -> None:
    forget()
    session = new_session()
    answered(session, 3 * b"3 + 4\n")
    assert PLANS.get("# + #")
    replies = answered(session, b"1e9999999999999999999 + 1\n1.2.3 + 4\n. + 5\n2 + 2\n").split(
        b"\n"
    )
    assert [reply[:18] for reply in replies] == [
        *(b"ERR INVALID-NUMBER", b"ERR SYNTAX column ", b"ERR SYNTAX column ", b"4", b""),
    ]


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("SOMA 1 -2.5", "SOMA # -#"),
        ("x1 = .5e-3", "x1 = #"),
        ("1.5.2", "#"),
        ("2pi+1e5e5", "#pi+#e5"),
    ],
)
def test_what_is_a_number_in_a_shape(line: str, shape: str) -> None:
    assert NUMBER.sub("#", line) == shape


def test_lines_of_one_shape_are_computed_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    compute = Plan.compute_columns

    def counted(plan: Plan, numbers: list[str], *others: Any) -> list[Decimal]:
        rows.append(len(numbers) // plan.count)
        return compute(plan, numbers, *others)

    monkeypatch.setattr(Plan, "compute_columns", counted)
    session = new_session()
    answered(session, b"x = 3\n" + 2 * b"(1.0+x)*2\n")
    lines = [f"({number}.5+x)*10\n" for number in range(20)]
    replies = answered(session, "".join(lines).encode())
    assert replies.decode().split() == [f"{10 * number + 35}.0" for number in range(20)]
    assert rows == [20]
    lines[10] = "(1e9999999999999999999+x)*10\n"  # the others have results all the same
    replies = answered(session, "".join(lines).encode())
    assert replies.count(b"\n") == 20
    assert replies.count(b"ERR ") == 1
    assert rows == [20, 20]


def test_quitting_within_a_block_drops_what_follows() -> None:
    session = new_session()
    assert answered(session, b"SOMA 1 2 3\nQUIT\nSOMA 4 5 6\n") == b"6\nBYE\n"
    assert session.close_reason
    assert answered(session, b"SOMA 1 1\n") == b""


@pytest.mark.parametrize("way", ["compute", "compute_columns"])
def test_a_bug_in_a_plan_costs_its_line_alone(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bugs: list[str] = []
    session = new_session(on_bug=bugs.append)
    answered(session, 2 * b"(1+2)*3\n")
    found = PLANS.get("(#+#)*#")
    assert found

    def broken(*_: object) -> Decimal:
        raise ZeroDivisionError

    if way == "compute":
        found.compute = broken
    else:
        monkeypatch.setattr(Plan, way, broken)
    rows = 1 if way == "compute" else 8
    replies = answered(session, b"1 + 1\n" + rows * b"(1+2)*4\n" + b"2 + 2\n").split(b"\n")
    assert (replies[0], replies[1][:13], replies[rows + 1]) == (b"2", b"ERR INTERNAL ", b"4")
    assert bugs == ["(1+2)*4"]
    assert session.counters.errors == 1
