"""calcd -t: what is wrong with settings beyond their grammar, on this machine."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from calcd import listeners
from calcd.owner import Owner, OwnerError, owner_of
from calcd.pidfile import PidfileError, holder
from calcd.settings import SETTINGS, Settings


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
        from calcd.tls import TlsError, context  # takes a while, and few have a certificate

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
        yield from _unwritable(named["log_to"], settings.log_to, owner if background else None)


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
