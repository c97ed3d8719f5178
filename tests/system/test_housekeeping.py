"""What an installation has beside the daemon: manual, completion, log rotation, HAProxy, alerts."""

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from documents import OPERATIONS, marked
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
    machine.run("calcd -s stop; userdel calcd; rm -r /var/log/calcd")


@pytest.mark.usefixtures("in_background")
def test_rotation_loses_no_line(machine: SystemdContainer, report: Report) -> None:
    status = "calcd -s status"
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
    machine.run("calcd -s stop")
    assert machine.run("logrotate --force /etc/logrotate.d/calcd") == ""
    assert machine.run("ls /var/log/calcd") == "calcd.log\ncalcd.log.1\n"
    machine.run(commands("background").splitlines()[-1])


NOBODY = (
    "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    " env HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin"
)
BASH = "bash -c '. /usr/share/bash-completion/bash_completion; _completion_loader calcd; complete'"
ZSH = "zsh -c 'autoload -Uz compinit; compinit -D -u; print -l ${(kv)_comps}'"
FISH = "fish -c 'complete -C \"calcd --reuse\"'"


@pytest.fixture
def with_a_strict_umask(machine: SystemdContainer) -> None:
    """Install the manual pages and the completion as an administrator with this umask does."""
    machine.run("find /usr/local/share /etc/fish -name '*calc[cd]*' -delete")
    machine.run("rm -rf /usr/local/share/{bash-completion,fish} /etc/fish/completions")
    machine.run(f"umask 077\n{commands('manual')}")


@pytest.mark.usefixtures("with_a_strict_umask")
@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_everybody_finds_the_manual(machine: SystemdContainer) -> None:
    for name, section in {"calcd": 8, "calcc": 1, "calcd.conf": 5}.items():
        path = f"/usr/local/share/man/man{section}/{name}.{section}\n"
        assert machine.run(f"{NOBODY} man -w {name} | xargs readlink -f") == path
        shown = machine.run(f"{NOBODY} man {name}")
        assert shown.startswith(f"{name.upper()}({section})")


@pytest.mark.usefixtures("with_a_strict_umask")
@pytest.mark.parametrize(
    ("command", "shown"),
    [(BASH, "complete -F _calcd calcd\n"), (ZSH, "\n_calcd\n"), (FISH, "--reuse-port\t")],
    ids=["bash", "zsh", "fish"],
)
def test_everybodys_shell_finds_the_completion(
    machine: SystemdContainer, command: str, shown: str
) -> None:
    program = command.split()[0]
    if machine.run(f"command -v {program}", None) == "":
        pytest.skip(f"{program} is not installed")
    assert shown in machine.run(f"{NOBODY} {command}")


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


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_prometheus_gets_the_alerts(machine: SystemdContainer) -> None:
    machine.run("systemctl start prometheus")

    def health() -> dict[str, str]:
        """Return for each alert whether Prometheus could evaluate it: ok, unknown or err."""
        answer = machine.run("curl -s http://localhost:9090/api/v1/rules", None)
        groups = json.loads(answer)["data"]["groups"] if answer else []
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    config = machine.files / "etc/prometheus/prometheus.yml"
    config.write_text(marked(OPERATIONS, "prometheus", "yaml"))
    try:
        machine.run(commands("alerts"))
        wait_until(lambda: set(health().values()) == {"ok"}, "the alerts to be evaluated", 60)
        assert "CalcdDown" in health()
        assert machine.show("prometheus.service", "ActiveState") == ["active"]
    finally:
        machine.run("systemctl stop prometheus; rm /etc/prometheus/calcd-rules.yml")
