"""Debian's Prometheus: it scrapes the daemons of a test, and answers queries."""

import http.client
import json
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from helpers import TIMEOUT, wait_until

IS_INSTALLED = bool(shutil.which("prometheus") and shutil.which("promtool"))


class Series(NamedTuple):
    """A time series of an answer: its labels, and its samples by Unix time, in their order."""

    labels: Mapping[str, str]
    samples: Mapping[float, float]


class QueryError(Exception):
    """Prometheus does not accept an expression, or cannot evaluate it. Its text says why."""


class Prometheus:
    """A running Prometheus on a free port of 127.0.0.1."""

    def __init__(
        self, directory: Path, targets: tuple[str, ...], interval: str, rules: Path | None
    ) -> None:
        """Scrape the targets, each ``HOST:PORT``, as the job ``calcd``."""
        config = {
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "scrape_configs": [
                {"job_name": "calcd", "static_configs": [{"targets": list(targets)}]}
            ],
            "rule_files": [str(rules)] if rules else [],
        }
        file = directory / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        self._log = directory / "prometheus.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={directory / 'prometheus'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
            )
        try:
            wait_until(self._is_ready, "Prometheus to be ready")
        except BaseException:
            self.stop()
            raise

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        if "Server is ready" not in self._log.read_text():
            return False
        self.port = _listening_port(self.process.pid)
        return True

    def get(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of the HTTP API, such as of ``/api/v1/targets``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request("GET", f"{path}?{urllib.parse.urlencode(parameters)}")
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise QueryError(answer["error"])
        return answer["data"]

    def query(self, expression: str) -> list[Series]:
        """Return the series of an expression, with one sample each: its value now."""
        return [
            Series(each["metric"], _samples([each["value"]]))
            for each in self.get("/api/v1/query", query=expression)["result"]
        ]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Return the series of an expression from ``start`` to ``end``, a sample each ``step``."""
        found = self.get("/api/v1/query_range", query=expression, start=start, end=end, step=step)
        return [Series(each["metric"], _samples(each["values"])) for each in found["result"]]

    def stop(self) -> None:
        """End it, whatever state it is in."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(TIMEOUT)
        self.process.kill()
        self.process.wait()


@contextmanager
def prometheus_in(
    directory: Path, *targets: str, interval: str = "1s", rules: Path | None = None
) -> Iterator[Prometheus]:
    """Give a ``Prometheus`` that scrapes the targets, and is stopped in the end."""
    prometheus = Prometheus(directory, targets, interval, rules)
    try:
        yield prometheus
    finally:
        prometheus.stop()


def promtool(*arguments: object, data: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool to its end; its input is ``data``."""
    return subprocess.run(
        ["promtool", *map(str, arguments)],
        input=data,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def _samples(pairs: list[tuple[float, str]]) -> dict[float, float]:
    return {time: float(value) for time, value in pairs}


def _listening_port(pid: int) -> int:
    """Return the TCP port that a process listens on. Prometheus's log tells 0 as it was asked."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed meanwhile
            inodes |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(fd)))
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and rest[5] in inodes:  # TCP_LISTEN
            return int(local.rpartition(":")[2], 16)
    raise AssertionError("Prometheus listens on no port")
