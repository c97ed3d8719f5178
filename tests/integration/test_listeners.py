"""Listeners: the TCP sockets that endpoints stand for."""

import errno
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import TIMEOUT, Daemon, Daemons, read_all, run_calcd, wait_until
from listening import failure, listening, needs_ipv6

from calcd.config.endpoints import parse_endpoint
from calcd.config.errors import ConfigError
from calcd.net import listeners as module
from calcd.net.listeners import BACKLOG, Listener, listen
from calcd.net.sockopt import bytes_unacked


def resolving(*addresses: tuple[Any, ...]) -> Callable[..., list[tuple[Any, ...]]]:
    """Make a getaddrinfo for which every name has these addresses."""

    def getaddrinfo(_: str, port: int, **__: object) -> list[tuple[Any, ...]]:
        return [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address[0], port, *address[1:]),
            )
            for address in addresses
        ]

    return getaddrinfo


def test_port_0_takes_a_free_one_and_says_which() -> None:
    with listening("tcp://127.0.0.1:0") as (listener,):
        port = listener.socket.getsockname()[1]
        assert str(listener.endpoint) == f"tcp://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port)).close()


def test_the_queue_of_clients_is_as_long_as_the_kernel_allows() -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with listening("tcp://127.0.0.1:0") as (listener,):
        info = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    # Of a listening socket, tcpi_sacked is the length of its queue (tcp_get_info in Linux).
    assert int.from_bytes(info[28:32], sys.byteorder) == min(BACKLOG, most)


@needs_ipv6
def test_ipv6(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "tcp://[::1]:0")
    assert re.fullmatch(r"tcp://\[::1\]:\d+", daemon.endpoints[0])
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
    daemon.logs(r"connection \[::1\]:\d+ ended: requests=1 ")


def test_several_endpoints_at_once(start_daemon: Daemons, tmp_path: Path) -> None:
    path = str(tmp_path / "calcd.sock")
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "-l", f"unix://{path} tcp://127.0.0.2:0")
    ports = [int(url.rsplit(":", 1)[1]) for url in (daemon.endpoints[0], daemon.endpoints[2])]
    for address in ("127.0.0.1", ports[0]), path, ("127.0.0.2", ports[1]):
        family = socket.AF_UNIX if address is path else socket.AF_INET
        with socket.socket(family) as client:
            client.connect(address)
            client.sendall(b"MUL 2 3\nQUIT\n")
            assert read_all(client) == b"6\nBYE\n"


@needs_ipv6
def test_a_name_stands_for_all_its_addresses_and_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = resolving(("127.0.0.1",), ("::1", 0, 0), ("127.0.0.3",), ("127.0.0.1",))
    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with listening("tcp://calcd.example:0") as listeners:
        hosts = [listener.endpoint.host for listener in listeners]
        assert hosts == ["127.0.0.1", "::1", "127.0.0.3"]
        assert len({listener.endpoint.port for listener in listeners}) == 1
        monkeypatch.undo()
        for listener in listeners:
            socket.create_connection(listener.socket.getsockname()[:2]).close()


def test_a_port_that_only_some_addresses_have_free_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(("127.0.0.1",), ("127.0.0.2",)))
    bind = module._bind_one
    refused: list[int] = []

    def bind_one(
        family: int, kind: int, address: tuple[Any, ...], reuse_port: bool
    ) -> socket.socket:
        if address[0] == "127.0.0.2" and len(refused) < 3:
            refused.append(address[1])
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return bind(family, kind, address, reuse_port)

    monkeypatch.setattr(module, "_bind_one", bind_one)
    with listening("tcp://calcd.example:0") as (one, other):
        assert one.endpoint.port == other.endpoint.port
    assert len(refused) == 3


class WithoutIPv6(socket.socket):
    """Stands in for socket.socket, as on a machine without IPv6."""

    def __init__(self, family: int, *more: int) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *more)


def test_an_address_of_a_family_that_is_missing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(("::1", 0, 0), ("127.0.0.1",)))
    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    (listener,), left_out = listen([parse_endpoint("tcp://calcd.example:0")])
    listener.close()
    assert listener.endpoint.host == "127.0.0.1"
    assert left_out == [
        "tcp://calcd.example:0: ::1 left out: Address family not supported by protocol"
    ]


def test_a_name_with_no_address_but_of_a_missing_family_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(("::1", 0, 0), ("::2", 0, 0)))
    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    assert failure("tcp://calcd.example:0") == (
        "listen: cannot listen on tcp://calcd.example:0: Cannot assign requested address: "
        "this machine has no such address"
    )


def test_a_literal_address_of_a_missing_family_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    assert failure("tcp://[::1]:0") == (
        "listen: cannot listen on tcp://[::1]:0: Address family not supported by protocol: "
        "a service's sandbox opens no ports: use a socket unit; else this machine has no such "
        "addresses"
    )


