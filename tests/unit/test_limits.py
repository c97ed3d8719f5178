"""Limits on connections, and what the log says of them."""

import os
import subprocess
import sys

import pytest
from helpers import TIMEOUT, clean_environment

from calcd.config.settings import Settings
from calcd.core.errors import RequestError
from calcd.net.limits import SPARE_DESCRIPTORS, ConnectionLimiter


def limits(limit: int, limit_per_host: int) -> Settings:
    return Settings(max_connections=limit, max_connections_per_host=limit_per_host)


class Places(ConnectionLimiter):
    """Says why there is no place, in place of raising it."""

    def take(self, host: str, limit: int, limit_per_host: int) -> str:
        try:
            self.acquire(host, limits(limit, limit_per_host))
        except RequestError as error:
            return str(error)
        return ""

    def free(self, host: str, limit: int, limit_per_host: int) -> None:
        self.release(host, limits(limit, limit_per_host))


def test_a_place_freed_is_given_again() -> None:
    places = Places()
    assert [places.take("", 2, 0) for _ in range(2)] == ["", ""]
    assert "2 connections are open" in places.take("", 2, 0)
    places.free("", 2, 0)
    assert places.take("", 2, 0) == ""
    assert places.active == 2


def test_each_host_has_its_own_limit_and_none_has_no_limit() -> None:
    places = Places()
    assert places.take("a", 9, 1) == ""
    assert "your address" in places.take("a", 9, 1)
    assert places.take("b", 9, 1) == ""
    assert [places.take("", 9, 1) for _ in range(3)] == ["", "", ""]
    assert places.active == 5


def test_an_ipv6_host_has_a_network(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    places = Places()
    assert places.take("2001:db8::1", 9, 2) == places.take("2001:db8::2", 9, 2) == ""
    assert "your /64 network" in places.take("2001:db8::3", 9, 2)
    assert places.take("2001:db8:0:1::1", 9, 2) == ""
    assert "clients from 2001:db8::/64 get ERR BUSY" in caplog.text
    for host in ("2001:db8::2", "2001:db8::1"):
        places.free(host, 9, 2)
    assert "below the limit again: 1 from 2001:db8::/64 are open" in caplog.text
    assert places.take("2001:db8::9", 9, 1) == ""
    assert places.active == 2


def test_an_ipv4_host_is_the_same_one_in_ipv6() -> None:
    places = Places()
    assert places.take("::ffff:192.0.2.1", 9, 1) == ""
    assert "your address" in places.take("192.0.2.1", 9, 1)
    places.free("::ffff:192.0.2.1", 9, 1)
    assert places.take("192.0.2.1", 9, 1) == ""


def test_a_hosts_limit_that_is_set_later_counts_those_who_are_there() -> None:
    places = Places()
    for host in ("a", "2001:db8::1"):
        assert places.take(host, 9, 0) == places.take(host, 9, 0) == ""
        assert places.take(host, 9, 2)
        places.free(host, 9, 0)
        assert places.take(host, 9, 2) == ""
        places.free(host, 9, 2)
        places.free(host, 9, 2)
    assert places.active == 0


def test_a_limit_is_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    places = Places()
    for _ in range(20):
        places.take("a", 20, 0)
    for _ in range(5):  # at the limit, clients come and go
        assert places.take("a", 20, 0)
        places.free("a", 20, 0)
        places.take("a", 20, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for _ in range(5):
        places.free("a", 20, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_hosts_limit_is_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    places = Places()
    for _ in range(3):
        places.take("a", 0, 1)
    places.free("a", 0, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fitting", "raised"),
    [
        (256, 4096, 1024, 1024, 1024 + SPARE_DESCRIPTORS),
        (4096, 4096, 1024, 1024, 4096),
        (256, 1024, 1024, 1024 - SPARE_DESCRIPTORS, 1024),
        (64, 64, 1024, 32, 64),
        (64, 64, 10, 10, 64),
        (16, 64, 10, 10, 64),
    ],
)
def test_the_soft_limit_is_raised_to_fit(
    soft: int, hard: int, wanted: int, fitting: int, raised: int
) -> None:
    script = (
        "import resource\n"
        "from calcd.config.settings import Settings; from calcd.net.limits import fitting\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"fit = fitting(Settings(max_connections={wanted})).max_connections\n"
        "print(fit, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert result.stdout == f"{fitting} {raised} {hard}{os.linesep}"
