"""The shipped HAProxy configuration, with real servers, each on a machine of its own."""

import os
import re
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import network_namespaces
import pytest
from haproxy_cluster import (
    CLIENT,
    CLIENT6,
    CONFIGURATION,
    PROXY,
    PROXY6,
    SERVERS,
    Conversation,
    HaproxyCluster,
    cluster_in,
)
from helpers import ROOT, TIMEOUT, Daemon, wait_until
from load import load_on

from calcd.config.settings import Settings

CLIENTS = 4  # that ask all the while, without TLS and with it
LONG = 12  # seconds: longer than a half-closed connection had, which was 10
BATCH = b"SUB 1234.5678 0.0078\n" * 50_000  # one MB
BATCH_REPLIES = b"1234.5600\n" * 50_000

_PROGRAMS = ("haproxy", "nc.openbsd", "ncat", "openssl")
_MISSING = ", ".join(program for program in _PROGRAMS if shutil.which(program) is None)
_WHY_NOT = f"needs {_MISSING}" if _MISSING else network_namespaces.why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT != "", reason=_WHY_NOT)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[HaproxyCluster]:
    """Give a cluster to a test that breaks it."""
    with cluster_in(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HaproxyCluster]:
    """Give a cluster to tests that leave it as it is."""
    with cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def idle_cluster(shared_cluster: HaproxyCluster) -> HaproxyCluster:
    """Give the shared cluster when the clients of earlier tests are gone."""
    wait_until(lambda: not any(shared_cluster.current()), "earlier clients to go")
    return shared_cluster


@pytest.fixture
def clients(idle_cluster: HaproxyCluster) -> Iterator[Callable[[], Conversation]]:
    """Make clients that have a connection each, have had an answer, and stay."""
    with ExitStack() as stack:

        def connect() -> Conversation:
            client = stack.enter_context(idle_cluster.talk(f"nc.openbsd {PROXY} 12000"))
            stack.callback(client.kill)
            assert client.ask(b"SOMA 2 2\n") == b"4\n"
            return client

        yield connect


def killed(cluster: HaproxyCluster, name: str) -> None:
    cluster.stop(name, signal.SIGKILL)
    cluster.wait_for(name, "DOWN")
    cluster.start(name)
    cluster.wait_for(name, "UP")


def restarted(cluster: HaproxyCluster, name: str) -> None:
    assert cluster.stop(name) == 0
    assert "stopped: 0 connections cut" in cluster.daemons[name].log
    cluster.start(name)


def frozen(cluster: HaproxyCluster, name: str) -> None:
    """Its kernel goes on to accept connections: only a question finds out."""
    cluster.daemons[name].process.send_signal(signal.SIGSTOP)
    try:
        cluster.wait_for(name, "DOWN")
        assert cluster.stat(name, "check_status") == "L7TOUT"
        wait_until(lambda: cluster.stat(name, "scur") == "0", "its clients to be sent away")
    finally:
        cluster.daemons[name].process.send_signal(signal.SIGCONT)
    cluster.wait_for(name, "UP")


@pytest.mark.parametrize("event", [killed, restarted, frozen])
def test_clients_that_ask_again_notice_nothing(
    cluster: HaproxyCluster,
    event: Callable[[HaproxyCluster, str], None],
    record_property: Callable[[str, object], None],
) -> None:
    load = partial(load_on, PROXY, network=cluster.client.enter, clients=CLIENTS)
    name = "calcd2"
    cluster.wait_for_checks()
    with load(12000) as plain, load(12001, cafile=str(cluster.certificate)) as tls:
        cluster.wait_for_connections(name, CLIENTS)
        event(cluster, name)
        cluster.wait_for_connections(name, CLIENTS)
    for kind, result in (("", plain), (", with TLS", tls)):
        record_property("load", f"one of three {event.__name__}{kind}: {result}")
        assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
        assert result.answered > 100
        assert result.cut <= CLIENTS  # what the server had, and no new one


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("requests", ["SOMA 2 2", "x = 4"])
def test_calcc_goes_on_at_another_server_if_it_has_set_nothing(
    cluster: HaproxyCluster, requests: str, signum: int
) -> None:
    cluster.wait_for_checks()
    calcc = f"env PYTHONPATH={ROOT} {sys.executable} -m calcd.client"
    with cluster.talk(f"{calcc} {PROXY} 12000 2>&1") as client:
        try:
            assert client.ask(f"{requests}\n".encode()) == b"4\n"
            name = list(SERVERS)[cluster.current().index(1)]
            cluster.stop(name, signum)
            if "=" in requests:
                assert client.ask(b"SUB 5 3\n").endswith(b"with a reply: 1, none from line 2 on\n")
                assert client.wait(TIMEOUT) == 3
            else:
                assert client.ask(b"SUB 5 3\n") == b"2\n"
                client.communicate(timeout=TIMEOUT)
                assert client.returncode == 0
        finally:
            client.kill()


