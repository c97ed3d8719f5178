"""The pidfile: held by flock(2), so that a dead process cannot hold it."""

import errno
import fcntl
import os

from calcd.errors import StartError
from calcd.owner import Owner


class PidfileError(StartError):
    """A pidfile that cannot be had; as text, why, and what to do."""


class Pidfile:
    """A pidfile that this process holds, and its children with it, until ``remove``.

    What an earlier daemon left in it does not matter: only the lock tells whether one runs.
    """

    def __init__(self, path: str, owner: Owner | None = None) -> None:
        """Take the pidfile; raise ``PidfileError`` where another process holds it.

        Its directory is made where it is missing (/run is empty after a boot), and given to
        ``owner``, who is to remove the file in the end.
        """
        self.path = path
        try:
            _make_directory(os.path.dirname(path), owner)
            self.fd = _locked(path)
        except OSError as error:
            as_root = "start calcd as root, or " if error.errno == errno.EACCES else ""
            raise PidfileError(
                f"cannot write the pidfile {path}: {error.strerror}: "
                f"{as_root}name another with --pidfile"
            ) from None

    def write(self) -> None:
        """Put this process's pid into it."""
        try:
            os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise PidfileError(f"cannot write the pidfile {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """Remove it; where the directory does not let us, leave it empty."""
        try:
            if _is_at(self.path, self.fd):  # and not another's by now
                os.unlink(self.path)
        except OSError:
            os.ftruncate(self.fd, 0)
        os.close(self.fd)


def holder(path: str) -> int | None:
    """Return the pid of the daemon that holds the pidfile; None if none does.

    0 stands for one that holds it and has not written its pid yet. Raise ``PidfileError``
    where the file cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PidfileError(f"cannot read the pidfile {path}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None


def _make_directory(path: str, owner: Owner | None) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    if owner:
        os.chown(path, owner.uid, owner.gid)


def _locked(path: str) -> int:
    """Open, lock and empty the file; ``PidfileError`` where another daemon has it locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        fd = os.open(path, flags, 0o644)
        try:
            # The one who held it may have removed it between our open and our lock.
            if _lock(fd) and _is_at(path, fd):
                # The pid in it may be anybody's by now, and calcd -s must not meet it. A device
                # fails here: /dev/null, say, must not be removed in the end.
                os.ftruncate(fd, 0)
                return fd
            # Nobody holds it when it was only looked at, by holder(): then try again.
            if (pid := holder(path)) is not None:
                who = f"pid {pid}" if pid else "starting just now"
                raise PidfileError(
                    f"running already ({who}): stop it with calcd -s stop --pidfile {path}, "
                    "or give this one another --pidfile"
                )
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
