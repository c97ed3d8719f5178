"""Completion at the prompt of calcc, and the state that a new connection loses."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_helpers import (
    COMMAND,
    CTRL_D,
    HOST,
    PROMPT,
    Script,
    Servers,
    Terminal,
    drip,
    greeted,
    receive,
    terminal,
)
from helpers import Daemon, clean_environment

from calcd.client import cli, completion, prompt, promptsession, protocol, transport

pytest.importorskip("readline")

NAMES = b"HELP numbers|session|ADD|...\n"
TOPICS = b"numbers: ADD|SOMA SQRT LOG10\nsession: PING QUIT|SAIR\n"
# That of an older server, in one line.
ALL_NAMES = b"numbers: SOMA|ADD, SQRT; others: PING, HELP; HELP SOMA tells how it is used\n"


def replies(*pairs: tuple[bytes, bytes], setup: bytes = b"") -> Script:
    """Greet, receive these requests one after the other, and reply to each."""

    def script(connection: socket.socket) -> None:
        for request, reply in pairs:
            receive(connection, request + b"\n")
            connection.sendall(reply + b"\n")
        assert connection.recv(1) == b""

    return greeted(script, setup)


def helps(connection: socket.socket) -> None:
    """Reply to HELP and its topics, and close."""
    receive(connection, b"HELP\n")
    connection.sendall(NAMES)
    receive(connection, b"HELP numbers\nHELP session\n")
    connection.sendall(TOPICS)


def press_tab(screen: Terminal, typed: str, shown: str) -> None:
    """Type something, then Tab, and expect a text."""
    if typed:
        screen.type(typed)
        screen.expect(typed)
    screen.type("\t")
    screen.expect(shown)


@pytest.fixture
def screen(shared_daemon: Daemon, tmp_path: Path) -> Iterator[Terminal]:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        yield screen
        screen.type(CTRL_D)
        assert screen.end() in (0, 1)
        assert b"Traceback" not in screen.screen


def ask(screen: Terminal, request: str, reply: str) -> None:
    screen.type(request + "\r")
    assert screen.expect(PROMPT) == f"{request}\n{reply}\n"


# -- Operations ----------------------------------------------------------------------------------


def test_tab_completes_an_operation_in_the_case_it_is_typed_in(screen: Terminal) -> None:
    press_tab(screen, "SO", "MA")
    screen.type(" 0.1 0.2\r")
    screen.expect("\n0.3\n" + PROMPT)
    press_tab(screen, "mai", "uscula")
    screen.type(" a\r")
    screen.expect("\nA\n" + PROMPT)


def test_tab_shows_all_operations_there_are(screen: Terminal) -> None:
    press_tab(screen, "", "\x07")
    press_tab(screen, "", "\n")
    shown = screen.expect(PROMPT)
    assert {"ADD", "DIV", "HELP", "MUL", "QUIT", "SOMA", "SUB", "UPPER"} <= set(shown.split())


def test_tab_completes_the_operand_of_help(screen: Terminal) -> None:
    ask(screen, "SOMA 1 1", "2")
    press_tab(screen, "HELP QUI", "T")
    screen.type("\r")
    screen.expect("\nQUIT: ")
    screen.expect(PROMPT)


def test_tab_completes_a_topic_behind_help_alone(screen: Terminal) -> None:
    press_tab(screen, "HELP dig", "its")
    screen.type("\r")
    screen.expect("\ndigits: ")
    screen.expect(PROMPT)
    press_tab(screen, "ajuda expr", "essions")
    screen.type("\r")
    screen.expect("\nexpressions: ")
    screen.expect(PROMPT)
    press_tab(screen, "dig", "\x07")
    screen.type("\r")
    screen.expect(PROMPT)


def test_tab_completes_the_names_of_both_languages(screen: Terminal) -> None:
    press_tab(screen, "ar", "red")
    screen.type(" 2.5 0\r")
    screen.expect("\n2\n" + PROMPT)
    press_tab(screen, "NOTATI", "ON")
    screen.type("\r")
    screen.expect("\nplain\n" + PROMPT)
    press_tab(screen, "notac", "ao")
    screen.type("\r")
    screen.expect("\nplain\n" + PROMPT)


def test_operations_are_fetched_once(daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, "-v", daemon.host, daemon.port) as screen:
        screen.expect(PROMPT)
        press_tab(screen, "SO", "MA")
        press_tab(screen, " + LOC SU", "B")
        screen.type(CTRL_D)
    assert len(daemon.logs("ended", 2)) == 2


@pytest.mark.parametrize("reply", [b"", b"ERR BUSY too many\n", ALL_NAMES[:-1]])
def test_a_server_that_does_not_list_its_operations(
    reply: bytes, serve: Servers, tmp_path: Path
) -> None:
    """The first connection is still open, with another server."""
    path = tmp_path / "socket"
    serve(replies((b"SO", b"1"), (b"b", b"2")), at=str(path))
    with terminal(tmp_path, "-U", path) as screen:
        screen.expect(PROMPT)
        path.unlink()
        if reply:
            serve(lambda connection: connection.sendall(reply), at=str(path))
        press_tab(screen, "SO", "\x07")
        press_tab(screen, "", "\x07")
        screen.type("\r")
        screen.expect("\n1\n" + PROMPT)
        ask(screen, "b", "2")
        screen.type(CTRL_D)
        assert screen.end() == 0


def test_a_server_that_never_lists_its_operations(serve: Servers, tmp_path: Path) -> None:
    """The second connection is not accepted while the first one is open."""
    port = serve(replies((b"SO", b"1")))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        press_tab(screen, "SO", "\x07")
        screen.type("\r")
        screen.expect("\n1\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize("start", [b"", b"A" * 100_000])
def test_a_server_whose_list_of_operations_never_ends(
    start: bytes, serve: Servers, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    serve(replies((b"SO", b"1")), at=str(path))
    with terminal(tmp_path, "-U", path) as screen:
        screen.expect(PROMPT)
        path.unlink()
        serve(lambda connection: drip(connection, start), at=str(path))
        press_tab(screen, "SO", "\x07")
        screen.type("\r")
        screen.expect("\n1\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize("reply", [NAMES[:-1] + b"X" * protocol.CHUNK + b"\n", NAMES * 2])
def test_a_list_of_operations_that_is_too_long(reply: bytes, serve: Servers) -> None:
    port = serve(lambda connection: connection.sendall(reply))
    words = completion.fetch_words(cli.Options([HOST, str(port)]).endpoint)
    assert (words.operations, words.topics) == ([], [])


def test_operations_are_read_from_the_topics(serve: Servers) -> None:
    endpoint = cli.Options([HOST, str(serve(helps))]).endpoint
    transport.resolve(endpoint)
    words = completion.fetch_words(endpoint)
    assert words.operations == ["HELP", "ADD", "SOMA", "SQRT", "LOG10", "PING", "QUIT", "SAIR"]
    assert words.topics == ["numbers", "session"]


def test_the_help_of_an_older_server_is_in_one_line(serve: Servers) -> None:
    def older(connection: socket.socket) -> None:
        receive(connection, b"HELP\n")
        connection.sendall(ALL_NAMES)
        topics = connection.recv(4096).count(b"\n")
        connection.sendall(topics * b"ERR UNKNOWN-OPERATION unknown operation: HELP lists them\n")

    words = completion.fetch_words(cli.Options([HOST, str(serve(older))]).endpoint)
    assert words.operations == ["SOMA", "ADD", "SQRT", "PING", "HELP"]


def test_operations_are_fetched_from_the_address_that_was_reached(
    serve: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name resolution cannot be interrupted, so the name is not resolved again."""
    endpoint = cli.Options(["localhost", str(serve(lambda _: None, helps)), "-4"]).endpoint
    transport.connect(endpoint).close()
    monkeypatch.setattr(transport, "resolve", lambda _: pytest.fail("asked for the name again"))
    assert "SOMA" in completion.fetch_words(endpoint).operations


