"""The README says only what is so: its transcripts are run, its tables held to the code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE, ROOT, Daemon, clean_environment

from calcd.commands import TABLE
from calcd.settings import SETTINGS

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


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
@pytest.mark.skipif(shutil.which("nc.openbsd") is None, reason="needs Debian's netcat-openbsd")
def test_each_transcript_is_what_happens(tmp_path: Path) -> None:
    """In a network of its own, where the default port is free, word for word."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in {
        "nc": "nc.openbsd",
        "python3": sys.executable,
        "calcc": f"{sys.executable} {ROOT}/calcd/client.py",
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    both = "-l tcp://localhost:12000 -l udp://localhost:12000"
    serve = f"ip link set lo up && exec {shlex.quote(sys.executable)} -m calcd {both}"
    daemon = Daemon(["unshare", "--net", "bash", "-c", serve], tmp_path / "daemon.log")
    try:
        assert daemon.port == 12000
        assert len(transcripts()) >= 4
        for command, output in transcripts():
            network = ["nsenter", "--target", str(daemon.process.pid), "--net"]
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
    finally:
        assert daemon.stop() == 0


def test_the_settings_are_those_of_the_table() -> None:
    assert first_cells("setting") == [row.name for row in SETTINGS]
    for row in SETTINGS:
        if row.metadata["text"]:
            assert f"| `{row.name}` | `{row.metadata['text']}` |" in README


def test_the_operations_are_those_of_the_table() -> None:
    assert first_cells("operation") == [name for row in TABLE for name in row.names]


def test_the_error_codes_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "calcd").glob("*.py"))
    raised = set(re.findall(r'(?:RequestError|_fail)\(\s*"([A-Z-]+)"', sources))
    refused = set(re.findall(r'\bcode(?:, words)? = "([A-Z-]+)"', sources))
    assert refused == {"BUSY", "FORBIDDEN"}
    assert raised | refused == set(first_cells("code"))


def test_the_clients_options_are_those_it_tells() -> None:
    usage = next(line for line in README.splitlines() if line.startswith("calcc [-"))
    told = subprocess.run(
        [sys.executable, ROOT / "calcd" / "client.py", "-h"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert " ".join(usage.split()) in " ".join(told.stdout.split())
