"""calcc as its users run it: a process with pipes, files and terminals, and real sockets.

A server that works is the daemon. A server that fails is a script, run in a thread of the test for
one connection after the other.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from client_helpers import (
    COMMAND,
    CTRL_D,
    HOST,
    PROMPT,
    UP,
    Script,
    Servers,
    answer,
    assert_input_waits_for_replies,
    assert_replies_come_at_once,
    calcc,
    echo,
    error_message,
    greeted,
    receive,
    reset,
    running,
    shell,
    small_pipe,
    terminal,
    wait_until_asleep,
    wait_until_full,
)
from helpers import ROOT, TIMEOUT, Daemon, Daemons, read_all, wait_until

from calcd.client import cli, counting, protocol, transport

NETCAT = shutil.which("nc.openbsd")
REQUESTS = b"SOMA 2 2\nsub 5 3\nMUL 0.1 0.2\nDIV 1 3\n"
REPLIES = b"4\n2\n0.02\n0.3333333333333333333333333333333333\n"


@pytest.fixture
def refusing() -> Iterator[int]:
    """Yield a port of 127.0.0.1 that refuses: bound, so that it stays free, and not listening."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


# -- Streaming -----------------------------------------------------------------------------------


def test_requests_come_from_standard_input_and_replies_go_to_standard_output(
    shared_daemon: Daemon,
) -> None:
    done = calcc(shared_daemon.host, shared_daemon.port, stdin=REQUESTS)
    assert (done.stdout, done.stderr, done.returncode) == (REPLIES, b"", 0)


def test_standard_input_may_be_a_file(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "requests").write_bytes(REQUESTS)
    with (tmp_path / "requests").open() as requests, (tmp_path / "replies").open("wb") as replies:
        done = calcc(shared_daemon.host, shared_daemon.port, stdin=requests, stdout=replies)
    assert done.returncode == 0
    assert (tmp_path / "replies").read_bytes() == REPLIES


def test_a_last_line_without_newline_is_a_request(shared_daemon: Daemon) -> None:
    done = calcc(shared_daemon.host, shared_daemon.port, stdin=b"SOMA 2 2\nSUB 5 3")
    assert (done.stdout, done.returncode) == (b"4\n2\n", 0)


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-"])
def test_nothing_to_read_is_the_end_of_input(stdin: str, shared_daemon: Daemon) -> None:
    done = shell(f"calcc {shared_daemon.host} {shared_daemon.port} {stdin}")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


def test_replies_come_while_input_is_still_open(shared_daemon: Daemon) -> None:
    with running(shared_daemon.host, shared_daemon.port) as process:
        assert_replies_come_at_once(process)


def test_the_end_of_input_half_closes_and_the_last_reply_still_comes(serve: Servers) -> None:
    port = serve(answer(b"late\n"))  # which reads to the end before it says anything
    done = calcc(HOST, port, stdin=b"SOMA 2 2\n")
    assert (done.stdout, done.returncode) == (b"late\n", 0)


def test_streams_that_another_program_made_non_blocking(shared_daemon: Daemon) -> None:
    requests, replies = os.pipe(), small_pipe()
    for end in requests[0], replies[1]:
        os.set_blocking(end, False)
    count = 50_000
    with (
        os.fdopen(requests[1], "wb") as sink,
        os.fdopen(replies[0], "rb") as source,
        running(
            shared_daemon.host, shared_daemon.port, stdin=requests[0], stdout=replies[1]
        ) as process,
    ):

        def ask() -> None:
            with sink:
                sink.write(b"PING\n" * count)

        os.close(requests[0])
        asking = threading.Thread(target=ask)
        asking.start()
        wait_until_full(process, replies[1])
        os.close(replies[1])
        assert source.read() == b"PONG\n" * count
        asking.join()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""


def test_three_hundred_thousand_requests_come_back_whole(shared_daemon: Daemon) -> None:
    count = 300_000
    requests = b"".join(b"SOMA %d 1\n" % number for number in range(count))
    done = calcc(shared_daemon.host, shared_daemon.port, stdin=requests)
    assert done.stdout == b"".join(b"%d\n" % (number + 1) for number in range(count))
    assert (done.stderr, done.returncode) == (b"", 0)


