"""calcd -t: what is wrong with settings beyond their grammar, on this machine."""

import os
from collections.abc import Iterator

from calcd import endpoints
from calcd.owner import OwnerError, owner_of
from calcd.settings import Settings


def problems(settings: Settings) -> Iterator[str]:
    """Yield a line for each thing that would keep the daemon from running."""
    for endpoint in settings.listen:
        if problem := endpoints.check(endpoint, settings.reuse_port):
            yield f"listen: {problem}"
    if settings.log_to not in ("stderr", "syslog"):
        yield from _unwritable("log_to", settings.log_to)
    if settings.pidfile:
        directory = os.path.dirname(settings.pidfile)  # which the daemon makes if need be
        yield from _unwritable(
            "pidfile", settings.pidfile if os.path.lexists(directory) else directory
        )
    try:
        owner_of(settings.user, settings.group)
    except OwnerError as error:
        yield str(error)


def _unwritable(name: str, path: str) -> Iterator[str]:
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        yield f"{name}: '{path}' is a directory: name a file in it"
    elif not os.path.isdir(directory):
        yield f"{name}: '{path}': there is no directory {directory}: make it first"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        yield f"{name}: '{path}' cannot be written: choose another path or user"
