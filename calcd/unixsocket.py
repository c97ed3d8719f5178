"""Unix sockets: files that are made, taken over when they are stale, and checked."""

import errno
import grp
import os
import socket
import stat
from contextlib import ExitStack, suppress

from calcd.endpoints import Endpoint

_NO_GID = (1 << 32) - 1  # stands for: leave the group as it is


def bind(endpoint: Endpoint) -> socket.socket:
    """Make a socket with a file, in place of a stale one."""
    path, group = endpoint.path, endpoint.group
    gid = _gid_of(group) if group else _NO_GID
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        if _is_stale(path):
            os.unlink(path)
        # The file is made with the socket's mode, whatever the umask: at first nobody may
        # connect, and the group is the right one before anybody may.
        os.fchmod(sock.fileno(), 0)
        sock.bind(path)
        undo.callback(os.unlink, path)
        if group:
            try:
                os.chown(path, -1, gid, follow_symlinks=False)
            except PermissionError:
                raise _not_a_member(group) from None
        os.chmod(path, endpoint.mode)
        undo.pop_all()
    return sock


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


def _is_stale(path: str) -> bool:
    """Tell whether a socket file is there that nobody listens on any more."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file of that name is there that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live daemon with a full backlog is alive too
        return probe.connect_ex(path) == errno.ECONNREFUSED


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
