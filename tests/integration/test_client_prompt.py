"""The prompt of calcc: its greeting, its replies, its history, and servers that come and go."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from client_helpers import (
    CTRL_D,
    HOST,
    PROMPT,
    UP,
    Script,
    Servers,
    Terminal,
    greeted,
    receive,
    reset,
    terminal,
    wait_until_asleep,
)
from helpers import TIMEOUT, Daemon, Daemons

import calcd
from calcd.client import cli, completion, prompt, protocol

pytest.importorskip("readline")

REFUSED = "connection refused: is calcd running there?"
TRYING = "calcc: trying again; Ctrl-C stops that\n"
LOST = f"calcc: {protocol.STATE_LOST}\n"


def greeting(where: str, server: str = "calcd 1.2.3") -> str:
    return f"{server} at {where}: HELP lists its topics, Ctrl-D ends\n"


def ask(screen: Terminal, request: str, reply: str) -> None:
    screen.type(request + "\r")
    assert screen.expect(PROMPT) == f"{request}\n{reply}\n"


# -- The greeting --------------------------------------------------------------------------------


def test_a_prompt_greets_with_server_and_version(shared_daemon: Daemon, tmp_path: Path) -> None:
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where) as screen:
        name = f"{shared_daemon.host} port {shared_daemon.port}"
        assert screen.expect(PROMPT) == greeting(name, f"calcd {calcd.__version__}")
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"ERR UNKNOWN-OPERATION unknown operation 'VERSION'\n",
        b"VERSION\n",
        b"calcd \x1b[2J\n",
        b"calcd " + b"1" * 100_000 + b"\n",
    ],
)
def test_a_prompt_greets_without_a_version_that_it_does_not_know(
    reply: bytes, serve: Servers, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"VERSION\n")
        connection.sendall(reply)
        receive(connection, b"a\n")
        connection.sendall(b"1\n")

    port = serve(script)
    with terminal(tmp_path, HOST, port) as screen:
        assert screen.expect(PROMPT) == greeting(f"{HOST} port {port}", "server")
        ask(screen, "a", "1")
        screen.type(CTRL_D)
        assert screen.end() == 0


def test_a_prompt_greets_before_a_slow_server_does(serve: Servers, tmp_path: Path) -> None:
    """The version that comes late is not taken for the reply to the first line."""

    def slow(connection: socket.socket) -> None:
        receive(connection, b"VERSION\n")
        assert connection.recv(1) == b""

    def answer(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"1\n")

    port = serve(slow, greeted(answer))
    with terminal(tmp_path, HOST, port) as screen:
        assert screen.expect(PROMPT) == greeting(f"{HOST} port {port}", "server")
        ask(screen, "a", "1")
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_server_that_closes_at_once_gets_no_prompt(
    end: Script, serve: Servers, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"VERSION\n")
        end(connection)

    with terminal(tmp_path, HOST, serve(script)) as screen:
        screen.expect(": does it speak TLS (--ssl)?\n")
        assert screen.end() == 3
        assert PROMPT.encode() not in screen.screen


def test_a_server_without_udp_gets_no_prompt(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
    with terminal(tmp_path, "-u", HOST, port) as screen:
        assert screen.expect("\n") == f"calcc: {HOST} port {port}: {REFUSED}"
        assert screen.end() == 3


# -- Servers that come and go --------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a Unix socket. Somebody else might get the port of a stopped server."""
    return tmp_path / "socket"


@pytest.fixture
def start(path: Path, start_daemon: Daemons) -> Callable[[], Daemon]:
    """Return what starts a daemon, each time at the same path."""
    return lambda: start_daemon("-l", f"unix://{path}")


@pytest.fixture
def screen(tmp_path: Path, path: Path, start: Callable[[], Daemon]) -> Iterator[Terminal]:
    """Give a prompt whose daemon has been stopped after a few lines."""
    daemon = start()
    with terminal(tmp_path, "-U", path) as screen:
        screen.expect(PROMPT)
        ask(screen, "x = 5", "5")
        assert daemon.stop() == 0
        yield screen


