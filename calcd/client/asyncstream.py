"""A connection to the server on asyncio's streams."""

import asyncio
import os
import select
import socket
from contextlib import suppress

from calcd.client.counting import ReplySplitter
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import CHUNK, CLOSED, UNEXPECTED
from calcd.client.transport import resolve, unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class AsyncStream:
    """A TCP, Unix or TLS connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float | None
    ) -> None:
        self._reader, self._writer = reader, writer
        self._timeout = timeout
        self._unsent = memoryview(b"")
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, endpoint: Endpoint) -> "AsyncStream":
        """Connect to the server. Raise ClientError or TimeoutError if that fails."""
        async with asyncio.timeout(endpoint.timeout):
            connection = await connect_socket(endpoint)
        try:
            async with asyncio.timeout(endpoint.timeout):
                reader, writer = await asyncio.open_connection(
                    sock=connection,
                    ssl=endpoint.tls,
                    server_hostname=None if endpoint.tls is None else endpoint.servername or "",
                )
        except OSError as error:
            connection.close()
            if endpoint.tls is None:
                raise
            from calcd.client.tls import tls_failure

            if not error.args:  # asyncio tells no more
                error = (
                    TimeoutError("timed out")
                    if isinstance(error, TimeoutError)
                    else OSError(CLOSED)
                )
            raise tls_failure(endpoint, error) from error
        except BaseException:
            connection.close()
            raise
        return cls(reader, writer, endpoint.timeout)

    async def exchange(
        self,
        requests: bytes,
        splitter: ReplySplitter,
        add: "Callable[[bytes], None]",
        *,
        reused: bool,
    ) -> None:
        """Send requests, and give as many replies as the splitter expects to `add`, as they come.

        Its arguments and errors are those of `transport.exchange`.
        """
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("the calculator is connected in another event loop")
        chunk = await self._arrived()  # such as ERR BUSY: a failing write would lose it
        if reused and chunk:
            raise ConnectionAbortedError(UNEXPECTED)
        async with asyncio.timeout(self._timeout) as limit:
            self._unsent = memoryview(requests)
            self._write()
            sending = asyncio.create_task(self._send(limit)) if self._unsent else None
            try:
                while splitter.expected:
                    if chunk is None:
                        chunk = await self._reader.read(CHUNK)
                        self._extend(limit)
                    if not chunk:
                        raise ConnectionError(CLOSED)
                    for reply in splitter.add(chunk):
                        add(reply)
                    chunk = None
                if self._unsent:
                    raise ConnectionAbortedError(UNEXPECTED)
            finally:
                if sending is not None:
                    sending.cancel()

    def _write(self) -> None:
        """Give the next chunk to the loop."""
        self._writer.write(self._unsent[:CHUNK])
        self._unsent = self._unsent[CHUNK:]

    async def _send(self, limit: asyncio.Timeout) -> None:
        """Send the rest of the requests. Hold one chunk while the server does not read."""
        with suppress(OSError):  # it accepts no more, but may have answered earlier requests
            while self._unsent:
                await self._writer.drain()
                await asyncio.sleep(0)  # drain() need not let the reader run
                self._extend(limit)
                self._write()

    def _extend(self, limit: asyncio.Timeout) -> None:
        """Let the timeout start again: something was sent or has arrived."""
        if self._timeout is not None and not limit.expired():
            limit.reschedule(self._loop.time() + self._timeout)

    async def _arrived(self) -> bytes | None:
        """Return what has arrived until now, empty at the end. Return None if nothing has."""
        for _ in range(3):
            reading = self._reader.read(CHUNK)
            try:
                reading.send(None)  # until it would wait
            except StopIteration as end:
                return bytes(end.value)
            finally:
                reading.close()
            # The kernel may have what the loop has not read yet. It does in its next two rounds.
            if not self._is_readable():
                return None
            await asyncio.sleep(0)
        return None

    def _is_readable(self) -> bool:
        """Return whether the loop has something to read, or to tell the reader."""
        connection = self._writer.get_extra_info("socket")
        if connection is None or connection.fileno() < 0:  # closed
            return True
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close at once. TLS sends close_notify if that does not block."""
        self._writer.close()
        with suppress(AttributeError):  # of CPython 3.11.2's TLS, where the connection has ended
            self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        with suppress(OSError):
            await self._writer.wait_closed()


async def connect_socket(endpoint: Endpoint) -> socket.socket:
    """Connect to the first address that accepts. Raise ClientError if none does."""
    if endpoint.path is None:
        addresses = await asyncio.to_thread(resolve, endpoint)
    else:
        addresses = resolve(endpoint)
    errors = []
    for family, address in addresses:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, address)
        except OSError as error:
            connection.close()
            if error.errno is not None:  # asyncio has put the address into its text
                error = OSError(error.errno, os.strerror(error.errno))
            errors.append(error)
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise unreachable(endpoint, errors) from errors[-1]