def test_it_is_valid_without_a_word(shared_cluster: HaproxyCluster) -> None:
    with shared_cluster.haproxy("-c") as haproxy:
        output, _ = haproxy.communicate(timeout=TIMEOUT)
    assert output in (b"", b"Configuration file is valid\n")
    assert haproxy.returncode == 0


def test_it_goes_with_the_settings_defaults() -> None:
    settings = Settings()
    number = {
        name: int(value)
        for name, value in re.findall(
            r"\b(maxconn|timeout \S+) (\d+)s?$", CONFIGURATION.read_text(), re.M
        )
    }
    assert number["timeout client"] > settings.idle_timeout < number["timeout server"]
    assert number["timeout client-fin"] == settings.send_timeout
    assert "timeout server-fin" not in number  # a reply may take longer than any such time
    assert number["maxconn"] < settings.max_connections  # the last one: a server's
    assert settings.max_connections_per_host == 0


@pytest.mark.parametrize(
    ("requests", "replies"),
    [(b"SOMA 2 2\n", b"4\n"), (b"SOMA 2 2", b"4\n"), (BATCH, BATCH_REPLIES)],
    ids=["a line", "no newline", "a batch"],
)
@pytest.mark.parametrize(
    ("command", "more", "last"),
    [
        (f"nc.openbsd -N {PROXY} 12000", b"", b""),
        (f"ncat --ssl {PROXY} 12001", b"", b""),
        (f"openssl s_client -quiet -connect {PROXY}:12001", b"\nQUIT\n", b"BYE\n"),
    ],
    ids=["nc -N", "ncat --ssl", "openssl"],
)
def test_a_client_that_ends_its_input_is_answered(
    shared_cluster: HaproxyCluster,
    command: str,
    requests: bytes,
    more: bytes,
    replies: bytes,
    last: bytes,
) -> None:
    with shared_cluster.talk(command) as client:
        output, _ = client.communicate(requests + more, timeout=TIMEOUT)
    assert output == replies + last


@pytest.mark.parametrize(
    "command",
    [f"nc.openbsd {PROXY} 12000", f"openssl s_client -quiet -connect {PROXY}:12001"],
    ids=["nc", "openssl"],
)
def test_a_client_that_never_ends_a_line_is_answered(
    shared_cluster: HaproxyCluster, command: str
) -> None:
    with shared_cluster.talk(command) as client:
        assert client.ask(b"SOMA 2 2") == b"4\n"
        client.kill()


def test_clients_are_spread_evenly(
    idle_cluster: HaproxyCluster, clients: Callable[[], Conversation]
) -> None:
    for _ in range(6):
        clients()
    assert idle_cluster.current() == [2, 2, 2]


def test_a_server_taken_out_keeps_its_clients(
    idle_cluster: HaproxyCluster, clients: Callable[[], Conversation]
) -> None:
    first = [clients() for _ in SERVERS]
    idle_cluster.tell("set server calcd/calcd1 state drain")
    for _ in range(4):
        clients()
    assert idle_cluster.current() == [1, 3, 3]
    assert [client.ask(b"SUB 5 3\n") for client in first] == [b"2\n"] * 3
    idle_cluster.tell("set server calcd/calcd1 state ready")
    clients()
    assert idle_cluster.current() == [2, 3, 3]


