"""calcd under a booted systemd: what becomes of clients in each event of a service's life.

Each test is an event; while it happens, clients ask all the while. What became of their
requests is a line in the summary of the test run.
"""

import re
import time

import pytest
from helpers import wait_until
from service import ERROR, INFO, UNIT, WARNING, Report, Service
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
        assert machine.ask("DIV 1 3") == third
        service.write("max_line = long")
        machine.run("systemctl reload calcd", 1)
        assert machine.ask("DIV 1 3") == third
        service.unwrite()
        service.unwrite()
        service.set("precision = 41")
        assert machine.ask("DIV 1 3") == third + "3"
    report(result)
    assert service.pid == before
    assert result.answered
    assert (result.refused, result.wrong, result.cut, result.lost) == (0, 0, 0, 0)
    wrong = rf"{SETTINGS}:\d+: max_line: 'long'"
    # The daemon says it, and so does the command, for systemctl status.
    assert service.said(f"^reload: {wrong}") == service.said(f"^{wrong}") == [ERROR]
    assert service.said("^reload: the settings stay as they were$") == [ERROR]


def test_a_reload_knows_the_options_of_the_service(
    machine: SystemdContainer, service: Service
) -> None:
    """The daemon itself reads the settings: the command of the reload has none of its options."""
    service.change("ExecStart=", "ExecStart=/opt/calcd/bin/calcd -c /etc/calcd/other.conf")
    other = machine.files / "etc/calcd/other.conf"
    other.write_text("[calcd]\nprecision = 3\n")
    assert machine.ask("DIV 1 3") == "0.333"
    other.write_text("[calcd]\nprecision = 4\nlisten = tcp://localhost:1\n")
    service.write("max_line = long")  # in a file that this service does not read
    machine.run("systemctl reload calcd")
    assert machine.ask("DIV 1 3") == "0.3333"
    # No restart is asked for what a restart does not change.
    told = " /etc/calcd/other.conf:3: listen: has no effect: "
    assert service.said(f"^reload:{told}") == service.said(f"^warning:{told}") == [WARNING]
    assert not service.said("a restart is needed")
    other.write_text("[calcd]\nprecision = none\n")
    machine.run("systemctl reload calcd", 1)
    assert machine.ask("DIV 1 3") == "0.3333"
    service.unwrite()
    told = machine.run("/opt/calcd/bin/calcd -t")
    assert "no effect" not in told
    told = machine.run("/opt/calcd/bin/calcd -t -c /etc/calcd/other.conf", 2)
    assert "calcd: /etc/calcd/other.conf:2: precision: 'none'" in told
    other.write_text("[calcd]\nlisten = tcp://localhost:1\n")
    told = machine.run("/opt/calcd/bin/calcd -t -c /etc/calcd/other.conf")
    assert "listen: has no effect: " in told
    assert "change them in calcd.socket" in told
    assert "calcd.service has options that this test does not see: -c /etc/calcd/other.conf" in told


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
    """It ends, and its clients are refused until it is mended."""
    machine.ask("PING")
    crash = 'ExecStart=/bin/sh -c "kill -KILL $$$$"'
    service.change("RestartSec=0", "ExecStart=", crash)
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
    assert "calcd.service: Start request repeated too quickly." in service.journal.about(UNIT)


def test_a_restart_with_wrong_settings(
    machine: SystemdContainer, service: Service, report: Report
) -> None:
    """Its clients are told BUSY, for longer than the start limit takes; the mended file is read."""
    machine.ask("PING")
    began = time.monotonic()
    with machine.load(CLIENTS) as result:
        service.write("max_line = long")
        machine.run("systemctl restart calcd", 1)
        assert machine.ask("PING").startswith("ERR BUSY the server cannot start: ask again later")
        state = 'Status: "cannot start: clients get ERR BUSY"'
        wait_until(lambda: state in machine.run("systemctl status calcd", None), "the status")
        # Without a pause, StartLimitBurst=15 would be reached within some seconds.
        wait_until(lambda: time.monotonic() > began + 12, "twelve seconds to pass")
        service.unwrite()
        wait_until(lambda: machine.ask("PING") == "PONG", "the next start")
    report(result)
    assert machine.show("calcd.socket", "ActiveState", "Result") == ["active", "success"]
    assert result.refused
    assert (result.wrong, result.reset, result.lost) == (0, 0, 0)
    starts = [text for text in service.journal.about(UNIT) if text.startswith("Starting ")]
    assert 4 <= len(starts) <= 10
    assert set(service.said(rf"^{SETTINGS}:\d+: max_line: 'long'")) == {ERROR}
    assert set(service.said(r"^\d+ clients got ERR BUSY, as calcd cannot start$")) == {ERROR}


