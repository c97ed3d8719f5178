"""Debian's package in a booted systemd: built, installed, upgraded, removed and purged.

It is built and installed as docs/operations.md says, in a machine that has no other calcd.
"""

import re
import shutil
from collections.abc import Iterator

import pytest
from helpers import ROOT, wait_until
from service import Report
from systemd_container import CHECKOUT, SETTINGS, SystemdContainer, boot_systemd, commands, why_not

from calcd import __version__

_NEEDED = ("dpkg-buildpackage", "dh", "dh_python3", "pybuild", "lintian", "man")
VERSION = __version__
INSTALL = f"dpkg --force-confmiss -i /srv/calcd_{VERSION}_all.deb"

CLIENTS = 4


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdContainer]:
    """Give a booted systemd without calcd, where packages may start services and have manuals."""
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if reason := why_not() or ("not installed: " + ", ".join(missing) if missing else ""):
        pytest.skip(reason)
    with boot_systemd(tmp_path_factory.mktemp("package")) as machine:
        # What an image of a container has in place of a machine's own; and no index of manuals,
        # which takes seconds.
        machine.run(
            "mkdir -p /etc/systemd/system/sockets.target.wants;"
            "rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/docker* /var/lib/man-db/auto-update"
        )
        yield machine


@pytest.fixture(scope="module")
def files_before(bare: SystemdContainer) -> set[str]:
    """Name the files and users that are there before calcd is."""
    return everything(bare)


@pytest.fixture(scope="module")
def packaged(bare: SystemdContainer, files_before: set[str]) -> SystemdContainer:
    """Build the package and install it, by a user whose files are private."""
    assert not [name for name in files_before if "calcd" in name]
    bare.run("umask 077\n" + commands("package"), network=True)
    return bare


@pytest.fixture
def installed(packaged: SystemdContainer) -> SystemdContainer:
    """Give the machine with the package as it is after its installation."""
    packaged.run(
        "systemctl stop 'calcd*.socket' 'calcd*.service';"
        f"rm -f {SETTINGS} /etc/systemd/system/*.wants/calcd@*;"
        f"{INSTALL};"
        "systemctl daemon-reload; systemctl start calcd.socket"
    )
    return packaged


def everything(machine: SystemdContainer) -> set[str]:
    """Name each file, unit and user, but what other programs keep in /var."""
    found = machine.run(
        "find /etc /opt /usr -name __pycache__ -prune -o -print;"
        "find /run /tmp /usr/lib/python3 /var -path '*calcd*';"
        "systemctl list-unit-files 'calcd*' --no-legend || true;"
        "systemctl list-units --all 'calcd*' --plain --no-legend;"
        "getent passwd; getent group"
    )
    return set(found.splitlines())


def pids(machine: SystemdContainer, *units: str) -> list[str]:
    return [machine.show(unit, "MainPID")[0] for unit in units]


def test_lintian_finds_nothing(packaged: SystemdContainer) -> None:
    told = packaged.run(f"lintian --fail-on error,warning ../calcd_{VERSION}_*.changes 2>&1")
    assert not re.search("^[EW]: ", told, re.MULTILINE), told


def test_the_first_client_wakes_the_service(installed: SystemdContainer) -> None:
    assert installed.show("calcd.socket", "ActiveState", "UnitFileState") == ["active", "enabled"]
    assert installed.show("calcd.service", "ActiveState") == ["inactive"]
    assert installed.ask("SOMA 0.1 0.2") == "0.3"
    assert installed.show("calcd.service", "ActiveState", "FragmentPath") == [
        "active",
        "/lib/systemd/system/calcd.service",
    ]
    # For a worker process: the sandbox lets it find the modules.
    line = "= " + "+".join(40 * ["exp(0.1234)+ln(3)"])
    assert installed.ask(line).startswith("89.19")
    assert installed.run("readlink -f /bin/calcc $(command -v calcd)").split() == [
        "/usr/bin/calcc",
        "/usr/bin/calcd",
    ]


def test_every_program_finds_its_part(installed: SystemdContainer) -> None:
    manuals = installed.run("man -w 8 calcd; man -w 1 calcc; man -w 5 calcd.conf").split()
    assert manuals == [
        "/usr/share/man/man8/calcd.8.gz",
        "/usr/share/man/man1/calcc.1.gz",
        "/usr/share/man/man5/calcd.conf.5.gz",
    ]
    for directory, names in {
        "bash-completion/completions": "calcc calcd",
        "zsh/vendor-completions": "_calcc _calcd",
        "fish/vendor_completions.d": "calcc.fish calcd.fish",
    }.items():
        listed = installed.run(f"cd /usr/share/{directory}; ls -d *calc[cd]*").split()
        assert listed == names.split()
    assert installed.run("dpkg-query -f '${Conffiles}' -W calcd").split()[::2] == [
        SETTINGS,
        "/etc/logrotate.d/calcd",
    ]
    units = {path.name for path in (ROOT / "systemd").iterdir()}
    assert set(installed.run("cd /lib/systemd/system; ls -d calcd*").split()) == units
    # Which has no log file and no user yet.
    assert installed.run("logrotate /etc/logrotate.d/calcd") == ""
    imported = "from calcd.client import Calculator; print(Calculator('localhost').evaluate('2+2'))"
    assert installed.run(f'cd /; /usr/bin/python3 -c "{imported}"') == "4\n"


