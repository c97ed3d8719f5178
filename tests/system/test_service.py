"""calcd under a booted systemd: what becomes of clients in each event of a service's life.

Each test is an event; while it happens, clients ask all the while. What became of their
requests is a line in the summary of the test run.
"""

import re
import time

from helpers import wait_until
from service import ERROR, INFO, UNIT, Report, Service
from systemd_container import SETTINGS, SystemdContainer, commands

CLIENTS = 4


def test_the_first_client_wakes_the_service(
    machine: SystemdContainer, service: Service, report: Report
) -> None:
    assert service.show("ActiveState") == "inactive"
    with machine.load(CLIENTS) as result:
        wait_until(lambda: service.show("ActiveState") == "active", "the service to run")
    report(result)
    assert result.answered
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)
    assert service.said("^listening on tcp://127.0.0.1:12000, from systemd") == [INFO]


def test_a_restart(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    before = service.pid
    with machine.load(CLIENTS) as result:
        for _ in range(3):
            machine.run("systemctl restart calcd")
    report(result)
    assert service.pid != before
    assert service.said("^stopped: 0 connections cut, ") == [INFO] * 3
    assert result.answered
    # A client whose request crosses the daemon's FIN sees an end of stream and asks again.
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
    assert result.ended <= 3 * CLIENTS


def test_a_kill(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    with machine.load(CLIENTS) as result:
        machine.run("systemctl kill --kill-whom=main --signal=KILL calcd")
        wait_until(lambda: service.show("NRestarts") == "1", "the service to be started again")
        machine.ask("PING")
    report(result)
    assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
    # Those in flight: an end of stream, or a reset where the daemon had not read the request.
    assert result.cut <= CLIENTS


def test_an_upgrade(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    before = service.pid
    machine.run("mkdir -p build/lib/calcd; touch build/lib/calcd/deleted.py")
    with machine.load(2) as result:
        machine.run("sed -i 's/^__version__ = .*/__version__ = \"9.8.7\"/' calcd/__init__.py")
        assert machine.ask("VERSION") != "calcd 9.8.7"
        machine.run("umask 077\n" + commands("upgrade"), network=True)
        assert machine.ask("VERSION") == "calcd 9.8.7"
    report(result)
    assert service.pid != before
    assert machine.run("find /opt/calcd -name deleted.py") == ""
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
    assert result.ended <= 2


def test_a_reload(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    before, third = service.pid, "0." + 40 * "3"
    with machine.load(CLIENTS) as result:
        service.set("precision = 40")
        wait_until(lambda: machine.ask("DIV 1 3") == third, "the new settings")
        service.set("max_line = long")
        service.wait_for("^reload: the settings stay as they were$")
        assert machine.ask("DIV 1 3") == third
    report(result)
    assert service.pid == before
    assert result.answered
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)
    wrong = rf"^reload: {SETTINGS}:\d+: max_line: 'long'"
    assert service.said(wrong) == [ERROR]


def test_new_limits_hold_at_once_and_cut_nobody(
    machine: SystemdContainer, service: Service
) -> None:
    machine.ask("PING")
    before = service.pid
    replies = machine.run(
        "exec 3<>/dev/tcp/127.0.0.1/12000\n"
        "ask() { echo SOMA 2 2 >&3; read -r -t 20 -u 3 reply; echo $reply; }\n"
        "new() { calcc -e 'SOMA 3 3' || true; }\n"
        "ask; new\n"
        "echo max_connections = 1 >>/etc/calcd/calcd.conf\n"
        "systemctl reload calcd\n"
        "for try in {1..100}; do new 2>&1 | grep '^ERR BUSY' && break; sleep 0.05; done; ask\n"
    )
    assert re.fullmatch(r"4\n6\nERR BUSY [^\n]*\n4\n", replies), replies
    assert service.pid == before


def test_a_freeze(machine: SystemdContainer, service: Service, report: Report) -> None:
    service.change("WatchdogSec=1")
    machine.ask("PING")
    with machine.load(CLIENTS) as result:
        machine.run("systemctl kill --kill-whom=main --signal=STOP calcd")
        wait_until(lambda: service.show("NRestarts") == "1", "the watchdog to act")
        machine.ask("PING")
    report(result)
    assert (result.refused, result.wrong, result.lost) == (0, 0, 0)
    assert result.cut <= CLIENTS
    assert "calcd.service: Watchdog timeout (limit 1s)!" in service.journal.about(UNIT)


def test_full_load(machine: SystemdContainer, service: Service, report: Report) -> None:
    """A healthy daemon is not taken for a stuck one, however much it has to do."""
    service.change("WatchdogSec=2")
    machine.ask("PING")
    before = service.pid
    service.set("max_connections = 4000")  # those that are closing count as well
    with machine.load(800) as result:
        deadline = time.monotonic() + 6  # three times what the watchdog allows
        wait_until(lambda: time.monotonic() > deadline, "six seconds to pass")
    report(result)
    assert service.pid == before
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)


def test_a_stop(machine: SystemdContainer, service: Service, report: Report) -> None:
    machine.ask("PING")
    with machine.load(CLIENTS) as result:
        # Its socket goes on holding the port: the clients wake it again.
        machine.run("systemctl stop calcd.service")
    report(result)
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
    assert result.ended <= CLIENTS
    assert "calcd.service: Deactivated successfully." in service.journal.about(UNIT)


def test_a_stop_answers_what_has_arrived(machine: SystemdContainer, service: Service) -> None:
    requests = 3000  # which fit into the kernel's buffer: so they have arrived
    counted = machine.run(
        "exec 3<>/dev/tcp/127.0.0.1/12000\n"
        "echo PING >&3; read -r -t 20 -u 3 reply\n"
        f"yes SOMA 2 2 | head -n {requests} >&3\n"
        "systemctl stop calcd.socket calcd.service\n"
        "grep -c '^4$' <&3\n"
    )
    assert int(counted) == requests
    state = machine.show(UNIT, "ActiveState", "Result", "ExecMainStatus")
    assert state == ["inactive", "success", "0"]
    assert service.said("^stopped: 0 connections cut, ") == [INFO]


def test_a_crash_loop(machine: SystemdContainer, service: Service, report: Report) -> None:
    """It ends, says why, and its clients are refused until it is mended."""
    machine.ask("PING")
    service.change("RestartSec=0", "ExecStart=", "ExecStart=calcd --log-to /proc/nowhere")
    with machine.load(CLIENTS) as result:
        machine.run("systemctl kill --kill-whom=main --signal=KILL calcd")
        wait_until(lambda: service.show("ActiveState") == "failed", "the start limit")
        starts = [text for text in service.journal.about(UNIT) if text.startswith("Starting ")]
        assert len(starts) == 1 + 15  # StartLimitBurst, since the units were read again
        socket = machine.show("calcd.socket", "ActiveState", "Result")
        assert socket == ["failed", "service-start-limit-hit"]
        machine.run("rm /etc/systemd/system/calcd.service.d/test.conf; systemctl daemon-reload")
        machine.run(commands("mended"))
    report(result)
    assert result.refused
    assert (result.wrong, result.lost) == (0, 0)
    assert set(service.said(": cannot write the log /proc/nowhere: ")) == {ERROR}
    assert "calcd.service: Start request repeated too quickly." in service.journal.about(UNIT)


def test_wrong_settings_are_told_once(machine: SystemdContainer, service: Service) -> None:
    with (machine.files / SETTINGS[1:]).open("a") as file:
        file.write("max_line = long\n")
    machine.run("systemctl start calcd.service", 1)
    assert service.said(rf"^{SETTINGS}:\d+: max_line: 'long'") == [ERROR]
    assert machine.show(UNIT, "Result", "ExecMainStatus", "NRestarts") == ["exit-code", "2", "0"]
    machine.run(f"sed -i '$d' {SETTINGS}")
    machine.run(commands("mended"))
    assert machine.ask("SOMA 2 2") == "4"


def test_an_uninstallation(machine: SystemdContainer, service: Service) -> None:
    """It leaves no unit, no file and no port; afterwards calcd is installed anew."""
    assert machine.ask("SOMA 2 2") == "4"
    pid = service.pid
    try:
        machine.run(commands("uninstall"))
        assert machine.run("systemctl list-unit-files 'calcd*' --no-legend", None) == ""
        assert machine.run("ls -d /opt/calcd /etc/calcd /etc/systemd/system/calcd* 2>&1", 2)
        assert machine.run("find /usr/local /etc/fish -name '*calc[cd]*'") == ""
        assert not (machine.files / f"proc/{pid}").exists()
        machine.run("exec 3<>/dev/tcp/127.0.0.1/12000", 1)
    finally:
        machine.run(commands("service"), network=True)
        machine.run(commands("manual"))
    assert machine.ask("SOMA 2 2") == "4"