def test_memory_does_not_grow_with_the_input(serve: Servers, tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    with requests.open("wb") as file:
        for _ in range(64):
            file.write(b"%01023d\n" % 7 * 1024)
    # The kernel counts the most that a process ever had from before it became another program,
    # so that it must be started by one that is small itself.
    script = """if True:
        import os, subprocess, sys
        client = subprocess.Popen(sys.argv[1:])
        _, status, usage = os.wait4(client.pid, 0)
        print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=sys.stderr)
        client.returncode = 0
    """
    command = [sys.executable, "-c", script, *COMMAND, HOST, str(serve(echo))]
    with requests.open("rb") as file, (tmp_path / "replies").open("wb") as replies:
        done = calcc(command=command, stdin=file, stdout=replies)
    status, most = map(int, done.stderr.split())
    assert (tmp_path / "replies").stat().st_size == requests.stat().st_size == 64 << 20
    assert status == 0
    assert most < 32 << 10  # KiB


def test_unread_replies_stop_the_client_from_reading_input(serve: Servers) -> None:
    with running(HOST, serve(echo)) as process:
        assert_input_waits_for_replies(process)


# -- Like netcat ---------------------------------------------------------------------------------


@pytest.mark.skipif(NETCAT is None, reason="nc.openbsd is not installed")
@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(REQUESTS, id="results"),
        pytest.param(b"SOMA 2\nfoo\n\nDIV 1 0\nSOMA 1,5 2\nSOMA 2 2\n", id="errors"),
        pytest.param(b"SOMA 2 2\r\nSOMA 3 3\n\r\n \t\r\nDIV 0 0\r\nPING\r\n", id="CRLF"),
        pytest.param(b"SOMA 2 2\nSOMA 3 3", id="no last newline"),
        pytest.param(b"MAIUSCULA ol\xc3\xa1\nMAIUSCULA \xff\xfe\x00\n", id="text"),
        pytest.param(b"PING\nQUIT\nPING\n", id="QUIT"),
        pytest.param(b"PING\n" + b"9" * 5000 + b"\nPING\n", id="line too long"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"DIV 1 7\nx\n" * 20_000, id="many"),
    ],
)
def test_the_output_is_the_same_as_netcats(requests: bytes, shared_daemon: Daemon) -> None:
    where = shared_daemon.host, shared_daemon.port
    theirs = calcc("-N", *where, stdin=requests, command=[str(NETCAT)])
    assert calcc(*where, stdin=requests).stdout == theirs.stdout


@pytest.mark.parametrize("options", [["-N"], ["-q", "0"], ["-q", "1"], ["-q", "-1"], ["-Nq1"]])
def test_the_options_of_a_netcat_in_a_script(options: list[str], serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, REQUESTS)
        assert connection.recv(1) == b""
        for reply in REPLIES.splitlines(keepends=True):
            serve.over.wait(0.05)
            connection.sendall(reply)

    done = calcc(*options, HOST, serve(script), stdin=REQUESTS)
    assert (done.stdout, done.stderr, done.returncode) == (REPLIES, b"", 0)


def test_options_may_follow_the_host(shared_daemon: Daemon) -> None:
    done = calcc(shared_daemon.host, "-N", shared_daemon.port, "-w5", stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)


def test_operands_may_follow_two_dashes(shared_daemon: Daemon) -> None:
    done = calcc("-N", "--", shared_daemon.host, shared_daemon.port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)


# -- Requests on the command line ----------------------------------------------------------------


def test_requests_on_the_command_line_are_sent_in_order(shared_daemon: Daemon) -> None:
    requests = ["-e", "SOMA 2 2", "-eSUB 5 3", "-ve", "MAIUSCULA olá"]
    done = calcc(*requests, shared_daemon.host, shared_daemon.port)
    assert (done.stdout.decode(), done.returncode) == ("4\n2\nOLÁ\n", 0)


def test_requests_on_the_command_line_leave_standard_input_alone(shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    script = f"while read -r a b; do calcc -e \"SOMA $a $b\" {where}; done <<< $'1 2\n3 4'"
    assert shell(script).stdout == b"3\n7\n"


def test_a_request_with_a_newline_is_two(shared_daemon: Daemon) -> None:
    done = calcc("-e", "SOMA 2 2\n\nSOMA 3 3", shared_daemon.host, shared_daemon.port)
    assert (done.stdout, done.returncode) == (b"4\n6\n", 0)


def test_many_requests_on_the_command_line(shared_daemon: Daemon) -> None:
    requests = ["-e", "PING"] * 20_000
    done = calcc(*requests, shared_daemon.host, shared_daemon.port)
    assert (done.stdout, done.returncode) == (b"PONG\n" * 20_000, 0)


# -- Exit status ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        (b"SOMA 2 2\n", 0),
        (b"DIV 1 0\n", 1),
        (b"DIV 1 0\nSOMA 2 2\n", 1),
        (b"SOMA 2 2\nfoo", 1),
        (b"MAIUSCULA no err here\n", 0),
        (b"\n \t\n\r\n", 0),
        (b"9" * 17_000, 1),
        (b"PING\nQUIT\nPING\n", 3),
    ],
)
def test_exit_status(requests: bytes, status: int, shared_daemon: Daemon) -> None:
    assert calcc(shared_daemon.host, shared_daemon.port, stdin=requests).returncode == status


