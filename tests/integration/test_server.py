"""The server: limits, deadlines and closings, over real sockets."""

import errno
import logging
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    ask,
    connect_with_little_room,
    daemons_in,
    datagrams_to,
    drip_until_closed,
    read_all,
    request_all,
    reset_on_close,
    send_until_nothing_moves,
    wait_until,
)
from hostile_clients import waiting_for_descriptors
from listening import listening, needs_ipv6
from serving import serving

from calcd.config.networks import Networks, parse_network
from calcd.config.settings import Settings
from calcd.core.decimal128 import Arithmetic
from calcd.core.interpreter import Interpreter
from calcd.core.session import Session
from calcd.net.connection import Connection
from calcd.net.listeners import Listener
from calcd.net.semaphore import FairSemaphore
from calcd.net.server import Server


def networks(text: str) -> Networks:
    return Networks(tuple(map(parse_network, text.split())))


# Clients that ask


def test_everything_sent_ahead_is_answered_in_order(shared_daemon: Daemon) -> None:
    requests = b"".join(b"SOMA %d 0.5\n" % i for i in range(50_000))
    with shared_daemon.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(requests,))
        sender.start()
        received = b""
        while received.count(b"\n") < 50_000:
            received += connection.recv(1 << 20)
        sender.join()
    assert received == b"".join(b"%d.5\n" % i for i in range(50_000))


def test_many_clients_at_once_each_get_their_own_replies(shared_daemon: Daemon) -> None:
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(shared_daemon.connect()) for _ in range(60)]
        for number, client in enumerate(clients):
            client.sendall(b"MUL %d 3\n" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"%d\n" % (number * 3)


class CountingSocket(socket.socket):
    """Counts what is sent with one call."""

    def __init__(self, plain: socket.socket) -> None:
        super().__init__(fileno=plain.detach())
        self.writes: list[bytes] = []

    def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override]
        self.writes.append(data)
        return super().send(data, flags)


def test_one_read_becomes_one_write() -> None:
    ours, theirs = socket.socketpair()
    with CountingSocket(ours) as sock, theirs:
        theirs.sendall(b"SOMA 1 1\n" * 1000)
        theirs.shutdown(socket.SHUT_WR)
        Connection(sock, "", Session(Interpreter(Arithmetic())), Settings(), 0).run(FairSemaphore())
        assert sock.writes == [b"2\n" * 1000]


def test_half_close_gets_every_reply(shared_daemon: Daemon) -> None:
    assert shared_daemon.ask(b"SOMA 2 2\nSUB 5 3") == b"4\n2\n"


