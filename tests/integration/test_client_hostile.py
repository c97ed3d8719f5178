"""A malicious server: calcc and Calculator fail soon, and use little memory."""

import random
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from calculators import Connect
from client_helpers import (
    COMMAND,
    HOST,
    PROMPT,
    Script,
    Servers,
    Terminal,
    answer,
    calcc,
    error_message,
    greeted,
    receive,
    running,
    terminal,
)
from helpers import ROOT, TIMEOUT, Daemon, bytes_unacked, clean_environment, wait_until

from calcd.client import CalculatorError, counting, protocol, streams
from calcd.client.replies import parse_reply

TOO_LONG = f"a reply has more than {protocol.MAX_REPLY} bytes"
SMALL = 32 << 20  # bytes: enough for a reply of any length that is allowed, twice


def flood(data: bytes) -> Script:
    """Send this again and again after a request, up to much more than a client reads."""

    def script(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        with suppress(ConnectionError):
            for _ in range((64 << 20) // len(data)):
                connection.sendall(data)

    return script


ENDLESS = flood(b"1" * 65536)


# -- A reply has a bound -------------------------------------------------------------------------


ASK = """
with Calculator({host!r}, {port}) as calculator:
    before = most()
    try:
        calculator.request_many(["a", "b"])
    except ConnectionAbortedError as error:
        print(error)
    print(most() - before)
"""
ASK_ASYNC = """
async def main():
    async with AsyncCalculator({host!r}, {port}) as calculator:
        before = most()
        try:
            await calculator.request_many(["a", "b"])
        except ConnectionAbortedError as error:
            print(error)
        print(most() - before)

asyncio.run(main())
"""


@pytest.mark.parametrize("ask", [ASK, ASK_ASYNC], ids=["Calculator", "AsyncCalculator"])
def test_a_calculator_disconnects_from_a_server_whose_reply_does_not_end(
    ask: str, serve: Servers
) -> None:
    """It does not send the request again."""
    script = """if True:
        import asyncio
        from pathlib import Path
        from calcd.client import AsyncCalculator, Calculator

        def most():
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    """
    done = subprocess.run(
        [sys.executable, "-c", script + ask.format(host=HOST, port=serve(ENDLESS))],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.stderr == ""
    said, grown = done.stdout.splitlines()
    assert said.endswith(f": {TOO_LONG}")
    assert int(grown) < SMALL


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("size", [1, 4093, 65536])
def test_the_bound_is_for_one_reply_wherever_a_chunk_ends(size: int, more: int) -> None:
    replies = counting.ReplySplitter(3)
    stream = b"4\n" + b"1" * (protocol.MAX_REPLY + more) + b"\n5\n"
    if size == 1:
        stream = stream[:1000] + stream[-1000:]
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    if more and size > 1:
        with pytest.raises(ConnectionAbortedError, match=TOO_LONG):
            list(map(replies.add, chunks))
    else:
        whole = [reply for chunk in chunks for reply in replies.add(chunk)]
        assert b"".join(reply + b"\n" for reply in whole) == stream
        assert (replies.expected, len(replies.rest)) == (0, 0)


def limit_memory(screen: Terminal) -> None:
    """Limit the client to little more memory than it has now."""
    status = Path(f"/proc/{screen.process.pid}/status").read_text()
    now = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.prlimit(screen.process.pid, resource.RLIMIT_AS, (now + SMALL,) * 2)


@pytest.mark.parametrize(
    ("script", "said"), [(ENDLESS, TOO_LONG), (flood(b"1\n" * 32768), protocol.UNEXPECTED)]
)
def test_a_prompt_disconnects_from_a_server_that_does_not_stop_sending(
    script: Script, said: str, serve: Servers, tmp_path: Path
) -> None:
    port = serve(greeted(script))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        limit_memory(screen)
        screen.type("a\r")
        assert screen.expect(f"calcc: {HOST} port {port}: {said}\n") == "a\n"
        assert screen.end() == 3


# -- Unexpected replies --------------------------------------------------------------------------


@pytest.mark.parametrize("replies", [b"1\n2\n", b"1\n2", b"1\n\n"])
def test_a_prompt_shows_none_of_too_many_replies(
    replies: bytes, serve: Servers, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(replies)
        assert connection.recv(1) == b""

    port = serve(greeted(script))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        assert screen.expect(f"calcc: {HOST} port {port}: {protocol.UNEXPECTED}\n") == "a\n"
        assert screen.end() == 3


def one_more(connection: socket.socket, shown: threading.Event, sent: threading.Event) -> None:
    """Answer a request, and send another reply after the first was shown."""
    receive(connection, b"a\n")
    connection.sendall(b"1\n")
    assert shown.wait(TIMEOUT)
    connection.sendall(b"2\n")
    wait_until(lambda: bytes_unacked(connection) == 0, "the reply to be taken")
    sent.set()
    assert connection.recv(1) == b""


def test_a_prompt_does_not_take_a_late_reply_for_the_next(serve: Servers, tmp_path: Path) -> None:
    shown, sent = threading.Event(), threading.Event()
    port = serve(greeted(lambda connection: one_more(connection, shown, sent)))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        assert screen.expect(PROMPT) == "a\n1\n"
        shown.set()
        assert sent.wait(TIMEOUT)
        screen.type("b\r")
        assert screen.expect(f"calcc: {HOST} port {port}: {protocol.UNEXPECTED}\n") == "b\n"
        assert screen.end() == 3


def test_a_calculator_does_not_take_a_late_reply_for_the_next(
    serve: Servers, connect: Connect
) -> None:
    shown, sent = threading.Event(), threading.Event()
    with connect(serve(lambda connection: one_more(connection, shown, sent))) as one:
        assert one.evaluate("a") == 1
        shown.set()
        assert sent.wait(TIMEOUT)
        with pytest.raises(ConnectionAbortedError, match=protocol.UNEXPECTED):
            one.evaluate("b")


def test_a_calculator_notices_too_many_replies_at_once(serve: Servers, connect: Connect) -> None:
    """It notices before it has sent all requests."""
    asked = ["1" * 1000] * 10_000
    with (
        connect(serve(flood(b"1\n" * 32768))) as calculator,
        pytest.raises(ConnectionAbortedError, match=protocol.UNEXPECTED),
    ):
        calculator.request_many(asked)


def test_a_calculator_takes_no_reply_to_what_it_has_not_sent(
    serve: Servers, connect: Connect
) -> None:
    """There are as many replies as requests, but all come after the first."""
    count = 20_000

    def script(connection: socket.socket) -> None:
        assert connection.recv(1)
        connection.sendall(b"1\n" * count)
        assert read_all_or_reset(connection) < 1000 * count

    with (
        connect(serve(script)) as calculator,
        pytest.raises(ConnectionAbortedError, match=protocol.UNEXPECTED),
    ):
        calculator.request_many(["1" * 1000] * count)


def read_all_or_reset(connection: socket.socket) -> int:
    """Return how many bytes come before the other side ends."""
    count = 0
    with suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            count += len(data)
    return count


def test_a_datagram_is_one_reply(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        port = server.getsockname()[1]
        with terminal(tmp_path, "-u", HOST, port) as screen:
            _, sender = server.recvfrom(100)
            server.sendto(b"calcd 1.2.3\n", sender)
            screen.expect(PROMPT)
            screen.type("a\r")
            _, sender = server.recvfrom(100)
            server.sendto(b"1\n2\n", sender)
            assert screen.expect(f"calcc: {HOST} port {port}: {protocol.UNEXPECTED}\n") == "a\n"
            assert screen.end() == 3


# -- Outside the prompt --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin"), [(["-e", "a"], b""), ([], b"a\n"), ([], b"a\nb\nc\n"), ([], b"a")]
)
def test_a_reply_without_end_ends_the_run(
    arguments: list[str], stdin: bytes, serve: Servers, tmp_path: Path
) -> None:
    """It takes little memory, and what reads the output gets no more than a reply may have."""
    script = """if True:
        import os, subprocess, sys
        client = subprocess.Popen(sys.argv[1:])
        _, status, usage = os.wait4(client.pid, 0)
        print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=sys.stderr)
        client.returncode = 0
    """
    port = serve(ENDLESS)
    command = [sys.executable, "-c", script, *COMMAND, *arguments, HOST, str(port)]
    with (tmp_path / "replies").open("wb") as replies:
        done = calcc(command=command, stdin=stdin, stdout=replies)
    told, measured = done.stderr.decode().splitlines()
    assert told.startswith(f"calcc: {HOST} port {port}: {TOO_LONG}; requests with a reply: 0, none")
    status, most = map(int, measured.split())
    assert (status, most < SMALL >> 10) == (3, True)
    assert (tmp_path / "replies").stat().st_size == protocol.MAX_REPLY


TOO_MANY = [
    (b"1\n2\n", b"1\n", 1),
    (b"1\n2", b"1\n", 1),
    (b"1\n\n", b"1\n", 1),
    (b"1\nERR X\n2\n", b"1\nERR X\n", 1),
    (b"ERR X\nERR Y\nERR Z\n", b"ERR X\nERR Y\n", 1),
]


@pytest.mark.parametrize(("replies", "shown_", "count"), TOO_MANY)
@pytest.mark.parametrize("arguments", [["-Qe", "a"], ["-Q"]])
def test_a_reply_too_many_ends_the_run(
    arguments: list[str], replies: bytes, shown_: bytes, count: int, serve: Servers
) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(replies)
        assert connection.recv(1) == b""

    port = serve(script)
    done = calcc(*arguments, HOST, port, stdin=b"" if "-Qe" in arguments else b"a\n")
    told = f"calcc: {HOST} port {port}: {protocol.UNEXPECTED}; requests with a reply: {count}\n"
    assert done.returncode == 3
    assert done.stderr.endswith(told.encode())
    assert done.stdout + done.stderr.removesuffix(told.encode()) == shown_


def test_a_reply_that_nothing_was_asked_for(serve: Servers) -> None:
    port = serve(lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n"))
    with running(HOST, port) as process:
        assert process.wait(TIMEOUT) == 3
        assert process.stdout.read() == b""
        assert protocol.UNEXPECTED in process.stderr.read().decode()


@pytest.mark.parametrize("argument", [["-e", "SOMA 1 1"], []])
def test_a_tls_alert_is_no_reply(serve: Servers, argument: list[str]) -> None:
    port = serve(lambda connection: connection.sendall(b"\x15\x03\x03\0\2\2\x0a"))
    done = calcc(*argument, HOST, port, stdin=b"SOMA 1 1\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert protocol.TLS_ALERT in done.stderr.decode()
    assert "--ssl" in done.stderr.decode()


def test_a_stream_of_replies_is_bounded_by_that_of_requests(serve: Servers) -> None:
    """Also on a second connection, and where replies come without a pause."""
    with running(HOST, serve(flood(b"1\n" * 32768))) as process:
        process.stdin.write(b"a\n" * 1000)
        assert process.wait(TIMEOUT) == 3
        assert process.stdout.read() == b"1\n" * 1000


def test_two_lines_in_a_datagram_are_a_reply_too_many() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        with running("-u", HOST, server.getsockname()[1]) as process:
            process.stdin.write(b"a\nb\n")
            _, sender = server.recvfrom(100)
            server.sendto(b"1\n2\n", sender)
            assert process.wait(TIMEOUT) == 3
            assert process.stdout.read() == b""
            assert f"{protocol.UNEXPECTED}; requests with a reply: 0, none from line 1 on\n" in (
                process.stderr.read().decode()
            )


REPLIES_TO_CHECK = [
    (b"a\n\nb\n", b"1\n2\n", b""),
    (b"a\n\nb\n", b"1\n2\n", b"3\n"),
    (b"a\n", b"1\nERR BUSY\n", b""),
    (b"a\n", b"1\nERR BUSY\n", b"E"),
    (b"a\n", b"1\n", b"\n"),
    (b"", b"ERR FORBIDDEN x\n", b"ERR FORBIDDEN x\n"),
    (b"a\r\0b\r\0", b"1\n2\n", b""),
]


@pytest.mark.parametrize(("requests", "accepted", "refused"), REPLIES_TO_CHECK)
def test_what_is_accepted_does_not_depend_on_where_a_chunk_ends(
    requests: bytes, accepted: bytes, refused: bytes
) -> None:
    replies = accepted + refused
    for size in range(1, len(replies) + 1):
        counter = counting.ReplyCounter()
        counter.add_requests(requests)
        taken = b""
        for start in range(0, len(replies), size):
            chunk = replies[start : start + size]
            length, problem = counter.check(chunk)
            counter.add_replies(chunk[:length])
            taken += chunk[:length]
            if problem:
                assert refused
                break
        assert taken == accepted


@pytest.mark.parametrize("seed", range(20))
def test_no_reply_of_the_daemon_is_one_too_many(seed: int, shared_daemon: Daemon) -> None:
    """Also where the server reads lines in another way than the client does."""
    pieces = [
        *(b"SOMA 2 2", b"x", b"#", b"=", b"UPPER a", b"HELP", b" ", b"\t", b"\x0b", b"\xc2\xa0"),
        *(b"\n", b"\r\n", b"\r", b"\0", b"\r\0", b"\r\r\n", b"\xef\xbb\xbf", b"\xef", b"\xbb"),
        *(b"\xff", b"\xff\xf1", b"\xff\xff", b"\xff\xfb\x01"),
    ]
    choose = random.Random(seed)
    for _ in range(20):
        stream = b"".join(choose.choices(pieces, k=choose.randrange(14)))
        counter = counting.ReplyCounter()
        for start in range(0, len(stream), 3):
            counter.add_requests(stream[start : start + 3])
        replies = shared_daemon.ask(stream)
        assert counter.check(replies) == (len(replies), ""), stream


def test_lines_that_never_end_are_not_too_many(shared_daemon: Daemon) -> None:
    with running(shared_daemon.host, shared_daemon.port) as process:
        for number in range(3):
            process.stdin.write(b"SOMA %d 1" % number)
            assert process.stdout.read(100) == b"%d\n" % (number + 1)
        process.stdin.write(b"SOMA 3 1\nSOMA 4 1\n")
        process.stdin.close()
        assert process.stdout.read() == b"4\n5\n"
        assert process.wait(TIMEOUT) == 0


def test_a_terminal_gets_errors_escaped(serve: Servers, tmp_path: Path) -> None:
    port = serve(answer(b"ERR X \x1b[31m\xff\n"))
    with terminal(tmp_path, "-e", "a", HOST, port, redirect=f">{tmp_path}/replies") as screen:
        assert screen.end() == 1
        assert screen.screen == rb"ERR X \x1b[31m\xff" + b"\r\n"


# -- Control characters --------------------------------------------------------------------------

SHOWN: dict[str | bytes, str] = {
    b"\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31m".encode(): r"\x9b31m",
    b"\x9b31m \xff\xed\xa0\x80": r"\x9b31m \xff\xed\xa0\x80",
    b"a\x00\x08\x7fb": r"a\x00\x08\x7fb",
    "\u202egnp\u2066.\u2069 \u200e\u200f\u2028": r"\u202egnp\u2066.\u2069 \u200e\u200f\u2028",
    "\U000e0041\ufeff": r"\U000e0041\ufeff",
    b"1\r2\r\r3": r"1\r2\r\r3",
    "OLÁ \\x1b\t日本 ±½": "OLÁ \\x1b\t日本 ±½",
    b"\xe2\x82": r"\xe2\x82",
}
REPLIES = [(raw.encode() if isinstance(raw, str) else raw, shown) for raw, shown in SHOWN.items()]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what the client writes to standard output, as if that were a terminal."""
    written: list[bytes] = []
    monkeypatch.setattr(streams, "write_output", lambda data, _stream: written.append(data))
    monkeypatch.setattr("os.isatty", lambda _: True)
    return written


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n1"])
@pytest.mark.parametrize(("raw", "text"), REPLIES)
def test_what_is_shown_does_not_depend_on_where_a_chunk_ends(
    raw: bytes, text: str, end: bytes, shown: list[bytes]
) -> None:
    data = raw + end
    wanted = text + end.decode().replace("\r", "")
    for size in range(1, len(data) + 1):
        with streams.Output() as output:
            for start in range(0, len(data), size):
                output.write(data[start : start + size])
        assert b"".join(shown).decode() == wanted
        shown.clear()


def test_a_prompt_escapes_what_could_steer_the_terminal(serve: Servers, tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        for raw, _ in REPLIES:
            receive(connection, b"a\n")
            connection.sendall(raw + b"\n")
        assert connection.recv(1) == b""

    with terminal(tmp_path, HOST, serve(greeted(script))) as screen:
        screen.expect(PROMPT)
        for _, text in REPLIES:
            screen.type("a\r")
            assert screen.expect(PROMPT) == f"a\n{text}\n"


def bytewise(connection: socket.socket) -> None:
    """Send all replies, each byte on its own."""
    for raw, _ in REPLIES:
        for byte in raw + b"\n":
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
    while connection.recv(1 << 16):  # to close before all is read would reset the connection
        pass


def test_a_terminal_gets_the_same_from_requests_of_the_command_line(
    serve: Servers, tmp_path: Path
) -> None:
    port = serve(bytewise)
    with terminal(tmp_path, *["-e", "a"] * len(REPLIES), HOST, port) as screen:
        for _, text in REPLIES:
            assert screen.expect("\n") == text
        assert screen.end() == 0


def test_a_terminal_gets_the_same_from_datagrams(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        port = server.getsockname()[1]
        with terminal(tmp_path, "-u", "-e", "a", HOST, port) as screen:
            _, sender = server.recvfrom(100)
            server.sendto(b"\x1b[31m\n", sender)
            assert screen.expect("\n") == r"\x1b[31m"
            assert screen.end() == 0


def test_a_pipe_gets_the_servers_bytes(serve: Servers) -> None:
    replies = b"".join(raw + b"\n" for raw, _ in REPLIES)
    done = calcc(*["-e", "a"] * len(REPLIES), HOST, serve(answer(replies)))
    assert (done.stdout, done.stderr, done.returncode) == (replies, b"", 0)


def test_a_file_gets_them_although_errors_go_to_a_terminal(serve: Servers, tmp_path: Path) -> None:
    port = serve(answer(b"\x1b[31m\xff\r"))
    replies = tmp_path / "replies"
    with terminal(tmp_path, "-e", "a", HOST, port, redirect=f">{replies}") as screen:
        assert screen.end() == 3
    assert replies.read_bytes() == b"\x1b[31m\xff\r"


@pytest.mark.parametrize(
    ("argument", "said"), [("a\x1b[2J", r"a\x1b[2J"), ("a\nb\x9b", r"a\nb\x9b"), ("\udc9b", "dc9b")]
)
def test_messages_on_standard_error_are_printable(argument: str, said: str) -> None:
    assert said in error_message(calcc("-U", f"/nowhere/{argument}", "-e", "a"))


def test_an_error_is_shown_with_printable_characters() -> None:
    error = parse_reply("ERR X \x1b[31m")
    assert isinstance(error, CalculatorError)
    assert (error.message, str(error)) == ("\x1b[31m", r"X \x1b[31m")


CONTROL = "\x1b]0;title\x07 \x9b31m \u202e"


@pytest.mark.parametrize("ask", ["evaluate", "evaluate_many"])
@pytest.mark.parametrize(
    "replies", [f"{CONTROL}\n", f"ERR X {CONTROL}\n", f"ERR {CONTROL}\n"], ids=ascii
)
def test_no_error_of_a_calculator_has_control_characters(
    replies: str, ask: str, serve: Servers, connect: Connect
) -> None:
    def script(connection: socket.socket) -> None:
        assert connection.recv(100)
        connection.sendall(replies.encode())

    requests: object = "a" if ask == "evaluate" else ["a", "b", "c"]
    with (
        connect(serve(*[script] * (1 if ask == "evaluate" else 2))) as calculator,
        pytest.raises((CalculatorError, ValueError, ConnectionError)) as error,
    ):
        getattr(calculator, ask)(requests)
    for text in str(error.value), repr(error.value):
        assert text.isprintable()
