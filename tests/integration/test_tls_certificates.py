"""Certificates of a real daemon and of real clients: revoked, expired, and soon to expire."""

import re
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import LOCAL, Authority, Certificates, Pair
from client_helpers import COMMAND
from helpers import TIMEOUT, Daemon, Daemons, run_calcd, run_program, wait_until

from calcd.core.x509 import Certificate, read_pem

VERSIONS = {"-tls1_2": ssl.TLSVersion.TLSv1_2, "-tls1_3": ssl.TLSVersion.TLSv1_3}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
DATES = f"valid from {TIME} to {TIME}"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


class Checked:
    """A daemon that asks for certificates, with a directory for its files."""

    def __init__(self, start: Daemons, directory: Path, authority: Authority) -> None:
        self.authority = authority
        self.directory = directory
        self.server = authority.issue("checked-server", LOCAL)
        self.clients_ca, self.crl = directory / "clients.pem", directory / "clients.crl"
        self.start_with = start
        self.trust(authority)
        self.publish(authority)

    def trust(self, *authorities: Authority) -> None:
        """Write the file of the clients' authorities."""
        self.clients_ca.write_bytes(b"".join(each.cert.read_bytes() for each in authorities))

    def publish(self, *authorities: Authority, begin: float = -1, end: float = 24) -> None:
        """Write the file of revocation lists."""
        lists = [each.revocation_list(begin, end).read_bytes() for each in authorities]
        self.crl.write_bytes(b"".join(lists))

    @property
    def options(self) -> tuple[str, ...]:
        return (
            *("--tls-certificate", str(self.server.cert), "--tls-key", str(self.server.key)),
            *("--tls-client-ca", str(self.clients_ca), "--tls-client-crl", str(self.crl)),
        )

    def start(self) -> Daemon:
        self.daemon = self.start_with("-l", "tls://127.0.0.1:0", *self.options)
        self.port = self.daemon.port_of("tls")
        return self.daemon

    def reload(self) -> None:
        self.daemon.notified.received.clear()
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.notified.has("READY=1"), "the end of the reload")

    def connect(self, pair: Pair, version: str = "-tls1_3") -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.authority.cert)
        context.minimum_version = context.maximum_version = VERSIONS[version]
        context.load_cert_chain(pair.cert, pair.key)
        plain = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        try:
            return context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def with_python(self, pair: Pair, version: str) -> str:
        """Ask with Python's ssl; return the reply, or the error."""
        try:
            with self.connect(pair, version) as connection:
                connection.sendall(b"SOMA 2 2\n")
                return connection.recv(100).decode()
        except ssl.SSLError as error:
            return str(error.reason)

    def with_s_client(self, pair: Pair, version: str, *options: str) -> str:
        """Ask with ``openssl s_client``; return what it wrote."""
        where = ("-connect", f"127.0.0.1:{self.port}", version, "-ign_eof")
        shown = ("-cert", str(pair.cert), "-key", str(pair.key))
        return run(["openssl", "s_client", *where, *shown, *options], b"SOMA 2 2\nQUIT\n")

    def with_calcc(self, pair: Pair, _version: str = "") -> str:
        """Ask with the project's client; return what it wrote."""
        trust = ("--ssl-trustfile", str(self.authority.cert))
        shown = ("--ssl-cert", str(pair.cert), "--ssl-key", str(pair.key))
        return run([*COMMAND, *trust, *shown, "-e", "SOMA 2 2", "localhost", str(self.port)], b"")

    def refused(self, reason: str, name: str, times: int = 1) -> list[str]:
        """Wait for the lines of a certificate that was refused, and return them."""
        head = rf"info: connection 127\.0\.0\.1:\d+: certificate refused: {reason}"
        return self.daemon.logs(f"{head}: 'CN={name}', serial ", times)


def run(command: list[str], stdin: bytes) -> str:
    done = run_program(command, stdin)
    return (done.stdout + done.stderr).decode()


