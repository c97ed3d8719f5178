"""Who the daemon becomes once its sockets are bound."""

import grp
import os
import pwd
from dataclasses import dataclass

from calcd.core.errors import StartError


class OwnerError(StartError):
    """A user or group that cannot be become; as text, why, and what to do."""


@dataclass(frozen=True)
class Owner:
    """A user, with the group to run as; ``name`` finds the user's further groups."""

    name: str
    uid: int
    gid: int


def owner_of(user: str, group: str) -> Owner | None:
    """Look up a user and a group by name; without a group, the user's own.

    Return None where there is nothing to become: both are empty, or it is who we are already.
    Raise ``OwnerError`` where one does not exist or may not be become.
    """
    if not (user or group):
        return None
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        raise OwnerError(f"user: '{user}': there is no such user") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError:
        raise OwnerError(f"group: '{group}': there is no such group") from None
    if os.getuid() != 0:
        if (entry.pw_uid, gid) == (os.getuid(), os.getgid()):
            return None
        raise OwnerError("user, group: only root can become another: start calcd as root")
    return Owner(entry.pw_name, entry.pw_uid, gid)
