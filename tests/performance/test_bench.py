"""The benchmark: it runs, whatever of its peers is installed, and it notices a wrong answer."""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers import ROOT, clean_environment
from sessions import new_session

from tests.bench import columns, picture, programs, sums
from tests.bench.kinds import KINDS, Kind
from tests.bench.load import Bench, Contestant, Row
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
    file = tmp_path / "report.json"
    done = run_bench("pipelined", "trips", "connections", "flood", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert "one client, 1,000 deep" in done.stdout or "bc is not installed" in done.stdout
    trip = next(row for row in found["figures"] if row["what"] == "round trip, one client")
    assert trip["peer"] == "echo"
    assert trip["value"] == pytest.approx(trip["ours"][0] / trip["theirs"][0])


@needs_compiler
def test_kinds_of_lines_are_measured_beside_bc_and_drawn(tmp_path: Path) -> None:
    file, drawn = tmp_path / "report.json", tmp_path / "picture.svg"
    options = ["--python", sys.executable, "--json", str(file), "--picture", str(drawn)]
    done = run_bench("kinds", *options)
    assert done.returncode == 0, done.stderr
    assert ">SQRT a</text>" in drawn.read_text()
    rows = json.loads(file.read_text())["figures"]
    assert [row["what"] for row in rows] == [kind.name for kind in KINDS]
    for row in rows:
        assert row["peer"] == "bc" or "bc is not installed" in done.stdout
        assert f"{row['value']:.2f}x" in done.stdout or not row["peer"]


@needs_compiler
def test_tls_and_udp_are_measured_beside_c(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = run_bench("tls", "udp", "--json", str(file))
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["figures"]
    peers = [row["peer"] for row in rows]
    assert peers == 2 * ["haproxy"] + 3 * ["echo"] or "left out: " in done.stdout
    assert all(row["value"] > 0 for row in rows)


@needs_compiler
def test_a_profile_shows_where_the_time_goes(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = run_bench("profile", "--json", str(file))
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["figures"]
    shares = {row["what"]: row["value"] for row in rows}
    for load in ("8 clients one at a time", "connect, ask, close, 16 at once"):
        parts = {what: share for what, share in shares.items() if what.startswith(load)}
        assert parts[f"{load}: system call send"] > 1
        assert parts[f"{load}: calcd/core"] > 1
        assert 80 < sum(parts.values()) < 100.1  # what is less than a percent is left out


@needs_compiler
def test_columns_are_measured_beside_what_shells_have() -> None:
    done = run_bench("columns")
    assert done.returncode == 0, done.stderr
    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) >= 2 + 6
    right = {row[1]: row[-1] for row in table[2:]}
    assert all(right[command] == "yes |" for command in right if "`calcc" in command)
    assert right["`awk '{s += $1} END {print s}' prices.txt`"] in ("yes |", "no |")


def test_an_answer_to_a_column_is_right_if_its_number_is() -> None:
    third = [Fraction(1, 3)]
    assert columns.are_right([".50", "1E+3"], [Fraction(1, 2), Fraction(1000)])
    assert columns.are_right(["0." + 34 * "3"], third)
    assert columns.are_right(["." + 50 * "3"], third)
    assert not columns.are_right(["." + 33 * "3"], third)
    assert not columns.are_right(["1", "2"], [Fraction(1)])
    assert not columns.are_right(["1e+08", "error"], [Fraction(1), Fraction(2)])


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


@needs_compiler
def test_a_wrong_answer_over_udp_ends_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, seconds=0.05, rounds=1, quick=True)
    with programs.echo(bench.build("echo"), bench.log("udp"), "datagrams") as port:
        right = Contestant("right", sums.echo, f"udp:{port}")
        assert bench.ask(right, 1, 10).answers > 0
        with pytest.raises(BenchError, match="wrong answer to"):
            bench.ask(right._replace(dialect=sums.calcd), 1, 10)


def test_the_version_of_a_python_is_known() -> None:
    assert programs.version(sys.executable) == sys.version_info[:3]
    assert programs.version("/nonexistent/python3") == ()
    assert programs.version("false") == ()


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_the_answers_to_a_kind_of_lines_are_those_of_calcd(kind: Kind) -> None:
    session = new_session()
    for request, reply in kind.pairs(2000)["calcd"]:
        assert session.receive(request.encode()).decode() == reply


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_bc_is_asked_the_same(kind: Kind) -> None:
    """It truncates where calcd rounds, and each does so at each step."""
    pairs = kind.pairs(2000)
    for (request, ours), (_, theirs) in zip(pairs["calcd"], pairs["bc"], strict=True):
        bound = max(abs(Decimal(ours)), Decimal(1)) * Decimal("1e-10")
        assert abs(Decimal(ours) - Decimal(theirs)) <= bound, request


def test_the_picture_shows_what_was_measured(tmp_path: Path) -> None:
    rows = [Row("SQRT a", "/s", [5.0], "bc", [1.0]), Row("x = a", "/s", [2.0], "bc", [4.0])]
    curves = {
        "by depth": {"calcd": {1: 3.0, 10: 9000.0}, "bc": {1: 1.0, 10: 2.0}},
        "by clients": {"calcd": {1: 3.0, 2: 50.0}},
    }
    files = [tmp_path / f"{number}.svg" for number in range(2)]
    for file in files:
        picture.draw(file, rows, curves)
    assert files[0].read_bytes() == files[1].read_bytes()
    texts = [text.text for text in ElementTree.parse(files[0]).iterfind(".//{*}text")]
    assert {"SQRT a", "x = a", "5", "4", "10,000", "answers a second: by depth"} <= set(texts)
    lines = [line.get("points") for line in ElementTree.parse(files[0]).iterfind(".//{*}polyline")]
    assert len(lines) == 3


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