def test_a_prompt_outlives_a_restart(screen: Terminal, start: Callable[[], Daemon]) -> None:
    start()
    screen.type("x*2\r")
    screen.expect(f"x*2\n{LOST}ERR UNKNOWN-NAME column 1: unknown variable 'x'")
    screen.expect(PROMPT)
    ask(screen, "x = 6", "6")
    ask(screen, "x*2", "12")
    screen.type(CTRL_D)
    assert screen.end() == 1


def test_a_line_waits_for_a_server_that_is_away(
    screen: Terminal, start: Callable[[], Daemon], path: Path
) -> None:
    screen.type("2+2\r")
    gone = "no such file or directory"  # the daemon removes the socket's file
    assert screen.expect(TRYING) == f"2+2\ncalcc: {path}: {gone}\n"
    start()
    assert screen.expect(PROMPT) == f"{LOST}4\n"
    ask(screen, "*3", "12")
    screen.type(CTRL_D)
    assert screen.end() == 0


def test_ctrl_c_gives_back_a_line_that_waits(screen: Terminal, start: Callable[[], Daemon]) -> None:
    screen.type("2+2\r")
    screen.expect(TRYING)
    screen.interrupt()
    assert screen.expect(PROMPT + "2+2") == "^C\n"
    start()
    screen.type("+3\r")
    assert screen.expect(PROMPT) == f"+3\n{LOST}7\n"
    screen.type(CTRL_D)
    assert screen.end() == 0


def test_a_line_that_was_given_back_may_be_dropped(screen: Terminal) -> None:
    """It was never asked, so the status is 3."""
    screen.type("2+2\r")
    screen.expect(TRYING)
    screen.interrupt()
    screen.expect(PROMPT + "2+2")
    screen.interrupt()
    assert screen.expect(PROMPT) == "\n"
    screen.type(CTRL_D)
    assert screen.end() == 3


def test_quit_does_not_wait_for_a_server_that_is_away(screen: Terminal) -> None:
    screen.type("QUIT\r")
    assert screen.end() == 0
    assert screen.screen == b"QUIT\r\n"


def test_pasted_lines_go_on_after_a_restart(serve: Servers, tmp_path: Path) -> None:
    """Only those without a reply are asked again."""
    (tmp_path / ".inputrc").write_text("set enable-bracketed-paste on\n")

    def first(connection: socket.socket) -> None:
        receive(connection, b"a\nb\nc\n")
        connection.sendall(b"1\n2")

    def second(connection: socket.socket) -> None:
        receive(connection, b"b\nc\n")
        connection.sendall(b"2\n3\n")

    with terminal(tmp_path, HOST, serve(greeted(first), greeted(second))) as screen:
        screen.expect(PROMPT)
        screen.type("\x1b[200~a\nb\nc\x1b[201~\r")
        screen.expect("\n1\n2\n3\n" + PROMPT)


def test_what_follows_quit_is_said_to_be_left_out(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / ".inputrc").write_text("set enable-bracketed-paste on\n")
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("\x1b[200~1+1\nQUIT\n3+3\n4+4\x1b[201~\r")
        screen.expect("\n2\nBYE\n")
        screen.expect(": lines behind QUIT, which were not asked: 2\n")
        assert screen.end() == 3


