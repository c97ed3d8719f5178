"""What was measured: a table for a person, JSON for a machine, a picture."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from .load import Row

Curves = Mapping[str, Mapping[str, Mapping[int, float]]]  # of each picture, of each contestant


def line(row: Row) -> str:
    """Give a row of the table."""
    beside = f"{row.peer} {_number(median(row.theirs))}" if row.theirs else ""
    value = f"{row.value:.2f}x" if row.theirs else ""
    sign = ">=" if row.at_least else "<="
    bar = "" if row.bar is None else f"{sign} {row.bar:g}"
    verdict = {True: "holds", False: "MISSED", None: ""}[row.holds]
    ours = f"{_number(median(row.ours))} {row.unit}"
    return f"{row.what:44}{ours:>13}  {beside:>15}  {value:>7}  {bar:8}{verdict}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def machine() -> dict[str, object]:
    """Say where it was measured."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def write_json(
    file: Path, rows: Sequence[Row], notes: Sequence[str], curves: Curves | None
) -> None:
    """Write everything that was measured, each round of it."""
    figures = [{**row._asdict(), "value": row.value, "holds": row.holds} for row in rows]
    report = {"machine": machine(), "figures": figures, "notes": notes, "curves": curves or {}}
    file.write_text(json.dumps(report, indent=1) + "\n")


def draw(file: Path, curves: Curves) -> None:
    """Draw throughput against pipeline depth, and against clients."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(6 * len(curves), 4.5))
    for panel, (title, contestants) in zip(axes, curves.items(), strict=True):
        for name, points in contestants.items():
            panel.plot(list(points), list(points.values()), marker="o", label=name)
        panel.set(title=title, xscale="log", yscale="log", ylabel="answers a second")
        ticks = sorted({x for points in contestants.values() for x in points})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(file)
