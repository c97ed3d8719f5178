"""Act on the daemon that runs (-s): stop it, let it reload or reopen its log, tell its status."""

import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from calcd.config.converters import absolute
from calcd.config.errors import ConfigError, SettingsError
from calcd.config.settings import BACKGROUND_PIDFILE, SETTINGS, Settings, read_rows, read_settings
from calcd.daemon import signals
from calcd.daemon.answers import send_signal
from calcd.daemon.log import print_error, print_errors, print_warning
from calcd.daemon.pidfile import confirm_holder, find_holder
from calcd.daemon.units import Unit, loaded_units

ACTIONS = ("stop", "reload", "reopen", "status")
_SIGNALS = {"reload": signals.RELOAD, "reopen": signals.REOPEN}
_SYSTEMCTL = {  # what does the same to a service
    "stop": "systemctl stop",
    "reload": "systemctl reload",
    "reopen": "systemctl kill --kill-whom=main --signal=USR1",
}
_BLOCKED = re.compile(r"^SigBlk:\s*([0-9a-f]+)$", re.MULTILINE)
_PAUSE = 0.02  # seconds between two looks at the pidfile of a daemon that is starting
_ATTEMPTS = 50
_STOP_MARGIN = 5.0  # seconds that -s stop waits beyond drain_timeout
_ANSWER_TIMEOUT = 10.0  # seconds that -s reload and -s reopen wait for what comes of it


def run(action: str, file: str | None, options: Mapping[str, str]) -> int:
    """Do one of ``ACTIONS`` to the daemon with these settings; return the exit status.

    ``file`` and ``options`` are those of ``read_settings``. Raise ``SettingsError`` if the settings
    are wrong and matter.
    """
    if action == "reload" and (pid := _service_main_pid()):
        # Nothing is read here: the service alone knows its options and its credentials.
        return _do(pid, lambda process: _ask(process, pid, signals.RELOAD))
    try:
        settings = read_settings(file, options)
    except SettingsError as error:
        # A wrong setting must not keep an operator from stopping the daemon.
        pidfile = known_pidfile(file, options)
        if action == "reload" or (pidfile is None and action != "status"):
            raise
        print_errors(error)
        settings = Settings(pidfile=pidfile or "")
    if settings.pidfile:
        return act(action, settings.pidfile, settings.drain_timeout)
    return act(action, BACKGROUND_PIDFILE, settings.drain_timeout, loaded_units)


def act(
    action: str,
    pidfile: str,
    drain_timeout: float,
    find_units: Callable[[], Iterable[Unit]] = tuple,
) -> int:
    """Do one of ``ACTIONS``; return the exit status, 0 if it was done (status: if it runs).

    ``find_units`` asks systemd, if not only the pidfile is meant; for most actions, only if no
    process holds the pidfile.
    """
    running: list[str] = []
    if action == "status":
        for unit in find_units():
            print(f"calcd: {unit}", flush=True)
            running += [unit.name] if unit.is_running else []
    try:
        pid = _wait_for_holder(pidfile)
    except ConfigError as error:
        if running:
            return 0
        print_error(str(error))
        if action != "status":
            running = [unit.name for unit in find_units() if unit.is_running]
        if running:
            print_error(f"systemd runs calcd: use {_SYSTEMCTL[action]} {' '.join(running)}")
        return 1

    def do(process: int) -> None:
        if (written := confirm_holder(pidfile, pid)) != pid:
            print_error(
                f"{pidfile} says {written or 'no pid'}, but pid {pid} holds it: "
                f"{action} is for pid {pid}"
            )
        if action == "status":
            print(f"calcd: running, pid {pid}, {pidfile}")
        elif action == "stop":
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], drain_timeout + _STOP_MARGIN)[0]:
                raise ConfigError(f"pid {pid} was told to stop, but still runs: kill -9 {pid}")
        else:
            _ask(process, pid, _SIGNALS[action])

    return _do(pid, do)


def _service_main_pid() -> int:
    """Return the service's main process if systemd runs this as its ExecReload=; else 0."""
    text = os.environ.get("MAINPID", "")
    return int(text) if text.isdecimal() and "INVOCATION_ID" in os.environ else 0


def _do(pid: int, do: Callable[[int], None]) -> int:
    """Do something to a process, which gets its pidfd; return the exit status."""
    try:
        process = os.pidfd_open(pid)  # stays the same process even if the pid is reused
        try:
            do(process)
        finally:
            os.close(process)
    except SettingsError as error:
        print_errors(error)
        return 1
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


def _ask(process: int, pid: int, signum: signal.Signals) -> None:
    """Send a daemon a signal, and wait for its answer; raise an error if it is not done."""
    if not _waits_for(pid, signum):
        raise ConfigError(
            f"pid {pid} does not take {signum.name}: it was started with the signal ignored, or is "
            "an older version of calcd"
        )
    answer = send_signal(process, pid, signum, _ANSWER_TIMEOUT)
    if answer is None:
        raise ConfigError(
            f"pid {pid} has {signum.name}, but did not say within {_ANSWER_TIMEOUT:g} s what came "
            "of it: see its log"
        )
    if not answer.done:
        raise SettingsError([ConfigError(sentence) for sentence in answer.sentences])
    for sentence in answer.sentences:
        print_warning(sentence)


def _waits_for(pid: int, signum: signal.Signals) -> bool:
    """Return False if a signal would end the process, or be ignored.

    All threads of the daemon block the signals that it waits for, but for the one that waits in
    sigwaitinfo(2), as /proc shows it. Where /proc does not show it, believe it.
    """
    masks: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found = _BLOCKED.search((thread / "status").read_text("utf-8", "replace"))
            masks += [int(found[1], 16)] if found else []
    return not masks or any(mask >> signum - 1 & 1 for mask in masks)


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
    """Return the pidfile of settings that are wrong elsewhere; "" if they name none.

    Return None if that is not certain. The arguments are those of ``read_settings``.
    """
    rows, errors = read_rows(file, options)
    texts = {row.name: row.text for row in rows}
    if text := texts.get("pidfile"):
        return absolute(text)
    # A line that is wrong may have been meant to be the pidfile: do not stop a daemon by a guess.
    certain = not errors and texts.keys() <= {row.name for row in SETTINGS}
    return "" if certain else None
