"""Unix sockets: their files before, during and after use."""

import errno
import grp
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import TIMEOUT, Daemons, read_all, run_calcd
from listening import failure, listening

from calcd.config.endpoints import parse_endpoint
from calcd.config.errors import ConfigError
from calcd.net import unixsocket
from calcd.net.listeners import Listener, check, listen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calcd.sock"


def test_a_unix_socket_is_removed_at_the_stop(start_daemon: Daemons, path: Path) -> None:
    daemon = start_daemon("-l", f"unix://{path}")
    assert daemon.endpoints == [f"unix://{path}"]
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert daemon.stop() == 0
    assert not path.exists()


def test_by_default_everybody_may_connect_to_a_unix_socket(path: Path) -> None:
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


def test_nobody_connects_before_the_group_is_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its mode from the start, and nobody can connect before listen(2)."""
    seen = []
    chown = os.chown

    def observe(name: str, uid: int, gid: int) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            seen.append((stat.S_IMODE(path.stat().st_mode), client.connect_ex(str(path))))
        chown(name, uid, gid)

    monkeypatch.setattr(os, "chown", observe)
    with listening(f"unix://{path}?mode=0660&group={os.getegid()}"):
        assert seen == [(0o660, errno.ECONNREFUSED)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory to any group")
@pytest.mark.parametrize(("query", "gid"), [("", 1234), ("&group=54321", 54321)])
def test_a_directory_that_gives_its_group_changes_no_mode(path: Path, query: str, gid: int) -> None:
    os.chown(path.parent, -1, 1234)
    path.parent.chmod(0o2755)
    with listening(f"unix://{path}?mode=0640{query}"):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, gid)


@pytest.mark.parametrize("query", ["", f"&group={os.getegid()}"])
def test_a_default_acl_changes_no_mode(path: Path, query: str) -> None:
    try:
        os.setxattr(path.parent, "system.posix_acl_default", default_acl(7, 0, 0))
    except OSError as error:
        pytest.skip(f"no ACL can be set here: {error}")
    with listening(f"unix://{path}?mode=0660{query}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def default_acl(user: int, group: int, other: int) -> bytes:
    """Return an ACL in Linux's format: version, then tag, permissions and id of each entry."""
    entries = [(0x01, user), (0x04, group), (0x20, other)]
    packed = (struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in entries)
    return struct.pack("<I", 2) + b"".join(packed)


# The daemon's user owns the directory, and replaces the socket


def link_to(victim: Path, path: Path) -> None:
    path.unlink()
    path.symlink_to(victim)


def victim_itself(victim: Path, path: Path) -> None:
    victim.rename(path)


def another_name(_: Path, path: Path) -> None:
    path.with_name("other").hardlink_to(path)