EXPENSIVE = b"EXP 0.1234\n"  # with 1000 digits


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon whose lines have at most 40 bytes."""
    with daemons_in(tmp_path_factory.mktemp("narrow")) as start:
        yield start("--max-line", "40")


@pytest.mark.parametrize("more", [0, 1, 20], ids=["alone", "one more line", "twenty more"])
def test_a_sum_of_one_byte_more_than_the_limit_is_too_long(narrow: Daemon, more: int) -> None:
    def replies(length: int) -> bytes:
        line = b"SOMA 2 " + b"2".rjust(length - 7, b"0") + b"\n"
        return narrow.ask(line + more * b"SOMA 2 2\n")

    assert replies(40) == b"4\n" + more * b"4\n"
    assert replies(41).startswith(b"ERR LINE-TOO-LONG ")
    assert replies(41).count(b"\n") == 1


COMMANDS = {"EOF": b"\xec", "SUSP": b"\xed", "ABORT": b"\xee", "NOP": b"\xf1", "GA": b"\xf9"}


OPTIONS = {
    f"{name} {option}": bytes((number, option))
    for name, number in {"WILL": 251, "WONT": 252, "DO": 253, "DONT": 254}.items()
    for option in (1, 6, 10)
}


@pytest.mark.parametrize("sent", [*COMMANDS.values(), *OPTIONS.values()], ids=COMMANDS | OPTIONS)
def test_a_telnet_command_leaves_no_byte(shared_daemon: Daemon, sent: bytes) -> None:
    command = b"\xff" + sent
    assert shared_daemon.ask(b"SO" + command + b"MA 2 2\n" + command) == b"4\n"


def test_expensive_lines_before_an_end_in_the_same_read_are_all_answered(
    start_daemon: Daemons,
) -> None:
    daemon = start_daemon("--precision", "1000")
    one = daemon.ask(EXPENSIVE)
    assert len(one) > 1000
    lines = 3 * EXPENSIVE + b"SOMA 2 2\n"
    assert daemon.ask(lines + b"\x04SOMA 3 3\n") == 3 * one + b"4\n"
    assert daemon.ask(lines + b"SOMA 3 3") == 3 * one + b"4\n6\n"


# Ends that the server decides


def test_twenty_clients_with_300_000_digits_are_all_told(shared_daemon: Daemon) -> None:
    replies = []

    def send_digits() -> None:
        with shared_daemon.connect() as connection:
            connection.sendall(b"1" * 300_000)
            replies.append(read_all(connection))

    clients = [threading.Thread(target=send_digits) for _ in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(replies) == 20
    assert {reply.split()[1] for reply in replies} == {b"LINE-TOO-LONG"}


def test_what_follows_quit_does_not_reset_the_reply(shared_daemon: Daemon) -> None:
    with shared_daemon.connect() as connection:
        connection.sendall(b"SOMA 2 2\nQUIT\n" + b"PING\n" * 200_000)
        time.sleep(0.05)  # lest the reply be read before a reset could come
        assert read_all(connection) == b"4\nBYE\n"


def test_a_silent_client_is_let_go_without_a_word(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.3")
    with daemon.connect() as connection:
        assert read_all(connection) == b""
    daemon.logs("requests=0 errors=0 seconds=[0-9.]+ how=idle-timeout")


def test_blank_lines_do_not_keep_a_connection(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.4")
    with daemon.connect() as connection:
        assert drip_until_closed(connection, b"\n \n", 0.05) == b""
    daemon.logs("how=idle-timeout")


def test_requests_keep_a_connection(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "1.5")
    with daemon.connect() as connection:
        for _ in range(10):
            time.sleep(0.2)
            assert ask(connection, b"PING\n") == b"PONG\n"


def test_an_idle_timeout_of_0_is_for_ever(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0", "--line-timeout", "0.2", "--message-wait", "0")
    with daemon.connect() as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_drip_of_bytes_does_not_keep_a_line(start_daemon: Daemons) -> None:
    daemon = start_daemon("--line-timeout", "0.5")
    with daemon.connect() as connection:
        assert drip_until_closed(connection, b"1", 0.05).startswith(b"ERR TIMEOUT ")
    daemon.logs("requests=1 errors=1 seconds=[0-9.]+ how=line-timeout")


def test_signs_of_life_do_not_stretch_a_lines_time_or_its_silence(start_daemon: Daemons) -> None:
    daemon = start_daemon("--line-timeout", "5", "--message-wait", "0.3")
    with daemon.connect() as connection:
        connection.sendall(b"SOMA 2 2")
        connection.settimeout(0.05)
        reply = b""

        def answered() -> bool:
            nonlocal reply
            connection.sendall(b"\xff\xf1")  # a telnet's NOP
            with suppress(TimeoutError):
                reply = connection.recv(100)
            return reply != b""

        wait_until(answered, "the reply")
        assert reply == b"4\n"


def test_half_a_line_is_not_answered_at_the_stop_where_silence_is_not(
    start_daemon: Daemons,
) -> None:
    daemon = start_daemon("--message-wait", "0")
    with daemon.connect() as connection:
        connection.sendall(b"SOMA 2 2")
        daemon.process.terminate()
        assert read_all(connection) == b""


def test_each_line_has_its_own_time(start_daemon: Daemons) -> None:
    daemon = start_daemon("--line-timeout", "1.5")
    with daemon.connect() as connection:
        connection.sendall(b"SOM")
        for _ in range(10):  # never without a started line, but each is ended in time
            time.sleep(0.2)
            assert ask(connection, b"A 1 1\nSOM") == b"2\n"


def test_a_line_after_one_that_silence_ended_has_its_own_time(start_daemon: Daemons) -> None:
    daemon = start_daemon("--message-wait", "0.05", "--line-timeout", "1.5")
    with daemon.connect() as connection:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert ask(connection, b"SOMA 2 2") == b"4\n"
        connection.sendall(b"SOM")
        time.sleep(0.1)  # no request can be made of it
        assert ask(connection, b"A 3 3\n") == b"6\n"


def test_a_client_that_reads_nothing_is_cut(start_daemon: Daemons) -> None:
    daemon = start_daemon("--send-timeout", "0.5")
    with daemon.connect() as connection:
        send_until_nothing_moves(connection)
        daemon.logs("how=unread")
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


def test_a_client_that_reads_slowly_is_not_cut(start_daemon: Daemons) -> None:
    """Less in ``send_timeout`` than the kernel takes to have room again, but something."""
    daemon = start_daemon("--send-timeout", "2")
    many = 8000
    with connect_with_little_room((daemon.host, daemon.port)) as connection:
        connection.sendall(b"DIV 1 3\n" * many)
        received = b""
        until = time.monotonic() + 4
        while time.monotonic() < until:
            received += connection.recv(1000)
            time.sleep(0.1)
        connection.shutdown(socket.SHUT_WR)
        received += read_all(connection)
    assert received == (b"0." + 34 * b"3" + b"\n") * many
    daemon.logs(f"requests={many} errors=0 .* how=closed")


def test_a_client_that_resets_leaves_no_traceback(daemon: Daemon) -> None:
    for unread in (b"", b"SOMA 2 2\n" * 1000, b"SOMA 2"):
        with daemon.connect() as connection:
            connection.sendall(b"SOMA 1 1\n" + unread)
            connection.recv(1)
            reset_on_close(connection)
    daemon.logs("how=reset", 3)
    assert "Traceback" not in daemon.log


# Limits


def test_the_1025th_is_told_busy_and_the_next_place_freed_is_given(daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(daemon.connect()) for _ in range(1024)]
        assert ask(clients[-1], b"PING\n") == b"PONG\n"
        for _ in range(3):
            with daemon.connect() as one_more:
                one_more.sendall(b"SOMA 2 2\n")
                assert re.fullmatch(rb"ERR BUSY 1024 [^\n]+\n", read_all(one_more))
        clients[0].close()
        wait_until(lambda: daemon.ask(b"PING\n") == b"PONG\n", "the place to be given again")
        assert len(daemon.logs("limit reached")) == 1
    daemon.logs("below the limit again")


def test_busy_is_told_to_a_client_that_sends_much(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "1")
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        with daemon.connect() as second:
            second.sendall(b"1" * 3_000_000)
            assert read_all(second).startswith(b"ERR BUSY ")
        assert ask(first, b"PING\n") == b"PONG\n"


def test_a_client_that_is_refused_has_its_line_in_the_log_too(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "1")
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        assert daemon.ask(b"").startswith(b"ERR BUSY ")
    daemon.logs("info: connection 127.0.0.1:[0-9]+ ended: requests=0 errors=1 .* how=busy$")


def test_who_sees_the_end_of_a_connection_may_come_again_at_once(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "1")
    for _ in range(1000):
        assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


def test_clients_of_a_unix_socket_have_no_address_even_with_a_path(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    start_daemon("-l", f"unix://{tmp_path}/calcd.sock", "--max-connections-per-host", "1")
    with ExitStack() as open_ones:
        for number in range(2):
            client = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(TIMEOUT)
            client.bind(f"{tmp_path}/client-{number}")
            client.connect(f"{tmp_path}/calcd.sock")
            assert ask(client, b"PING\n") == b"PONG\n"


def test_one_address_has_its_own_limit(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections-per-host", "2")
    with ExitStack() as open_ones:
        for _ in range(2):
            client = open_ones.enter_context(daemon.connect())
            assert ask(client, b"PING\n") == b"PONG\n"
        assert daemon.ask(b"").startswith(b"ERR BUSY ")
        other = socket.create_connection((daemon.host, daemon.port), TIMEOUT, ("127.0.0.9", 0))
        with other:
            assert ask(other, b"PING\n") == b"PONG\n"
    daemon.logs("below the limit again: .* from 127.0.0.1")
    assert daemon.ask(b"PING\n") == b"PONG\n"


def test_who_is_not_allowed_is_told_and_logged_in_one_line(start_daemon: Daemons) -> None:
    daemon = start_daemon("--allow", "127.0.0.2 127.0.0.64/26")
    for host, allowed in {
        "127.0.0.1": False,
        "127.0.0.2": True,
        "127.0.0.63": False,
        "127.0.0.64": True,
        "127.0.0.127": True,
    }.items():
        address = (daemon.host, daemon.port)
        with socket.create_connection(address, TIMEOUT, (host, 0)) as client:
            client.sendall(b"SOMA 2 2\nQUIT\n")
            refused = f"ERR FORBIDDEN clients from {host} may not connect here\n"
            assert read_all(client) == (b"4\nBYE\n" if allowed else refused.encode())
        how = (
            "requests=2 errors=0 .* how=quit"
            if allowed
            else ("requests=0 errors=1 seconds=0.000 how=forbidden")
        )
        (line,) = daemon.logs(rf"info: connection {host}:\d+ ended: ")
        assert re.search(rf" ended: {how}$", line)


def test_forbidden_is_told_to_a_client_that_sends_much(start_daemon: Daemons) -> None:
    daemon = start_daemon("--allow", "::1")
    with daemon.connect() as client:
        client.sendall(b"1" * 3_000_000)
        assert read_all(client).startswith(b"ERR FORBIDDEN ")


def test_who_is_not_allowed_takes_no_place(start_daemon: Daemons) -> None:
    daemon = start_daemon("--allow", "127.0.0.2", "--max-connections", "1")
    with ExitStack() as open_ones:
        for _ in range(3):
            assert daemon.ask(b"").startswith(b"ERR FORBIDDEN ")
        address = (daemon.host, daemon.port)
        client = socket.create_connection(address, TIMEOUT, ("127.0.0.2", 0))
        open_ones.enter_context(client)
        assert ask(client, b"PING\n") == b"PONG\n"
        assert daemon.ask(b"").startswith(b"ERR FORBIDDEN ")  # and not BUSY


@needs_ipv6
def test_an_ipv6_client_is_looked_up_too(start_daemon: Daemons) -> None:
    for networks, told in {"::1": b"PONG\n", "127.0.0.0/8 ::2/127": b"ERR FORBIDDEN "}.items():
        daemon = start_daemon("-l", "tcp://[::1]:0", "--allow", networks)
        assert daemon.ask(b"PING\n").startswith(told)


@needs_ipv6
def test_a_client_of_a_socket_for_both_families_is_seen_as_ipv4() -> None:
    """Such as systemd may hand over."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        listener = Listener(both, inherited=True)
        with serving(listener, allow=networks("127.0.0.2")) as (server, _):
            for host in ("127.0.0.2", "127.0.0.1"):
                address = ("127.0.0.1", listener.endpoint.port)
                with socket.create_connection(address, TIMEOUT, (host, 0)) as client:
                    client.sendall(b"PING\nQUIT\n")
                    told = read_all(client)
                assert told == b"PONG\nBYE\n" if host == "127.0.0.2" else b"FORBIDDEN" in told
            assert server.settings.allow == networks("127.0.0.2")


