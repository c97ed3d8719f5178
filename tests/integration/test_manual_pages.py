"""The manual pages are read by the programs that people have: mandoc and man."""

import re
import shutil
import subprocess
from pathlib import Path

import manuals
import pytest
from helpers import ROOT, TIMEOUT, clean_environment
from manuals import PAGES


def run(
    *command: object, cwd: Path = ROOT, manpath: Path | None = None
) -> subprocess.CompletedProcess[str]:
    searched = {"MANPATH": str(manpath)} if manpath else {}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(LC_ALL="C.UTF-8", MANWIDTH="80", **searched),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@needs("mandoc")
def test_mandoc_finds_no_fault(tmp_path: Path) -> None:
    """It reports pages that are referred to and found neither in the system nor beside these."""
    for page in PAGES:
        shutil.copy(page, tmp_path)
        for name, section in re.findall(r"^\.Xr (\S+) (\d)", page.read_text(), re.MULTILINE):
            if not name.startswith("calc"):
                (tmp_path / f"{name}.{section}").touch()
    done = run("mandoc", "-T", "lint", *(page.name for page in PAGES), cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)


@needs("man")
@needs("groff")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_formats_it_without_a_warning(page: Path) -> None:
    done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page)
    assert (done.stderr, done.returncode) == ("", 0)


@needs("man")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_finds_and_shows_it_where_it_is_installed(page: Path, tmp_path: Path) -> None:
    manuals.install(tmp_path)
    name = page.name.rpartition(".")[0]
    found = run("man", "-w", name, manpath=tmp_path)
    assert found.stdout.strip() == str(tmp_path / f"man{page.suffix[1:]}" / page.name)
    shown = run("man", name, manpath=tmp_path).stdout
    assert shown.startswith(f"{name.upper()}({page.suffix[1:]})")
    assert f"\n     {name} — " in shown
    assert max(map(len, shown.splitlines())) <= 80
