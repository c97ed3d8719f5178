"""Unix sockets: the file of one, before, while and after it is listened on."""

import errno
import grp
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PATIENCE, Daemons, read_all, run_calcd
from listening import failure, listening

from calcd import unixsocket
from calcd.endpoints import parse_endpoint
from calcd.listeners import Listener, check


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calcd.sock"


def test_a_unix_socket_is_removed_at_the_stop(start_daemon: Daemons, path: Path) -> None:
    daemon = start_daemon("-l", f"unix://{path}")
    assert daemon.endpoints == [f"unix://{path}"]
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert daemon.stop() == 0
    assert not path.exists()


def test_everybody_who_gets_to_a_unix_socket_may_connect(path: Path) -> None:
    with listening(f"unix://{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o000, 0o600, 0o660, 0o666, 0o777])
def test_a_unix_socket_has_the_mode_that_was_asked_for(path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listening(f"unix://{path}?mode={mode:04o}") as (listener,):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert listener.endpoint.mode == mode
    finally:
        os.umask(before)
    assert not path.exists()


def test_a_unix_socket_is_never_more_open_than_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done to its file is done while nobody may connect, and the mode comes last."""
    seen = []

    def look(function: Callable[..., None]) -> Callable[..., None]:
        def looking(*arguments: object, **options: object) -> None:
            seen.append((function.__name__, stat.S_IMODE(path.stat().st_mode)))
            function(*arguments, **options)

        return looking

    for function in (os.chown, os.chmod):
        monkeypatch.setattr(os, function.__name__, look(function))
    before = os.umask(0)
    try:
        with listening(f"unix://{path}?mode=0660&group={os.getegid()}"):
            assert seen == [("chown", 0), ("chmod", 0)]
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
@pytest.mark.parametrize("group", [grp.getgrall()[-1].gr_name, "54321"])
def test_a_unix_socket_has_the_group_that_was_asked_for(
    start_daemon: Daemons, path: Path, group: str
) -> None:
    url = f"unix://{path}?mode=0660&group={group}"
    daemon = start_daemon("-l", url)
    assert daemon.endpoints == [url]
    daemon.logs(rf"settings in force: listen={re.escape(url)} ")
    status = path.stat()
    gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, gid, 0o660)


@pytest.mark.parametrize("group", ["no-such-group", "4294967295", "9" * 32])
def test_a_group_that_does_not_exist_is_told(path: Path, group: str) -> None:
    url = f"unix://{path}?mode=0660&group={group}"
    told = f"cannot listen on {url}: there is no group '{group}': make it first, or name another"
    assert failure(url) == told
    assert check(parse_endpoint(url), reuse_port=False) == told
    assert not path.exists()


def test_a_group_of_others_is_told_and_no_file_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    url = f"unix://{path}?mode=0660&group=54321"
    told = (
        f"cannot listen on {url}: "
        "only root or a member of group '54321' can give it the socket: name another"
    )
    assert failure(url) == told
    assert check(parse_endpoint(url), reuse_port=False) == told
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(start_daemon: Daemons, path: Path) -> None:
    daemon = start_daemon("-l", f"unix://{path}")
    daemon.process.kill()
    daemon.process.wait(PATIENCE)
    assert path.exists()
    start_daemon("-l", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"PING\nQUIT\n")
        assert read_all(client) == b"PONG\nBYE\n"


def test_a_live_unix_socket_is_left_alone(start_daemon: Daemons, path: Path) -> None:
    start_daemon("-l", f"unix://{path}")
    ended = run_calcd("-l", f"unix://{path}")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"calcd: cannot listen on unix://{path}: Address already in use: "
        "stop the program that listens there, or choose another endpoint\n"
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_unix_socket_whose_backlog_is_full_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        assert "Address already in use" in failure(f"unix://{path}")


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("elsewhere")])
def test_a_file_that_is_no_socket_is_never_removed(
    path: Path, make: Callable[[Path], object]
) -> None:
    make(path)
    assert failure(f"unix://{path}") == (
        f"cannot listen on unix://{path}: a file of that name is there that is no socket: "
        "remove it or choose another path"
    )
    assert os.path.lexists(path)


def test_a_socket_that_has_replaced_ours_is_not_removed(path: Path) -> None:
    with listening(f"unix://{path}") as (ours,):
        path.unlink()
        with listening(f"unix://{path}") as (other,):
            ours.close()
            assert path.exists()
            ours.close()
            assert path.exists()
            other.close()
            assert not path.exists()


def test_a_second_close_removes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a file that has got the inode number of ours, once that was free."""
    with listening(f"unix://{path}") as (ours,):
        identity = unixsocket.identity(str(path))
        ours.close()
        path.touch()
        monkeypatch.setattr(unixsocket, "identity", lambda _: identity)
        ours.close()
        assert path.exists()


def test_a_socket_file_that_is_gone_already_is_not_missed(path: Path) -> None:
    with listening(f"unix://{path}"):
        path.unlink()


def test_a_directory_that_is_missing_is_told(path: Path) -> None:
    url = f"unix://{path.parent}/none/sock"
    assert failure(url) == (
        f"cannot listen on {url}: No such file or directory: make its directory first"
    )


def test_a_path_that_is_too_long_is_told_with_the_settings(tmp_path: Path) -> None:
    ended = run_calcd("-l", f"unix://{tmp_path}/{'x' * 107}")
    assert ended.returncode == 2
    assert ended.stderr.endswith("expected unix:// and an absolute path of at most 107 bytes\n")


def test_an_abstract_socket_that_was_handed_over_is_written_with_an_at() -> None:
    name = f"calcd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        sock.listen()
        listener = Listener(sock, inherited=True)
        assert str(listener.endpoint) == f"unix://@{name}"
        listener.close()


def test_the_file_of_a_socket_that_was_handed_over_stays(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        Listener(sock, inherited=True).close()
    assert path.exists()
