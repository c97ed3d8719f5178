"""Requests at the edges: the longest line, what telnet sends by itself, lines that cost much."""

import socket
import ssl
from collections.abc import Iterator

import pytest
from certificates import Certificates
from helpers import TIMEOUT, Daemon, Daemons, daemons_in

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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_follows_in_the_same_read_is_answered_under_tls(
    version: ssl.TLSVersion, start_daemon: Daemons, certificates: Certificates
) -> None:
    """An expensive line, or more records than one call has time for."""
    pair = certificates.server
    files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    endpoints = ("-l", "tls://localhost:0", "-l", "tcp://127.0.0.1:0")
    daemon = start_daemon(*endpoints, *files, "--precision", "1000")
    address = "localhost", int(daemon.endpoints[0].rpartition(":")[2])
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    trusted.minimum_version = trusted.maximum_version = version
    expensive = EXPENSIVE + b"SOMA 2 2\n" + EXPENSIVE + b"PING\n"
    sums = [b"SOMA %d 1\n" % number for number in range(1500)]
    for records in ([expensive], [expensive] * 3, sums):
        expected = daemon.ask(b"".join(records))
        # Encrypted apart from the socket, so that all records can be sent at once.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusted.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(address, TIMEOUT) as connection:
            over, received = False, b""
            while len(received) < len(expected):
                try:
                    if not over:
                        tls.do_handshake()
                        over = True
                        for record in records:
                            tls.write(record)
                    received += tls.read(1 << 16)
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(1 << 16))
        assert received == expected
