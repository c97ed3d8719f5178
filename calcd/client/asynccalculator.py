"""`AsyncCalculator`, the Python API of the client for asyncio."""

import asyncio

from calcd.client.asyncstream import AsyncStream
from calcd.client.basecalculator import BaseCalculator
from calcd.client.calculatorsession import Batch
from calcd.client.replies import CalculatorError, parse_number, parse_numbers, result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal


class AsyncCalculator(BaseCalculator):
    """A connection to calcd, for asyncio.

        async with AsyncCalculator("localhost", 12000) as calculator:
            await calculator.evaluate("SOMA 0.1 0.2")  # Decimal("0.3")

    Arguments, methods and errors are those of `Calculator`. It connects at the start of the
    ``async with`` block, or before the first request.

    Tasks may share a calculator, as threads may share a `Calculator`: each call gets its own
    replies, in the order of arrival. A request that is cancelled ends the connection, as its late
    reply would be taken for the next one. The next request then starts with a new connection and
    without state. A calculator is for one event loop.
    """

    def _open(self) -> None:
        self._lock = asyncio.Lock()  # for the connection; tasks get it in the order of arrival
        self._stream: AsyncStream | None = None

    async def evaluate(self, line: str) -> "Decimal":
        """Return the result of a request. Raise ValueError if it is not a number."""
        return parse_number(await self.request(line))

    async def request(self, line: str) -> str:
        """Return the reply to a request as text."""
        (reply,) = await self.request_many([line])
        return result(reply)

    async def evaluate_many(self, lines: "Iterable[str]") -> "list[Decimal | CalculatorError]":
        """Return the results of many requests, sent without waiting for each reply.

        An error is returned in its place, and not raised.
        """
        return parse_numbers(await self.request_many(lines))

    async def request_many(self, lines: "Iterable[str]") -> list[str | CalculatorError]:
        """Return the replies to many requests as text, as `evaluate_many` does."""
        batch = Batch(self._session, asyncio.current_task(), lines)
        async with self._lock:
            self._session.check_open()
            while not batch.is_complete:
                batch.prepare(self._connected)
                try:
                    await self._exchange(batch)
                except BaseException as error:
                    self._disconnect()  # a late reply would be taken for that to the next request
                    batch.fail(error)
        return batch.results

    async def close(self) -> None:
        """Close the connection. Later requests raise ValueError.

        A request that another task waits for raises ConnectionAbortedError.
        """
        self._session.closed = True
        stream = self._stream
        self._disconnect()
        if stream is not None:
            await stream.wait_closed()

    async def __aenter__(self) -> "AsyncCalculator":
        async with self._lock:
            self._session.check_open()
            try:
                if self._stream is None:
                    await self._connect()
            except BaseException as error:
                self._disconnect()
                raise self._session.explain(error) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _connected(self) -> bool:
        return self._stream is not None

    async def _connect(self) -> AsyncStream:
        self._session.start_connection()
        self._stream = await AsyncStream.connect(self._session.endpoint)
        if self._session.closed:  # by another task, which saw no connection
            raise ConnectionAbortedError
        return self._stream

    def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    async def _exchange(self, batch: Batch) -> None:
        """Send the requests without a reply, and add their replies. Connect first if needed."""
        stream = self._stream or await self._connect()
        unsent, splitter, reused = batch.start()
        await stream.exchange(unsent, splitter, batch.add, reused=reused)