def test_an_answer_that_is_too_long_is_not_kept() -> None:
    completer = completion.Completer(promptsession.PromptSession(None, cli.Options([]).endpoint))
    for size in completion.MAX_ANSWER_SIZE, completion.MAX_ANSWER_SIZE + 1:
        completer.add_answer("1" * size)
    assert list(map(len, completer._answers)) == [completion.MAX_ANSWER_SIZE]


# -- Names ---------------------------------------------------------------------------------------


def test_names_are_completed_until_they_are_cleared(serve: Servers, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    conversation = (
        (b"price = 1.20", b"1.20"),
        (b"volume =", b"ERR WRONG-OPERANDS a value is missing"),
        (b"3*price", b"3.60"),
        (b"2+sqrt(price)", b"3.095"),
        (b"CLEAR", b"OK"),
        (b"pri", b"ERR UNKNOWN-NAME pri"),
        (b"vol", b"ERR UNKNOWN-NAME vol"),
    )
    serve(replies(*conversation), at=str(path))
    with terminal(tmp_path, "-U", path) as screen:
        screen.expect(PROMPT)
        path.unlink()
        serve(helps, at=str(path))
        screen.type("price = 1.20\r")
        screen.expect(PROMPT)
        screen.type("volume =\r")
        screen.expect(PROMPT)
        press_tab(screen, "3*pri", "ce")
        screen.type("\r")
        screen.expect("\n3.60\n" + PROMPT)
        press_tab(screen, "2+sq", "rt")
        press_tab(screen, "(pri", "ce")
        screen.type(")\r")
        screen.expect("\n3.095\n" + PROMPT)
        ask(screen, "CLEAR", "OK")
        for name in "pri", "vol":
            press_tab(screen, name, "\x07")
            screen.type("\r")
            screen.expect(PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 1


# -- Answers -------------------------------------------------------------------------------------


def test_tab_brings_back_the_last_answers_one_after_the_other(screen: Terminal) -> None:
    ask(screen, "SOMA 1 1", "2")
    ask(screen, "SUB 1 1.5", "-0.5")
    ask(screen, "SOMA 1 2.0", "3.0")
    ask(screen, "MUL 1E+30 1E+20", "1E+50")
    ask(screen, "SOMA 0.5 -1", "-0.5")
    screen.type("SOMA ")
    for answer in "-0.5", "1E+50", "3.0", "2", "-0.5":
        press_tab(screen, "", answer)
    screen.type(" 10\r")
    screen.expect("\n9.5\n" + PROMPT)


def test_tab_replaces_ans_by_the_last_answer(screen: Terminal) -> None:
    ask(screen, "DIV 1 8", "0.125")
    screen.type("SOMA ans")
    screen.expect("SOMA ans")
    screen.type("\t")
    screen.expect("0.125")
    screen.type(" 1\r")
    screen.expect("\n1.125\n" + PROMPT)


def test_only_numbers_are_answers() -> None:
    completer = completion.Completer(promptsession.PromptSession(None, cli.Options([]).endpoint))
    completer.add_answer("PONG")
    completer.add_answer("ERR DIVISION-BY-ZERO division by zero")
    assert completer._answers == []
    for number in range(30):
        completer.add_answer(f"{number}")
    assert completer._answers == [f"{number}" for number in range(29, 19, -1)]


def test_tabs_that_are_pasted_are_blanks(screen: Terminal) -> None:
    screen.type("SOMA\t2\t2\rSUB\t5\t3\r")
    screen.expect("\n4\n" + PROMPT)
    screen.expect("\n2\n" + PROMPT)


# -- What is lost with a connection --------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "lost"),
    [
        ("x = 2", "PING", True),
        ("PRECISION 50", "PING", True),
        ("PRECISION", "PING", False),
        ("2+2", "ans+1", True),
        ("2+2", "3+3", False),
        ("2+2", "*3", True),
        ("2+2", "mod 3", True),
        ("2+2", "-3", False),
        ("NOTATION scientific", "PING", True),
        ("idioma pt", "PING", True),
    ],
)
def test_a_new_connection_is_reported_if_state_is_lost(
    first: str, then: str, lost: bool, serve: Servers, tmp_path: Path
) -> None:
    def once(connection: socket.socket) -> None:
        receive(connection, first.encode() + b"\n")
        connection.sendall(b"4\n")
        receive(connection, then.encode() + b"\n")

    port = serve(greeted(once), replies((then.encode(), b"5")))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        ask(screen, first, "4")
        screen.type(then + "\r")
        said = f"calcc: {protocol.STATE_LOST}\n" if lost else ""
        assert screen.expect(PROMPT) == f"{then}\n{said}5\n"
        screen.type(CTRL_D)
        assert screen.end() == 0


# -- The language --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "is_portuguese"),
    [
        ({}, False),
        *(({"LANG": locale}, True) for locale in ("pt", "pt_BR", "pt_PT.UTF-8", "pt@euro")),
        *(({"LANG": locale}, False) for locale in ("", "C", "en_US.UTF-8", "ptx", "POSIX")),
        ({"LC_MESSAGES": "pt_PT", "LANG": "en_US"}, True),
        ({"LC_MESSAGES": "en_US", "LANG": "pt_BR"}, False),
        ({"LC_ALL": "C", "LC_MESSAGES": "pt_PT"}, False),
        ({"LC_ALL": "", "LC_MESSAGES": "", "LANG": "pt_BR"}, True),
        ({"LC_CTYPE": "pt_BR", "LC_NUMERIC": "pt_BR"}, False),
    ],
)
def test_the_locale_chooses_the_language(environment: dict[str, str], is_portuguese: bool) -> None:
    endpoint = cli.Options([]).endpoint
    setup = b"LANGUAGE pt\n" if is_portuguese else b""
    assert prompt.setup_of(environment, endpoint) == setup
    endpoint.udp = True
    assert prompt.setup_of(environment, endpoint) == b""


