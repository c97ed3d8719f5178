"""Run in the background (-d): wait for the start, become another user, detach.

python-daemon's parent exits with 0 at once, before anything can fail. So calcd forks first. The
process that the shell started waits at a pipe, the startup pipe, until the daemon serves or
fails. It holds nothing of the daemon's, so it may be interrupted.
"""

import grp
import os
import pwd
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from calcd.config.errors import ConfigError
from calcd.daemon.log import print_error

UMASK = 0o022


class StartupPipe:
    """The daemon's end of the pipe to the process that the shell waits for.

    A message is an exit status of one digit, and a sentence for stderr, which may be empty.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def succeed(self, warning: str = "") -> None:
        """End the waiting process with status 0: the daemon serves.

        If that process is gone, somebody interrupted the start: stop the daemon.
        """
        try:
            os.write(self.fd, f"0{warning}".encode())
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)
        os.close(self.fd)
        self.fd = -1

    def fail(self, reason: str, status: int) -> None:
        """Pass on why the start failed, and the exit status of one digit.

        The process waits on, until this one has ended.
        """
        with suppress(OSError):  # the waiting process is gone
            os.write(self.fd, f"{status}{reason}".encode())


def fork_and_wait() -> StartupPipe:
    """Continue in a new process; the calling process waits for its message, and exits.

    Call this before taking anything that two processes must not hold or release.
    """
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        with os.fdopen(read_end, encoding="utf-8") as pipe:
            message = pipe.read() or "1the daemon died before it served: its log may say more"
        if message[1:]:
            print_error(message[1:])
        sys.exit(int(message[0]))
    os.close(read_end)
    return StartupPipe(write_end)


@dataclass(frozen=True)
class Account:
    """A user, and the group to run as; ``name`` is the user's, for supplementary groups."""

    name: str
    uid: int
    gid: int


def find_account(user: str, group: str) -> Account | None:
    """Return the account to become; without a group, with the user's own.

    Return None if both are empty, or if this process runs as that account already. Raise
    ``ConfigError`` if one does not exist, or if this process is not allowed to become it.
    """
    if not (user or group):
        return None
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        raise ConfigError(f"'{user}': there is no such user", setting="user") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError:
        raise ConfigError(f"'{group}': there is no such group", setting="group") from None
    if os.getuid() != 0:
        if (entry.pw_uid, gid) == (os.getuid(), os.getgid()):
            return None
        raise ConfigError(
            "only root can become another user or group",
            "start calcd as root",
            setting="user" if user else "group",
        )
    return Account(entry.pw_name, entry.pw_uid, gid)


def daemon_context() -> Any:
    """Return python-daemon's ``DaemonContext``; raise ``ConfigError`` if it is not installed."""
    try:
        from daemon import DaemonContext
    except ImportError:
        raise ConfigError(
            "-d needs python-daemon", "pip install python-daemon, or leave -d out"
        ) from None
    return DaemonContext


def detach(keep: Iterable[int], account: Account | None) -> None:
    """Become a daemon that runs as ``account`` and keeps only the descriptors ``keep``.

    Raise ``ConfigError`` if that fails, or if python-daemon is not installed.
    """
    context = daemon_context()
    try:
        if account:
            # python-daemon's own initgroups=True leaves the group unchanged.
            os.initgroups(account.name, account.gid)
        context(
            files_preserve=list(keep),
            uid=account.uid if account else None,
            gid=account.gid if account else None,
            umask=UMASK,
            signal_map={},
            detach_process=True,
        ).open()
    except Exception as error:
        raise ConfigError(f"cannot go into the background: {error}") from None
