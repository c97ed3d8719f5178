"""The benchmark: it runs, whatever of its peers is installed, and it notices a wrong answer."""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest
from helpers import ROOT, clean_environment
from sessions import new_session

from tests.bench import sums
from tests.bench.load import Bench, Contestant
from tests.bench.programs import BenchError

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def run_bench(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", *options],
        cwd=ROOT,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@needs_compiler
def test_it_measures_and_reports(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run_bench("pipelined", "trips", "connections", "flood", "--json", str(report))
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert "one client, 1,000 deep" in done.stdout or "bc is not installed" in done.stdout
    trip = next(row for row in found["figures"] if row["what"] == "round trip, one client")
    assert trip["peer"] == "echo"
    assert trip["value"] == pytest.approx(trip["ours"][0] / trip["theirs"][0])


@needs_compiler
def test_a_missing_peer_is_told(tmp_path: Path) -> None:
    for program in ("cc", "as", "ld", "setpriv"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    done = run_bench("pipelined", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "left out: bc is not installed" in done.stdout
    assert "left out: redis-server is not installed" in done.stdout


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    done = run_bench(PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "bench: cc is not installed\n"


@needs_compiler
@pytest.mark.parametrize(("clients", "depth"), [(1, 1), (2, 100), (4, 0)])
def test_a_wrong_answer_ends_it(tmp_path: Path, clients: int, depth: int) -> None:
    bench = Bench(tmp_path, seconds=0.05, rounds=1, quick=True)
    with ExitStack() as stack:
        right = bench.start(stack, "echo")["echo"]
        wrong = Contestant("wrong", sums.calcd, right.target)
        assert bench.ask(right, clients, depth).answers > 0
        with pytest.raises(BenchError, match="wrong answer to"):
            bench.ask(wrong, clients, depth)


def test_its_sums_are_mixed_and_distinct() -> None:
    some = sums.random_sums(2000)
    assert len(set(some)) == len(some)
    assert {each.sign for each in some} == set("+-*/")
    assert max(len(each.left.strip("-").replace(".", "")) for each in some) == sums.DIGITS


def test_each_peer_is_asked_the_same() -> None:
    exact = new_session()
    for each in sums.random_sums(2000):
        request, reply = sums.calcd(each)
        assert exact.receive(request.encode()).decode() == reply
        ours, largest = Decimal(reply), max(abs(Decimal(each.left)), abs(Decimal(each.right)))
        for peer in (sums.bc, sums.redis):
            theirs = Decimal(peer(each)[1].split("\r\n")[-2 if peer is sums.redis else 0])
            bound = max(abs(ours), largest if each.sign in "+-" else 0) * Decimal("1e-13")
            assert abs(theirs - ours) <= max(bound, Decimal("1e-33"))
