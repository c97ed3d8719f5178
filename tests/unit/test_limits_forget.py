"""What the count of connections keeps: nothing for a host that has left."""

from collections.abc import Sized

from calcd.net.limits import Places


def test_nothing_is_kept_for_a_host_that_has_left() -> None:
    places = Places()
    for number in range(300):
        host = f"192.0.2.{number % 250}" if number % 2 else f"2001:db8:{number:x}::1"
        assert places.take(host, 1000, 1) == ""
        assert places.take(host, 1000, 1) != ""  # its limit is reached, which is noted as well
        places.free(host, 1000, 1)
    kept = {name: value for name, value in vars(places).items() if isinstance(value, Sized)}
    assert kept
    assert all(len(value) == 0 for value in kept.values()), kept
    assert places.taken == 0
