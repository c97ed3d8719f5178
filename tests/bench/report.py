"""What was measured: a table for a person, JSON for a machine."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .load import Bench, Row
from .picture import Curves
from .programs import version


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


def machine(python: str) -> dict[str, object]:
    """Say where it was measured, and with which Python."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": ".".join(map(str, version(python))),
        "load": os.getloadavg()[0],
    }


def write_json(file: Path, bench: Bench, rows: Sequence[Row], curves: Curves | None) -> None:
    """Write everything that was measured, each round of it."""
    figures = [{**row._asdict(), "value": row.value, "holds": row.holds} for row in rows]
    report = {
        "machine": machine(bench.python),
        "figures": figures,
        "notes": bench.notes,
        "curves": curves or {},
    }
    file.write_text(json.dumps(report, indent=1) + "\n")
