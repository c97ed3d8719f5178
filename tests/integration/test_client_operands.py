"""Which server calcc asks, how long it waits for it, and what it says to a first guess."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import network_namespaces
import pytest
from client_helpers import (
    COMMAND,
    HOST,
    Script,
    Servers,
    answer,
    calcc,
    error_message,
    receive,
    reset,
    running,
    shell,
)
from helpers import ROOT, TIMEOUT, Daemon, Daemons, clean_environment
from listening import needs_ipv6

import calcd
from calcd.client import cli, operands, protocol, transport
from calcd.core import commands

FIRST_GUESSES = [
    (["2+2"], "2+2 is no host: calcc -e 2+2 asks it"),
    (["SOMA", "2", "2"], "SOMA 2 2 is no host: calcc -e 'SOMA 2 2' asks it"),
    (["soma", "2", "2"], "calcc -e 'soma 2 2' asks it"),
    (["SOMA 2 2"], "calcc -e 'SOMA 2 2' asks it"),
    (["sqrt", "2"], "calcc -e 'sqrt 2' asks it"),
    (["SQRT", "12000"], "calcc -e 'SQRT 12000' asks it"),
    (["2", "+", "2"], "calcc -e '2 + 2' asks it"),
    (["2", "-", "1"], "calcc -e '2 - 1' asks it"),
    (["2-1"], "calcc -e 2-1 asks it"),
    (["5!"], "calcc -e '5!' asks it"),
    (["x=3"], "calcc -e x=3 asks it"),
    (["10%3"], "calcc -e 10%3 asks it"),
    (["sqrt(2)"], "calcc -e 'sqrt(2)' asks it"),
    (["PRECISÃO", "5"], "calcc -e 'PRECISÃO 5' asks it"),
    (["PING"], "calcc -e PING asks it"),
    (["5"], "calcc -e 5 asks it"),
    (["12000"], "calcc 127.0.0.1 12000 uses that port"),
    (["média"], "calcc --fold média takes a column of numbers"),
    (["round({} * 0.23, 2)"], "calcc --each 'round({} * 0.23, 2)' asks it for each line"),
    (["localhost", "12000", "2+2"], "one operand too many: 2+2: calcc -e 2+2 asks it"),
    (["-U", "path", "PING"], "calcc -e PING asks it"),
    (["-", "localhost"], "- is the last operand"),
    (["localhost", "SOMA", "1", "1"], "calcc -e 'SOMA 1 1' asks it"),
    (["localhost", "12000", "1", "1"], "calcc -e '1 1' asks it"),
    (["-5"], "-5 is no option: calcc -e -5 asks it"),
    (["-2+3"], "calcc -e -2+3 asks it"),
    (["-4*2"], "calcc -e '-4*2' asks it"),
    (["./no.such.file"], "./no.such.file is no host, and no file has that name"),
]


@pytest.mark.parametrize(("arguments", "said"), FIRST_GUESSES)
def test_a_request_in_place_of_a_host(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = calcc(*arguments)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert said in error_message(done)


def test_no_name_is_looked_up_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("_socket.getaddrinfo", None)
    for arguments, said in FIRST_GUESSES:
        with pytest.raises(protocol.UsageError) as raised:
            cli.Options(arguments)
        assert said in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["localhost"], ["a.example"], ["á.example"], ["::1"], ["fe80::1%eth0"], ["1.2.3.4"]),
        *(["2130706433", "12000"], ["log", "12000"], ["tcp://log:514"], ["tcp://sum.txt"], ["pi"]),
        *(["web-1_a.b."], ["10.0.0.1-2.example"], ["[::1]"], ["a", "http"]),
    ],
)
def test_what_can_be_a_host_is_one(arguments: list[str]) -> None:
    assert cli.Options(arguments).endpoint.host in (arguments[0], "log", "sum.txt", "::1")


def test_the_operations_are_those_of_the_server() -> None:
    assert set(operands.OPERATIONS.split(" ")) == commands.NAMES


# -- Files ---------------------------------------------------------------------------------------


def test_a_file_in_place_of_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "sums.txt", "my sums", "localhost":
        Path(name).write_text("SOMA 2 2\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("calcd.sock")
    for arguments, said in [
        (["sums.txt"], "sums.txt is a file: calcc < sums.txt asks its lines"),
        (["my sums"], "my sums is a file: calcc < 'my sums' asks its lines"),
        (["./sums.txt", "results.txt"], "calcc < ./sums.txt asks its lines"),
        (["calcd.sock"], "calcd.sock is a Unix socket: calcc -U calcd.sock"),
        ([str(tmp_path)], f"{tmp_path} is a directory"),
        (["--fold", "SOMA", "my sums"], "calcc --fold SOMA < 'my sums' asks"),
        (["sums.txt", "--skip-bad", "--each", "{} * 2"], "calcc --each '{} * 2' --skip-bad < sums"),
    ]:
        done = calcc(*arguments)
        assert (done.stdout, done.returncode) == (b"", 2)
        assert said in error_message(done)
    assert cli.Options(["localhost"]).endpoint.host == "localhost"


def test_a_host_may_have_the_name_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell("calcc no.host.invalid >no.host.invalid; calcc no.host.invalid 12000")
    assert done.returncode == 3
    first, second = done.stderr.decode().splitlines()
    assert "no.host.invalid port 12000: name does not resolve" in first
    assert second.startswith(first)
    assert second.endswith("; no.host.invalid is a file: calcc < no.host.invalid asks its lines")


# -- Which server --------------------------------------------------------------------------------


def test_a_server_is_named_in_many_ways(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    endpoints = f"tcp://{HOST}:0", f"udp://{HOST}:0", f"unix://{path}"
    daemon = start_daemon(*(part for each in endpoints for part in ("-l", each)))
    port = daemon.port
    for server in [
        *(f"{HOST}:{port}", f"tcp://{HOST}:{port}", f"TCP://{HOST}:{port}/"),
        *(f"udp://{HOST}:{daemon.port_of('udp')}", f"unix://{path}?mode=0660&group=calc"),
    ]:
        done = calcc("-ve", "SOMA 2 2", server)
        assert (done.stdout, done.returncode) == (b"4\n", 0)
        assert ("over UDP" in error_message(done)) == server.startswith("udp")
        done = calcc("-e", "SOMA 2 2", CALCD_SERVER=server)
        assert (done.stdout, done.stderr, done.returncode) == (b"4\n", b"", 0)
    elsewhere = f"tcp://{HOST}:1"
    for arguments in [HOST, port], [f"{HOST}:{port}"], ["-U", path]:
        done = calcc("-e", "PING", *arguments, CALCD_SERVER=elsewhere)
        assert (done.stdout, done.returncode) == (b"PONG\n", 0)


@needs_ipv6
def test_an_ipv6_address_in_brackets(start_daemon: Daemons) -> None:
    port = start_daemon("-l", "tcp://[::1]:0").endpoints[0].rpartition(":")[2]
    for server in [f"[::1]:{port}"], [f"tcp://[::1]:{port}"], ["[::1]", port], ["::1", port]:
        assert calcc("-e", "PING", *server).stdout == b"PONG\n"


def test_tls_as_a_scheme(serve: Servers) -> None:
    options = cli.Options(["tls://calcd.example:12001"])
    assert options.endpoint.tls is not None
    assert (options.endpoint.servername, options.endpoint.port) == ("calcd.example", "12001")
    port = serve(lambda connection: connection.sendall(b"ERR FORBIDDEN\n"))
    assert "does the server speak TLS" in error_message(calcc("-e", "PING", f"tls://{HOST}:{port}"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["localhost", "notaport"], "invalid port notaport"),
        (["localhost:notaport"], "invalid port notaport"),
        (["localhost:0"], "invalid port 0"),
        (["tcp://localhost:65536"], "invalid port 65536"),
        (["localhost", "\u0661"], "invalid port \u0661"),
        (["localhost:"], "no port behind the colon of localhost:"),
        ([""], "no host in ''"),
        (["localhost", "", "-e", "1"], "no port in ''"),
        (["-U", "", "-e", "1"], "-U needs a path, not ''"),
        (["tcp://:12000"], "no host in 'tcp://:12000'"),
        (["http://localhost"], "unknown scheme in http://localhost"),
        (["unix://socket"], "no absolute path in unix://socket"),
        (["tcp://::1:12000"], "an IPv6 address needs brackets"),
        (["[::1"], "invalid address [::1"),
        (["[::1]12000"], "invalid address [::1]12000"),
        (["localhost:12000", "12000"], "localhost:12000 has its port: 12000 is too many"),
        (["unix:///socket", "12000"], "unix:///socket has its port"),
        (["-U", "path", "tcp://localhost"], "one operand too many: tcp://localhost"),
        (["-u", "tls://localhost"], "-u cannot be used with tls://"),
        (["-u", "tcp://localhost"], "-u cannot be used with tcp://"),
        (["-u", "unix:///path"], "-u cannot be used with unix://"),
        (["--ssl", "udp://localhost"], "udp:// cannot be used with --ssl"),
        (["--retry", "soon"], "--retry takes seconds, not soon"),
        (["--retry", "-1"], "--retry takes 0 seconds or more, not -1"),
        (["--retry", "nan"], "--retry takes seconds, not nan"),
    ],
)
def test_a_server_that_is_named_wrongly(arguments: list[str], said: str) -> None:
    done = calcc(*arguments)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert said in error_message(done)


def test_a_wrong_server_in_the_environment_is_told_as_such() -> None:
    done = calcc("-e", "PING", CALCD_SERVER="localhost:x")
    assert (done.stdout, done.returncode) == (b"", 2)
    assert error_message(done).startswith("CALCD_SERVER: invalid port x: ")
    assert cli.Options([]).endpoint.name == "127.0.0.1 port 12000"


@pytest.mark.parametrize("name", ["pi", "E", "ans"])
def test_a_value_in_place_of_a_host(name: str) -> None:
    """It may be one, so that it is looked up."""
    assert cli.Options([name]).endpoint.host == name
    assert operands.hint([name]) == f"; calcc -e {name} asks the value"


def test_a_server_in_the_environment_that_is_not_found_is_told_as_such() -> None:
    done = calcc("-e", "PING", CALCD_SERVER="no.host.invalid")
    assert done.returncode == 3
    assert error_message(done).endswith("; it is the server in CALCD_SERVER")


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
def test_the_help_needs_no_server(option: str) -> None:
    done = calcc(option, CALCD_SERVER="garbage://")
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_directory_is_no_input() -> None:
    command = ["sh", str(ROOT / "calcd" / "calcc")]
    directory = os.open("/", os.O_RDONLY)
    try:
        done = calcc("-e", "PING", command=command, stdin=directory)
    finally:
        os.close(directory)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == "standard input: is a directory"


def test_the_version() -> None:
    done = calcc("--version", "nowhere.invalid")
    assert (done.stdout.decode(), done.returncode) == (f"calcc {calcd.__version__}\n", 0)


# -- Requests of the command line, and then standard input ---------------------------------------


def test_standard_input_follows(shared_daemon: Daemon) -> None:
    where = shared_daemon.host, shared_daemon.port
    options = "-e", "PRECISION 5", "-e", "1/0"
    done = calcc(*options, *where, "-", stdin=b"DIV 1 3\n\nFOO\nDIV 2 3")
    one, two, three, four = done.stdout.decode().splitlines()
    assert (one, two, three[:22], four) == ("5", "0.33333", "ERR UNKNOWN-OPERATION ", "0.66667")
    first, second = done.stderr.decode().splitlines()
    assert first == "ERR DIVISION-BY-ZERO division by zero"
    assert second.startswith("calcc: errors: 1 of 3 replies, the first at line 3: ERR UNKNOWN-OPER")
    assert done.returncode == 1


def test_standard_input_follows_over_udp(start_daemon: Daemons) -> None:
    port = start_daemon("-l", f"udp://{HOST}:0").port_of("udp")
    done = calcc("-ue", "SOMA 2 2", HOST, port, "-", stdin=b"SOMA 3 3\n5\n")
    assert (done.stdout, done.returncode) == (b"4\n6\n", 3)
    assert error_message(done).endswith("; requests with a reply: 2, none from line 2 on")


def test_a_dash_alone_is_standard_input(shared_daemon: Daemon) -> None:
    done = calcc(shared_daemon.host, shared_daemon.port, "-", stdin=b"PING\n")
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)


def test_what_the_command_line_has_set_is_not_lost_in_silence(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.2")
    with running("-e", "x = 3", daemon.host, daemon.port, "-") as process:
        assert process.stdout.read(2) == b"3\n"
        daemon.logs("ended")
        process.stdin.write(b"x\n")
        assert process.wait(TIMEOUT) == 3
        assert protocol.STATE_LOST in process.stderr.read().decode()


def test_unread_input_is_told_where_that_is_asked_for(shared_daemon: Daemon) -> None:
    where = f"{shared_daemon.host} {shared_daemon.port}"
    script = f"sleep 0 | calcc -ve PING {where}; calcc -ve PING {where} </dev/null"
    assert b"not read" not in shell(script).stderr
    source, sink = os.pipe()
    with os.fdopen(source) as unread, os.fdopen(sink, "w") as producer:
        producer.write("SOMA 2 2\n")
        producer.flush()
        done = calcc("-ve", "PING", *where.split(), stdin=unread)
        quiet = calcc("-e", "PING", *where.split(), stdin=unread)
    assert (done.stdout, done.returncode) == (b"PONG\n", 0)
    assert b"\ncalcc: standard input was not read: a last operand - lets it" in done.stderr
    assert quiet.stderr == b""


# -- A server that is not there yet --------------------------------------------------------------


def test_a_server_that_is_there_later_is_waited_for(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    with running("-v", "--retry", TIMEOUT, "-e", "SOMA 2 2", "-U", path) as process:
        message = process.stderr.readline()
        assert message == (
            f"calcc: {path}: no such file or directory; trying again for 20 s\n".encode()
        )
        start_daemon("-l", f"unix://{path}")
        assert process.wait(TIMEOUT) == 0
        assert process.stdout.read() == b"4\n"


def test_a_server_that_refuses_is_waited_for(serve: Servers) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        port = holder.getsockname()[1]
        with running("-zv", "--retry", TIMEOUT, HOST, port) as process:
            assert b"connection refused" in process.stderr.readline()
            holder.listen()
            assert process.wait(TIMEOUT) == 0
            assert b"connection succeeded" in process.stderr.readline()
    assert serve


def test_a_server_over_udp_is_waited_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        port = server.getsockname()[1]
        server.connect((HOST, 1))  # from then on it takes nothing from others: they are refused
        with running("-uv", "--retry", TIMEOUT, "-e", "SOMA 2 2", HOST, port) as process:
            assert b"connection refused" in process.stderr.readline()
            server.connect(("", 0))
            for request, reply in (b"PING\n", b"PONG\n"), (b"SOMA 2 2\n", b"4\n"):
                data, sender = server.recvfrom(100)
                assert data == request
                server.sendto(reply, sender)
            assert process.wait(TIMEOUT) == 0
            assert process.stdout.read() == b"4\n"


@pytest.mark.parametrize("switches", ["-e", "-ze"])
def test_a_server_that_never_comes(switches: str, tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    done = calcc("--retry", "0.2", switches, "PING", "-U", path)
    assert (done.stdout, done.returncode) == (b"", 3)
    if switches == "-e":
        assert error_message(done) == f"{path}: no such file or directory"


def test_a_server_that_starts_again_is_waited_for(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    daemon = start_daemon("-l", f"unix://{path}")
    with running("-v", "--retry", TIMEOUT, "-U", path) as process:
        assert b"connection succeeded" in process.stderr.readline()
        process.stdin.write(b"SOMA 2 2\n")
        assert process.stdout.read(2) == b"4\n"
        daemon.stop()
        process.stdin.write(b"SOMA 3 3\n")
        assert b"trying again" in process.stderr.readline()
        start_daemon("-l", f"unix://{path}")
        assert process.stdout.read(2) == b"6\n"
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_proxy_whose_server_is_not_there_yet(end: Script, serve: Servers) -> None:
    """It accepts, and closes before any byte."""
    closing = [end] * 3
    done = calcc("--retry", TIMEOUT, HOST, serve(*closing, answer(b"4\n")), stdin=b"SOMA 2 2\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"4\n", b"", 0)
    port = serve(*closing, answer(b"4\n"))
    done = calcc("-v", "--retry", TIMEOUT, "-e", "SOMA 2 2", HOST, port)
    assert (done.stdout, done.returncode) == (b"4\n", 0)
    assert b"; trying again for 20 s\n" in done.stderr


def test_a_proxy_may_close_at_any_request_that_is_the_first(serve: Servers) -> None:
    def answer_a(connection: socket.socket) -> None:
        receive(connection, b"a\n")
        connection.sendall(b"1\n")
        connection.close()

    port = serve(answer_a, socket.socket.close, socket.socket.close, answer(b"2\n"))
    with running("--retry", TIMEOUT, HOST, port) as process:
        process.stdin.write(b"a\n")
        assert process.stdout.read(2) == b"1\n"
        process.stdin.write(b"b\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stdout.read() == b"2\n"


def test_a_long_input_waits_for_the_server_of_a_proxy(serve: Servers) -> None:
    requests = b"SOMA 2 2\n" * 100_000

    def script(connection: socket.socket) -> None:
        receive(connection, requests[:70_000])
        connection.close()

    def serve_all(connection: socket.socket) -> None:
        receive(connection, requests[:9])
        connection.sendall(b"4\n")
        receive(connection, requests[9:])
        connection.sendall(b"4\n" * 99_999)
        connection.close()

    done = calcc("--retry", TIMEOUT, HOST, serve(script, serve_all), stdin=requests)
    assert (done.stdout, done.stderr, done.returncode) == (b"4\n" * 100_000, b"", 0)


def test_a_proxy_whose_server_never_comes() -> None:
    with socket.create_server((HOST, 0)) as listener:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=refuse)
        thread.start()
        done = calcc("--retry", "0.2", "-e", "PING", HOST, listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert "; requests with a reply: 0, none from request 1 on" in error_message(done)


# -- The look-up of a name -----------------------------------------------------------------------


def test_the_time_limit_is_for_the_name_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*arguments: object) -> list[object]:
        if len(arguments) == 4:  # and not only for an address in numbers
            over.wait(TIMEOUT)
        raise OSError("over")

    endpoint = cli.Options(["-w", "0.1", "a.name"]).endpoint
    with monkeypatch.context() as changed:
        changed.setattr("_socket.getaddrinfo", silent)
        with pytest.raises(protocol.UnknownHostError, match="name does not resolve: timed out"):
            transport.resolve(endpoint)
        over.set()
        with pytest.raises(protocol.UnknownHostError, match="name does not resolve: over"):
            transport.resolve(endpoint)
    assert transport.resolve(cli.Options(["-w", "5", "localhost"]).endpoint)


def test_an_address_in_numbers_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("_thread.start_new_thread", None)
    assert transport.resolve(cli.Options(["-w", "5", "127.0.0.1"]).endpoint)
    assert transport.resolve(cli.Options(["-w", "5", "::1"]).endpoint)


SILENT_DNS = """
ip link set lo up
echo 'nameserver 127.0.0.1' >"$1"
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"
"""
# Takes questions about names and answers none, while it runs a command.
SILENT = """
import socket, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", 53))
    done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE, timeout=5)
    sys.stderr.buffer.write(done.stderr)
    sys.exit(done.returncode)
