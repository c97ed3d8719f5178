"""What the daemon's order of things decides by itself."""

import pytest

from calcd.daemon.main import switch_interval


@pytest.mark.parametrize(
    ("connections", "milliseconds"), [(0, 0.02), (50, 0.02), (51, 0.12), (1050, 100.02)]
)
def test_threads_ask_for_the_gil_less_often_the_more_there_are(
    connections: int, milliseconds: float
) -> None:
    assert switch_interval(connections) * 1000 == pytest.approx(milliseconds)
