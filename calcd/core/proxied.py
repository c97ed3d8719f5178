"""The first bytes of a connection from a proxy: bytes in, the client's session out, no I/O."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from calcd.core.budget import CALL_LIMIT
from calcd.core.closing import ERRORS, CloseReason
from calcd.core.commands import Counters
from calcd.core.errors import RequestError
from calcd.core.job import Job, Outcome
from calcd.core.proxyprotocol import Header, HeaderError, invalid, parse
from calcd.core.session import Session

if TYPE_CHECKING:  # a daemon without TLS need not import ssl
    from calcd.core.tls import TlsSession


class ProxiedSession:
    """A session whose client is not known yet, with the methods of ``Session``.

    ``begin`` is called with the header once it is complete. It returns the session of the client,
    which gets the bytes behind the header and takes the place of this one; or it raises
    ``RequestError``. ``refuse`` returns the bytes that tell an error to the other side.
    """

    def __init__(
        self,
        begin: "Callable[[Header], Session | TlsSession]",
        refuse: Callable[[RequestError, bytes], bytes],
    ) -> None:
        self.counters = Counters()
        self.close_reason: CloseReason | None = None
        self.job: Job | None = None  # never one
        self.pending = self.has_partial_line = self.partial_line_is_request = False
        self.is_established = True  # no handshake has begun
        self._begin, self._refuse = begin, refuse
        self._start = b""

    @property
    def has_received(self) -> bool:
        """Whether the proxy has sent a byte."""
        return self._start != b""

    @property
    def close_word(self) -> str | None:
        """Word of the log for the close reason."""
        return self.close_reason.value if self.close_reason else None

    def receive(self, data: bytes, limit: float = CALL_LIMIT) -> bytes:
        """Take the bytes of one read, ``b""`` at the end of input; return the bytes to send."""
        if self.close_reason is not None:
            return b""
        self._start += data
        if not (data or self._start):
            self.close_reason = CloseReason.CLOSED
            return b""
        try:
            header = parse(self._start)
            if header is None and not data:
                raise invalid("the input ends before it is complete")
            if header is None:
                return b""
            session = self._begin(header)
        except HeaderError as error:
            return self._end(error.reason, error)
        except RequestError as error:
            return self._end(CloseReason(error.code.lower()), error)
        rest = self._start[header.size :]
        return session.receive(rest, limit) if rest else b""

    def time_out(self) -> bytes:
        """End the session because the header was not completed in time."""
        reason = CloseReason.PROXY_HEADER_TIMEOUT
        return self._end(reason, ERRORS[reason])

    def _end(self, reason: CloseReason, error: RequestError) -> bytes:
        self.close_reason = reason
        self.counters.count_error(error.code)
        return self._refuse(error, self._start)

    # There is no request yet.

    def resume(self, limit: float = CALL_LIMIT) -> bytes:  # noqa: ARG002
        """Return nothing: nothing is ever pending."""
        return b""

    def complete(self, outcome: Outcome | None, limit: float = CALL_LIMIT) -> bytes:  # noqa: ARG002
        """Return nothing: there is never a job."""
        return b""

    def flush_partial_line(self) -> bytes:
        """Return nothing: half a header is no request."""
        return b""

    def close(self) -> bytes:
        """Return the bytes to be sent last of all, however the connection ends."""
        return b""
