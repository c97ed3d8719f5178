"""A session's settings and memory: commands, names, ANS, EXACT, and the words of both languages."""

import ast
import re
from itertools import chain
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session

import calcd
from calcd.core import decimal128
from calcd.core.commands import BY_NAME, TABLE
from calcd.core.decimal128 import ROUNDINGS
from calcd.core.interpreter import MAX_VARIABLES, Interpreter
from calcd.core.messages import PORTUGUESE
from calcd.core.operations import ARITHMETIC, Operation
from calcd.core.session import Session


def ask(*lines: str, session: Session | None = None) -> list[str]:
    """Ask for these lines, in a read each, of a new session if none is given."""
    session = session or new_session()
    return [answered(session, f"{line}\n".encode()).decode().rstrip("\n") for line in lines]


def codes(*lines: str) -> list[str]:
    """Give the replies to these lines, of errors only the code."""
    return [re.sub(r"^ERR (\S+) .+$", r"\1", reply) for reply in ask(*lines)]


# Commands, with and without operands


def test_stats_tell_what_the_server_has_counted() -> None:
    counted = {"connections_open": 2, "errors.SYNTAX": 0}
    session = Session(Interpreter(decimal128.Arithmetic(), stats=counted.items))
    told = f"version={calcd.__version__} connections_open=2 errors.SYNTAX=0"
    assert ask("STATS", "stats", session=session) == [told, told]
    counted["connections_open"] = 3
    assert ask(" STATS ", session=session) == [told.replace("=2", "=3")]
    assert ask("STATS x", session=session)[0].startswith("ERR WRONG-OPERANDS ")
    assert ask("STATS") == [f"version={calcd.__version__}"]  # no server has this session


def test_errors_are_counted_by_code() -> None:
    session = new_session(1000)
    ask("X", "1/0", "DIV 1 0", "EXP -", "1/3", "EXP 1e9", session=session)  # the last is a job
    assert session.counters.errors_by_code == {
        "UNKNOWN-OPERATION": 1,
        "DIVISION-BY-ZERO": 2,
        "INVALID-NUMBER": 1,
        "OVERFLOW": 1,
    }
    assert session.counters.errors == 5


@pytest.mark.parametrize(
    ("lines", "replies"),
    [
        (["PRECISION", "precision 5", "PRECISION", "1/3"], ["34", "5", "5", "0.33333"]),
        (["PRECISION 1", "PRECISION 1000", "PRECISION 007"], ["1", "1000", "7"]),
        (["PRECISION 0", "PRECISION 1001", "PRECISION -1"], 3 * ["INVALID-NUMBER"]),
        (["PRECISION x", "PRECISION 1.0", "PRECISION 1e1"], 3 * ["INVALID-NUMBER"]),
        (["PRECISION 00034", "PRECISION +5", "PRECISION ٣"], 3 * ["INVALID-NUMBER"]),
        (["PRECISION 5 5"], ["WRONG-OPERANDS"]),
        (["PRECISION 5", "PRECISION 0", "PRECISION"], ["5", "INVALID-NUMBER", "5"]),
        (["ROUNDING", "ROUNDING UP", "rounding"], ["half-even", "up", "up"]),
        ([f"ROUNDING {mode}" for mode in ROUNDINGS], list(ROUNDINGS)),
        (["ROUNDING half_even", "ROUNDING x", "ROUNDING"], [*2 * ["UNKNOWN-NAME"], "half-even"]),
        (["ROUNDING up down"], ["WRONG-OPERANDS"]),
        (["PRECISION 2", "ROUNDING floor", "= -1.21"], ["2", "floor", "-1.3"]),
        (["EXACT", "EXACT On", "EXACT", "EXACT OFF", "EXACT"], ["off", "on", "on", "off", "off"]),
        (["EXACT yes", "EXACT 1", "EXACT on off"], [*2 * ["UNKNOWN-NAME"], "WRONG-OPERANDS"]),
        (["LANGUAGE", "LANGUAGE PT", "LANGUAGE", "language en"], ["en", "pt", "pt", "en"]),
        (["LANGUAGE fr", "LANGUAGE pt en"], ["UNKNOWN-NAME", "WRONG-OPERANDS"]),
        (["VARS", "x = 1", "Y = 2.50", "VARS"], ["no variables", "1", "2.50", "x=1 y=2.50"]),
        (["VARS x", "CLEAR x"], 2 * ["WRONG-OPERANDS"]),
        (["LANGUAGE pt", "VARS"], ["pt", "nenhuma variável"]),
        # a session's settings do not touch what it knows, but how it is rounded
        (["x = 1/3", "PRECISION 3", "= x", "0+x"], ["0." + 34 * "3", "3", *2 * ["0.333"]]),
    ],
)
def test_what_commands_reply(lines: list[str], replies: list[str]) -> None:
    assert codes(*lines) == replies


