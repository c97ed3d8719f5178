"""The soak: little of it runs clean, and it notices what would not be."""

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from xml.etree import ElementTree

import prometheus
import pytest
from dashboard import panels
from helpers import ROOT, clean_environment

from tests.soak.connection import Connection, Endpoint, Questions
from tests.soak.result import Sample, SoakResult, grown
from tests.soak.scenarios import pipelined

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def soak(minutes: float, *options: object) -> str:
    """Run the soak, which must be clean; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", str(minutes), *map(str, options)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_little_of_it_is_clean() -> None:
    printed = soak(0.06, "--rate", 5000)
    assert "first minute" in printed
    told = dict(line.split()[:2] for line in printed.splitlines() if len(line.split()) > 1)
    assert int(told["requests"].replace(",", "")) > 3000


@pytest.mark.skipif(not prometheus.IS_INSTALLED, reason="prometheus is not installed")
def test_the_dashboard_is_drawn_from_it(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    picture = tmp_path / "dashboard.svg"
    soak(0.2, "--picture", picture)
    svg = ElementTree.parse(picture)
    texts = {text.text for text in svg.iterfind(".//{*}text")}
    assert {panel.title for panel in panels("1m")} <= texts
    assert {"tcp", "unix", "received", "success"} <= texts
    assert "no data" not in texts
    assert len(svg.findall(".//{*}polyline")) > 15


async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write((b"1" * 38 + b"\n") * 2000)
    await reader.read()


async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write_eof()
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"ERR BUSY 100 connections are open\n")
    await end(reader, writer)


@pytest.mark.parametrize(
    ("answer", "noticed"),
    [(wrong, {"wrong"}), (end, {"lost"}), (reset, {"lost", "reset"}), (busy, {"refused"})],
)
def test_what_becomes_of_a_request_is_noticed(answer: Answer, noticed: set[str]) -> None:
    result = SoakResult()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()

    async def run_client() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            endpoint = Endpoint(server.sockets[0].getsockname()[1])
            await Connection(endpoint, Questions(1), result).run(pipelined)

    asyncio.run(run_client())
    found = {name for name in ("wrong", "lost", "reset", "refused") if getattr(result, name)}
    assert found - {"lost"} == noticed - {"lost"}
    assert noticed <= found
    assert not result.clean


def test_what_the_daemon_keeps_is_noticed() -> None:
    first = Sample(memory=100, threads=5, descriptors=10, seconds=1)
    assert grown(first, first._replace(memory=110, threads=40, seconds=100)) == []
    assert grown(first, first._replace(memory=111)) == ["memory grew from 100 to 111 KiB"]
    assert grown(first, first._replace(descriptors=11)) == ["descriptors grew from 10 to 11"]
