"""Fixtures: a daemon to talk to, and a look at what every test leaves behind."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from background_daemon import USER, Background, background_in
from calculators import CALCULATORS, Connect
from certificates import Certificates
from client_helpers import HOST, Servers, bundle
from helpers import TIMEOUT, Daemon, Daemons, daemons_in, wait_until
from hypothesis import settings
from service import Report, Service
from systemd_container import SystemdContainer, boot_systemd, commands, why_not

from calcd.core.plans import PLANS

# How long an example takes says nothing on a machine that does other things as well.
settings.register_profile("calcd", deadline=None, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("calcd")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what became of the requests in each test that had a load."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    results = [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "load" and report.when == "call"
    ]
    if results:
        terminalreporter.section("what became of the requests")
        for line in sorted(results):
            terminalreporter.write_line(line)


def _left_behind() -> dict[str, set[str]]:
    """Name this process's threads, descriptors and children."""
    descriptors = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor that lists the others
            descriptors.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    children = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):  # a thread may end meanwhile
            children |= set(Path(f"/proc/self/task/{task}/children").read_text().split())
    return {
        "threads": {f"{thread.name} {thread.ident}" for thread in threading.enumerate()},
        "descriptors": descriptors,
        "children": children,
    }


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor or a process behind."""
    before = _left_behind()
    yield
    left: dict[str, set[str]] = {}

    def nothing_left() -> bool:
        left.update({kind: now - before[kind] for kind, now in _left_behind().items()})
        return not any(left.values())

    try:
        wait_until(nothing_left, "the test's things to go", 5)
    except AssertionError:
        pytest.fail(f"left behind: {left}")


@pytest.fixture(autouse=True)
def _forget_plans() -> None:
    """Begin without the plans of other tests' lines, which this process's sessions share."""
    PLANS.clear()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Daemons]:
    """Start daemons with options of the test's own."""
    with daemons_in(tmp_path) as daemons:
        yield daemons


@pytest.fixture
def daemon(start_daemon: Daemons) -> Daemon:
    """Give a running daemon with the default settings, on a free port."""
    return start_daemon()


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Background]:
    """Start a daemon with -d, in a directory of its own; end all that came of it."""
    with background_in(tmp_path) as started:
        yield started


@pytest.fixture
def of_user() -> Iterator[Background]:
    """Start a daemon with -d in a directory of ``USER``'s: only root may enter tmp_path."""
    directory = Path(tempfile.mkdtemp(prefix="calcd-test-"))
    os.chown(directory, USER.pw_uid, USER.pw_gid)
    try:
        with background_in(directory) as background:
            yield background
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon for the whole run, to tests that leave it as it is."""
    with daemons_in(tmp_path_factory.mktemp("shared")) as daemons:
        yield daemons()


@pytest.fixture
def serve() -> Iterator[Servers]:
    """Give a way to start servers that run scripts."""
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture(params=CALCULATORS, ids=["Calculator", "AsyncCalculator"])
def calculator_of(request: pytest.FixtureRequest) -> Connect:
    """Give `Calculator`, and then an `AsyncCalculator` that is used in the same way."""
    kind: Connect = request.param
    return kind


@pytest.fixture
def connect(calculator_of: Connect) -> Connect:
    """Give a way to connect a calculator to a port of this machine, with a timeout."""
    return partial(calculator_of, HOST, timeout=TIMEOUT)


@pytest.fixture(scope="session")
def calcc_pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the client's bundle, in a directory of its own."""
    path = tmp_path_factory.mktemp("bundle") / "calcc.pyz"
    bundle(path)
    return path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates for TLS, made for this run."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdContainer]:
    """Give a booted systemd with calcd installed as docs/operations.md says, for the whole run."""
    if reason := why_not():
        pytest.skip(reason)
    with boot_systemd(tmp_path_factory.mktemp("booted")) as machine:
        machine.run("umask 077\n" + commands("service"), network=True)
        machine.run("umask 077\n" + commands("manual"))
        yield machine


@pytest.fixture
def service(machine: SystemdContainer) -> Iterator[Service]:
    """Give calcd.service as it is after its installation; look through its journal in the end."""
    service = Service(machine)
    yield service
    service.check_journal()


@pytest.fixture
def report(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Report:
    """Take down what became of the requests of a test, for the summary."""
    event = request.node.name.removeprefix("test_").replace("_", " ")
    return lambda result: record_property("load", f"{event}: {result}")