def test_clear_forgets_names_and_the_answer_and_nothing_else() -> None:
    before = ["x = 2", "PRECISION 5", "ROUNDING up", "EXACT on", "CLEAR"]
    after = ["VARS", "= x", "= ans", "PRECISION", "ROUNDING", "EXACT"]
    replies = codes(*before, *after)[len(before) - 1 :]
    assert replies == ["OK", "no variables", "UNKNOWN-OPERATION", "UNKNOWN-NAME", "5", "up", "on"]


# ANS


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["SOMA 1 2", "= ans"], "3"),
        (["1+2", "= ANS*2"], "6"),
        (["x = 7", "= ans"], "7"),
        (["SOMA 1 2", "MUL ans Ans"], "9"),
        (["SOMA 1 2", "DIV 1 0", "= ans"], "3"),
        (["SOMA 1 2", "= 2+", "FOO", "SUB 1", "SOMA x 1", "= ans"], "3"),
        (["1+2", "x = 5", "ans"], "5"),
        (["1+2", "ans"], "3"),
        (["SOMA 1 2", "PING", "HELP", "PRECISION 9", "UPPER a", "VARS", "= ans"], "3"),
        (["DIV 1 3", "PRECISION 5", "= ans"], "0.33333"),
        (["SOMA 1.50 1.50", "SUB ans 0"], "3.00"),
        (["MUL 1e30 1e30", "= ans"], "1E+60"),
        (["MUL 1e3 2", "NOTATION scientific", "ans"], "2000"),
        (["= ans"], "UNKNOWN-NAME"),
        (["SOMA ans 1"], "UNKNOWN-NAME"),
        (["x = ans"], "UNKNOWN-NAME"),
        (["ans = 2"], "SYNTAX"),
    ],
)
def test_ans_is_the_last_result(lines: list[str], last: str) -> None:
    assert codes(*lines)[-1] == last


@pytest.mark.parametrize("many", [1, 2, 63, 64, 65, 128, 129, 200])
@pytest.mark.parametrize("last", ["", "DIV 1 0\n", "SOMA x 1\n", "\n"])
def test_ans_after_sums_sent_ahead(many: int, last: str) -> None:
    session = new_session()
    answered(session, ("".join(f"SOMA {number} 0.50\n" for number in range(many)) + last).encode())
    assert ask("= ans", session=session) == [f"{many - 1}.50"]


# Names


@pytest.mark.parametrize("name", ["x", "X", "total", "x1", "x_", "a_B_9", 64 * "n", "exp2", "pie"])
def test_what_can_be_a_name(name: str) -> None:
    assert ask(f"{name} = 2", f"= {name.swapcase()}+1", f"SOMA {name} 1") == ["2", "3", "3"]


@pytest.mark.parametrize(
    "name",
    [
        *("pi", "E", "ans", "ANS", "SOMA", "sqrt", "ping", "vars", "1x", "_x", "x-y", "x.y", "é"),
        *(65 * "n", "=", "(x)", "2", "mod", "sair", "ceil", "versao"),
    ],
)
def test_what_can_be_no_name(name: str) -> None:
    assert codes(f"{name} = 2", "VARS") == ["SYNTAX", "no variables"]


def test_an_assignment_needs_blanks_round_its_sign_no_more_than_a_text() -> None:
    assert ask("x = 1", "x =\t2", "x\t= 3", "  x  =  4  ", "UPPER = a") == [
        "1",
        "2",
        "3",
        "4",
        "= A",
    ]


def test_a_failed_assignment_leaves_the_name_as_it_was() -> None:
    assert codes("x = 1", "x = 1/0", "x = 2+", "= x")[1:] == ["DIVISION-BY-ZERO", "SYNTAX", "1"]
    assert codes("y = 1/0", "= y") == ["DIVISION-BY-ZERO", "UNKNOWN-OPERATION"]


def test_there_is_an_end_to_names() -> None:
    session = new_session()
    ask(*(f"x{number} = {number}" for number in range(MAX_VARIABLES)), session=session)
    refused, changed, last = ask("y = 1", "x7 = 8", "= x7+x99", session=session)
    assert refused == "ERR TOO-MANY-NAMES there are already 100 variables: CLEAR removes them"
    assert (changed, last) == ("8", "107")
    assert ask("CLEAR", "y = 1", session=session) == ["OK", "1"]


words = st.sampled_from(
    [
        *("x", "ans", "pi", "foo", "SOMA", "sqrt", "mod", "PING", "SUM", "2", "-1.50", "1e3", "5%"),
        *("+", "-", "*", "/", "//", "%", "^", "**", "!", "(", ")", ",", "×", "÷", "−", "max(", "é"),
    ]
)


