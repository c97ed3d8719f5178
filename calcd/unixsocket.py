"""Unix sockets: files that are made, taken over when they are stale, and checked."""

import errno
import os
import socket
import stat
from contextlib import ExitStack

_MODE = 0o666  # as open as a port: its directory is what keeps people out


def bind(path: str) -> socket.socket:
    """Make a socket with a file, in place of a stale one."""
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        if _is_stale(path):
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, _MODE)
        undo.pop_all()
    return sock


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


def check(path: str) -> None:
    """Raise the OSError that would keep a socket from being made there."""
    _is_stale(path)
    directory = os.path.dirname(path)
    os.stat(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