def nothing(_: Path, path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("replace", [link_to, victim_itself, another_name, nothing])
@pytest.mark.parametrize("query", ["mode=0606", f"mode=0660&group={os.getegid()}"])
def test_a_file_that_replaces_the_socket_is_not_changed(
    replace: Callable[[Path, Path], None], query: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = path.with_name("victim")
    url = f"unix://{path}?{query}"

    class Swapped(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(address)  # type: ignore[arg-type]
            replace(victim, path)

    with victim.open("w") as file:
        victim.chmod(0o600)
        before = access_of(os.fstat(file.fileno()))
        monkeypatch.setattr(socket, "socket", Swapped)
        assert failure(url) == (
            f"listen: cannot listen on {url}: another process replaced the new socket file: "
            "check who may write to its directory"
        )
        assert access_of(os.fstat(file.fileno())) == before


def access_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


# Replaces each new socket with a link to the victim, in a loop.
RACER = """
import os, stat, sys
path, victim, link, uid = sys.argv[1:]
os.setuid(int(uid))
print(flush=True)
while True:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.symlink(victim, link)
            os.rename(link, path)
    except FileNotFoundError:
        pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change what is another's")
@pytest.mark.parametrize("query", ["mode=0606", "mode=0660&group=54321"])
def test_a_race_for_the_socket_changes_no_other_file(query: str) -> None:
    directory = Path(tempfile.mkdtemp(prefix="calcd-test-"))  # in tmp_path only root may go
    victim, path = directory / "victim", directory / "run" / "sock"
    try:
        directory.chmod(0o755)
        victim.touch(mode=0o600)
        before = access_of(victim.stat())
        path.parent.mkdir()
        os.chown(path.parent, 65534, 65534)
        arguments = map(str, (path, victim, path.with_name("link"), 65534))
        with subprocess.Popen(
            [sys.executable, "-c", RACER, *arguments], stdout=subprocess.PIPE
        ) as racer:
            try:
                assert racer.stdout
                racer.stdout.readline()
                for _ in range(1000):
                    with suppress(ConfigError):
                        for listener in listen([parse_endpoint(f"unix://{path}?{query}")])[0]:
                            listener.close()
                    assert access_of(victim.stat()) == before
                    path.unlink(missing_ok=True)
                assert racer.poll() is None
            finally:
                racer.kill()
    finally:
        shutil.rmtree(directory)


def test_a_group_without_proc_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unixsocket, "_DESCRIPTORS", str(path.parent / "none"))
    with listening(f"unix://{path}?mode=0660"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    url = f"unix://{path}?mode=0660&group={os.getegid()}"
    told = (
        f"listen: cannot listen on {url}: "
        "mode and group of a socket cannot be set without /proc: mount it"
    )
    assert failure(url) == told
    with pytest.raises(ConfigError, match=re.escape(told)):
        check(parse_endpoint(url), reuse_port=False)
    assert not path.exists()


def test_a_link_in_place_of_the_socket_is_not_connected_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root does not follow a link that the directory's owner has just created."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    elsewhere = path.with_name("elsewhere")

    class Swapped(socket.socket):
        def connect_ex(self, address: object) -> int:
            link_to(elsewhere, path)
            return super().connect_ex(address)  # type: ignore[arg-type]

    with socket.socket(socket.AF_UNIX) as victim:
        victim.bind(str(elsewhere))
        victim.listen()
        victim.setblocking(False)
        monkeypatch.setattr(socket, "socket", Swapped)
        check(parse_endpoint(f"unix://{path}"), reuse_port=False)
        with pytest.raises(BlockingIOError):
            victim.accept()


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
def test_a_group_that_does_not_exist_is_an_error(path: Path, group: str) -> None:
    url = f"unix://{path}?mode=0660&group={group}"
    told = (
        f"listen: cannot listen on {url}: "
        f"there is no group '{group}': make it first, or name another"
    )
    assert failure(url) == told
    with pytest.raises(ConfigError, match=re.escape(told)):
        check(parse_endpoint(url), reuse_port=False)
    assert not path.exists()


def test_a_group_of_others_is_an_error_and_no_file_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", chown)
    url = f"unix://{path}?mode=0660&group=54321"
    told = (
        f"listen: cannot listen on {url}: "
        "only root or a member of group '54321' can give it the socket: name another"
    )
    assert failure(url) == told
    assert not path.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check(parse_endpoint(url), reuse_port=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match=re.escape(told)):
        check(parse_endpoint(url), reuse_port=False)


def test_a_stale_unix_socket_is_replaced(start_daemon: Daemons, path: Path) -> None:
    daemon = start_daemon("-l", f"unix://{path}")
    daemon.process.kill()
    daemon.process.wait(TIMEOUT)
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
        f"calcd: --listen: cannot listen on unix://{path}: Address already in use: "
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
        f"listen: cannot listen on unix://{path}: the file exists and is not a socket: "
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


def test_a_missing_directory_is_an_error(path: Path) -> None:
    url = f"unix://{path.parent}/none/sock"
    assert failure(url) == (
        f"listen: cannot listen on {url}: No such file or directory: make its directory first"
    )


def test_a_path_that_is_too_long_is_a_wrong_setting(tmp_path: Path) -> None:
    ended = run_calcd("-l", f"unix://{tmp_path}/{'x' * 107}")
    assert ended.returncode == 2
    assert ended.stderr.endswith("expected unix:// and an absolute path of at most 107 bytes\n")


def test_an_inherited_abstract_socket_is_written_with_an_at() -> None:
    name = f"calcd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        sock.listen()
        listener = Listener(sock, inherited=True)
        assert str(listener.endpoint) == f"unix://@{name}"
        listener.close()


def test_the_file_of_an_inherited_socket_stays(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        Listener(sock, inherited=True).close()
    assert path.exists()