def is_by_name(line: str) -> bool:
    """Say whether a line is an operation by name, with as many numbers and names as it takes."""
    name, *operands = line.split()
    operation = BY_NAME.get(name.upper())
    return (
        operation is not None
        and operation.allows(len(operands))
        and all(re.fullmatch(r"[+−-]?[0-9.e]+|[A-Za-z]+", each) for each in operands)
    )


@given(st.lists(words, min_size=1, max_size=8), st.sampled_from(["", " "]))
def test_what_is_no_operation_by_name_is_the_same_after_a_sign(parts: list[str], gap: str) -> None:
    line = gap.join(parts)
    if is_by_name(line):
        return
    before = ["x = 2", "5"]
    plain, marked, both = (ask(*before, each)[-1] for each in (line, f"={line}", f"= {line} ="))
    column = re.compile("column [0-9]+")
    assert column.sub("", marked) == column.sub("", plain)
    if not plain.startswith("ERR "):
        assert both == column.sub(lambda at: f"column {int(at[0][7:]) + 2}", plain)


# EXACT

INEXACT = {
    "SOMA": "SOMA 1 1e-40",
    "SUB": "SUB 1 1e-40",
    "MUL": f"MUL {'3' * 20} {'3' * 20}",
    "DIV": "DIV 1 3",
    "POT": "POT 3 100",
    "RAIZ": "RAIZ 2",
    "RESTO": f"RESTO 0.{'1' * 40} 1",
    "MIN": f"MIN {'1' * 40} {'2' * 40}",
    "MAX": f"MAX {'1' * 40} {'2' * 40}",
    "MEDIA": "MEDIA 1 1 2",
    "ABS": f"ABS -{'1' * 40}",
    "NEG": f"NEG {'1' * 40}",
    "EXP": "EXP 1",
    "LN": "LN 2",
    "LOG": "LOG 3 2",
    "LOG10": "LOG10 2",
    "ROOT": "ROOT 2 3",
    "SEN": "SEN 1",
    "COS": "COS 1",
    "TAN": "TAN 1",
    "ASEN": "ASEN 1",
    "ACOS": "ACOS 0",
    "ATAN": "ATAN 1",
    "FAT": "FAT 100",
    "MDC": f"MDC {'1' * 40} {'1' * 40}",
    "MMC": f"MMC {'1' * 40} 1",
    "PERM": "PERM 100 50",
    "COMB": "COMB 1000 500",
    "REDUZ": f"REDUZ {'1' * 40}",
}
ALWAYS_EXACT = {
    "COMP": "COMP 1 3",
    "QUOC": "QUOC 1 3",
    "ARRED": "ARRED 2.675 2",
    "PISO": "PISO 2.675",
    "TETO": "TETO 2.675 1",
    "TRUNC": "TRUNC 2.675 2",
}


@pytest.mark.parametrize(
    "operation", [*chain(*ARITHMETIC.values())], ids=lambda operation: operation.names[0]
)
def test_exact_makes_an_error_of_what_would_be_rounded(operation: Operation) -> None:
    name = operation.names[0]
    if name in ALWAYS_EXACT:
        rounded, exact = ask(ALWAYS_EXACT[name], "EXACT on", ALWAYS_EXACT[name])[::2]
        assert rounded == exact
        return
    _, reply, example, _, again = codes(
        "EXACT on", INEXACT[name], operation.example, "EXACT off", INEXACT[name]
    )
    assert reply == "INEXACT"
    assert example == operation.example_reply
    assert again != "INEXACT"


def test_exact_holds_for_expressions_and_literals() -> None:
    lines = ["EXACT on", "1/3", "= 1/4", "= " + "1" * 40, "x = 2/3", "= x", "= pi", "= e"]
    expected = ["on", "INEXACT", "0.25", *2 * ["INEXACT"], "UNKNOWN-OPERATION", *2 * ["INEXACT"]]
    assert codes(*lines) == expected


# Examples


@pytest.mark.parametrize("operation", TABLE, ids=lambda operation: operation.names[0])
def test_each_example_is_answered_as_the_table_says(operation: Operation) -> None:
    assert ask(operation.example) == [operation.example_reply]
    assert operation.example.split()[0] in operation.names


# Words


GIVEN = (
    *("RequestError", "UnfinishedError", "fail", "failure", "translate"),
    *("_unexpected", "_invalid", "_integers"),
)


