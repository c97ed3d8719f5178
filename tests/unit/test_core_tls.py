"""A session under TLS, without a socket: encrypted bytes in, encrypted bytes out."""

import ssl
from collections.abc import Callable
from itertools import pairwise

import pytest
from certificates import STORED, stored
from hypothesis import given
from hypothesis import strategies as st
from sessions import answered, new_session
from tls_client import Client

from calcd.core.budget import CALL_LIMIT
from calcd.core.closing import CloseReason
from calcd.core.job import run
from calcd.core.tls import TlsSession, refusal, server_context
from calcd.net.certificates import load_context

Clients = Callable[..., Client]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
AUTHORITY, SERVER = STORED / "ca.pem", stored("server")
EXPENSIVE = b"EXP 0.1234\n"  # with 1000 digits


@pytest.fixture(scope="module")
def clients() -> Clients:
    """Make clients, each with a session of its own."""
    ours = load_context(str(SERVER.cert), str(SERVER.key), "")

    def client(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, precision: int = 34) -> Client:
        trusted = ssl.create_default_context(cafile=AUTHORITY)
        trusted.minimum_version = trusted.maximum_version = version
        return Client(TlsSession(ours, new_session(precision)), trusted)

    return client


@pytest.fixture(params=VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
def client(request: pytest.FixtureRequest, clients: Clients) -> Client:
    """Give a client that has done its handshake, in either version."""
    client = clients(request.param)
    client.shake_hands()
    return client


def test_what_is_forbidden_adds_to_what_the_ssl_module_forbids() -> None:
    options = server_context().options
    ours = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    assert options == options | ours | ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).options


def test_requests_are_answered(client: Client) -> None:
    assert client.ask(b"SOMA 2 2\r\nDIV 1 3\n") == b"4\r\n0.3333333333333333333333333333333333\n"
    counters = client.session.counters
    assert (counters.requests, counters.errors) == (2, 0)


def test_a_handshake_alone_is_nothing_that_the_client_has_sent(clients: Clients) -> None:
    """Load balancers do one, to see whether the port speaks TLS."""
    client = clients()
    assert not client.session.has_received
    client.session.receive(b"\x16")
    assert client.session.has_received
    client = clients()
    client.shake_hands()
    assert not client.session.has_received
    client.send(client.sealed(b"\n"))
    assert client.session.has_received


def test_a_handshake_may_come_byte_by_byte(clients: Clients) -> None:
    client = clients()
    assert client.session.has_partial_line
    assert not client.session.pending
    client.shake_hands(1)
    assert not client.session.has_partial_line
    assert client.ask(b"SOMA 2 2\n") == b"4\n"


requests = st.lists(st.sampled_from([b"SOMA 2 2\n", b"DIV 1 0\r\n", b"FOO\n", b"\n", b"UPPER a\n"]))


@given(requests.map(b"".join), st.lists(st.integers(0, 1 << 12)), st.lists(st.integers(1, 99)))
def test_any_records_cut_anywhere_give_the_same_replies(
    clients: Clients, text: bytes, records: list[int], cuts: list[int]
) -> None:
    client = clients()
    client.shake_hands()
    ends = [0, *sorted({each for each in records if each < len(text)}), len(text)]
    parts = [text[begin:end] for begin, end in pairwise(ends) if begin < end]
    sealed = b"".join(map(client.sealed, parts))
    for cut in cuts:
        client.send(sealed[:cut])
        sealed = sealed[cut:]
    client.send(sealed)
    assert client.heard() == answered(new_session(), text)


def test_close_notify_is_the_end_of_input(client: Client) -> None:
    client.send(client.sealed(b"SOMA 1 1\nSOMA 2 2") + client.farewell())
    assert client.session.close_reason is CloseReason.CLOSED
    assert client.heard() == b"2\n4\n"
    assert not client.told_the_end
    client.take(client.session.close())
    assert client.told_the_end


@pytest.mark.parametrize(
    ("text", "replies"),
    [
        (b"SOMA 1 1\nSOMA 2 2", b"2\n"),  # the last line may have been SOMA 2 22
        (b"SOMA 2 2", b"4\n"),  # silence would have answered it as well
        (b"SUB 2", b""),
    ],
)
def test_an_end_without_close_notify_makes_no_request_of_half_a_line(
    client: Client, text: bytes, replies: bytes
) -> None:
    heard = client.ask(text)
    client.take(client.session.receive(b""))
    assert client.session.close_reason is CloseReason.CLOSED
    assert heard + client.heard() == replies


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"QUIT\nSOMA 1 1\n", CloseReason.QUIT),
        (b"x" * 2000, CloseReason.LINE_TOO_LONG),
        (b"\x04", CloseReason.CTRL_D),
        (b"\xff\xf4", CloseReason.INTERRUPTED),
        (b"POST / HTTP/1.1\r\n\r\nSOMA 2 2\n", CloseReason.HTTP),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0SOMA 2 2\n", CloseReason.PROXY_HEADER),
    ],
)
def test_however_a_session_ends_its_client_is_told(
    client: Client, text: bytes, reason: CloseReason
) -> None:
    replies = client.ask(text)
    assert client.session.close_reason is reason
    assert replies == new_session().receive(text)
    client.take(client.session.close())
    assert client.told_the_end
    assert client.session.receive(b"PING\n") == b""