def test_clients_of_a_unix_socket_are_allowed(start_daemon: Daemons, tmp_path: Path) -> None:
    start_daemon("-l", f"unix://{tmp_path}/calcd.sock", "--allow", "192.0.2.0/24")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(f"{tmp_path}/calcd.sock")
        assert ask(client, b"PING\n") == b"PONG\n"


def test_who_is_allowed_changes_with_a_reload_for_new_clients(
    tmp_path: Path, start_daemon: Daemons
) -> None:
    settings = tmp_path / "calcd.conf"
    settings.write_text("[calcd]\nlisten = tcp://127.0.0.1:0\n")
    daemon = start_daemon("-c", str(settings))
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        for allow, told in {"10.0.0.0/8": b"ERR FORBIDDEN ", "127.0.0.1": b"PONG\n"}.items():
            settings.write_text(f"[calcd]\nlisten = tcp://127.0.0.1:0\nallow = {allow}\n")
            daemon.process.send_signal(1)
            daemon.logs(f"settings in force: .* allow={allow}")
            assert daemon.ask(b"PING\n").startswith(told)
            assert ask(first, b"PING\n") == b"PONG\n"


def test_language_and_notation_change_with_a_reload_for_new_clients(
    tmp_path: Path, start_daemon: Daemons
) -> None:
    settings = tmp_path / "calcd.conf"
    listen = "[calcd]\nlisten = tcp://127.0.0.1:0 udp://127.0.0.1:0\n"
    settings.write_text(listen)
    daemon = start_daemon("-c", str(settings))
    asked = b"LANGUAGE\nNOTATION\nPOT 4 0.5\nFOO 1\n"
    plain = b"en\nplain\n2\nERR UNKNOWN-OPERATION unknown operation 'FOO'"
    scientific = b"pt\nscientific\n2." + 33 * b"0" + b"\nERR UNKNOWN-OPERATION opera"
    with daemon.connect() as first:
        assert daemon.ask(asked).startswith(plain)
        settings.write_text(listen + "language = pt-BR\nnotation = scientific\n")
        daemon.process.send_signal(1)
        daemon.logs("settings in force: .* notation=scientific language=pt ")
        assert daemon.ask(asked).startswith(scientific)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(TIMEOUT)
            (endpoint,) = daemon.logs(r"listening on udp://127.0.0.1:\d+")
            datagrams.connect(("127.0.0.1", int(endpoint.rpartition(":")[2])))
            datagrams.send(asked)
            assert datagrams.recv(2000).startswith(scientific)
        first.sendall(asked)
        first.shutdown(socket.SHUT_WR)
        assert read_all(first).startswith(plain)