CONVERSATIONS = [
    (b"", 0, b"", 0, False),
    (b"a\nb\n", 2, b"1\n2\n", 2, False),
    (b"a\nb", 2, b"1\nERR X x\n", 2, True),
    (b"a\n\n \t\r\n\r\n\tb c\r\n", 2, b"ERR X x\r\n1\n", 2, True),
    (b"\xef\xbb\xbf\na\n\0\0\n\0b\n\0", 2, b"1\n2\n", 2, False),
    (b"a b", 1, b"1 ERR \n", 1, False),
    (b"a\n", 1, b"ERROR\n", 1, False),
    (b"a\nb\n", 2, b" ERR X\nERR\n", 2, False),
    (b"a\nb\n", 2, b"1\n2", 1, False),
]


@pytest.mark.parametrize(("requests", "sent", "replies", "received", "has_errors"), CONVERSATIONS)
def test_counting_does_not_depend_on_where_a_chunk_ends(
    requests: bytes, sent: int, replies: bytes, received: int, has_errors: bool
) -> None:
    for size in range(1, max(len(requests), len(replies)) + 2):
        counter = counting.ReplyCounter()
        for start in range(0, len(requests), size):
            counter.add_requests(requests[start : start + size])
        for start in range(0, len(replies), size):
            counter.add_replies(replies[start : start + size])
        assert (counter.requests, counter.replies, counter.errors) == (sent, received, has_errors)


def test_an_error_that_comes_in_two_pieces(serve: Servers) -> None:
    seen = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(b"4\nER")
        assert seen.wait(TIMEOUT)
        connection.sendall(b"R X x\n")
        read_all(connection)

    with running("-e", "a", "-e", "b", HOST, serve(script)) as process:
        assert process.stdout.read(4) == b"4\n"
        seen.set()
        assert process.stderr.read() == b"ERR X x\n"
        assert process.stdout.read() == b""
        assert process.wait(TIMEOUT) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-x"], "unknown option -x"),
        (["--nope"], "unknown option --nope"),
        (["--help=me"], "--help takes no value"),
        (["--udp=yes"], "--udp takes no value"),
        (["--time", "1"], "unknown option --time"),
        (["-w"], "-w needs a value"),
        (["-e"], "-e needs a value"),
        (["-e", ""], "-e '' asks nothing"),
        (["-e", "PING", "-e", " \t\n"], r"-e ' \t\n' asks nothing"),
        (["-w", "0"], "-w takes more than 0 seconds, not 0"),
        (["--timeout=0"], "--timeout takes more than 0 seconds, not 0"),
        (["--timeout"], "--timeout needs a value"),
        (["--request="], "--request '' asks nothing"),
        (["--unix-socket", ""], "--unix-socket needs a path, not ''"),
        (["-w", "-1"], "more than 0"),
        (["-w", "soon"], "seconds, not soon"),
        (["-q", "soon"], "seconds, not soon"),
        (["a", "1", "2"], "one operand too many: 2"),
        (["-U", "path", "host"], "one operand too many: host"),
        (["localhost", "0"], "invalid port 0"),
        (["localhost", "65536"], "invalid port 65536"),
        (["localhost", "9" * 5000], "invalid port 999"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    done = calcc(*arguments)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert said in error_message(done)
    assert error_message(done).endswith("; see calcc -h")


def test_every_letter_has_a_long_form() -> None:
    for first, long, _, _ in cli.OPTIONS + cli.COLUMN_OPTIONS + cli.TLS_OPTIONS:
        assert (long or first).startswith("--"), first


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["-e", "SOMA 2 2"], ["--request=SOMA 2 2"]),
        (
            ["-4", "-w", "9", "-q9", "-z"],
            ["--ipv4", "--timeout", "9", "--eof-timeout=9", "--check"],
        ),
        (["-6NQv"], ["--ipv6", "--half-close", "--quiet", "--verbose"]),
        (["-uePING"], ["--udp", "--request", "PING"]),
        (["-U", "/path", "-V"], ["--unix-socket=/path", "--version"]),
        (["--fold", "SOMA", "-F,"], ["--fold=SOMA", "--field-separator=,"]),
    ],
)
def test_a_long_option_is_its_short_form(short: list[str], long: list[str]) -> None:
    def parsed(argv: list[str]) -> list[tuple[str, str]]:
        return [(option, value) for option, _, value in cli.parse(argv)]

    assert parsed(long) == parsed(short)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str) -> None:
    done = calcc(option)
    assert (done.stderr, done.returncode) == (b"", 0)
    for option, value, meaning in [
        ("-4, --ipv4", "", "use IPv4 only"),
        ("-U, --unix-socket", " PATH", "connect to a Unix socket"),
        ("-h, --help", "", "print this help"),
        ("--retry", " SECONDS", "wait for a server"),
        ("--ssl", "", "use TLS"),
        ("--ssl-key", " FILE", "the private key"),
    ]:
        assert re.search(rf"^  {option}{value} {{2,}}{meaning}", done.stdout.decode(), re.M)
    assert set(cli.NAMES) <= set(re.findall(r"(?<!\S)--?[a-zA-Z0-9-]+", done.stdout.decode()))
    assert max(map(len, done.stdout.splitlines())) < 100


