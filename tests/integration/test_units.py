"""The systemd units: systemd accepts them, the sandbox is tight, they fit the daemon.

The tools need no booted systemd: they read the files, and ``systemd-socket-activate`` takes the
place of ``calcd.socket``.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from calcd.config.endpoints import Endpoint
from calcd.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "systemd" / "calcd.service"
SOCKET = ROOT / "systemd" / "calcd.socket"
METRICS_SOCKET = ROOT / "systemd" / "calcd-metrics.socket"
TEMPLATES = [ROOT / "systemd" / name for name in ("calcd@.service", "calcd@.socket")]
UDP, UDP_TEMPLATE = (ROOT / "systemd" / name for name in ("calcd-udp.socket", "calcd-udp@.socket"))

TIMEOUT = 20  # seconds; for a machine that is busy: nothing here takes one


def needs(tool: str) -> pytest.MarkDecorator:
    """Skip a test where a tool is missing."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def values(unit: Path, directive: str) -> list[str]:
    """Give what a unit says for a directive, each time it does."""
    lines = unit.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{directive}=")]


# Checks by systemd


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, with all that it says in ``stdout``."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )


@needs("systemd-analyze")
def test_verify_prints_nothing(tmp_path: Path) -> None:
    # verify rejects a program that is not installed, so check copies that run another one.
    for unit in SERVICE, SOCKET, UDP, METRICS_SOCKET, *TEMPLATES, UDP_TEMPLATE:
        text = re.sub(r"^(Exec\w+=)calcd\b", rf"\1{sys.executable}", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
    names = [SERVICE.name, SOCKET.name, UDP.name, METRICS_SOCKET.name]
    names += ["calcd@1.service", "calcd@1.socket", "calcd-udp@1.socket"]
    # Whether the manual pages are installed says nothing about the units.
    done = analyze("verify", "--man=no", *(tmp_path / name for name in names))
    # The exit status is 0 for a misspelt directive too: check the output.
    assert (done.stdout, done.returncode) == ("", 0)


@needs("systemd-analyze")
def test_exposure() -> None:
    report = analyze("security", "--offline=true", SERVICE).stdout
    exposure = re.search(r"Overall exposure level for calcd\.service: (\d+\.\d+)", report)
    assert exposure, report
    assert float(exposure[1]) <= 0.5, report


@pytest.mark.parametrize(
    ("unit", "start"),
    [
        (SERVICE, "\n# --- The sandbox ---\n"),
        (SOCKET, "\n[Socket]\n"),
        (UDP, "\n[Socket]\n"),
        (UDP_TEMPLATE, "\n[Socket]\n"),
        (METRICS_SOCKET, "\n[Socket]\n"),
    ],
)
def test_every_group_of_lines_is_explained(unit: Path, start: str) -> None:
    """Blank lines part the groups; each begins with the comment that says what it is for."""
    explained = unit.read_text().partition(start)[2].partition("\n[Install]")[0]
    groups = explained.strip().split("\n\n")
    assert len(groups) >= 5
    assert [group for group in groups if not group.startswith("#")] == []


def test_instances_are_as_the_one() -> None:
    assert [unit.read_text() for unit in TEMPLATES] == [SERVICE.read_text(), SOCKET.read_text()]
    # Nothing in a unit's name tells calcd-udp.socket which service it is for.
    ours, theirs = (unit.read_text().partition("\n[Unit]\n")[2] for unit in (UDP, UDP_TEMPLATE))
    assert theirs.replace("calcd@%i", "calcd") == ours != theirs


def test_descriptions_name_the_instance_and_the_manual() -> None:
    for unit in (SERVICE, SOCKET, *TEMPLATES):
        assert "%N" in values(unit, "Description")[0]
    assert "%i" in values(UDP_TEMPLATE, "Description")[0]
    for unit in (ROOT / "systemd").iterdir():
        assert "man:calcd(8)" in values(unit, "Documentation")[0].split()


# The units and the daemon


def test_the_units_run_calcd_wherever_it_is_installed() -> None:
    """systemd looks for a bare name where pip's link is, and then where the package's is."""
    for unit in (ROOT / "systemd").iterdir():
        named = re.findall(r"^Exec\w+=[-+:@!]*(\S*calcd)\b", unit.read_text(), re.MULTILINE)
        assert set(named) <= {"calcd"}, unit.name
    assert values(SERVICE, "ExecStart") == ["calcd"]


def test_socket_holds_the_default_endpoint() -> None:
    (endpoint,) = Settings().listen
    assert endpoint == Endpoint(host="localhost", port=endpoint.port)
    addresses = [f"127.0.0.1:{endpoint.port}", f"[::1]:{endpoint.port}"]
    assert values(SOCKET, "ListenStream") == addresses
    assert values(UDP, "ListenDatagram") == addresses


def test_no_socket_of_udp_has_an_option_of_tcp() -> None:
    for unit in UDP, UDP_TEMPLATE:
        set_there = [line.partition("=")[0] for line in unit.read_text().splitlines()]
        assert not {"ListenStream", "NoDelay", "KeepAlive", "Backlog"} & {*set_there}
    assert values(SOCKET, "ListenDatagram") == []


def test_the_command_of_the_reload_is_that_of_the_start() -> None:
    (start,), (reload,) = values(SERVICE, "ExecStart"), values(SERVICE, "ExecReload")
    assert reload == f"{start} -s reload"


def test_a_stop_is_not_cut_short() -> None:
    (stop_timeout,) = values(SERVICE, "TimeoutStopSec")
    assert float(stop_timeout) > Settings().drain_timeout


# Inherited sockets


@contextmanager
def activated(address: str) -> Iterator[subprocess.Popen[str]]:
    """Hold an address with systemd-socket-activate, which turns into the daemon for a client."""
    command = ["systemd-socket-activate", "-l", address, sys.executable, "-m", "calcd"]
    with subprocess.Popen(
        [*command, "-c", os.devnull], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        too_late = Timer(TIMEOUT, process.kill)  # whatever waits for the process ends with it
        too_late.start()
        try:
            yield process
        finally:
            too_late.cancel()
            too_late.join()
            process.kill()


def own_loopback_address() -> str:
    """Give one where no other run on this machine listens: it has our process id in it."""
    high, middle, low = os.getpid().to_bytes(3, "big")  # Linux's have at most 22 bits
    return f"127.{128 + high}.{middle}.{low}"


@needs("systemd-socket-activate")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_inherited_socket_takes_the_place_of_listen(
    family: socket.AddressFamily, tmp_path: Path
) -> None:
    host, path = own_loopback_address(), str(tmp_path / "calcd.sock")
    name: str | tuple[str, int]
    if family == socket.AF_UNIX:
        address, name, url = path, path, f"unix://{path}"
    else:
        address, name, url = f"{host}:12000", (host, 12000), f"tcp://{host}:12000"

    with activated(address) as process, socket.socket(family) as client:
        assert process.stderr
        assert process.stderr.readline().startswith(f"Listening on {address}")
        client.settimeout(TIMEOUT)
        client.connect(name)
        client.sendall(b"SOMA 2 2\n")
        assert client.recv(100) == b"4\n"
        process.terminate()
        log = process.stderr.read()
        assert process.wait() == 0, log
    assert f"listening on {url}, from systemd in place of" in log
