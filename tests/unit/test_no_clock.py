"""The rule of tests/performance: a time is asserted on there, and nowhere else."""

import ast
import re
from collections.abc import Iterator

import pytest
from helpers import ROOT

CLOCK = re.compile(r"\b(cpu_seconds|(monotonic|perf_counter|process_time|thread_time)(_ns)?)\(")
ALLOWED = {  # which do not fail because a machine is slow
    "test_a_reload_is_reported": "a time stamp lies between two others",
    "test_floods_of_the_refused_and_of_bad_requests_fill_the_log_at_the_rate_that_is_stated": (
        "the more time passes, the more lines there may be"
    ),
}


def names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def asserts_on_time(source: str) -> Iterator[tuple[str, int]]:
    """Yield the function and line of each assert on a clock, or on a variable that has its time."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        times, asserts = set(), []
        for node in ast.walk(function):
            match node:
                case ast.Assert(test=test):
                    asserts.append(test)
                case (
                    ast.Assign(targets=[target])
                    | ast.NamedExpr(target=target)
                    | ast.Call(func=ast.Attribute(attr="append") as target)
                ) if CLOCK.search(ast.unparse(node)):
                    times |= names_in(target)
        for test in asserts:
            if CLOCK.search(ast.unparse(test)) or names_in(test) & times:
                yield function.name, test.lineno


@pytest.mark.parametrize(
    "lines",
    [
        ["began = time.monotonic()", "assert time.monotonic() - began < 1"],
        ["took['a'] = perf_counter() - began", "assert took['a'] < 1"],
        ["waits.append(time.thread_time() - began)", "assert max(waits) < 1"],
        ["while (seconds := time.monotonic() - began) < 9: pass", "assert seconds < 10"],
    ],
)
def test_an_assert_on_a_time_is_found(lines: list[str]) -> None:
    assert list(asserts_on_time("\n    ".join(["def test():", *lines]))) == [("test", 3)]


def test_no_test_outside_tests_performance_asserts_on_a_time() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {function}"
        for path in sorted(ROOT.glob("tests/*/test_*.py"))
        if path.parent.name != "performance"
        for function, line in asserts_on_time(path.read_text("utf-8"))
        if function not in ALLOWED
    ]
    assert not found, f"what asserts on a time belongs to tests/performance: {found}"
