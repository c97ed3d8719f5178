"""Pictures as SVG: text, lines, areas and legends. The same figures give the same bytes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

Point = tuple[float, float]  # to the right, and down


class Picture:
    """A picture of a given width, in pixels, which grows with what is drawn."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, anchor: str = "start", size: int = 0, fill: str = ""
    ) -> None:
        """Write one line, of the usual size and colour if nothing else is said."""
        style = f' font-size="{size}"' if size else ""
        style += f' fill="{fill}"' if fill else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self._parts.append(f"<text {place}{style}>{escape(text)}</text>")

    def rectangle(
        self, x: float, y: float, width: float, height: float, fill: str, opacity: float = 1
    ) -> None:
        """Fill a rectangle; an opacity below 1 lets what is below shine through."""
        style = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
        sides = f'x="{_number(x)}" y="{_number(y)}" width="{_number(width)}"'
        height_ = f'height="{_number(height)}"'
        self._parts.append(f'<rect {sides} {height_} fill="{fill}"{style}/>')

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """Draw the border of a rectangle."""
        sides = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect {sides} fill="none" stroke="#ccc"/>')

    def grid_line(self, begin: float, end: float, y: float) -> None:
        """Draw a faint horizontal line."""
        line = f'x1="{begin:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        self._parts.append(f'<line {line} stroke="#ddd"/>')

    def curve(self, points: Iterable[Point], colour: str, width: float = 2) -> None:
        """Draw a line through points."""
        style = f'stroke="{colour}" stroke-width="{width}" fill="none"'
        self._parts.append(f'<polyline points="{_corners(points)}" {style}/>')

    def area(self, points: Iterable[Point], colour: str) -> None:
        """Fill the area within points, and let what is below shine through."""
        style = f'fill="{colour}" fill-opacity="0.3"'
        self._parts.append(f'<polygon points="{_corners(points)}" {style}/>')

    def legend(self, colours: Mapping[str, str], left: float, y: float, step: float) -> None:
        """Write names from ``left`` on, one each ``step``, with the colour that each has."""
        for number, (name, colour) in enumerate(colours.items()):
            x = left + step * number
            self.rectangle(float(x), y - 9, 10, 10, colour)
            self.text(x + 14, y, name)

    def write(self, file: Path, height: int) -> None:
        """Write the picture, of this height, to a file."""
        style = 'font-family="sans-serif" font-size="12" fill="#222"'
        size = f'width="{self.width}" height="{height}" viewBox="0 0 {self.width} {height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
        background = '<rect width="100%" height="100%" fill="white"/>'
        file.write_text("\n".join([head, background, *self._parts, "</svg>\n"]))


def _corners(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"