def test_the_prompt_asks_for_portuguese_where_the_locale_is(
    shared_daemon: Daemon, tmp_path: Path
) -> None:
    address = shared_daemon.host, shared_daemon.port
    # The machine need not have the locale: readline looks at LC_CTYPE alone.
    locale = {"LC_ALL": "", "LC_MESSAGES": "", "LC_CTYPE": "C.UTF-8", "LANG": "pt_BR.UTF-8"}
    with terminal(tmp_path, *address, **locale) as screen:
        screen.expect(PROMPT)
        ask(screen, "2+2", "4")
        ask(screen, "VARS", "nenhuma variável")
        press_tab(screen, "AJUDA aritm", "ética")
        screen.type("\r")
        screen.expect("\naritmética: SOMA|ADD ")
        screen.expect(PROMPT)
        ask(screen, "IDIOMA en", "en")
        ask(screen, "VARS", "no variables")
        screen.type("sair\r")
        screen.expect("\nBYE\n")
        assert screen.end() == 0


def test_only_the_prompt_asks_for_portuguese(shared_daemon: Daemon) -> None:
    address = str(shared_daemon.host), str(shared_daemon.port)
    environment = clean_environment(LC_ALL="pt_BR.UTF-8")
    for arguments, stdin in (["-e", "VARS"], b""), ([], b"VARS\n"):
        command = [*COMMAND, *arguments, *address]
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, check=True
        )
        assert done.stdout == b"no variables\n"


