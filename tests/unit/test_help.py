"""HELP, and texts in both languages."""

import re

import pytest
from sessions import answered, new_session

from calcd.core.commands import BY_NAME, TABLE, TOPICS, fixed_replies
from calcd.core.datagram import is_answer
from calcd.core.errors import to_wire
from calcd.core.messages import LANGUAGES, PORTUGUESE, language_called

WIDTH = 80  # columns of a line that people read


def ask(*lines: str, language: str = "en") -> list[str]:
    """Ask a new session for these lines; return their replies."""
    session = new_session()
    answered(session, f"LANGUAGE {language}\n".encode())
    return [answered(session, f"{line}\n".encode()).decode().rstrip("\n") for line in lines]


def explained(name: str, language: str = "en") -> str:
    """Return what HELP says of a name."""
    (reply,) = ask(f"HELP {name}", language=language)
    return reply


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_names_all_topics_in_one_line(language: str) -> None:
    (reply,) = ask("HELP", language=language)
    name, _, rest = reply.partition(" ")
    topics = [LANGUAGES[language].translate(topic) for topic in TOPICS]
    assert name in BY_NAME
    assert rest.split("|")[: len(topics)] == topics
    assert rest.split("|")[len(topics)] in BY_NAME
    assert len(reply) <= WIDTH


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_topic_is_one_line_of_the_names_of_its_operations(language: str) -> None:
    named = []
    for topic, operations in TOPICS.items():
        reply = explained(topic, language)
        head, _, rest = reply.partition(": ")
        assert head == LANGUAGES[language].translate(topic)
        assert len(reply) <= WIDTH
        if operations:
            named += [set(names.split("|")) for names in rest.split(" ")]
    assert sorted(map(sorted, named)) == sorted(sorted(operation.names) for operation in TABLE)


def test_the_names_of_the_language_come_first() -> None:
    assert explained("arithmetic").startswith("arithmetic: ADD|SOMA SUB MUL DIV IDIV|QUOC ")
    assert explained("session").endswith(" QUIT|EXIT|SAIR")
    assert explained("arithmetic", "pt").startswith("aritmética: SOMA|ADD SUB MUL DIV QUOC|IDIV ")
    assert explained("session", "pt").endswith(" SAIR|EXIT|QUIT")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "name",
    ["arithmetic", "ARITHMETIC", "aritmética", "Aritmetica", "ARITMÉTICA", "aritme\u0301tica"],
)
def test_a_topic_is_found_in_either_language(name: str, language: str) -> None:
    assert explained(name, language) == explained("arithmetic", language)


def test_no_topic_has_the_name_of_an_operation() -> None:
    for topic in TOPICS:
        for language in LANGUAGES.values():
            assert not ask(language.translate(topic).upper())[0].startswith("ERR WRONG-OPERANDS")
            assert language.translate(topic).upper() not in BY_NAME


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_examples_of_expressions_have_results(language: str) -> None:
    examples = explained("expressions", language).partition(": ")[2]
    replies = ask(*re.split(r", (?![^(]*\))", examples), language=language)
    assert len(replies) > 5
    assert not [reply for reply in replies if reply.startswith("ERR")]


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("sqrt", "SQRT number: the square root, also RAIZ; SQRT 2.25 -> 1.5"),
        ("Raiz", "RAIZ number: the square root, also SQRT; RAIZ 2.25 -> 1.5"),
        ("EXIT", "EXIT: reply BYE and end the session, also QUIT, SAIR; EXIT -> BYE"),
        ("LN", "LN number: the natural logarithm; LN 1 -> 0"),
        ("ping", "PING: check that the server answers; PING -> PONG"),
    ],
)
def test_an_operation_is_explained_under_the_name_that_was_asked_for(name: str, reply: str) -> None:
    assert explained(name) == reply


def test_help_on_rounding_is_of_use_to_those_who_look_for_any() -> None:
    reply = explained("rounding")
    assert reply.startswith("ROUNDING [half-even|half-up|half-down|up|down|ceiling|floor|05up]: ")
    assert "HELP digits" in reply
    assert "ROUND|ARRED " in explained("digits")


@pytest.mark.parametrize("name", sorted(BY_NAME))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_name_has_help(name: str, language: str) -> None:
    reply = explained(name.lower(), language)
    assert reply.startswith((f"{name}:", f"{name} "))
    assert len(reply) < 250
    # Each other name of the operation, once.
    assert {
        name,
        *reply.partition(";")[0]
        .partition(LANGUAGES[language].translate("also"))[2]
        .replace(",", "")
        .split(),
    } == set(BY_NAME[name].names)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_an_example_is_answered_as_help_says(name: str) -> None:
    for language in LANGUAGES:
        example, _, reply = explained(name, language).rpartition("; ")[2].partition(" -> ")
        if "HELP" in BY_NAME[name].names:
            continue  # its reply has an example itself
        assert example.split()[0] == name
        if "LANGUAGE" not in BY_NAME[name].names:  # its example sets English
            assert ask(example, language=language) == [reply]


@pytest.mark.parametrize(
    ("name", "code_and_text"),
    [
        ("foo", "unknown operation or topic 'foo': HELP lists topics"),
        ("sum", "unknown operation or topic 'sum': did you mean ADD? HELP lists topics"),
        ("SQRTT", "unknown operation or topic 'SQRTT': did you mean SQRT? HELP lists topics"),
        (
            "function",
            "unknown operation or topic 'function': did you mean functions? HELP lists topics",
        ),
        ("日本", "unknown operation or topic '日本': HELP lists topics"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(name: str, code_and_text: str) -> None:
    assert explained(name) == f"ERR UNKNOWN-OPERATION {code_and_text}"


def test_a_hint_is_in_the_language_of_the_session() -> None:
    assert "quis dizer SOMA?" in explained("plus", "pt")
    assert "quis dizer SEN?" in explained("sine", "pt")
    assert "quis dizer TETO?" in explained("ceiling", "pt")
    assert "quis dizer aritmética?" in explained("aritmetic", "pt")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_line_of_help_is_answered_as_a_datagram(language: str) -> None:
    names = ("", *BY_NAME, *TOPICS, *map(PORTUGUESE.translate, TOPICS))
    for reply in ask(*(f"HELP {name}" for name in names), language=language):
        assert to_wire(reply) in fixed_replies()
        assert is_answer(reply.encode() + b"\n")


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(("pt", "pt"), ("PT", "pt"), ("pt-BR", "pt"), ("pt_PT", "pt"), ("pt_BR.UTF-8", "pt")),
        *(("en", "en"), ("en_US", "en"), ("en-GB", "en"), ("pt@euro", "pt"), ("pt-Latn-BR", "pt")),
        *(("fr", None), ("", None), ("ptx", None), ("-pt", None), ("p", None), ("C", None)),
    ],
)
def test_a_language_is_called_by_its_tag_or_by_a_locale(name: str, language: str | None) -> None:
    assert language_called(name) == (language and LANGUAGES[language])