def called(node: ast.Call) -> str:
    """Give the last part of the name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def given_words() -> set[str]:
    """Collect the templates that errors are given, and all else that is to be translated."""
    words: set[object] = {hint for _, hint in decimal128._HINTS}
    for path in sorted(Path(ROOT, "calcd").glob("*/*.py")):
        if path.parent.name not in ("core", "net"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and called(node) in GIVEN:
                words |= {each.value for each in node.args if isinstance(each, ast.Constant)}
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "template":
                words |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
            elif path.stem == "expressions" and isinstance(node, ast.Return):
                words |= {getattr(node.value, "value", None)}
    return {word for word in words if isinstance(word, str) and " " in word}


def test_every_word_has_a_translation_with_as_many_braces() -> None:
    words = given_words()
    assert len(words) > 60
    for operation in TABLE:
        choices = {operand for operand in operation.operands if "|" in operand}
        words |= {operation.help, *operation.operands} - choices
    missing = words - set(PORTUGUESE.texts)
    assert not missing
    for english, portuguese in PORTUGUESE.texts.items():
        assert english.count("{}") == portuguese.count("{}"), english
        assert english.count("{") == portuguese.count("{")


def test_errors_are_told_in_the_language_that_was_chosen() -> None:
    lines = ["LANGUAGE pt", "DIV 1 0", "2+", "SOMA 1,5 2", "FOO", "HELP PING", "LANGUAGE en", "2+"]
    assert ask(*lines)[1:] == [
        "ERR DIVISION-BY-ZERO divisão por zero",
        "ERR SYNTAX coluna 3: esperava-se um número, um nome ou um parêntese, mas a linha acabou",
        "ERR INVALID-NUMBER '1,5' tem vírgula: use ponto antes das casas decimais "
        "e espaço entre os operandos",
        "ERR UNKNOWN-OPERATION operação ou variável desconhecida 'FOO': veja AJUDA",
        "PING: verifica se o servidor responde; PING -> PONG",
        "en",
        "ERR SYNTAX column 3: expected a number, a name or a parenthesis, got end of line",
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("SOMA", "SOMA precisa de pelo menos 1 operando, recebeu 0: SOMA número [número...]"),
        ("add", "ADD precisa de pelo menos 1 operando, recebeu 0: ADD número [número...]"),
        ("SUB 1", "SUB precisa de 2 operandos, recebeu 1: SUB minuendo subtraendo"),
        ("RAIZ", "RAIZ precisa de 1 operando, recebeu 0: RAIZ número"),
        ("HELP a b", "HELP aceita no máximo 1 operando, recebeu 2: HELP [tema]"),
        ("PING 1", "PING não aceita operandos, recebeu 1: PING"),
    ],
)
def test_the_use_of_an_operation_is_told_in_portuguese(line: str, error: str) -> None:
    assert ask("LANGUAGE pt", line)[1].startswith(f"ERR WRONG-OPERANDS {error}")


# However it comes

choices = st.sampled_from(
    [
        *("PRECISION 3", "PRECISION 50", "PRECISION 34", "ROUNDING up", "ROUNDING half-even"),
        *("EXACT on", "EXACT off", "LANGUAGE pt", "CLEAR", "x = 1/3", "a = 5"),
    ]
)
sums = st.sampled_from(
    [
        *("SOMA 1 2", "DIV 1 3", "DIV 2 3", "mul 9e6144 9", "SUB 0.10 1", "DIV 0 0", "1+1"),
        *("MUL 1.25 1.5", "SOMA a 1", "ADD 1 2 3", "", "SOMA e 1", "SUB -1.005 0", "5"),
    ]
)
more = st.sampled_from(
    ["LN 2", "POT 2 0.5", "= exp(1/3)", "PRECISION 1000", "VARS", "= x^x", "= ans", "SOMA ans 1"]
)


@given(
    st.lists(
        st.one_of(
            st.lists(st.one_of(choices, more), max_size=2),
            st.tuples(sums, st.integers(1, 150)).map(lambda each: each[1] * [each[0]]),
            st.lists(sums, max_size=5),
            st.tuples(st.integers(0, 70), sums).map(lambda each: [*each[0] * ["DIV 2 3"], each[1]]),
        ),
        max_size=6,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_the_fast_path_says_what_the_rules_say_whatever_is_set(
    reads: list[list[str]], end: str
) -> None:
    fast, ruled = new_session(), new_session(on_request=lambda *_: None)
    for lines in reads:
        data = "".join(line + end for line in lines).encode()
        if data:
            assert answered(fast, data) == answered(ruled, data)
        assert fast.interpreter.context.answer == ruled.interpreter.context.answer
    assert fast.counters == ruled.counters


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.one_of(choices, sums, more), max_size=12).map(
            lambda lines: "".join(f"{line}\n" for line in lines).encode()
        ),
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_any_bytes_in_any_cuts_get_the_same_replies(stream: bytes, cuts: list[int]) -> None:
    whole, cut = new_session(), new_session()
    ends = sorted({min(end, len(stream)) for end in (*cuts, len(stream))} - {0})
    pieces = [stream[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    replies = b"".join(answered(cut, piece) for piece in [*pieces, b""])
    expected = b"".join(answered(whole, piece) for piece in ([stream, b""] if stream else [b""]))
    assert replies == expected
    assert cut.counters == whole.counters
    assert cut.close_reason == whole.close_reason