@pytest.fixture
def checked(start_daemon: Daemons, tmp_path: Path) -> Checked:
    """Give a daemon that is not started yet, and an authority of its own."""
    return Checked(start_daemon, tmp_path, Authority(tmp_path))


def serial_of(pair: Pair) -> str:
    (certificate,) = read_pem(pair.cert.read_bytes())
    assert isinstance(certificate, Certificate)
    return certificate.serial


# Who is refused


CLIENTS: dict[str, Callable[[Checked, Pair, str], str]] = {
    "python": Checked.with_python,
    "s_client": Checked.with_s_client,
    "calcc": Checked.with_calcc,
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_is_refused_and_told_and_the_log_says_which(
    checked: Checked, certificates: Certificates, client: str, version: str
) -> None:
    ask, authority = CLIENTS[client], checked.authority
    good, revoked = authority.issue("good"), authority.issue("revoked")
    authority.revoke(revoked.cert)
    checked.publish(authority)
    checked.start()
    cases = [
        (revoked, "certificate revoked", r"certificate[ _]revoked", "authority"),
        (authority.issue("old", days=-1), "certificate has expired", r"expired", "authority"),
        (
            certificates.strange_client,
            "unable to get local issuer certificate",
            r"unknown[ _]ca",
            "stranger",
        ),
    ]
    for pair, reason, told, signer in cases:
        answer = ask(checked, pair, version)
        assert re.search(told, answer, re.IGNORECASE), answer
        name = pair.cert.stem
        (line,) = checked.refused(reason, name)
        assert re.search(
            f"refused: {reason}: 'CN={name}', serial {serial_of(pair)}, {DATES}; "
            f"signed by 'CN={signer}'",
            line,
        ), line
    checked.daemon.logs("requests=0 errors=0 .* how=tls-certificate-verify-failed", len(cases))
    assert re.search(r"(^|\n)4\n", ask(checked, good, version))
    assert "'CN=good'" not in checked.daemon.log


def test_a_list_takes_effect_at_a_reload_and_open_connections_go_on(checked: Checked) -> None:
    pair = checked.authority.issue("leaving")
    checked.start()
    with checked.connect(pair) as connection:
        connection.sendall(b"SOMA 2 2\n")
        assert connection.recv(100) == b"4\n"
        checked.authority.revoke(pair.cert)
        checked.publish(checked.authority)
        assert checked.with_python(pair, "-tls1_2") == "4\n"
        checked.reload()
        for version in VERSIONS:
            assert "REVOKED" in checked.with_python(pair, version)
        connection.sendall(b"SOMA 3 3\n")
        assert connection.recv(100) == b"6\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_saved_session_does_not_stand_for_a_certificate_that_was_revoked(
    checked: Checked, version: str
) -> None:
    pair, saved = checked.authority.issue("leaving"), checked.directory / "saved"
    checked.start()
    assert "\n4\nBYE\n" in checked.with_s_client(pair, version, "-sess_out", str(saved))
    assert saved.exists() == (version == "-tls1_2")
    offered = ("-sess_in", str(saved)) if saved.exists() else ()
    assert "\n4\nBYE\n" in checked.with_s_client(pair, version, *offered)
    checked.authority.revoke(pair.cert)
    checked.publish(checked.authority)
    checked.reload()
    assert "certificate revoked" in checked.with_s_client(pair, version, *offered)
    checked.refused("certificate revoked", "leaving")


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        (("authority", "intermediate"), ""),
        (("authority",), "unable to get certificate CRL"),
        (("authority", "intermediate", "revoked"), "certificate revoked"),
    ],
)
def test_each_authority_of_the_chain_must_have_a_list_and_not_be_revoked(
    checked: Checked, published: tuple[str, ...], reason: str
) -> None:
    authority = checked.authority
    intermediate = Authority(checked.directory, "intermediate", signed_by=authority)
    pair = intermediate.issue("below")
    pair.cert.write_bytes(pair.cert.read_bytes() + intermediate.cert.read_bytes())
    if "revoked" in published:
        authority.revoke(intermediate.cert)
    known = {"authority": authority, "intermediate": intermediate}
    checked.publish(*(known[name] for name in published if name in known))
    checked.start()
    answers = [checked.with_python(pair, version) for version in VERSIONS]
    if reason:
        lines = checked.refused(reason, "below", 2)
        assert all("; signed by 'CN=intermediate', serial " in line for line in lines)
        assert "4\n" not in answers
    else:
        assert answers == ["4\n", "4\n"]


