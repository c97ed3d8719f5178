"""The README says only what is so: its transcripts are run, its tables held to the code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import PATIENCE, ROOT, Daemon, clean_environment

from calcd.config.settings import SETTINGS
from calcd.core.commands import TABLE

README = (ROOT / "README.md").read_text()


def transcripts() -> list[tuple[str, str]]:
    """Give each command of a console block with what it is shown to print."""
    blocks = re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def first_cells(heading: str) -> list[str]:
    """Give the names in the first column of the table under a heading of the README."""
    table = README.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    rows = table.split("\n")[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


in_a_network_of_its_own = pytest.mark.skipif(
    os.geteuid() != 0, reason="a network namespace of its own needs root"
)


@contextmanager
def serving(directory: Path) -> Iterator[list[str]]:
    """Serve in a network where the default port is free; give the command to run others there."""
    both = "-l tcp://localhost:12000 -l udp://localhost:12000"
    serve = f"ip link set lo up && exec {shlex.quote(sys.executable)} -m calcd {both}"
    daemon = Daemon(["unshare", "--net", "bash", "-c", serve], directory / "daemon.log")
    try:
        assert daemon.port == 12000
        yield ["nsenter", "--target", str(daemon.process.pid), "--net"]
    finally:
        assert daemon.stop() == 0


@in_a_network_of_its_own
@pytest.mark.skipif(shutil.which("nc.openbsd") is None, reason="needs Debian's netcat-openbsd")
def test_each_transcript_is_what_happens(tmp_path: Path) -> None:
    """Word for word."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in {
        "nc": "nc.openbsd",
        "python3": sys.executable,
        "calcc": f"{sys.executable} -m calcd.client",
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    with serving(tmp_path) as network:
        assert len(transcripts()) >= 5
        for command, output in transcripts():
            result = subprocess.run(
                [*network, "bash", "-c", command],
                cwd=ROOT,
                env=clean_environment(PATH=f"{programs}:{os.environ['PATH']}"),
                capture_output=True,
                timeout=PATIENCE,
                check=True,
            )
            assert result.stdout.decode().replace("\r\n", "\n") == output, command
            assert result.stderr == b"", command


# Tcl: types a line once the reply to the one before is there.
TELNET = r"""
set timeout 10
eval spawn -noecho [lindex $argv 0] inetutils-telnet localhost 12000
expect_after { timeout { exit 1 } eof { exit 1 } }
expect "Escape character is '^]'.\r\n"
after 200
foreach {typed reply} [lrange $argv 1 end] {
    send -- "$typed\r"
    expect -ex "$typed\r\n"
    expect -ex "$reply\r\n"
}
expect "foreign host."
expect eof
"""


@in_a_network_of_its_own
@pytest.mark.skipif(
    not (shutil.which("inetutils-telnet") and shutil.which("expect")),
    reason="needs Debian's inetutils-telnet and expect",
)
def test_the_person_at_telnet_sees_what_is_shown(tmp_path: Path) -> None:
    block = README.split("<!-- telnet -->\n```\n", 1)[1].split("```", 1)[0]
    _, *shown = block.splitlines()
    lines = shown[3:-1]  # after telnet's own, typed and replied in turn
    assert len(lines) % 2 == 0
    script = tmp_path / "telnet.exp"
    script.write_text(TELNET)
    with serving(tmp_path) as network:
        done = subprocess.run(
            ["expect", script, " ".join(network), *lines],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.stdout.replace("\r", "").splitlines() == shown, done


def test_the_settings_are_those_of_the_table() -> None:
    assert first_cells("setting") == [row.name for row in SETTINGS]
    for row in SETTINGS:
        if row.metadata["text"]:
            assert f"| `{row.name}` | `{row.metadata['text']}` |" in README


def test_the_operations_are_those_of_the_table() -> None:
    assert first_cells("operation") == [name for row in TABLE for name in row.names]


def test_the_error_codes_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "calcd").rglob("*.py"))
    raised = set(re.findall(r'(?:RequestError|UnfinishedError|fail)\(\s*"([A-Z-]+)"', sources))
    refused = set(re.findall(r'\bcode(?:, words)? = "([A-Z-]+)"', sources))
    assert refused == {"BUSY", "FORBIDDEN"}
    assert raised | refused == set(first_cells("code"))


def test_the_clients_options_are_those_it_tells() -> None:
    usage = next(line for line in README.splitlines() if line.startswith("calcc [-"))
    told = subprocess.run(
        [sys.executable, "-m", "calcd.client", "-h"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert " ".join(usage.split()) in " ".join(told.stdout.split())
