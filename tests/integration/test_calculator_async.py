"""AsyncCalculator: tasks that share one, cancellation, and the event loop.

What it has in common with Calculator is in test_calculator.py.
"""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from client_helpers import HOST
from helpers import TIMEOUT, Daemon

from calcd.client import AsyncCalculator
from calcd.client.protocol import STATE_LOST

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[AsyncCalculator]:
    """Give a calculator of a server in this event loop. Raise what a handler raises."""
    failures: list[BaseException] = []
    handling: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.current_task())
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass  # the calculator may end it
        except BaseException as failure:
            failures.append(failure)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, HOST, 0)
    async with asyncio.timeout(TIMEOUT):
        try:
            port = server.sockets[0].getsockname()[1]
            async with AsyncCalculator(HOST, port, timeout=TIMEOUT) as calculator:
                yield calculator
            await asyncio.wait([task for task in handling if task])
        finally:
            server.close()
    assert not failures


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)


# -- Tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
def test_each_task_gets_its_own_reply(debug: bool, shared_daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncCalculator(shared_daemon.host, shared_daemon.port) as calculator:
            sums = [f"SOMA {number} 0.5" for number in range(200)]
            results = [number + Decimal("0.5") for number in range(200)]
            assert await asyncio.gather(*map(calculator.evaluate, sums)) == results
            many = await asyncio.gather(*[calculator.evaluate_many(sums) for _ in range(5)])
            assert many == [results] * 5

    asyncio.run(main(), debug=debug)


def test_waiting_tasks_are_served_in_the_order_of_arrival() -> None:
    """A task that asks in a loop lets each task go first that waits already."""
    order: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order.append(line)
            await asyncio.sleep(0)
            writer.write(b"1\n")

    async def main() -> None:
        async with serving(handler) as calculator:

            async def loop(name: str) -> None:
                for _ in range(10):
                    await calculator.evaluate(name)

            await asyncio.gather(*map(loop, "abc"))

    asyncio.run(main())
    assert b"".join(order).split() == [b"a", b"b", b"c"] * 10


def test_other_tasks_go_on_while_one_waits_for_the_server() -> None:
    async def main() -> None:
        may_reply = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"a\n"
            await may_reply.wait()
            writer.write(b"1\n")

        async with serving(handler) as calculator:
            waits = asyncio.create_task(calculator.evaluate("a"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waits.done()
            may_reply.set()
            assert await waits == 1

    asyncio.run(main())


def test_each_task_is_told_once_that_its_settings_are_lost() -> None:
    async def main() -> None:
        connections = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while line := await reader.readline():
                writer.write(b"%d\n" % connections)
                if line == b"last\n":
                    return

        async with serving(handler) as calculator:
            used, may_ask = asyncio.Event(), asyncio.Event()

            async def other() -> None:
                assert await calculator.evaluate("last") == 1
                used.set()
                await may_ask.wait()
                with pytest.raises(ConnectionError, match=STATE_LOST):
                    await calculator.evaluate("b")
                assert await calculator.evaluate("b") == 2

            await calculator.evaluate("PRECISION 5")
            task = asyncio.create_task(other())
            await used.wait()
            with pytest.raises(ConnectionError, match=STATE_LOST):
                await calculator.evaluate("b")
            may_ask.set()
            assert await calculator.evaluate("b") == 2
            await task

    asyncio.run(main())


# -- Cancellation --------------------------------------------------------------------------------


def test_the_late_reply_to_a_cancelled_request_is_not_that_to_the_next() -> None:
    async def main() -> None:
        late = asyncio.Event()
        asked = asyncio.Event()
        connections = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while line := await reader.readline():
                asked.set()
                if line == b"slow\n":
                    await late.wait()
                writer.write(line)

        async with serving(handler) as calculator:
            cancelled = asyncio.create_task(calculator.request("slow"))
            waiting = asyncio.create_task(calculator.request("waiting"))
            await asked.wait()
            cancelled.cancel()
            late.set()
            assert await waiting == "waiting"
            assert await calculator.request("next") == "next"
            assert cancelled.cancelled()
        assert connections == 2

    asyncio.run(main())


def test_a_time_limit_of_the_caller_is_a_cancellation() -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if line != b"slow\n":
                    writer.write(line)

        async with serving(handler) as calculator:
            assert await calculator.request("x = 1") == "x = 1"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await calculator.request("slow")
            with pytest.raises(ConnectionError, match=STATE_LOST):
                await calculator.request("x")
            assert await calculator.request("x") == "x"

    asyncio.run(main())


def test_a_task_that_is_cancelled_before_its_turn_leaves_the_connection_alone() -> None:
    async def main() -> None:
        may_reply = asyncio.Event()
        connections = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while line := await reader.readline():
                if line == b"slow\n":
                    await may_reply.wait()
                writer.write(line)

        async with serving(handler) as calculator:
            assert await calculator.request("x = 1") == "x = 1"
            slow = asyncio.create_task(calculator.request("slow"))
            waiting = asyncio.create_task(calculator.request("waiting"))
            await asyncio.sleep(0)
            waiting.cancel()
            may_reply.set()
            assert await slow == "slow"
            assert await calculator.request("x") == "x"
            assert waiting.cancelled()
        assert connections == 1

    asyncio.run(main())


def test_cancellation_while_it_connects_leaves_nothing_behind() -> None:
    """conftest checks the descriptors."""

    async def main() -> None:
        async with serving(echo) as calculator:
            await calculator.request("a")
            again = AsyncCalculator(calculator._session.endpoint.host, 1)
            for rounds in range(4):
                connecting = asyncio.create_task(again.request("a"))
                for _ in range(rounds):
                    await asyncio.sleep(0)
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting
                assert "not connected" in repr(again)

    asyncio.run(main())


# -- Close ---------------------------------------------------------------------------------------


def test_close_ends_a_request_that_another_task_waits_for() -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            assert await reader.readline()
            asked.set()
            assert await reader.readline() == b""

        async with serving(handler) as calculator:
            waits = asyncio.create_task(calculator.evaluate("a"))
            has_no_turn = asyncio.create_task(calculator.evaluate("b"))
            await asked.wait()
            await calculator.close()
            with pytest.raises(ConnectionAbortedError, match="the calculator was closed"):
                await waits
            with pytest.raises(ValueError, match="is closed"):
                await has_no_turn
            await calculator.close()

    asyncio.run(main())


def test_it_connects_at_the_first_request() -> None:
    async def main() -> None:
        async with serving(echo) as other:
            host, port = HOST, other._session.endpoint.port
            await other.request("a")
            calculator = AsyncCalculator(host, int(port))
            assert repr(calculator) == f"<AsyncCalculator {host} port {port}, not connected>"
            assert await calculator.request("b") == "b"
            assert repr(calculator) == f"<AsyncCalculator {host} port {port}, connected>"
            await calculator.close()
            assert repr(calculator) == f"<AsyncCalculator {host} port {port}, closed>"
            with pytest.raises(ValueError, match="is closed"):
                async with calculator:
                    pass

    asyncio.run(main())


def test_it_is_for_one_event_loop(shared_daemon: Daemon) -> None:
    calculator = AsyncCalculator(shared_daemon.host, shared_daemon.port)
    with asyncio.Runner() as first:
        assert first.run(calculator.evaluate("1+1")) == 2
        with pytest.raises(RuntimeError, match="connected in another event loop"):
            asyncio.run(calculator.evaluate("1+1"))
        assert first.run(calculator.evaluate("1+1")) == 2
        first.run(calculator.close())


# -- Memory --------------------------------------------------------------------------------------


def test_requests_wait_in_the_calculator_while_the_server_does_not_read() -> None:
    """Not all of them in the loop: it would encrypt them at once."""

    async def main() -> None:
        may_read = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await may_read.wait()
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

        requests = ["1" * 1000] * 20_000
        async with serving(handler) as calculator:
            replies = asyncio.create_task(calculator.request_many(requests))
            while calculator._stream is None or not calculator._stream._unsent:
                await asyncio.sleep(0)
            for _ in range(1000):
                await asyncio.sleep(0)
            writer = calculator._stream._writer
            assert writer.transport.get_write_buffer_size() < 1 << 18
            may_read.set()
            assert await replies == requests

    asyncio.run(main())


def test_nothing_keeps_a_task_alive() -> None:
    async def main() -> None:
        async with serving(echo) as calculator:
            task = asyncio.create_task(calculator.request("a"))
            await task
            gone = weakref.ref(task)
            del task
            await asyncio.sleep(0)
            gc.collect()
            assert gone() is None

    asyncio.run(main())