def test_silence_and_time_are_answered_under_tls(client: Client) -> None:
    assert client.ask(b"SOMA 2 2") == b""
    assert client.session.partial_line_is_request
    client.take(client.session.flush_partial_line())
    assert client.heard() == b"4\n"
    assert client.ask(b"SUB 2\nSOM").startswith(b"ERR WRONG-OPERANDS ")
    client.take(client.session.time_out())
    assert client.heard().startswith(b"ERR TIMEOUT ")
    assert client.session.close_reason is CloseReason.LINE_TIMEOUT


def test_a_handshake_that_is_not_finished_in_time_gets_no_words(clients: Clients) -> None:
    client = clients()
    assert client.session.time_out() == b""
    assert client.session.close_reason is CloseReason.HANDSHAKE_TIMEOUT
    assert client.session.close() == b""


def test_who_speaks_tls_wrongly_gets_an_alert_and_no_plain_text(clients: Clients) -> None:
    session = clients().session
    alert = session.receive(b"\x16\x03\x01\x00\x05wrong")
    assert alert[:3] == b"\x15\x03\x03"  # RFC 8446, 5.1: an alert's record
    assert session.close_word
    assert session.close_word.startswith("tls-")


def test_who_does_not_speak_tls_is_told_so_in_plain_text(clients: Clients) -> None:
    session = clients().session
    assert session.receive(b"SOMA 2 2\n") == b"ERR FORBIDDEN this endpoint accepts only TLS\n"
    assert session.close_word == "tls-wrong-version-number"
    assert session.close() == b""
    assert (session.counters.requests, session.counters.errors) == (0, 1)


