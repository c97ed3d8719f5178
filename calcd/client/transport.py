"""Connections to the server: TCP, Unix socket, TLS and UDP, and requests with their replies.

All but UDP are non-blocking sockets.

`_socket` is the C part of `socket`, and does all the work here. `import socket` takes 6 ms, where
Python itself needs 10 to start.
"""

import _socket
import os
import select
import time

from calcd.client.counting import ReplySplitter
from calcd.client.endpoint import Address, Endpoint
from calcd.client.protocol import (
    CHUNK,
    CLOSED,
    IGNORED,
    UNEXPECTED,
    ClientError,
    UnknownHostError,
    describe,
    is_number,
)
from calcd.client.streams import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")
    Found = list[tuple[int, int, int, str, tuple[object, ...]]]  # what getaddrinfo returns

Stream = _socket.socket
SHUT_WR = _socket.SHUT_WR
RETRY_PAUSE, MAX_RETRY_PAUSE = 0.05, 1.0  # seconds between two attempts to connect
MAX_NUMBER = 4096  # bytes of a datagram that a server compares with its own replies
UDP_TRIES, UDP_TIMEOUT = 3, 5.0  # datagrams sent for a reply, and seconds in all
FAMILIES = {"": _socket.AF_UNSPEC, "-4": _socket.AF_INET, "-6": _socket.AF_INET6}


def connect(endpoint: Endpoint, addresses: list[Address] | None = None) -> "Transport":
    """Connect to the server. Raise ClientError with the reason if that fails.

    The name of the server is not resolved if its addresses are given. A server that cannot be
    reached is tried again for as long as the endpoint says.
    """
    found = reach(endpoint, addresses) if not endpoint.retry else retry(endpoint, addresses)
    server: Transport
    if isinstance(found, UDP):
        server, success = found, "replies over UDP"
    else:
        server, success = found, "connection succeeded"
        try:
            if endpoint.tls is not None:
                from calcd.client.tls import TLS

                server = TLS(server, endpoint, endpoint.tls)
                success += f", {server.handshake()}"
            server.setblocking(False)
        except BaseException:
            server.close()
            raise
    if endpoint.verbose:
        warn(f"{endpoint.name}: {success}")
    return server


def reach(endpoint: Endpoint, addresses: list[Address] | None) -> "Transport":
    """Look up the server, and connect to it. Raise ClientError if that fails."""
    endpoint.addresses = addresses or resolve(endpoint)
    if not endpoint.udp:
        return at_first_address(endpoint, connect_stream)
    server = UDP(endpoint)
    if endpoint.verbose or endpoint.check_only or endpoint.retry:
        server.request(b"PING\n")  # UDP has no connection that could fail
    return server


def retry(endpoint: Endpoint, addresses: list[Address] | None) -> "Transport":
    """Reach the server as soon as it is there. Raise ClientError if it is not there in time."""
    deadline, attempts = endpoint.deadline, Attempts(endpoint)
    endpoint.deadline = attempts.end
    try:
        while True:
            try:
                return reach(endpoint, addresses)
            except ClientError as error:
                if not attempts.wait(str(error)):
                    raise
    finally:
        endpoint.deadline = deadline


