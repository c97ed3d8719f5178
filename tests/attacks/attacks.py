"""The attacks: what the clients of each do, for so many seconds, and what they saw."""

import os
import random
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import proxy_headers as headers
from helpers import clean_environment, wait_until

_READ = 1 << 16
_RECORD_OVERHEAD = 22  # bytes of a TLS 1.3 record beside its text


@dataclass(frozen=True)
class Target:
    """A daemon that is attacked: its ports by scheme, its pid, and where its files are."""

    ports: dict[str, list[int]]
    pid: int
    directory: Path
    checkout: Path
    seconds: float

    @property
    def log(self) -> str:
        return next(self.directory.glob("daemon-*.log")).read_text()

    def until(self) -> float:
        return time.monotonic() + self.seconds

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports["tcp"][0]), 60)

    def environment(self) -> dict[str, str]:
        return clean_environment(PYTHONPATH=str(self.checkout), PYTHONWARNINGS="ignore")


Attack = Callable[[Target], str]


def read_line(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (part := client.recv(_READ)):
        line += part
    return line


def exponentials(count: int) -> bytes:
    """Return a line that takes about half a millisecond for each, to 1,000 digits."""
    return b"= " + b"+".join(b"exp(0.1%03d)" % number for number in range(count))


_EXPENSIVE = exponentials(20)  # 10 ms: what a fast client would notice


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


# Datagrams


def udp(data: bytes) -> Attack:
    """Send a datagram, and again whenever the one before has been worked off, or 0.2 s later."""

    def attack(target: Target) -> str:
        until, sent = target.until(), 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", target.ports["udp"][0]))
            while time.monotonic() < until:
                client.send(data)
                sent += 1
                time.sleep(0.2)
        return f"{sent} datagrams"

    return attack


def forged(target: Target) -> str:
    """Send a datagram from one of the daemon's UDP ports to the other."""
    one, other = target.ports["udp"][:2]
    line = b"UPPER " * 100 + b"x\n" + b"1/3\n" * 199
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        packet = struct.pack("!HHHH", one, other, 8 + len(line), 0) + line
        raw.sendto(packet, ("127.0.0.1", 0))
        time.sleep(target.seconds)
    answered = len(re.findall("datagram .* -> ", target.log))
    return f"{answered:,} requests answered to one datagram"


def over_its_bound(target: Target) -> str:
    """Send short wrong lines with mixed line ends; count the answers beyond their bound."""
    chance, over, asked, until = random.Random(1), 0, 0, target.until()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", target.ports["udp"][0]))
        client.settimeout(1)
        while time.monotonic() < until:
            lines = chance.choices([b"X\n", b"X\r\n", b"?\n"], k=chance.randrange(50, 80))
            client.send(b"".join(lines))
            asked += 1
            with suppress(TimeoutError):
                over += len(client.recv(_READ)) > max(1232, 10 * sum(map(len, lines)))
    return f"{over} of {asked:,} answers beyond ten times"


# Lines


def one_in_flight(count: int, line: bytes, *before: bytes) -> Attack:
    """Let so many clients ask for a line again and again, each one at a time."""

    def attack(target: Target) -> str:
        until, answered = target.until(), 0
        with ExitStack() as stack:
            poll = select.poll()
            clients = {}
            for _ in range(count):
                client = stack.enter_context(target.connect())
                for each in before:
                    client.sendall(each)
                    read_line(client)
                client.sendall(line)
                clients[client.fileno()] = client
                poll.register(client, select.POLLIN)
            while time.monotonic() < until:
                for fd, _ in poll.poll(100):
                    if clients[fd].recv(_READ).endswith(b"\n"):
                        answered += 1
                        clients[fd].sendall(line)
        return f"{answered / target.seconds:,.0f} answers a second"

    return attack


def pipelined(target: Target) -> str:
    """Let eight clients send expensive lines ahead; ask for one beside them, and 5,000 sums."""
    line, sums = _EXPENSIVE + b"\n", b"SOMA 1 2\n" * 5000
    until, waits, bulk = target.until(), [], []
    with ExitStack() as stack:
        attackers = [stack.enter_context(target.connect()) for _ in range(8)]
        for client in attackers:
            client.setblocking(False)
        one, many = (stack.enter_context(target.connect()) for _ in range(2))
        while time.monotonic() < until:
            for client in attackers:
                with suppress(BlockingIOError):
                    client.send(20 * line)
                with suppress(BlockingIOError):
                    client.recv(_READ)
            began = time.monotonic()
            one.sendall(line)
            read_line(one)
            waits.append(time.monotonic() - began)
            began = time.monotonic()
            many.sendall(sums)
            got = 0
            while got < 2 * 5000:
                got += len(many.recv(_READ))
            bulk.append(time.monotonic() - began)
    ones, sums_ = (
        f"{_milliseconds(median(each))} ({_milliseconds(max(each))})" for each in (waits, bulk)
    )
    return f"one such line {ones}, 5,000 sums {sums_}: median (worst)"


def silent(target: Target) -> str:
    """Ask without newlines: a cheap line, an expensive one, a cheap one."""
    with target.connect() as client:
        replies = []
        for request in (b"SOMA 2 2", _EXPENSIVE + b"\r", b"SOMA 2 4"):
            client.sendall(request)
            replies.append(read_line(client))
    return f"the third reply is {replies[2].decode()[:40].strip()!r}"


def far_exponents(target: Target) -> str:
    with target.connect() as client:
        client.sendall(b"COMP 1e-9999999999999999999 0\nEXACT on\nSOMA 1e-9999999999999999999 0\n")
        file = client.makefile("rb")
        first, _, last = (file.readline().decode().strip()[:18] for _ in range(3))
    return f"{first!r}, {last!r}"


def byte_by_byte(target: Target) -> str:
    """Grow a blank line byte by byte; the daemon's processor time for each."""
    with target.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b" " * 900_000)
        before, sent, until = _cpu(target.pid), 0, target.until()
        while time.monotonic() < until:
            client.sendall(b" ")
            sent += 1
            time.sleep(0.0005)
        used = _cpu(target.pid) - before
    return f"{used / sent * 1e3:.2f} ms of a processor for a byte"


