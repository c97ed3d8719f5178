"""calcd through the programs that people really talk to a port with, and some that stray in."""

import re
import select
import shlex
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from certificates import stored
from helpers import TIMEOUT, Daemon, Daemons, daemons_in, read_all, wait_until

PACKAGES = {
    "bash": "bash",
    "busybox": "busybox",
    "curl": "curl",
    "nc.openbsd": "netcat-openbsd",
    "nc.traditional": "netcat-traditional",
    "ncat": "ncat",
    "socat": "socat",
}

# Those that tell the server when their input has ended, and those that end their lines in CRLF.
HALF_CLOSING = (
    "nc.openbsd -N HOST PORT",
    "nc.openbsd -q1 HOST PORT",
    "nc.traditional -q1 HOST PORT",
    "ncat HOST PORT",
    "socat - TCP:HOST:PORT",
    "busybox nc HOST PORT",
)
CRLF = ("ncat -C HOST PORT", "nc.openbsd -N -C HOST PORT")

# bash has no half-close: it asks line by line, or lets the server end the conversation.
BASH_LINE_BY_LINE = """
exec 3<>/dev/tcp/HOST/PORT
while read -r request; do
    echo "$request" >&3
    read -r reply <&3
    echo "$reply"
done
"""
BASH_UNTIL_QUIT = """
exec 3<>/dev/tcp/HOST/PORT
while read -r request; do echo "$request" >&3; done
while read -r reply <&3; do echo "$reply"; done
"""
ASKING = [
    *HALF_CLOSING,
    *CRLF,
    pytest.param(f"bash -c '{BASH_LINE_BY_LINE}'", id="bash /dev/tcp"),
]
WITHOUT_A_FLAG = [
    "nc.openbsd HOST PORT",
    "nc.traditional HOST PORT",
    "ncat HOST PORT",
    "socat - TCP:HOST:PORT",
    "busybox nc HOST PORT",
    "curl -q -sS --noproxy * telnet://HOST:PORT",
    pytest.param(f"bash -c '{BASH_UNTIL_QUIT}'", id="bash /dev/tcp"),
]

# Over UDP there is no end of input: they wait for a while for more.
OVER_UDP = [
    "nc.openbsd -u -w3 HOST PORT",
    "nc.traditional -u -q3 HOST PORT",
    pytest.param(  # at the end of its input ncat may be gone before the answer is there
        "bash -c 'coproc ncat -u HOST PORT; cat >&${COPROC[1]}; head -n 3 <&${COPROC[0]}'",
        id="ncat -u",
    ),
    "socat -t 3 - UDP:HOST:PORT",
    # bash would read byte by byte, and the kernel throws away what is left of a datagram.
    pytest.param(
        "bash -c 'exec 3<>/dev/udp/HOST/PORT; cat >&3; timeout 3 cat <&3 || true'",
        id="bash /dev/udp",
    ),
]

A_THIRD = b"0." + b"3" * 34

# Requests, and how the reply to each begins: only an error's code is a promise.
CONVERSATION = (
    (b"SOMA 2 2\n", b"4\n"),
    (b"\n", b""),
    (b"div 1 3\r\n", A_THIRD + b"\r\n"),
    (b" \t \r\n", b""),
    (b"DIV 1 0\n", b"ERR DIVISION-BY-ZERO "),
    (b"DIV 0 0\r\n", b"ERR DIVISION-UNDEFINED "),
    (b"POTENCIA 2 3\n", b"ERR UNKNOWN-OPERATION "),
    (b"SUB 2\n", b"ERR WRONG-OPERANDS "),
    (b"SOMA 2,5 2\n", b"ERR INVALID-NUMBER "),
    (b"MUL 1e6000 1e6000\n", b"ERR OVERFLOW "),
    (b"UPPER \xc3\n", b"ERR INVALID-TEXT "),
    (b"\tSUB  5\t3 \r\n", b"2\r\n"),
    (b"UPPER ol\xc3\xa1", b"OL\xc3\x81\n"),
)
REQUESTS = b"".join(request for request, _ in CONVERSATION)

MESSAGE_WAIT = 0.1
A_LONG_SILENCE = 4 * MESSAGE_WAIT


