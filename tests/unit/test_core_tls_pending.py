"""A session under TLS whose lines cost so much that they are answered one call at a time."""

import ssl

import pytest
from certificates import Certificates
from sessions import answered, new_session
from tls_client import Client

from calcd.core.session import CloseReason
from calcd.core.tls import TlsSession
from calcd.net.certificates import load_context

EXPENSIVE = b"EXP 0.1234\n"


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def client(request: pytest.FixtureRequest, certificates: Certificates) -> Client:
    """Give a client after its handshake, whose session computes with 1000 digits."""
    pair = certificates.server
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    trusted.minimum_version = trusted.maximum_version = request.param
    ours = load_context(str(pair.cert), str(pair.key), "")
    client = Client(TlsSession(ours, new_session(1000)), trusted)
    client.shake_hands()
    return client


@pytest.mark.parametrize("records", [1, 2, 5])
def test_what_follows_an_expensive_line_in_the_same_read_is_answered(
    client: Client, records: int
) -> None:
    lines = EXPENSIVE + b"SOMA 2 2\n" + EXPENSIVE + b"PING\n"
    plain = answered(new_session(1000), lines)
    assert plain.count(b"\n") == 4
    client.send(b"".join(client.sealed(lines) for _ in range(records)))
    assert client.heard() == records * plain


def test_many_small_records_in_one_read_are_all_answered(client: Client) -> None:
    """More than one call has time for, though none of the lines is expensive."""
    client.send(b"".join(client.sealed(b"SOMA %d 1\n" % number) for number in range(500)))
    assert client.heard() == b"".join(b"%d\n" % (number + 1) for number in range(500))


def test_the_end_that_follows_an_expensive_line_in_the_same_read_is_seen(client: Client) -> None:
    client.send(client.sealed(EXPENSIVE + b"SOMA 2 2\n") + client.farewell())
    assert client.heard().endswith(b"\n4\n")
    assert client.session.close_reason is CloseReason.CLOSED
