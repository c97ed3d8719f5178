"""PROXY headers of real programs: HAProxy, in both versions and over all transports, and curl."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import Certificates
from helpers import TIMEOUT, Daemon, Daemons, request_all, wait_until
from listening import needs_ipv6

PROXY, CLIENT = "127.0.0.1", "127.0.0.9"
FROM_PROXY = ("--proxy-protocol-from", PROXY, "--allow", f"{CLIENT} ::1")
SENDERS = [
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    "send-proxy-v2-ssl-cn",
]
CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend front
    unique-id-format %ci-%cp-%ts
    bind {bind}
    default_backend back

backend back
    option tcp-check
    tcp-check send PING\\r\\n
    tcp-check expect string PONG
    server calcd {server}
"""

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed"
)


class Haproxy:
    """An HAProxy that listens at a Unix socket, for commands, and at ``listener`` for clients."""

    def __init__(self, directory: Path, listener: socket.socket, server: str) -> None:
        self._commands = directory / "haproxy.sock"
        file = directory / "haproxy.cfg"
        text = CONFIGURATION.format(bind=f"fd@{listener.fileno()}", server=server)
        file.write_text(f"global\n    stats socket {self._commands} level admin\n{text}")
        self.process = subprocess.Popen(
            ["haproxy", "-db", "-f", file],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
        )
        self._address = listener.getsockname()

    def is_up(self, checks: bool) -> bool:
        """Say whether it serves clients and, with ``checks``, whether the last check was right."""
        assert self.process.poll() is None, self.process.communicate()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._commands))
                stats = request_all(connection, b"show stat\n").decode().splitlines()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        names = stats[0].removeprefix("# ").split(",")
        rows = [dict(zip(names, row.split(","), strict=False)) for row in stats[1:]]
        (row,) = [row for row in rows if row.get("svname") == "calcd"]
        assert not checks or row["chkfail"] in ("", "0"), row
        return not checks or row["check_status"] == "L7OK"

    def connect(self, source: str = CLIENT) -> socket.socket:
        return socket.create_connection(self._address[:2], TIMEOUT, (source, 0))


@contextmanager
def running(
    directory: Path, server: str, host: str = PROXY, checks: bool = True
) -> Iterator[Haproxy]:
    """Run HAProxy in front of a server, until its first check was right."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        haproxy = Haproxy(directory, listener, server)
        try:
            wait_until(lambda: haproxy.is_up(checks), "HAProxy and its check")
            yield haproxy
        finally:
            haproxy.process.kill()
            haproxy.process.communicate(timeout=TIMEOUT)


def connections(daemon: Daemon) -> list[str]:
    """Return what the log says of connections."""
    return [
        line.partition("connection ")[2] for line in daemon.log.splitlines() if "ended:" in line
    ]


def is_logged(daemon: Daemon, connection: socket.socket, requests: int) -> None:
    """See that the log has the one line of a client, and none of health checks."""
    host, port, *_ = connection.getsockname()
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    daemon.logs(rf"info: connection {re.escape(name)} ended: requests={requests} errors=0 ")
    assert len(connections(daemon)) == 1


@needs_haproxy
@pytest.mark.parametrize("sender", SENDERS)
def test_the_client_of_haproxy_is_seen(start_daemon: Daemons, tmp_path: Path, sender: str) -> None:
    daemon = start_daemon(*FROM_PROXY)
    with (
        running(tmp_path, f"{PROXY}:{daemon.port} {sender} check inter 100") as haproxy,
        haproxy.connect() as client,
    ):
        assert request_all(client, b"SOMA 2 2\nSUB 5 3\n") == b"4\n2\n"
        is_logged(daemon, client, 2)
        with haproxy.connect("127.0.0.8") as other:
            told = b"ERR FORBIDDEN clients from 127.0.0.8 may not connect here\n"
            assert request_all(other, b"SOMA 2 2\n") == told


@needs_haproxy
@needs_ipv6
@pytest.mark.parametrize("sender", SENDERS[:2])
def test_an_ipv6_client_comes_through_a_connection_over_ipv4(
    start_daemon: Daemons, tmp_path: Path, sender: str
) -> None:
    daemon = start_daemon(*FROM_PROXY)
    with (
        running(tmp_path, f"{PROXY}:{daemon.port} {sender} check inter 100", "::1") as haproxy,
        haproxy.connect("::1") as client,
    ):
        assert request_all(client, b"SOMA 2 2\n") == b"4\n"
        is_logged(daemon, client, 1)


@needs_haproxy
@pytest.mark.parametrize("sender", SENDERS[:2])
def test_haproxy_may_connect_over_a_unix_socket(
    start_daemon: Daemons, tmp_path: Path, sender: str
) -> None:
    path = tmp_path / "calcd.sock"
    daemon = start_daemon("-l", f"unix://{path}", "--proxy-protocol-from", "unix")
    with (
        running(tmp_path, f"unix@{path} {sender} check inter 100") as haproxy,
        haproxy.connect() as client,
    ):
        assert request_all(client, b"SOMA 2 2\n") == b"4\n"
        is_logged(daemon, client, 1)


@needs_haproxy
@pytest.mark.parametrize("sender", SENDERS[:2])
def test_tls_passes_through_haproxy(
    start_daemon: Daemons, certificates: Certificates, tmp_path: Path, sender: str
) -> None:
    pair = certificates.server
    files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    daemon = start_daemon("-l", "tls://127.0.0.1:0", *files, *FROM_PROXY)
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    checks = "check inter 100 check-ssl verify none"  # clients speak TLS, so checks must too
    server = f"{PROXY}:{daemon.port_of('tls')} {sender} {checks}"
    with (
        running(tmp_path, server) as haproxy,
        trusted.wrap_socket(haproxy.connect(), server_hostname="localhost") as client,
    ):
        client.sendall(b"SOMA 2 2\nQUIT\n")
        assert client.recv(100) == b"4\nBYE\n"
        is_logged(daemon, client, 2)


@needs_haproxy
def test_checks_without_a_header_find_the_server_down_and_the_log_tells_why(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    daemon = start_daemon(*FROM_PROXY)
    server = f"{PROXY}:{daemon.port} check inter 100"
    with running(tmp_path, server, checks=False):
        daemon.logs("how=no-proxy-header")


def test_the_header_of_curl_is_understood(start_daemon: Daemons) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    daemon = start_daemon("--proxy-protocol-from", PROXY, "--log-level", "debug")
    command = ["curl", "-s", "--http0.9", "--haproxy-protocol", f"http://{PROXY}:{daemon.port}/"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.stdout == b"ERR FORBIDDEN this is not an HTTP server\n", done.stderr
    # It names its own end of the connection, as the health checks of a proxy do.
    assert daemon.logs(rf"debug: connection {PROXY}:\d+ ended: .* how=http$")