def run(command: str, daemon: Daemon, requests: bytes, port: int = 0) -> bytes:
    """Pipe requests into a client, as a shell does, and return what it prints.

    The port is that of the daemon's TCP unless given.
    """
    words = [
        word.replace("HOST", daemon.host).replace("PORT", str(port or daemon.port))
        for word in shlex.split(command)
    ]
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs the Debian package {PACKAGES[words[0]]}")
    done = subprocess.run(words, input=requests, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.parametrize("client", ASKING)
def test_every_client_gets_the_same_answers(shared_daemon: Daemon, client: str) -> None:
    replies = run(client, shared_daemon, b"SOMA 2 2\nDIV 1 0\nDIV 1 3\n")
    line_end = b"\r\n" if client in CRLF else b"\n"
    four, error, third, rest = replies.split(line_end)
    assert (four, third, rest) == (b"4", A_THIRD, b"")
    assert error.startswith(b"ERR DIVISION-BY-ZERO ")


@pytest.mark.parametrize("client", WITHOUT_A_FLAG)
def test_quit_ends_every_client_without_a_flag(shared_daemon: Daemon, client: str) -> None:
    assert run(client, shared_daemon, b"SOMA 2 2\nQUIT\n") == b"4\nBYE\n"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon with TCP and UDP."""
    with daemons_in(tmp_path_factory.mktemp("udp")) as daemons:
        yield daemons("-l", "tcp://127.0.0.1:0 udp://127.0.0.1:0")


@pytest.mark.parametrize("client", OVER_UDP)
def test_clients_over_udp_get_the_same_answers(both: Daemon, client: str) -> None:
    requests = b"SOMA 2 2\nDIV 1 0\nDIV 1 3\n"
    port = int(both.endpoints[1].rpartition(":")[2])
    assert run(client, both, requests, port) == both.ask(requests)


def test_a_conversation_is_the_same_byte_for_byte(shared_daemon: Daemon) -> None:
    by_nc = run("nc.openbsd -N HOST PORT", shared_daemon, REQUESTS)
    by_ncat = run("ncat HOST PORT", shared_daemon, REQUESTS)
    assert by_nc == by_ncat


def test_every_request_has_its_reply_in_order(shared_daemon: Daemon) -> None:
    replies = run("nc.openbsd -N HOST PORT", shared_daemon, REQUESTS).splitlines(keepends=True)
    expected = [(request, beginning) for request, beginning in CONVERSATION if beginning]
    assert len(replies) == len(expected)
    for reply, (request, beginning) in zip(replies, expected, strict=True):
        assert reply.startswith(beginning)
        assert reply.endswith(b"\r\n") == request.endswith(b"\r\n")


# The first socket lesson: one send without a newline, one recv.


@pytest.fixture(scope="module")
def lesson_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon that soon takes silence for the end of a request."""
    with daemons_in(tmp_path_factory.mktemp("lesson")) as daemons:
        yield daemons("--message-wait", str(MESSAGE_WAIT))


@pytest.fixture
def lesson(lesson_daemon: Daemon) -> Iterator[socket.socket]:
    """Give a connection to it."""
    with lesson_daemon.connect() as connection:
        yield connection


def is_answered(connection: socket.socket) -> bool:
    """Say whether anything comes within a long silence of the client's own."""
    return bool(select.select([connection], [], [], A_LONG_SILENCE)[0])


def has_been_read(connection: socket.socket) -> bool:
    """Say whether the daemon has read all that was sent; by the kernel, both queues are empty."""
    ports = {f"{connection.getsockname()[1]:04X}", f"{connection.getpeername()[1]:04X}"}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    queues = [row[4] for row in rows if {row[1][9:], row[2][9:]} == ports]
    return queues == ["00000000:00000000"] * 2


def type_in(connection: socket.socket, text: bytes) -> None:
    """Send one character at a time, each once the daemon has read the one before."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for character in text:
        connection.sendall(bytes([character]))
        wait_until(lambda: has_been_read(connection), "the daemon to read a character")


@pytest.mark.parametrize(
    ("request_text", "reply"),
    [
        ("SOMA 2 2", "4"),
        ("SUB 5 3", "2"),
        ("MUL 0.1 0.2", "0.02"),
        ("DIV 10 4", "2.5"),
        ("MAIUSCULA olá coração", "OLÁ CORAÇÃO"),
    ],
)
def test_one_send_without_a_newline_is_answered_in_one_recv(
    lesson: socket.socket, request_text: str, reply: str
) -> None:
    lesson.send(request_text.encode())
    assert lesson.recv(1024).decode() == reply + "\n"


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("POTENCIA 2 3", "UNKNOWN-OPERATION"),
        ("SOMA 2 two", "INVALID-NUMBER"),
        ("SUB 2 2 2", "WRONG-OPERANDS"),
        ("DIV 1 0", "DIVISION-BY-ZERO"),
    ],
)
def test_a_mistake_without_a_newline_gets_its_error(
    lesson: socket.socket, request_text: str, code: str
) -> None:
    lesson.send(request_text.encode())
    assert lesson.recv(1024).decode().startswith(f"ERR {code} ")


def test_one_connection_asks_many_times_without_a_newline(lesson: socket.socket) -> None:
    for number in range(5):
        lesson.send(f"SOMA {number} 1".encode())
        assert lesson.recv(1024) == f"{number + 1}\n".encode()


def test_an_error_without_a_newline_leaves_the_next_request_alone(lesson: socket.socket) -> None:
    lesson.send(b"DIV 1 0")
    assert lesson.recv(1024).startswith(b"ERR ")
    lesson.send(b"DIV 1 2")
    assert lesson.recv(1024) == b"0.5\n"


def test_a_typed_request_waits_for_its_newline(lesson: socket.socket) -> None:
    type_in(lesson, b"SOMA 2 2")
    assert not is_answered(lesson)
    lesson.send(b"2\n")
    assert lesson.recv(1024) == b"24\n"


def test_after_a_newline_half_a_line_is_never_answered(lesson: socket.socket) -> None:
    lesson.send(b"SOMA 1 1\n")
    assert lesson.recv(1024) == b"2\n"
    lesson.send(b"SOMA 2 2")
    assert not is_answered(lesson)
    lesson.send(b"2\n")
    assert lesson.recv(1024) == b"24\n"


def test_without_a_message_wait_every_request_needs_its_newline(start_daemon: Daemons) -> None:
    daemon = start_daemon("--message-wait", "0", "--line-timeout", "0.2")
    with daemon.connect() as connection:
        connection.send(b"SOMA 2 2")
        assert connection.recv(1024).startswith(b"ERR TIMEOUT ")


# C programs, whose strings end in NUL


def test_a_c_program_that_sends_sizeof_is_answered(lesson: socket.socket) -> None:
    for number in range(3):
        lesson.send(f"SOMA {number} 1\0".encode())
        assert lesson.recv(1024) == f"{number + 1}\n".encode()


def test_a_c_program_that_sends_its_whole_buffer_is_answered(lesson: socket.socket) -> None:
    lesson.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(3):
        buffer = f"SOMA {number} 1".encode().ljust(256, b"\0")
        lesson.send(buffer[:100])
        wait_until(lambda: has_been_read(lesson), "the daemon to read a part")
        lesson.send(buffer[100:])
        assert lesson.recv(1024) == f"{number + 1}\n".encode()


def test_a_c_program_that_sends_a_newline_and_nul_is_answered(lesson: socket.socket) -> None:
    for number in range(3):
        lesson.send(f"SOMA {number} 1\n\0".encode())
        assert lesson.recv(1024) == f"{number + 1}\n".encode()
        assert not is_answered(lesson)


def test_nul_alone_starts_no_line(start_daemon: Daemons) -> None:
    daemon = start_daemon("--line-timeout", "0.2", "--message-wait", "0.1")
    with daemon.connect() as connection:
        connection.send(b"\0\0")
        assert not is_answered(connection)
        connection.send(b"SOMA 2 2\n")
        assert connection.recv(1024) == b"4\n"


@pytest.mark.parametrize("client", HALF_CLOSING)
def test_a_file_with_a_byte_order_mark_is_answered(shared_daemon: Daemon, client: str) -> None:
    assert run(client, shared_daemon, b"\xef\xbb\xbfSOMA 2 2\r\r\nSUB 5 3") == b"4\r\n2\n"


# Clients of other protocols: they get errors that say whom they met, and do no harm.

NOT_HTTP = b"ERR FORBIDDEN this is not an HTTP server\n"


def test_an_http_request_gets_one_error(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    daemon = start_daemon("-l", f"tcp://127.0.0.1:0 unix://{path}")
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + 50_000 * b"SOMA 2 2\n"
    with daemon.connect() as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.settimeout(TIMEOUT)
        unix.connect(str(path))
        for connection in (tcp, unix):
            connection.sendall(request)
            assert read_all(connection) == NOT_HTTP
    daemon.logs("connection 127.0.0.1:[0-9]+ ended: requests=1 errors=1 .* how=http$")
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


@pytest.mark.parametrize("how", ["--data-binary @-", "-T - -X PUT", "-X SOMA -d @-"])
def test_curl_gets_one_error_where_it_speaks_http(shared_daemon: Daemon, how: str) -> None:
    # curl takes what has no HTTP header for HTTP/0.9, which lasts until the server closes.
    command = f"curl -q -sS --noproxy * --http0.9 {how} http://HOST:PORT/"
    assert run(command, shared_daemon, b"SOMA 2 2\nQUIT\n") == NOT_HTTP
    assert shared_daemon.ask(b"SOMA 2 2\n") == b"4\n"


@contextmanager
def haproxy(path: Path, configuration: str) -> Iterator[None]:
    """Run HAProxy with a configuration, which is written to ``path``."""
    if shutil.which("haproxy") is None:
        pytest.skip("needs the Debian package haproxy")
    path.write_text(configuration)
    command = ["haproxy", "-db", "-f", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT)


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen calcd
    bind unix@{path}
    server calcd {host}:{port} {send}
"""


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_haproxy_that_sends_a_proxy_header_is_told_so(
    shared_daemon: Daemon, tmp_path: Path, send: str
) -> None:
    path, host, port = tmp_path / "socket", shared_daemon.host, shared_daemon.port
    configuration = HAPROXY.format(path=path, host=host, port=port, send=send)
    with haproxy(tmp_path / "cfg", configuration), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        wait_until(lambda: client.connect_ex(str(path)) == 0, "HAProxy")
        client.sendall(b"SOMA 2 2\n")
        replies = read_all(client)
    assert replies == b"ERR FORBIDDEN a PROXY header is not accepted here\n"
    shared_daemon.logs("how=proxy-header$")


@pytest.mark.parametrize("scheme", ["unix", "tls"])
def test_haproxys_probes_are_logged_at_debug(
    start_daemon: Daemons, tmp_path: Path, scheme: str
) -> None:
    """Its check of a TCP port resets the connection before the daemon could accept it."""
    pair, socket_file = stored("server"), tmp_path / "calcd"
    endpoints = ("-l", f"unix://{socket_file}", "-l", "tls://127.0.0.1:0")
    files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    daemon = start_daemon(*endpoints, *files, "--log-level", "debug")
    server = {
        "unix": f"unix@{socket_file} check",
        "tls": f"127.0.0.1:{daemon.port_of('tls')} ssl verify none check",
    }
    listen = HAPROXY.partition("    server calcd")[0].format(path=tmp_path / "socket")
    with haproxy(tmp_path / "cfg", f"{listen}    server calcd {server[scheme]} inter 50ms\n"):
        daemon.logs(r" debug: connection .* requests=0 errors=0 .* how=(reset|closed)$", 5)
    assert daemon.stop() == 0
    assert not re.findall(r" info: connection .* how=(?!tls-).*", daemon.log)


def tls_client_hello() -> bytes:
    """Give what a TLS client sends first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "noise", [tls_client_hello, lambda: Random(1).randbytes(1 << 16)], ids=["TLS", "random bytes"]
)
def test_binary_gets_nothing_but_errors(shared_daemon: Daemon, noise: Callable[[], bytes]) -> None:
    replies = shared_daemon.ask(noise())
    assert all(line.startswith(b"ERR ") for line in replies.splitlines())
    assert re.sub(r"[\r\n]", "", replies.decode()).isprintable()
    assert shared_daemon.ask(b"SOMA 2 2\n") == b"4\n"
