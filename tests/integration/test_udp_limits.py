"""Datagrams at their limits: those that ask too much, and answers that just fit."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import TIMEOUT, Daemon, Daemons

# A daemon for which any datagram asks too much that is not answered at once.
EASILY_TOO_MUCH = """
import sys, calcd.daemon.main, calcd.core.datagram
calcd.core.datagram._DATAGRAM_LIMIT = 1
sys.exit(calcd.daemon.main.main())
"""


@contextmanager
def datagrams_to(daemon: Daemon) -> Iterator[socket.socket]:
    """Give a socket for datagrams to a daemon."""
    port = int(next(each for each in daemon.endpoints if "udp" in each).rpartition(":")[2])
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", port))
        yield client


def test_after_datagrams_that_ask_too_much_others_are_still_answered(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EASILY_TOO_MUCH, "-l", "udp://127.0.0.1:0"]
    daemon = Daemon(command, tmp_path / "daemon.log")
    too_much = b"PRECISION 1000\n" + 60 * b"EXP 0.1234\n"
    large = 40 * b"SOMA 0000000002 2\n"  # so that it is answered by a thread as well
    assert len(large) > 512
    try:
        with datagrams_to(daemon) as client:
            for _ in range(10):
                client.send(too_much)
                client.send(large)
                assert client.recv(1 << 16) == 40 * b"4\n"
    finally:
        assert daemon.stop() == 0
    assert "datagrams dropped: it costs too much" in daemon.log
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize(("digits", "fits"), [(611, True), (612, False)])
def test_an_answer_that_just_fits_is_not_cut(
    start_daemon: Daemons, digits: int, fits: bool
) -> None:
    """The answer to a small datagram has at most 1232 bytes."""
    daemon = start_daemon("-l", "udp://127.0.0.1:0")
    with datagrams_to(daemon) as client:
        client.send(b"PRECISION %d\nDIV 1 3\nDIV 1 3\n" % digits)
        answer = client.recv(1 << 16)
    a_third = b"0." + digits * b"3" + b"\n"
    whole = b"%d\n" % digits + 2 * a_third
    assert len(whole) == (1232 if fits else 1234)
    assert (answer == whole) == fits
    assert answer.startswith(b"%d\n" % digits + a_third)
    assert (b"ERR REPLY-TOO-LONG " in answer) != fits
