"""A stop: who is answered until the end, who is left to the next instance, what is not awaited."""

import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from background_daemon import Background
from helpers import (
    TIMEOUT,
    Daemons,
    ask,
    bytes_unacked,
    connect_with_little_room,
    read_all,
    wait_until,
)
from serving import serving

from calcd.config.settings import Settings
from calcd.net.listeners import Listener
from calcd.net.server import Server

LONG_REQUEST, LONG_REPLY = b"UPPER " + b"a" * 1000 + b"\n", b"A" * 1000 + b"\n"


@contextmanager
def held(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Stop a process for a while, so that what comes meanwhile comes all at once."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_an_end_of_input_that_has_arrived_ends_the_last_line(start_daemon: Daemons) -> None:
    daemon = start_daemon("--drain-timeout", "60")
    before = daemon.count_threads()
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(daemon.connect()) for _ in range(30)]
        for client in clients:
            client.sendall(b"S")
        wait_until(lambda: daemon.count_threads() >= before + 30, "a thread for each")
        with held(daemon.process):
            for client in clients:
                client.sendall(b"OMA 1 1\nSOMA 2 2")
                client.shutdown(socket.SHUT_WR)
            daemon.process.terminate()
        assert [read_all(client) for client in clients] == 30 * [b"2\n4\n"]
    assert daemon.process.wait(TIMEOUT) == 0


def test_hundreds_of_clients_that_have_replies_to_read_get_them_all(start_daemon: Daemons) -> None:
    """Though each has sent more, which a close at once would answer with a reset."""
    daemon, count, requests = start_daemon("--drain-timeout", "60"), 300, 40
    with ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(connect_with_little_room((daemon.host, daemon.port)))
            for _ in range(count)
        ]
        for client in clients:
            client.sendall(requests * LONG_REQUEST)
        wait_until(lambda: not any(map(bytes_unacked, clients)), "the requests to arrive")
        daemon.process.terminate()
        daemon.logs(" how=stopped", count)
        for client in clients:
            client.sendall(b"PING\n")
        with ThreadPoolExecutor(count) as readers:  # the lingering close has a time for each
            for replies in readers.map(read_all, clients):
                assert replies == requests * LONG_REPLY
    assert daemon.process.wait(TIMEOUT) == 0
    assert "stopped: 0 connections cut" in daemon.log


def test_a_client_that_keeps_sending_does_not_keep_the_stop(start_daemon: Daemons) -> None:
    daemon = start_daemon("--drain-timeout", "60")
    with daemon.connect() as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        daemon.process.terminate()
        client.settimeout(0.002)

        def ended() -> bool:
            try:
                client.sendall(b"PING\n")
                return not client.recv(4096)
            except TimeoutError:
                return False
            except ConnectionError:  # it has sent on after the end
                return True

        wait_until(ended, "the stop to end, although the client sends")
    assert daemon.process.wait(TIMEOUT) == 0
    assert "stopped: 0 connections cut" in daemon.log


def test_who_waits_in_an_inherited_queue_is_left_to_the_next_instance() -> None:
    stuck, released = threading.Event(), threading.Event()

    def beat(_: int) -> None:
        """Keep the serving loop from accepting until the stop has begun."""
        stuck.set()
        assert released.wait(TIMEOUT)

    with socket.create_server(("127.0.0.1", 0)) as queue:
        listener = Listener(queue.dup(), inherited=True)
        server = Server([listener], Settings(), beat)
        loop = threading.Thread(target=server.serve_forever)
        loop.start()
        assert stuck.wait(TIMEOUT)
        with socket.create_connection(queue.getsockname(), TIMEOUT) as waiting:
            waiting.sendall(b"SOMA 2 2\n")
            drain = threading.Thread(target=server.drain, args=(TIMEOUT,))
            drain.start()
            wait_until(lambda: server._draining, "the stop to begin")
            released.set()
            drain.join()
            loop.join()
            server.server_close()
            assert select.select([waiting], [], [], 0)[0] == []  # neither a reply nor an end
            with serving(Listener(queue.dup(), inherited=True)):
                assert ask(waiting, b"") == b"4\n"


def test_calcd_s_stop_waits_for_as_long_as_the_drain_may_take(background: Background) -> None:
    background.serve("--drain-timeout", "60")
    # Without the time that it waits beyond, which would hide how long it waits for the drain.
    code = "import calcd.daemon.actions\ncalcd.daemon.actions._STOP_MARGIN = 0.0"
    *_, port = background.log.split("listening on tcp://127.0.0.1:")[1].split()[0].rsplit(":", 1)
    with connect_with_little_room(("127.0.0.1", int(port))) as client:
        client.sendall(400 * LONG_REQUEST)  # more than the kernel takes of the replies
        with background.command("-s", "stop", "--drain-timeout", "60", code=code) as stop:
            wait_until(lambda: "stopping: " in background.log, "the stop")
            time.sleep(0.3)
            assert stop.poll() is None
            replies = read_all(client)
            assert stop.communicate(timeout=TIMEOUT) == ("", "")
            assert stop.returncode == 0
    assert replies == LONG_REPLY * (len(replies) // len(LONG_REPLY)) != b""
    assert "stopped: 0 connections cut" in background.log


@pytest.mark.parametrize("rest", [b"", b"SOMA 2 ", b"SOMA 2 2"], ids=["lines", "half", "whole"])
def test_what_arrived_behind_a_busy_session_is_answered_and_the_stop_does_not_wait(
    start_daemon: Daemons, rest: bytes
) -> None:
    """Though the client sends nothing more, nor ends its input."""
    daemon = start_daemon("--precision", "1000", "--drain-timeout", "60")
    with daemon.connect() as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        client.sendall(20 * b"EXP 0.1234\n")
        time.sleep(0.05)
        client.sendall(b"SOMA 1 1\nSOMA 2 2\n" + rest)
        daemon.process.terminate()
        replies = read_all(client)
        assert replies.count(b"\n") == 22
        assert replies.endswith(b"\n2\n4\n")
        assert daemon.process.wait(TIMEOUT) == 0
    assert "stopped: 0 connections cut" in daemon.log
    daemon.logs("requests=23 errors=0 .* how=stopped")


def test_what_arrived_behind_urgent_data_is_answered_at_a_stop(start_daemon: Daemons) -> None:
    """recv(2) ends before an urgent byte, though more has arrived."""
    daemon = start_daemon("--precision", "1000", "--drain-timeout", "60")
    with daemon.connect() as client:
        assert ask(client, b"PING\n") == b"PONG\n"
        client.sendall(20 * b"EXP 0.1234\n")
        time.sleep(0.05)
        client.sendall(b"SOMA 1 1\n")
        client.send(b"SOMA 2 2\n", socket.MSG_OOB)
        client.sendall(b"SOMA 3 3\n")
        daemon.process.terminate()
        assert read_all(client).endswith(b"\n2\n4\n6\n")
    assert daemon.process.wait(TIMEOUT) == 0
