"""calcd -s: what is asked of the daemon that holds the pidfile."""

import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack

from calcd.config.converters import absolute
from calcd.config.file import InifileError, Row, read_inifile
from calcd.config.settings import BACKGROUND_PIDFILE, DEFAULT_FILE, SECTION, SETTINGS
from calcd.daemon.log import complain
from calcd.daemon.pidfile import PidfileError, confirm, holder, written_pid

ACTIONS = ("stop", "reload", "status")
_LOOK = 0.02  # seconds between looks at a pidfile that is held by a daemon that starts
_LOOKS = 50
_STOP_MARGIN = 5.0  # seconds that a stop may take beyond drain_timeout


def act(action: str, pidfile: str, drain_timeout: float) -> int:
    """Do one of ``ACTIONS``; return the exit status, 0 if it was done (status: if it runs)."""
    try:
        pid = _holder(pidfile)
        if pid is None:
            return _fail(f"not running: no process holds {pidfile}")
        if pid == 0:
            return _fail(
                f"{pidfile} is locked, but no process has the daemon's record lock on it: "
                "calcd is just starting, or another program locks the file"
            )
        with ExitStack() as at_end:
            process = os.pidfd_open(pid)  # never another process, though the pid be reused
            at_end.callback(os.close, process)
            confirm(pidfile, pid)
            if (written := written_pid(pidfile)) != pid:
                complain(
                    f"{pidfile} says {written or 'no pid'}, but pid {pid} holds it: "
                    f"{action} is for pid {pid}"
                )
            if action == "status":
                print(f"calcd: running, pid {pid}, {pidfile}")
            elif action == "reload":
                signal.pidfd_send_signal(process, signal.SIGHUP)
            elif not _stop(process, drain_timeout + _STOP_MARGIN):
                return _fail(f"pid {pid} was told to stop, but still runs: kill -9 {pid}")
    except PidfileError as error:
        return _fail(str(error))
    except PermissionError:
        return _fail(f"pid {pid} belongs to another user: try as root")
    except (FileNotFoundError, ProcessLookupError):
        return _fail(f"pid {pid} has just ended")
    return 0


def _holder(pidfile: str) -> int | None:
    """Return what ``holder`` does, with some patience: a daemon that starts forks first."""
    for _ in range(_LOOKS):
        if (pid := holder(pidfile)) != 0:
            return pid
        time.sleep(_LOOK)
    return 0


def _stop(process: int, seconds: float) -> bool:
    """Stop the process of a pidfd; return False where it has not ended in ``seconds``."""
    signal.pidfd_send_signal(process, signal.SIGTERM)
    ended, _, _ = select.select([process], [], [], seconds)
    return bool(ended)


def _fail(words: str) -> int:
    complain(words)
    return 1


def known_pidfile(file: str | None, options: Mapping[str, str]) -> str | None:
    """Return the pidfile that is meant, though other settings are wrong; None: it is not known.

    The arguments are those of ``read_settings``.
    """
    rows: list[Row] = []
    understood = True
    try:
        rows = read_inifile(file or DEFAULT_FILE, SECTION)
    except InifileError as error:
        understood = file is None and isinstance(error.__cause__, FileNotFoundError)
    texts = {**{row.name: row.text for row in rows}, **options}
    if text := texts.get("pidfile"):
        return absolute(text)
    # What is not understood may have been meant for it: no daemon is stopped by a guess.
    understood &= texts.keys() <= {row.name for row in SETTINGS}
    return BACKGROUND_PIDFILE if understood else None