# -- A server that cannot be reached -------------------------------------------------------------


def test_a_refused_connection(refusing: int) -> None:
    done = calcc(HOST, refusing, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert (
        error_message(done)
        == f"{HOST} port {refusing}: connection refused: is calcd running there?"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no.such.name.invalid"], "no.such.name.invalid port 12000: name does not resolve: "),
        (["a" * 64 + ".invalid"], "name does not resolve: "),
        (["á" * 64 + ".invalid"], "name does not resolve: "),
        (["-4", "::1"], "name does not resolve: "),
        (["255.255.255.255"], "255.255.255.255 port 12000: network is unreachable"),
        (["-U", "/no/such/path"], "/no/such/path: no such file or directory"),
        (["-U", "/" + "x" * 200], "path too long"),
    ],
)
def test_an_unreachable_server(arguments: list[str], said: str) -> None:
    done = calcc(*arguments, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert said in error_message(done)


@contextmanager
def full_backlog() -> Iterator[int]:
    """Yield a port that neither accepts nor refuses, as its backlog is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((HOST, 0))
        listener.listen(0)
        for waiting in first, second:
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connection_that_takes_too_long() -> None:
    with full_backlog() as port:
        done = calcc("-w", "0.2", HOST, port, stdin=b"PING\n")
    assert (done.returncode, error_message(done)) == (3, f"{HOST} port {port}: timed out")


def test_each_address_of_a_name_is_tried(
    monkeypatch: pytest.MonkeyPatch,
    serve: Servers,
    refusing: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    port = serve(echo)
    unreachable = "255.255.255.255", port
    addresses = [(socket.AF_INET, where) for where in (unreachable, (HOST, refusing), (HOST, port))]
    monkeypatch.setattr(transport, "resolve", lambda _: addresses)
    transport.connect(cli.Options(["-v", "a.name"]).endpoint).close()
    assert capfd.readouterr().err == "calcc: a.name port 12000: connection succeeded\n"
    del addresses[-1]
    with pytest.raises(
        protocol.ClientError, match="network is unreachable, connection refused: is"
    ):
        transport.connect(cli.Options(["a.name"]).endpoint)


def test_an_address_of_an_unsupported_family_is_skipped(
    monkeypatch: pytest.MonkeyPatch, serve: Servers
) -> None:
    addresses = [(12345, (HOST, 1)), (socket.AF_INET, (HOST, serve(echo)))]
    monkeypatch.setattr(transport, "resolve", lambda _: addresses)
    transport.connect(cli.Options(["a.name"]).endpoint).close()


def test_the_family_may_be_restricted() -> None:
    def families(*switches: str) -> set[int]:
        return {
            family
            for family, _ in transport.resolve(cli.Options([*switches, "localhost"]).endpoint)
        }

    assert families("-4") == {socket.AF_INET}
    with suppress(protocol.ClientError):  # a machine may know no IPv6 address of its own
        assert families("-6") == {socket.AF_INET6}


def test_ipv6(serve: Servers) -> None:
    try:
        port = serve(echo, at=("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert calcc("-6", "::1", port, stdin=b"a\n").stdout == b"a\n"


def test_the_port_may_be_a_service() -> None:
    try:
        number = socket.getservbyname("http", "tcp")
    except OSError:
        pytest.skip("no service names here")
    assert transport.resolve(cli.Options([HOST, "http"]).endpoint) == [
        (socket.AF_INET, (HOST, number))
    ]


def test_the_default_server_is_the_default_of_the_daemon() -> None:
    assert transport.resolve(cli.Options([]).endpoint) == [(socket.AF_INET, ("127.0.0.1", 12000))]
    assert transport.resolve(cli.Options(["127.0.0.2"]).endpoint) == [
        (socket.AF_INET, ("127.0.0.2", 12000))
    ]


def test_a_unix_socket(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    start_daemon("-l", f"unix://{path}")
    done = calcc("-vU", path, "-e", "SOMA 2 2")
    assert (done.stdout, done.returncode) == (b"4\n", 0)
    assert error_message(done) == f"{path}: connection succeeded"


# -- Only checking -------------------------------------------------------------------------------


def test_a_check_connects_and_prints_nothing(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        assert connection.recv(1) == b""

    done = calcc("-z", HOST, serve(script), stdin=b"PING\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


def test_a_verbose_check_tells_that_it_succeeded(serve: Servers) -> None:
    port = serve(echo)
    done = calcc("-zv", HOST, port)
    assert (done.stdout, done.returncode) == (b"", 0)
    assert error_message(done) == f"{HOST} port {port}: connection succeeded"


def test_a_check_that_fails_says_so_by_its_status(refusing: int) -> None:
    done = calcc("-z", HOST, refusing)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 3)


def test_a_verbose_check_tells_what_failed(refusing: int) -> None:
    assert "name does not resolve" in error_message(calcc("-zv", "no.such.name.invalid"))
    assert "connection refused" in error_message(calcc("-zv", HOST, refusing))
    with full_backlog() as port:
        assert "timed out" in error_message(calcc("-zv", "-w", "0.1", HOST, port))


def test_verbose_tells_of_the_connection_and_goes_on(shared_daemon: Daemon) -> None:
    done = calcc("-v", shared_daemon.host, shared_daemon.port, stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)
    assert "connection succeeded" in error_message(done)


# -- Timeouts ------------------------------------------------------------------------------------


def test_a_server_that_is_silent_for_too_long(serve: Servers) -> None:
    port = serve(serve.silent)
    done = calcc("-w", "0.2", "-e", "a", "-e", "b", HOST, port)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == (
        f"{HOST} port {port}: silent for 0.2 s; requests with a reply: 0, none from request 1 on"
    )


def test_silence_is_no_error_if_no_reply_is_missing(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"PING\n")
        connection.sendall(b"PONG\n")
        serve.silent(connection)

    done = calcc("-w", "0.2", HOST, serve(script), stdin=b"PING\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"PONG\n", b"", 0)


def test_each_reply_starts_the_wait_anew(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        for _ in range(4):
            serve.over.wait(0.5)
            connection.sendall(b"4\n")
        read_all(connection)

    done = calcc("-w", "1.8", *["-e", "a"] * 4, HOST, serve(script))
    assert (done.stdout, done.returncode) == (b"4\n" * 4, 0)


def test_after_the_end_of_input_the_wait_may_be_shorter(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\nb\n")
        connection.sendall(b"1\n")
        serve.silent(connection)

    port = serve(script)
    done = calcc("-q", "1.5", "-w", "60", HOST, port, stdin=b"a\nb\n")
    assert (done.stdout, done.returncode) == (b"1\n", 3)
    assert error_message(done).endswith("; requests with a reply: 1, none from line 2 on")


@pytest.mark.parametrize("no_bound", ["0", "-1"])
def test_without_a_timeout_after_the_end_of_input_the_general_one_holds(
    no_bound: str, serve: Servers
) -> None:
    done = calcc("-q", no_bound, "-w", "0.2", HOST, serve(serve.silent), stdin=b"a\n")
    assert done.returncode == 3
    assert "silent for 0.2 s" in error_message(done)


def test_the_shorter_wait_starts_with_the_end_of_input(serve: Servers) -> None:
    with running("-q", "0.1", HOST, serve(echo)) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.stdin.write(b"a\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stdout.read() == b"a\n"


# -- A server that goes away ---------------------------------------------------------------------


def test_a_server_that_closes_before_its_last_reply(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, REQUESTS)
        connection.sendall(b"4\n2\n")

    port = serve(script)
    done = calcc(HOST, port, stdin=REQUESTS)
    assert (done.stdout, done.returncode) == (b"4\n2\n", 3)
    assert error_message(done) == (
        f"{HOST} port {port}: connection closed by the server; "
        "requests with a reply: 2, none from line 3 on"
    )


def test_half_a_reply_does_not_count(serve: Servers) -> None:
    done = calcc("-e", "SOMA 2 2", HOST, serve(answer(b"4")))
    assert (done.stdout, done.returncode) == (b"4", 3)
    assert "; requests with a reply: 0, none from request 1 on" in error_message(done)


def test_an_error_does_not_hide_missing_replies(serve: Servers) -> None:
    done = calcc("-e", "a", "-e", "b", HOST, serve(answer(b"ERR BUSY too many\n")))
    assert (done.stdout, done.returncode) == (b"", 3)
    assert done.stderr.startswith(b"ERR BUSY too many\ncalcc: ")


def test_what_came_before_a_reset_is_written(serve: Servers) -> None:
    seen = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"1\n")
        assert seen.wait(TIMEOUT)
        reset(connection)

    with running(HOST, serve(script)) as process:
        process.stdin.write(b"a\n")
        assert process.stdout.read(2) == b"1\n"
        process.stdin.write(b"b\n")
        seen.set()
        assert process.wait(TIMEOUT) == 3
        line = process.stderr.read().decode()
        assert "; requests with a reply: 1, none from line 2 on" in line


def test_a_reset_is_no_error_if_no_reply_is_missing(serve: Servers) -> None:
    seen = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(b"1\n")
        assert seen.wait(TIMEOUT)
        reset(connection)

    with running("-e", "a", HOST, serve(script)) as process:
        assert process.stdout.read(2) == b"1\n"
        seen.set()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""


def test_replies_are_read_although_the_server_takes_no_more(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"1\n" * 1000)
        # Closing with requests unread resets the connection, while the client still sends.

    done = calcc(HOST, serve(script), stdin=b"a\n" * 2_000_000)
    assert done.returncode == 3
    assert done.stdout == b"1\n" * 1000
    assert error_message(done).endswith("requests with a reply: 1000, none from line 1001 on")


def test_a_daemon_that_stops_answers_the_requests_it_has(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    with running(daemon.host, daemon.port) as process:
        process.stdin.write(b"SOMA 2 2\n")
        assert process.stdout.read(2) == b"4\n"
        daemon.stop()
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""


# -- Standard output that goes away, and signals -------------------------------------------------


def test_head_ends_it_quietly(shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    done = shell(f"yes PING | calcc {where} | head -1; echo ${{PIPESTATUS[@]}} >&2")
    assert done.stdout == b"PONG\n"
    assert done.stderr.split()[1:] == [b"141", b"0"]


def test_it_ends_with_its_reader_while_it_writes(shared_daemon: Daemon) -> None:
    source, sink = small_pipe()
    requests = ["-e", "PING"] * 20_000
    with running(*requests, shared_daemon.host, shared_daemon.port, stdout=sink) as process:
        wait_until_full(process, sink)
        os.close(sink)
        os.close(source)
        assert process.wait(TIMEOUT) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_it_ends_with_its_reader_even_without_output(serve: Servers) -> None:
    port = serve(serve.silent)
    with running(HOST, port) as process:
        process.stdout.close()
        assert process.wait(TIMEOUT) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("stdout", "said"), [("/dev/full", "no space left on device"), ("&-", "bad file descriptor")]
)
def test_replies_that_cannot_be_written(stdout: str, said: str, shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    done = shell(f"calcc -e PING {where} >{stdout}")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == f"standard output: {said}"


def test_input_that_cannot_be_read(shared_daemon: Daemon) -> None:
    done = shell(f"calcc {shared_daemon.host} {shared_daemon.port} 0>/dev/null")
    assert (done.returncode, error_message(done)) == (
        3,
        "standard input: bad file descriptor; requests with a reply: 0",
    )


def test_without_standard_error_the_status_tells_of_an_error() -> None:
    assert [shell(f"calcc -x 2>{where}").returncode for where in ("&-", "/dev/full")] == [2, 2]


def test_an_interrupt_ends_it_as_the_signal_would(serve: Servers) -> None:
    ready = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        ready.set()
        serve.silent(connection)

    with running("-e", "a", HOST, serve(script)) as process:
        assert ready.wait(TIMEOUT)
        wait_until_asleep(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == -signal.SIGINT
        assert process.stderr.read() == b""


# -- Sockets -------------------------------------------------------------------------------------


def test_a_request_does_not_wait_for_an_acknowledgement(serve: Servers) -> None:
    connection = transport.connect(cli.Options([HOST, str(serve(echo))]).endpoint)
    try:
        assert isinstance(connection, transport.Stream)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        connection.close()


# -- Imports -------------------------------------------------------------------------------------


def test_a_checkout_needs_only_the_standard_library(
    shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    where = shared_daemon.host, shared_daemon.port
    command = [sys.executable, "-S", "-m", "calcd.client"]
    done = calcc("-e", "SOMA 2 2", *where, command=command, PYTHONPATH="")
    assert (done.stdout, done.stderr, done.returncode) == (b"4\n", b"", 0)


def test_starting_loads_next_to_nothing(shared_daemon: Daemon) -> None:
    """Each module costs start time, which is most of the time of a request."""

    def loaded(script: str, *arguments: str) -> set[str]:
        command = [sys.executable, "-X", "importtime", "-c", script, *arguments]
        lines = calcc(command=command).stderr.splitlines()
        return {line.rpartition(b"|")[2].strip().decode() for line in lines}

    request = "-e", "PING", shared_daemon.host, str(shared_daemon.port)
    own = "cli", "counting", "endpoint", "protocol", "relay", "state", "streams", "transport"
    assert loaded("from calcd.client.cli import main; main()", *request) - loaded("pass") == {
        *("_socket", "select", "calcd", "calcd.client"),
        *(f"calcd.client.{name}" for name in own),
    }


# -- On a terminal -------------------------------------------------------------------------------


def test_a_prompt_asks_one_request_after_the_other(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 2 2\r")
        assert screen.expect(PROMPT) == "SOMA 2 2\n4\n"
        screen.type("SUB 5 3\r")
        assert screen.expect(PROMPT) == "SUB 5 3\n2\n"
        screen.type(CTRL_D)
        assert screen.end() == 0
        assert screen.screen == b"\r\n"


def test_one_error_is_remembered_at_the_end(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        for request, reply in ("DIV 1 0", "ERR DIVISION-BY-ZERO"), ("SOMA 2 2", "4\n"):
            screen.expect(PROMPT)
            screen.type(request + "\r")
            screen.expect(reply)
        screen.expect(PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 1


def test_a_blank_line_is_not_sent(serve: Servers, tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"1\n")

    with terminal(tmp_path, HOST, serve(greeted(script))) as screen:
        for blank in "\r", "  \r":
            screen.expect(PROMPT)
            screen.type(blank)
        screen.expect(PROMPT)
        screen.type("a\r")
        screen.expect("1\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


def test_ctrl_c_drops_the_line(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 1")
        screen.expect("SOMA 1")
        screen.interrupt()
        screen.expect("\n" + PROMPT)
        screen.type("SOMA 2 2\r")
        assert screen.expect(PROMPT) == "SOMA 2 2\n4\n"
        screen.type(CTRL_D)
        assert screen.end() == 0


def test_ctrl_c_while_a_reply_is_awaited_gives_the_line_back(
    serve: Servers, tmp_path: Path
) -> None:
    """The late reply would be taken for that to the next line, so the connection is closed."""
    pytest.importorskip("readline")
    asked = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        asked.set()
        assert connection.recv(1) == b""

    with terminal(tmp_path, HOST, serve(greeted(script), greeted(answer_two))) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        assert asked.wait(TIMEOUT)
        screen.interrupt()
        assert screen.expect(PROMPT + "a").endswith("^C\n")
        screen.type("\r")
        screen.expect("\n1\n" + PROMPT)
        screen.type("b\r")
        screen.expect("\n2\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize("request_line", ["QUIT", " quit "])
def test_quit_says_bye_and_ends(request_line: str, shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type(request_line + "\r")
        assert screen.end() == 0
        assert screen.screen.endswith(b"\r\nBYE\r\n")


def test_text_is_sent_as_utf8_and_other_bytes_unchanged(
    shared_daemon: Daemon, tmp_path: Path
) -> None:
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where, PYTHONIOENCODING="utf-8:strict") as screen:
        screen.expect(PROMPT)
        screen.type("MAIUSCULA olá\r")
        screen.expect("OLÁ\n" + PROMPT)
        screen.type(b"MAIUSCULA \xc0\xc1\r")
        screen.expect("ERR INVALID-TEXT")
        screen.expect(PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 1


def test_the_arrows_bring_back_earlier_requests(shared_daemon: Daemon, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 2 2\r")
        screen.expect("\n4\n" + PROMPT)
        screen.type(UP + b"0\r")
        screen.expect("\n22\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0
    history = tmp_path / ".calcc_history"
    assert history.read_text() == "SOMA 2 2\nSOMA 2 20\n"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with terminal(tmp_path, *where) as screen:
        screen.expect(PROMPT)
        screen.type(UP + UP + b"1\r")
        screen.expect("\n23\n" + PROMPT)


def test_history_is_bounded(shared_daemon: Daemon, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    history = tmp_path / ".calcc_history"
    history.write_text("".join(f"SOMA {number} 1\n" for number in range(1500)))
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("PING\r")
        screen.expect("PONG\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0
    lines = history.read_text().splitlines()
    assert (len(lines), lines[-1]) == (1000, "PING")


def test_a_home_without_a_place_for_history(shared_daemon: Daemon) -> None:
    with terminal(Path("/proc/nowhere"), shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0
        assert screen.screen == b"\r\n"


def test_a_python_without_readline(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "readline.py").write_text("raise ImportError")
    where = shared_daemon.host, shared_daemon.port
    with terminal(tmp_path, *where, PYTHONPATH=str(tmp_path)) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 2 2\r")
        screen.expect("\n4\n" + PROMPT)
        screen.interrupt()
        screen.expect("\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


def test_pasted_lines_are_requests_each(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("SOMA 1 1\rSOMA 2 2\rSOMA 3 3\r")
        for reply in "246":
            screen.expect(f"\n{reply}\n{PROMPT}")


def test_pasted_lines_that_are_edited_as_one(shared_daemon: Daemon, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    (tmp_path / ".inputrc").write_text("set enable-bracketed-paste on\n")
    with terminal(tmp_path, shared_daemon.host, shared_daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("\x1b[200~SOMA 1 1\nSOMA 2 2\n\x1b[201~\r")
        screen.expect("\n2\n4\n")
        screen.expect(PROMPT)
        screen.type("SOMA 3 3\r")
        screen.expect("\n6\n")


def test_a_connection_closed_while_idle_is_renewed(start_daemon: Daemons, tmp_path: Path) -> None:
    daemon = start_daemon("--idle-timeout", "0.1")
    with terminal(tmp_path, daemon.host, daemon.port) as screen:
        for connections in 1, 2, 3:
            screen.expect(PROMPT)
            daemon.logs("ended", connections)
            screen.type("SOMA 1 1\r")
            assert screen.expect("\n2\n") == "SOMA 1 1"


def answer_two(connection: socket.socket) -> None:
    receive(connection, b"a\n")
    connection.sendall(b"1\n")
    receive(connection, b"b\n")
    connection.sendall(b"2\n")


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_line_is_sent_three_times(end: Script, serve: Servers, tmp_path: Path) -> None:
    """After that it is given back: the server may close because of it."""
    pytest.importorskip("readline")

    def hear_and_end(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        end(connection)

    scripts = hear_and_end, hear_and_end, answer_two, *[hear_and_end] * 2, answer_two
    port = serve(*map(greeted, scripts))
    with terminal(tmp_path, HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        assert screen.expect(PROMPT) == "a\n1\n"
        screen.type("b\r")
        screen.expect("\n2\n" + PROMPT)
        screen.type("a\r")
        reason = "reset by peer" if end is reset else "closed by the server"
        assert screen.expect(PROMPT + "a") == f"a\ncalcc: {HOST} port {port}: connection {reason}\n"
        screen.type("\r")
        screen.expect("\n1\n" + PROMPT)
        screen.type("b\r")
        screen.expect("\n2\n" + PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 0


def test_an_error_before_the_end_of_a_connection_is_shown(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    daemon = start_daemon("--max-line", "1024")
    with terminal(tmp_path, daemon.host, daemon.port) as screen:
        screen.expect(PROMPT)
        screen.type("9" * 2000 + "\r")
        screen.expect("ERR LINE-TOO-LONG")
        screen.expect(PROMPT)
        screen.type("SOMA 2 2\r")
        screen.expect("\n4\n")


def test_a_server_that_is_silent_at_the_prompt(serve: Servers, tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        assert connection.recv(1) == b""

    port = serve(*[greeted(script)] * 3)
    with terminal(tmp_path, "-w", "0.2", HOST, port) as screen:
        screen.expect(PROMPT)
        screen.type("a\r")
        assert screen.expect(PROMPT) == f"a\ncalcc: {HOST} port {port}: timed out\n"
        screen.interrupt()
        screen.expect(PROMPT)
        screen.type(CTRL_D)
        assert screen.end() == 3


def test_a_prompt_needs_a_terminal_on_both_sides(shared_daemon: Daemon, tmp_path: Path) -> None:
    where = shared_daemon.host, shared_daemon.port
    replies = tmp_path / "replies"
    with terminal(tmp_path, *where, redirect=f">{replies}") as screen:
        screen.type("SOMA 2 2\n")
        wait_until(lambda: replies.exists() and replies.read_bytes() == b"4\n", "the reply")
        screen.type(CTRL_D)
        assert screen.end() == 0
    (tmp_path / "requests").write_bytes(REQUESTS)
    with terminal(tmp_path, *where, redirect=f"<{tmp_path / 'requests'}") as screen:
        assert screen.end() == 0
        assert screen.screen.replace(b"\r", b"") == REPLIES


def test_a_terminal_is_not_read_if_the_command_line_has_requests(
    shared_daemon: Daemon, tmp_path: Path
) -> None:
    with terminal(tmp_path, "-e", "PING", shared_daemon.host, shared_daemon.port) as screen:
        assert screen.end() == 0
        assert screen.screen == b"PONG\r\n"