def test_names_in_a_certificate_cannot_forge_a_line_or_fill_the_log(
    checked: Checked, tmp_path: Path
) -> None:
    checked.start()
    # RFC 4514 writes the last part of a name first.
    units = "".join(f"/OU={60 * 'y'}{number}" for number in range(12))
    subject = f"{units}/CN=evil\n2026-01-01T00:00:00.000Z info: forged \u202exxx"
    pair = Pair(tmp_path / "evil.pem", tmp_path / "evil.key")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    files = ("-keyout", str(pair.key), "-out", str(pair.cert))
    run(["openssl", "req", "-x509", "-utf8", *key, *files, "-subj", subject], b"")
    assert checked.with_python(pair, "-tls1_3") != "4\n"
    (line,) = checked.daemon.logs("certificate refused: ")
    assert r"'CN=evil\n2026-01-01T00:00:00.000Z info: forged \u202exxx" in line
    assert len(line) < 800
    assert not any(each.startswith("2026-01-01") for each in checked.daemon.log.splitlines())


# What is not valid, or not for long


def test_lists_that_have_expired_refuse_everybody_and_are_warned_of(checked: Checked) -> None:
    pair = checked.authority.issue("good")
    checked.publish(checked.authority, begin=-48, end=-25)
    checked.start()
    (line,) = checked.daemon.logs("warning: tls_client_crl: ")
    assert re.search(
        f"warning: tls_client_crl: '{checked.crl}': the revocation list of 'CN=authority' "
        f"expired 1 day ago, at {TIME}: all clients of this CA are refused: "
        "get its next list and reload$",
        line,
    )
    for version in VERSIONS:
        assert checked.with_python(pair, version) != "4\n"
    checked.refused("CRL has expired", "good", 2)
    checked.publish(checked.authority)
    checked.reload()
    assert checked.with_python(pair, "-tls1_3") == "4\n"
    assert len(checked.daemon.logs("warning: tls_client_crl: ")) == 1


def warnings_of(log: str, setting: str) -> list[str]:
    return re.findall(rf"warning: {setting}: (.*)", log)


def test_certificates_are_warned_of_in_the_check_at_the_start_and_at_a_reload(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    periods = {
        "expired": (
            -75,
            -49,
            f"expired 2 days ago, at {TIME}: clients refuse it: renew it and reload",
        ),
        "soon": (-1, 29.5 * 24, f"expires in 29 days, at {TIME}: renew it and reload"),
        "later": (49, 75, f"is not valid before {TIME}, in 2 days: clients refuse it"),
        "long": (-1, 30.5 * 24, ""),
    }
    pairs = {
        name: authority.issue_for(name, LOCAL, begin, end)
        for name, (begin, end, _) in periods.items()
    }
    both = tmp_path / "server.pem"

    def install(name: str) -> None:
        both.write_bytes(pairs[name].cert.read_bytes() + pairs[name].key.read_bytes())

    install("long")
    daemon = start_daemon("-l", "tls://127.0.0.1:0", "--tls-certificate", str(both))
    assert warnings_of(daemon.log, "tls_certificate") == []
    for number, (name, (_, _, told)) in enumerate(periods.items(), start=1):
        install(name)
        # The check: a warning is no error.
        checked = run_calcd("-t", "-l", "tls://127.0.0.1:0", "--tls-certificate", str(both))
        assert checked.returncode == 0
        assert checked.stdout.endswith("\ncalcd: the settings are right\n")
        expected = [f"'{both}': the certificate 'CN={name}' {told}"] if told else []
        for shown in warnings_of(checked.stderr, "tls_certificate"):
            assert re.fullmatch(expected.pop(), shown), shown
        assert expected == []
        # A reload.
        before = len(warnings_of(daemon.log, "tls_certificate"))
        daemon.notified.received.clear()
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.notified.has("READY=1"), "the end of the reload")
        in_force = daemon.logs(f"info: in force from '{both}': ", number + 1)[-1]
        serial = serial_of(pairs[name])
        assert re.search(f"the certificate 'CN={name}', serial {serial}, expires {TIME}$", in_force)
        new = warnings_of(daemon.log, "tls_certificate")[before:]
        assert len(new) == bool(told)
        # A start.
        started = start_daemon("-l", "tls://127.0.0.1:0", "--tls-certificate", str(both))
        at_start = warnings_of(started.log, "tls_certificate")
        assert len(at_start) == bool(told)
        for shown in [*new, *at_start]:
            assert re.fullmatch(f"'{both}': the certificate 'CN={name}' {told}", shown), shown


