"""Numbers with the dashboard's units, as Grafana shows them, and marks for their axes."""

import math
from collections.abc import Sequence

_RATES = {"reqps": " req/s", "cps": " c/s", "pps": " p/s"}
_DAY = 86400


def shown(value: float, unit: str, now: float) -> str:
    """Return a value with its unit; ``now`` is the Unix time that ages are counted from."""
    if not math.isfinite(value):
        return "no value"
    if unit == "percentunit":
        return f"{_rounded(100 * value)}%"
    if unit == "s":
        return _seconds(value)
    if unit == "bytes":
        return _prefixed(value, ("B", "KiB", "MiB", "GiB"), 1024, " ")
    if unit == "dateTimeFromNow":  # milliseconds since 1970
        return f"{_seconds(now - value / 1000)} ago"
    if unit == "Bps":
        return _prefixed(value, ("B/s", "kB/s", "MB/s", "GB/s"), 1000, " ")
    return _prefixed(value, ("", "k", "M", "G"), 1000) + _RATES.get(unit, "")


def ticks(most: float, unit: str) -> list[float]:
    """Return round values from 0 to at least ``most``, three to six of them."""
    base = 1024.0 ** int(math.log(most, 1024)) if unit == "bytes" and most >= 1 else 1.0
    most = (most if most > 0 else 1.0) / base
    power = 10.0 ** math.floor(math.log10(most / 2))
    step = next(factor * power for factor in (1, 2, 5, 10) if most / (factor * power) <= 5)
    return [base * step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def _seconds(value: float) -> str:
    if abs(value) >= 2 * _DAY:
        return f"{value / _DAY:.0f} days"
    if abs(value) >= 7200:
        return f"{value / 3600:.0f} hours"
    if abs(value) >= 120:
        return f"{value / 60:.0f} min"
    if abs(value) >= 1 or not value:
        return f"{_rounded(value)} s"
    if abs(value) >= 1e-3:
        return f"{_rounded(value * 1e3)} ms"
    return f"{_rounded(value * 1e6)} µs"


def _prefixed(value: float, prefixes: Sequence[str], base: int, blank: str = "") -> str:
    power = int(math.log(abs(value), base) + 1e-9) if abs(value) >= 1 else 0
    power = min(power, len(prefixes) - 1)
    return f"{_rounded(value / base**power)}{blank}{prefixes[power]}"


def _rounded(value: float) -> str:
    """Return three digits, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
