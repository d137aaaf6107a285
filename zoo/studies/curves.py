"""The curves of a study: what every picture of them shares, and the plot as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.studies import measures
from zoo.studies.measures import BASELINES, Point, Record

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), darkened to be read on white; the page has light ones too.
COLOURS = ("#0072b2", "#d55e00", "#00805e", "#b3528f", "#b07a00", "#3fa0dc")
MARKERS = ("o", "s", "^", "D", "v")  # five markers against six colours: thirty lines before one looks like another
DASHES = ((), (6.0, 2.0), (2.0, 2.0))
NEUTRAL = "#6b6b6b"  # random, the yardstick, has no colour
BANDED = 3  # seeds from which on an interval is shaded: that of two is wider than any plot, and says nothing
FOG = 50  # seeds' paths in one plot, beyond which they hide the curves and only the intervals are shown


@dataclass(frozen=True)
class Line:
    """A learner's curve: its points, its seeds' paths over the same, and which style it wears (-1: neutral).

    published: it is not ours, but stands beside.
    """

    learner: str
    points: list[Point]
    seeds: list[list[tuple[float, float]]]
    style: int
    published: bool = False


def lines_of(
    records: Sequence[Record],
    learners: Sequence[str] | None,
    over: Callable[[Record], float | None] = lambda record: record.labels,
) -> list[Line]:
    """Every learner with a record as a line, best final accuracy first; its style follows the study's order.

    over: what it lies over, by default known labels; records without it are left out.
    """
    lines = []
    style = 0
    for learner in measures.order(records, learners):
        mine = sorted((record for record in records if record.learner == learner), key=lambda record: record.round)
        own = [(record, at) for record in mine if (at := over(record)) is not None]
        neutral = learner in BASELINES
        if own:
            seeds = sorted({record.seed for record, _ in own})
            paths = [[(at, record.accuracy) for record, at in own if record.seed == seed] for seed in seeds]
            lines.append(Line(learner, measures.curve(*zip(*own, strict=True)), paths, -1 if neutral else style))
        style += not neutral
    return sorted(lines, key=lambda line: -line.points[-1].accuracy[0])


def plot(lines: Sequence[Line], data: str, kind: Literal["png", "svg"] = "png", notes: Sequence[str] = ()) -> bytes:
    """The plot as a file. notes: sentences that are written under it."""
    title = f"Active learning on {plain(data)}: mean of seeds, 95 % interval"
    return panels({title: lines}, (9, 5), kind, notes)


def panels(
    plots: Mapping[str, Sequence[Line]],
    each: tuple[float, float],
    kind: Literal["png", "svg"] = "png",
    notes: Sequence[str] = (),
) -> bytes:
    """Plots by title beside each other, two in a row, as one file; the legend is that of the first.

    each: width and height of one of them, in inches.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    wide = min(2, len(plots))
    high = -(-len(plots) // wide)
    figure = Figure(figsize=(wide * each[0], high * each[1]), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, lines) in enumerate(plots.items()):
        axes = figure.add_subplot(high, wide, number + 1)
        draw(axes, lines)
        axes.set_xlabel("labels")
        axes.set_ylabel("accuracy on held-out images, %")
        axes.set_title(title, loc="left", fontsize="medium")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if first := next(iter(plots.values())):
        handles = [Line2D([], [], label=f" {called(line, len(plots) == 1)}", **look(line)) for line in first]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    if notes:
        figure.supxlabel("\n".join(map(plain, notes)), x=0.01, ha="left", fontsize="small", color="#8a4b00", wrap=True)
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "alzoo"}):  # the same curves, the same file
        figure.savefig(out, format=kind, metadata={"png": {"Software": None}, "svg": {"Date": None}}[kind])
    return out.getvalue()


def draw(axes: Any, lines: Sequence[Line]) -> None:
    """The curves, each with its band and, where they are not too many, its seeds' paths."""
    clear = sum(len(line.seeds) for line in lines) <= FOG
    for line in lines:
        style = look(line)
        axes.plot([p.at for p in line.points], [100 * p.accuracy[0] for p in line.points], zorder=3, **style)
        if len(line.seeds) > 1 or line.published:
            thin: dict[str, Any] = {"color": style["color"], "linewidth": 0.6, "alpha": 0.35}
            for path in line.seeds if clear or line.published else ():
                axes.plot(*zip(*[(n, 100 * a) for n, a in path], strict=True), **thin)
            if shaded := band(line):
                x, low, high = (list(column) for column in zip(*shaded, strict=True))
                low, high = [100 * value for value in low], [100 * value for value in high]
                axes.fill_between(x, low, high, color=style["color"], alpha=min(0.12, 0.6 / len(lines)), linewidth=0)
    if lines:
        axes.set_ylim(*(100 * value for value in span(lines, clear)))


def called(line: Line, alone: bool) -> str:
    """A learner in the legend; of one plot alone, with the last accuracy."""
    final = f"  {100 * line.points[-1].accuracy[0]:.1f} %" if alone else ""
    return f"{plain(short(line.learner))}{final}"


def look(line: Line) -> dict[str, Any]:
    """How matplotlib is to draw a curve."""
    colour, marker, dashes = style_of(line.style)
    drawn: dict[str, Any] = {"color": colour, "linestyle": (0, dashes) if dashes else "-", "linewidth": 1.8}
    drawn |= {"marker": marker, "markersize": 4}
    return drawn | ({"linestyle": ":", "markerfacecolor": "white"} if line.published else {})


def band(line: Line) -> list[tuple[float, float, float]]:
    """Where the line's interval is shaded: place, low, high."""
    sure = [(p.at, p.accuracy[1], p.accuracy[2]) for p in line.points if line.published or p.seeds >= BANDED]
    return [(at, low, high) for at, low, high in sure if low is not None and high is not None]


def style_of(style: int) -> tuple[str, str, tuple[float, ...]]:
    if style < 0:
        return NEUTRAL, "x", (4.0, 2.0)
    return COLOURS[style % 6], MARKERS[style % 5], DASHES[style // 6 % 3]


def span(lines: Sequence[Line], paths: bool = True) -> tuple[float, float]:
    """The accuracies the plot must show: all means, all seeds where their paths are drawn, and a little air.

    A wide band for few seeds may leave the frame.
    """
    values = [point.accuracy[0] for line in lines for point in line.points]
    values += [accuracy for line in lines for path in line.seeds for _, accuracy in path if paths or line.published]
    air = max(0.01, 0.06 * (max(values) - min(values)))
    return max(0.0, min(values) - air), min(1.0, max(values) + air)


def plain(text: str) -> str:
    """Keep matplotlib from taking a name for mathematics, and from letters (beyond Cyrillic) its font lacks."""
    return "".join(letter if letter.isprintable() and letter < "\u0500" else "?" for letter in text).replace("$", r"\$")


def short(text: str, length: int = 36) -> str:
    """The text with its middle left out where it is longer."""
    end = min(12, length // 3)
    return text if len(text) <= length else f"{text[: length - 3 - end]}...{text[-end:]}"
