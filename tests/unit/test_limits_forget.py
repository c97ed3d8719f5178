"""What the count of connections keeps: nothing for a host that has left."""

from collections.abc import Sized

import pytest

from calcd.config.settings import Settings
from calcd.core.errors import RequestError
from calcd.net.limits import ConnectionLimiter


def test_nothing_is_kept_for_a_host_that_has_left() -> None:
    limiter = ConnectionLimiter()
    settings = Settings(max_connections=1000, max_connections_per_host=1)
    for number in range(300):
        host = f"192.0.2.{number % 250}" if number % 2 else f"2001:db8:{number:x}::1"
        limiter.acquire(host, settings)
        with pytest.raises(RequestError):  # which is noted as well
            limiter.acquire(host, settings)
        limiter.release(host, settings)
    kept = {name: value for name, value in vars(limiter).items() if isinstance(value, Sized)}
    assert kept
    assert all(len(value) == 0 for value in kept.values()), kept
    assert limiter.active == 0
