"""HAProxy with the shipped configuration and the servers it names, each on its own machine."""

import csv
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import network_namespaces
from helpers import ROOT, TIMEOUT, Daemon, request_all, wait_until

CONFIGURATION = ROOT / "etc" / "haproxy.cfg"
SERVERS: dict[str, str] = dict(
    re.findall(r"^ +server (\S+) ([\d.]+):12000$", CONFIGURATION.read_text(), re.MULTILINE)
)
PROXY, CLIENT = "192.0.2.1", "192.0.2.100"
PROXY6, CLIENT6 = "2001:db8::1", "2001:db8::100"

# What HAProxy's package gives it, on a machine that has these directories for itself.
PREPARE = """
mount -t tmpfs none /etc/haproxy
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/haproxy
mkdir /run/haproxy /var/lib/haproxy/dev
cp "$0" /etc/haproxy/haproxy.cfg
cat "$1" "$2" >/etc/haproxy/calcd.pem
"""


class HaproxyCluster:
    """HAProxy, the servers that its configuration names, and a machine for clients."""

    def __init__(
        self, directory: Path, stack: ExitStack, changes: Mapping[str, str], proxies: str
    ) -> None:
        self._directory = directory
        self._options = ["--proxy-protocol-from", proxies] if proxies else []
        configuration = CONFIGURATION.read_text()
        for shipped, changed in changes.items():
            assert shipped in configuration
            configuration = configuration.replace(shipped, changed)
        (directory / "haproxy.cfg").write_text(configuration)
        self._proxy, self.client, *machines = network_namespaces.star(
            stack, PROXY, CLIENT, *SERVERS.values()
        )
        self._machines = dict(zip(SERVERS, machines, strict=True))
        self.daemons: dict[str, Daemon] = {}
        for name in SERVERS:
            self.start(name)
            stack.callback(self.stop, name)

        self.certificate = directory / "certificate.pem"
        key = directory / "key.pem"
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc"
        name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
        files = ["-out", str(self.certificate), "-keyout", str(key)]
        subprocess.run([*make.split(), *name.split(), *files], capture_output=True, check=True)
        self._proxy.run(PREPARE, directory / "haproxy.cfg", self.certificate, key)
        # IPv6 between the client and HAProxy alone.
        for machine, cable, address in (
            (self._proxy, "eth1", PROXY6),
            (self.client, "eth0", CLIENT6),
        ):
            machine.run(f"ip address add {address}/64 dev {cable} nodad")

        self._log = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._log.setblocking(False)
        log = self._proxy.root / "var/lib/haproxy/dev/log"
        self._log.bind(str(log))
        log.chmod(0o666)

        self._stack = stack
        self._commands = self._proxy.root / "run/haproxy/admin.sock"
        self._start_haproxy()

    def _start_haproxy(self, *options: str) -> None:
        haproxy = self.haproxy("-db", *options)
        self._stack.callback(haproxy.communicate, timeout=TIMEOUT)
        self._stack.callback(haproxy.terminate)
        wait_until(lambda: self._is_up() or haproxy.poll() is not None, "HAProxy")
        assert haproxy.poll() is None, haproxy.communicate()

    def reload(self, shipped: str, changed: str) -> None:
        """Change the configuration; a new HAProxy takes the place of the old one.

        That one stays as long as it has connections.
        """
        file = self._proxy.root / "etc/haproxy/haproxy.cfg"
        assert shipped in file.read_text()
        file.write_text(file.read_text().replace(shipped, changed))
        before = self.tell("show info").partition("\nPid: ")[2].split()[0]
        self._start_haproxy("-sf", before)
        wait_until(lambda: f"\nPid: {before}\n" not in self.tell("show info"), "the new HAProxy")

    def _is_up(self) -> bool:
        """Return True once HAProxy takes commands: it binds the socket's path before it listens."""
        try:
            self.tell("show version")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def haproxy(self, *options: str) -> subprocess.Popen[bytes]:
        """Start an HAProxy with the shipped configuration."""
        command = [*self._proxy.enter, "haproxy", *options, "-f", "/etc/haproxy/haproxy.cfg"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def start(self, name: str) -> None:
        """Start a server's calcd."""
        self._settings(name).touch()
        command = [*self._machines[name].enter, sys.executable, "-m", "calcd"]
        options = ["-c", str(self._settings(name)), "-l", f"tcp://{SERVERS[name]}:12000"]
        options += self._options
        log_file = self._directory / f"{name}-{len(list(self._directory.iterdir()))}.log"
        self.daemons[name] = Daemon([*command, *options], log_file)

    def set(self, name: str, settings: str) -> None:
        """Let a server's calcd reload with these settings."""
        self._settings(name).write_text(f"[calcd]\n{settings}\n")
        self.daemons[name].process.send_signal(signal.SIGHUP)

    def _settings(self, name: str) -> Path:
        return self._directory / f"{name}.conf"

    def stop(self, name: str, signum: int = signal.SIGTERM) -> int:
        """Stop a server's calcd, and return its exit status."""
        status = self.daemons[name].stop(signum)
        assert "Traceback" not in self.daemons[name].log
        return status

    def tell(self, command: str) -> str:
        """Give HAProxy a command, and return what it says."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._commands))
            return request_all(connection, f"{command}\n".encode()).decode()

    def stat(self, name: str, field: str) -> str:
        """Give what HAProxy says of a server, or of all of them (BACKEND)."""
        table = csv.DictReader(self.tell("show stat").removeprefix("# ").splitlines())
        return next(
            row[field] for row in table if (row["pxname"], row["svname"]) == ("calcd", name)
        )

    def wait_for(self, name: str, status: str) -> None:
        wait_until(lambda: self.stat(name, "status") == status, f"{name} to be {status}")

    def wait_for_checks(self) -> None:
        """Wait until all have been found well: until then a single failure takes one out."""
        wait_until(
            lambda: all(self.stat(name, "check_status") == "L7OK" for name in SERVERS), "checks"
        )

    def wait_for_connections(self, name: str, more: int) -> None:
        """Wait until a server has got so many connections more."""
        until = int(self.stat(name, "stot")) + more
        wait_until(lambda: int(self.stat(name, "stot")) >= until, f"clients at {name}")

    def current(self) -> list[int]:
        """Give how many connections each server has."""
        return [int(self.stat(name, "scur")) for name in SERVERS]

    def log(self) -> str:
        """Give what HAProxy has logged since the last time."""
        lines = []
        with suppress(BlockingIOError):
            while True:
                lines.append(self._log.recv(4096).decode())
        return "".join(lines)

    def talk(self, command: str) -> "Conversation":
        """Start a client program."""
        return Conversation([*self.client.enter, "sh", "-c", f"exec {command}"])


class Conversation(subprocess.Popen[bytes]):
    """A client program that talks to a server."""

    def __init__(self, command: list[str]) -> None:
        pipe = subprocess.PIPE
        super().__init__(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def ask(self, request: bytes) -> bytes:
        assert self.stdin
        assert self.stdout
        self.stdin.write(request)
        self.stdin.flush()
        assert select.select([self.stdout], [], [], TIMEOUT)[0], f"no answer to {request!r}"
        return self.stdout.readline()


@contextmanager
def cluster_in(
    directory: Path, changes: Mapping[str, str] = MappingProxyType({}), proxies: str = PROXY
) -> Iterator[HaproxyCluster]:
    """Give a cluster that is gone in the end; ``changes`` are made to HAProxy's configuration.

    ``proxies`` is the servers' ``proxy_protocol_from``.
    """
    with ExitStack() as stack:
        yield HaproxyCluster(directory, stack, changes, proxies)
