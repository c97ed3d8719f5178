"""calcc.pyz: the client as one file, which needs nothing but Python."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from client_helpers import bundle, calcc
from helpers import ROOT, TIMEOUT, Daemon, clean_environment


def test_it_runs_elsewhere(
    shared_daemon: Daemon, calcc_pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-I", str(calcc_pyz)]
    done = calcc("-e", "SOMA 2 2", shared_daemon.host, shared_daemon.port, command=command)
    assert (done.stdout, done.stderr, done.returncode) == (b"4\n", b"", 0)


def test_it_is_a_program(shared_daemon: Daemon, calcc_pyz: Path) -> None:
    assert calcc_pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    where = shared_daemon.host, shared_daemon.port
    done = calcc("-e", "DIV 1 0", *where, command=[str(calcc_pyz)], PYTHONPATH="", PATH=path)
    assert (done.stderr, done.returncode) == (b"ERR DIVISION-BY-ZERO division by zero\n", 1)


def test_it_holds_what_it_needs_and_no_more(calcc_pyz: Path) -> None:
    unused = {"__main__.py", "bundle.py"}
    modules = {path.name for path in (ROOT / "calcd" / "client").glob("*.py")} - unused
    with ZipFile(calcc_pyz) as archive:
        assert set(archive.namelist()) == {
            *("__main__.py", "calcd/__init__.py"),
            *(f"calcd/client/{name}" for name in modules),
        }


def test_the_same_source_makes_the_same_file(calcc_pyz: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pyz"
    bundle(again)
    assert again.read_bytes() == calcc_pyz.read_bytes()


def test_its_modules_can_all_be_imported(calcc_pyz: Path) -> None:
    """The client needs nothing of the rest of calcd."""
    script = f"""if True:
        import importlib, pkgutil, sys
        sys.path.insert(0, {str(calcc_pyz)!r})
        import calcd
        for module in pkgutil.walk_packages(calcd.__path__, "calcd."):
            importlib.import_module(module.name)
            print(module.name)
    """
    done = calcc(command=[sys.executable, "-I", "-c", script])
    assert done.stderr == b""
    assert b"calcd.client.prompt" in done.stdout.splitlines()


def test_the_file_to_make_must_be_named() -> None:
    done = calcc(command=[sys.executable, "-m", "calcd.client.bundle"])
    assert (done.returncode, done.stderr) == (1, b"usage: python3 -m calcd.client.bundle FILE\n")


# -- Types ---------------------------------------------------------------------------------------

PROGRAM = """\
from decimal import Decimal

from calcd.client import AsyncCalculator, Calculator, CalculatorError

with Calculator("localhost", 12000, timeout=5) as calculator:
    result: Decimal = calculator.evaluate("SOMA 0.1 0.2")
    text: str = calculator.request("MAIUSCULA a")
    results: list[Decimal | CalculatorError] = calculator.evaluate_many(["DIV 1 0"])
    texts: list[str | CalculatorError] = calculator.request_many(iter(["PING"]))
    reveal_type(calculator.evaluate)


async def main() -> None:
    async with AsyncCalculator(path="/run/calcd.sock", timeout=5) as calculator:
        result: Decimal = await calculator.evaluate("SOMA 0.1 0.2")
        text: str = await calculator.request("MAIUSCULA a")
        results: list[Decimal | CalculatorError] = await calculator.evaluate_many(["DIV 1 0"])
        texts: list[str | CalculatorError] = await calculator.request_many(iter(["PING"]))
        reveal_type(calculator)
"""
WRONG = {
    "calculator.ask('PING')": "has no attribute",
    "calculator.request(1)": "has incompatible type",
    "Calculator(port='12000')": "has incompatible type",
    "AsyncCalculator(tls=True)": "has incompatible type",
    "number: int = calculator.evaluate('1')": "Incompatible types",
}


def check_types(program: str, directory: Path) -> tuple[int, str]:
    """Run mypy --strict on a program outside the tree. Return its status and its output."""
    pytest.importorskip("mypy")
    (directory / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "program.py"],
        cwd=directory,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_program_is_checked_against_its_types(tmp_path: Path) -> None:
    """calcd has py.typed."""
    status, output = check_types(PROGRAM, tmp_path)
    assert status == 0, output
    revealed = output.replace("_", "")
    assert 'Revealed type is "def (line: str) -> decimal.Decimal"' in revealed
    assert 'Revealed type is "calcd.client.asynccalculator.AsyncCalculator"' in revealed


def test_a_program_that_uses_a_calculator_wrongly_is_told_so(tmp_path: Path) -> None:
    status, output = check_types("\n".join([PROGRAM, *WRONG]), tmp_path)
    assert status == 1
    first = PROGRAM.count("\n") + 2
    for number, told in enumerate(WRONG.values(), first):
        (error,) = (line for line in output.splitlines() if f":{number}: error: " in line)
        assert told in error
