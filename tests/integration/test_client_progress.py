"""Progress of calcc, on a terminal that nothing else is written to."""

import os
import re
import socket
import sys
import threading
from pathlib import Path

import client_helpers
import pytest
from client_helpers import CTRL_D, HOST, Script, Servers, calcc, receive, terminal
from helpers import ROOT, TIMEOUT, read_all, wait_until

from calcd.client import progress

COUNT = 1000
REQUESTS = b"SOMA 2 2\n" * COUNT
REPLIES = b"4\n" * COUNT


@pytest.fixture
def files(tmp_path: Path) -> str:
    """Return the redirections from a file of requests and to a file of replies."""
    (tmp_path / "requests").write_bytes(REQUESTS)
    return f"<{tmp_path}/requests >{tmp_path}/replies"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show progress from the start, where it may be shown."""
    script = "import sys; from calcd.client import cli, progress; progress.PROGRESS_AFTER = -1; "
    command = [sys.executable, "-c", script + "sys.exit(cli.main())"]
    monkeypatch.setattr(client_helpers, "COMMAND", command)


@pytest.fixture
def no_tqdm(tmp_path: Path) -> str:
    """Return a PYTHONPATH with a tqdm that cannot be imported."""
    directory = tmp_path / "path"
    directory.mkdir()
    (directory / "tqdm.py").write_text("raise ImportError")
    return os.pathsep.join([str(directory), str(ROOT)])


@pytest.fixture
def bad_tqdm(no_tqdm: str) -> str:
    """Return a PYTHONPATH with a tqdm that must not be imported at all."""
    (Path(no_tqdm.split(os.pathsep)[0]) / "tqdm.py").write_text("raise RuntimeError")
    return no_tqdm


def all_at_once(connection: socket.socket) -> None:
    receive(connection, REQUESTS)
    connection.sendall(REPLIES)
    read_all(connection)


def half_after(seconds: float, seen: threading.Event) -> Script:
    """Answer half of the requests after a while, and the rest when that was seen."""

    def script(connection: socket.socket) -> None:
        receive(connection, REQUESTS)
        assert not seen.wait(seconds)
        connection.sendall(REPLIES[:COUNT])
        assert seen.wait(TIMEOUT)
        connection.sendall(REPLIES[COUNT:])
        read_all(connection)

    return script


def test_a_long_run_shows_how_much_is_answered(serve: Servers, files: str, tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    seen = threading.Event()
    port = serve(half_after(1.1, seen))
    with terminal(tmp_path, HOST, port, redirect=files) as screen:
        screen.expect("50%")
        screen.expect("4.50k/9.00k [")
        assert re.fullmatch(r"\d\d:\d\d<\d\d:\d\d, .+", screen.expect("B/s]"))
        seen.set()
        screen.expect("100%")
        assert screen.end() == 0
        assert screen.screen.endswith(b"B/s]\r\n")
    assert (tmp_path / "replies").read_bytes() == REPLIES


def test_without_tqdm_nothing_is_shown(
    serve: Servers, files: str, no_tqdm: str, tmp_path: Path
) -> None:
    seen = threading.Event()
    port = serve(half_after(1.1, seen))
    with terminal(tmp_path, HOST, port, redirect=files, PYTHONPATH=no_tqdm) as screen:
        replies = tmp_path / "replies"
        wait_until(lambda: replies.exists() and replies.stat().st_size == COUNT, "half of them")
        seen.set()
        assert screen.end() == 0
        assert screen.screen == b""
    assert replies.read_bytes() == REPLIES


def test_a_short_run_does_not_import_tqdm(
    serve: Servers, files: str, bad_tqdm: str, tmp_path: Path
) -> None:
    port = serve(all_at_once)
    with terminal(tmp_path, HOST, port, redirect=files, PYTHONPATH=bad_tqdm) as screen:
        assert screen.end() == 0
        assert screen.screen == b""
    assert (tmp_path / "replies").read_bytes() == REPLIES


@pytest.mark.usefixtures("at_once")
def test_input_from_a_pipe_has_no_known_size(serve: Servers, tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    os.mkfifo(tmp_path / "fifo")
    redirect = f"<{tmp_path}/fifo >/dev/null"
    with terminal(tmp_path, HOST, serve(all_at_once), redirect=redirect) as screen:
        (tmp_path / "fifo").write_bytes(REQUESTS)
        screen.expect("9.00kB [00:0")
        assert screen.end() == 0
        assert b"%" not in screen.screen


def test_the_size_is_that_of_the_unread_part(tmp_path: Path) -> None:
    (tmp_path / "requests").write_bytes(REQUESTS)
    with (tmp_path / "requests").open("rb", buffering=0) as requests:
        assert progress.bytes_left(requests.fileno()) == len(REQUESTS)
        requests.read(100)
        assert progress.bytes_left(requests.fileno()) == len(REQUESTS) - 100


@pytest.mark.usefixtures("at_once")
def test_an_error_message_has_a_line_of_its_own(serve: Servers, files: str, tmp_path: Path) -> None:
    pytest.importorskip("tqdm")

    def script(connection: socket.socket) -> None:
        receive(connection, REQUESTS)
        connection.sendall(REPLIES[:COUNT])

    with terminal(tmp_path, HOST, serve(script), redirect=files) as screen:
        screen.expect("50%")
        screen.expect(f"\ncalcc: {HOST} port ")
        screen.expect("requests with a reply: 500, none from line 501 on\n")
        assert screen.end() == 3


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("redirect", ["<{}/requests", "<{}/requests >{}/fifo", ">{}/replies"])
def test_no_progress_is_shown_among_other_output(
    redirect: str, serve: Servers, files: str, bad_tqdm: str, tmp_path: Path
) -> None:
    """Other output may be replies, the output of a pipe's reader, or the echo of the input."""
    assert files
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        redirect = redirect.replace("{}", str(tmp_path))
        port = serve(all_at_once)
        with terminal(tmp_path, HOST, port, redirect=redirect, PYTHONPATH=bad_tqdm) as screen:
            if "requests" not in redirect:
                for _ in range(10):
                    screen.type(REQUESTS[: len(REQUESTS) // 10])
                screen.type(CTRL_D)
            assert screen.end() == 0
            assert b"Traceback" not in screen.screen
            assert b"%" not in screen.screen
    finally:
        os.close(reader)


@pytest.mark.usefixtures("at_once")
def test_no_progress_is_shown_in_a_pipe(serve: Servers, files: str, bad_tqdm: str) -> None:
    source, target = (part[1:] for part in files.split())
    with open(source, "rb") as requests, open(target, "wb") as replies:
        where = HOST, serve(all_at_once)
        command = client_helpers.COMMAND
        done = calcc(*where, stdin=requests, stdout=replies, command=command, PYTHONPATH=bad_tqdm)
    assert (done.stderr, done.returncode) == (b"", 0)