"""


@pytest.mark.skipif(network_namespaces.why_not() != "", reason=network_namespaces.why_not())
def test_where_dns_is_silent(tmp_path: Path) -> None:
    """The C library alone waits for 10 seconds, longer than the program that runs the client."""
    command = [sys.executable, "-c", SILENT, *COMMAND, "-w", "0.3", "-e", "PING", "a.example"]
    done = calcc(
        command=[
            *("unshare", "--net", "--mount", "sh", "-ec", SILENT_DNS, "sh"),
            *(str(tmp_path / "resolv.conf"), *command),
        ]
    )
    assert error_message(done) == "a.example port 12000: name does not resolve: timed out"
    assert done.returncode == 3


# -- An installation in a path with a blank ------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the calcc of an installation in such a path."""
    directory = tmp_path_factory.mktemp("installed") / "a path"
    venv, tree, wheels = directory / "venv", directory / "tree", directory / "wheels"
    tree.mkdir(parents=True)
    for name in "setup.py", "setup.cfg", "README.md", "LICENSE":
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "calcd", tree / "calcd")
    environment = {**clean_environment(), "PYTHONPATH": "", "PYTHONWARNINGS": ""}

    def run(*command: object) -> None:
        text = [str(part) for part in command]
        subprocess.run(text, env=environment, capture_output=True, timeout=50, check=True)

    pip = [sys.executable, "-m", "pip", "--no-input"]
    offline = "--no-index", "--no-deps"
    run(*pip, "wheel", "-q", *offline, "--no-build-isolation", "-w", wheels, tree)
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    run(*pip, "--python", python, "install", "-q", *offline, *wheels.iterdir())
    return venv / "bin" / "calcc"


@pytest.mark.parametrize("way", ["path", "link", "PATH", "sh"])
def test_an_installation_in_a_path_with_a_blank(
    way: str, installed: Path, shared_daemon: Daemon, tmp_path: Path
) -> None:
    link = tmp_path / "a link"
    link.symlink_to(installed)
    command = {
        "path": [str(installed)],
        "link": [str(link)],
        "PATH": ["env", f"PATH={installed.parent}:{os.environ['PATH']}", "calcc"],
        "sh": ["sh", "-c", 'cd "$0" && exec sh calcc "$@"', str(installed.parent)],
    }[way]
    where = shared_daemon.host, shared_daemon.port
    done = calcc("-e", "MAIUSCULA a  b", *where, command=command, PYTHONPATH="")
    assert (done.stdout, done.stderr, done.returncode) == (b"A  B\n", b"", 0)
