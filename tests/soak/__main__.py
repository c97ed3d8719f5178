"""The command: soak a daemon for so many minutes, and say what became of everything."""

import argparse
import asyncio
import importlib.util
import random
import re
import shutil
import ssl
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import prometheus
import proxy_headers as headers
from certificates import Authority
from helpers import ALL_JOBS, Daemon, daemons_in

from . import picture, settings
from .connection import Endpoint
from .result import grown, sample, table
from .soak import Soak

_FIRST = 60.0  # seconds, after which memory should grow no more


def main() -> int:
    """Soak; the exit status is 0 where nothing was wrong, lost, reset or kept."""
    options = _options()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="calcd-soak-") as name:
        directory = Path(name)
        tls = {}
        if shutil.which("openssl"):
            server = Authority(directory).issue("server", "DNS:localhost,IP:127.0.0.1")
            tls = {"tls_certificate": str(server.cert), "tls_key": str(server.key)}
        else:
            print("left out: TLS: openssl is not installed")
        listen = ["tcp://127.0.0.1:0", f"unix://{directory}/calcd.sock"]
        listen += ["tls://127.0.0.1:0"] if tls else []
        log_to = str(directory / "calcd.log")
        metrics = {"metrics": "http://127.0.0.1:0"} if options.picture else {}
        files = settings.files(listen=" ".join(listen), log_to=log_to, **tls, **metrics)
        (directory / "calcd.conf").write_text(next(files))
        with daemons_in(directory) as start_daemon:
            code = ALL_JOBS if options.jobs else ""
            daemon = start_daemon("-c", str(directory / "calcd.conf"), code=code)
            log = Path(log_to).read_text()
            soak = Soak(
                daemon, _endpoints(log, directory), files, directory, options.rate, options.seed
            )
            with (
                picture.drawn(options.picture, directory, _metrics(log))
                if options.picture
                else nullcontext()
            ):
                complaints = asyncio.run(_soak(soak, daemon, seconds))
            status = daemon.stop()
            soak.rotate_log()
            soak.rotate_log()  # which looks at the last
    if status:
        complaints.append(f"the daemon's exit status was {status}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 0 if soak.result.clean and not complaints else 1


async def _soak(soak: Soak, daemon: Daemon, seconds: float) -> list[str]:
    """Print what became of everything; give what the daemon has kept."""
    began, start = time.monotonic(), sample(daemon.process.pid)
    first = await soak.run(min(_FIRST, seconds / 2))
    last = await soak.run(seconds - min(_FIRST, seconds / 2))
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.1f} minutes, {time.process_time():.0f} s of a processor for the clients")
    print(table(soak.result, (start, first, last), ("start", "first minute", "end")))
    # Memory that is still being filled for the first time is none that was kept.
    return grown(first, last) if seconds > 2 * _FIRST else []


def _endpoints(log: str, directory: Path) -> list[Endpoint]:
    ports = dict(re.findall(r"listening on (\w+)://127\.0\.0\.1:(\d+)", log))
    endpoints = [Endpoint(int(ports["tcp"])), Endpoint(path=str(directory / "calcd.sock"))]
    for header in headers.line("203.0.113.7", 40000), headers.addressed("2001:db8::7", 40000):
        endpoints.append(Endpoint(int(ports["tcp"]), header=header))
    if "tls" in ports:
        trusting = ssl.create_default_context(cafile=directory / "authority.pem")
        endpoints.append(Endpoint(int(ports["tls"]), tls=trusting))
    return endpoints


def _metrics(log: str) -> str:
    """Return where the daemon serves its metrics, as HOST:PORT."""
    found = re.search(r"listening on http://(\S+) for metrics", log)
    assert found, log
    return found[1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.soak",
        description="Let clients and faults of all kinds come to a daemon; check every answer.",
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long (30)")
    parser.add_argument("--jobs", action="store_true", help="each line goes through the workers")
    parser.add_argument("--rate", type=float, default=2000, help="requests a second, about (2000)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the chances")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw the dashboard's panels, as SVG"
    )
    options = parser.parse_args()
    if options.picture:  # else it would fail when all is over
        if not prometheus.IS_INSTALLED:
            parser.error("--picture needs Prometheus: apt install prometheus")
        if not importlib.util.find_spec("prometheus_client"):
            parser.error("--picture needs prometheus_client: pip install '.[metrics]'")
        if not options.picture.absolute().parent.is_dir():
            parser.error(f"--picture: there is no directory {options.picture.parent}")
    print(f"seed {options.seed}")
    return options


if __name__ == "__main__":
    sys.exit(main())