# Days that last a fifth of a second.
FAST_CLOCK = """
import time
import calcd.net.credentials
start = time.time()
clock = lambda: start + 5 * 86400 * (time.time() - start)
calcd.net.credentials.Credentials.__init__.__defaults__ = ((), clock)
"""


def test_a_daemon_that_runs_for_days_warns_each_day(checked: Checked) -> None:
    pair = checked.server
    files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    daemon = checked.daemon = checked.start_with("-l", "tls://127.0.0.1:0", *files, code=FAST_CLOCK)
    head = f"warning: tls_certificate: '{pair.cert}': the certificate 'CN=checked-server' "
    daemon.logs(f"{head}expires in less than a day, ")
    daemon.logs(rf"{head}expired \d+ days? ago, ", 3)
    # The one that a reload has brought.
    renewed = checked.authority.issue_for("renewed", LOCAL, -1, 45 * 24)
    for path, new in (pair.cert, renewed.cert), (pair.key, renewed.key):
        path.write_bytes(new.read_bytes())
    checked.reload()
    daemon.logs(r"warning: tls_certificate: .* 'CN=renewed' expire[sd] ", 3)
    lines = daemon.log.partition("reloading: SIGHUP")[2]
    assert "the certificate 'CN=checked-server' expired" not in lines


def test_intermediate_certificates_and_clients_authorities_are_warned_of(
    checked: Checked, tmp_path: Path
) -> None:
    """Those of the tests expire in a day."""
    intermediate = Authority(tmp_path, "intermediate", signed_by=checked.authority)
    pair = intermediate.issue("below", LOCAL)
    pair.cert.write_bytes(pair.cert.read_bytes() + intermediate.cert.read_bytes())
    checked.server = pair
    log = checked.start().log
    soon = "expires in less than a day, at "
    assert [each.partition(soon)[0] for each in warnings_of(log, "tls_certificate")] == [
        f"'{pair.cert}': the certificate 'CN=below' ",
        f"'{pair.cert}': the certificate 'CN=intermediate' ",
    ]
    assert [each.partition(soon)[0] for each in warnings_of(log, "tls_client_ca")] == [
        f"'{checked.clients_ca}': the certificate 'CN=authority' "
    ]
    checked.daemon.logs("info: in force from .* the certificate 'CN=below', serial ", 1)


# What is wrong