HAPROXY = """\
defaults
    mode tcp
    timeout connect 1s
    timeout client 1m
    timeout server 1m
    retries 0
frontend calcd
    bind fd@{descriptor}
    default_backend calcd
backend calcd
    server one unix@{path}
"""


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
def test_a_server_that_is_away_behind_haproxy(
    path: Path, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    """HAProxy accepts, and closes without a reply, for as long as its server is away."""
    daemon = start()
    settings = tmp_path / "haproxy.cfg"
    with socket.create_server((HOST, 0)) as listener:
        number = listener.fileno()
        settings.write_text(HAPROXY.format(descriptor=number, path=path))
        command = ["haproxy", "-q", "-db", "-f", str(settings)]
        with subprocess.Popen(command, pass_fds=[number]) as haproxy:
            try:
                port = listener.getsockname()[1]
                with terminal(tmp_path, HOST, port) as screen:
                    screen.expect(PROMPT)
                    ask(screen, "x = 5", "5")
                    daemon.stop()
                    screen.type("2+2\r")
                    screen.expect("connection closed by the server\n" + TRYING)
                    start()
                    assert screen.expect(PROMPT) == f"{LOST}4\n"
            finally:
                haproxy.terminate()


def test_a_server_that_refuses_for_a_while(serve: Servers, tmp_path: Path) -> None:
    def once(connection: socket.socket) -> None:
        receive(connection, b"a\n")

    def busy(connection: socket.socket) -> None:
        connection.sendall(b"ERR BUSY too many\n")

    def answer(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"1\n")

    port = serve(greeted(once), busy, busy, greeted(answer))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        ask(screen, "a", f"calcc: {HOST} port {port}: ERR BUSY too many\n{TRYING}1")


def test_a_server_over_udp_that_is_away_for_a_while(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        port = server.getsockname()[1]

        def reply(request: bytes, reply: bytes) -> None:
            """Reply to a request, and to all `VERSION` before it."""
            data = b""
            while data != request:
                data, sender = server.recvfrom(100)
                if data in (request, b"VERSION\n"):
                    server.sendto(reply if data == request else b"calcd 1.2.3\n", sender)

        with terminal(tmp_path, "-u", "-w", 0.3, HOST, port) as screen:
            reply(b"VERSION\n", b"calcd 1.2.3\n")
            screen.expect(PROMPT)
            screen.type("x = 5\r")
            reply(b"x = 5\n", b"5\n")
            screen.expect("\n5\n" + PROMPT)
            screen.type("a\r")
            said = f"a\ncalcc: {HOST} port {port}: no reply in 0.3 s\n"
            assert screen.expect(TRYING) == said
            assert [server.recv(100) for _ in range(3)] == 3 * [b"a\n"]
            reply(b"a\n", b"1\n")
            assert screen.expect(PROMPT) == "1\n"


def test_a_number_alone_over_udp_is_given_back(start_daemon: Daemons, tmp_path: Path) -> None:
    daemon = start_daemon("-l", f"udp://{HOST}:0")
    with terminal(tmp_path, "-u", HOST, daemon.port_of("udp")) as screen:
        screen.expect(PROMPT)
        screen.type("5\r")
        screen.expect(": put = before it\n" + PROMPT + "5")
        screen.type(b"\x01= \r")
        screen.expect("\n5\n" + PROMPT)


def test_a_line_is_not_given_back_before_one_that_was_typed_ahead(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    daemon = start_daemon("-l", f"udp://{HOST}:0")
    with terminal(tmp_path, "-u", HOST, daemon.port_of("udp")) as screen:
        screen.expect(PROMPT)
        screen.type("5\r3+3\r")
        screen.expect(": put = before it\n")
        screen.expect("3+3\n6\n" + PROMPT)
        screen.type(UP + UP + b"\x01= \r")
        screen.expect("\n5\n" + PROMPT)


# -- History -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_ends_the_prompt_leaves_the_history(
    number: signal.Signals, shared_daemon: Daemon, tmp_path: Path
) -> None:
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where) as screen:
        screen.expect(PROMPT)
        ask(screen, "2+2", "4")
        screen.type("3+")
        screen.expect("3+")
        wait_until_asleep(screen.process)
        screen.process.send_signal(number)
        assert screen.end() == -number
        assert b"Traceback" not in screen.screen
    assert (tmp_path / ".calcc_history").read_text() == "2+2\n"
    with terminal(tmp_path, *where) as screen:
        screen.expect(PROMPT)
        screen.type(UP)
        screen.expect("2+2")


def test_a_window_that_is_closed_leaves_the_history(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        ask(screen, "2+2", "4")
        assert screen.hang_up() in (3, -signal.SIGHUP)
    assert (tmp_path / ".calcc_history").read_text() == "2+2\n"


def test_a_signal_ends_a_prompt_whose_server_is_away(screen: Terminal, tmp_path: Path) -> None:
    screen.type("2+2\r")
    screen.expect(TRYING)
    screen.process.send_signal(signal.SIGHUP)
    assert screen.end() == -signal.SIGHUP
    assert (tmp_path / ".calcc_history").read_text() == "x = 5\n2+2\n"


def test_a_hangup_that_is_ignored_stays_ignored(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port, ignored="HUP") as screen:
        screen.expect(PROMPT)
        wait_until_asleep(screen.process)
        screen.process.send_signal(signal.SIGHUP)
        ask(screen, "2+2", "4")


# -- Completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "completed", "reply"),
    [
        ("LANGUAGE p", "t", "pt"),
        ("idioma e", "n", "en"),
        ("ROUNDING 0", "5up", "05up"),
        ("ROUNDING half-e", "ven", "half-even"),
        ("ARREDONDAMENTO HALF-D", "OWN", "half-down"),
        ("NOTATION s", "cientific", "scientific"),
        ("notação p", "lain", "plain"),
        ("EXACT of", "f", "off"),
    ],
)
def test_tab_completes_what_settings_take(
    typed: str, completed: str, reply: str, shared_daemon: Daemon, tmp_path: Path
) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type(typed)
        screen.expect(typed)
        screen.type("\t")
        screen.expect(completed)
        screen.type("\r")
        screen.expect(f"\n{reply}\n{PROMPT}")


def test_tab_shows_all_that_a_setting_takes(shared_daemon: Daemon, tmp_path: Path) -> None:
    """Not the last answer, which settings do not take, but `PRECISION` does."""
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        ask(screen, "2+2", "4")
        screen.type("ROUNDING ")
        screen.expect("ROUNDING ")
        screen.type("\t")
        screen.expect("\x07")
        screen.type("\t")
        screen.expect("05up")
        shown = screen.expect(PROMPT)
        assert {"ceiling", "half-even", "up"} <= set(shown.split())
        screen.type(b"\x15PRECISION ")
        screen.expect("PRECISION ")
        screen.type("\t")
        screen.expect("4")
        screen.type("\r")
        screen.expect("\n4\n")


def test_tab_asks_a_server_again_that_was_away(
    screen: Terminal, start: Callable[[], Daemon]
) -> None:
    screen.type("SOM\t")
    screen.expect("SOM\x07")
    start()
    screen.type("\r")
    screen.expect("ERR UNKNOWN-OPERATION")
    screen.expect(PROMPT)
    screen.type("SOM\t")
    screen.expect("SOMA")


# -- What replies look like ----------------------------------------------------------------------


def test_help_is_wrapped_at_words(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        for columns in 80, 50, 30:
            screen.resize(columns)
            for request in "HELP ROUNDING", " ajuda ROUNDING", "HELP":
                (whole,) = shared_daemon.ask(f"{request}\n".encode()).decode().splitlines()
                screen.type(f"{request}\r")
                screen.expect(f"{request}\n")
                lines = screen.expect("\n" + PROMPT).split("\n")
                assert max(map(len, lines)) <= columns
                assert all(line.startswith("  ") for line in lines[1:])
                together = " ".join(line.strip() for line in lines)
                assert together.replace("| ", "|") == whole
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("one two three", ["one two", "  three"]),
        ("12345678 12345678 ", ["12345678", "  12345678"]),
        ("a 1234567890123 b", ["a", "  1234567890123", "  b"]),
        ("a one|two|three", ["a one|two|", "  three"]),
        ("  a   b  c", ["a   b  c"]),
    ],
)
def test_wrapping(text: str, lines: list[str]) -> None:
    assert prompt.wrap(text, 10).split("\n") == lines


