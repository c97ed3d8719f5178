"""Accepting under difficulties: no room in the system, clients that are gone, low limits."""

import errno
import os
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import TIMEOUT, Daemon, Daemons, ask
from listening import listening
from serving import serving


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


def test_datagrams_are_answered_while_connections_have_no_room(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "-l", "udp://127.0.0.1:0")
    udp_port = int(next(each for each in daemon.endpoints if "udp" in each).rpartition(":")[2])
    pid = daemon.process.pid
    taken = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken, taken))
    with daemon.connect(), socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        daemon.logs("limit reached: cannot accept")
        datagrams.settimeout(TIMEOUT)
        datagrams.connect((daemon.host, udp_port))
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
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
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
        with ExitStack() as open_ones:
            for _ in range(32):
                client = open_ones.enter_context(daemon.connect())
                assert ask(client, b"PING\n") == b"PONG\n"
            assert daemon.ask(b"").startswith(b"ERR BUSY ")
    finally:
        assert daemon.stop() == 0
