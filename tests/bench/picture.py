"""The picture of what was measured, as SVG: the same figures give the same bytes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from svg import Picture

from .load import Row

Points = Mapping[int, float]  # answers a second, by depth or by clients
Curves = Mapping[str, Mapping[str, Points]]  # of each panel, of each contestant

_COLOURS = {"calcd": "#1f5fa8", "bc": "#e08a1e", "redis": "#b03030", "echo": "#808080"}
_WIDTH = 920
_MARGIN, _TITLE = 90, 40
_BAR, _LABELS = 11, 190  # the height of a bar; the width of the names of kinds
_HEIGHT = 300  # of a panel of curves


def draw(file: Path, kinds: Sequence[Row], curves: Curves) -> None:
    """Draw throughput by kind of line, if that was measured, above the curves."""
    picture = Picture(_WIDTH)
    below = _draw_kinds(picture, kinds) if kinds else 0
    for number, (title, contestants) in enumerate(curves.items()):
        width = _WIDTH / len(curves)
        _draw_curves(picture, title, contestants, number * width, below, width)
    picture.write(file, below + _HEIGHT)


def _draw_kinds(picture: Picture, rows: Sequence[Row]) -> int:
    """Draw a bar for each contestant and kind; return where they end."""
    picture.text(_LABELS, 24, "answers a second: one client, 1,000 ahead, by kind of line")
    most = max(median(rates) for row in rows for rates in (row.ours, row.theirs) if rates)
    _draw_legend(picture, ["calcd", "bc"], _WIDTH - _MARGIN, 24)
    top = _TITLE
    for row in rows:
        picture.text(_LABELS - 8, top + _BAR + 4, row.what, "end")
        for name, rates in (("calcd", row.ours), (row.peer, row.theirs)):
            if rates:
                length = median(rates) / most * (_WIDTH - _LABELS - _MARGIN)
                picture.rectangle(_LABELS, top, length, _BAR, _COLOURS[name])
                picture.text(_LABELS + length + 4, top + _BAR - 1, f"{median(rates):,.0f}")
            top += _BAR
        top += _BAR
    return top + _BAR


def _draw_curves(
    picture: Picture,
    title: str,
    contestants: Mapping[str, Points],
    left: float,
    top: float,
    width: float,
) -> None:
    """Draw a curve for each contestant; both scales are logarithmic."""
    rates = [rate for points in contestants.values() for rate in points.values()]
    ticks = sorted({point for points in contestants.values() for point in points})
    lowest, highest = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    begin, end, floor = left + _MARGIN, left + width - 20, top + _HEIGHT - 50

    def x(point: float) -> float:
        return begin + (end - begin) * math.log(point / ticks[0]) / math.log(ticks[-1] / ticks[0])

    def y(rate: float) -> float:
        return floor - (floor - top - _TITLE) * (math.log10(rate) - lowest) / (highest - lowest)

    picture.text(begin, top + 24, f"answers a second: {title}")
    for power in range(lowest, highest + 1):
        height = y(10.0**power)
        picture.grid_line(begin, end, height)
        picture.text(begin - 6, height + 4, f"{10**power:,}", "end")
    for tick in ticks:
        picture.text(x(tick), floor + 18, f"{tick:,}", "middle")
    for name, points in contestants.items():
        picture.curve(((x(point), y(rate)) for point, rate in points.items()), _COLOURS[name])
    _draw_legend(picture, list(contestants), end, floor + 38)


def _draw_legend(picture: Picture, names: Sequence[str], right: float, y: float) -> None:
    colours = {name: _COLOURS[name] for name in names}
    picture.legend(colours, right - 60 * len(names), y, step=60)
