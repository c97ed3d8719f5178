"""The packages: what they have in them, and that they install and run."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, clean_environment

import calcd

TIMEOUT = 50  # seconds for one command; it makes a package or a virtual environment
OLD_PYTHONS = ["3.6", "3.7", "3.8", "3.9", "3.10"]
BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])('dist'))"


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean_environment(), "PYTHONPATH": "", "PYTHONWARNINGS": "", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def build(tree: Path, kind: str) -> Path:
    """Build ``kind``, a function of the build backend, in a source tree; return the package."""
    output = run(sys.executable, "-c", BUILD, kind, cwd=tree)
    return tree / "dist" / output.splitlines()[-1]


@pytest.fixture(scope="module")
def source_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Name the files of this tree that git has or would add, whether it is a clone or not."""
    empty = tmp_path_factory.mktemp("git") / "empty"
    run("git", "init", "-q", "--bare", empty, cwd=ROOT)
    git = ("git", f"--git-dir={empty}", f"--work-tree={ROOT}")
    listed = run(*git, "ls-files", "-z", "--others", "--exclude-standard", cwd=ROOT)
    return sorted(listed.rstrip("\0").split("\0"))


@pytest.fixture
def tree(tmp_path: Path, source_files: list[str]) -> Path:
    """Give a copy of the source tree, which a build may write to."""
    copy = tmp_path / "tree"
    for name in source_files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


def test_the_source_distribution_has_every_file_of_the_repository(
    tree: Path, source_files: list[str]
) -> None:
    with tarfile.open(build(tree, "build_sdist")) as archive:
        members = [member.name.partition("/")[2] for member in archive if member.isfile()]
    made = {name for name in members if name == "PKG-INFO" or ".egg-info/" in name}
    assert sorted(set(members) - made) == source_files


@pytest.mark.timeout(180)  # it makes three packages and a virtual environment
def test_the_source_distribution_can_be_installed_and_tested(tree: Path, tmp_path: Path) -> None:
    """Without a network: the package has no need of anything to be built."""
    run("tar", "-xf", build(tree, "build_sdist"), cwd=tmp_path)
    (unpacked,) = tmp_path.glob("calcd-*")
    pip = (sys.executable, "-m", "pip", "--no-input")
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "wheel", "-q", *offline, "-w", tmp_path / "wheels", unpacked, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").iterdir()
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(*pip, "--python", python, "install", "-q", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    where = run(python, "-c", "import calcd; print(calcd.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
    assert run(python.with_name("calcc"), "-h", cwd=tmp_path)
    assert run(python.with_name("calcd"), "-h", cwd=tmp_path)

    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_session.py")
    told = run(sys.executable, *tests, cwd=unpacked, PYTEST_ADDOPTS="")
    assert " passed" in told


def test_a_wheel_has_the_package_alone_and_says_that_it_has_types(tree: Path) -> None:
    with zipfile.ZipFile(build(tree, "build_wheel")) as wheel:
        names = wheel.namelist()
    assert "calcd/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"calcd"}


def test_a_build_directory_left_behind_brings_no_removed_module_back(tree: Path) -> None:
    stale = tree / "build" / "lib" / "calcd" / "removed.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    with zipfile.ZipFile(build(tree, "build_wheel")) as wheel:
        names = wheel.namelist()
    assert "calcd/removed.py" not in names
    assert "calcd/daemon/main.py" in names


def test_debians_package_has_the_version_of_the_module() -> None:
    newest = (ROOT / "debian" / "changelog").read_text().partition("\n")[0]
    assert newest.startswith(f"calcd ({calcd.__version__}) ")


def _old_pythons() -> Iterator[str]:
    """Find the Pythons here that are too old: on the PATH or installed by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in OLD_PYTHONS:
        candidates = [shutil.which(f"python{version}")]
        candidates += map(str, pyenv.glob(f"versions/{version}.*/bin/python3"))
        for candidate in filter(None, candidates):
            if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
                continue  # a name that pyenv gives to a Python which is not chosen
            yield candidate
            break


def start(python: str, *options: str) -> tuple[int, str, str]:
    """Run calcd; return its exit status, output and errors."""
    done = subprocess.run(
        [python, *options],
        cwd=ROOT,
        env={**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_python_that_is_too_old_is_told_so_in_one_line() -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 10, 9)"
    told = start(sys.executable, "-c", f"{pretend}; runpy.run_module('calcd', None, '__main__')")
    assert told == (2, "", "calcd: needs Python 3.11 or later, this is 3.10\n")
    for python in _old_pythons():
        status, output, errors = start(python, "-m", "calcd")
        assert (status, output) == (2, ""), errors
        assert errors.startswith("calcd: needs Python 3.11 or later, this is 3.")
        assert errors.count("\n") == 1


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_what_an_old_python_reads_first_is_in_its_grammar(name: str) -> None:
    ast.parse((ROOT / "calcd" / name).read_text(), feature_version=(3, 6))
