"""Where things go on the page's drawings: numbers that the templates turn into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from zoo.studies.curves import Line, band, span
from zoo.studies.gains import Split
from zoo.studies.measures import Row
from zoo.studies.words import percent


def charts(lines: Sequence[Line], log: bool = False) -> list[dict[str, Any]]:
    """One for wide windows, one for narrow ones."""
    return [chart(lines, width, height, log) for width, height in ((1000, 460), (420, 380))] if lines else []


def chart(lines: Sequence[Line], width: int, height: int, log: bool) -> dict[str, Any]:
    """Lay the curves out on a width x height sheet; the template turns the numbers into SVG."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    left, right, top, bottom = 46, width - 16, 14, height - 40
    low, high = span(lines)

    def place(value: float) -> float:
        return math.log10(max(value, 1e-4)) if log else value  # seconds are rounded to as much

    places = [place(point.at) for line in lines for point in line.points]
    first, last = min(places), max(places)
    wide = (last - first) or 1.0
    first, wide = (first, wide) if last > first else (first - 0.5, wide)

    def x(value: float) -> float:
        return round(left + 8 + (right - left - 16) * (place(value) - first) / wide, 1)

    def y(accuracy: float) -> float:
        return round(bottom - (bottom - top) * (accuracy - low) / (high - low), 1)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x(count)} {y(accuracy)}" for count, accuracy in points)

    series = []
    for line in lines:
        shaded = band(line)
        there = [(at, down) for at, down, _ in shaded]
        back = [(at, up) for at, _, up in reversed(shaded)]
        series.append(
            {
                "style": line.style,
                "published": line.published,
                "mean": path([(p.at, p.accuracy[0]) for p in line.points]),
                "dots": [(x(p.at), y(p.accuracy[0])) for p in line.points],
                "seeds": [path(seed) for seed in line.seeds] if len(line.seeds) > 1 else [],
                "band": path(there + back) + "Z" if len(shaded) > 1 else "",
            }
        )
    upright = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(100 * low, 100 * high)
    across: Any
    if log:
        subs = (1.0, 2.0, 5.0) if wide < width / 400 else (1.0,)
        across = LogLocator(subs=subs, numticks=99).tick_values(10**first, 10 ** (first + wide))
    else:
        ticks = MaxNLocator(nbins=max(3, width // 110), steps=[1, 2, 5, 10], integer=True)
        across = ticks.tick_values(first, first + wide)
    return {
        **{"width": width, "height": height, "left": left, "right": right, "top": top, "bottom": bottom},
        "yticks": [(y(tick / 100), f"{tick:g}") for tick in upright if low <= tick / 100 <= high],
        "xticks": [(x(tick), f"{tick:g}") for tick in across if first <= place(tick) <= first + wide],
        "series": series,
        "scale": {
            **{"first": first, "wide": wide, "log": log},
            **{"left": left + 8, "span": right - left - 16, "width": width},
        },
    }


def hover(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """What the page's script shows beside the pointer: per line its name and points, worded and in 0..1."""
    return [
        {
            "name": line.learner,
            "points": [[point.at, percent(point.accuracy), point.accuracy[0]] for point in line.points],
        }
        for line in lines
    ]


def forest(rows: Sequence[Row]) -> dict[str, Any]:
    """Place zero and the differences to random on a strip from 0 to 1; bounds far out end at its edges."""
    gains = {row.learner: row.gain for row in rows if row.gain}
    reach = 2.5 * max((abs(mean) for mean, _, _ in gains.values()), default=0.0) or 0.01
    ends = [value for gain in gains.values() for value in gain if value is not None]
    least, most = max(-reach, min([0.0, *ends])), min(reach, max([0.0, *ends]))

    def place(value: float) -> float:
        return round((max(least, min(most, value)) - least) / ((most - least) or 1.0), 3)

    strips = {
        learner: [place(mean if value is None else value) for value in (mean, low, high)]
        for learner, (mean, low, high) in gains.items()
    }
    return {"zero": place(0.0), "strips": strips}


def bars(splits: Sequence[Split]) -> dict[str, list[tuple[float, float]]]:
    """For each learner the ends of two bars on a strip from -1 to 1 around zero: training, and questions."""
    parts = {
        split.learner: [part[0] if part else 0.0 for part in (split.training, split.questions)] for split in splits
    }
    reach = max((abs(value) for both in parts.values() for value in both), default=0.0) or 1.0
    return {
        learner: [(round(min(0.0, value) / reach, 3), round(abs(value) / reach, 3)) for value in both]
        for learner, both in parts.items()
    }


def course(values: Sequence[float]) -> str:
    """A path through the values from left to right, the least at the bottom and the greatest on top, on 100 x 10."""
    there = [(i, value) for i, value in enumerate(values) if math.isfinite(value)]
    if len(there) < 2:
        return ""
    low, high = min(value for _, value in there), max(value for _, value in there)
    low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
    ends = [f"{100 * i / (len(values) - 1):.4g} {5 - 10 * (value - low) / (high - low):.4g}" for i, value in there]
    return "M" + "L".join(ends)