def test_who_is_refused_is_told_in_the_language_of_the_settings(start_daemon: Daemons) -> None:
    daemon = start_daemon("--language", "pt", "--allow", "::1")
    refused = "ERR FORBIDDEN clientes de 127.0.0.1 não podem conectar-se aqui\n"
    assert daemon.ask(b"").decode() == refused
    daemon = start_daemon("--language", "pt", "--max-connections-per-host", "1")
    with daemon.connect() as first:
        assert ask(first, b"PING\n") == b"PONG\n"
        refused = "ERR BUSY 1 conexões estão abertas do seu endereço, o seu limite\n"
        assert daemon.ask(b"").decode() == refused


def test_places_freed_are_given_while_clients_come_and_go(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections", "4")
    for number in range(100):
        with daemon.connect() as client:
            assert ask(client, b"SOMA %d 1\n" % number) == b"%d\n" % (number + 1)
            client.sendall(b"QUIT\n")
            assert read_all(client) == b"BYE\n"


def test_without_descriptors_clients_wait(daemon: Daemon) -> None:
    with daemon.connect() as first, daemon.connect() as second:
        assert ask(first, b"PING\n") == ask(second, b"PING\n") == b"PONG\n"
        daemon.take_free_descriptors()
        with daemon.connect() as waiting:
            waiting.sendall(b"SOMA 2 2\n")
            daemon.logs("limit reached: cannot accept: Too many open files: clients wait")
            assert ask(first, b"SOMA 3 3\n") == b"6\n"
            second.close()
            assert waiting.recv(100) == b"4\n"
    daemon.logs("below the limit again: the system has room")


def test_a_stop_without_descriptors_ends(start_daemon: Daemons) -> None:
    daemon = start_daemon("--drain-timeout", "2")
    with waiting_for_descriptors(daemon):
        assert daemon.stop() == 0


class NoRoomAtFirst:
    """A listening socket on which the first calls of accept fail."""

    def __init__(self, sock: socket.socket, number: int, failures: int) -> None:
        self._socket, self._number = sock, number
        self.failures = failures

    def accept(self) -> Any:
        if self.failures > 0:
            self.failures -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._socket.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_a_low_hard_limit_is_served_within(tmp_path: Path) -> None:
    command = f"ulimit -n 64 && exec {sys.executable} -m calcd -l tcp://127.0.0.1:0"
    daemon = Daemon(["bash", "-c", command], tmp_path / "daemon.log")
    try:
        daemon.logs("max_connections lowered from 1024 to 32")
        assert_takes_32_clients(daemon)
    finally:
        assert daemon.stop() == 0


def assert_takes_32_clients(daemon: Daemon) -> None:
    with ExitStack() as open_ones:
        for _ in range(32):
            client = open_ones.enter_context(daemon.connect())
            assert ask(client, b"PING\n") == b"PONG\n"
        assert daemon.ask(b"").startswith(b"ERR BUSY ")


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM],
    ids=["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"],
)
def test_no_room_for_a_connection_is_told_once_and_the_client_waits(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with listening("tcp://127.0.0.1:0") as (listener,):
        short = NoRoomAtFirst(listener.socket, number, 3)
        with serving(listener) as (_, connect):
            listener.socket = short  # type: ignore[assignment]
            with connect() as client:
                assert ask(client, b"SOMA 2 2\n") == b"4\n"
            assert short.failures == 0
    told = [message for message in caplog.messages if "limit " in message]
    assert told == [
        f"limit reached: cannot accept: {os.strerror(number)}: clients wait",
        "below the limit again: the system has room for connections",
    ]


def test_a_single_request_is_served_after_there_was_no_room() -> None:
    with listening("tcp://127.0.0.1:0") as (listener,), Server([listener], Settings()) as server:
        address = listener.socket.getsockname()
        listener.socket = NoRoomAtFirst(listener.socket, errno.EMFILE, 1)  # type: ignore[assignment]
        server.timeout = TIMEOUT
        with socket.create_connection(address, TIMEOUT) as client:
            client.sendall(b"SOMA 2 2\n")
            server.handle_request()  # without descriptors
            server.handle_request()
            assert client.recv(100) == b"4\n"


def test_a_connection_that_cannot_be_watched_gets_a_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Server, "_watch", lambda *_: False)
    with serving() as (_, connect), connect() as client:
        for number in range(3):
            assert ask(client, b"SOMA 2 %d\n" % number) == b"%d\n" % (2 + number)
    monkeypatch.undo()
    with listening("tcp://127.0.0.1:0") as listeners, Server(listeners, Settings()) as server:
        closed = SimpleNamespace(sock=SimpleNamespace(fileno=lambda: 1 << 20))
        assert not server._watch(closed)  # type: ignore[arg-type]
    assert "limit reached: cannot watch a connection: Bad file descriptor" in caplog.text


