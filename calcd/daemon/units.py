"""What systemd knows of calcd's units, as ``systemctl show`` tells it."""

import os
import re
from dataclasses import dataclass

_BOOTED = "/run/systemd/system"  # exists where systemd is the init system: sd_booted(3)
_UNITS = ("calcd.service", "calcd@*.service", "calcd*.socket")
_PROPERTIES = "Id,LoadState,ActiveState,SubState,MainPID,StatusText,ExecStart,TriggeredBy"
_TIMEOUT = 5.0  # seconds
_ARGUMENTS = re.compile(r"argv\[\]=(.*?) ; ignore_errors=")


@dataclass(frozen=True)
class Unit:
    """A service or socket that systemd has loaded.

    ``arguments`` are those of its command, ``triggered_by`` the socket units that start it.
    """

    name: str
    active: str
    sub: str
    pid: int
    status: str
    arguments: tuple[str, ...]
    triggered_by: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        """Whether a process of it serves or stops; one that is starting may never serve."""
        return self.pid != 0 and self.active != "activating"

    def __str__(self) -> str:
        """Return its state in a line."""
        pid = f", pid {self.pid}" if self.pid else ""
        status = f": {self.status}" if self.pid and self.status else ""
        return f"{self.name}: {self.active} ({self.sub}){pid}{status}"


def loaded_units() -> list[Unit]:
    """Return calcd's services and sockets that systemd has loaded.

    Without systemd, or if it does not answer, return none.
    """
    if not os.path.isdir(_BOOTED):
        return []
    import subprocess  # the daemon itself needs none of this

    command = ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", *_UNITS]
    try:
        shown = subprocess.run(  # noqa: S603 (a fixed command)
            command, capture_output=True, encoding="utf-8", timeout=_TIMEOUT, check=False
        ).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return parse_units(shown)


def parse_units(shown: str) -> list[Unit]:
    """Parse what ``systemctl show`` prints for several units: blocks of ``NAME=VALUE``."""
    units = []
    for block in shown.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("LoadState") != "loaded":
            continue
        arguments = _ARGUMENTS.search(values.get("ExecStart", ""))
        units.append(
            Unit(
                values.get("Id", ""),
                values.get("ActiveState", ""),
                values.get("SubState", ""),
                int(values.get("MainPID") or 0),
                values.get("StatusText", ""),
                tuple(arguments[1].split()[1:]) if arguments else (),
                tuple(values.get("TriggeredBy", "").split()),
            )
        )
    return sorted(units, key=lambda unit: unit.name)
