"""A systemd that is really booted, for the tests: ``boot.sh`` in namespaces of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import mkdtemp

from documents import OPERATIONS, marked
from helpers import ROOT, TIMEOUT, wait_until
from load import LoadResult, load_on

# With what docs/operations.md puts into /usr/local/bin, but not another Python there.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
_NEEDED = ("/lib/systemd/systemd", "/usr/bin/python3", "hostname", "ip", "nsenter", "setpriv")
CHECKOUT = "/srv/calcd"  # where the machine has the checkout
SETTINGS = "/etc/calcd/calcd.conf"


def why_not() -> str:
    """Say why no systemd can be booted here; ``""``: it can."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    for program in _NEEDED:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if subprocess.run(["/usr/bin/python3", "-c", "import ensurepip"], check=False).returncode:
        return "/usr/bin/python3 cannot make virtual environments: install python3-venv"
    if _cgroup2() is None:
        return "there is no cgroup2 hierarchy to be written to"
    return ""


def _cgroup2() -> Path | None:
    """Find where the cgroup2 hierarchy is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, file_system = line.partition(" - ")
        if file_system.startswith("cgroup2 "):
            path = Path(mount.split()[4])
            return path if os.access(path, os.W_OK) else None
    return None


def commands(name: str) -> str:
    """Return the commands of docs/operations.md that follow the mark ``<!-- name -->``."""
    return marked(OPERATIONS, name)


class SystemdContainer:
    """A running systemd, and ways to do things there."""

    def __init__(self, pid: int) -> None:
        self.pid = pid  # of its process 1, as seen from here
        self.files = Path(f"/proc/{pid}/root")

    def run(self, command: str, status: int | None = 0, network: bool = False) -> str:
        """Run a command of bash, as root, in the checkout; return what it prints.

        ``status`` is how it must exit; None: as it likes. ``network`` is to run it in this
        machine's network, from which packages can be had.
        """
        result = subprocess.run(
            [*self._enter(network), "bash", "-ec", f"cd {CHECKOUT}\n{command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=(10 if network else 3) * TIMEOUT,  # with a network, pip installs
            check=False,
        )
        assert status is None or result.returncode == status, f"{command}: {result.stdout}"
        return result.stdout

    def _enter(self, network: bool = False) -> list[str]:
        which = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", *([] if network else ["--net"])]
        pips = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        environment = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **pips}
        return [
            *("nsenter", "--target", str(self.pid), *which),
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
        ]

    @property
    def network(self) -> Sequence[str]:
        """The command that runs another one in the machine's network, with this one's files."""
        return ["nsenter", "--target", str(self.pid), "--net"]

    def load(self, clients: int = 4) -> AbstractContextManager[LoadResult]:
        """Let clients ask all the while."""
        return load_on("127.0.0.1", 12000, network=self.network, clients=clients)

    def ask(self, request: str) -> str:
        """Ask with the client that is installed there."""
        return self.run(f"calcc -w {TIMEOUT} -e '{request}'", None).strip()

    def show(self, unit: str, *properties: str) -> list[str]:
        """Give properties of a unit."""
        names = " ".join(f"-p {name}" for name in properties)
        shown = dict(
            line.split("=", 1) for line in self.run(f"systemctl show {names} {unit}").splitlines()
        )
        return [shown[name] for name in properties]


@contextmanager
def boot_systemd(directory: Path) -> Iterator[SystemdContainer]:
    """Boot a systemd, and take everything away in the end."""
    hierarchy = _cgroup2()
    assert hierarchy
    cgroup = Path(mkdtemp(prefix="calcd-tests-", dir=hierarchy))
    output = directory / "boot.log"
    with output.open("wb") as log:
        outside = subprocess.Popen(
            ["bash", Path(__file__).with_name("boot.sh"), cgroup, directory],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        wait_until(lambda: children.read_text() or outside.poll() is not None, "a process 1")
        machine = SystemdContainer(int(children.read_text()))

        def is_up() -> bool:
            assert outside.poll() is None, output.read_text()
            return machine.run("systemctl is-active basic.target", None).strip() == "active"

        wait_until(is_up, "systemd to boot")
        shutil.copytree(ROOT, machine.files / CHECKOUT[1:], ignore=_not_needed, dirs_exist_ok=True)
        yield machine
    finally:
        outside.kill()
        outside.wait()
        events = cgroup / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), "the last process to go")
        _remove(cgroup)


def _not_needed(_: str, names: list[str]) -> set[str]:
    """Name what of the checkout has nothing to do with installing it."""
    return {name for name in names if name[0] == "." or name in ("__pycache__", "build", "tests")}


def _remove(cgroup: Path) -> None:
    for below in [path for path in cgroup.iterdir() if path.is_dir()]:
        _remove(below)
    cgroup.rmdir()
