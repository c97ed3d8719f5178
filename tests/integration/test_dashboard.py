"""The Grafana dashboard: it is well formed, and Prometheus understands what it asks."""

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from dashboard import Panel, expressions, load, panels
from helpers import Daemons, wait_until
from prometheus import IS_INSTALLED, QueryError, prometheus_in

from tests.soak import picture
from tests.soak.picture import Answer, Samples
from tests.soak.units import shown, ticks

RULES = Path(__file__).parents[2] / "etc" / "prometheus-rules.yml"
# Grafana's names of units: it shows others as text behind the number.
UNITS = {
    *("none", "short", "reqps", "cps", "pps", "Bps", "bytes", "percentunit", "s"),
    "dateTimeFromNow",
}

needs_prometheus = pytest.mark.skipif(not IS_INSTALLED, reason="prometheus is not installed")


def test_grafana_can_import_it() -> None:
    dashboard = load()
    assert re.fullmatch(r"[\w-]{1,40}", dashboard["uid"])
    assert dashboard["title"]
    assert dashboard["id"] is None  # else it would take another dashboard's place
    assert dashboard["schemaVersion"] >= 41  # of Grafana 12
    assert dashboard["panels"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert sorted(set(ids)) == sorted(ids)


def test_the_data_source_is_a_choice_and_so_are_job_and_instance() -> None:
    dashboard = load()
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert {name: each["type"] for name, each in variables.items()} == {
        "datasource": "datasource",
        "job": "query",
        "instance": "query",
    }
    assert variables["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == chosen, panel["title"]
        for target in panel.get("targets", []):
            assert target["datasource"] == chosen, panel["title"]
    for name in ("job", "instance"):
        assert variables[name]["datasource"] == chosen


def test_each_panel_has_what_a_reader_needs() -> None:
    for panel, raw in zip(panels("1m"), load()["panels"], strict=True):
        if panel.kind == "row":
            continue
        assert panel.queries, panel.title
        assert raw["description"], panel.title
        assert panel.unit in UNITS, panel.title
        references = [target["refId"] for target in raw["targets"]]
        assert len(set(references)) == len(references), panel.title
        for target in raw["targets"]:
            for metric in re.findall(r"\b\w+{", target["expr"]):
                assert f'{metric}job=~"$job", instance=~"$instance"' in target["expr"], metric
        # An interval that is shorter than two scrapes would leave gaps.
        assert "[$__rate_interval]" in str(raw["targets"]) or "rate(" not in str(raw["targets"])


def test_no_panel_covers_another() -> None:
    cells = {
        panel.title: {
            (x, y)
            for x in range(panel.x, panel.x + panel.width)
            for y in range(panel.y, panel.y + panel.height)
        }
        for panel in panels("1m")
    }
    assert len(cells) == len(panels("1m")), "two panels have one title"
    assert all(0 <= x < 24 for taken in cells.values() for x, _ in taken)
    for (one, ones), (other, others) in combinations(cells.items(), 2):
        assert not ones & others, (one, other)


@needs_prometheus
def test_prometheus_understands_each_expression(tmp_path: Path) -> None:
    found = list(expressions())
    assert len(found) > 30
    with prometheus_in(tmp_path) as prometheus:
        for expression in found:
            prometheus.query(expression)
        with pytest.raises(QueryError, match="parse error"):
            prometheus.query("rate(calcd_requests_total")


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:calcd|process)_\w+", expression))


@needs_prometheus
def test_a_real_daemon_has_what_is_asked_for(start_daemon: Daemons, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", "--metrics", "http://127.0.0.1:0")
    asked = {metric for expression in expressions() for metric in metrics_in(expression)}
    with prometheus_in(tmp_path, f"127.0.0.1:{daemon.port_of('http')}", rules=RULES) as prometheus:
        for group in prometheus.get("/api/v1/rules")["groups"]:
            for rule in group["rules"]:
                asked |= metrics_in(rule["query"])
        wait_until(lambda: prometheus.query("count_over_time(up[1m]) > 1"), "two scrapes")
        served = set(prometheus.get("/api/v1/label/__name__/values"))
        # Without TLS there is no certificate.
        assert asked - served == {"calcd_tls_certificate_expiry_timestamp_seconds"}
        for panel in panels("1m"):
            for query in panel.queries:
                names = [query.name(series.labels) for series in prometheus.query(query.expression)]
                assert names or metrics_in(query.expression) - served, query
                # A name that lacks something is of a label that the metric has not.
                assert not query.legend or all(names), query
                assert not [name for name in names if name.endswith(("of ", ": "))], query


# -- The picture -----------------------------------------------------------------------------------


def panel(kind: str, unit: str, stacked: bool = False, logarithmic: bool = False) -> Panel:
    title = f"{kind} of {unit}"
    return Panel(title, kind, 0, 0, 12, 8, (), unit, {"1": "in force"}, stacked, logarithmic)


def drawn(file: Path, *answers: Answer) -> tuple[list[str], list[list[tuple[float, float]]]]:
    """Draw; return all texts, and the corners of all curves."""
    picture.draw(file, answers)
    svg = ElementTree.parse(file)
    curves = [
        [
            (float(x), float(y))
            for x, y in (pair.split(",") for pair in line.get("points", "").split())
        ]
        for line in svg.iterfind(".//{*}polyline")
    ]
    return [text.text or "" for text in svg.iterfind(".//{*}text")], curves


def test_the_same_answers_give_the_same_picture(tmp_path: Path) -> None:
    answers = [
        Answer(panel("timeseries", "reqps"), {"a": {0: 10, 60: 2000}, "b": {0: 0, 60: 0}}),
        Answer(panel("stat", "none"), {"": {0: 0, 60: 1}}),
        Answer(panel("row", "none"), {}),
    ]
    files = [tmp_path / "0.svg", tmp_path / "1.svg"]
    texts, curves = drawn(files[0], *answers)
    assert drawn(files[1], *answers) == (texts, curves)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {"timeseries of reqps", "2k req/s", "a", "1 min", "in force", "row of none"} <= set(
        texts
    )
    assert "b" not in texts  # it is 0 all the time
    assert len(curves) == 1


def test_of_series_that_are_all_0_the_first_is_drawn(tmp_path: Path) -> None:
    series: dict[str, Samples] = {"b": {0: 0.0, 60: 0.0}, "a": {0: 0.0, 60: 0.0}}
    texts, curves = drawn(tmp_path / "picture.svg", Answer(panel("timeseries", "pps"), series))
    assert "b" in texts
    assert "a" not in texts
    assert len(curves) == 1


def test_a_larger_value_is_drawn_higher(tmp_path: Path) -> None:
    for logarithmic in (False, True):
        answer = Answer(panel("timeseries", "s", False, logarithmic), {"a": {0: 0.001, 60: 0.5}})
        _, [[(left, low), (right, high)]] = drawn(tmp_path / "picture.svg", answer)
        assert left < right
        assert high < low  # which is measured from the top


def test_stacked_series_are_on_top_of_each_other(tmp_path: Path) -> None:
    series: dict[str, Samples] = {"a": {0: 2.0, 60: 2.0}, "b": {0: 1.0, 60: 1.0}}
    one = drawn(tmp_path / "one.svg", Answer(panel("timeseries", "cps"), {"c": {0: 3.0, 60: 3.0}}))
    two = drawn(tmp_path / "two.svg", Answer(panel("timeseries", "cps", stacked=True), series))
    assert two[1][-1] == one[1][0]


def test_a_heatmap_has_a_cell_for_each_bucket_that_something_fell_into(tmp_path: Path) -> None:
    # Buckets count all below their bound: 3 up to 0.1 s, 1 up to 1 s, none above.
    series: dict[str, Samples] = {
        "0.1": {0: 3.0, 60: 0.0},
        "1.0": {0: 4.0, 60: 0.0},
        "+Inf": {0: 4.0, 60: 0.0},
    }
    texts, _ = drawn(tmp_path / "picture.svg", Answer(panel("heatmap", "s"), series))
    assert {"100 ms", "1 s"} <= set(texts)
    cells = ElementTree.parse(tmp_path / "picture.svg").iterfind(".//{*}rect[@fill='#3274d9']")
    shades = [float(cell.get("fill-opacity", "1")) for cell in cells]
    assert len(shades) == 2
    assert max(shades) == shades[0] > shades[1] > 0


def test_what_has_no_data_says_so(tmp_path: Path) -> None:
    empty = Answer(panel("stat", "s"), {})
    texts, curves = drawn(tmp_path / "picture.svg", empty, Answer(panel("timeseries", "s"), {}))
    assert "no data" in texts
    assert curves == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "reqps", "0 req/s"),
        (1980, "reqps", "1.98k req/s"),
        (0.1216, "percentunit", "12.2%"),
        (150_000, "Bps", "150 kB/s"),
        (31 * 1024 * 1024, "bytes", "31 MiB"),
        (0.00077, "s", "770 µs"),
        (0.0307, "s", "30.7 ms"),
        (600, "s", "10 min"),
        (1435 * 60, "s", "24 hours"),
        (29.9 * 86400, "s", "30 days"),
        (940_000, "dateTimeFromNow", "60 s ago"),
        (float("nan"), "percentunit", "no value"),
    ],
)
def test_numbers_are_shown_with_their_units(value: float, unit: str, text: str) -> None:
    assert shown(value, unit, now=1000) == text


@pytest.mark.parametrize("most", [0, 0.003, 0.9, 1, 7, 100, 1980, 3e6])
@pytest.mark.parametrize("unit", ["none", "bytes"])
def test_an_axis_has_room_for_the_largest_value(most: float, unit: str) -> None:
    marks = ticks(most, unit)
    assert marks[0] == 0
    assert marks[-1] >= most * (1 - 1e-9)
    assert 3 <= len(marks) <= 6