class Attempts:
    """Attempts to reach a server, from now on for as long as the endpoint says."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pause = RETRY_PAUSE
        self.end = min(endpoint.deadline, time.monotonic() + endpoint.retry)

    def wait(self, reason: str) -> bool:
        """Pause after an attempt that failed for this reason. Return False if it was the last."""
        if self._pause == RETRY_PAUSE and self._endpoint.verbose:
            warn(f"{reason}; trying again for {self._endpoint.retry:g} s")
        if time.monotonic() + self._pause >= self.end:
            return False
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, MAX_RETRY_PAUSE)
        return True


def resolve(endpoint: Endpoint) -> list[Address]:
    """Return the addresses of the server."""
    if endpoint.path is not None:
        return [(_socket.AF_UNIX, endpoint.path)]
    try:
        # As bytes: a str would load the idna codec, which is slow.
        host = endpoint.host.encode("ascii" if endpoint.host.isascii() else "idna")
        kind = _socket.SOCK_DGRAM if endpoint.udp else _socket.SOCK_STREAM
        port = os.fsencode(endpoint.port)
        limit = endpoint.time_left() or (UDP_TIMEOUT if endpoint.udp else None)
        found = look_up(limit, host, port, FAMILIES[endpoint.family], kind)
    except (OSError, UnicodeError) as error:
        reason = f"name does not resolve: {describe(error)}"
        raise UnknownHostError(f"{endpoint.name}: {reason}") from error
    return [(family, address) for family, _, _, _, address in found]


def look_up(limit: float | None, host: bytes, port: bytes, family: int, kind: int) -> "Found":
    """Return the addresses of a name. Raise TimeoutError after this number of seconds.

    The C library cannot be told to give up, so that a thread waits for it. An address that is
    written in numbers needs none.
    """
    if limit is None:
        return [*_socket.getaddrinfo(host, port, family, kind)]
    try:
        return [*_socket.getaddrinfo(host, port, family, kind, 0, _socket.AI_NUMERICHOST)]
    except OSError:
        pass
    import _thread

    results: list[Found | Exception] = []
    done = _thread.allocate_lock()

    def run() -> None:
        try:
            results.append([*_socket.getaddrinfo(host, port, family, kind)])
        except Exception as error:
            results.append(error)
        done.release()

    done.acquire()
    _thread.start_new_thread(run, ())
    if not done.acquire(timeout=limit):
        raise TimeoutError("timed out")
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def at_first_address(endpoint: Endpoint, attempt: "Callable[[Endpoint, Address], T]") -> "T":
    """Return what `attempt` returns at the first address where it succeeds, and keep that address.

    Raise ClientError if there is none.
    """
    errors = []
    for address in endpoint.addresses:
        try:
            result = attempt(endpoint, address)
        except OSError as error:
            errors.append(error)
        else:
            endpoint.addresses = [address]
            return result
    raise unreachable(endpoint, errors) from errors[-1]


def unreachable(endpoint: Endpoint, errors: list[OSError]) -> ClientError:
    """Return the error for a server that was reached at none of its addresses."""
    reasons = list(dict.fromkeys(map(describe, errors)))
    hint = ": is calcd running there?" if "connection refused" in reasons else ""
    return ClientError(f"{endpoint.name}: {', '.join(reasons)}{hint}")


def connect_stream(endpoint: Endpoint, address: Address) -> Stream:
    """Connect to an address."""
    server = _socket.socket(address[0], _socket.SOCK_STREAM)
    try:
        server.settimeout(endpoint.time_left())
        server.connect(address[1])
        if address[0] != _socket.AF_UNIX:
            # Data after the handshake must not wait for an acknowledgement.
            server.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    except OSError:
        server.close()
        raise
    return server


def exchange(
    server: "Transport",
    requests: bytes,
    splitter: ReplySplitter,
    endpoint: Endpoint,
    *,
    reused: bool = False,
) -> "Iterator[bytes]":
    """Send requests, and yield as many replies as the splitter expects, both at the same time.

    `reused` tells that this is not the first exchange: the server may not have sent anything since.
    Raise TimeoutError, ConnectionAbortedError for replies that are too long or too many, and
    another ConnectionError if the connection was lost.
    """
    if isinstance(server, UDP):
        for datagram in server.replies(requests):
            yield from splitter.add(datagram)
        return
    if reused:
        check_silent(server)
    for replies in stream(server, iter([requests]), splitter, endpoint):
        yield from replies


def check_silent(server: Stream) -> None:
    """Raise ConnectionError if a server that owes no reply has closed or sent something."""
    try:
        more = server.recv(CHUNK)
    except BlockingIOError:
        return
    raise ConnectionAbortedError(UNEXPECTED) if more else ConnectionError(CLOSED)


def stream(
    server: Stream,
    batches: "Iterator[bytes]",
    splitter: ReplySplitter,
    endpoint: Endpoint,
    *,
    reused: bool = False,
) -> "Iterator[list[bytes]]":
    """Send batches of requests, and yield lists of their replies, both at the same time.

    The splitter must expect the replies to a batch once `batches` yields it. An empty batch tells
    that there is none yet, and may come only while replies are expected. Raise as `exchange` does.
    """
    unsent = memoryview(b"")
    more = True  # batches may follow
    poll = select.poll()
    while more or splitter.expected:
        waits = False  # for the server, before the next batch is taken
        if more and not unsent:
            was_idle = reused and not splitter.expected
            batch = next(batches, None)
            more, waits, unsent = batch is not None, not batch, memoryview(batch or b"")
            if was_idle and batch:
                check_silent(server)
            reused = True
        if not splitter.expected:
            continue
        try:
            if unsent:
                unsent = unsent[server.send(unsent[:CHUNK]) :]  # TLS holds a copy
        except BlockingIOError:
            pass
        except ConnectionError:  # it accepts no more, but may have answered earlier requests
            unsent, more = unsent[:0], False
        try:
            chunk = server.recv(CHUNK)
        except BlockingIOError:
            if not (unsent or waits) and more:
                continue
            poll.register(server, select.POLLIN | select.POLLOUT if unsent else select.POLLIN)
            left = endpoint.time_left()
            if not poll.poll(None if left is None else left * 1000):
                raise TimeoutError("timed out") from None
        else:
            if not chunk:
                raise ConnectionError(CLOSED)
            yield splitter.add(chunk)
            if unsent and not splitter.expected:
                raise ConnectionAbortedError(UNEXPECTED)


class UDP:
    """Requests and replies in datagrams.

    Each request has a port of its own, so that a late reply is not taken for that to the next. The
    socket is connected, so that the kernel drops datagrams from other addresses.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def replies(self, requests: bytes) -> "Iterator[bytes]":
        """Send one request after the other, each of them a line. Yield the replies."""
        for line in requests.split(b"\n"):
            if line.translate(None, IGNORED):
                yield self.request(line + b"\n")

    def request(self, request: bytes) -> bytes:
        """Return the reply to a request. Raise ClientError if none arrives.

        A server takes a datagram of numbers for the answer of another, so it is not even sent.
        """
        if len(request) <= MAX_NUMBER and is_number(request.strip(b" \t\r\n")):
            reason = "a number alone gets no reply over UDP, as it may be one: put = before it"
            raise ClientError(f"{self._endpoint.name}: {reason}")

        def attempt(endpoint: Endpoint, address: Address) -> bytes:
            server = _socket.socket(address[0], _socket.SOCK_DGRAM)
            try:
                server.connect(address[1])
                timeout = endpoint.time_left() or UDP_TIMEOUT
                server.settimeout(timeout / UDP_TRIES)
                for _ in range(UDP_TRIES):  # a datagram may be lost; sending it again is harmless
                    server.send(request)
                    try:
                        return server.recv(CHUNK)
                    except TimeoutError:
                        pass
                raise TimeoutError(f"no reply in {timeout:g} s")
            finally:
                server.close()

        return at_first_address(self._endpoint, attempt)

    def close(self) -> None:
        """Do nothing: no socket is open between two requests."""


Transport = Stream | UDP
