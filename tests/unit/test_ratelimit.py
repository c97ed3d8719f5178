"""The rate limit of the log: which lines it suppresses, and that it counts them."""

import logging
import re
from collections.abc import Iterator

import pytest
from helpers import Daemons

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
    for second in range(60):
        for number in range(1000):
            clients.info("line %d", number)
        assert len(lines) == BURST + second * RATE
        clock.now += 1
    clock.now += 3600
    for number in range(1000):
        clients.info("line %d", number)
    assert len(lines) == 2 * BURST + 59 * RATE  # and not what an hour would have had room for


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


def test_lines_of_the_daemon_and_of_served_clients_are_never_suppressed(lines: list[str]) -> None:
    for number in range(10 * BURST):
        own.info("line %d", number)
        access.info("line %d", number)
    assert len(lines) == 20 * BURST


def refuse_many(daemon_log_level: str, start_daemon: Daemons) -> str:
    daemon = start_daemon("--allow", "127.0.0.2", "--log-level", daemon_log_level)
    for _ in range(3 * BURST):
        with daemon.connect() as refused:
            assert refused.recv(100).startswith(b"ERR FORBIDDEN ")
    assert daemon.stop() == 0
    return daemon.log


def test_a_daemon_that_stops_reports_suppressed_lines(start_daemon: Daemons) -> None:
    log = refuse_many("info", start_daemon)
    shown = len(re.findall(r"info: connection \S+ ended: .* how=forbidden", log))
    told = re.findall(r"info: (\d+) lines? suppressed in the last \d+ s, such as: connection", log)
    assert BURST <= shown < 2 * BURST
    assert shown + sum(map(int, told)) == 3 * BURST


def test_at_debug_there_is_no_limit(start_daemon: Daemons) -> None:
    log = refuse_many("debug", start_daemon)
    assert log.count("how=forbidden") == 3 * BURST
    assert "suppressed" not in log


def test_a_served_client_always_has_a_line_and_others_are_limited(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    asked = {b"SOMA 1 1\nDIV 1 0\n": b"2\nERR", b"DIV 1 0\n": b"ERR", b"": b""}
    for requests, replies in asked.items():
        for _ in range(3 * BURST):
            assert daemon.ask(requests).startswith(replies)
    assert daemon.stop() == 0
    assert daemon.log.count("requests=2 errors=1 ") == 3 * BURST
    assert daemon.log.count("requests=1 errors=1 ") < 2 * BURST
    assert daemon.log.count("requests=0 errors=0 ") < BURST