def test_datagrams_are_answered_while_connections_have_no_room(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "-l", "udp://127.0.0.1:0")
    daemon.take_free_descriptors()
    with daemon.connect(), datagrams_to(daemon) as datagrams:
        daemon.logs("limit reached: cannot accept")
        for number in range(5):
            datagrams.send(b"SOMA %d 1\n" % number)
            assert datagrams.recv(100) == b"%d\n" % (number + 1)


@pytest.mark.parametrize(
    ("options", "how"),
    [(("--allow", "192.0.2.0/24"), "forbidden"), (("--max-connections", "1"), "busy")],
)
def test_a_refused_client_that_has_reset_leaves_no_traceback(
    start_daemon: Daemons, options: tuple[str, ...], how: str
) -> None:
    daemon = start_daemon(*options)
    with ExitStack() as open_ones:
        if how == "busy":
            assert ask(open_ones.enter_context(daemon.connect()), b"PING\n") == b"PONG\n"
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            with daemon.connect() as gone:
                gone.sendall(b"PING\n")
                reset_on_close(gone)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        daemon.logs(f" how={how}$")
        time.sleep(0.05)  # for what it would log of the closing
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


def test_a_reload_to_more_connections_than_fit_is_lowered_as_at_the_start(tmp_path: Path) -> None:
    settings = tmp_path / "calcd.conf"

    def write(connections: int) -> None:
        settings.write_text(
            f"[calcd]\nlisten = tcp://127.0.0.1:0\nmax_connections = {connections}\n"
        )

    write(1024)
    command = f"ulimit -n 64 && exec {sys.executable} -m calcd -c {settings}"
    daemon = Daemon(["bash", "-c", command], tmp_path / "daemon.log")
    try:
        daemon.logs("max_connections lowered from 1024 to 32")
        write(2000)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logs("max_connections lowered from 2000 to 32")
        daemon.logs("settings in force", 2)
        assert_takes_32_clients(daemon)
    finally:
        assert daemon.stop() == 0


