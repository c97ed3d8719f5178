"""TLS as a service: a port of its own, with a key that one process is handed."""

import pytest
from certificates import Authority, Certificates, Pair
from helpers import wait_until
from service import Service
from systemd_container import SystemdContainer, commands

SOCKET, SERVICE = "calcd@tls.socket", "calcd@tls.service"


def install(machine: SystemdContainer, pair: Pair) -> None:
    """Put a certificate and its key where docs/operations.md says."""
    path = machine.files / "etc/calcd/tls.pem"
    path.write_bytes(pair.in_one_file().read_bytes())
    path.chmod(0o600)


@pytest.fixture
def authority(machine: SystemdContainer, service: Service, certificates: Certificates) -> str:
    """Set up the instance for TLS; return the path there of its authority's certificate."""
    assert service
    install(machine, certificates.server)
    (machine.files / "etc/calcd/authority.pem").write_bytes(
        certificates.authority.cert.read_bytes()
    )
    machine.run(commands("tls"))
    return "/etc/calcd/authority.pem"


def test_it_answers_under_tls_and_the_plain_port_goes_on(
    machine: SystemdContainer, authority: str
) -> None:
    ask = f"calcc -w 20 --ssl-trustfile {authority} -e 'SOMA 0.1 0.2' localhost 12001"
    assert machine.run(ask, None).strip() == "0.3"
    assert machine.ask("SOMA 2 2") == "4"
    ours, pid = machine.show(SERVICE, "ActiveState", "MainPID")
    assert ours == "active"
    # The process has the key, as a user who cannot read root's file.
    assert machine.run(f"stat -c %U /proc/{pid}").strip() != "root"
    assert "tls.pem" in machine.run("ls /run/credentials/calcd@tls.service")
    log = machine.run(f"journalctl --sync; journalctl --quiet -o cat -u {SERVICE}")
    assert "listening on tls://" in log
    assert "is open to everybody who can reach it" in log


def test_a_renewed_certificate_is_shown_after_a_restart(
    machine: SystemdContainer, authority: str, certificates: Certificates
) -> None:
    show = (
        f"echo QUIT | openssl s_client -connect localhost:12001 -CAfile {authority} "
        "-verify_return_error 2>/dev/null | openssl x509 -noout -serial"
    )
    first = machine.run(show)
    install(machine, certificates.authority.issue("again", "DNS:localhost"))
    machine.run(f"systemctl restart {SERVICE}")
    second = machine.run(show)
    assert first.startswith("serial=")
    assert second.startswith("serial=")
    assert first != second


def test_a_reload_warns_that_the_certificate_is_systemds_old_copy(
    machine: SystemdContainer, authority: str, certificates: Certificates
) -> None:
    assert authority
    machine.run(f"systemctl start {SERVICE}")
    machine.run("journalctl --rotate --vacuum-time=1s")
    install(machine, certificates.authority.issue("anew", "DNS:localhost"))
    machine.run(f"systemctl reload {SERVICE}")
    follow = f"journalctl --sync; journalctl --quiet -o cat -u {SERVICE}"
    wait_until(lambda: "settings in force" in machine.run(follow), "the end of the reload")
    log = machine.run(follow)
    copy = "'/run/credentials/calcd@tls.service/tls.pem'"
    assert f"in force from {copy}: the certificate 'CN=server', serial " in log
    assert f"tls_certificate: {copy} has not changed: systemd copied it when the service" in log
    machine.run(f"systemctl restart {SERVICE}")
    wait_until(lambda: "the certificate 'CN=anew', serial " in machine.run(follow), "the new one")


def test_a_reload_reads_revocation_lists_that_are_no_credential(
    machine: SystemdContainer, authority: str, certificates: Certificates
) -> None:
    """As docs/operations.md says: readable for all, in /etc/calcd."""
    guests = Authority(certificates.authority.cert.parent, "guests")
    guest = guests.issue("guest")
    for name, text in {
        "guests.pem": guests.cert.read_text(),
        "guests.crl": guests.revocation_list().read_text(),
        "guest.pem": guest.in_one_file().read_text(),
    }.items():
        (machine.files / "etc/calcd" / name).write_text(text)
    drop_in = machine.files / "etc/systemd/system/calcd@tls.service.d/z-guests.conf"
    drop_in.write_text(
        "[Service]\nExecStart=\nExecStart=/opt/calcd/bin/calcd --tls-certificate=%d/tls.pem "
        "--tls-client-ca=/etc/calcd/guests.pem --tls-client-crl=/etc/calcd/guests.crl\n"
    )
    ask = (
        f"/opt/calcd/bin/calcc -w 20 --ssl-trustfile {authority} --ssl-cert /etc/calcd/guest.pem "
        "-e 'SOMA 2 2' localhost 12001"
    )
    try:
        machine.run(f"systemctl daemon-reload; systemctl restart {SERVICE}")
        assert machine.run(ask).strip() == "4"
        guests.revoke(guest.cert)
        crl = guests.revocation_list().read_text()
        (machine.files / "etc/calcd/guests.crl").write_text(crl)
        machine.run(f"systemctl reload {SERVICE}")
        wait_until(lambda: "revoked" in machine.run(f"{ask} 2>&1", None), "the new list")
    finally:
        drop_in.unlink()
        machine.run(f"systemctl daemon-reload; systemctl restart {SERVICE}")
    log = machine.run(f"journalctl --sync; journalctl --quiet -o cat -u {SERVICE}")
    assert "certificate refused: certificate revoked: 'CN=guest', serial " in log
