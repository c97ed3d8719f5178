"""Connections from a proxy that names its clients: who is served, counted, logged and refused."""

import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import proxy_headers as headers
import pytest
from certificates import Certificates
from helpers import (
    ROOT,
    TIMEOUT,
    Daemon,
    Daemons,
    ask,
    datagrams_to,
    read_all,
    request_all,
    wait_until,
)
from serving import serving

from calcd.config.networks import Networks, Proxies, parse_network
from calcd.core.job import Job

OPERATIONS = ROOT / "docs" / "operations.md"
CLIENT, OTHER = "203.0.113.7", "203.0.113.8"
FROM_HERE = ("--proxy-protocol-from", "127.0.0.0/8")
NOT_BEGUN = b"ERR FORBIDDEN a connection from this proxy must begin with a PROXY header\n"
EXPENSIVE = b"EXP 0.1234\n"  # with 1000 digits

Header = Callable[[str, int], bytes]
both_versions = pytest.mark.parametrize("header", [headers.line, headers.addressed])


def ended(daemon: Daemon, name: str) -> str:
    """Wait for the end of a client's connection in the log; return what it says of that."""
    (line, *_) = daemon.logs(rf"connection {re.escape(name)} ended: ")
    return line.partition(" ended: ")[2]


# Who is seen


@both_versions
@pytest.mark.parametrize("client", [CLIENT, "2001:db8::7"])
def test_the_log_names_the_client(start_daemon: Daemons, header: Header, client: str) -> None:
    daemon = start_daemon(*FROM_HERE)
    assert daemon.ask(header(client, 40000) + b"SOMA 2 2\nDIV 1 0\n").startswith(b"4\nERR ")
    name = f"[{client}]:40000" if ":" in client else f"{client}:40000"
    assert re.match(r"requests=2 errors=1 seconds=\d+\.\d{3} how=closed$", ended(daemon, name))
    assert "connection 127.0.0.1" not in daemon.log


