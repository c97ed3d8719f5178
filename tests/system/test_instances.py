"""Several calcd on one port: nobody is refused, whatever becomes of one of them."""

import re
import signal

import pytest
from helpers import Daemon, Daemons, wait_until
from load import load_on
from service import Journal, Report, Service
from systemd_container import SystemdContainer, commands

CLIENTS = 8
ONE, OTHER = "calcd@1.service", "calcd@2.service"


@pytest.fixture
def instances(machine: SystemdContainer, service: Service) -> Journal:
    """Put two instances in the place of calcd.service; return the journal from then on."""
    machine.run(commands("instances"))
    return service.journal


def pids(machine: SystemdContainer) -> list[str]:
    return [machine.show(unit, "MainPID")[0] for unit in (ONE, OTHER)]


def test_from_one_to_two(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    with machine.load(CLIENTS) as result:
        machine.run(commands("instances"))
    report(result)
    assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
    assert machine.show("calcd.socket", "ActiveState") == ["inactive"]
    assert service.show("Result") == "success"


def test_two_serve_one_port(machine: SystemdContainer, instances: Journal) -> None:
    with machine.load(CLIENTS):
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken")
    for unit in ONE, OTHER:
        said = [text for _, text in instances.of(unit)]
        assert "listening on tcp://127.0.0.1:12000, from systemd in place of the setting" in said
        assert any(re.match(r"connection 127\.0\.0\.1:\d+ ended: requests=\d+ ", t) for t in said)


@pytest.mark.usefixtures("instances")
def test_one_is_killed(machine: SystemdContainer, report: Report) -> None:
    with machine.load(CLIENTS) as result:
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken")
        before = pids(machine)
        machine.run(f"systemctl kill --kill-whom=main --signal=KILL {ONE}")
        wait_until(lambda: machine.show(ONE, "NRestarts") == ["1"], "it to be started again")
    report(result)
    after = pids(machine)
    assert (before[0] != after[0], before[1]) == (True, after[1])
    assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
    assert result.cut <= CLIENTS


@pytest.mark.usefixtures("instances")
def test_one_is_restarted(machine: SystemdContainer, report: Report) -> None:
    with machine.load(CLIENTS) as result:
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken")
        for unit in ONE, OTHER:
            machine.run(f"systemctl restart {unit}")
    report(result)
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
    assert result.ended <= 2 * CLIENTS


def test_each_has_its_own_watchdog_and_limits(
    machine: SystemdContainer, instances: Journal, report: Report
) -> None:
    directory = machine.files / f"etc/systemd/system/{ONE}.d"
    directory.mkdir()
    (directory / "test.conf").write_text("[Service]\nWatchdogSec=1\nTasksMax=100\n")
    machine.run("systemctl daemon-reload")
    with machine.load(CLIENTS) as result:
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken")
        before = pids(machine)
        machine.run(f"systemctl kill --kill-whom=main --signal=STOP {ONE}")
        wait_until(lambda: machine.show(ONE, "NRestarts") == ["1"], "the watchdog to act")
    report(result)
    assert f"{ONE}: Watchdog timeout (limit 1s)!" in instances.about(ONE)
    assert (pids(machine)[1], machine.show(OTHER, "NRestarts")) == (before[1], ["0"])
    assert machine.show(ONE, "WatchdogUSec", "TasksMax") == ["1s", "100"]
    assert machine.show(OTHER, "WatchdogUSec", "TasksMax") == ["10s", "16384"]
    assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
    assert result.cut <= CLIENTS


def test_all_are_reloaded_by_one_command(
    machine: SystemdContainer, service: Service, instances: Journal, report: Report
) -> None:
    assert instances
    with machine.load(CLIENTS) as result:
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken")
        before = pids(machine)
        service.write("precision = 40")
        machine.run(commands("reload-all"))
        service.write("max_line = long")
        machine.run(commands("reload-all"), 1)
    report(result)
    assert pids(machine) == before
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)
    for unit in ONE, OTHER:
        said = [text for _, text in instances.of(unit)]
        assert sum(" precision=40 " in text for text in said) == 2
        assert said.count("reload: the settings stay as they were") == 1


def test_an_upgrade_restarts_the_instances_alone(
    machine: SystemdContainer, instances: Journal, report: Report
) -> None:
    assert instances
    *_, restart = commands("upgrade").splitlines()
    with machine.load(CLIENTS) as result:
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken")
        before = pids(machine)
        machine.run(restart)
        wait_until(lambda: "0" not in pids(machine), "both instances to be woken again")
    report(result)
    assert not set(before) & set(pids(machine))
    for unit in "calcd.service", "calcd.socket":  # which the instances have taken the place of
        assert machine.show(unit, "ActiveState") == ["inactive"]
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)


def test_one_that_does_not_take_the_settings_fails_the_command(
    machine: SystemdContainer, service: Service, instances: Journal
) -> None:
    assert instances
    directory = machine.files / f"etc/systemd/system/{ONE}.d"
    directory.mkdir()
    (directory / "test.conf").write_text(
        "[Service]\nExecStart=\nExecStart=/opt/calcd/bin/calcd -c /etc/calcd/one.conf\n"
    )
    file = machine.files / "etc/calcd/one.conf"
    file.write_text("[calcd]\n")
    machine.run(f"systemctl daemon-reload; systemctl start {ONE} {OTHER}")
    service.write("precision = 5")
    file.write_text("[calcd]\nprecision = none\n")
    assert f"Job for {ONE} failed" in machine.run(commands("reload-all"), 1)
    assert any(" precision=5 " in text for _, text in instances.of(OTHER))
    file.write_text("[calcd]\nprecision = 6\n")
    machine.run(commands("reload-all"))
    assert any(" precision=6 " in text for _, text in instances.of(ONE))


@pytest.mark.usefixtures("instances")
def test_what_is_said_of_them(machine: SystemdContainer) -> None:
    machine.run(f"systemctl start {ONE}; systemctl stop {OTHER}")
    told = machine.run("/opt/calcd/bin/calcd -s status").splitlines()
    assert "calcd: calcd.service: inactive (dead)" in told
    assert any(
        re.fullmatch(r"calcd: calcd@1\.service: active \(running\), pid \d+.*", line)
        for line in told
    )
    assert "calcd: calcd@2.socket: active (listening)" in told
    assert machine.show(ONE, "Description") == ["Exact decimal arithmetic over TCP (calcd@1)"]
    told = machine.run("/opt/calcd/bin/calcd -s reload", 1).splitlines()
    assert told[-1] == "calcd: systemd runs calcd: use systemctl reload calcd@1.service"
    machine.run(f"systemctl stop {ONE}")
    told = machine.run("/opt/calcd/bin/calcd -s status", 1).splitlines()
    assert told[-1] == "calcd: not running: no process holds /run/calcd/calcd.pid"


def test_without_systemd(start_daemon: Daemons, report: Report) -> None:
    def one_more(port: int) -> Daemon:
        return start_daemon("-l", f"tcp://127.0.0.1:{port}", "--reuse-port", "yes")

    one = one_more(0)
    other = one_more(one.port)
    with load_on("127.0.0.1", one.port, clients=CLIENTS) as result:
        for daemon, how in ((one, signal.SIGKILL), (other, signal.SIGTERM)):
            new = one_more(one.port)
            daemon.stop(how)
            new.logs("^.* connection .* ended: ")  # and it gets its share
    report(result)
    assert other.process.returncode == 0
    assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
    assert result.cut <= 2 * CLIENTS
