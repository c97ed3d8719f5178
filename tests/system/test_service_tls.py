"""TLS as a service: a port of its own, with a key that one process is handed."""

import pytest
from certificates import Certificates, Pair
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
    ask = (
        f"/opt/calcd/bin/calcc -w 20 --ssl-trustfile {authority} -e 'SOMA 0.1 0.2' localhost 12001"
    )
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
