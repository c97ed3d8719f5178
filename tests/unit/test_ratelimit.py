"""The rate limit of the log: which lines it suppresses, and that it counts them."""

import logging
from collections.abc import Iterator

import pytest

from calcd.daemon import ratelimit as module
from calcd.daemon.ratelimit import BURST, RATE, REPORT_INTERVAL, RateLimit

clients = logging.getLogger("calcd.net.test")
access = logging.getLogger("calcd.access")
own = logging.getLogger("calcd.test-own")


class Clock:
    """A time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lines(logging.Handler):
    """A log that keeps its lines in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> RateLimit:
    return RateLimit(clock)


@pytest.fixture
def lines(limit: RateLimit) -> Iterator[list[str]]:
    """Give the lines of a log with a rate limit."""
    handler = Lines()
    handler.addFilter(limit)
    loggers = (clients, own, access, module.log)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel("INFO")
    yield handler.lines
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_a_burst_is_logged_and_then_some_lines_a_second(clock: Clock, lines: list[str]) -> None:
    for second in range(10):
        for number in range(200):
            clients.info("line %d", number)
        assert len(lines) == BURST + second * RATE
        clock.now += 1
    clock.now += 3600
    for number in range(1000):
        clients.info("line %d", number)
    assert len(lines) == 2 * BURST + 9 * RATE  # and not what an hour would have had room for


def test_suppressed_lines_are_counted_and_reported(
    clock: Clock, limit: RateLimit, lines: list[str]
) -> None:
    for number in range(BURST + 500):
        clients.info("line %d", number)
    limit.report()
    clock.now += REPORT_INTERVAL - 0.1
    limit.report()
    assert len(lines) == BURST
    clock.now += 0.2
    limit.report()
    limit.report()
    assert lines[BURST:] == ["500 lines suppressed in the last 10 s, such as: line 599"]


def test_a_flood_of_one_kind_suppresses_no_other(limit: RateLimit, lines: list[str]) -> None:
    for number in range(1000):
        clients.info("one kind %d", number)
    clients.info("another kind %d", 1)
    assert lines[-1] == "another kind 1"
    for number in range(BURST):
        clients.warning("another kind %d", number)
    limit.report(now=True)
    assert lines[-2:] == [
        "900 lines suppressed in the last 1 s, such as: one kind 999",
        "1 line suppressed in the last 1 s, such as: another kind 99",
    ]


def test_bugs_that_clients_of_the_metrics_trigger_are_suppressed_too(limit: RateLimit) -> None:
    record = logging.makeLogRecord({"name": "calcd.daemon.metricsserver", "msg": "a bug"})
    assert [limit.filter(record) for _ in range(BURST + 5)].count(True) == BURST


def test_lines_of_the_daemon_and_of_served_clients_are_never_suppressed(lines: list[str]) -> None:
    for number in range(10 * BURST):
        own.info("line %d", number)
        access.info("line %d", number)
    assert len(lines) == 20 * BURST
