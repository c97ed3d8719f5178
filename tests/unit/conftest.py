"""A unit test starts no process: one that does fails."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

_STARTS = {
    *("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec"),
    "os.system",
}
_in_unit_test = False


def _refuse_processes(event: str, _arguments: object) -> None:
    if _in_unit_test and event in _STARTS:
        raise AssertionError(f"{event}: a unit test may not start a process")


sys.addaudithook(_refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch a unit test and its fixtures, of any scope. This hook sees all tests of a run."""
    global _in_unit_test  # an audit hook cannot be removed
    _in_unit_test = Path(__file__).parent in item.path.parents
    try:
        return (yield)
    finally:
        _in_unit_test = False