def test_a_client_too_many_waits_for_a_place(
    idle_cluster: HaproxyCluster, clients: Callable[[], Conversation]
) -> None:
    usual = idle_cluster.stat("calcd1", "slim")
    for name in SERVERS:
        idle_cluster.tell(f"set maxconn server calcd/{name} 1")
    leaving, *_ = [clients() for _ in SERVERS]
    with idle_cluster.talk(f"nc.openbsd -N {PROXY} 12000") as client:
        assert client.stdin
        client.stdin.write(b"SOMA 2 2\n")
        client.stdin.close()
        wait_until(lambda: idle_cluster.stat("BACKEND", "qcur") == "1", "the client to wait")
        leaving.kill()
        assert client.stdout
        assert client.stdout.read() == b"4\n"
    for name in SERVERS:
        idle_cluster.tell(f"set maxconn server calcd/{name} {usual}")


def test_its_log_has_the_clients_addresses(
    idle_cluster: HaproxyCluster, clients: Callable[[], Conversation]
) -> None:
    clients().kill()
    seen: list[str] = []

    def logged() -> bool:
        seen.append(idle_cluster.log())
        return bool(re.search(rf" {CLIENT}:\d+ .* calcd calcd/calcd\d ", "".join(seen)))

    wait_until(logged, f"the client's line in {seen}")


def workers_of(daemon: Daemon) -> list[int]:
    """Return the processes of expensive lines."""
    tasks = Path(f"/proc/{daemon.process.pid}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def test_replies_that_take_long_come_though_the_client_has_half_closed(
    cluster: HaproxyCluster,
) -> None:
    """Longer than ``timeout server-fin`` was, as when many clients wait for expensive sums."""
    cluster.wait_for_checks()
    for name, daemon in cluster.daemons.items():
        cluster.set(name, "workers = 1")
        daemon.logs("settings in force: .* workers=1 ")
    expensive = b"PRECISION 1000\nEXP 0.1234\nEXP 0.4321\n"
    with ExitStack() as stack:
        for _ in SERVERS:  # each has its workers then
            first = stack.enter_context(cluster.talk(f"nc.openbsd {PROXY} 12000"))
            stack.callback(first.kill)
            assert first.ask(expensive) == b"1000\n"
            assert first.stdout
            assert first.stdout.readline().startswith(b"1.131")
            assert first.stdout.readline().startswith(b"1.540")
        assert cluster.current() == [1, 1, 1]
        workers = [pid for daemon in cluster.daemons.values() for pid in workers_of(daemon)]
        assert len(workers) == len(SERVERS)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        clients = []
        for _ in range(10):
            clients.append(stack.enter_context(cluster.talk(f"nc.openbsd -N {PROXY} 12000")))
            stack.callback(clients[-1].kill)
            stdin, stdout = clients[-1].stdin, clients[-1].stdout
            assert stdin
            assert stdout
            stdin.write(expensive)
            stdin.close()
            assert stdout.readline() == b"1000\n"
        ended = select.select([each.stdout for each in clients if each.stdout], [], [], LONG)[0]
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert ended == []
        for client in clients:
            assert client.stdout
            assert client.stdout.read().count(b"\n") == 2


