"""The critical-difference plot: mean ranks on an axis, and bars under those that cannot be told apart (Demsar 2006)."""

from __future__ import annotations

import io
from typing import Any, Literal

from zoo.studies.curves import plain, short
from zoo.studies.statistics import Ranking


def cliques(ranking: Ranking) -> list[tuple[float, float]]:
    """The widest runs of neighbouring ranks that are less than the critical difference apart: first and last rank."""
    ranks = sorted(ranking.ranks.values())
    runs: list[tuple[float, float]] = []
    for first in ranks:
        last = max(rank for rank in ranks if rank - first < ranking.critical)
        if last > first and not any(last <= end for _, end in runs):
            runs.append((first, last))
    return runs


def layout(ranking: Ranking, width: int = 1000) -> dict[str, Any]:
    """Where everything goes on a sheet of that width: the best rank on the left, names at both sides."""
    k, side = len(ranking.ranks), 220 if width > 600 else 128
    names = sorted(ranking.ranks, key=lambda name: ranking.ranks[name])
    left, right, axis = side + 10, width - side - 10, 56
    half = (k + 1) // 2

    def x(rank: float) -> float:
        return round(left + (right - left) * (rank - 1) / (k - 1), 1)

    bars = [(x(first) - 4, x(last) + 4, axis + 12 + 6 * i) for i, (first, last) in enumerate(cliques(ranking))]
    top = axis + 28 + 6 * len(bars)
    marks = []
    for i, name in enumerate(names):
        on_left = i < half
        marks.append(
            {
                "learner": name,
                "name": short(name, 25 if width > 600 else 13),
                "rank": ranking.ranks[name],
                "x": x(ranking.ranks[name]),
                "y": top + 20 * (i if on_left else k - 1 - i),
                "side": side if on_left else width - side,
                "left": on_left,
            }
        )
    step = max(1, -(-k // (15 if width > 600 else 6)))
    return {
        **{"width": width, "height": top + 20 * half, "left": left, "right": right, "axis": axis},
        "ticks": [(x(rank), rank) for rank in range(1, k + 1, step)],
        "critical": (left, min(right, x(1 + ranking.critical)), f"critical difference {ranking.critical:.2f}"),
        "bars": bars,
        "marks": marks,
    }


def plot(ranking: Ranking, title: str, kind: Literal["png", "svg"] = "png") -> bytes:
    """The plot as a file, for papers."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sheet = layout(ranking)
    figure = Figure(figsize=(9, 9 * (sheet["height"] + 30) / sheet["width"]), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, sheet["width"]), ylim=(sheet["height"], -30))
    axes.axis("off")
    ink: dict[str, Any] = {"color": "black", "linewidth": 1}
    axes.text(10, -8, plain(title), fontsize="small")
    axes.plot((sheet["left"], sheet["right"]), (sheet["axis"],) * 2, **ink)
    for x, rank in sheet["ticks"]:
        axes.plot((x, x), (sheet["axis"] - 5, sheet["axis"]), **ink)
        axes.text(x, sheet["axis"] - 9, str(rank), ha="center", fontsize="small")
    start, end, words = sheet["critical"]
    axes.plot((start, end), (24, 24), color="black", linewidth=2)
    axes.text(start, 17, words, fontsize="small")
    for start, end, y in sheet["bars"]:
        axes.plot((start, end), (y, y), color="black", linewidth=3.5, solid_capstyle="round")
    for mark in sheet["marks"]:
        axes.plot((mark["x"], mark["x"], mark["side"]), (sheet["axis"], mark["y"], mark["y"]), **ink)
        beside = (mark["side"] - 5, "right") if mark["left"] else (mark["side"] + 5, "left")
        said = f"{plain(mark['name'])}  {mark['rank']:.2f}"
        axes.text(beside[0], mark["y"], said, ha=beside[1], va="center", fontsize="small")
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "alzoo"}):  # the same ranks, the same file
        figure.savefig(out, format=kind, metadata={"png": {"Software": None}, "svg": {"Date": None}}[kind])
    return out.getvalue()
