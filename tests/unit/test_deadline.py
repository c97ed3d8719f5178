"""The deadline of a drain."""

import pytest

from calcd.net import deadline as module
from calcd.net.deadline import Deadline


def test_it_comes_and_may_be_brought_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    deadline = Deadline(5)
    assert deadline.left() == 5
    now += 3
    assert deadline.left() == 2
    now += 3
    assert deadline.left() == 0
    other = Deadline(5)
    other.pass_now()
    assert other.left() == 0
    assert Deadline().left() > 1e9


def test_one_that_has_passed_cannot_be_set_again() -> None:
    deadline = Deadline()
    deadline.pass_now()
    deadline.set(5)
    assert deadline.left() == 0
