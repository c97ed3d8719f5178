"""A session's settings and memory: commands, names, ANS, EXACT, and the words of both languages."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session

from calcd.core.commands import BY_NAME, KINDS, TABLE
from calcd.core.decimal128 import ROUNDINGS
from calcd.core.interpreter import MAX_VARIABLES
from calcd.core.messages import LANGUAGES, PORTUGUESE
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
    assert replies == ["OK", "no variables", "UNKNOWN-NAME", "UNKNOWN-NAME", "5", "up", "on"]


# ANS


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["SOMA 1 2", "= ans"], "3"),
        (["1+2", "= ANS*2"], "6"),
        (["x = 7", "= ans"], "7"),
        (["SOMA 1 2", "MUL ans Ans"], "9"),
        (["SOMA 1 2", "DIV 1 0", "= ans"], "3"),
        (["SOMA 1 2", "= 2+", "FOO", "SOMA 1", "SOMA x 1", "= ans"], "3"),
        (["SOMA 1 2", "PING", "HELP", "PRECISION 9", "UPPER a", "VARS", "= ans"], "3"),
        (["DIV 1 3", "PRECISION 5", "= ans"], "0.33333"),
        (["SOMA 1.50 1.50", "SUB ans 0"], "3.00"),
        (["MUL 1e30 1e30", "= ans"], "1E+60"),
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
        *(65 * "n", "=", "(x)", "2"),
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
    assert codes("y = 1/0", "= y") == ["DIVISION-BY-ZERO", "UNKNOWN-NAME"]


def test_there_is_an_end_to_names() -> None:
    session = new_session()
    ask(*(f"x{number} = {number}" for number in range(MAX_VARIABLES)), session=session)
    refused, changed, last = ask("y = 1", "x7 = 8", "= x7+x99", session=session)
    assert refused == "ERR TOO-MANY-NAMES there are already 100 variables: CLEAR removes them"
    assert (changed, last) == ("8", "107")
    assert ask("CLEAR", "y = 1", session=session) == ["OK", "1"]


@pytest.mark.parametrize("line", ["pi", "x", "ans", "2x", "x+1", "x*2", "x=3", "pi*2", "sqrt(2)"])
def test_an_expression_that_begins_with_a_letter_is_told_to_begin_with_a_sign(line: str) -> None:
    reply = ask("x = 2", line)[1]
    if line == "2x":
        assert reply == "ERR SYNTAX column 2: expected an operator, got 'x'"
    else:
        assert re.match(r"ERR UNKNOWN-OPERATION .*: begin an expression with =", reply)


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
    "ABS": f"ABS -{'1' * 40}",
    "NEG": f"NEG {'1' * 40}",
    "EXP": "EXP 1",
    "LN": "LN 2",
    "LOG": "LOG 2",
    "FAT": "FAT 100",
}
ALWAYS_EXACT = {"COMP": "COMP 1 3", "QUOC": "QUOC 1 3", "ARRED": "ARRED 2.675 2"}


@pytest.mark.parametrize("operation", ARITHMETIC, ids=lambda operation: operation.names[0])
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
    assert (again == "INEXACT") == (name == "FAT")  # a factorial is exact or none


def test_exact_holds_for_expressions_and_literals() -> None:
    lines = ["EXACT on", "1/3", "= 1/4", "= " + "1" * 40, "x = 2/3", "= x", "= pi", "= e"]
    expected = ["on", "INEXACT", "0.25", *2 * ["INEXACT"], "UNKNOWN-NAME", *2 * ["INEXACT"]]
    assert codes(*lines) == expected


# Help and examples


@pytest.mark.parametrize("operation", TABLE, ids=lambda operation: operation.names[0])
def test_each_example_is_answered_as_the_table_says(operation: Operation) -> None:
    assert ask(operation.example) == [operation.example_reply]
    assert operation.example.split()[0] in operation.names


@pytest.mark.parametrize("operation", TABLE, ids=lambda operation: operation.names[0])
def test_each_example_is_answered_in_portuguese_as_its_help_says(operation: Operation) -> None:
    if operation.names == ("LANGUAGE",):
        return  # its example sets English
    _, shown, reply = ask("LANGUAGE pt", f"HELP {operation.names[0]}", operation.example)
    assert shown.endswith(f"; {operation.example} -> {reply}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_lists_all_in_one_line(language: str) -> None:
    everything, *each = ask(f"LANGUAGE {language}", "HELP", *(f"HELP {name}" for name in BY_NAME))[
        1:
    ]
    for name in BY_NAME:
        assert re.search(rf"\b{name}\b", everything)
    for reply in (everything, *each):
        assert "\n" not in reply
        assert len(reply.encode()) < 1000
        assert not reply.startswith("ERR ")


# Words


GIVEN = ("RequestError", "UnfinishedError", "fail", "_unexpected", "translate")


def called(node: ast.Call) -> str:
    """Give the last part of the name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def given_words() -> set[str]:
    """Collect the templates that errors are given, and all else that is to be translated."""
    words: set[object] = set()
    for path in sorted(Path(ROOT, "calcd", "core").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and called(node) in GIVEN:
                words |= {each.value for each in node.args if isinstance(each, ast.Constant)}
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "template":
                words |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
    return {word for word in words if isinstance(word, str) and " " in word}


def test_every_word_has_a_translation_with_as_many_braces() -> None:
    words = given_words()
    assert len(words) > 25
    for operation in TABLE:
        words |= {operation.help, *operation.operands}
    missing = words - set(PORTUGUESE.texts)
    assert not missing
    for english, portuguese in PORTUGUESE.texts.items():
        assert english.count("{}") == portuguese.count("{}"), english
        assert english.count("{") == portuguese.count("{")
        portuguese.encode("latin-1").decode("utf-8")


def test_errors_are_told_in_the_language_that_was_chosen() -> None:
    lines = ["LANGUAGE pt", "DIV 1 0", "2+", "SOMA 1,5 2", "FOO", "HELP PING", "LANGUAGE en", "2+"]
    assert ask(*lines)[1:] == [
        "ERR DIVISION-BY-ZERO divisão por zero",
        "ERR SYNTAX coluna 3: esperava-se um número, um nome ou um parêntese, mas a linha acabou",
        "ERR INVALID-NUMBER '1,5' tem vírgula: use ponto antes das casas decimais "
        "e espaço entre os operandos",
        "ERR UNKNOWN-OPERATION operação desconhecida 'FOO': HELP lista todas",
        "PING: verifica se o servidor responde; PING -> PONG",
        "en",
        "ERR SYNTAX column 3: expected a number, a name or a parenthesis, got end of line",
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("SOMA 1", "SOMA precisa de pelo menos 2 operandos, recebeu 1: SOMA parcela parcela [par"),
        ("SUB 1", "SUB precisa de 2 operandos, recebeu 1: SUB minuendo subtraendo"),
        ("RAIZ", "RAIZ precisa de 1 operando, recebeu 0: RAIZ número"),
        ("HELP a b", "HELP aceita no máximo 1 operando, recebeu 2: HELP [operação]"),
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


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ("HELP ADD", "SOMA augend addend [addend...]: the sum of the numbers, also ADD; "),
        ("HELP LOG", "LOG number: "),
        ("HELP", "arithmetic: SOMA|ADD, SUB, MUL, DIV, "),
    ],
)
def test_help_begins_with_what_was_asked_for(request_: str, reply: str) -> None:
    assert ask(request_)[0].startswith(reply)


def test_help_lists_every_operation_by_kind_in_either_language() -> None:
    def listed(*kinds: str) -> str:
        return "; ".join(
            f"{kind}: {', '.join('|'.join(operation.names) for operation in rows)}"
            for kind, rows in zip(kinds, KINDS.values(), strict=True)
        )

    english, _, portuguese = ask("HELP", "LANGUAGE pt", "HELP")
    assert english == listed("arithmetic", "text", "session") + (
        "; expressions: 2*(3+4), x = sqrt(2), = x^2; HELP SOMA shows details"
    )
    assert portuguese == listed("aritmética", "texto", "sessão") + (
        "; expressões: 2*(3+4), x = raiz(2), = x^2; HELP SOMA mostra detalhes"
    )