@pytest.mark.parametrize("reply", [b"pt", b"ERR UNKNOWN-OPERATION unknown operation 'LANGUAGE'"])
def test_a_new_connection_asks_for_portuguese_again(
    reply: bytes, serve: Servers, tmp_path: Path
) -> None:
    def once(connection: socket.socket) -> None:
        receive(connection, b"LANGUAGE pt\nVERSION\n")
        connection.sendall(reply + b"\ncalcd 1.2.3\n")
        receive(connection, b"1\n")
        connection.sendall(b"1\n")
        receive(connection, b"2\n")

    setup = b"LANGUAGE pt\n"
    port = serve(once, replies((b"2", b"2"), (b"3", b"3"), setup=setup))
    with terminal(tmp_path, HOST, port, LC_ALL="", LANG="pt_PT.UTF-8", LC_MESSAGES="") as screen:
        screen.expect(PROMPT)
        ask(screen, "1", "1")
        ask(screen, "2", "2")
        ask(screen, "3", "3")
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize("locale", ["C", "pt_BR.UTF-8"])
def test_a_server_that_refuses_the_client(locale: str, serve: Servers, tmp_path: Path) -> None:
    refusal = "ERR BUSY 1024 connections are open, the server's limit\n"
    port = serve(lambda connection: connection.sendall(refusal.encode()))
    with terminal(tmp_path, HOST, port, LC_ALL=locale) as screen:
        assert screen.expect(f"calcc: {HOST} port {port}: {refusal}") == ""
        assert screen.end() == 3


# -- The help's examples -------------------------------------------------------------------------


def examples() -> list[str]:
    """Return the examples of the help."""
    lines = cli.help_text().partition("Examples:\n")[2].splitlines()
    return [re.split(r" {4,}", line.strip())[0] for line in lines]


def test_the_examples_for_a_default_server_work(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "prices.txt").write_text("100\n1.50\n")
    (tmp_path / "orders.csv").write_text("tea,3.99,2\nmilk,1.05,3\n")
    (tmp_path / "sums.txt").write_text("SOMA 1 1\nSOMA 2 2\n")
    function = f'calcc() {{ {" ".join(COMMAND)} "$@"; }}'
    server = f"{shared_daemon.host}:{shared_daemon.port}"
    printed = []
    for example in examples():
        if "-U" in example or "--ssl" in example:
            continue
        done = subprocess.run(
            ["bash", "-c", f'{function}\n{example}\n[ -z "$tax" ] || echo $tax'],
            cwd=tmp_path,
            env=clean_environment(CALCD_SERVER=server),
            capture_output=True,
            check=True,
        )
        assert done.stderr == b""
        printed.append(done.stdout.decode().split())
    assert printed == [
        ["0.3"],
        ["0.3333333333333333333333333333333333", "3.60"],
        ["4.5977"],
        ["101.50"],
        ["23.00", "0.34"],
        ["11.13"],
        [],
        ["50", "2", "4"],
    ]
    assert (tmp_path / "results.txt").read_text() == "2\n4\n"
    assert len(cli.help_text().splitlines()) <= 60
