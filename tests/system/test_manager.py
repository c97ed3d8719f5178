"""What befalls systemd itself, while clients ask all the while: the service goes on."""

from helpers import wait_until
from service import Report, Service
from systemd_container import SystemdContainer


def test_systemd_is_re_executed(
    machine: SystemdContainer, service: Service, report: Report
) -> None:
    """As an upgrade of systemd does."""
    machine.ask("PING")
    before = service.pid
    with machine.load() as result:
        machine.run("systemctl daemon-reexec")
        wait_until(lambda: service.show("ActiveState") == "active", "systemd to be back")
    report(result)
    assert service.pid == before
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)
    machine.run("systemctl restart calcd")
    assert machine.ask("SOMA 2 2") == "4"


def test_the_journal_is_killed(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    before = service.pid
    journal = machine.show("systemd-journald.service", "MainPID")
    with machine.load() as result:
        machine.run("systemctl kill --kill-whom=main --signal=KILL systemd-journald")
        wait_until(
            lambda: machine.show("systemd-journald.service", "MainPID") not in (journal, ["0"]),
            "the journal to be back",
        )
    report(result)
    assert service.pid == before
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)
    machine.ask("DIV 1 0")
    service.wait_for("ended: requests=1 errors=1 ")
