"""The picture of a soak: the panels of the Grafana dashboard, with what Prometheus has of it."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dashboard import Panel, panels
from prometheus import Prometheus, prometheus_in
from svg import Picture

from .units import shown, ticks

_SCRAPE = 2  # seconds between two scrapes
_STEP = 5  # seconds between two points

# The sides of a cell of the dashboard's grid, in pixels; a panel has margins around its graph.
_CELL_WIDTH, _CELL_HEIGHT = 40, 25
_GAP = 4  # between panels
_TOP, _BOTTOM, _LEFT, _RIGHT = 32, 54, 72, 14
_LETTER, _CAPITAL = 7.0, 9.0  # the width of one, about
_MINUTE = 50  # the width that the name of a minute needs
_COLOURS = (
    "#3274d9", "#e0752d", "#37872d", "#8f3bb8", "#c4162a", "#c7a008", "#1f9fa8", "#7a5230",
)  # fmt: skip
_BLUE = _COLOURS[0]
_SIZES = {9: 22, 12: 18, 1000: 13}  # of the letters of a value, by how many there are at most

Samples = Mapping[float, float]  # by Unix time


class Answer(NamedTuple):
    """What Prometheus has for a panel: the samples of each series, by its name in the legend."""

    panel: Panel
    series: Mapping[str, Samples]


@contextmanager
def drawn(file: Path, directory: Path, target: str) -> Iterator[None]:
    """Let Prometheus scrape ``target``, HOST:PORT; draw what it has in the end, into ``file``."""
    with prometheus_in(directory, target, interval=f"{_SCRAPE}s") as prometheus:
        start = time.time()
        yield
        draw(file, ask(prometheus, start, time.time()))


def ask(prometheus: Prometheus, start: float, end: float) -> list[Answer]:
    """Ask Prometheus what Grafana would, for each panel, from ``start`` to ``end`` in Unix time."""
    # As Grafana works out $__rate_interval.
    window = max(_STEP + _SCRAPE, 4 * _SCRAPE)
    return [
        Answer(
            panel,
            {
                query.name(series.labels): series.samples
                for query in panel.queries
                for series in prometheus.query_range(query.expression, start, end, _STEP)
            },
        )
        for panel in panels(f"{window}s")
    ]


def draw(file: Path, answers: Sequence[Answer]) -> None:
    """Draw the panels where the dashboard has them."""
    picture = Picture(24 * _CELL_WIDTH)
    times = [at for answer in answers for samples in answer.series.values() for at in samples]
    for answer in answers:
        _draw_panel(picture, answer, min(times, default=0), max(times, default=0))
    bottom = max(answer.panel.y + answer.panel.height for answer in answers)
    picture.write(file, bottom * _CELL_HEIGHT + _GAP)


def _draw_panel(picture: Picture, answer: Answer, start: float, end: float) -> None:
    panel = answer.panel
    left, top = panel.x * _CELL_WIDTH, panel.y * _CELL_HEIGHT
    if panel.kind == "row":
        picture.text(left + 8, top + 18, panel.title, size=15)
        return
    width, height = panel.width * _CELL_WIDTH - _GAP, panel.height * _CELL_HEIGHT - _GAP
    picture.frame(left + _GAP / 2, top + _GAP / 2, width, height)
    picture.text(left + 10, top + 18, panel.title)
    if panel.kind == "stat":
        _draw_stat(picture, answer, left + 10, top + height, end)
        return
    sides = (left + _LEFT, left + width - _RIGHT, top + _TOP, top + height - _BOTTOM)
    graph = _Graph(*sides, start, end)
    graph.draw_minutes(picture)
    if panel.kind == "heatmap":
        _draw_heatmap(picture, answer, graph)
    else:
        _draw_curves(picture, answer, graph)


class _Graph(NamedTuple):
    """The area of a graph, in pixels, and the time that it spans."""

    left: float
    right: float
    top: float
    floor: float
    start: float
    end: float

    def x(self, at: float) -> float:
        share = (at - self.start) / (self.end - self.start or 1)
        return self.left + (self.right - self.left) * share

    def y(self, share: float) -> float:
        """Return where a share of the height is: 0 at the floor, 1 at the top."""
        return self.floor - (self.floor - self.top) * share

    def draw_minutes(self, picture: Picture) -> None:
        """Write the minutes since the start below the graph."""
        minutes = (self.end - self.start) / 60
        every = math.ceil(minutes * _MINUTE / (self.right - self.left)) or 1
        for minute in range(0, int(minutes) + 1, every):
            text = f"{minute} min" if minute else "0"
            picture.text(self.x(self.start + 60 * minute), self.floor + 15, text, "middle")


def _draw_stat(picture: Picture, answer: Answer, left: float, bottom: float, end: float) -> None:
    """Write the last value of each series in large letters, or its name if that is what counts."""
    for number, (name, samples) in enumerate(answer.series.items()):
        value = samples[max(samples)]
        text = answer.panel.texts.get(f"{value:g}") or shown(value, answer.panel.unit, end)
        if name and answer.panel.width < 4:  # the name alone, as for the version
            text = name
        elif name:
            text = f"{name}: {text}"
        size = next(size for most, size in _SIZES.items() if len(text) <= most)
        picture.text(left, bottom - 18 - 26 * number, text, size=size, fill=_BLUE)
    if not answer.series:
        picture.text(left, bottom - 18, "no data", fill="#888")


def _draw_curves(picture: Picture, answer: Answer, graph: _Graph) -> None:
    panel = answer.panel
    curves = dict(_curves(answer))
    values = [value for samples in curves.values() for value in samples.values()]
    if panel.logarithmic:
        values = [value for value in values if value > 0] or [1.0]
        lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        highest = max(highest, lowest + 1)
        marks = [10.0**power for power in range(lowest, highest + 1)]
    else:
        marks = ticks(max(values, default=0), panel.unit)

    def y(value: float) -> float:
        if panel.logarithmic:
            share = (math.log10(max(value, marks[0])) - lowest) / (highest - lowest)
        else:
            share = value / marks[-1]
        return graph.y(share)

    for mark in marks:
        picture.grid_line(graph.left, graph.right, y(mark))
        picture.text(graph.left - 6, y(mark) + 4, shown(mark, panel.unit, 0), "end")
    colours = dict(zip(curves, _COLOURS * len(curves), strict=False))
    floors: dict[float, float] = {}
    for name, samples in curves.items():
        points = [(graph.x(at), y(value)) for at, value in samples.items()]
        if panel.stacked:
            below = [(graph.x(at), y(floors.get(at, 0))) for at in samples]
            picture.area([*points, *reversed(below)], colours[name])
            floors.update(samples)
        picture.curve(points, colours[name], width=1.5)
    _draw_legend(picture, colours, graph)


def _curves(answer: Answer) -> Iterator[tuple[str, Samples]]:
    """Give the series that have a sample above 0, largest first; the first one if none has.

    Stacked ones include those that were given before.
    """
    finite = {
        name: {at: value for at, value in samples.items() if math.isfinite(value)}
        for name, samples in answer.series.items()
    }
    found = {name: samples for name, samples in finite.items() if any(samples.values())}
    found = found or dict([each for each in finite.items() if each[1]][:1])
    sums: dict[float, float] = {}
    for name in sorted(found, key=lambda name: max(found[name].values()), reverse=True):
        samples = found[name]
        if answer.panel.stacked:
            for at, value in samples.items():
                sums[at] = sums.get(at, 0) + value
            yield name, {at: sums[at] for at in samples}
        else:
            yield name, samples


def _draw_legend(picture: Picture, colours: Mapping[str, str], graph: _Graph) -> None:
    """Write as many names as two lines have room for, and how many more there are."""
    x, lines = graph.left, [graph.floor + 32, graph.floor + 47]
    for number, (name, colour) in enumerate(colours.items()):
        width = 24 + sum(_CAPITAL if letter.isupper() else _LETTER for letter in name)
        room = graph.right - (0 if len(lines) > 1 or number == len(colours) - 1 else 30)
        if x + width > room and x > graph.left:
            if len(lines) == 1:
                picture.text(x, lines[0], f"+{len(colours) - number}")
                return
            del lines[0]
            x = graph.left
        picture.legend({name: colour}, x, lines[0], step=0)
        x += width


def _draw_heatmap(picture: Picture, answer: Answer, graph: _Graph) -> None:
    """Draw a cell for each bucket and step, the darker the more samples fell into it."""
    bounds = sorted(answer.series, key=float)
    cells = {bound: _added(answer, below, bound) for below, bound in pairwise(["", *bounds])}
    used = [number for number, bound in enumerate(bounds) if any(cells[bound].values())]
    if not used:
        return
    bounds = bounds[used[0] : used[-1] + 1]
    most = max(max(cells[bound].values()) for bound in bounds)
    height = (graph.floor - graph.top) / len(bounds)
    for number, bound in enumerate(bounds):
        top = graph.floor - height * (number + 1)
        label = "more" if math.isinf(float(bound)) else shown(float(bound), answer.panel.unit, 0)
        if number % math.ceil(len(bounds) / 8) == 0:
            picture.text(graph.left - 6, top + 8, label, "end")
        for at, count in cells[bound].items():
            if count > 0:
                left, right = graph.x(at), min(graph.x(at + _STEP), graph.right)
                shade = (count / most) ** 0.4  # else few would not be seen beside many
                picture.rectangle(left, top, right - left, height, _BLUE, shade)


def _added(answer: Answer, below: str, bound: str) -> dict[float, float]:
    """Return what a bucket adds to the one below: Prometheus's hold all up to their bound."""
    under = answer.series.get(below, {})
    return {at: count - under.get(at, 0) for at, count in answer.series[bound].items()}