def test_a_lower_limit_holds_from_the_reload_on(tmp_path: Path, start_daemon: Daemons) -> None:
    settings = tmp_path / "calcd.conf"
    settings.write_text("[calcd]\nlisten = tcp://127.0.0.1:0\nmax_connections = 5\n")
    daemon = start_daemon("-c", str(settings))
    with daemon.connect() as first, daemon.connect() as second:
        assert ask(first, b"PING\n") == ask(second, b"PING\n") == b"PONG\n"
        settings.write_text("[calcd]\nlisten = tcp://127.0.0.1:0\nmax_connections = 2\n")
        daemon.process.send_signal(1)
        daemon.logs("settings in force: .* max_connections=2 ")
        assert daemon.ask(b"").startswith(b"ERR BUSY ")
        assert ask(first, b"PING\n") == ask(second, b"PING\n") == b"PONG\n"


def test_a_thread_that_the_system_refuses_is_a_polite_busy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serving() as (server, connect):
        with connect() as first:
            first.sendall(b"PIN")  # who has begun a line has a thread
            wait_until(
                lambda: any(each.name == "connection" for each in threading.enumerate()),
                "a thread",
            )
            assert ask(first, b"G\n") == b"PONG\n"

            def refuse(_: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                with connect() as second:
                    second.sendall(b"PIN")
                    assert read_all(second).startswith(b"ERR BUSY ")
                with connect() as third:
                    assert ask(third, b"PING\n") == b"PONG\n"
                    third.sendall(b"PIN")
                    assert read_all(third) == b""  # not an answer that it has not asked for
            assert ask(first, b"PING\n") == b"PONG\n"
        with connect() as fourth:
            assert [ask(fourth, b"PING\n") for _ in range(2)] == 2 * [b"PONG\n"]
        wait_until(lambda: server.limiter.active == 0, "the connections to be counted out")
    assert "can't start new thread" in caplog.text
    ends = [line for line in caplog.messages if line.endswith(" how=busy")]
    assert any(" ended: requests=0 errors=1 " in line for line in ends)


# Bugs


def test_a_bug_in_a_request_is_logged_and_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("calcd.core.interpreter.evaluate", broken)
    with serving() as (_, connect), connect() as connection:
        assert ask(connection, b"sqrt(4)\n").startswith(b"ERR INTERNAL ")
        assert ask(connection, b"PING\n") == b"PONG\n"
    bug = next(record for record in caplog.records if record.exc_info)
    assert bug.levelno == logging.ERROR
    assert "'sqrt(4)'" in bug.getMessage()


def test_a_bug_outside_requests_ends_its_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise AssertionError("a bug")

    with serving() as (server, connect):
        with monkeypatch.context() as patch:
            patch.setattr(Session, "receive", broken)
            with connect() as connection:
                connection.sendall(b"PING\n")
                assert read_all(connection) == b""
        with connect() as connection:
            assert ask(connection, b"PING\n") == b"PONG\n"
        wait_until(lambda: server.limiter.active == 0, "the connections to be counted out")
    assert "a bug ended it" in caplog.text


def test_a_bug_in_the_line_of_the_log_keeps_no_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Connection) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(Connection, "log_end", broken)
    with serving() as (server, connect):
        with connect() as connection:
            name = "{}:{}".format(*connection.getsockname())
            assert request_all(connection, b"PING\n") == b"PONG\n"
        wait_until(lambda: server.limiter.active == 0, "the connection to be counted out")
    assert f"connection {name}: a bug ended it" in caplog.text


def test_what_a_session_knows_ends_with_its_connection(shared_daemon: Daemon) -> None:
    chosen = shared_daemon.ask(b"x = 2\nPRECISION 5\nEXACT on\nROUNDING up\nLANGUAGE pt\nVARS\n")
    assert chosen.endswith(b"\nx=2\n")
    asked = shared_daemon.ask(b"VARS\nPRECISION\nEXACT\nROUNDING\nLANGUAGE\n= ans\n")
    assert asked.startswith(b"no variables\n34\noff\nhalf-even\nen\nERR UNKNOWN-NAME ")
