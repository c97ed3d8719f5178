"""Machines for a test: network namespaces that have no name anywhere, and cables between them."""

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

from helpers import TIMEOUT

_NEEDED = ("ip", "nsenter", "setpriv", "unshare")


def why_not() -> str:
    """Say why a test cannot have machines here; ``""`` if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [program for program in _NEEDED if shutil.which(program) is None]:
        return f"needs {', '.join(missing)}"
    attempt = subprocess.run(
        ["unshare", "--net", "--mount", "true"], stderr=subprocess.PIPE, text=True, check=False
    )
    return attempt.stderr.strip()


class NetworkNamespace:
    """A network namespace and a mount namespace, kept by a process until ``close``.

    That process ends too when this one does, however it does: its input is a pipe from here.
    """

    def __init__(self) -> None:
        keep = "ip link set lo up && echo && exec cat"
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", keep],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout
        assert self._keeper.stdout.readline() == b"\n"
        self.pid = self._keeper.pid
        self.root = Path(f"/proc/{self.pid}/root")  # its files, seen from outside
        # The command that runs another on it, as the same process, which ends when its parent does.
        self.enter = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("nsenter", f"--target={self.pid}", "--net", "--mount", "--"),
        ]

    def run(self, script: str, *arguments: str | Path) -> None:
        """Run a shell script to its end; its arguments are $0, $1 and so on."""
        command = [*self.enter, "sh", "-e", "-c", script, *arguments]
        subprocess.run(command, timeout=TIMEOUT, check=True)

    def close(self) -> None:
        self._keeper.communicate(timeout=TIMEOUT)


def star(stack: ExitStack, centre: str, *addresses: str) -> list[NetworkNamespace]:
    """Give a machine with the address ``centre``, and those it has a cable to."""
    machines = []
    for _ in (centre, *addresses):
        machines.append(NetworkNamespace())
        stack.callback(machines[-1].close)
    for number, address in enumerate(addresses, 1):
        other = machines[number]
        machines[0].run(
            f"ip link add eth{number} type veth peer name eth0 netns {other.pid}\n"
            f"ip address add {centre} peer {address} dev eth{number}\n"
            f"ip link set eth{number} up"
        )
        other.run(f"ip address add {address} peer {centre} dev eth0\nip link set eth0 up")
    return machines
