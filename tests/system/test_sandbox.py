"""What a calcd that was taken over could do: tried out from inside its unit's sandbox."""

import json
import re

from service import UNIT, Service
from systemd_container import SystemdContainer

# Runs in place of the daemon, and prints what it was able to do.
PROBE = """\
import errno, json, os, socket

def outcome(do, *arguments):
    try:
        do(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def writable():
    for directory, names, _ in os.walk("/"):
        if directory.startswith("/proc"):
            names.clear()
            continue
        path = os.path.join(directory, "calcd-was-here")
        if outcome(lambda: os.close(os.open(path, os.O_CREAT))) == "done":
            os.unlink(path)
            yield directory

print(json.dumps({
    "user": os.getuid(),
    "writable": sorted(writable()),
    "sockets": {
        family: outcome(lambda: socket.socket(getattr(socket, family)).close())
        for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET")
    },
    "interfaces": os.listdir("/sys/class/net"),
    "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
    "own": os.getpid(),
    "become root": outcome(os.setuid, 0),
    "homes": [outcome(os.listdir, home) for home in ("/home", "/root")],
    "devices": sorted(os.listdir("/dev")),
    "settings": open("/etc/calcd/calcd.conf").readline(),
}))
"""


def test_from_inside(machine: SystemdContainer, service: Service) -> None:
    (machine.files / "srv/probe.py").write_text(PROBE)
    program = "/opt/calcd/bin/python /srv/probe.py"
    service.change("Type=oneshot", "ExecStart=", f"ExecStart={program}")
    machine.run(f"systemctl start {UNIT}")
    (told,) = [json.loads(text) for _, text in service.journal.of(UNIT)]
    assert 61184 <= told.pop("user") <= 65519  # the users that systemd makes for a run
    assert told.pop("processes") == [told.pop("own")]
    assert told.pop("settings").startswith("#")  # it may read them
    assert not {"sda", "vda", "mem", "kmsg", "fuse"} & set(told.pop("devices"))
    others = ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET")
    assert told == {
        "writable": ["/tmp", "/var/tmp"],
        "sockets": {"AF_UNIX": "done"} | dict.fromkeys(others, "EAFNOSUPPORT"),
        "interfaces": ["lo"],
        "become root": "EPERM",
        "homes": ["EACCES", "EACCES"],
    }
    # Its own /tmp went with it.
    assert machine.run("find /tmp /var/tmp -name '*calcd.service*'") == ""


def test_the_running_daemon(machine: SystemdContainer, service: Service) -> None:
    machine.ask("PING")
    status = dict(
        re.findall(r"^(\w+):\s*(.*)$", machine.run(f"cat /proc/{service.pid}/status"), re.MULTILINE)
    )
    users = set(map(int, status["Uid"].split()))
    assert len(users) == 1
    assert min(users) >= 61184
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    networks = machine.run(f"readlink /proc/1/ns/net /proc/{service.pid}/ns/net").split()
    assert len(set(networks)) == 2


def test_workers_run_in_the_sandbox_with_a_lower_priority(
    machine: SystemdContainer, service: Service
) -> None:
    line = "= " + "+".join(40 * ["exp(0.1234)+ln(3)"])  # at 34 digits, too many for the loop
    assert machine.ask(line).startswith("89.19")
    pid = service.pid
    children = machine.run(f"cat /proc/{pid}/task/*/children").split()
    assert len(children) == 1
    status = machine.run(f"cat /proc/{children[0]}/stat").rpartition(")")[2].split()
    assert status[16] == "5"  # nice
    assert machine.run(f"cat /proc/{children[0]}/cgroup") == machine.run(f"cat /proc/{pid}/cgroup")
    machine.run(f"kill -9 {children[0]}")
    assert machine.ask(line).startswith("89.19")
    (worker,) = machine.run(f"cat /proc/{pid}/task/*/children").split()
    machine.run(f"systemctl stop {UNIT}")
    assert service.said("^stopped: 0 connections cut, ")
    machine.run(f"test ! -e /proc/{pid}; test ! -e /proc/{worker}")


def test_exposure_of_the_running_unit(machine: SystemdContainer, service: Service) -> None:
    machine.ask("PING")
    assert service.show("ActiveState") == "active"
    report = machine.run(f"systemd-analyze --no-pager security {UNIT}")
    exposure = re.search(r"Overall exposure level for calcd\.service: (\d+\.\d+)", report)
    assert exposure, report
    assert float(exposure[1]) <= 0.5, report
