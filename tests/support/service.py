"""calcd.service in a booted systemd, and what the journal has of it."""

import json
import re
from collections.abc import Callable

from helpers import wait_until
from load import LoadResult
from systemd_container import SETTINGS, SystemdContainer

UNIT = "calcd.service"
ERROR, WARNING, INFO = 3, 4, 6  # priorities in the journal

Report = Callable[[LoadResult | str], None]  # takes down what became of the requests


class Journal:
    """What the journal has since this was made."""

    def __init__(self, machine: SystemdContainer) -> None:
        self._machine = machine
        shown = machine.run("journalctl --sync; journalctl -n 0 --show-cursor --quiet")
        self._cursor = shown.partition("-- cursor: ")[2].strip()

    def of(self, unit: str) -> list[tuple[int, str]]:
        """Give priority and text of each line that a unit's processes have written."""
        entries = [entry for entry in self._entries() if entry.get("_SYSTEMD_UNIT") == unit]
        return [(int(entry["PRIORITY"]), entry["MESSAGE"]) for entry in entries]

    def about(self, unit: str) -> list[str]:
        """Give what systemd itself says of a unit."""
        return [entry["MESSAGE"] for entry in self._entries() if entry.get("UNIT") == unit]

    def _entries(self) -> list[dict[str, str]]:
        # Not with a match for the unit: journalctl then leaves out the first that does.
        after = f"--after-cursor='{self._cursor}'" if self._cursor else ""
        lines = self._machine.run(f"journalctl --sync; journalctl --quiet -o json {after}")
        return list(map(json.loads, lines.splitlines()))


class Service:
    """calcd.service, as a test finds it: its port is held, and nobody has asked yet."""

    def __init__(self, machine: SystemdContainer) -> None:
        self._machine = machine
        machine.run(
            "systemctl stop 'calcd*.socket' 'calcd*.service';"
            "cd /etc/systemd/system; rm -rf calcd*.d calcd*.wants;"
            "rm -f *.wants/calcd@* *.wants/calcd-udp* *.wants/calcd-metrics*; cd -;"
            f"install -m644 etc/calcd.conf {SETTINGS};"
            "systemctl daemon-reload; systemctl reset-failed; systemctl start calcd.socket"
        )
        self.journal = Journal(machine)

    def change(self, *lines: str) -> None:
        """Override lines of the unit, as ``systemctl edit`` does."""
        directory = self._machine.files / f"etc/systemd/system/{UNIT}.d"
        directory.mkdir()
        (directory / "test.conf").write_text("\n".join(("[Service]", *lines, "")))
        self._machine.run("systemctl daemon-reload")

    def set(self, line: str) -> None:
        """Put a line into the file of settings, and reload."""
        self.write(line)
        self._machine.run("systemctl reload calcd")

    def write(self, line: str) -> None:
        """Put a line into the file of settings."""
        with (self._machine.files / SETTINGS[1:]).open("a") as file:
            file.write(f"{line}\n")

    def unwrite(self) -> None:
        """Take the last line from the file of settings."""
        self._machine.run(f"sed -i '$d' {SETTINGS}")

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def show(self, name: str) -> str:
        return self._machine.show(UNIT, name)[0]

    def said(self, pattern: str) -> list[int]:
        """Give the priorities of the lines in its journal that match."""
        return [
            priority
            for priority, text in self.journal.of(UNIT)
            if re.search(pattern, text, re.ASCII)
        ]

    def wait_for(self, pattern: str) -> None:
        wait_until(lambda: self.said(pattern), f"{pattern!r} in the journal")

    def check_journal(self) -> None:
        """See that each line has a priority, no time stamp of its own and no bug to tell of."""
        for priority, text in self.journal.of(UNIT):
            assert priority in (ERROR, WARNING, INFO), text
            assert "Traceback" not in text, text
            assert not re.match(r"\d{4}-\d\d-\d\d|<\d>", text), text