def test_a_wrong_list_is_an_error_and_a_reload_keeps_the_right_one(
    checked: Checked, certificates: Certificates
) -> None:
    pair = checked.authority.issue("good")
    wrong = {
        "text": "no list\n",
        "certificate": checked.authority.cert.read_text(),
        "other": certificates.stranger.revocation_list().read_text(),
    }
    told = {
        "text": "does not have certificate revocation lists in PEM: name a file that has",
        "certificate": "does not have certificate revocation lists in PEM: name a file that has",
        "other": "has no revocation list of a CA in tls_client_ca, but of 'CN=stranger': "
        "name the file with the lists of those CAs",
    }
    checked.start()
    for number, (name, text) in enumerate(wrong.items(), start=1):
        checked.crl.write_text(text)
        done = run_calcd("-t", "-l", "tls://127.0.0.1:0", *checked.options)
        assert done.returncode == 2
        assert done.stdout.endswith(f"calcd: reads {checked.crl}, the tls_client_crl\n")
        assert done.stderr == f"calcd: --tls-client-crl: '{checked.crl}' {told[name]}\n"
        checked.reload()
        line = checked.daemon.logs("error: reload: --tls-client-crl: ", number)[-1]
        assert line.endswith(f"'{checked.crl}' {told[name]}")
        assert checked.with_python(pair, "-tls1_3") == "4\n"
    assert len(checked.daemon.logs("info: in force from .* revocation list of ")) == 1
    failed = run_calcd("-l", "tls://127.0.0.1:0", *checked.options)
    assert failed.returncode != 0
    assert failed.stderr.endswith(f"'{checked.crl}' {told['other']}\n")


def test_lists_without_authorities_are_an_error() -> None:
    done = run_calcd("-t", "--tls-client-crl", "/etc/calcd/clients.crl")
    assert done.returncode == 2
    assert done.stderr == (
        "calcd: --tls-client-crl: '/etc/calcd/clients.crl': "
        "expected tls_client_ca to be set too, to a file's path\n"
    )


# What openssl reads


NAMES = [
    "/CN=plain",
    '/C=DE/O=Example, Inc./OU=a+b/CN=x"y;z<w>',
    "/DC=org/DC=example/UID=u1/CN= # ",
    "/CN=Zoë €/emailAddress=zoe@example.org",
    "/O=multi/CN=a+UID=b",
    "/CN=back\\\\slash=equals",
    "/serialNumber=12/ST=S/L=L/street=T/CN=all",
    "/GN=given/CN=rare",
]


@pytest.mark.parametrize("subject", NAMES)
def test_names_serial_numbers_and_dates_are_those_that_openssl_shows(
    tmp_path: Path, subject: str
) -> None:
    path, key = tmp_path / "a.pem", tmp_path / "a.key"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", str(key))
    for days, serial in ("10", "0x7f"), ("36500", "0x8000"), ("10", "0x0102030405060708090a"):
        made = ("-days", days, "-set_serial", serial, "-out", str(path))
        run(
            ["openssl", "req", "-x509", "-utf8", *new, *made, "-multivalue-rdn", "-subj", subject],
            b"",
        )
        (read,) = read_pem(path.read_bytes())
        assert isinstance(read, Certificate)
        shown = ("-subject", "-serial", "-dates", "-nameopt", "RFC2253,-esc_msb,utf8")
        dates = ("-dateopt", "iso_8601")
        told = run(["openssl", "x509", "-in", str(path), "-noout", *shown, *dates], b"")
        # RFC 4514 has other short names than openssl.
        expected = told.replace("street=", "STREET=").replace("GN=", "2.5.4.42=")
        assert expected.splitlines() == [
            f"subject={read.subject}",
            f"serial={read.serial}",
            f"notBefore={read.begin:%Y-%m-%d %H:%M:%SZ}",
            f"notAfter={read.end:%Y-%m-%d %H:%M:%SZ}",
        ]


def test_all_authorities_of_this_machine_are_read() -> None:
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        pytest.skip("needs ca-certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    read = list(read_pem(bundle.read_bytes()))
    certificates = [each for each in read if isinstance(each, Certificate)]
    assert len(certificates) == len(read) == len(context.get_ca_certs())
    ends = {each.end.timestamp() for each in certificates}
    expected = {ssl.cert_time_to_seconds(each["notAfter"]) for each in context.get_ca_certs()}  # type: ignore[arg-type]
    assert ends == expected
