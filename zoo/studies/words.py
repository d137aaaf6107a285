"""Numbers in words, as the table, the plot and the page write them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.studies.measures import Interval


def percent(interval: Interval | None, sign: bool = False) -> str:
    """An interval around a share as "87.31 ± 1.20", in percent; the mean alone where there is no interval."""
    if interval is None:
        return "–"
    mean, low, high = interval
    shown = signed(mean) if sign else f"{100 * mean:.2f}"
    return shown if low is None or high is None else f"{shown} ± {50 * (high - low):.2f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent, as "12.3 %"."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def signed(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def bounds(pair: tuple[float | None, float | None]) -> str:
    """Both ends of an interval of differences, in points; nothing to say for one seed."""
    low, high = pair
    return "–" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def memory(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:,.0f} MiB"


def figure(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def extent(values: Sequence[float]) -> str:
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def joined(value: object) -> str:
    if value is None or value in ("", {}, []):
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{key} {value[key]}" for key in sorted(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
