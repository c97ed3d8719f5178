"""Relay between standard input, the server and standard output, as netcat does."""

import select

from calcd.client.endpoint import Endpoint
from calcd.client.protocol import CHUNK, CLOSED, ClientError, ReplyCounter, describe
from calcd.client.streams import STDIN, STDOUT, Output, read_input
from calcd.client.transport import SHUT_WR, UDP, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def relay(
    server: Stream,
    endpoint: Endpoint,
    requests: bytes,
    linger: float | None,
    counter: ReplyCounter,
    output: Output,
) -> int:
    """Send requests and write replies at the same time. Return the exit status.

    Standard input is read if there are no `requests`. `linger` is the timeout in seconds after its
    end. One chunk is held in each direction: while replies are not read, no input is read.
    """
    unsent = requests
    counter.add_requests(unsent)
    reading = not requests  # standard input has not ended
    sending = True  # our half of the connection is open
    timeout = endpoint.timeout
    while True:
        poll = select.poll()
        poll.register(STDOUT, 0)  # no event: an error is reported once it has no reader
        writing = unsent or (sending and not reading)
        poll.register(server, select.POLLIN | select.POLLOUT if writing else select.POLLIN)
        if reading and not unsent:
            poll.register(STDIN, select.POLLIN)
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        if not ready:
            return counter.exit_status(endpoint.name, f"silent for {timeout:g} s")
        if STDOUT in ready:
            raise BrokenPipeError
        if STDIN in ready:
            unsent = read_input()
            reading = bool(unsent)
            counter.add_requests(unsent)
        if ready.get(server.fileno(), 0) & select.POLLOUT:
            try:
                if unsent:
                    unsent = unsent[server.send(unsent) :]
                else:
                    server.shutdown(SHUT_WR)
                    sending = False
                    timeout = min(filter(None, (endpoint.timeout, linger)), default=None)
            except BlockingIOError:
                pass
            except OSError:  # it accepts no more, but may have answered earlier requests
                unsent, reading, sending = b"", False, False
        if ready.get(server.fileno(), 0) & ~select.POLLOUT:
            try:
                chunk = server.recv(CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                return counter.exit_status(endpoint.name, describe(error), endpoint.hint())
            if not chunk:
                return counter.exit_status(endpoint.name, CLOSED, endpoint.hint())
            counter.add_replies(chunk)
            output.write(chunk)


def relay_datagrams(
    server: UDP, endpoint: Endpoint, requests: bytes, counter: ReplyCounter, output: Output
) -> int:
    """Send one request after the other, and write the replies. Return the exit status."""
    for lines in [requests] if requests else input_lines(endpoint):
        counter.add_requests(lines)
        for reply in server.replies(lines):
            counter.add_replies(reply)
            output.write(reply)
    return counter.exit_status(endpoint.name, "no more datagrams")


def input_lines(endpoint: Endpoint) -> "Iterator[bytes]":
    """Yield standard input, cut after a newline. A last line without a newline gets one.

    Raise ClientError if a line is too long for a datagram.
    """
    rest = b""
    while chunk := read_input():
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        yield lines + newline
        if len(rest) > CHUNK:
            raise ClientError(f"{endpoint.name}: message too long")
    yield rest + b"\n"