@pytest.mark.parametrize(
    "start",
    [
        b"POST / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 12001\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ],
)
def test_another_protocol_before_the_handshake_gets_one_error(
    clients: Clients, start: bytes
) -> None:
    client = clients()
    told = b"ERR FORBIDDEN this endpoint accepts only TLS\n"
    assert client.session.receive(start + b"SOMA 2 2\n") == told
    assert client.session.close_reason is CloseReason.TLS_ERROR


def test_a_record_that_was_forged_ends_the_session(client: Client) -> None:
    sealed = bytearray(client.sealed(b"SOMA 2 2\n"))
    sealed[-1] ^= 1
    client.send(bytes(sealed))
    assert client.session.close_word == "tls-decryption-failed-or-bad-record-mac"
    assert client.session.counters.requests == 0


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_at_all_raise(clients: Clients, data: bytes, established: bool) -> None:
    client = clients()
    if established:
        client.shake_hands()
    client.session.receive(data)
    client.session.receive(b"")
    client.session.close()
    assert client.session.close_reason
    assert client.session.counters.requests == 0


@pytest.mark.parametrize(
    ("code", "reason"), [("FORBIDDEN", "ACCESS_DENIED"), ("BUSY", "INTERNAL_ERROR")]
)
def test_a_refusal_is_an_alert_that_tells_why(clients: Clients, code: str, reason: str) -> None:
    client = clients()
    client.take(refusal(code))
    with pytest.raises(ssl.SSLError, match=reason):
        client.tls.do_handshake()


@pytest.mark.parametrize("version", VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("asked", [False, True], ids=["no certificate", "certificate"])
def test_a_session_is_not_resumed_where_certificates_are_asked_for(
    asked: bool, version: ssl.TLSVersion
) -> None:
    ours = load_context(str(SERVER.cert), str(SERVER.key), str(AUTHORITY) if asked else "")
    theirs = ssl.create_default_context(cafile=AUTHORITY)
    theirs.minimum_version = theirs.maximum_version = version
    theirs.load_cert_chain(stored("client").cert, stored("client").key)
    saved: ssl.SSLSession | None = None
    for number in range(3):
        client = Client(TlsSession(ours, new_session()), theirs, saved)
        client.shake_hands()
        assert client.ask(b"SOMA 2 2\n") == b"4\n"
        by_id = version == ssl.TLSVersion.TLSv1_2 and not asked
        assert bool(client.tls.session_reused) == (by_id and number > 0)
        saved = client.tls.session
        assert not (saved and saved.has_ticket)
        client.send(client.farewell())  # an orderly end: OpenSSL would keep the session
        client.take(client.session.close())
    assert ours.session_stats()["number"] == by_id


@pytest.mark.parametrize("version", VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize(
    ("shown", "crl", "reason"),
    [
        ("client", "crl.pem", None),
        ("revoked", "", None),
        ("revoked", "crl.pem", "certificate revoked"),
        ("other", "crl.pem", "self-signed certificate"),
        ("other", "", "self-signed certificate"),
    ],
)
def test_it_is_told_which_certificate_is_refused_and_why(
    shown: str, crl: str, reason: str | None, version: ssl.TLSVersion
) -> None:
    lists = str(STORED / crl) if crl else ""
    ours = load_context(str(SERVER.cert), str(SERVER.key), str(AUTHORITY), lists)
    theirs = ssl.create_default_context(cafile=AUTHORITY)
    theirs.minimum_version = theirs.maximum_version = version
    theirs.load_cert_chain(stored(shown).cert, stored(shown).key)
    told: list[tuple[str, list[bytes]]] = []
    session = TlsSession(ours, new_session(), lambda *refused: told.append(refused))
    client = Client(session, theirs)
    if reason is None:
        client.shake_hands()
        assert client.ask(b"SOMA 2 2\n") == b"4\n"
        assert told == []
        return
    with pytest.raises(ssl.SSLError, match=r"ALERT_(CERTIFICATE_REVOKED|UNKNOWN_CA)"):
        client.hear_the_verdict()
    ((why, chain),) = told
    assert why == reason
    assert ssl.DER_cert_to_PEM_cert(chain[0]) == stored(shown).cert.read_text()
    assert session.close_word == "tls-certificate-verify-failed"
    assert session.counters.requests == 0


def test_a_client_without_a_certificate_is_none_whose_certificate_is_refused() -> None:
    ours = load_context(str(SERVER.cert), str(SERVER.key), str(AUTHORITY))
    told: list[object] = []
    session = TlsSession(ours, new_session(), lambda *refused: told.append(refused))
    client = Client(session, ssl.create_default_context(cafile=AUTHORITY))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        client.hear_the_verdict()
    assert told == []


# Expensive lines


@pytest.fixture(params=VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
def precise(request: pytest.FixtureRequest, clients: Clients) -> Client:
    """Give a client that has done its handshake, whose session computes with 1000 digits."""
    client = clients(request.param, precision=1000)
    client.shake_hands()
    return client


@pytest.mark.parametrize("records", [1, 2, 5])
def test_what_follows_an_expensive_line_in_the_same_read_is_answered(
    precise: Client, records: int
) -> None:
    lines = EXPENSIVE + b"SOMA 2 2\n" + EXPENSIVE + b"PING\n"
    plain = answered(new_session(1000), lines)
    assert plain.count(b"\n") == 4
    precise.send(b"".join(precise.sealed(lines) for _ in range(records)))
    assert precise.heard() == records * plain


def test_many_small_records_in_one_read_are_all_answered(precise: Client) -> None:
    """More than one call has time for, though none of the lines is expensive."""
    precise.send(b"".join(precise.sealed(b"SOMA %d 1\n" % number) for number in range(500)))
    assert precise.heard() == b"".join(b"%d\n" % (number + 1) for number in range(500))


def test_a_call_takes_a_few_of_many_records(precise: Client) -> None:
    """A record takes time to decrypt, however little is in it."""
    session, done = precise.session, [0]
    precise.take(session.receive(b"".join(precise.sealed(b"PING\n") for _ in range(500))))
    done.append(session.counters.requests)
    while session.pending:
        precise.take(session.resume())
        done.append(session.counters.requests)
    assert done[-1] == 500
    each = [later - before for before, later in pairwise(done)]
    assert 10 <= min(each[:-1]) <= max(each) <= CALL_LIMIT / 100


def test_a_call_costs_no_more_than_its_caller_allows(client: Client) -> None:
    session = client.session
    client.take(session.receive(client.sealed(50 * b"PING\n"), 101))
    assert 0 < session.counters.requests < 25
    before = session.counters.requests
    client.take(session.resume(1))
    assert before < session.counters.requests < 50
    client.take(session.resume())
    assert session.counters.requests == 50


def test_records_behind_an_expensive_line_wait_for_its_outcome(precise: Client) -> None:
    session = precise.session
    records = [precise.sealed(EXPENSIVE), *(precise.sealed(b"PING\n") for _ in range(9))]
    precise.take(session.receive(b"".join(records)))
    assert session.job
    assert (session.counters.requests, session.pending) == (0, True)
    precise.take(session.complete(run(session.job)))
    assert (session.counters.requests, session.pending) == (10, False)


def test_the_outcome_of_a_job_takes_part_of_the_call_that_goes_on(precise: Client) -> None:
    session = precise.session
    records = [precise.sealed(EXPENSIVE), *(precise.sealed(b"PING\n") for _ in range(500))]
    precise.take(session.receive(b"".join(records)))
    assert session.job
    precise.take(session.complete(run(session.job)))
    assert 1 < session.counters.requests <= CALL_LIMIT / 100


def test_the_end_that_follows_an_expensive_line_in_the_same_read_is_seen(precise: Client) -> None:
    precise.send(precise.sealed(EXPENSIVE + b"SOMA 2 2\n") + precise.farewell())
    assert precise.heard().endswith(b"\n4\n")
    assert precise.session.close_reason is CloseReason.CLOSED
