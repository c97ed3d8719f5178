"""One connection of a client's, which knows what answers are due to it."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench import sums

from . import settings
from .result import SoakResult

TIMEOUT = 30.0  # seconds that a connection may last
_SUMS = 20_000
_SHOWN = 20  # wrong answers that are printed, about


class RefusedError(Exception):
    """The server has no place for the connection, or the connection could not be made."""


@dataclass(frozen=True)
class Endpoint:
    """Where the daemon listens: a port of 127.0.0.1, with TLS or without, or a Unix socket.

    With ``header`` the client comes from a proxy, which sends that first.
    """

    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    header: bytes = b""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; ``RefusedError`` where that is not to be."""
        try:
            if self.path:
                return await asyncio.open_unix_connection(self.path)
            name = "localhost" if self.tls else None
            here = (settings.PROXY, 0) if self.header else None
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.tls, server_hostname=name, local_addr=here
            )
            writer.write(self.header)
            return reader, writer
        except OSError as error:  # over TLS a refusal is an alert
            raise RefusedError from error


class Questions:
    """Random sums with the one right answer each, worked out by other means than calcd's."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        pairs = [sums.calcd(each) for each in sums.random_sums(_SUMS, seed)]
        self._pairs = [(request.encode(), reply.encode()) for request, reply in pairs]

    def some(self, count: int) -> tuple[bytes, bytes]:
        """Give so many requests, and their replies."""
        first = self.chance.randrange(_SUMS - count)
        requests, replies = zip(*self._pairs[first : first + count], strict=True)
        return b"".join(requests), b"".join(replies)


class Connection:
    """Asks, and holds every answer against the right one."""

    def __init__(self, endpoint: Endpoint, questions: Questions, result: SoakResult) -> None:
        self.endpoint, self.questions, self.result = endpoint, questions, result
        self.chance = questions.chance
        self.due = 0  # answers
        self.asked = 0

    async def run(self, behave: Callable[["Connection"], Awaitable[None]]) -> None:
        """Connect, behave so, close; count what became of it."""
        try:
            async with asyncio.timeout(TIMEOUT):
                self._reader, self.writer = await self.endpoint.connect()
                try:
                    await behave(self)
                finally:
                    await self._close()
        except RefusedError:
            self.result.refused += 1
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            if self.due:
                print(f"{self.due} of {self.asked} lost: {error!r}", file=sys.stderr)
                self.result.reset += isinstance(error, ConnectionError)
        self.result.lost += self.due

    def send(self, data: bytes) -> None:
        """Send, as fast as the server takes it."""
        self.writer.write(data)

    def owe(self, replies: int) -> None:
        """Count so many more answers as due."""
        self.due += replies
        self.asked += replies
        self.result.requests += replies

    async def ask(self, requests: bytes, replies: bytes) -> None:
        """Send requests, and read their replies."""
        self.owe(replies.count(b"\n"))
        self.send(requests)
        await self.expect(replies)

    async def ask_sums(self, count: int) -> None:
        await self.ask(*self.questions.some(count))

    async def expect(self, replies: bytes) -> None:
        """Read what must be these replies, which are due."""
        try:
            received = await self._reader.readexactly(len(replies))
        except asyncio.IncompleteReadError as error:
            received = error.partial
            self._judge(received, replies)
            raise
        if received != replies and received.startswith(b"E"):  # an error, of which this is a part
            received += await self._reader.readline()
        self._judge(received, replies)

    async def expect_error(self, *codes: str) -> None:
        """Read what must be an error with one of these codes, whose words may be any."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise asyncio.IncompleteReadError(line, None)
        right = line.startswith(tuple(f"ERR {code} ".encode() for code in codes))
        self._judge(line, line if right else f"ERR {' or '.join(codes)} ...\n".encode())

    async def expect_end(self) -> None:
        """Read what must be the end."""
        if rest := await self._reader.read(1000):
            self._refused(rest)
            self.result.faults += 1
            print(f"instead of the end: {rest!r}", file=sys.stderr)

    def _judge(self, received: bytes, replies: bytes) -> None:
        right = replies.startswith(received)
        pairs = zip(received.splitlines(), replies.splitlines(), strict=False)
        wrong = [] if right else [pair for pair in pairs if pair[0] != pair[1]]
        if wrong:
            self._refused(received)
            if self.result.wrong < _SHOWN:
                print(f"wrong: got {wrong[0][0]!r}, not {wrong[0][1]!r}", file=sys.stderr)
        self.result.wrong += len(wrong)
        self.due = max(0, self.due - max(received.count(b"\n"), len(wrong)))

    def _refused(self, received: bytes) -> None:
        """Take the requests back where the server has said BUSY, which it says first of all."""
        if received.startswith(b"ERR BUSY "):
            self.result.requests -= self.asked
            self.due = 0
            raise RefusedError

    async def read_slowly(self, replies: bytes, pause: float, piece: int) -> None:
        """Read what must be these replies bit by bit, with a pause before each."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15
        )
        transport = self.writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        for begin in range(0, len(replies), piece):
            transport.pause_reading()
            await asyncio.sleep(pause)
            transport.resume_reading()
            await self.expect(replies[begin : begin + piece])

    def vanish(self) -> None:
        """Reset the connection."""
        linger = struct.pack("ii", 1, 0)
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def _close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 5)