def unfinished(target: Target) -> str:
    """Send 60 KB of an expression without its end, on one connection after the other."""
    sent, until = 0, target.until()
    while time.monotonic() < until:
        with target.connect() as client:
            client.sendall(b"1+" * 30_000)
            sent += 1
            time.sleep(0.1)
    return f"{sent} of them"


def _cpu(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def reading_nothing(target: Target) -> str:
    """Let a thousand clients ask for 1,000 digits each, as much as goes, and read nothing."""

    def memory() -> tuple[int, int]:
        status = Path(f"/proc/{target.pid}/status").read_text()
        sockets = Path("/proc/net/sockstat").read_text()
        resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
        return resident, int(re.findall(r"TCP: .* mem (\d+)", sockets)[0]) * 4

    before, count = memory(), 1000
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.connect(("127.0.0.1", target.ports["tcp"][0]))
            client.setblocking(False)
            clients.append(client)
        until = target.until()
        most = before
        while time.monotonic() < until:
            for client in clients:
                with suppress(OSError):
                    client.send(b"DIV 1 3\n" * 500)
            most = max(most, memory())
        ours, kernels = ((after - first) / count for after, first in zip(most, before, strict=True))
    return f"{ours:.0f} KiB each of the daemon's, {kernels:.0f} KiB of the kernel's"


# TLS


def records(count: int) -> Attack:
    """Send an expensive line in each record, 64 KiB of records at once, from so many clients."""

    def attack(target: Target) -> str:
        trusting = ssl.create_default_context(cafile=target.directory / "authority.pem")
        until, replies = target.until(), 0
        with ExitStack() as stack:
            clients = []
            for _ in range(count):
                plain = socket.create_connection(("127.0.0.1", target.ports["tls"][0]), 60)
                tls = trusting.wrap_socket(plain, server_hostname="localhost")
                clients.append(stack.enter_context(tls))
            for client in clients:
                client.settimeout(0)
                for _ in range(_READ // (len(_EXPENSIVE) + _RECORD_OVERHEAD)):
                    with suppress(ssl.SSLWantWriteError):
                        client.send(_EXPENSIVE + b"\n")
            while time.monotonic() < until:
                for client in clients:
                    with suppress(ssl.SSLWantReadError):
                        replies += client.recv(_READ).count(b"\n")
                time.sleep(0.01)
        return f"{replies / target.seconds:,.0f} answers a second"

    return attack


def resumed(target: Target) -> str:
    """Resume a TLS 1.2 session, that had a certificate, without one."""
    context = ssl.create_default_context(cafile=target.directory / "authority.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(target.directory / "client.pem", target.directory / "client.key")

    def connect(session: ssl.SSLSession | None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", target.ports["tls"][0]), 10)
        return context.wrap_socket(plain, server_hostname="localhost", session=session)

    with connect(None) as first:
        first.sendall(b"SOMA 1 1\n")
        first.recv(100)
        session = first.session
    with connect(session) as second:
        second.sendall(b"SOMA 1 1\n")
        second.recv(100)
        return "served without a new handshake" if second.session_reused else "a new handshake"


# Files


_HOLDER = """
import fcntl, os, signal, sys, time
path, named = sys.argv[1:]
os.setgid(65534); os.setuid(65534)
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(fd, fcntl.LOCK_EX)
os.ftruncate(fd, 0)
os.write(fd, named.encode() + b"\\n")
print("held", flush=True)
time.sleep(60)
"""


def pidfile(target: Target) -> str:
    """Hold a pidfile's lock as another user, with a victim's pid in it; let root reload."""
    directory = target.directory / "run"
    directory.mkdir(mode=0o755)
    os.chown(directory, 65534, 65534)
    os.chmod(target.directory, 0o755)
    path = directory / "calcd.pid"
    with subprocess.Popen(["sleep", "60"]) as victim:
        command = [sys.executable, "-c", _HOLDER, str(path), str(victim.pid)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            reload = [sys.executable, "-m", "calcd", "-s", "reload", "--pidfile", str(path)]
            done = subprocess.run(
                reload, env=target.environment(), capture_output=True, text=True, check=False
            )
            time.sleep(0.2)
            hit = victim.poll() is not None
            holder.kill()
        victim.kill()
    return f"{'the victim is signalled' if hit else 'refused'}, status {done.returncode}"


_RACER = """
import os, sys
path, victim = sys.argv[1:]
os.setgid(65534); os.setuid(65534)
while True:
    try:
        os.rename(path, path + ".away")
        os.symlink(victim, path)
    except OSError:
        continue
    try:
        while os.path.islink(path):
            if os.path.exists(path + ".go"):
                os.unlink(path); os.unlink(path + ".go")
    except OSError:
        pass
"""


def unix_socket(target: Target) -> str:
    """Swap a socket's path for a link between bind and chmod, as the owner of its directory."""
    directory = target.directory / "sockets"
    directory.mkdir(mode=0o755)
    os.chown(directory, 65534, 65534)
    os.chmod(target.directory, 0o755)
    victim = target.directory / "victim"
    victim.touch(mode=0o600)
    path, followed, tries, until = directory / "calcd.sock", 0, 0, target.until()
    binding = (
        "import sys\n"
        "from calcd.config.endpoints import parse_endpoint\n"
        "from calcd.net.unixsocket import bind\n"
        "try: bind(parse_endpoint(sys.argv[1]))\n"
        "except OSError: pass"
    )
    with subprocess.Popen([sys.executable, "-c", _RACER, str(path), str(victim)]) as racer:
        while time.monotonic() < until:
            url = f"unix://{path}?mode=0666&group=65533"
            subprocess.run(
                [sys.executable, "-c", binding, url], env=target.environment(), check=False
            )
            tries += 1
            status = victim.stat()
            followed += status.st_mode & 0o777 != 0o600 or status.st_gid != os.getegid()
            victim.chmod(0o600)
            os.chown(victim, os.geteuid(), os.getegid())
            Path(f"{path}.go").touch()
            with suppress(FileNotFoundError):
                path.unlink()
        racer.kill()
    return f"{followed} of {tries} links followed"


# A proxy


_A_PROXY = "127.0.0.2"  # the fast client has another address


def _from_proxy(target: Target) -> socket.socket:
    address = ("127.0.0.1", target.ports["tcp"][0])
    return socket.create_connection(address, 60, (_A_PROXY, 0))


def wrong_headers(target: Target) -> str:
    """Connect again and again, with the longest header, whose checksum is wrong."""
    filled = headers.tlv(headers.NOOP, bytes(4096 - 16 - 12 - 7 - 3))
    header = headers.addressed("203.0.113.7", 1, filled, headers.tlv(headers.CRC32C, bytes(4)))
    count, until = 0, target.until()
    while time.monotonic() < until:
        with ExitStack() as stack:
            clients = [stack.enter_context(_from_proxy(target)) for _ in range(20)]
            for client in clients:
                client.sendall(header)
            count += sum(b"CRC32C" in read_line(client) for client in clients)
    return f"{count / target.seconds:,.0f} headers refused a second"


def half_headers(target: Target) -> str:
    """Send headers byte by byte, on many connections, and never the last byte."""
    header = headers.addressed("203.0.113.7", 1, headers.tlv(headers.NOOP, bytes(3000)))
    sent, until = 0, target.until()
    with ExitStack() as stack:
        clients = [stack.enter_context(_from_proxy(target)) for _ in range(500)]
        for byte in header[:-1]:
            if time.monotonic() >= until:
                break
            for client in clients:
                sent += client.send(bytes([byte]))
    return f"{sent / target.seconds:,.0f} bytes a second"


def log_file(target: Target) -> str:
    """Look at the mode of a log file that a daemon has made."""
    path = target.directory / "made.log"
    command = [sys.executable, "-m", "calcd", "-l", "tcp://127.0.0.1:0", "--log-to", str(path)]
    with subprocess.Popen(command, env=target.environment(), umask=0o022) as daemon:
        wait_until(lambda: path.exists() and "listening" in path.read_text(), "its log")
        daemon.terminate()
    return f"mode {path.stat().st_mode & 0o777:04o}"


# The client


_CLIENT = """
import os, resource, sys, threading, time
from calcd.client import Calculator
def end():
    time.sleep(float(sys.argv[2]))
    report()
def report():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = usage.ru_utime + usage.ru_stime
    print(f"{usage.ru_maxrss // 1024} MiB at most, {seconds:.1f} s of a processor", flush=True)
    os._exit(0)
threading.Thread(target=end, daemon=True).start()
try:
    Calculator("127.0.0.1", int(sys.argv[1])).request("PING")
except OSError:
    report()
"""


def malicious_server(target: Target) -> str:
    """Answer a ``Calculator`` without ever sending a newline."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", _CLIENT, str(port), str(target.seconds)]
        with subprocess.Popen(
            command, env=target.environment(), stdout=subprocess.PIPE, text=True
        ) as client:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                while client.poll() is None:
                    connection.sendall(b"1" * 10_000)
            assert client.stdout
            return client.stdout.read().strip()


def quiet(target: Target) -> str:
    """Do nothing: how long a fast client waits when it is alone."""
    time.sleep(target.seconds)
    return ""


@dataclass(frozen=True)
class Row:
    """An attack: its number in the table, its name, and the settings of the daemon."""

    number: str
    name: str
    attack: Attack
    settings: Sequence[str] = ()


_WRONG = b"SOMA 1 " + b"1" * 1015 + b"x\n"
_LONG_LINES = ("--max-line", str(1 << 20))
_PROXY = ("--proxy-protocol-from", _A_PROXY)
_DIGITS = ("--precision", "1000")
ROWS = (
    Row("", "nobody else", quiet),
    Row("1", "a datagram: 65,500 blanks and an x", udp(b" " * 65_500 + b"x")),
    Row("1", "a datagram: 65,500 digits and an x", udp(b"1" * 65_500 + b"x")),
    Row("1", "a datagram: 32,700 short numbers", udp(b"5\n" * 32_700)),
    Row("2", "20 clients, a wrong number of 1 KB each", one_in_flight(20, _WRONG)),
    Row(
        "2",
        "20 clients, a wrong number of 16 KB each",
        one_in_flight(20, b"SOMA 1 " + b"1" * 16_000 + b"x\n"),
    ),
    Row(
        "2",
        "20 clients, a wrong number of 32 KB each",
        one_in_flight(20, b"SOMA 1 " + b"1" * 32_000 + b"x\n"),
        _LONG_LINES,
    ),
    *(
        Row(
            "3",
            f"{count} clients, a line of {milliseconds} ms each, one in flight",
            one_in_flight(count, exponentials(2 * milliseconds) + b"\n"),
            _DIGITS,
        )
        for count, milliseconds in ((10, 10), (20, 10), (50, 10), (100, 10), (100, 200))
    ),
    Row(
        "3",
        "100 clients, a line beyond `line_cpu_timeout` each",
        one_in_flight(100, exponentials(1300) + b"\n"),
        _DIGITS,
    ),
    Row(
        "3",
        "100 clients, EXP 0.12 to 200 digits, one in flight",
        one_in_flight(100, b"EXP 0.12\n", b"PRECISION 200\n"),
    ),
    Row("4", "TLS: a line of 10 ms to a record, 64 KiB", records(1), _DIGITS),
    Row("4", "the same, 4 clients", records(4), _DIGITS),
    Row("5", "TLS 1.2: a session resumed", resumed),
    Row("6", "a pidfile that names another process", pidfile),
    Row("7", "a Unix socket's path swapped", unix_socket),
    Row("8", "UDP: forged from another of its ports", forged, ("--log-level", "debug")),
    Row("9", "8 clients, lines of 10 ms sent ahead", pipelined, _DIGITS),
    Row("10", "no newlines, one line of 10 ms", silent, _DIGITS),
    Row("11", "exponents that cannot be held", far_exponents),
    Row("12", "a server that sends no newline", malicious_server),
    Row("13", "a blank line grows byte by byte", byte_by_byte, _LONG_LINES),
    Row("13", "unfinished expressions of 60 KB", unfinished, _LONG_LINES),
    Row(
        "14", "1,000 clients read nothing", reading_nothing, (*_DIGITS, "--max-connections", "1100")
    ),
    Row("15", "the mode of a log file", log_file),
    Row("16", "UDP: short wrong lines", over_its_bound),
    Row("17", "a proxy: headers of 4,096 bytes, wrong", wrong_headers, _PROXY),
    Row("17", "a proxy: 500 headers, byte by byte", half_headers, _PROXY),
)
