"""Bytes that no honest client sends: to the core by the thousand, and to a live daemon."""

import importlib.util
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from helpers import ALL_JOBS, Daemon, Daemons, clean_environment, read_all, wait_until
from hostile_clients import Usage
from hypothesis import given, settings
from hypothesis import strategies as st
from service import Report

from tests.fuzz.streams import (
    MAX_LINE,
    check,
    check_proxied,
    mutated,
    random_header,
    random_stream,
    replies_due,
)

CONNECTIONS, AT_ONCE = 3000, 8


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_get_what_is_due_however_they_are_cut(stream: bytes) -> None:
    check(stream)


@settings(max_examples=500)
@given(st.integers(0, 1 << 32))
def test_requests_gone_wrong_get_what_is_due_however_they_are_cut(seed: int) -> None:
    check(random_stream(Random(seed)))


@settings(max_examples=500)
@given(st.integers(0, 1 << 32), st.integers(0, 2))
def test_any_bytes_of_a_proxy_get_what_is_due_however_they_are_cut(seed: int, times: int) -> None:
    random = Random(seed)
    header = random_header(random)
    for _ in range(times):
        header = mutated(random, header)
    check_proxied(header, random_stream(random))


def run_fuzz(directory: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *options],
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=50,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_the_command_gives_the_same_streams_for_a_seed(tmp_path: Path) -> None:
    assert "300 streams from --seed 7: no fault" in run_fuzz(tmp_path, "300", "--seed", "7")


def test_streams_that_atheris_finds_get_what_is_due(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: there is none for this Python or machine")
    # Where a stream finds a fault, atheris leaves it in the directory that it runs in.
    told = run_fuzz(tmp_path, "10000", "--guided")
    assert "Done 10000 runs" in told
    covered = [int(edges) for edges in re.findall(r"cov: (\d+)", told)]
    assert covered[-1] > covered[0]  # it sees where the streams lead


def converse(daemon: Daemon, seed: int, behind_proxy: bool) -> None:
    """Send a stream, cut anywhere; look at what comes back, or leave without doing so."""
    random = Random(seed)
    requests = stream = random_stream(random)
    if behind_proxy:
        stream = random_header(random) + stream
    with daemon.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = 0
        while begin < len(stream):
            end = begin + random.randrange(1, 60)
            try:
                connection.sendall(stream[begin:end])
            except ConnectionError:  # it may have ended the session before, and have gone
                return
            begin = end
        if (leaving := random.randrange(10)) == 0:  # with a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif leaving > 1:
            connection.shutdown(socket.SHUT_WR)
            replies = read_all(connection)
            assert b"ERR INTERNAL" not in replies, (seed, replies)
            assert replies == b"" or replies.endswith(b"\n"), (seed, replies)
            assert replies_due(requests) in (None, replies.count(b"\n")), (seed, replies)


@pytest.mark.parametrize(
    ("code", "behind_proxy"),
    [("", False), ("", True), (ALL_JOBS, False)],
    ids=["as it is", "behind a proxy", "by workers"],
)
def test_a_live_daemon_withstands_thousands_of_such_clients(
    start_daemon: Daemons, report: Report, code: str, behind_proxy: bool
) -> None:
    # Without an answer to silence: what a machine takes its time for would be one.
    options = ("--max-line", str(MAX_LINE), "--message-wait", "0", "--workers", "1")
    proxies = "127.0.0.0/8" if behind_proxy else ""
    header = b"PROXY UNKNOWN\r\n" if behind_proxy else b""
    daemon = start_daemon(*options, "--proxy-protocol-from", proxies, code=code)
    assert daemon.ask(header + b"SOMA 2 2\n") == b"4\n"  # by then it has its worker
    before = Usage.of(daemon)

    def all_converse(seeds: Iterable[int]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as clients:
            for each in [clients.submit(converse, daemon, seed, behind_proxy) for seed in seeds]:
                each.result()

    all_converse(range(CONNECTIONS // 3))  # until it has what it needs at the most
    meanwhile = Usage.of(daemon)
    all_converse(range(CONNECTIONS // 3, CONNECTIONS))
    assert daemon.ask(header + b"SOMA 2 2\n") == b"4\n"
    grown = Usage.of(daemon).memory - meanwhile.memory
    report(f"{CONNECTIONS} connections; memory grew by {grown} KiB after the first third")
    assert grown < 4096
    wait_until(lambda: Usage.of(daemon).is_back_at(before), "what they had to be given back")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
    assert " a bug" not in daemon.log
