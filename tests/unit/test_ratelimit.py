"""The log's rate: which lines are bounded, how, and that nothing is lost in silence."""

import logging
import re
from collections.abc import Iterator

import pytest
from helpers import Daemons

from calcd.daemon import ratelimit as lograte
from calcd.daemon.ratelimit import BURST, RATE, TELL, LogRate, bounded

clients = bounded("calcd.test-clients")
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
def rate(clock: Clock) -> LogRate:
    return LogRate(clock)


@pytest.fixture
def lines(rate: LogRate) -> Iterator[list[str]]:
    """Give the lines of a log that is bounded."""
    handler = Lines()
    handler.addFilter(rate)
    loggers = (clients, own, lograte.log)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel("INFO")
    yield handler.lines
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_a_burst_comes_whole_and_then_so_many_a_second(clock: Clock, lines: list[str]) -> None:
    for second in range(60):
        for number in range(1000):
            clients.info("line %d", number)
        assert len(lines) == BURST + second * RATE
        clock.now += 1
    clock.now += 3600
    for number in range(1000):
        clients.info("line %d", number)
    assert len(lines) == 2 * BURST + 59 * RATE  # and not what an hour would have had room for


def test_what_is_left_out_is_counted_and_told_in_its_time(
    clock: Clock, rate: LogRate, lines: list[str]
) -> None:
    for number in range(BURST + 500):
        clients.info("line %d", number)
    rate.tell()
    clock.now += TELL - 0.1
    rate.tell()
    assert len(lines) == BURST
    clock.now += 0.2
    rate.tell()
    rate.tell()
    assert lines[BURST:] == ["lines left out in the last 10 s: 500, such as: line 599"]


def test_a_flood_of_one_kind_hides_no_other(rate: LogRate, lines: list[str]) -> None:
    for number in range(1000):
        clients.info("one kind %d", number)
    clients.info("another kind %d", 1)
    assert lines[-1] == "another kind 1"
    for number in range(BURST):
        clients.warning("another kind %d", number)
    rate.tell(at_once=True)
    assert lines[-2:] == [
        "lines left out in the last 1 s: 900, such as: one kind 999",
        "lines left out in the last 1 s: 1, such as: another kind 99",
    ]


def test_what_clients_do_not_cause_is_never_left_out(lines: list[str]) -> None:
    for number in range(10 * BURST):
        own.info("line %d", number)
    assert len(lines) == 10 * BURST


def refuse_many(daemon_log_level: str, start_daemon: Daemons) -> str:
    daemon = start_daemon("--allow", "127.0.0.2", "--log-level", daemon_log_level)
    for _ in range(3 * BURST):
        with daemon.connect() as refused:
            assert refused.recv(100).startswith(b"ERR FORBIDDEN ")
    assert daemon.stop() == 0
    return daemon.log


def test_a_daemon_that_stops_tells_what_it_has_left_out(start_daemon: Daemons) -> None:
    log = refuse_many("info", start_daemon)
    shown = len(re.findall(r"info: connection \S+ ended: .* how=forbidden", log))
    told = re.findall(r"info: lines left out in the last \d+ s: (\d+), such as: connection", log)
    assert BURST <= shown < 2 * BURST
    assert shown + sum(map(int, told)) == 3 * BURST


def test_at_debug_there_is_no_bound(start_daemon: Daemons) -> None:
    log = refuse_many("debug", start_daemon)
    assert log.count("how=forbidden") == 3 * BURST
    assert "left out" not in log


def test_who_was_answered_always_has_a_line_and_who_was_not_may_not(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    asked = {b"SOMA 1 1\nDIV 1 0\n": b"2\nERR", b"DIV 1 0\n": b"ERR", b"": b""}
    for requests, replies in asked.items():
        for _ in range(3 * BURST):
            assert daemon.ask(requests).startswith(replies)
    assert daemon.stop() == 0
    assert daemon.log.count("requests=2 errors=1 ") == 3 * BURST
    assert daemon.log.count("requests=1 errors=1 ") < 2 * BURST
    assert daemon.log.count("requests=0 errors=0 ") < BURST
