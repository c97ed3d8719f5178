"""The picture of what was measured, as SVG: the same figures give the same bytes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

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
    parts: list[str] = []
    below = _draw_kinds(parts, kinds) if kinds else 0
    for number, (title, contestants) in enumerate(curves.items()):
        width = _WIDTH / len(curves)
        _draw_curves(parts, title, contestants, number * width, below, width)
    height = below + _HEIGHT
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    background = '<rect width="100%" height="100%" fill="white"/>'
    file.write_text("\n".join([head, background, *parts, "</svg>\n"]))


def _draw_kinds(parts: list[str], rows: Sequence[Row]) -> int:
    """Draw a bar for each contestant and kind; return where they end."""
    parts.append(_text(_LABELS, 24, "answers a second: one client, 1,000 ahead, by kind of line"))
    most = max(median(rates) for row in rows for rates in (row.ours, row.theirs) if rates)
    _draw_legend(parts, ["calcd", "bc"], _WIDTH - _MARGIN, 24)
    top = _TITLE
    for row in rows:
        parts.append(_text(_LABELS - 8, top + _BAR + 4, row.what, "end"))
        for name, rates in (("calcd", row.ours), (row.peer, row.theirs)):
            if rates:
                length = median(rates) / most * (_WIDTH - _LABELS - _MARGIN)
                bar = f'x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}"'
                parts.append(f'<rect {bar} fill="{_COLOURS[name]}"/>')
                parts.append(_text(_LABELS + length + 4, top + _BAR - 1, f"{median(rates):,.0f}"))
            top += _BAR
        top += _BAR
    return top + _BAR


def _draw_curves(
    parts: list[str],
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

    parts.append(_text(begin, top + 24, f"answers a second: {title}"))
    for power in range(lowest, highest + 1):
        height = y(10.0**power)
        line = f'x1="{begin:.1f}" x2="{end:.1f}" y1="{height:.1f}" y2="{height:.1f}"'
        parts.append(f'<line {line} stroke="#ddd"/>')
        parts.append(_text(begin - 6, height + 4, f"{10**power:,}", "end"))
    for tick in ticks:
        parts.append(_text(x(tick), floor + 18, f"{tick:,}", "middle"))
    for name, points in contestants.items():
        corners = " ".join(f"{x(point):.1f},{y(rate):.1f}" for point, rate in points.items())
        line = f'stroke="{_COLOURS[name]}" stroke-width="2" fill="none"'
        parts.append(f'<polyline points="{corners}" {line}/>')
    _draw_legend(parts, list(contestants), end, floor + 38)


def _draw_legend(parts: list[str], names: Sequence[str], right: float, y: float) -> None:
    for number, name in enumerate(names):
        x = right - 60 * (len(names) - number)
        square = f'x="{x:.1f}" y="{y - 9}" width="10" height="10"'
        parts.append(f'<rect {square} fill="{_COLOURS[name]}"/>')
        parts.append(_text(x + 14, y, name))


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
