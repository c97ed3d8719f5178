"""Limits on connections, and what the log says of them."""

from collections.abc import Sized

import pytest

from calcd.config.settings import Settings
from calcd.core.errors import RequestError
from calcd.net.limits import ConnectionLimiter


def limits(limit: int, limit_per_host: int) -> Settings:
    return Settings(max_connections=limit, max_connections_per_host=limit_per_host)


def acquired(limiter: ConnectionLimiter, host: str, limit: int, limit_per_host: int) -> str:
    """Count a connection in; return why it is refused, ``""`` if it is not."""
    try:
        limiter.acquire(host, limits(limit, limit_per_host))
    except RequestError as error:
        return str(error)
    return ""


def test_a_place_freed_is_given_again() -> None:
    limiter = ConnectionLimiter()
    assert [acquired(limiter, "", 2, 0) for _ in range(2)] == ["", ""]
    assert "2 connections are open" in acquired(limiter, "", 2, 0)
    limiter.release("", limits(2, 0))
    assert acquired(limiter, "", 2, 0) == ""
    assert limiter.active == 2


def test_each_host_has_its_own_limit_and_none_has_no_limit() -> None:
    limiter = ConnectionLimiter()
    assert acquired(limiter, "a", 9, 1) == ""
    assert "your address" in acquired(limiter, "a", 9, 1)
    assert acquired(limiter, "b", 9, 1) == ""
    assert [acquired(limiter, "", 9, 1) for _ in range(3)] == ["", "", ""]
    assert limiter.active == 5


def test_an_ipv6_host_has_a_network(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    limiter = ConnectionLimiter()
    assert acquired(limiter, "2001:db8::1", 9, 2) == acquired(limiter, "2001:db8::2", 9, 2) == ""
    assert "your /64 network" in acquired(limiter, "2001:db8::3", 9, 2)
    assert acquired(limiter, "2001:db8:0:1::1", 9, 2) == ""
    assert "clients from 2001:db8::/64 get ERR BUSY" in caplog.text
    for host in ("2001:db8::2", "2001:db8::1"):
        limiter.release(host, limits(9, 2))
    assert "below the limit again: 1 from 2001:db8::/64 are open" in caplog.text
    assert acquired(limiter, "2001:db8::9", 9, 1) == ""
    assert limiter.active == 2


def test_an_ipv4_host_is_the_same_one_in_ipv6() -> None:
    limiter = ConnectionLimiter()
    assert acquired(limiter, "::ffff:192.0.2.1", 9, 1) == ""
    assert "your address" in acquired(limiter, "192.0.2.1", 9, 1)
    limiter.release("::ffff:192.0.2.1", limits(9, 1))
    assert acquired(limiter, "192.0.2.1", 9, 1) == ""


def test_a_hosts_limit_that_is_set_later_counts_those_who_are_there() -> None:
    limiter = ConnectionLimiter()
    for host in ("a", "2001:db8::1"):
        assert acquired(limiter, host, 9, 0) == acquired(limiter, host, 9, 0) == ""
        assert acquired(limiter, host, 9, 2)
        limiter.release(host, limits(9, 0))
        assert acquired(limiter, host, 9, 2) == ""
        limiter.release(host, limits(9, 2))
        limiter.release(host, limits(9, 2))
    assert limiter.active == 0


def test_a_limit_is_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    limiter = ConnectionLimiter()
    for _ in range(20):
        acquired(limiter, "a", 20, 0)
    for _ in range(5):  # at the limit, clients come and go
        assert acquired(limiter, "a", 20, 0)
        limiter.release("a", limits(20, 0))
        acquired(limiter, "a", 20, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for _ in range(5):
        limiter.release("a", limits(20, 0))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_hosts_limit_is_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    limiter = ConnectionLimiter()
    for _ in range(3):
        acquired(limiter, "a", 0, 1)
    limiter.release("a", limits(0, 1))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("host", "limit", "reply"),
    [
        ("192.0.2.1", (1, 0), "ERR BUSY 1 connections are open, the server's limit"),
        ("192.0.2.1", (9, 1), "ERR BUSY 1 connections are open from your address, its limit"),
        ("2001:db8::1", (9, 1), "ERR BUSY 1 connections are open from your /64 network, its limit"),
    ],
)
def test_at_a_limit_a_client_is_told_busy(host: str, limit: tuple[int, int], reply: str) -> None:
    limiter = ConnectionLimiter()
    limiter.acquire(host, limits(*limit))
    with pytest.raises(RequestError) as caught:
        limiter.acquire(host, limits(*limit))
    assert caught.value.code == "BUSY"
    assert str(caught.value) == reply


def test_nothing_is_kept_for_a_host_that_has_left() -> None:
    limiter = ConnectionLimiter()
    for number in range(300):
        host = f"192.0.2.{number % 250}" if number % 2 else f"2001:db8:{number:x}::1"
        limiter.acquire(host, limits(1000, 1))
        with pytest.raises(RequestError):  # which is noted as well
            limiter.acquire(host, limits(1000, 1))
        limiter.release(host, limits(1000, 1))
    kept = {name: value for name, value in vars(limiter).items() if isinstance(value, Sized)}
    assert kept
    assert all(len(value) == 0 for value in kept.values()), kept
    assert limiter.active == 0


def test_a_client_that_becomes_known_counts_for_its_host() -> None:
    limiter = ConnectionLimiter()
    for host in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"):
        limiter.acquire("", limits(4, 2))
        limiter.assign(host, limits(4, 2))
    assert limiter.active == 3
    limiter.acquire("", limits(4, 2))
    with pytest.raises(RequestError, match="2 connections are open from your address"):
        limiter.assign("192.0.2.1", limits(4, 2))
    assert limiter.active == 4  # it is still counted
    assert "the server's limit" in acquired(limiter, "", 4, 2)
    limiter.release("", limits(4, 2))
    limiter.release("192.0.2.1", limits(4, 2))
    assert acquired(limiter, "192.0.2.1", 4, 2) == ""
    for host in ("192.0.2.1", "192.0.2.1", "2001:db8::2"):
        limiter.release(host, limits(4, 2))
    assert limiter.active == 0
    assert not limiter._active_by