def test_at_debug_the_proxy_is_logged_too(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--log-level", "debug")
    with daemon.connect() as connection:
        proxy = "{}:{}".format(*connection.getsockname())
        assert request_all(connection, headers.line(CLIENT, 40000) + b"SOMA 2 2\n") == b"4\n"
    ended(daemon, f"{CLIENT}:40000")
    told = [line.partition("connection ")[2] for line in daemon.logs("debug: connection ")]
    assert told[0].startswith(f"{proxy} opened: ")
    assert told[1:] == [
        f"{CLIENT}:40000 comes from the proxy {proxy}",
        f"{CLIENT}:40000: 'SOMA 2 2' -> '4'",
    ]


@both_versions
def test_allow_is_asked_for_the_client_and_not_for_the_proxy(
    start_daemon: Daemons, header: Header
) -> None:
    daemon = start_daemon(*FROM_HERE, "--allow", f"{CLIENT} 2001:db8::/32")
    assert daemon.ask(header(CLIENT, 1) + b"SOMA 2 2\n") == b"4\n"
    assert daemon.ask(header("2001:db8::7", 1) + b"SOMA 2 2\n") == b"4\n"
    told = b"ERR FORBIDDEN clients from 203.0.113.8 may not connect here\n"
    assert daemon.ask(header(OTHER, 2) + b"SOMA 2 2\n") == told
    assert re.match("requests=0 errors=1 .* how=forbidden", ended(daemon, f"{OTHER}:2"))


def test_a_hosts_limit_is_that_of_the_client(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--max-connections-per-host", "2")
    with ExitStack() as open_ones:

        def connect(client: str, port: int) -> tuple[socket.socket, bytes]:
            connection = open_ones.enter_context(daemon.connect())
            return connection, ask(connection, headers.line(client, port) + b"PING\n")

        first, _ = connect(CLIENT, 1)
        assert [connect(*client)[1] for client in ((CLIENT, 2), (OTHER, 3))] == 2 * [b"PONG\n"]
        busy = b"ERR BUSY 2 connections are open from your address, its limit\n"
        assert connect(CLIENT, 4)[1] == busy
        assert re.match("requests=0 errors=1 .* how=busy", ended(daemon, f"{CLIENT}:4"))
        assert "clients from 203.0.113.7 get ERR BUSY" in daemon.log
        assert connect(OTHER, 5)[1] == b"PONG\n"
        first.shutdown(socket.SHUT_WR)
        assert read_all(first) == b""
        wait_until(lambda: connect(CLIENT, 6)[1] == b"PONG\n", "the place to be given again")


def test_all_connections_count_from_the_beginning(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--max-connections", "2")
    with daemon.connect(), daemon.connect() as second:
        with daemon.connect() as third:
            told = b"ERR BUSY 2 connections are open, the server's limit\n"
            assert request_all(third, headers.line(CLIENT, 1) + b"PING\n") == told
        assert ask(second, headers.line(CLIENT, 2) + b"SOMA 2 2\n") == b"4\n"


def test_what_was_counted_is_given_back() -> None:
    proxies = Proxies(Networks((parse_network("127.0.0.0/8"),)))
    allow = Networks((parse_network(CLIENT),))
    settings = {"proxy_protocol_from": proxies, "allow": allow, "max_connections_per_host": 1}
    starts = (b"", b"PROX", b"PING\n", headers.line(CLIENT, 1), headers.line(OTHER, 1))
    with serving(**settings) as (server, connect):
        for start in (*starts, headers.block(command=headers.LOCAL), headers.line(CLIENT, 1)):
            with connect() as connection:
                request_all(connection, start)
            wait_until(lambda: server.limiter.active == 0, "the connection to be counted out")
            assert not server.limiter._active_by


def test_expensive_lines_wait_in_the_queue_of_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxies = Proxies(Networks((parse_network("127.0.0.0/8"),)))
    hosts: list[str] = []
    with serving(proxy_protocol_from=proxies, precision=1000) as (server, connect):
        submit = server._workers.submit

        def noted(host: str, job: Job, done: Any) -> None:
            hosts.append(host)
            submit(host, job, done)

        monkeypatch.setattr(server._workers, "submit", noted)
        for client in (CLIENT, "2001:db8::7"):
            with connect() as connection:
                assert request_all(connection, headers.addressed(client, 1) + EXPENSIVE)
    assert hosts == [CLIENT, "2001:db8::7"]


# Connections of the proxy itself


@pytest.mark.parametrize(
    "header",
    [headers.block(command=headers.LOCAL), b"PROXY UNKNOWN\r\n"],
    ids=["LOCAL", "UNKNOWN"],
)
def test_a_health_check_is_served_and_logged_at_debug_alone(
    start_daemon: Daemons, header: bytes
) -> None:
    limits = ("--allow", CLIENT, "--max-connections-per-host", "1")
    daemon = start_daemon(*FROM_HERE, *limits)
    with daemon.connect() as held_open:
        assert ask(held_open, header + b"PING\n") == b"PONG\n"  # no limit of one host holds
        assert daemon.ask(header + b"SOMA 2 2\n") == b"4\n"
    assert daemon.ask(header) == b""
    assert daemon.ask(headers.line(CLIENT, 1) + b"SOMA 2 2\n") == b"4\n"
    ended(daemon, f"{CLIENT}:1")
    assert len(daemon.logs("connection ")) == 1
    detailed = start_daemon(*FROM_HERE, "--log-level", "debug")
    with detailed.connect() as connection:
        proxy = "{}:{}".format(*connection.getsockname())
        request_all(connection, header + b"SOMA 2 2\n")
    assert ended(detailed, proxy).startswith("requests=1 ")
    assert detailed.logs(f"debug: connection {proxy} ended")


@both_versions
def test_a_health_check_may_name_the_proxy_itself(start_daemon: Daemons, header: Header) -> None:
    daemon = start_daemon(*FROM_HERE, "--allow", CLIENT, "--max-connections-per-host", "1")
    with daemon.connect() as first, daemon.connect() as second, daemon.connect() as third:
        for connection in first, second:
            host, port = connection.getsockname()
            assert ask(connection, header(host, port) + b"PING\n") == b"PONG\n"
        host, port = third.getsockname()  # another end of that host is a client like others
        assert request_all(third, header(host, port ^ 1)).startswith(b"ERR FORBIDDEN clients from ")
    assert daemon.ask(header(CLIENT, 1) + b"PING\n2+2\n") == b"PONG\n4\n"
    ended(daemon, f"{CLIENT}:1")
    assert len(daemon.logs("connection ")) == 2


@pytest.mark.parametrize(
    "header",
    [
        headers.block(),
        headers.block(bytes(216), family=headers.UNIX, transport=headers.STREAM),
    ],
    ids=["unspecified", "of a Unix socket"],
)
def test_a_client_without_an_address_is_served_and_logged_with_that_of_the_proxy(
    start_daemon: Daemons, header: bytes
) -> None:
    daemon = start_daemon(*FROM_HERE, "--allow", CLIENT)
    with daemon.connect() as connection:
        proxy = "{}:{}".format(*connection.getsockname())
        assert request_all(connection, header + b"SOMA 2 2\n") == b"4\n"
    assert ended(daemon, proxy).startswith("requests=1 errors=0 ")


def test_a_person_on_a_proxy_can_ask_by_hand(start_daemon: Daemons) -> None:
    """As docs/operations.md says."""
    if shutil.which("nc.openbsd") is None:
        pytest.skip("nc.openbsd is not installed")
    daemon = start_daemon(*FROM_HERE)
    (command,) = re.findall(r"`(printf 'PROXY .*) calcd1 12000`", OPERATIONS.read_text())
    done = subprocess.run(
        ["sh", "-c", f"{command.replace('nc ', 'nc.openbsd ')} {daemon.host} {daemon.port}"],
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.stdout == b"PONG\n"


# Who must send a header, and who must not


@pytest.mark.parametrize(
    "start",
    [
        b"SOMA 2 2\n",
        b"SOMA 2 2",
        b"\xef\xbb\xbfPING\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff\xfb\x1fPING\r\n",  # telnet
        b"\x16\x03\x01\x02\x00\x01",  # TLS, where nobody speaks it
    ],
)
def test_a_proxy_must_send_a_header(start_daemon: Daemons, start: bytes) -> None:
    daemon = start_daemon(*FROM_HERE)
    with daemon.connect() as connection:
        name = "{}:{}".format(*connection.getsockname())
        assert request_all(connection, start) == NOT_BEGUN
    assert re.match("requests=0 errors=1 .* how=no-proxy-header", ended(daemon, name))


@pytest.mark.parametrize(
    ("start", "fault"),
    [
        (b"PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\nPING\n", "CR LF within 107 bytes"),
        (b"PROXY TCP4 203.0.113.7", "the input ends before it is complete"),
        (headers.addressed(CLIENT, 1, transport=headers.DGRAM), "its client sends datagrams"),
        (headers.addressed(CLIENT, 1, headers.tlv(headers.CRC32C, b"\0" * 4)), "CRC32C"),
    ],
)
def test_a_header_that_is_wrong_is_refused_with_its_reason(
    start_daemon: Daemons, start: bytes, fault: str
) -> None:
    daemon = start_daemon(*FROM_HERE)
    told = daemon.ask(start).decode()
    assert told.startswith("ERR FORBIDDEN the PROXY header is not valid: ")
    assert fault in told
    assert daemon.logs(rf"warning: connection 127\S+ refused: {re.escape(told.strip())}$")
    assert daemon.logs("how=bad-proxy-header")


@both_versions
def test_a_header_from_elsewhere_is_refused(start_daemon: Daemons, header: Header) -> None:
    daemon = start_daemon("--proxy-protocol-from", "192.0.2.1 unix")
    told = b"ERR FORBIDDEN a PROXY header is not accepted here\n"
    assert daemon.ask(header(CLIENT, 1) + b"PING\n") == told
    assert daemon.logs("connection 127.* how=proxy-header$")
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


def test_the_language_of_the_settings_is_that_of_the_errors(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--language", "pt")
    told = daemon.ask(b"SOMA 2 2\n").decode()
    assert told == "ERR FORBIDDEN uma conexão deste proxy deve começar por um cabeçalho PROXY\n"


def test_a_reload_changes_who_is_a_proxy(start_daemon: Daemons, tmp_path: Path) -> None:
    file = tmp_path / "calcd.conf"
    file.write_text("[calcd]\nlisten = tcp://127.0.0.1:0\n")
    daemon = start_daemon("-c", str(file))
    with daemon.connect() as before:
        assert ask(before, b"SOMA 2 2\n") == b"4\n"
        file.write_text(file.read_text() + "proxy_protocol_from = 127.0.0.1\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logs("settings in force.*proxy_protocol_from=127.0.0.1/32 ")
        assert ask(before, b"SUB 5 3\n") == b"2\n"
        assert daemon.ask(b"SOMA 2 2\n") == NOT_BEGUN
        assert daemon.ask(headers.line(CLIENT, 1) + b"SOMA 2 2\n") == b"4\n"


def test_datagrams_have_no_header(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "udp://127.0.0.1:0", *FROM_HERE)
    with datagrams_to(daemon) as client:
        client.send(b"SOMA 2 2\n")
        assert client.recv(100) == b"4\n"


def test_unix_sockets_have_a_word_of_their_own(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    options = ("-l", f"unix://{path}", "-l", "tcp://127.0.0.1:0", "--allow", f"127.0.0.1 {CLIENT}")
    daemon = start_daemon(*options, "--proxy-protocol-from", "unix")

    def asked(requests: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            return request_all(connection, requests)

    assert asked(headers.line(CLIENT, 40000) + b"SOMA 2 2\n") == b"4\n"
    assert ended(daemon, f"{CLIENT}:40000").startswith("requests=1 ")
    assert asked(headers.line(OTHER, 1) + b"PING\n").startswith(b"ERR FORBIDDEN clients from ")
    assert asked(b"SOMA 2 2\n") == NOT_BEGUN
    assert re.match("requests=0 errors=1 .* how=no-proxy-header", ended(daemon, "unix"))
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


# How the header comes, and when


@contextmanager
def proxied(daemon: Daemon, start: bytes) -> Iterator[socket.socket]:
    """Give a connection that begins with these bytes, each of which is a packet of its own."""
    with daemon.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in start:
            connection.send(bytes([byte]))
        yield connection


@both_versions
def test_a_header_may_come_byte_by_byte(start_daemon: Daemons, header: Header) -> None:
    daemon = start_daemon(*FROM_HERE)
    with proxied(daemon, header(CLIENT, 40000)) as connection:
        assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        assert request_all(connection, b"SOMA 1 1") == b"2\n"
    assert ended(daemon, f"{CLIENT}:40000").startswith("requests=2 errors=0 ")


def test_a_client_behind_a_proxy_needs_no_thread(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE)
    daemon.ask(headers.line(CLIENT, 1) + b"SOMA 2 2\n")
    before = daemon.count_threads()
    with ExitStack() as open_ones:
        for number in range(20):
            header = headers.addressed(CLIENT, number)
            connection = open_ones.enter_context(proxied(daemon, header[:20]))
            if number % 2:
                assert ask(connection, header[20:] + b"PING\n") == b"PONG\n"
        assert daemon.count_threads() == before


def test_a_header_and_all_requests_may_come_at_once(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE)
    requests = b"SUB 1234.5678 0.0078\n" * 50_000
    assert daemon.ask(headers.addressed(CLIENT, 1) + requests) == b"1234.5600\n" * 50_000


@pytest.mark.parametrize("idle_timeout", ["300", "0"])
@pytest.mark.parametrize("start", [b"", b"P", headers.addressed(CLIENT, 1)[:-1]])
def test_a_header_that_does_not_come_ends_the_connection(
    start_daemon: Daemons, start: bytes, idle_timeout: str
) -> None:
    daemon = start_daemon(*FROM_HERE, "--line-timeout", "0.2", "--idle-timeout", idle_timeout)
    with daemon.connect() as client:
        assert ask(client, headers.line(OTHER, 1) + b"SOMA 2 2\n") == b"4\n"
        with proxied(daemon, start) as connection:
            told = b"ERR TIMEOUT the PROXY header was not completed in time\n"
            assert read_all(connection) == told
        assert daemon.logs("errors=1 seconds=.* how=proxy-header-timeout")
        assert ask(client, b"SOMA 2 2\n") == b"4\n"  # a client has idle_timeout after its header


def test_a_client_that_is_idle_behind_its_header_ends_like_any_other(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--idle-timeout", "0.2")
    with daemon.connect() as connection:
        connection.sendall(headers.line(CLIENT, 1))
        assert read_all(connection) == b""
    assert ended(daemon, f"{CLIENT}:1").endswith("how=idle-timeout")


def test_a_header_that_drips_ends_too(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--line-timeout", "0.2")
    block = headers.addressed(CLIENT, 1, headers.tlv(headers.NOOP, bytes(3000)))
    with daemon.connect() as connection:
        connection.settimeout(0.05)
        told = b""
        for byte in block:
            connection.send(bytes([byte]))
            try:
                told = connection.recv(100)
            except TimeoutError:
                continue
            break
    assert told.startswith(b"ERR TIMEOUT ")
    assert daemon.logs("how=proxy-header-timeout")


def test_a_part_of_a_header_puts_off_no_deadline(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--line-timeout", "1")
    with daemon.connect() as first:
        time.sleep(0.2)
        with daemon.connect() as second:
            time.sleep(0.2)
            first.sendall(b"PROXY ")
            told = [read_all(each) for each in (first, second)]
            assert all(each.startswith(b"ERR TIMEOUT ") for each in told)
            ports = [each.getsockname()[1] for each in (first, second)]
    ends = daemon.logs("how=proxy-header-timeout", 2)
    assert [int(line.split(" ended:")[0].rpartition(":")[2]) for line in ends] == ports


# The stop


@pytest.mark.parametrize("start", [b"", b"PROXY TC", headers.addressed(CLIENT, 1)[:20]])
def test_half_a_header_delays_no_stop(start_daemon: Daemons, start: bytes) -> None:
    daemon = start_daemon(*FROM_HERE, "--drain-timeout", "60")
    with proxied(daemon, start) as connection:
        assert daemon.ask(headers.line(CLIENT, 2) + b"PING\n") == b"PONG\n"
        assert daemon.stop() == 0
        assert read_all(connection) == b""  # and no reset
    assert daemon.logs("how=stopped")
    assert "0 connections cut" in daemon.log


def test_a_header_that_has_arrived_before_a_stop_is_taken(start_daemon: Daemons) -> None:
    daemon = start_daemon(*FROM_HERE, "--drain-timeout", "60")
    header = headers.addressed(CLIENT, 40000)
    with proxied(daemon, b"") as late, proxied(daemon, header[:9]) as begun:
        assert daemon.ask(headers.line(CLIENT, 2) + b"PING\n") == b"PONG\n"
        daemon.process.send_signal(signal.SIGSTOP)
        late.sendall(header + b"SOMA 2 2\n")
        begun.sendall(header[9:] + b"SOMA 1 1\n")
        daemon.process.terminate()
        daemon.process.send_signal(signal.SIGCONT)
        assert [read_all(late), read_all(begun)] == [b"4\n", b"2\n"]
    assert daemon.stop() == 0
    assert len(daemon.logs(rf"connection {CLIENT}:40000 ended: requests=1 .* how=stopped")) == 2


# TLS behind the header


@pytest.fixture
def secure_connect(
    start_daemon: Daemons, certificates: Certificates
) -> Callable[..., tuple[Daemon, Callable[[bytes], ssl.SSLSocket]]]:
    """Start a daemon with a TLS endpoint; give it, and a way to connect behind a header."""

    def start(*options: str) -> tuple[Daemon, Callable[[bytes], ssl.SSLSocket]]:
        pair = certificates.server
        files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
        daemon = start_daemon("-l", "tls://127.0.0.1:0", *files, *FROM_HERE, *options)
        trusted = ssl.create_default_context(cafile=certificates.authority.cert)

        def connect(header: bytes) -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT)
            try:
                plain.sendall(header)
                return trusted.wrap_socket(plain, server_hostname="localhost")
            except BaseException:
                plain.close()
                raise

        return daemon, connect

    return start


Secured = Callable[..., tuple[Daemon, Callable[[bytes], ssl.SSLSocket]]]


@both_versions
def test_tls_begins_behind_the_header(secure_connect: Secured, header: Header) -> None:
    daemon, connect = secure_connect("--allow", CLIENT)
    with connect(header(CLIENT, 40000)) as connection:
        assert ask(connection, b"SOMA 2 2\n") == b"4\n"
        assert ask(connection, b"QUIT\n") == b"BYE\n"
    assert ended(daemon, f"{CLIENT}:40000").endswith("how=quit")


def test_the_serving_loop_does_no_handshake_behind_a_header(secure_connect: Secured) -> None:
    daemon, connect = secure_connect()
    before = daemon.count_threads()
    with socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT):
        wait_until(lambda: daemon.count_threads() == before + 1, "a thread of its own")
        with connect(headers.line(CLIENT, 40000)) as connection:
            assert ask(connection, b"SOMA 2 2\n") == b"4\n"
            assert daemon.count_threads() == before + 2


def test_a_client_that_is_refused_gets_an_alert(secure_connect: Secured) -> None:
    daemon, connect = secure_connect("--allow", CLIENT, "--max-connections-per-host", "1")
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        connect(headers.addressed(OTHER, 1))
    assert ended(daemon, f"{OTHER}:1").endswith("how=forbidden")
    with (
        connect(headers.addressed(CLIENT, 2)),
        pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"),
    ):
        connect(headers.addressed(CLIENT, 3))
    assert ended(daemon, f"{CLIENT}:3").endswith("how=busy")
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        connect(b"")  # no header
    assert daemon.logs("how=no-proxy-header")


def test_who_sends_no_header_and_no_tls_is_told_in_plain_text(secure_connect: Secured) -> None:
    daemon, _ = secure_connect("--line-timeout", "0.2")
    with socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT) as connection:
        assert request_all(connection, b"SOMA 2 2\n") == NOT_BEGUN
    with socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT) as connection:
        assert read_all(connection) == b""  # as for a handshake that is not finished in time
    assert daemon.logs("how=proxy-header-timeout")


def test_a_handshake_behind_a_header_has_its_deadline(secure_connect: Secured) -> None:
    daemon, _ = secure_connect("--line-timeout", "0.2")
    with socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT) as connection:
        connection.sendall(headers.line(CLIENT, 1))
        assert read_all(connection) == b""
    assert ended(daemon, f"{CLIENT}:1").endswith("how=handshake-timeout")


def test_a_proxy_that_only_looks_whether_the_port_is_open_fails_no_handshake(
    secure_connect: Secured,
) -> None:
    daemon, _ = secure_connect("-l", "tcp://127.0.0.1:0", "--log-level", "debug")
    for number, more in enumerate((b"", b"\x16\x03\x01")):
        with socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT) as connection:
            connection.sendall(headers.block(command=headers.LOCAL) + more)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
        daemon.logs(" ended: ", number + 1)
    told = daemon.ask(b"PROXY UNKNOWN\r\nSTATS\n").split()
    assert b"tls_handshakes_failed=1" in told