def test_it_runs_in_the_background(installed: SystemdContainer) -> None:
    """With the python-daemon of the distribution."""
    installed.run("systemctl stop calcd.socket")
    where = installed.run("/usr/bin/python3 -c 'import daemon; print(daemon.__file__)'")
    assert where.startswith("/usr/lib/python3/")
    installed.run(commands("background"))
    try:
        assert installed.run("calcd -s status", 0)
        assert installed.ask("SOMA 2 2") == "4"
        installed.run("logrotate --force /etc/logrotate.d/calcd")
        log = installed.files / "var/log/calcd/calcd.log"
        wait_until(lambda: log.stat().st_size, "the daemon to open its new log")
        assert installed.run("stat -c '%U %a' /var/log/calcd/*").split("\n")[0] == "calcd 640"
    finally:
        installed.run("calcd -s stop; userdel calcd; rm -r /var/log/calcd")


@pytest.fixture
def next_version(installed: SystemdContainer) -> Iterator[str]:
    """Make a new version of the checkout, for a test."""
    version = f"{VERSION}.1"
    entry = f"calcd ({version}) unstable; urgency=medium\n\n  * A test.\n\n -- T <t@example.org>  "
    entry += "Sat, 28 Nov 2026 12:00:00 +0000\n\n"
    checkout = installed.files / CHECKOUT[1:]
    old = {checkout / name: "" for name in ("calcd/__init__.py", "debian/changelog")}
    for path in old:
        old[path] = path.read_text()
    module, changelog = old
    module.write_text(old[module].replace(VERSION, version))
    changelog.write_text(entry + old[changelog])
    yield version
    for path, text in old.items():
        path.write_text(text)


def test_a_package_upgrade(installed: SystemdContainer, next_version: str, report: Report) -> None:
    with (installed.files / SETTINGS[1:]).open("a") as file:
        file.write("precision = 40\n")
    installed.run("systemctl enable --now calcd@1.socket")
    *build, install = commands("package").splitlines()
    installed.run("\n".join(build), network=True)
    services = "calcd.service", "calcd@1.service"
    with installed.load(CLIENTS) as result:
        wait_until(lambda: "0" not in pids(installed, *services), "both services to be woken")
        before = pids(installed, *services)
        installed.run(install, network=True)
        assert installed.ask("VERSION") == f"calcd {next_version}"
    report(result)
    after = pids(installed, *services)
    assert not set(before) & set(after)
    assert installed.ask("DIV 1 3") == "0." + 40 * "3"
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
    # A client whose request crosses the FIN of a daemon sees an end of stream and asks again.
    assert result.ended <= CLIENTS * len(services)


def test_a_removal_keeps_the_settings(installed: SystemdContainer) -> None:
    with (installed.files / SETTINGS[1:]).open("a") as file:
        file.write("precision = 40\n")
    installed.run("systemctl enable --now calcd@1.socket")
    installed.ask("PING")
    running = [pid for pid in pids(installed, "calcd.service", "calcd@1.service") if pid != "0"]
    assert running
    installed.run("apt-get remove -y calcd")
    assert not [pid for pid in running if (installed.files / "proc" / pid).exists()]
    installed.run("exec 3<>/dev/tcp/127.0.0.1/12000", 1)
    assert installed.run("systemctl list-units 'calcd*' --no-legend") == ""
    installed.run(INSTALL)
    assert installed.ask("DIV 1 3") == "0." + 40 * "3"


def test_a_purge_leaves_nothing(installed: SystemdContainer, files_before: set[str]) -> None:
    sockets = [path.name.replace("@.", "@1.") for path in (ROOT / "systemd").glob("*.socket")]
    assert "calcd@1.socket" in sockets
    installed.run(f"systemctl enable {' '.join(sockets)}; systemctl start calcd@1.socket")
    installed.ask("PING")
    installed.run("mkdir /var/log/calcd; touch /var/log/calcd/calcd.log.1")
    installed.run(commands("package-purge"))
    try:
        installed.run("exec 3<>/dev/tcp/127.0.0.1/12000", 1)
        assert everything(installed) - files_before == set()
    finally:
        installed.run(INSTALL)