RED, NORMAL = "\x1b[31m", "\x1b[39;49m"


@pytest.mark.parametrize(
    ("environment", "is_red"),
    [
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "", "TERM": "linux"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "0"}, False),
        ({"NO_COLOR": "", "TERM": "dumb"}, False),
        ({"NO_COLOR": "", "TERM": "vt100"}, False),
        ({"NO_COLOR": "", "TERM": ""}, False),
        ({"NO_COLOR": "", "TERM": "no-such-terminal"}, False),
    ],
)
def test_errors_are_red_where_the_terminal_has_colours(
    environment: dict[str, str], is_red: bool, serve: Servers, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"ERR X \x1b[2J\r\n")
        receive(connection, b"b\n")
        connection.sendall(b"1\n")

    pytest.importorskip("curses")
    start, end = (RED, NORMAL) if is_red else ("", "")
    with terminal(tmp_path, HOST, serve(greeted(script)), **environment) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        screen.expect(f"a\n{start}ERR X \\x1b[2J{end}\n{PROMPT}")
        screen.type("b\r")
        screen.expect(f"b\n1\n{PROMPT}")
        screen.type(CTRL_D)
        assert screen.end() == 1


def test_a_python_without_curses(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "curses.py").write_text("raise ImportError")
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where, NO_COLOR="", PYTHONPATH=str(tmp_path)) as screen:
        screen.expect(PROMPT)
        screen.type("1/0\r")
        screen.expect("\nERR DIVISION-BY-ZERO division by zero\n" + PROMPT)


