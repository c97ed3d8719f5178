"""Metrics of the service: the sandbox has no network, so systemd opens their port."""

import re

from helpers import wait_until
from service import UNIT, Report, Service
from systemd_container import SystemdContainer, commands

SOCKET = "calcd-metrics.socket"


def scrape(machine: SystemdContainer, port: int = 9112) -> dict[str, float]:
    """Return the samples without a label."""
    text = machine.run(f"curl -sS --fail --max-time 20 http://localhost:{port}/metrics")
    return {
        name: float(number) for name, number in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)
    }


def test_they_are_scraped_in_the_sandbox(
    machine: SystemdContainer, service: Service, report: Report
) -> None:
    machine.run("/opt/calcd/bin/pip uninstall -qy prometheus_client 2>&1 || true")
    try:
        with machine.load() as result:
            wait_until(lambda: service.pid, "the first client to start the service")
            machine.run("umask 077\n" + commands("metrics"), network=True)
            found = scrape(machine)
        report(result)
        # To restart the service, with one more socket, refuses nobody.
        assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
        assert machine.show(SOCKET, "ActiveState") == ["active"]
        assert found["calcd_connections_open"] >= 1
        assert found["calcd_connections_limit"] == 1024
        assert service.said(r"^listening on http://127\.0\.0\.1:9112 for metrics, from systemd ")

        # There is no /proc/stat, which the library reads to tell when the process started.
        machine.run(f"nsenter -t {service.pid} -m test ! -e /proc/stat")
        started = float(machine.run(f"date -d '{service.show('ExecMainStartTimestamp')}' +%s"))
        assert abs(found["process_start_time_seconds"] - started) < 3
        assert abs(found["calcd_start_time_seconds"] - started) < 5
        assert found["process_open_fds"] > 5
        assert found["process_resident_memory_bytes"] > 1 << 20
        assert found["process_cpu_seconds_total"] > 0

        before = scrape(machine)["calcd_requests_total"]
        machine.ask("SOMA 2 2")
        wait_until(lambda: scrape(machine)["calcd_requests_total"] > before, "the request")
        status = machine.show(UNIT, "StatusText")[0]
        assert re.fullmatch(r"connections open: \d+, requests a second: \d+", status)
    finally:
        machine.run(
            f"systemctl disable --now {SOCKET}; rm -f /etc/systemd/system/{SOCKET};"
            "systemctl daemon-reload",
            None,
        )


def test_each_instance_has_its_own(machine: SystemdContainer, service: Service) -> None:
    assert service
    try:
        machine.run("/opt/calcd/bin/pip install -q '.[metrics]'", network=True)
        machine.run(commands("instances"))
        for number in (1, 2):
            changes = f"s/calcd\\.service/calcd@{number}.service/; s/9112/{9200 + number}/"
            unit = f"calcd-metrics@{number}.socket"
            machine.run(
                f"sed '{changes}' systemd/{SOCKET} >/etc/systemd/system/{unit};"
                f"systemctl daemon-reload; systemctl enable {unit};"
                f"systemctl restart calcd@{number}.service"
            )
        found = [scrape(machine, 9200 + number) for number in (1, 2)]
        assert [each["calcd_requests_total"] for each in found] == [0, 0]
        machine.ask("SOMA 2 2")
        wait_until(
            lambda: (
                sum(scrape(machine, port)["calcd_requests_total"] for port in (9201, 9202)) == 1
            ),
            "the request, at one of them",
        )
    finally:
        machine.run(
            "systemctl disable --now calcd-metrics@1.socket calcd-metrics@2.socket;"
            "rm -f /etc/systemd/system/calcd-metrics@*; systemctl daemon-reload",
            None,
        )


def test_without_the_library_the_service_says_so(
    machine: SystemdContainer, service: Service
) -> None:
    machine.run("/opt/calcd/bin/pip uninstall -qy prometheus_client 2>&1 || true")
    with (machine.files / "etc/calcd/calcd.conf").open("a") as settings:
        settings.write("metrics = http://localhost:9112\n")
    told = machine.run("/opt/calcd/bin/calcd -t", 2)
    assert "prometheus_client, which is not installed: pip install" in told
    machine.run(f"systemctl start {UNIT}", None)
    wait_until(lambda: service.show("ActiveState") == "failed", "the start to fail")
    assert service.said("prometheus_client, which is not installed: pip install")
    assert service.show("NRestarts") == "0"  # a restart cannot mend it
