"""What an installation has beside the daemon: its log's rotation, and HAProxy before it."""

import re
import shutil
from collections.abc import Iterator

import pytest
from helpers import wait_until
from service import Report, Service
from systemd_container import SystemdContainer, commands


@pytest.fixture
def in_background(machine: SystemdContainer, service: Service) -> Iterator[None]:  # noqa: ARG001
    """Run calcd in the background, as docs/operations.md says, in place of the service."""
    machine.run("systemctl stop calcd.socket")
    machine.run(commands("background"))
    yield
    # systemd gives a service the user of its name, where there is one.
    machine.run("/opt/calcd/bin/calcd -s stop; userdel calcd; rm -r /var/log/calcd")


@pytest.mark.usefixtures("in_background")
def test_rotation_loses_no_line(machine: SystemdContainer, report: Report) -> None:
    status = "/opt/calcd/bin/calcd -s status"
    before = machine.run(status)
    assert "running" in before
    with machine.load() as result:
        machine.run("logrotate --force /etc/logrotate.d/calcd")
        files = [machine.files / f"var/log/calcd/calcd.log{end}" for end in (".1", "")]
        wait_until(files[1].exists, "the new log file")
    report(result)
    assert machine.run(status) == before
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)

    def counted() -> list[int]:
        """Count the requests that the log files tell of."""
        return [sum(map(int, re.findall(r"requests=(\d+)", file.read_text()))) for file in files]

    wait_until(lambda: sum(counted()) == result.answered, "a line for each connection")
    assert min(counted()) > 0


@pytest.mark.usefixtures("in_background")
def test_old_logs_are_compressed(machine: SystemdContainer) -> None:
    log = machine.files / "var/log/calcd/calcd.log"
    for _ in range(2):
        machine.ask("SOMA 2 2")
        wait_until(lambda: "requests=1" in log.read_text(), "the connection's line")
        assert machine.run("logrotate --force /etc/logrotate.d/calcd") == ""
    listed = machine.run("cd /var/log/calcd; zgrep -l requests=1 *; stat -c %U *").split()
    assert listed == ["calcd.log.1", "calcd.log.2.gz", *3 * ["calcd"]]


@pytest.mark.usefixtures("in_background")
def test_the_log_of_a_stopped_daemon_is_rotated_too(machine: SystemdContainer) -> None:
    machine.run("/opt/calcd/bin/calcd -s stop")
    assert machine.run("logrotate --force /etc/logrotate.d/calcd") == ""
    assert machine.run("ls /var/log/calcd") == "calcd.log.1\n"
    machine.run(commands("background").splitlines()[-1])


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_haproxy_runs_as_a_service(machine: SystemdContainer) -> None:
    machine.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
        " -subj /CN=localhost -keyout key.pem -out certificate.pem;"
        "cat certificate.pem key.pem >certificate-and-key.pem"
    )
    machine.run(commands("haproxy"))
    assert machine.show("haproxy.service", "ActiveState", "Result") == ["active", "success"]
    machine.run("systemctl stop haproxy")
