"""Into the background, with python-daemon, and what the shell is told of it.

python-daemon's parent exits with 0 at once, whatever becomes of the daemon. So before anything
else a process of ours is forked off, and the one that the shell started stays and waits for
what is to be said: it holds nothing of the daemon's, and may be interrupted.
"""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

from calcd.core.errors import StartError
from calcd.daemon.log import complain
from calcd.daemon.owner import Owner

_UMASK = 0o022


class BackgroundError(StartError):
    """The background cannot be reached; as text, why, and what to do."""


class Shell:
    """The command that started the daemon, waiting in the shell for how that goes.

    It is told the status to exit with, one digit, and words for stderr, if there are any.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def succeed(self, warning: str = "") -> None:
        """End its waiting: the daemon serves.

        Where nobody waits any more the daemon stops: who interrupts the command that starts it
        calls the start off.
        """
        try:
            os.write(self.fd, f"0{warning}".encode())
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)
        os.close(self.fd)
        self.fd = -1

    def fail(self, words: str) -> None:
        """Say what went wrong. Its waiting ends with this process, when everything is undone."""
        with suppress(OSError):  # nobody waits any more
            os.write(self.fd, f"1{words}".encode())


def leave_shell() -> Shell:
    """Carry on in a new process; the one that called prints and exits as it is told by ``Shell``.

    Call it before anything is held that must not be held, or given back, twice.
    """
    listen, tell = os.pipe()
    if os.fork():
        os.close(tell)
        with os.fdopen(listen, encoding="utf-8") as pipe:
            told = pipe.read() or "1the daemon died before it served: its log may say more"
        status, words = int(told[0]), told[1:]
        if words:
            complain(words)
        sys.exit(status)
    os.close(listen)
    return Shell(tell)


def detach(keep: Iterable[int], owner: Owner | None) -> None:
    """Become a daemon, with no descriptors open but ``keep``, and as ``owner``.

    Raise ``BackgroundError`` where that fails, or python-daemon is not installed.
    """
    try:
        from daemon import DaemonContext
    except ImportError:
        raise BackgroundError(
            "-d needs python-daemon: pip install python-daemon, or leave -d out"
        ) from None
    try:
        if owner:
            # Not by python-daemon's own initgroups=True, which leaves the group as it is.
            os.initgroups(owner.name, owner.gid)
        DaemonContext(
            files_preserve=list(keep),
            uid=owner.uid if owner else None,
            gid=owner.gid if owner else None,
            umask=_UMASK,
            signal_map={},
            detach_process=True,
        ).open()
    except Exception as error:
        raise BackgroundError(f"cannot go into the background: {error}") from None