def test_one_address_of_a_name_that_is_another_machines_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(("127.0.0.1",), ("192.0.2.1",)))
    assert failure("tcp://calcd.example:0").endswith("this machine has no such address")


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of its own need root")
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip")
def test_localhost_where_ipv6_is_turned_off(tmp_path: Path) -> None:
    """In a network without IPv6, where the hosts file has ::1 all the same."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    script = (
        f"mount --bind {hosts} /etc/hosts && ip link set lo up"
        " && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
        f" && exec {sys.executable} -m calcd"
    )
    command = ["unshare", "--net", "--mount", "sh", "-c", script]
    daemon = Daemon(command, tmp_path / "daemon.log")
    try:
        assert daemon.endpoints == ["tcp://127.0.0.1:12000"]
        daemon.logs("warning: tcp://localhost:12000: ::1 left out: Cannot assign requested address")
    finally:
        assert daemon.stop() == 0


@needs_ipv6
def test_the_ipv6_wildcard_is_ipv6_only() -> None:
    for _ in range(20):
        with suppress(ConfigError):  # somebody else has the port in IPv4 already
            with listening("tcp://[::]:0") as (six,):
                port = six.endpoint.port
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
                with listening(f"tcp://0.0.0.0:{port}") as (four,):
                    assert (four.endpoint.host, six.endpoint.host) == ("0.0.0.0", "::")
                    socket.create_connection(("127.0.0.1", port)).close()
                    socket.create_connection(("::1", port)).close()
            return
    pytest.fail("no port is free in both families")


def test_many_clients_connect_though_nobody_accepts() -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with listening("tcp://127.0.0.1:0") as (listener,), ExitStack() as at_end:
        for _ in range(min(500, most)):
            address = listener.socket.getsockname()
            at_end.enter_context(closing(socket.create_connection(address, TIMEOUT)))


def test_accepted_connections_do_not_delay_replies() -> None:
    with listening("tcp://127.0.0.1:0") as (listener,):
        address = listener.socket.getsockname()
        with socket.create_connection(address):
            wait_until(lambda: _accept(listener), "the client")


def _accept(listener: Listener) -> bool:
    try:
        accepted, _ = listener.socket.accept()
    except BlockingIOError:
        return False
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return True


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_the_kernel_holds_little_for_a_client_that_does_not_read(
    family: str, tmp_path: Path
) -> None:
    url = "tcp://127.0.0.1:0" if family == "tcp" else f"unix://{tmp_path}/sock"
    with listening(url) as (listener,), socket.socket(listener.socket.family) as client:
        client.connect(listener.socket.getsockname())
        listener.socket.setblocking(True)
        accepted, _ = listener.socket.accept()
        with accepted:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                assert accepted.getsockopt(socket.SOL_SOCKET, option) <= 256 << 10
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            accepted.setblocking(False)
            assert _fill(accepted) <= 256 << 10
            assert bytes_unacked(accepted) <= 256 << 10


def _fill(connection: socket.socket) -> int:
    """Send until the kernel takes no more; return how many bytes it has taken."""
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += connection.send(bytes(1 << 16))
    return sent


def test_a_port_that_is_taken_ends_the_start_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        ended = run_calcd("-l", url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"calcd: --listen: cannot listen on {url}: Address already in use: "
        "stop the program that listens there, or choose another endpoint\n"
    )


def test_a_failure_leaves_nothing_open(tmp_path: Path) -> None:
    """The leak check after every test looks at the descriptors."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failure("tcp://127.0.0.2:0", f"unix://{tmp_path}/sock", f"tcp://127.0.0.1:{port}")
    assert os.listdir(tmp_path) == []


def test_a_port_can_be_taken_again_while_old_connections_linger() -> None:
    with listening("tcp://127.0.0.1:0") as (listener,):
        address = listener.socket.getsockname()
        with socket.create_connection(address, TIMEOUT) as client:
            wait_until(lambda: _accept(listener), "the client")  # closes first: TIME_WAIT is here
            assert client.recv(1) == b""
    with listening(f"tcp://127.0.0.1:{address[1]}"):
        pass


def test_two_daemons_share_a_port_and_its_clients(start_daemon: Daemons) -> None:
    first = start_daemon("--reuse-port", "yes")
    second = start_daemon("--reuse-port", "yes", "-l", first.endpoints[0])
    assert second.endpoints == first.endpoints

    def both_answered() -> bool:
        assert first.ask(b"SOMA 2 2\n") == b"4\n"
        return "requests=1" in first.log and "requests=1" in second.log

    wait_until(both_answered, "an answer from each")


def test_without_reuse_port_there_is_no_sharing(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    ended = run_calcd("-l", daemon.endpoints[0], "--reuse-port", "yes")
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr
