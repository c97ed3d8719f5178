"""Warnings of certificates and revocation lists that are not valid, or not for long."""

import logging
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import STORED, stored

from calcd.config.errors import ConfigError
from calcd.config.settings import Settings
from calcd.core.x509 import Certificate, RevocationList, read_pem
from calcd.net import credentials as module
from calcd.net.certificates import describe_chain, timestamp
from calcd.net.credentials import Credentials, Validity, load_credentials

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
YEAR = 365 * DAY
PATHS = {
    "tls_certificate": str(stored("server").cert),
    "tls_key": str(stored("server").key),
    "tls_client_ca": str(STORED / "ca.pem"),
    "tls_client_crl": str(STORED / "crl.pem"),
}


class Clock:
    """A clock that is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()


def certificate(end: datetime = BEGIN + YEAR, setting: str = "tls_certificate") -> Validity:
    return Validity(setting, "/a.pem", Certificate("CN=a", "CN=ca", "0A", BEGIN, end))


def revocation_list(end: datetime | None) -> Validity:
    return Validity("tls_client_crl", "/crl.pem", RevocationList("CN=ca", BEGIN, end))


@pytest.mark.parametrize(
    ("now", "warning"),
    [
        (
            BEGIN - 2 * DAY,
            "is not valid before 2026-01-01T00:00:00Z, in 2 days: clients refuse it",
        ),
        (
            BEGIN - SECOND,
            "is not valid before 2026-01-01T00:00:00Z, in less than a day: clients refuse it",
        ),
        (BEGIN, None),
        (BEGIN + YEAR - 30 * DAY - SECOND, None),
        (
            BEGIN + YEAR - 30 * DAY,
            "expires in 30 days, at 2027-01-01T00:00:00Z: renew it and reload",
        ),
        (BEGIN + YEAR - DAY, "expires in 1 day, at 2027-01-01T00:00:00Z: renew it and reload"),
        (
            BEGIN + YEAR - SECOND,
            "expires in less than a day, at 2027-01-01T00:00:00Z: renew it and reload",
        ),
        (
            BEGIN + YEAR,
            "expired less than a day ago, at 2027-01-01T00:00:00Z: "
            "clients refuse it: renew it and reload",
        ),
        (
            BEGIN + YEAR + 3 * DAY,
            "expired 3 days ago, at 2027-01-01T00:00:00Z: clients refuse it: renew it and reload",
        ),
    ],
)
def test_a_certificate_is_warned_of_from_30_days_before_its_end(
    now: datetime, warning: str | None
) -> None:
    head = "tls_certificate: '/a.pem': the certificate 'CN=a' "
    assert certificate().warning(now.timestamp()) == (head + warning if warning else "")


def test_the_warning_says_what_becomes_of_clients() -> None:
    now = (BEGIN + 2 * YEAR).timestamp()
    assert certificate(setting="tls_client_ca").warning(now) == (
        "tls_client_ca: '/a.pem': the certificate 'CN=a' expired 365 days ago, at "
        "2027-01-01T00:00:00Z: clients that it has signed are refused: replace it and reload"
    )
    assert revocation_list(BEGIN + YEAR).warning(now) == (
        "tls_client_crl: '/crl.pem': the revocation list of 'CN=ca' expired 365 days ago, at "
        "2027-01-01T00:00:00Z: all clients of this CA are refused: get its next list and reload"
    )


def test_a_credential_needs_a_restart_and_no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    now = (BEGIN + YEAR - DAY).timestamp()
    for directory, remedy in ("/a", "reload"), ("", "reload"), ("/run/credentials", "restart"):
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
        validity = replace(certificate(), path="/run/credentials/tls.pem")
        assert validity.warning(now).endswith(f": renew it and {remedy}")


@pytest.mark.parametrize(
    ("lifetime", "notice"), [(9 * DAY, 3 * DAY), (90 * DAY, 30 * DAY), (YEAR, 30 * DAY)]
)
def test_a_list_is_warned_of_in_its_last_third(lifetime: timedelta, notice: timedelta) -> None:
    listed = revocation_list(BEGIN + lifetime)
    at = BEGIN + lifetime - notice
    assert listed.warning((at - SECOND).timestamp()) == ""
    assert f" expires in {notice.days} days, at " in listed.warning(at.timestamp())


def test_a_list_that_does_not_say_when_the_next_is_due_never_expires() -> None:
    listed = revocation_list(None)
    assert "is not valid before" in listed.warning((BEGIN - DAY).timestamp())
    assert listed.warning((BEGIN + 100 * YEAR).timestamp()) == ""


def test_the_last_time_that_there_is_has_no_warning_and_no_error() -> None:
    """RFC 5280, 4.1.2.5: for certificates without a well-defined end."""
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert certificate(last).warning(BEGIN.timestamp()) == ""
    ancient = replace(
        certificate(), item=Certificate("", "", "01", datetime(1, 1, 1, tzinfo=UTC), last)
    )
    assert ancient.warning(BEGIN.timestamp()) == ""


# While the daemon runs


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Give a list that gets what is logged as a warning."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collect(logging.WARNING)
    logger = logging.getLogger("calcd.net.credentials")
    caplog.set_level("INFO", logger=logger.name)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_a_daemon_that_runs_for_months_warns_once_a_day_and_at_the_end(warned: list[str]) -> None:
    clock = Clock(BEGIN + 100 * DAY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = BEGIN + YEAR + timedelta(hours=12)
    credentials = Credentials(context, [certificate(end)], clock=clock)
    credentials.on_tick()
    credentials.report()
    times = {}
    for hour in range(24 * 300):
        clock.now = BEGIN + 100 * DAY + timedelta(hours=hour)
        credentials.on_tick()
        credentials.on_tick()
        if warned:
            times[clock.now] = warned[:]
            warned.clear()
    first = end - 30 * DAY
    assert list(times)[:31] == [first + number * DAY for number in range(31)]
    told = [message.split("'CN=a' ")[1].split(", at ")[0] for (message,) in times.values()]
    assert told[:3] == ["expires in 30 days", "expires in 29 days", "expires in 28 days"]
    assert told[30:32] == ["expired less than a day ago", "expired 1 day ago"]


def test_the_end_is_told_when_it_comes_and_not_a_day_later(warned: list[str]) -> None:
    clock = Clock(BEGIN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listed = revocation_list(BEGIN + timedelta(hours=3))
    credentials = Credentials(context, [listed], clock=clock)
    credentials.report()
    for minutes in range(300):
        clock.now = BEGIN + timedelta(minutes=minutes)
        credentials.on_tick()
    assert [message.split("'CN=ca' ")[1].split(", at ")[0] for message in warned] == [
        "expires in less than a day",
        "expired less than a day ago",
    ]


def test_without_anything_to_watch_there_is_nothing_to_warn_of(warned: list[str]) -> None:
    credentials = Credentials(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), [])
    credentials.report()
    credentials.on_tick()
    assert credentials.warnings() == warned == []


# What is in force


def shown(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_the_log_says_what_is_in_force(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    load_credentials(replace(Settings(), **PATHS)).report()  # type: ignore[arg-type]
    (server,) = read_pem(Path(PATHS["tls_certificate"]).read_bytes())
    (listed,) = read_pem(Path(PATHS["tls_client_crl"]).read_bytes())
    assert isinstance(server, Certificate)
    assert listed
    assert listed.end
    assert shown(caplog) == [
        f"in force from '{PATHS['tls_certificate']}': the certificate 'CN=server', "
        f"serial {server.serial}, expires {timestamp(server.end)}",
        f"in force from '{PATHS['tls_client_crl']}': the revocation list of 'CN=ca', "
        f"made {timestamp(listed.begin)}, next {timestamp(listed.end)}",
    ]
    assert shown(caplog, logging.WARNING) == []


def test_only_the_first_certificate_of_the_file_is_the_servers(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(stored("server").cert.read_bytes() + (STORED / "ca.pem").read_bytes())
    paths = {"tls_certificate": str(chain), "tls_key": PATHS["tls_key"]}
    load_credentials(replace(Settings(), **paths)).report()  # type: ignore[arg-type]
    (message,) = shown(caplog)
    assert "the certificate 'CN=server', serial" in message


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("renewed", [False, True])
@pytest.mark.parametrize("directory", ["", "/etc", str(STORED)])
def test_a_reload_warns_of_a_credential_that_systemd_did_not_copy_again(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    renewed: bool,
    reloaded: bool,
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
    settings = replace(
        Settings(), tls_certificate=PATHS["tls_certificate"], tls_key=PATHS["tls_key"]
    )
    previous = load_credentials(settings)
    if renewed:
        previous = Credentials(previous.context, [certificate()])
    load_credentials(settings).report(previous if reloaded else None)
    warnings = shown(caplog, logging.WARNING)
    if reloaded and not renewed and directory == str(STORED):
        assert warnings == [
            f"tls_certificate: '{settings.tls_certificate}' has not changed: systemd copied it "
            "when the service started, and does not copy it again for a reload: to use a renewed "
            "one, restart the service"
        ]
    else:
        assert warnings == []


# Files


def load(**paths: str) -> Credentials:
    return load_credentials(replace(Settings(), **{**PATHS, **paths}))  # type: ignore[arg-type]


def test_a_list_of_another_authority_is_an_error() -> None:
    other = str(stored("other").cert)
    with pytest.raises(ConfigError) as caught:
        load(tls_client_ca=other)
    assert caught.value.setting == "tls_client_crl"
    assert str(caught.value) == (
        f"tls_client_crl: '{PATHS['tls_client_crl']}' has no revocation list of a CA in "
        "tls_client_ca, but of 'CN=ca': name the file with the lists of those CAs"
    )


def test_an_authority_without_a_list_is_warned_of(tmp_path: Path) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes((STORED / "ca.pem").read_bytes() + stored("other").cert.read_bytes())
    assert load(tls_client_ca=str(authorities)).warnings() == [
        f"tls_client_crl: '{PATHS['tls_client_crl']}' has no revocation list of 'CN=localhost': "
        "all clients of this CA are refused: add its list"
    ]
    assert load().warnings() == []


def test_a_certificate_whose_dates_cannot_be_read_is_warned_of(tmp_path: Path) -> None:
    """OpenSSL loads it, and looks at its dates only when a client comes."""
    der = ssl.PEM_cert_to_DER_cert((STORED / "ca.pem").read_text())
    year = der.index(b"Z", der.index(b"Z") + 1) - 14
    assert der[year : year + 2] == b"21"
    changed = der[:year] + b"x" + der[year + 1 :]
    file = tmp_path / "ca.pem"
    file.write_text((STORED / "ca.pem").read_text() + ssl.DER_cert_to_PEM_cert(changed))
    assert load(tls_client_ca=str(file)).warnings() == [
        f"tls_client_ca: '{file}': a part cannot be read: its dates are not known"
    ]


def test_the_earliest_end_of_a_file_is_told(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    paths = [stored(stem).cert for stem in ("server", "client")]
    both.write_bytes(b"".join(path.read_bytes() for path in paths))
    ends = [
        each.end.timestamp()
        for path in paths
        for each in read_pem(path.read_bytes())
        if isinstance(each, Certificate)
    ]
    assert load().expiry == ends[0]
    assert load(tls_certificate=str(both)).expiry == min(ends)


# A client's certificates in the log


def test_a_chain_is_described_from_the_client_to_its_authority() -> None:
    client, authority = (
        ssl.PEM_cert_to_DER_cert((STORED / f"{stem}.pem").read_text()) for stem in ("client", "ca")
    )
    (own,) = read_pem((STORED / "client.pem").read_bytes())
    (signer,) = read_pem((STORED / "ca.pem").read_bytes())
    assert isinstance(own, Certificate)
    assert isinstance(signer, Certificate)

    def dates(item: Certificate) -> str:
        return f"valid from {timestamp(item.begin)} to {timestamp(item.end)}"

    first = f"'CN=client', serial {own.serial}, {dates(own)}; signed by 'CN=ca'"
    assert describe_chain([client]) == first
    assert describe_chain([client, authority]) == (
        f"{first}, serial {signer.serial}, {dates(signer)}"
    )
    assert describe_chain([authority]) == (f"'CN=ca', serial {signer.serial}, {dates(signer)}")
    assert describe_chain([]) == "its certificate is not known"
    assert describe_chain([b"\x30\0"]) == "its certificate cannot be read"
    assert describe_chain(9 * [client]).count("serial") == 3


@pytest.mark.parametrize("name", ["tls_certificate", "tls_client_ca", "tls_client_crl"])
def test_a_file_that_vanishes_while_it_is_read_is_an_error_of_its_setting(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that renews it may remove it first: the daemon goes on with the old one."""
    context = load().context
    monkeypatch.setattr(module, "load_context", lambda *_: context)
    with pytest.raises(ConfigError, match="cannot be read: No such file") as told:
        load(**{name: str(tmp_path / "renewed.pem")})
    assert told.value.setting == name
