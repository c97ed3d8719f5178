"""The pidfile: locked, so that a dead process cannot hold it and the kernel knows who does.

The daemon has two locks on it. flock(2) is shared with children: it lasts from the start across
the forks of -d, and keeps a second daemon out. A record lock (fcntl_locking(2)) belongs to one
process: the daemon takes it when it has its final pid, and ``calcd -s`` asks the kernel whose it
is. The pid in the text is for people and scripts. The daemon's user can write any number there,
and may own the directory: so no link is followed, and a file of another user is refused.
"""

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calcd.core.errors import StartError
from calcd.daemon.owner import Owner

_FLOCK = "hhqqi0q"  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_TRIES = 50  # to lock a file that others only look at
_PAUSE = 0.02  # seconds between two


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
        """Put this process's pid into it, and lock it as this process; call it after all forks.

        The process must not open the file again: closing any descriptor of a file gives up its
        record locks (fcntl_locking(2)). Raise ``PidfileError`` where one of these fails.
        """
        try:
            os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PidfileError(f"another process has a record lock on {self.path}") from None
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
    """Return the pid of the daemon that holds the pidfile, from the kernel; None if none does.

    0 stands for a file that is locked and has no record lock: a daemon starts. Raise
    ``PidfileError`` where the file cannot be read or used, or the pid is not visible here.
    The pid may have ended, and be another process's: ``confirm`` tells.
    """
    with suppress(FileNotFoundError), _reading(path) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _record_holder(path, fd)
    return None


def confirm(path: str, pid: int) -> None:
    """Raise ``PidfileError`` unless the process ``pid`` has the pidfile's record lock.

    To signal it, open it with pidfd_open(2) before: then the pid cannot change hands meanwhile.

    F_GETLK alone proves nothing. It tells the pid of the process that took the lock, but processes
    can share their descriptors (clone(2), CLONE_FILES): then the lock outlives that process, and
    the pid may be given to another. proc_pid_fdinfo(5) shows the locks that a process has.
    Without root's rights /proc may hide that; then the kernel allows no signal to other users.
    """
    with _reading(path) as fd:
        try:
            if _record_holder(path, fd) == pid and _has_record_lock(pid, fd):
                return
        except OSError as error:
            if os.geteuid() != 0:
                return
            raise PidfileError(
                f"pid {pid} is said to hold {path}, which cannot be verified in /proc/{pid}: "
                f"{error.strerror}"
            ) from None
    raise PidfileError(f"pid {pid} has taken the lock of {path}, but does not hold it now")


def written_pid(path: str) -> int:
    """Return the pid that the pidfile's text says, 0 if none; errors are those of ``holder``."""
    with _reading(path) as fd:
        text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


@contextmanager
def _reading(path: str) -> Iterator[int]:
    """Open the pidfile to look at it; raise ``PidfileError`` or ``FileNotFoundError``."""
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PidfileError(f"cannot read the pidfile {path}: {error.strerror}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: str, flags: int) -> int:
    """Open a pidfile; raise ``PidfileError`` where it is not one that calcd would have made."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(path, "it is a symbolic link") from None
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        wrong = "it is no regular file"
    elif status.st_nlink > 1:  # 0: it has just been removed
        wrong = "it has another name (a hard link)"
    elif status.st_uid not in (0, os.geteuid()):
        wrong = f"it belongs to uid {status.st_uid}, and only this user can use it"
    else:
        return fd
    os.close(fd)
    raise _unusable(path, wrong)


def _unusable(path: str, why: str) -> PidfileError:
    words = f"cannot use the pidfile {path}: {why}: remove it, or name another with --pidfile"
    return PidfileError(words)


def _record_holder(path: str, fd: int) -> int:
    """Return the pid of the process that took the record lock; 0: there is none."""
    # Only a write lock conflicts with the read lock asked for. A write lock needs a descriptor
    # open for writing; a read lock does not, so any user could take one.
    question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, question))
    if kind == fcntl.F_UNLCK:
        return 0
    if pid <= 0:  # of another pid namespace: 0; an open file description's lock: -1
        raise PidfileError(
            f"{path} is held by a process that is not visible here: act where it runs"
        )
    return int(pid)


def _has_record_lock(pid: int, fd: int) -> bool:
    ours = os.fstat(fd)
    process = Path(f"/proc/{pid}")
    for number in sorted(os.listdir(process / "fdinfo"), key=int):  # the pidfile's is a low one
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if " POSIX " in (process / "fdinfo" / number).read_text() and os.path.samestat(
                os.stat(process / "fd" / number), ours
            ):
                return True
    return False


def _make_directory(path: str, owner: Owner | None) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    if owner:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Who may write its parent can have put another directory there.
            if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
                raise FileExistsError(errno.EEXIST, "its directory was replaced")
            os.fchown(fd, owner.uid, owner.gid)
        finally:
            os.close(fd)


def _locked(path: str) -> int:
    """Open, lock and empty the file; ``PidfileError`` where another process has it locked."""
    for _ in range(_TRIES):
        fd = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            # The one who held it may have removed it between our open and our lock.
            if _lock(fd) and _is_at(path, fd):
                os.ftruncate(fd, 0)  # the pid in it may be anybody's by now
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
        time.sleep(_PAUSE)
    raise PidfileError(f"another process keeps a shared lock on {path}: end it")


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
