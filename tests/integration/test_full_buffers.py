"""Buffers that are full: what is sent later is whole."""

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from certificates import Certificates
from client_helpers import HOST, Servers, calcc, echo
from helpers import TIMEOUT, Daemons, connect_with_little_room, read_all

MUCH = b"".join(b"%0127d\n" % number for number in range(1 << 16))  # 8 MiB
A_MOMENT = 0.3  # seconds, in which a client fills what is between it and a server


def late_echo(connection: socket.socket) -> None:
    """Let everything fill up before anything is read; then send back what comes."""
    time.sleep(A_MOMENT)
    echo(connection)


def test_the_relay_goes_on_after_a_full_send_buffer(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        late_echo(connection)

    done = calcc(HOST, serve(script), stdin=MUCH)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == MUCH


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_relay_goes_on_after_a_full_send_buffer_over_tls(
    version: ssl.TLSVersion, serve: Servers, certificates: Certificates
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(certificates.server.cert, certificates.server.key)

    def script(plain: socket.socket) -> None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        with context.wrap_socket(plain, server_side=True) as connection:
            late_echo(connection)
            connection.unwrap()

    trusted = ("--ssl-trustfile", certificates.authority.cert)
    done = calcc(*trusted, HOST, serve(script), stdin=MUCH)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == MUCH


@pytest.mark.parametrize("size", [300, 1000])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_reply_is_lost_where_the_serving_loop_finds_no_room_for_it(
    start_daemon: Daemons, tmp_path: Path, kind: str, size: int
) -> None:
    """The requests come one by one, so that each reply is a send of its own.

    A TCP socket takes part of a reply where there is little room, a Unix socket all or nothing.
    """
    path, count = tmp_path / "calcd.sock", 300
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "-l", f"unix://{path}")
    with (
        connect_with_little_room((daemon.host, daemon.port))
        if kind == "tcp"
        else socket.socket(socket.AF_UNIX) as client
    ):
        if kind == "unix":
            client.settimeout(TIMEOUT)
            client.connect(str(path))

        def send() -> None:
            for number in range(count):
                client.sendall(b"UPPER %06d" % number + size * b"a" + b"\n")
                time.sleep(0.001)
            client.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)  # it may have to wait until replies are read
        sending.start()
        time.sleep(2 * A_MOMENT)
        replies = read_all(client)
        sending.join()
    assert replies == b"".join(b"%06d" % number + size * b"A" + b"\n" for number in range(count))
