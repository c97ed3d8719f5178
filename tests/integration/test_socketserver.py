"""What socketserver documents of a ThreadingTCPServer holds for this one."""

import select
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from helpers import TIMEOUT, ask, read_all, wait_until

from calcd.config.endpoints import parse_endpoint
from calcd.config.settings import Settings
from calcd.net.listeners import listen
from calcd.net.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a server that does not serve yet."""
    with Server(listen([parse_endpoint("tcp://127.0.0.1:0")])[0], Settings()) as made:
        yield made


def connect(server: Server) -> socket.socket:
    return socket.create_connection(server.server_address, TIMEOUT)  # type: ignore[arg-type]


def serving(server: Server) -> threading.Thread:
    loop = threading.Thread(target=server.serve_forever)
    loop.start()
    return loop


def test_its_address_is_that_of_its_first_listener(server: Server) -> None:
    host, port = server.server_address[:2]
    assert host == "127.0.0.1"
    assert port > 0


def test_shutdown_from_another_thread_ends_serve_forever_and_it_can_be_called_again(
    server: Server,
) -> None:
    for _ in range(3):
        loop = serving(server)
        with connect(server) as client:
            assert ask(client, b"SOMA 2 2\n") == b"4\n"
        server.shutdown()
        loop.join(TIMEOUT)
        assert not loop.is_alive()


def test_shutdown_before_serve_forever_does_not_hang(server: Server) -> None:
    server.shutdown()
    loop = serving(server)
    loop.join(TIMEOUT)
    assert not loop.is_alive()


def test_handle_request_serves_one_client(server: Server) -> None:
    server.timeout = 0.05
    server.handle_request()  # nobody comes
    with connect(server) as client:
        client.sendall(b"SOMA 2 2\n")
        server.timeout = TIMEOUT
        server.handle_request()
        assert client.recv(100) == b"4\n"


def test_it_can_be_waited_for_by_its_descriptor(server: Server) -> None:
    assert select.select([server], [], [], 0)[0] == []
    with connect(server) as client:
        assert select.select([server], [], [], TIMEOUT)[0] == [server]
        client.sendall(b"PING\n")
        server.handle_request()
        assert client.recv(100) == b"PONG\n"


def test_service_actions_are_called_as_long_as_it_serves() -> None:
    calls = []

    class Counting(Server):
        def service_actions(self) -> None:
            calls.append(1)

    with Counting(listen([parse_endpoint("tcp://127.0.0.1:0")])[0], Settings()) as server:
        loop = threading.Thread(target=server.serve_forever, args=(0.01,))
        loop.start()
        wait_until(lambda: len(calls) > 3, "service actions")
        server.shutdown()
        loop.join(TIMEOUT)


def test_server_close_ends_everything_and_may_be_called_twice() -> None:
    server = Server(listen([parse_endpoint("tcp://127.0.0.1:0")])[0], Settings())
    loop = serving(server)
    with connect(server) as idle, connect(server) as started:
        started.sendall(b"SUB 2")
        assert ask(idle, b"PING\n") == b"PONG\n"
        wait_until(lambda: server.limiter.active == 2, "both clients")
        server.server_close()
        server.server_close()
        assert read_all(idle) == read_all(started) == b""
    loop.join(TIMEOUT)
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_a_drain_may_come_twice_also_at_once() -> None:
    server = Server(listen([parse_endpoint("tcp://127.0.0.1:0")])[0], Settings())
    loop = serving(server)
    with connect(server) as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        client.sendall(b"SOMA 2 2\n")
        time.sleep(0.05)
        drains = [threading.Thread(target=server.drain, args=(5,)) for _ in range(2)]
        for drain in drains:
            drain.start()
        assert read_all(client) == b"4\n"
        for thread in (*drains, loop):
            thread.join(TIMEOUT)
            assert not thread.is_alive()
    assert server.drain(5) == (0, 0)
    server.server_close()


def test_it_sets_nothing_of_its_process(server: Server) -> None:
    before = sys.getswitchinterval()
    loop = serving(server)
    with connect(server) as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        assert sys.getswitchinterval() == before
    server.shutdown()
    loop.join(TIMEOUT)