@pytest.mark.parametrize("option", ["--tls-certificate=/etc/calcd/none.pem", "--max-lin=5"])
def test_a_wrong_certificate_or_option_is_told_to_clients(
    machine: SystemdContainer, service: Service, option: str
) -> None:
    service.change("ExecStart=", f"ExecStart=/opt/calcd/bin/calcd {option}")
    ask, told = "/opt/calcd/bin/calcc -w 20 -e PING 2>&1", "ERR BUSY the server cannot start"
    if "tls" in option:
        directory = machine.files / "etc/systemd/system/calcd.socket.d"
        directory.mkdir()
        (directory / "test.conf").write_text("[Socket]\nFileDescriptorName=tls\n")
        machine.run("systemctl daemon-reload; systemctl restart calcd.socket")
        ask, told = "openssl s_client -connect 127.0.0.1:12000 2>&1", "alert internal error"
    for _ in range(3):
        assert told in machine.run(ask, None)
    wait_until(lambda: service.show("ActiveState") == "failed", "the end")
    assert machine.show(UNIT, "ExecMainStatus", "NRestarts") == ["2", "0"]
    assert machine.show("calcd.socket", "ActiveState") == ["active"]


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("log_to = /var/log/calcd.log", "leave log_to empty for the journal"),
        ("pidfile = /run/calcd.pid", "systemd needs no pidfile"),
        ("metrics = http://localhost:9112", "opens no ports: use a socket unit"),
    ],
)
def test_what_the_sandbox_forbids_does_not_close_the_port(
    line: str, advice: str, machine: SystemdContainer, service: Service
) -> None:
    """calcd -t cannot see it. Restarts that nobody waits for would reach the start limit."""
    if "metrics" in line:
        machine.run("/opt/calcd/bin/pip install -q prometheus_client 2>&1", network=True)
    service.write(line)
    machine.run("systemctl restart calcd.service", 1)
    assert service.said(advice) == [ERROR]
    assert machine.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "1", "0"]
    assert machine.show("calcd.socket", "ActiveState") == ["active"]
    assert machine.ask("PING").startswith("ERR BUSY the server cannot start")
    service.unwrite()
    wait_until(lambda: machine.ask("PING") == "PONG", "the next start")


def test_wrong_settings_are_told_once(machine: SystemdContainer, service: Service) -> None:
    with (machine.files / SETTINGS[1:]).open("a") as file:
        file.write("max_line = long\n")
    machine.run("systemctl start calcd.service", 1)
    assert service.said(rf"^{SETTINGS}:\d+: max_line: 'long'") == [ERROR]
    assert machine.show(UNIT, "Result", "ExecMainStatus", "NRestarts") == ["exit-code", "2", "0"]
    machine.run(f"sed -i '$d' {SETTINGS}")
    machine.run(commands("mended"))
    assert machine.ask("SOMA 2 2") == "4"


def test_udp_has_a_socket_unit_of_its_own(
    machine: SystemdContainer, service: Service, report: Report
) -> None:
    ask = "/opt/calcd/bin/calcc -w 20 -e 'SOMA 2 2' udp://localhost:12000"
    with machine.load(CLIENTS) as result:
        machine.run(commands("udp"))
        assert machine.run(ask) == "4\n"
        machine.run("systemctl restart calcd.service")
        assert machine.run(ask) == "4\n"
    report(result)
    assert (result.refused, result.wrong, result.reset, result.lost) == (0, 0, 0, 0)
    assert service.said("^listening on udp://127.0.0.1:12000, from systemd") == [INFO] * 2
    assert "TCP_NODELAY" not in machine.run("journalctl -b --no-pager")
    # A datagram starts the service, and so does a client.
    machine.run("systemctl stop calcd.service")
    assert machine.run(ask) == "4\n"
    # Where it cannot start, datagrams have no reply, and do not close the port.
    service.write("max_line = long")
    machine.run("systemctl restart calcd.service", None)
    machine.run(f"for try in 1 2 3 4 5; do {ask.replace('20', '0.2')} && exit 1; done; true")
    units = ("calcd.socket", "calcd-udp.socket")
    assert [machine.show(unit, "ActiveState") for unit in units] == [["active"]] * 2
    service.unwrite()
    wait_until(lambda: machine.run(ask, None) == "4\n", "the next start")


def test_signals_to_all_of_its_processes(machine: SystemdContainer, service: Service) -> None:
    """``systemctl kill`` signals the workers, too."""
    line = "= " + "+".join(40 * ["exp(0.1234)+ln(3)"])  # for a worker
    machine.ask(line)
    before, workers = service.pid, f"cat /proc/{service.pid}/task/*/children"
    worker = machine.run(workers)
    assert worker.strip()
    machine.run("systemctl kill --signal=USR1 calcd; systemctl kill --signal=USR2 calcd")
    service.wait_for("^SIGUSR1: the log is open again$")
    service.wait_for("^SIGUSR2: settings in force: .* log_level=info ")
    assert (service.pid, machine.run(workers)) == (before, worker)


def test_an_uninstallation(machine: SystemdContainer, service: Service) -> None:
    """It leaves no unit, no file and no port; afterwards calcd is installed anew."""
    assert machine.ask("SOMA 2 2") == "4"
    pid = service.pid
    machine.run("systemd-run --quiet --unit=calcd-failed.service false")
    state = "systemctl is-failed calcd-failed.service"
    wait_until(lambda: machine.run(state, None) == "failed\n", "a service to fail")
    try:
        machine.run(commands("uninstall"))
        assert machine.run("systemctl list-unit-files 'calcd*' --no-legend", None) == ""
        assert machine.run("systemctl list-units --all 'calcd*' --no-legend") == ""
        assert machine.run("ls -d /opt/calcd /etc/calcd /etc/systemd/system/calcd* 2>&1", 2)
        assert machine.run("find /usr/local /etc/fish -name '*calc[cd]*'") == ""
        assert not (machine.files / f"proc/{pid}").exists()
        machine.run("exec 3<>/dev/tcp/127.0.0.1/12000", 1)
    finally:
        machine.run(commands("service"), network=True)
        machine.run(commands("manual"))
    assert machine.ask("SOMA 2 2") == "4"
