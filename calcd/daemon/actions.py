"""What calcd does instead of serving: test the configuration (-t), act on the daemon (-s)."""

import os
import select
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from calcd.config.converters import absolute
from calcd.config.errors import ConfigError
from calcd.config.settings import BACKGROUND_PIDFILE, SETTINGS, Settings, read_rows
from calcd.daemon.detach import Account, daemon_context, find_account
from calcd.daemon.log import print_error
from calcd.daemon.logsinks import NoReaderError, open_file
from calcd.daemon.pidfile import confirm_holder, find_holder
from calcd.net import listeners

ACTIONS = ("stop", "reload", "status")
_PAUSE = 0.02  # seconds between two looks at the pidfile of a daemon that is starting
_ATTEMPTS = 50
_STOP_MARGIN = 5.0  # seconds that -s stop waits beyond drain_timeout

# -t


def configuration_errors(settings: Settings, background: bool = False) -> list[ConfigError]:
    """Return what would keep the daemon from running on this machine, with valid settings.

    ``background``: the settings are for -d.
    """
    errors: list[ConfigError] = []
    account = None
    if background:
        with _collected(errors):
            daemon_context()
    for endpoint in (*settings.listen, *settings.metrics):
        with _collected(errors):
            listeners.check(endpoint, settings.reuse_port and not endpoint.http)
    if settings.tls_certificate:
        from calcd.net.credentials import load_credentials  # ssl is slow to import

        with _collected(errors):
            load_credentials(settings)
    if settings.pidfile:
        with _collected(errors):
            _check_pidfile(settings.pidfile)
    with _collected(errors):
        account = find_account(settings.user, settings.group)
    if settings.log_to not in ("stderr", "syslog"):
        with _collected(errors):
            _check_log(settings.log_to, account if background else None)
    for error in errors:
        error.locate(settings.sources)
    return errors


def configuration_warnings(settings: Settings) -> list[str]:
    """Return what an operator should change, though the daemon runs with these settings."""
    if not settings.tls_certificate:
        return []
    from calcd.net.credentials import load_credentials

    return load_credentials(settings).warnings()


@contextmanager
def _collected(errors: list[ConfigError]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        errors.append(error)


def _check_pidfile(path: str) -> None:
    directory = os.path.dirname(path)  # the daemon creates it if it is missing
    _check_writable("pidfile", path if os.path.lexists(directory) else directory)
    find_holder(path)


def _check_log(path: str, account: Account | None) -> None:
    _check_writable("log_to", path, account)
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            # Only opening it tells whether a process reads it. A reader that waits for its first
            # writer then meets an end of file, as it does at each restart of the daemon.
            with _running_as(account):
                os.close(open_file(path))
    except FileNotFoundError:  # the daemon creates it
        return
    except OSError as error:  # such as a name that is too long
        is_unread = isinstance(error, NoReaderError)
        hint = "start its reader first" if is_unread else "choose another path"
        raise ConfigError(f"'{path}': {error.strerror}", hint, setting="log_to") from None


def _check_writable(setting: str, path: str, account: Account | None = None) -> None:
    """Raise ``ConfigError`` if the daemon, as ``account`` if it becomes one, cannot write there."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise ConfigError(f"'{path}' is a directory", "name a file in it", setting=setting)
    if not os.path.isdir(directory):
        reason = f"'{path}': there is no directory {directory}"
        raise ConfigError(reason, "make it first", setting=setting)
    nearest = path if os.path.exists(path) else directory
    with _running_as(account):
        writable = os.access(nearest, os.W_OK, effective_ids=True)
    if not writable:
        hint = "choose another path or user"
        raise ConfigError(f"'{path}' cannot be written", hint, setting=setting)


@contextmanager
def _running_as(account: Account | None) -> Iterator[None]:
    """Change the effective user and group to ``account`` for a while, unless it is None."""
    uid, gid = os.geteuid(), os.getegid()
    if account:
        os.setegid(account.gid)
        os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)


# -s


def act(action: str, pidfile: str, drain_timeout: float) -> int:
    """Do one of ``ACTIONS``; return the exit status, 0 if it was done (status: if it runs)."""
    pid = 0
    try:
        pid = _wait_for_holder(pidfile)
        process = os.pidfd_open(pid)  # stays the same process even if the pid is reused
        try:
            if (written := confirm_holder(pidfile, pid)) != pid:
                print_error(
                    f"{pidfile} says {written or 'no pid'}, but pid {pid} holds it: "
                    f"{action} is for pid {pid}"
                )
            if action == "status":
                print(f"calcd: running, pid {pid}, {pidfile}")
            elif action == "reload":
                signal.pidfd_send_signal(process, signal.SIGHUP)
            else:
                signal.pidfd_send_signal(process, signal.SIGTERM)
                if not select.select([process], [], [], drain_timeout + _STOP_MARGIN)[0]:
                    raise ConfigError(f"pid {pid} was told to stop, but still runs: kill -9 {pid}")
        finally:
            os.close(process)
    except ConfigError as error:
        reason = str(error)
    except PermissionError:
        reason = f"pid {pid} belongs to another user: try as root"
    except (FileNotFoundError, ProcessLookupError):
        reason = f"pid {pid} has just ended"
    else:
        return 0
    print_error(reason)
    return 1


def _wait_for_holder(pidfile: str) -> int:
    """Return the pid of the daemon; wait a second for one that is starting."""
    for _ in range(_ATTEMPTS):
        if pid := find_holder(pidfile):
            return pid
        if pid is None:
            raise ConfigError(f"not running: no process holds {pidfile}")
        time.sleep(_PAUSE)
    raise ConfigError(
        f"{pidfile} is locked, but no process has the daemon's record lock on it: "
        "calcd is just starting, or another program locks the file"
    )


def known_pidfile(file: str | None, options: Mapping[str, str]) -> str | None:
    """Return the pidfile of settings that are wrong elsewhere; None if it is not certain.

    The arguments are those of ``read_settings``.
    """
    rows, errors = read_rows(file, options)
    texts = {row.name: row.text for row in rows}
    if text := texts.get("pidfile"):
        return absolute(text)
    # A line that is wrong may have been meant to be the pidfile: do not stop a daemon by a guess.
    certain = not errors and texts.keys() <= {row.name for row in SETTINGS}
    return BACKGROUND_PIDFILE if certain else None
