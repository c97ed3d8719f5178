"""What calcd does instead of serving: test the configuration (-t), act on the daemon (-s)."""

import importlib.util
import os
import select
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from calcd.config.converters import absolute
from calcd.config.errors import ConfigError
from calcd.config.settings import BACKGROUND_PIDFILE, SETTINGS, Settings, read_rows
from calcd.daemon.detach import Account, find_account
from calcd.daemon.log import print_error
from calcd.daemon.logsinks import NoReaderError, open_file
from calcd.daemon.pidfile import confirm_holder, find_holder
from calcd.net import listeners

ACTIONS = ("stop", "reload", "status")
_PAUSE = 0.02  # seconds between two looks at the pidfile of a daemon that is starting
_ATTEMPTS = 50
_STOP_MARGIN = 5.0  # seconds that a stop may take beyond drain_timeout

# -t


def configuration_errors(settings: Settings, background: bool = False) -> Iterator[ConfigError]:
    """Yield what would keep the daemon from running on this machine, with valid settings.

    ``background``: the settings are for -d.
    """
    if background and importlib.util.find_spec("daemon") is None:
        yield ConfigError("-d needs python-daemon", "pip install python-daemon")
    for endpoint in settings.listen:
        try:
            listeners.check(endpoint, settings.reuse_port)
        except ConfigError as error:
            yield error
    if settings.tls_certificate:
        from calcd.net.certificates import load_context  # ssl is slow to import

        try:
            load_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        except ConfigError as error:
            yield error
    if settings.pidfile:
        yield from _pidfile_errors(settings.pidfile)
    account = None
    try:
        account = find_account(settings.user, settings.group)
    except ConfigError as error:
        yield error
    if settings.log_to not in ("stderr", "syslog"):
        account = account if background else None
        yield from _write_errors("log_to", settings.log_to, account)
        yield from _fifo_errors(settings.log_to, account)


def _pidfile_errors(path: str) -> Iterator[ConfigError]:
    directory = os.path.dirname(path)  # the daemon creates it if it is missing
    errors = [*_write_errors("pidfile", path if os.path.lexists(directory) else directory)]
    yield from errors
    if not errors:
        try:
            find_holder(path)
        except ConfigError as error:
            yield error


def _write_errors(setting: str, path: str, account: Account | None = None) -> Iterator[ConfigError]:
    """Yield why the daemon, as ``account`` if it becomes one, cannot write to a file."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        yield ConfigError(f"'{path}' is a directory", "name a file in it", setting=setting)
    elif not os.path.isdir(directory):
        reason = f"'{path}': there is no directory {directory}"
        yield ConfigError(reason, "make it first", setting=setting)
    else:
        nearest = path if os.path.exists(path) else directory
        with _running_as(account):
            writable = os.access(nearest, os.W_OK, effective_ids=True)
        if not writable:
            hint = "choose another path or user"
            yield ConfigError(f"'{path}' cannot be written", hint, setting=setting)


def _fifo_errors(path: str, account: Account | None) -> Iterator[ConfigError]:
    """Yield an error if a log's path is a FIFO that no process reads.

    Only opening the FIFO can tell. A reader that waits for its first writer then meets an end of
    file, as it does at each restart of the daemon.
    """
    with suppress(OSError):  # _write_errors reports other errors
        if stat.S_ISFIFO(os.stat(path).st_mode):
            try:
                with _running_as(account):
                    os.close(open_file(path))
            except NoReaderError as error:
                reason = f"'{path}': {error.strerror}"
                yield ConfigError(reason, "start its reader first", setting="log_to")


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
    try:
        pid = _wait_for_holder(pidfile)
        if pid is None:
            return _fail(f"not running: no process holds {pidfile}")
        if pid == 0:
            return _fail(
                f"{pidfile} is locked, but no process has the daemon's record lock on it: "
                "calcd is just starting, or another program locks the file"
            )
        with ExitStack() as at_end:
            process = os.pidfd_open(pid)  # stays the same process even if the pid is reused
            at_end.callback(os.close, process)
            if (written := confirm_holder(pidfile, pid)) != pid:
                print_error(
                    f"{pidfile} says {written or 'no pid'}, but pid {pid} holds it: "
                    f"{action} is for pid {pid}"
                )
            if action == "status":
                print(f"calcd: running, pid {pid}, {pidfile}")
            elif action == "reload":
                signal.pidfd_send_signal(process, signal.SIGHUP)
            elif not _stop(process, drain_timeout + _STOP_MARGIN):
                return _fail(f"pid {pid} was told to stop, but still runs: kill -9 {pid}")
    except ConfigError as error:
        return _fail(str(error))
    except PermissionError:
        return _fail(f"pid {pid} belongs to another user: try as root")
    except (FileNotFoundError, ProcessLookupError):
        return _fail(f"pid {pid} has just ended")
    return 0


def _wait_for_holder(pidfile: str) -> int | None:
    """Return the result of ``find_holder``; wait a second for a daemon that is starting."""
    for _ in range(_ATTEMPTS):
        if (pid := find_holder(pidfile)) != 0:
            return pid
        time.sleep(_PAUSE)
    return 0


def _stop(process: int, timeout: float) -> bool:
    """Stop the process of a pidfd; return False if it still runs after ``timeout`` seconds."""
    signal.pidfd_send_signal(process, signal.SIGTERM)
    ended, _, _ = select.select([process], [], [], timeout)
    return bool(ended)


def _fail(reason: str) -> int:
    print_error(reason)
    return 1


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
