"""What systemd knows of calcd's units, as calcd reads it, and what -t makes of that."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from calcd.config.errors import ConfigError
from calcd.config.settings import DEFAULT_FILE, Settings, read_settings
from calcd.daemon import check
from calcd.daemon.check import configuration_warnings
from calcd.daemon.cli import parse
from calcd.daemon.units import Unit, parse_units

SHOWN = """\
Id=calcd@tls.service
LoadState=loaded
ActiveState=failed
SubState=failed
MainPID=0
StatusText=connections open: 3
ExecStart={ path=/opt/calcd/bin/calcd ; argv[]=/opt/calcd/bin/calcd --tls-certificate=/run/credentials/calcd@tls.service/tls.pem --max-line 5 ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
TriggeredBy=calcd@tls.socket

MainPID=213
StatusText=connections open: 3
ExecStart={ path=/opt/calcd/bin/calcd ; argv[]=/opt/calcd/bin/calcd ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
TriggeredBy=calcd-udp.socket calcd.socket
Id=calcd.service
LoadState=loaded
ActiveState=active
SubState=running

TriggeredBy=
Id=calcd.socket
LoadState=loaded
ActiveState=active
SubState=running

Id=calcd-udp.socket
LoadState=not-found
ActiveState=inactive
SubState=dead
"""  # noqa: E501

SERVICE = Unit(
    "calcd.service",
    *("active", "running", 213, "connections open: 3"),
    (),
    ("calcd-udp.socket", "calcd.socket"),
)
TLS = Unit(
    "calcd@tls.service",
    *("failed", "failed", 0, "connections open: 3"),
    (
        "--tls-certificate=/run/credentials/calcd@tls.service/tls.pem",
        *("--max-line", "5"),
    ),
    ("calcd@tls.socket",),
)
SOCKET = Unit("calcd.socket", "active", "running", 0, "", (), ())


def test_what_systemctl_shows_is_parsed() -> None:
    assert parse_units(SHOWN) == [SERVICE, SOCKET, TLS]
    assert parse_units("") == []


def test_a_unit_as_text() -> None:
    assert [*map(str, (SERVICE, SOCKET, TLS))] == [
        "calcd.service: active (running), pid 213: connections open: 3",
        "calcd.socket: active (running)",
        "calcd@tls.service: failed (failed)",
    ]
    assert [unit.is_running for unit in (SERVICE, SOCKET, TLS)] == [True, False, False]


def test_a_service_that_cannot_start_does_not_run() -> None:
    told = "cannot start: clients get ERR BUSY"
    unit = Unit("calcd.service", "activating", "start", 213, told, (), ("calcd.socket",))
    assert str(unit) == f"calcd.service: activating (start), pid 213: {told}"
    assert not unit.is_running
    assert replace(unit, active="reloading").is_running
    assert replace(unit, active="deactivating").is_running  # it drains


def warnings(*arguments: str, units: Sequence[Unit] = (), **settings: str) -> list[str]:
    """Return what -t warns of, with these settings."""
    command_line = parse(["-t", *arguments])
    read = read_settings("/dev/null", {**settings, **command_line.options})
    return configuration_warnings(read, command_line, units)


REPLACED = "has no effect: the sockets that systemd holds take its place: change them in"


def test_listen_beside_socket_units() -> None:
    units = (SERVICE, SOCKET)
    assert warnings(units=units, listen="tcp://localhost:1", reuse_port="yes") == [
        f"--listen: {REPLACED} calcd-udp.socket, calcd.socket",
        f"--reuse-port: {REPLACED} calcd-udp.socket, calcd.socket",
    ]
    assert warnings(listen="tcp://localhost:1", reuse_port="yes") == []
    assert warnings(units=units) == []


def test_listen_beside_socket_units_need_not_be_right(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "loaded_units", lambda: [SERVICE, SOCKET])
    arguments = ["-t", "-l", "unix:///no-such-directory/calcd.sock"]  # no machine has that
    monkeypatch.setattr(check, "DEFAULT_FILE", "/dev/null")
    assert check.check(parse(arguments)) == 0
    assert f"--listen: {REPLACED} calcd-udp.socket, calcd.socket" in capfd.readouterr().err
    assert check.check(parse([*arguments, "-d", "--pidfile", "/tmp/none.pid"])) == 2


def test_a_socket_for_metrics_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = replace(SERVICE, triggered_by=("calcd-metrics.socket", "calcd.socket"))
    assert warnings(units=[unit]) == []
    missing = ConfigError("metrics need a library", setting="metrics")
    monkeypatch.setattr(check, "missing_package", lambda: missing)
    (told,) = warnings(units=[unit])
    assert told.startswith("calcd-metrics.socket keeps the service from starting: metrics: metrics")
    assert warnings(units=[SERVICE]) == []


def test_options_that_the_test_does_not_see() -> None:
    (told,) = warnings(units=(SERVICE, TLS))
    assert told == (
        "calcd@tls.service has options that this test does not see: --tls-certificate="
        "/run/credentials/calcd@tls.service/tls.pem --max-line 5"
    )
    # They are given: who knows them need not be told.
    assert warnings("--max-line", "5", units=(SERVICE, TLS)) == []


@pytest.mark.parametrize(
    ("file", "arguments", "same"),
    [
        ([], (), True),
        (["-c", DEFAULT_FILE], (), True),
        (["-c", "/etc/other.conf"], (), False),
        ([], ("-c", "/etc/other.conf"), False),
        (["-c", "/etc/other.conf"], ("-c", "/etc/other.conf"), True),
        (["-c", "/etc/other.conf"], ("--max-line", "5", "-c/etc/other.conf"), True),
    ],
)
def test_only_services_that_read_the_same_file_count(
    file: list[str], arguments: tuple[str, ...], same: bool
) -> None:
    unit = Unit("calcd.service", "active", "running", 1, "", arguments, ("calcd.socket",))
    told = warnings(*file, units=(unit,), listen="tcp://localhost:1")
    assert any(REPLACED in line for line in told) == same


def test_a_daemon_in_the_background_has_no_sockets_of_systemd() -> None:
    assert warnings("-d", units=(SERVICE,), listen="tcp://localhost:1", user="root") == []


def test_what_has_no_effect_without_systemd() -> None:
    told = warnings(user="root", tls_certificate="/x", workers="0", line_cpu_timeout="1")
    assert told == [
        "--user: has no effect without -d",
        "--tls-certificate: has no effect: there is no tls:// endpoint",
        "--line-cpu-timeout: has no effect with workers = 0",
    ]
    assert warnings(tls_certificate="/x", listen="tls://localhost:1") == []


def test_defaults_are_not_warned_of() -> None:
    assert configuration_warnings(Settings(), parse(["-t"]), (SERVICE,)) == []
