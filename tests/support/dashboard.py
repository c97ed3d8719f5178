"""The Grafana dashboard: its panels, and the expressions that they ask Prometheus."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from helpers import ROOT

FILE = ROOT / "etc" / "grafana-dashboard.json"


class Query(NamedTuple):
    """An expression in PromQL, and the names of its series as Grafana's legend has them."""

    expression: str
    legend: str

    def name(self, labels: Mapping[str, str]) -> str:
        """Return the name of a series that has these labels."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda label: labels.get(label[1], ""), self.legend)


class Panel(NamedTuple):
    """A panel. Its place is in cells: 24 of them are the dashboard's width."""

    title: str
    kind: str  # row, stat, timeseries, heatmap
    x: int
    y: int
    width: int
    height: int
    queries: tuple[Query, ...]
    unit: str
    texts: Mapping[str, str]  # shown instead of values
    stacked: bool
    logarithmic: bool


def load() -> Any:
    """Return the dashboard as Grafana reads it."""
    return json.loads(FILE.read_text())


def panels(window: str) -> list[Panel]:
    """Return the panels. Rates are over ``window``, such as ``1m``; all jobs and instances."""
    return [_panel(panel, window) for panel in load()["panels"]]


def expressions() -> Iterator[str]:
    """Give every expression: of the panels, of the annotations and of the variables."""
    for panel in panels("1m"):
        yield from (query.expression for query in panel.queries)
    dashboard = load()
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield _substituted(annotation["expr"], "1m")
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
            assert found, variable
            yield _substituted(found[1], "1m")


def _substituted(expression: str, window: str) -> str:
    """Put values for Grafana's variables, as Grafana does with "All"."""
    for variable, value in (("$__rate_interval", window), ("$job", ".+"), ("$instance", ".+")):
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


def _panel(panel: Mapping[str, Any], window: str) -> Panel:
    place = panel["gridPos"]
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    custom = defaults.get("custom", {})
    texts = [mapping["options"] for mapping in defaults.get("mappings", [])]
    return Panel(
        title=panel["title"],
        kind=panel["type"],
        x=place["x"],
        y=place["y"],
        width=place["w"],
        height=place["h"],
        queries=tuple(
            Query(_substituted(target["expr"], window), target["legendFormat"])
            for target in panel.get("targets", [])
        ),
        unit=defaults.get("unit", panel.get("options", {}).get("yAxis", {}).get("unit", "none")),
        texts={value: shown["text"] for each in texts for value, shown in each.items()},
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        logarithmic=custom.get("scaleDistribution", {}).get("type") == "log",
    )
