"""The system tests install calcd and boot a systemd, which take longer than other tests."""

from pathlib import Path

import pytest

TIMEOUT = 300  # seconds for a test and the fixtures that it is the first to use


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each system test its time. This hook sees all tests of a run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT))
