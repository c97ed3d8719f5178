"""The pidfile. Locks, not its text, tell whether a daemon runs, and which process it is.

The daemon holds two locks on it. flock(2) is shared with child processes: it lasts from the start
across the forks of -d, and keeps a second daemon out. A record lock (fcntl_locking(2)) belongs to
one process: the daemon takes it when it has its final pid, and ``calcd -s`` asks the kernel for
its owner. The pid in the text is for people and scripts. The daemon's user can write any number
there, and may own the directory: so links are not followed, and other users' files are refused.
"""

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from calcd.config.errors import ConfigError
from calcd.daemon.detach import UMASK, Account

_FLOCK = "hhqqi0q"  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_ATTEMPTS = 50  # to lock a file on which another process has a shared lock
_PAUSE = 0.02  # seconds between two attempts


class Pidfile:
    """A pidfile that this process and its children hold until ``remove``."""

    def __init__(self, path: str, account: Account | None = None) -> None:
        """Lock the pidfile; raise ``ConfigError`` if another process holds it.

        A missing directory is created (/run is empty after a boot), and given to ``account``,
        which has to remove the file at the end. Everybody can read both, whatever the umask: other
        users run "calcd -s status", and Unix sockets may be in the directory.
        """
        self.path = path
        umask = os.umask(UMASK)  # no other thread runs yet
        try:
            _make_directory(os.path.dirname(path), account)
            self.fd = _lock(path)
        except OSError as error:
            as_root = "start calcd as root, or " if error.errno == errno.EACCES else ""
            hint = f"{as_root}name another with --pidfile"
            if "NOTIFY_SOCKET" in os.environ:  # a service, whose sandbox has no files to write
                hint = "leave pidfile empty: systemd needs no pidfile"
            raise _error(f"'{path}' cannot be written: {error.strerror}", hint) from None
        finally:
            os.umask(umask)

    def write(self) -> None:
        """Write this process's pid, and take the record lock. Call this after all forks.

        The process must not open the file again: closing any descriptor of a file releases its
        record locks (fcntl_locking(2)). Raise ``ConfigError`` on failure.
        """
        try:
            os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _error(f"another process has a record lock on '{self.path}'") from None
        except OSError as error:
            raise _error(f"'{self.path}' cannot be written: {error.strerror}") from None

    def remove(self) -> None:
        """Remove the file, or empty it if the directory does not allow that."""
        try:
            if _is_at(self.path, self.fd):  # else it is another daemon's by now
                os.unlink(self.path)
        except OSError:
            os.ftruncate(self.fd, 0)
        os.close(self.fd)


def find_holder(path: str) -> int | None:
    """Return the pid of the daemon that holds the pidfile, from the kernel; None if none does.

    0 means that the file is locked without a record lock: a daemon is starting. The pid may have
    ended and been reused: see ``confirm_holder``. Raise ``ConfigError`` if the file cannot be
    read or used, or if the pid is in another pid namespace.
    """
    with suppress(FileNotFoundError), _opened(path) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _record_lock_owner(path, fd)
    return None


def confirm_holder(path: str, pid: int) -> int:
    """Raise ``ConfigError`` unless the process ``pid`` has the pidfile's record lock.

    Return the pid in the file's text, or 0: it may be another one, or none.

    To signal the process, open it with pidfd_open(2) before: then the pid cannot be reused.

    F_GETLK alone proves nothing. It returns the pid of the process that took the lock, but
    processes can share their descriptors (clone(2), CLONE_FILES): then the lock outlives that
    process, and its pid may be reused. proc_pid_fdinfo(5) shows the locks that a process has.
    Without root's rights /proc may hide that; but then the kernel allows no signals to processes
    of other users.
    """
    with _opened(path) as fd:
        try:
            confirmed = _record_lock_owner(path, fd) == pid and _has_record_lock(pid, fd)
        except OSError as error:
            if os.geteuid() == 0:
                raise ConfigError(
                    f"cannot verify in /proc/{pid} that pid {pid} holds {path}: {error.strerror}"
                ) from None
            confirmed = True
        text = os.pread(fd, 32, 0).strip()
    if not confirmed:
        raise ConfigError(f"pid {pid} took the lock of {path}, but does not hold it now")
    return int(text) if text.isdigit() else 0


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open the pidfile to read; raise ``ConfigError`` or ``FileNotFoundError``."""
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _error(f"'{path}' cannot be read: {error.strerror}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: str, flags: int) -> int:
    """Open a pidfile; raise ``ConfigError`` if it is not a file that calcd creates."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        fault = "it is a symbolic link"
    else:
        fault = _fault_of(os.fstat(fd))
        if not fault:
            return fd
        os.close(fd)
    raise _error(f"'{path}' cannot be used: {fault}", "remove it, or name another with --pidfile")


def _fault_of(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_nlink > 1:  # 0: it has just been removed
        return "it has another name (a hard link)"
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to uid {status.st_uid}, and only this user can use it"
    return ""


def _error(reason: str, hint: str = "") -> ConfigError:
    return ConfigError(reason, hint, setting="pidfile")


def _record_lock_owner(path: str, fd: int) -> int:
    """Return the pid of the process that took the record lock; 0 if there is no lock."""
    # A read lock conflicts only with write locks. Any user who can read the file can take a read
    # lock, but a write lock needs a descriptor that is open for writing.
    query = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, query))
    if kind == fcntl.F_UNLCK:
        return 0
    if pid <= 0:  # 0: of another pid namespace; -1: a lock of an open file description
        raise _error(f"'{path}' is held by a process that is not visible here", "run this there")
    return int(pid)


def _has_record_lock(pid: int, fd: int) -> bool:
    ours = os.fstat(fd)
    process = Path(f"/proc/{pid}")
    for number in sorted(os.listdir(process / "fdinfo"), key=int):  # the pidfile's is a low one
        with suppress(FileNotFoundError):  # closed meanwhile
            if " POSIX " in (process / "fdinfo" / number).read_text() and os.path.samestat(
                os.stat(process / "fd" / number), ours
            ):
                return True
    return False


def _make_directory(path: str, account: Account | None) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    if account:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # A user who can write to the parent directory can have replaced the new directory.
            if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
                raise FileExistsError(errno.EEXIST, "its directory was replaced")
            os.fchown(fd, account.uid, account.gid)
        finally:
            os.close(fd)


def _lock(path: str) -> int:
    """Open, lock and empty the file; raise ``ConfigError`` if another process holds it."""
    for _ in range(_ATTEMPTS):
        with ExitStack() as undo:
            fd = _open(path, os.O_RDWR | os.O_CREAT)
            undo.callback(os.close, fd)
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The last holder may have removed the file between our open and our lock.
                if _is_at(path, fd):
                    os.ftruncate(fd, 0)  # the pid in it may belong to any process by now
                    undo.pop_all()
                    return fd
            # No holder means that find_holder() of another process has locked it for a moment.
            if (pid := find_holder(path)) is not None:
                who = f"pid {pid}" if pid else "it is just starting"
                raise ConfigError(
                    f"running already ({who})",
                    f"stop it with calcd -s stop --pidfile {path}, or use another --pidfile",
                )
        time.sleep(_PAUSE)
    raise _error(f"another process keeps a shared lock on '{path}'", "end it")


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
