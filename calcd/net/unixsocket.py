"""Unix sockets: files that are made, taken over when they are stale, and checked.

The daemon's user may own the directory, and put something else in a socket's place at any time.
Root changes a file only through a descriptor of it, opened without following a link.
"""

import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from calcd.config.endpoints import Endpoint

_NO_GID = (1 << 32) - 1  # stands for: leave the group as it is
_DESCRIPTORS = "/proc/self/fd"  # has a name for each descriptor: proc_pid_fd(5)


def bind(endpoint: Endpoint) -> socket.socket:
    """Return a socket bound to a file that has the endpoint's mode and group exactly.

    It takes the place of a stale one. Call it before any thread is started: the umask is the
    process's. Raise ``OSError`` where it fails; no file is left then.
    """
    path, group = endpoint.path, endpoint.group
    gid = _gid_of(group) if group else _NO_GID
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        if _is_stale(path):
            os.unlink(path)
        # Linux makes the file with the socket's mode less the umask. Nobody can connect yet:
        # that is for listen(2) to allow.
        os.fchmod(sock.fileno(), endpoint.mode)
        umask = os.umask(0)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        with suppress(FileNotFoundError), _descriptor(path) as file:
            if _is_ours(file):
                undo.callback(os.unlink, path)
                _set_access(file, endpoint, gid)
                undo.pop_all()
                return sock
        raise OSError(errno.ESTALE, "somebody replaced the socket when it had just been made")


@contextmanager
def _descriptor(path: str) -> Iterator[int]:
    """Give a descriptor of what is at ``path``: of the link, if it is one."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_ours(file: int) -> bool:
    """Tell whether a file is a socket of this user with one name."""
    status = os.fstat(file)
    ours = status.st_uid == os.geteuid() and status.st_nlink == 1
    return ours and stat.S_ISSOCK(status.st_mode)


def _set_access(file: int, endpoint: Endpoint, gid: int) -> None:
    """Give the file its group, and its mode where a default ACL of its directory changed that."""
    # fchown(2) and fchmod(2) do not take an O_PATH descriptor (open(2)); this name leads to its
    # file, whatever is at the path by now.
    name = f"{_DESCRIPTORS}/{file}"
    try:
        if endpoint.group:
            os.chown(name, -1, gid)
        if stat.S_IMODE(os.fstat(file).st_mode) != endpoint.mode:
            os.chmod(name, endpoint.mode)
    except PermissionError:
        raise _not_a_member(endpoint.group) from None
    except FileNotFoundError:
        raise _without_proc() from None


def _gid_of(group: str) -> int:
    """Look up a group by name, or take its number."""
    if group.isascii() and group.isdigit():
        if int(group) < _NO_GID:
            return int(group)
    else:
        with suppress(KeyError):
            return grp.getgrnam(group).gr_gid
    raise OSError(errno.EINVAL, f"there is no group '{group}': make it first, or name another")


def _not_a_member(group: str) -> PermissionError:
    words = f"only root or a member of group '{group}' can give it the socket: name another"
    return PermissionError(errno.EPERM, words)


def _without_proc() -> OSError:
    return OSError(errno.ENOSYS, "mode and group of a socket cannot be set without /proc: mount it")


def _is_stale(path: str) -> bool:
    """Tell whether a socket file is there that nobody listens on any more."""
    try:
        with _descriptor(path) as file, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not stat.S_ISSOCK(os.fstat(file).st_mode):
                words = "a file of that name is there that is no socket"
                raise FileExistsError(errno.EEXIST, words)
            probe.setblocking(False)  # a live daemon with a full backlog is alive too
            return probe.connect_ex(f"{_DESCRIPTORS}/{file}") == errno.ECONNREFUSED
    except FileNotFoundError:
        return False


def identity(path: str) -> tuple[int, int] | None:
    """Tell files apart that had the same name one after the other; None: there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check(endpoint: Endpoint) -> None:
    """Raise the OSError that would keep a socket from being made there."""
    _is_stale(endpoint.path)
    directory = os.path.dirname(endpoint.path)
    os.stat(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if endpoint.group:
        gid = _gid_of(endpoint.group)
        if os.geteuid() != 0 and gid not in {os.getegid(), *os.getgroups()}:
            raise _not_a_member(endpoint.group)
        if not os.path.isdir(_DESCRIPTORS):
            raise _without_proc()