def test_calcd_sees_the_clients(cluster: HaproxyCluster) -> None:
    cluster.wait_for_checks()
    cluster.set("calcd1", f"allow = {CLIENT}")
    cluster.set("calcd2", "allow = 198.51.100.0/24")  # whose checks are answered too
    for name in ("calcd1", "calcd2"):
        cluster.daemons[name].logs("settings in force: .* allow=(?!127)\\S", 1)
    kinds = set()
    for _ in range(3 * len(SERVERS)):
        with cluster.talk(f"nc.openbsd -N {PROXY} 12000") as client:
            output, _ = client.communicate(b"SOMA 2 2\n", timeout=TIMEOUT)
        kinds.add(output)
    assert kinds == {b"4\n", f"ERR FORBIDDEN clients from {CLIENT} may not connect here\n".encode()}
    cluster.daemons["calcd1"].logs(rf"connection {CLIENT}:\d+ ended: requests=1 errors=0 ")
    cluster.daemons["calcd2"].logs(rf"connection {CLIENT}:\d+ ended: .* how=forbidden")
    assert f"connection {PROXY}:" not in cluster.daemons["calcd1"].log


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_clients_over_ipv6_are_seen_in_either_version(tmp_path: Path, version: str) -> None:
    changes = {"send-proxy-v2 check-send-proxy": f"{version} check-send-proxy"}
    with cluster_in(tmp_path, changes | {"bind :12000\n": "bind :::12000 v4v6\n"}) as cluster:
        cluster.wait_for_checks()
        for name in SERVERS:
            cluster.set(name, f"allow = {CLIENT} {CLIENT6}")
            cluster.daemons[name].logs("settings in force: .* allow=192")
        for proxy in (PROXY6, PROXY):
            with cluster.talk(f"nc.openbsd -N {proxy} 12000") as client:
                output, _ = client.communicate(b"SOMA 2 2\n", timeout=TIMEOUT)
            assert output == b"4\n"

        def logged() -> list[str]:
            log = "".join(daemon.log for daemon in cluster.daemons.values())
            return sorted(re.findall(r"connection (\S+):\d+ ended: requests=1 errors=0 ", log))

        wait_until(lambda: len(logged()) >= 2, "both clients in the log")
        assert logged() == [CLIENT, f"[{CLIENT6}]"]
        assert [cluster.stat(name, "chkdown") for name in SERVERS] == ["0"] * len(SERVERS)


def test_headers_come_into_use_server_by_server_and_clients_stay(tmp_path: Path) -> None:
    with (
        cluster_in(
            tmp_path, {"    default-server send-proxy-v2 check-send-proxy\n": ""}, ""
        ) as cluster,
        ExitStack() as stack,
    ):
        cluster.wait_for_checks()
        line = f"server calcd1 {SERVERS['calcd1']}:12000"

        def connect() -> Conversation:
            client = stack.enter_context(cluster.talk(f"nc.openbsd {PROXY} 12000"))
            stack.callback(client.kill)
            assert client.ask(b"SOMA 2 2\n") == b"4\n"
            return client

        first = [connect() for _ in SERVERS]
        assert cluster.current() == [1, 1, 1]
        cluster.tell("disable health calcd/calcd1")
        cluster.tell("set server calcd/calcd1 state drain")
        cluster.set("calcd1", f"proxy_protocol_from = {PROXY}")
        cluster.daemons["calcd1"].logs("settings in force: .*proxy_protocol_from=192")
        connect()
        cluster.reload(line, f"{line} send-proxy-v2")
        wait_until(lambda: cluster.stat("calcd1", "check_status") == "L7OK", "a check of calcd1")
        for _ in SERVERS:
            connect()
        assert cluster.current() == [1, 1, 1]  # of the new process
        assert [client.ask(b"SUB 5 3\n") for client in first] == [b"2\n"] * 3
        assert all(cluster.stat(name, "chkfail") == "0" for name in SERVERS)


def test_a_full_server_keeps_its_clients_and_gets_no_more(
    idle_cluster: HaproxyCluster, clients: Callable[[], Conversation]
) -> None:
    first = [clients() for _ in SERVERS]
    idle_cluster.set("calcd1", "max_connections = 1")
    idle_cluster.wait_for("calcd1", "NOLB")
    for _ in range(4):
        clients()
    assert idle_cluster.current() == [1, 3, 3]
    assert [client.ask(b"SUB 5 3\n") for client in first] == [b"2\n"] * 3
    idle_cluster.set("calcd1", "")
    idle_cluster.wait_for("calcd1", "UP")


def test_the_checks_do_not_fill_calcds_log(cluster: HaproxyCluster) -> None:
    cluster.set("calcd2", "log_level = debug")
    cluster.daemons["calcd2"].logs(r"debug: connection .* ended: requests=1 errors=0", 3)
    assert "connection" not in cluster.daemons["calcd1"].log.replace("max_connections", "")
