"""calcd -t: what is wrong with settings beyond their grammar, on this machine."""

import importlib.util
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from calcd.config.settings import SETTINGS, Settings
from calcd.daemon.logsinks import NoReaderError, open_file
from calcd.daemon.owner import Owner, OwnerError, owner_of
from calcd.daemon.pidfile import PidfileError, holder
from calcd.net import listeners


def problems(
    settings: Settings, where: Mapping[str, str] | None = None, background: bool = False
) -> Iterator[str]:
    """Yield a line for each thing that would keep the daemon from running.

    ``where`` tells of the settings that are set where that is; ``background`` says that they
    are for -d.
    """
    named = {row.name: row.name for row in SETTINGS} | dict(where or {})
    if background and importlib.util.find_spec("daemon") is None:
        yield "-d needs python-daemon: pip install python-daemon"
    for endpoint in settings.listen:
        if problem := listeners.check(endpoint, settings.reuse_port):
            yield f"{named['listen']}: {problem}"
    if settings.tls_certificate:
        from calcd.net.certificates import (  # takes a while, and few have a certificate
            TlsError,
            context,
        )

        try:
            context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        except TlsError as error:
            name, words = str(error).split(": ", 1)
            yield f"{named[name]}: {words}"
    if settings.pidfile:
        directory = os.path.dirname(settings.pidfile)  # which the daemon makes if need be
        path = settings.pidfile if os.path.lexists(directory) else directory
        unwritable = list(_unwritable(named["pidfile"], path))
        yield from unwritable
        try:
            if not unwritable:
                holder(settings.pidfile)
        except PidfileError as error:
            yield f"{named['pidfile']}: {error}"
    owner = None
    try:
        owner = owner_of(settings.user, settings.group)
    except OwnerError as error:
        name, words = str(error).split(": ", 1)
        yield f"{named.get(name, name)}: {words}"
    if settings.log_to not in ("stderr", "syslog"):
        owner = owner if background else None
        yield from _unwritable(named["log_to"], settings.log_to, owner)
        yield from _unread(named["log_to"], settings.log_to, owner)


@contextmanager
def _being(owner: Owner | None) -> Iterator[None]:
    """Have another's rights for a while, if one is given."""
    uid, gid = os.geteuid(), os.getegid()
    if owner:
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)


def _unwritable(name: str, path: str, owner: Owner | None = None) -> Iterator[str]:
    """Yield what would keep the daemon from writing a file, as its owner if it becomes one."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        yield f"{name}: '{path}' is a directory: name a file in it"
    elif not os.path.isdir(directory):
        yield f"{name}: '{path}': there is no directory {directory}: make it first"
    else:
        nearest = path if os.path.exists(path) else directory
        with _being(owner):
            writable = os.access(nearest, os.W_OK, effective_ids=True)
        if not writable:
            yield f"{name}: '{path}' cannot be written: choose another path or user"


def _unread(name: str, path: str, owner: Owner | None) -> Iterator[str]:
    """Yield that a log's path is a FIFO that no process reads, if it is.

    There is no other way to find out than to open it. A reader that waits for its first writer
    then meets an end of file, as it does at each restart of the daemon.
    """
    with suppress(OSError):  # all others are told already
        if stat.S_ISFIFO(os.stat(path).st_mode):
            try:
                with _being(owner):
                    os.close(open_file(path))
            except NoReaderError as error:
                yield f"{name}: '{path}': {error.strerror}: start its reader first"
