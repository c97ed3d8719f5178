"""A session that waits for a PROXY header: when its client's begins, and with which bytes."""

import ssl

import proxy_headers as headers
import pytest
from certificates import STORED, stored
from header_strategies import VALID, damaged
from hypothesis import given
from hypothesis import strategies as st
from proxied import Proxied
from sessions import answered, new_session
from tls_client import Client

from calcd.core.closing import CloseReason
from calcd.core.errors import RequestError
from calcd.core.proxyprotocol import Header
from calcd.core.session import Session
from calcd.core.tls import TlsSession
from calcd.net.certificates import load_context

HEADER = headers.addressed("203.0.113.7", 40000)


@pytest.mark.parametrize("header", [HEADER, headers.line("203.0.113.7", 40000)])
def test_the_bytes_behind_the_header_are_the_clients(header: bytes) -> None:
    for reads in (
        [header + b"SOMA 2 2\nPING\n"],
        [header, b"SOMA 2 2\nPING\n"],
        [header + b"SOMA", b" 2 2\nPING\n"],
        [bytes([byte]) for byte in header + b"SOMA 2 2\nPING\n"],
    ):
        proxied = Proxied()
        assert proxied.take(*reads) == b"4\nPONG\n"
        assert proxied.headers == [Header(len(header), "203.0.113.7", 40000)]


def test_nothing_is_pending_and_no_line_is_begun_before_the_header_is_complete() -> None:
    proxied = Proxied()
    for byte in HEADER[:-1]:
        assert proxied.take(bytes([byte])) == b""
        session = proxied.current
        assert not session.pending
        assert not session.has_partial_line
        assert not session.partial_line_is_request
        assert (session.job, session.close_reason, session.close_word) == (None, None, None)
        assert [session.resume(), session.complete(None), session.flush_partial_line()] == 3 * [b""]
    assert session is proxied.first


@pytest.mark.parametrize(
    ("reads", "reason", "reply"),
    [
        ([b""], CloseReason.CLOSED, b""),
        ([HEADER[:20], b""], CloseReason.BAD_PROXY_HEADER, b"ends before it is complete\n"),
        ([b"SOMA 2 2\n", b""], CloseReason.NO_PROXY_HEADER, b"begin with a PROXY header\n"),
        ([b"PROXY TCP4 x\r\nPING\n"], CloseReason.BAD_PROXY_HEADER, b"within 107 bytes\n"),
    ],
)
def test_without_a_valid_header_nothing_is_answered(
    reads: list[bytes], reason: CloseReason, reply: bytes
) -> None:
    proxied = Proxied()
    told = proxied.take(*reads)
    assert proxied.first.close_reason is reason
    assert proxied.first.close_word == reason.value
    assert told.endswith(reply)
    assert told.count(b"\n") == proxied.first.counters.errors == len(proxied.errors)
    assert proxied.take(HEADER + b"PING\n") == b""
    assert proxied.first.close() == b""
    assert proxied.headers == []
    assert proxied.first.counters.requests == 0


@pytest.mark.parametrize(
    ("code", "reason"), [("FORBIDDEN", CloseReason.FORBIDDEN), ("BUSY", CloseReason.BUSY)]
)
def test_a_client_may_be_refused_when_it_is_known(code: str, reason: CloseReason) -> None:
    def refused() -> Session:
        raise RequestError(code, "not now")

    proxied = Proxied(refused)
    assert proxied.current.receive(HEADER + b"PING\n") == f"ERR {code} not now\n".encode()
    assert proxied.first.close_reason is reason
    assert proxied.first.counters.errors == 1


def test_a_header_that_is_not_complete_in_time_ends_the_session() -> None:
    proxied = Proxied()
    proxied.take(HEADER[:9])
    assert proxied.first.time_out() == b"ERR TIMEOUT the PROXY header was not completed in time\n"
    assert proxied.first.close_word == "proxy-header-timeout"


def test_a_second_header_is_the_clients_and_not_accepted() -> None:
    for second in HEADER, headers.line("203.0.113.8", 1):
        proxied = Proxied()
        told = proxied.take(HEADER + second + b"PING\n")
        assert told == b"ERR FORBIDDEN a PROXY header is not accepted here\n"
        assert len(proxied.headers) == 1


def test_tls_may_follow_the_header() -> None:
    server = stored("server")
    context = load_context(str(server.cert), str(server.key), "")
    proxied = Proxied(lambda: TlsSession(context, new_session()))
    assert proxied.take(HEADER) == b""
    assert isinstance(proxied.current, TlsSession)
    trusted = ssl.create_default_context(cafile=STORED / "ca.pem")
    client = Client(proxied.current, trusted)
    client.shake_hands()
    assert client.ask(b"SOMA 2 2\n") == b"4\n"


LINES = st.lists(
    st.sampled_from([b"SOMA 2 2\n", b"DIV 1 0\r\n", b"PING\n", b"QUIT\n", b"2*", b"\n"])
)


@given(st.one_of(VALID, damaged()), LINES.map(b"".join), st.lists(st.integers(1, 60)))
def test_any_cut_gives_the_same_replies(header: bytes, lines: bytes, cuts: list[int]) -> None:
    whole, cut = Proxied(), Proxied()
    stream = header + lines
    replies = whole.take(stream, b"") if stream else whole.take(b"")
    reads = []
    for length in cuts:
        reads.append(stream[:length])
        stream = stream[length:]
    reads = [read for read in [*reads, stream] if read]
    assert cut.take(*reads, b"") == replies
    assert cut.headers == whole.headers
    assert cut.current.close_reason is whole.current.close_reason
    assert whole.current.close_reason
    if whole.headers:
        rest = (header + lines)[whole.headers[0].size :]
        assert replies == answered(new_session(), *filter(None, [rest]), b"")
