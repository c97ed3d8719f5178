"""The layers of the core: imports point one way, and nothing does I/O."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

ORDER = [
    *("errors", "messages", "budget", "exact", "integers", "rounding"),
    *("fixedpoint", "exactpowers", "elementary", "trigonometry", "operations", "hints", "help"),
    *("decimal128", "commands", "expressions", "interpreter", "plans", "batch"),
    *("fastpath", "job", "closing", "preamble", "telnet", "session", "tls", "datagram"),
    *("proxyprotocol", "proxied", "x509"),
]
FORBIDDEN = {
    *("socket", "select", "selectors", "threading", "time", "os", "logging", "subprocess"),
    *("asyncio", "calcd.config", "calcd.net", "calcd.daemon", "calcd.client"),
}
MODULES = {path.stem: path for path in Path(ROOT, "calcd", "core").glob("[a-z]*.py")}


def imported(path: Path) -> Iterator[str]:
    """Yield all modules that a file imports, those for a type checker alone too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_order_names_all_modules() -> None:
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_those_below_it(module: str) -> None:
    for name in imported(MODULES[module]):
        package, _, last = name.rpartition(".")
        if package == "calcd.core":
            assert ORDER.index(last) < ORDER.index(module)
        assert not any(f"{name}.".startswith(f"{each}.") for each in FORBIDDEN), name
