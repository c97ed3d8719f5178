"""The alerts for Prometheus: promtool accepts them, and they fire when they should."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from documents import OPERATIONS, anchors, marked
from helpers import ROOT, Daemons, ask, wait_until
from prometheus import IS_INSTALLED, prometheus_in, promtool

RULES = ROOT / "etc" / "prometheus-rules.yml"
UNIT_TESTS = ROOT / "tests" / "integration" / "prometheus-rules-test.yml"

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="prometheus is not installed")


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Give the alerts as Prometheus has read them."""
    with prometheus_in(tmp_path_factory.mktemp("rules"), rules=RULES) as prometheus:
        groups = prometheus.get("/api/v1/rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_are_right_and_none_is_there_twice() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_tells_what_it_should() -> None:
    done = promtool("test", "rules", UNIT_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("expression", "failure"),
    [("vector(0) > 1", r"got:\[\]"), ("vector(1)", r"exp:\[\]")],
    ids=["never", "always"],
)
def test_an_alert_that_never_or_always_fires_is_noticed(
    alerts: list[dict[str, Any]], tmp_path: Path, expression: str, failure: str
) -> None:
    """Each alert has a case in which it must fire, and one in which it must not."""
    unit_tests = tmp_path / "tests.yml"
    text = UNIT_TESTS.read_text()
    assert "../../etc/prometheus-rules.yml" in text
    unit_tests.write_text(text.replace("../../etc/prometheus-rules.yml", "rules.yml"))
    rules = [
        {"alert": alert["name"], "expr": expression, "labels": alert["labels"]} for alert in alerts
    ]
    groups = [{"name": "calcd", "rules": rules}]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": groups}))  # JSON is YAML
    done = promtool("test", "rules", unit_tests)
    noticed = set()
    for told in re.split(r"^ +alertname:", done.stdout + done.stderr, flags=re.MULTILINE)[1:]:
        if re.search(failure, told):
            noticed.add(told.strip().partition(",")[0])
    assert noticed == {alert["name"] for alert in alerts}


def test_each_alert_tells_what_is_wrong_and_where_to_read_on(alerts: list[dict[str, Any]]) -> None:
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["name"]
        told = alert["annotations"]
        assert set(told) == {"summary", "description", "runbook"}, alert["name"]
        page, _, anchor = told["runbook"].partition("#")
        assert anchor in anchors(ROOT / page), told["runbook"]


def test_the_table_has_each_alert(alerts: list[dict[str, Any]]) -> None:
    rows = re.findall(r"^\| `(Calcd\w+)` \| (\w+) \|", OPERATIONS.read_text(), re.MULTILINE)
    assert rows == [(alert["name"], alert["labels"]["severity"]) for alert in alerts]


def test_the_configuration_that_is_shown_is_right(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    shown = marked(OPERATIONS, "prometheus", "yaml")
    config.write_text(shown.replace("/etc/prometheus/calcd-rules.yml", str(RULES)))
    done = promtool("check", "config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RULES}" in done.stdout
    assert "job_name: calcd\n" in shown


def test_a_real_daemon_makes_them_fire(start_daemon: Daemons, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    settings = tmp_path / "calcd.conf"
    right = (
        "[calcd]\nlisten = tcp://127.0.0.1:0\nmetrics = http://127.0.0.1:0\nmax_connections = 1\n"
    )
    settings.write_text(right)
    daemon = start_daemon("-c", str(settings))

    with prometheus_in(tmp_path, f"127.0.0.1:{daemon.port_of('http')}", rules=RULES) as prometheus:

        def firing() -> set[str]:
            found = prometheus.get("/api/v1/alerts")["alerts"]
            return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}

        wait_until(lambda: prometheus.query("count_over_time(up[1m]) > 1"), "two scrapes")
        assert firing() == set()
        settings.write_text(right + "precision = 0\n")
        daemon.process.send_signal(signal.SIGHUP)
        with daemon.connect() as client:
            assert ask(client, b"PING\n") == b"PONG\n"
            assert daemon.ask(b"").startswith(b"ERR BUSY")
        wait_until(lambda: firing() == {"CalcdReloadFailed", "CalcdFull"}, "the alerts")
        settings.write_text(right)
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: firing() == {"CalcdFull"}, "the end of one")
