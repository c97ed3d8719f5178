"""`Calculator`, the Python API of the client."""

import _socket
import threading
from contextlib import suppress

from calcd.client.basecalculator import BaseCalculator
from calcd.client.calculatorsession import Batch
from calcd.client.fairlock import FairLock
from calcd.client.replies import CalculatorError, parse_number, parse_numbers, result
from calcd.client.transport import Stream, Transport, connect, exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal


class Calculator(BaseCalculator):
    """A connection to calcd.

        with Calculator("localhost", 12000) as calculator:
            calculator.evaluate("SOMA 0.1 0.2")  # Decimal("0.3")

    ``path`` is a Unix socket, and replaces host and port. ``timeout`` is in seconds, for the
    connection and then for each wait. None waits for ever. ``tls`` is the context for TLS, such as
    ``ssl.create_default_context()``. ``servername`` is the name that the server's certificate must
    have, by default the host.

    An ERR reply raises ``CalculatorError``. A failed connection raises what the standard library
    does: ``ConnectionError``, ``TimeoutError``, another ``OSError``. A request that is blank or has
    more than one line raises ``ValueError``, and so does any request after `close`. An argument of
    a wrong type raises ``TypeError``, one out of range ``ValueError``.

    A lost connection is renewed once, and requests without a reply are sent again. The server may
    have closed it because it was idle. Names, settings and ``ans`` are lost with a connection.
    If replies could depend on them, ``ConnectionError`` is raised in place of a wrong result. A
    ``TimeoutError`` ends the connection, as a late reply would be taken for the next one. The next
    request then starts with a new connection and without state. A reply of more than 4 MiB, or one
    too many, ends the connection with ``ConnectionAbortedError``.

    Threads may share a calculator. Each call gets its own replies, and has its turn in the order of
    arrival. Threads also share names, settings and ``ans``: requests that belong together are sent
    in one `request_many`, which no other call interrupts. A thread whose names or settings were
    lost gets one ``ConnectionError``.
    """

    def _open(self) -> None:
        self._lock = FairLock()  # for the connection; held until all replies have arrived
        self._descriptor = threading.RLock()  # held to close the socket, or to shut it down
        self._server: Transport | None = None
        try:
            self._connect()
        except Exception as error:
            raise self._session.explain(error) from None

    def evaluate(self, line: str) -> "Decimal":
        """Return the result of a request. Raise ValueError if it is not a number."""
        return parse_number(self.request(line))

    def request(self, line: str) -> str:
        """Return the reply to a request as text."""
        (reply,) = self.request_many([line])
        return result(reply)

    def evaluate_many(self, lines: "Iterable[str]") -> "list[Decimal | CalculatorError]":
        """Return the results of many requests, sent without waiting for each reply.

        An error is returned in its place, and not raised.
        """
        return parse_numbers(self.request_many(lines))

    def request_many(self, lines: "Iterable[str]") -> list[str | CalculatorError]:
        """Return the replies to many requests as text, as `evaluate_many` does."""
        batch = Batch(self._session, threading.current_thread(), lines)
        with self._lock:
            self._session.check_open()
            while not batch.is_complete:
                batch.prepare(self._connected)
                try:
                    self._exchange(batch)
                except BaseException as error:
                    self._disconnect()  # a late reply would be taken for that to the next request
                    batch.fail(error)
        return batch.results

    def close(self) -> None:
        """Close the connection. Later requests raise ValueError.

        A request that another thread waits for raises ConnectionAbortedError.
        """
        self._session.closed = True
        if self._lock.locked:
            with self._descriptor, suppress(OSError):
                if isinstance(self._server, Stream):
                    # Not that of TLS, which another thread uses.
                    Stream.shutdown(self._server, _socket.SHUT_RDWR)
        with suppress(RuntimeError), self._lock:
            self._disconnect()  # in a signal handler the interrupted request does it

    def __enter__(self) -> "Calculator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _connected(self) -> bool:
        return self._server is not None

    def _connect(self) -> Transport:
        self._session.start_connection()
        self._server = connect(self._session.endpoint)
        if self._session.closed:  # by another thread, which saw no connection to shut down
            raise ConnectionAbortedError
        return self._server

    def _disconnect(self) -> None:
        with self._descriptor:
            server, self._server = self._server, None
            if server is not None:
                server.close()

    def _exchange(self, batch: Batch) -> None:
        """Send the requests without a reply, and add their replies. Connect first if needed."""
        server = self._server or self._connect()
        unsent, splitter, reused = batch.start()
        for reply in exchange(server, unsent, splitter, self._session.endpoint, reused=reused):
            batch.add(reply)
