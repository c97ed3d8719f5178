"""A pytest plugin for mutmut: each mutant gets fresh modules, short random tests and its judges.

mutmut records which functions a test calls, and judges a mutant of a function by those tests. It
does not see what is called while a module is imported, what a cache has kept from an earlier test,
nor what a daemon calls in a process of its own. JUDGES names the tests of such functions.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from mutmut.mutation.trampoline import get_mutant_under_test
from mutmut.state import state

JUDGES = {
    "calcd.config.converters": ("unit/test_settings.py",),
    "calcd.config.settings": ("unit/test_settings.py",),
    "calcd.core.decimal128": ("unit/test_decimal128.py",),
    "calcd.core.operations": (
        "unit/test_elementary.py",
        "unit/test_session.py",
        "unit/test_session_commands.py",
    ),
    "calcd.net.certificates": ("unit/test_certificates.py",),
    "calcd.net.clients": (
        "integration/test_logs.py",
        "integration/test_proxy_protocol.py",
        "integration/test_udp.py",
    ),
    "calcd.net.connection": (
        "integration/test_server.py",
        "integration/test_stop.py",
        "integration/test_tls_server.py",
    ),
    "calcd.net.limits": ("unit/test_limits.py", "integration/test_start.py"),
    "calcd.net.listeners": ("integration/test_listeners.py", "integration/test_systemd.py"),
    "calcd.net.server": (
        "integration/test_proxy_protocol.py",
        "integration/test_server.py",
        "integration/test_stop.py",
        "integration/test_tls_server.py",
    ),
    "calcd.net.sockopt": ("integration/test_udp.py",),
    "calcd.net.udp": ("integration/test_udp.py",),
    "calcd.net.unixsocket": ("integration/test_unixsocket.py",),
    "calcd.net.worker": ("integration/test_workers.py",),
    "calcd.net.workers": ("integration/test_workers.py",),
}

settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Import the project again: what ran while it was imported ran without the mutant."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != __name__ and Path(file).is_relative_to(Path.cwd()):
            del sys.modules[name]
    if get_mutant_under_test() == "stats":
        os.environ.pop("MUTANT_UNDER_TEST", None)  # daemons record nothing; this process has a copy


def _functions(module: str) -> Iterator[str]:
    """Yield mutmut's names of the functions and methods of a module."""
    names = vars(sys.modules[module])
    owners = [names, *(vars(owner) for owner in names.values() if isinstance(owner, type))]
    for name in {name for owner in owners for name in owner}:
        if name.endswith("__mutmut_orig"):
            yield f"{module}.{name.removesuffix('__mutmut_orig')}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Add the functions that this test judges to those that it has called."""
    if get_mutant_under_test() != "stats":
        return
    called = state()._stats
    if "/integration/" in item.nodeid:  # these are for the network: the others have unit tests
        called.intersection_update([name for name in called if name.startswith("calcd.net.")])
    for module, files in JUDGES.items():
        if module in sys.modules and item.nodeid.split("::")[0].endswith(files):
            called.update(_functions(module))
