"""The daemon under all of it: clients that come and go, floods, reloads, quiet moments."""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from helpers import Daemon

from . import settings
from .connection import Connection, Endpoint, Questions
from .result import Sample, SoakResult, sample
from .scenarios import (
    KINDS,
    Kind,
    ask_and_close,
    broken_handshake,
    one_at_a_time,
    pipelined,
    vanishes,
)

_CLIENTS = 24  # at once, floods aside
_RELOAD, _FLOOD = 2.0, 10.0  # seconds between two
_CONNECTION_COST = 5  # requests that cost as much as to connect and to close
_NO_GOOD = re.compile(".*(Traceback|a bug|critical:|cannot ).*")
_REST = 2.0  # seconds in which the daemon gives memory back, once nobody is there
_SETTLED = 20.0  # seconds that the last connections may take to be closed


class Soak:
    """One daemon, its endpoints, and a count of what became of the requests."""

    def __init__(
        self,
        daemon: Daemon,
        endpoints: list[Endpoint],
        files: Iterator[str],
        directory: Path,
        rate: float,
        seed: int,
    ) -> None:
        self.result = SoakResult()
        self._daemon = daemon
        self._plain = [endpoint for endpoint in endpoints if not endpoint.tls]
        self._tls = [endpoint for endpoint in endpoints if endpoint.tls]
        self._files, self._directory = files, directory
        self._rate = rate
        self._questions = Questions(seed)
        self._chance = self._questions.chance
        self._next = 0.0  # when the next client may come
        self._quiet = sample(daemon.process.pid)

    async def run(self, seconds: float) -> Sample:
        """Let all come and go for so long; give what the daemon has when all have gone."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_CLIENTS):
                tasks.create_task(self._come_and_go(until))
            tasks.create_task(self._flood(until))
            tasks.create_task(self._reload(until))
        return await self._settled()

    async def _come_and_go(self, until: float) -> None:
        kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        while (now := time.monotonic()) < until:
            kind = self._chance.choices(kinds, weights)[0]
            endpoint = self._chance.choice(self._plain)
            if self._tls and KINDS[kind][1] and self._chance.random() < 0.25:
                endpoint = self._chance.choice(self._tls)
                if self._chance.random() < 0.1:
                    kind, endpoint = broken_handshake, Endpoint(endpoint.port)
            requests = await self.run_client(kind, endpoint)
            # Those who ask much let the others wait, so that the rate is kept on the whole.
            self._next = max(self._next, now) + (requests + _CONNECTION_COST) / self._rate
            await asyncio.sleep(min(self._next, until) - time.monotonic())

    async def run_client(self, kind: Kind, endpoint: Endpoint) -> int:
        """Let one client come and go; give how many answers were due to it."""
        client = Connection(endpoint, self._questions, self.result)
        name = kind.__name__.replace("_", " ")
        self.result.connections[name + (" (TLS)" if endpoint.tls else "")] += 1
        await client.run(kind)
        return client.asked

    async def _flood(self, until: float) -> None:
        """Come with more clients at once than may be there, again and again."""
        # In the first minute each kind comes once, so that the memory for it is there by then.
        for kind in cycle((ask_and_close, pipelined, vanishes, one_at_a_time)):
            if time.monotonic() >= until:
                break
            endpoints = self._chance.choices(self._plain + self._tls, k=settings.MOST * 3 // 2)
            await asyncio.gather(*(self.run_client(kind, endpoint) for endpoint in endpoints))
            await asyncio.sleep(min(_FLOOD, max(0, until - time.monotonic())))

    async def _reload(self, until: float) -> None:
        """Change the settings and rotate the log, again and again."""
        while time.monotonic() < until:
            (self._directory / "calcd.conf").write_text(next(self._files))
            self.rotate_log()
            self._daemon.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(min(_RELOAD, max(0, until - time.monotonic())))

    def rotate_log(self) -> None:
        """Take the log away; see that the one before, to which nothing comes now, has no bug."""
        log = self._directory / "calcd.log"
        old = log.with_suffix(".old")
        if old.exists() and (found := _NO_GOOD.search(old.read_text())):
            self.result.faults += 1
            print(f"the log: {found[0]}", file=sys.stderr)
        with contextlib.suppress(FileNotFoundError):
            log.rename(old)

    async def _settled(self) -> Sample:
        deadline = time.monotonic() + _SETTLED
        while sample(self._daemon.process.pid).descriptors > self._quiet.descriptors:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(_REST)
        return sample(self._daemon.process.pid)
