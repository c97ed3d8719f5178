"""Clients that ask all the while, and what became of their requests.

Run as a program of its own, as the daemon may be in another network namespace::

    python3 tests/support/load.py [--clients N] [--cafile FILE] HOST PORT

It says ``asking`` when each client has had an answer, asks until its standard input ends, and
then prints a ``LoadResult`` as JSON. Each client asks one request at a time, the last one on a new
connection; every other one makes a connection for each few requests, the rest keep theirs. A
request whose connection ended without its answer is asked again on a new one, for requests are
pure: what is answered in the end was not lost.
"""

import argparse
import asyncio
import json
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from decimal import Context, Decimal

MOST_SECONDS = 60.0  # of one load, whatever happens to the one who started it
TIMEOUT = 20.0  # seconds that a client waits for an answer
_FEW = 10  # requests on a connection that is not kept
_PAUSE = 0.02  # seconds before a client that was refused tries again


@dataclass
class LoadResult:
    """What became of the requests.

    ``refused``: connections not made, or told BUSY. ``ended`` and ``reset``: a request's
    connection ended so before its answer came. ``slowest``: seconds until an answer came,
    however often it had to be asked for.
    """

    asked: int = 0
    answered: int = 0
    refused: int = 0
    wrong: int = 0
    ended: int = 0
    reset: int = 0
    slowest: float = 0.0

    @property
    def cut(self) -> int:
        return self.ended + self.reset

    @property
    def lost(self) -> int:
        return self.asked - self.answered - self.wrong

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {self.refused} refused, {self.wrong} wrong, "
            f"{self.cut} cut ({self.ended} end of stream, {self.reset} reset), {self.lost} lost, "
            f"slowest {self.slowest:.2f} s"
        )


class Client:
    """One client, and what became of its requests."""

    def __init__(
        self,
        address: tuple[str, int],
        requests: float,
        tls: ssl.SSLContext | None,
        stopped: asyncio.Event,
    ) -> None:
        self.result = LoadResult()
        self.was_answered = asyncio.Event()
        self._address = address
        self._requests = requests  # for each connection
        self._tls = tls
        self._stopped = stopped
        self._question: Question | None = None  # what has no answer yet

    async def run(self) -> None:
        while not self._stopped.is_set():
            await self._connect_and_ask(self._requests)
        self._begin()
        while self._question:
            await self._connect_and_ask(1)

    def _begin(self) -> None:
        """Think of a question, unless there is one still to be answered."""
        if self._question is None:
            self._question = Question()
            self.result.asked += 1

    async def _connect_and_ask(self, requests: float) -> None:
        host, port = self._address
        name = "localhost" if self._tls else None
        try:
            opening = asyncio.open_connection(host, port, ssl=self._tls, server_hostname=name)
            reader, writer = await asyncio.wait_for(opening, TIMEOUT)
        except ConnectionResetError:  # by a listener that was closed with the client in its queue
            self.result.reset += 1
            return
        except OSError as error:
            print(f"connecting: {error!r}", file=sys.stderr)
            await self._refused()
            return
        try:
            while requests and await self._ask(reader, writer):
                requests -= 1
                if self._stopped.is_set():
                    break
        finally:
            writer.close()

    async def _refused(self) -> None:
        self.result.refused += 1
        await asyncio.sleep(_PAUSE)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask one request; False: it was not answered, and the connection is of no more use."""
        self._begin()
        assert self._question
        try:
            writer.write(self._question.request)
            reply = await asyncio.wait_for(reader.readline(), TIMEOUT)
        except ConnectionError:
            self.result.reset += 1
            return False
        if not reply:
            self.result.ended += 1
            return False
        if reply.startswith(b"ERR BUSY"):
            await self._refused()
            return False
        if reply == self._question.answer:
            self.result.answered += 1
            self.result.slowest = max(self.result.slowest, time.monotonic() - self._question.since)
        else:
            self.result.wrong += 1
            print(f"wrong: {self._question.request!r} got {reply!r}", file=sys.stderr)
        self._question = None
        self.was_answered.set()
        return True


class Question:
    """A random request, and its answer as the decimal module has it."""

    _CONTEXT = Context(prec=34)

    def __init__(self) -> None:
        a, b = (Decimal(random.randint(-(10**12), 10**12)).scaleb(-4) for _ in range(2))
        name, result = random.choice(
            [
                ("SOMA", self._CONTEXT.add(a, b)),
                ("SUB", self._CONTEXT.subtract(a, b)),
                ("MUL", self._CONTEXT.multiply(a, b)),
            ]
        )
        self.request = f"{name} {a:f} {b:f}\n".encode()
        self.answer = f"{result:f}\n".encode()
        self.since = time.monotonic()


async def ask_all_the_while(
    address: tuple[str, int], clients: int, tls: ssl.SSLContext | None
) -> LoadResult:
    """Let so many clients ask until standard input ends, and add up their results."""
    stopped = asyncio.Event()
    all_clients = [
        Client(address, _FEW if number % 2 else float("inf"), tls, stopped)
        for number in range(clients)
    ]
    running = asyncio.gather(*(client.run() for client in all_clients))
    for client in all_clients:
        await client.was_answered.wait()
    print("asking", flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)
    await stopped.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin)
    await running
    total = LoadResult()
    for field in fields(LoadResult):
        values = [getattr(client.result, field.name) for client in all_clients]
        setattr(total, field.name, max(values) if field.name == "slowest" else sum(values))
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--cafile")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    tls = ssl.create_default_context(cafile=options.cafile) if options.cafile else None
    load = ask_all_the_while((options.host, options.port), options.clients, tls)
    print(json.dumps(asdict(asyncio.run(asyncio.wait_for(load, MOST_SECONDS)))))


@contextmanager
def load_on(
    host: str, port: int, *, network: Sequence[str] = (), clients: int = 4, cafile: str = ""
) -> Iterator[LoadResult]:
    """Ask all the while, until the block ends; then the result has what became of the requests.

    ``network`` is a command that runs another in the network in which the server is.
    """
    command = [*network, sys.executable, __file__, f"--clients={clients}", host, str(port)]
    if cafile:
        command.append(f"--cafile={cafile}")
    result = LoadResult()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            yield result
            output, errors = process.communicate(timeout=MOST_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    for name, value in json.loads(output).items():
        setattr(result, name, value)
    print(errors[:2000])


if __name__ == "__main__":
    main()