# -- A malicious server --------------------------------------------------------------------------


def test_one_reply_too_many_behind_the_version_ends_the_session(
    serve: Servers, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"VERSION\n")
        connection.sendall(b"calcd 1.2.3\n1\n")
        assert connection.recv(1) == b""

    port = serve(script)
    with terminal(tmp_path, HOST, port) as screen:
        assert screen.expect("\n") == f"calcc: {HOST} port {port}: {protocol.UNEXPECTED}"
        assert screen.end() == 3


@pytest.mark.parametrize("before", [b"", b"LANGUAGE pt\n"])
def test_a_version_without_end_ends_the_session(
    before: bytes, serve: Servers, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, before + b"VERSION\n")
        with suppress(ConnectionError):
            connection.sendall(before + b"1" * 2 * protocol.MAX_REPLY)

    port = serve(script)
    locale = "pt_PT.UTF-8" if before else "C.UTF-8"
    with terminal(tmp_path, HOST, port, LC_ALL=locale) as screen:
        reason = f"a reply has more than {protocol.MAX_REPLY} bytes"
        assert screen.expect("\n") == f"calcc: {HOST} port {port}: {reason}"
        assert screen.end() == 3


def test_a_new_connection_is_not_trusted_more_than_the_first(
    serve: Servers, tmp_path: Path
) -> None:
    def once(connection: socket.socket) -> None:
        receive(connection, b"a\n")

    def too_many(connection: socket.socket) -> None:
        receive(connection, b"VERSION\n")
        connection.sendall(b"calcd 1.2.3\n1\n")
        assert connection.recv(1) == b""

    port = serve(greeted(once), too_many)
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        assert screen.expect("\ncalcc: ") == "a"
        assert screen.expect("\n") == f"{HOST} port {port}: {protocol.UNEXPECTED}"
        assert screen.end() == 3


@pytest.mark.parametrize(
    "choices", ["a|\x1b[2J", "a|" * 50_000, "a b|c", "", "|", "a|\u202eb", "x" * 100_000]
)
def test_the_choices_of_a_setting_are_plain_words(choices: str, serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"HELP\n")
        connection.sendall(b"HELP settings\n")
        receive(connection, b"HELP settings\n")
        connection.sendall(b"settings: ROUNDING\n")
        receive(connection, b"HELP ROUNDING\n")
        connection.sendall(f"ROUNDING [{choices}]: x\n".encode())

    words = completion.fetch_words(cli.Options([HOST, str(serve(script))]).endpoint)
    assert words.operations == ["HELP", "ROUNDING"]
    assert words.choices == {}
