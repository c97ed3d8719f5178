"""Unix sockets: create the file, replace a stale one, check beforehand.

The daemon's user may own the directory, and replace the file at any time. So root changes the
file only through a descriptor that was opened without following a link.
"""

import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from calcd.config.endpoints import Endpoint
from calcd.config.errors import ConfigError

_NO_GID = (1 << 32) - 1  # chown(2): leave the group unchanged
_DESCRIPTORS = "/proc/self/fd"  # a link for each descriptor: proc_pid_fd(5)
# Reasons of errors, for ``format`` with the endpoint, and hints.
_NO_GROUP = "there is no group '{0.group}'", "make it first, or name another"
_NOT_A_MEMBER = "only root or a member of group '{0.group}' can give it the socket", "name another"
_NO_PROC = "mode and group of a socket cannot be set without /proc", "mount it"


def bind(endpoint: Endpoint) -> socket.socket:
    """Return a socket bound to a file with exactly the endpoint's mode and group.

    A stale file is replaced. Call this before any thread starts: the umask belongs to the
    process. Raise ``OSError`` or ``ConfigError`` on failure; no file is left then.
    """
    path = endpoint.path
    gid = _gid_of(endpoint) if endpoint.group else _NO_GID
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        if _is_stale(path):
            os.unlink(path)
        # Linux creates the file with the socket's mode less the umask. Nobody can connect before
        # listen(2).
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
        raise OSError(errno.ESTALE, "another process replaced the new socket file")


def check(endpoint: Endpoint) -> None:
    """Raise ``OSError`` or ``ConfigError`` if a socket cannot be created there."""
    _is_stale(endpoint.path)
    directory = os.path.dirname(endpoint.path)
    os.stat(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if endpoint.group:
        gid = _gid_of(endpoint)
        if os.geteuid() != 0 and gid not in {os.getegid(), *os.getgroups()}:
            raise _error(endpoint, *_NOT_A_MEMBER)
        if not os.path.isdir(_DESCRIPTORS):
            raise _error(endpoint, *_NO_PROC)


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, which tell it from a later one; None: no file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _descriptor(path: str) -> Iterator[int]:
    """Yield a descriptor of the file at ``path``; of a link itself, not of its target."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_ours(file: int) -> bool:
    """Return True for a socket of this user without a second hard link."""
    status = os.fstat(file)
    ours = status.st_uid == os.geteuid() and status.st_nlink == 1
    return ours and stat.S_ISSOCK(status.st_mode)


def _is_stale(path: str) -> bool:
    """Return True for a socket file on which no process listens."""
    try:
        with _descriptor(path) as file, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not stat.S_ISSOCK(os.fstat(file).st_mode):
                raise FileExistsError(errno.EEXIST, "the file exists and is not a socket")
            probe.setblocking(False)  # with a full backlog connect() blocks: not stale either
            return probe.connect_ex(f"{_DESCRIPTORS}/{file}") == errno.ECONNREFUSED
    except FileNotFoundError:
        return False


def _set_access(file: int, endpoint: Endpoint, gid: int) -> None:
    """Set the file's group; set its mode again if the directory's default ACL changed it."""
    # fchown(2) and fchmod(2) refuse an O_PATH descriptor (open(2)). Its name in /proc leads to
    # the same file, even if another file is at the path by now.
    name = f"{_DESCRIPTORS}/{file}"
    try:
        if endpoint.group:
            os.chown(name, -1, gid)
        if stat.S_IMODE(os.fstat(file).st_mode) != endpoint.mode:
            os.chmod(name, endpoint.mode)
    except PermissionError:
        raise _error(endpoint, *_NOT_A_MEMBER) from None
    except FileNotFoundError:
        raise _error(endpoint, *_NO_PROC) from None


def _gid_of(endpoint: Endpoint) -> int:
    """Return the number of the endpoint's group, which is given by name or number."""
    group = endpoint.group
    if group.isascii() and group.isdigit():
        if int(group) < _NO_GID:
            return int(group)
    else:
        with suppress(KeyError):
            return grp.getgrnam(group).gr_gid
    raise _error(endpoint, *_NO_GROUP)


def _error(endpoint: Endpoint, reason: str, hint: str) -> ConfigError:
    reason = f"cannot listen on {endpoint}: {reason.format(endpoint)}"
    return ConfigError(reason, hint, setting="listen")
