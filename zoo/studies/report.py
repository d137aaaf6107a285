"""Rebuild the table, the plot and the page of a run from its study.toml and results.jsonl, finished or not.

Nothing is remembered between calls and nothing is fetched: the page is one file that works offline.
"""

from __future__ import annotations

import base64
import csv
import io
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.studies import measures
from zoo.studies.measures import BASELINES, Interval, Point, Record, Row

if TYPE_CHECKING:
    from rich.table import Table

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), darkened to be read on white; the page has light ones too.
COLOURS = ("#0072b2", "#d55e00", "#00805e", "#b3528f", "#b07a00", "#3fa0dc")
MARKERS = ("o", "s", "^", "D", "v")  # five markers against six colours: thirty lines before one looks like another
DASHES = ((), (6.0, 2.0), (2.0, 2.0))
NEUTRAL = "#6b6b6b"  # random, the yardstick, has no colour

COLUMNS = (
    *("learner", "aubc", "aubc_low", "aubc_high", "final", "final_low", "final_high", "seeds", "seeds_planned"),
    *("gain", "gain_low", "gain_high", "gain_seeds", "fit_seconds", "select_seconds", "peak_bytes"),
)


@dataclass(frozen=True)
class Line:
    """A learner's curve: its points, its seeds' (labels, accuracy) paths, and which style it wears (-1: neutral)."""

    learner: str
    points: list[Point]
    seeds: list[list[tuple[int, float]]]
    style: int


def write(directory: Path) -> None:
    """Rebuild summary.csv, curves.png and report.html from study.toml and results.jsonl, each as a whole."""
    directory = Path(directory)
    study = measures.settings(directory)
    results = directory / "results.jsonl"
    records = measures.read(results) if results.is_file() else []
    rows = measures.summary(records, **_asked_for(study))
    lines = _lines(records, study.get("learners"))
    _put(directory / "summary.csv", _csv(rows).encode())
    _put(directory / "curves.png", _plot(lines, str(study.get("data", "?"))))
    _put(directory / "report.html", _page(directory, study, records, rows, lines).encode())


def table(
    records: Sequence[Record],
    learners: Sequence[str] | None = None,
    rounds: int | None = None,
    seeds: int | None = None,
) -> Table:
    """The summary for the terminal: accuracies in percent, +- half of their 95 % interval, best AUBC first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = measures.summary(records, learners, rounds, seeds)
    caption = "AUBC: mean accuracy over the labels, in percent. ±: half of the 95 % interval over seeds."
    grid = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    grid.add_column("learner", overflow="fold")
    for head in ("seeds", "AUBC", "final", "to random", "fit s", "ask s"):
        grid.add_column(head, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else math.inf):
        cells = [
            f"{row.seeds}/{row.planned}",
            _percent(row.aubc),
            _percent(row.final),
            _percent(row.gain, sign=True),
            _seconds(row.fit_seconds),
            _seconds(row.select_seconds),
        ]
        grid.add_row(Text(row.learner), *cells)
    return grid


# summary.csv


def _csv(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(
            [
                row.learner,
                *_bounds(row.aubc),
                *_bounds(row.final),
                row.seeds,
                row.planned,
                *_bounds(row.gain),
                row.gain_seeds,
                _decimal(row.fit_seconds),
                _decimal(row.select_seconds),
                "" if row.peak_bytes is None else row.peak_bytes,
            ]
        )
    return out.getvalue()


def _bounds(interval: Interval | None) -> list[str]:
    return [_decimal(value) for value in interval or (None, None, None)]


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


# curves.png


def _plot(lines: Sequence[Line], data: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    handles = []
    for line in lines:
        colour, marker, dashes = _style(line.style)
        x = [point.labels for point in line.points]
        y = [100 * point.accuracy[0] for point in line.points]
        look: dict[str, Any] = {"color": colour, "linestyle": (0, dashes) if dashes else "-", "linewidth": 1.8}
        look |= {"marker": marker, "markersize": 4}
        axes.plot(x, y, zorder=3, **look)
        handles.append(Line2D([], [], label=f" {_plain(_short(line.learner))}  {y[-1]:.1f} %", **look))
        if len(line.seeds) > 1:
            for path in line.seeds:
                axes.plot(*zip(*[(n, 100 * a) for n, a in path], strict=True), color=colour, linewidth=0.6, alpha=0.35)
            sure = [(p.labels, p.accuracy[1], p.accuracy[2]) for p in line.points]
            band = [(n, 100 * low, 100 * high) for n, low, high in sure if low is not None and high is not None]
            if band:
                x, low, high = (list(column) for column in zip(*band, strict=True))
                axes.fill_between(x, low, high, color=colour, alpha=min(0.12, 0.6 / len(lines)), linewidth=0)
    if lines:
        axes.set_ylim(*(100 * value for value in _span(lines)))
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    axes.set_xlabel("labels")
    axes.set_ylabel("accuracy on held-out images, %")
    axes.set_title(f"Active learning on {_plain(data)}: mean of seeds, 95 % interval", loc="left", fontsize="medium")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _lines(records: Sequence[Record], learners: Sequence[str] | None) -> list[Line]:
    """Every learner with a record as a line, best final accuracy first; its style follows the study's order."""
    lines = []
    style = 0
    for learner in measures.order(records, learners):
        own = sorted((record for record in records if record.learner == learner), key=lambda record: record.round)
        neutral = learner in BASELINES
        if own:
            seeds = sorted({record.seed for record in own})
            paths = [[(record.labels, record.accuracy) for record in own if record.seed == seed] for seed in seeds]
            lines.append(Line(learner, measures.curve(own), paths, -1 if neutral else style))
        style += not neutral
    return sorted(lines, key=lambda line: -line.points[-1].accuracy[0])


def _style(style: int) -> tuple[str, str, tuple[float, ...]]:
    if style < 0:
        return NEUTRAL, "x", (4.0, 2.0)
    return COLOURS[style % 6], MARKERS[style % 5], DASHES[style // 6 % 3]


def _span(lines: Sequence[Line]) -> tuple[float, float]:
    """The accuracies the plot must show: all seeds, a little air; a wide band for few seeds may leave the frame."""
    values = [accuracy for line in lines for path in line.seeds for _, accuracy in path]
    air = max(0.01, 0.06 * (max(values) - min(values)))
    return max(0.0, min(values) - air), min(1.0, max(values) + air)


def _plain(text: str) -> str:
    """Keep matplotlib from taking a name for mathematics, and from letters (beyond Cyrillic) its font lacks."""
    return "".join(letter if letter.isprintable() and letter < "\u0500" else "?" for letter in text).replace("$", r"\$")


def _short(text: str, length: int = 36) -> str:
    return text if len(text) <= length else f"{text[: length - 15]}...{text[-12:]}"


# report.html


def _page(
    directory: Path, study: Mapping[str, Any], records: Sequence[Record], rows: Sequence[Row], lines: Sequence[Line]
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "percent": _percent,
        "points": lambda interval: _percent(interval, sign=True),
        "seconds": _seconds,
        "bytes": _bytes,
        "figure": _figure,
        "number": lambda value: "" if value is None else f"{value:.6g}",
    }
    asked = _asked_for(study)
    complete = sum(row.seeds for row in rows)
    planned = sum(row.planned for row in rows)
    rounds = max((record.round for record in records), default=0) if asked["rounds"] is None else asked["rounds"]
    results = directory / "results.jsonl"
    last = datetime.fromtimestamp(results.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC") if records else None
    finished = bool(rows) and complete >= planned
    return environment.get_template("report.html.jinja").render(
        data=str(study.get("data", "?")),
        last=last,
        finished=finished,
        complete=complete,
        planned=planned,
        fits=len(records),
        fits_planned=planned * (rounds + 1),
        seeds=max((row.planned for row in rows), default=0),
        rounds=rounds,
        labels=_range([record.labels for record in records]),
        headline=_headline(rows, finished),
        rows=sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else math.inf),
        styles={line.learner: line.style for line in lines},
        forest=_forest(rows),
        lines=lines,
        charts=[_chart(lines, 1000, 460), _chart(lines, 420, 380)] if lines else [],
        hover=_hover(lines),
        steps=_steps(lines),
        diagnoses=_diagnoses(records, study.get("learners")),
        classes=_classes(records, study.get("learners")),
        galleries=_galleries(directory, records, study.get("learners")),
        settings=(directory / "study.toml").read_text(encoding="utf-8"),
        provenance=_provenance(records),
        baselines=BASELINES,
    )


def _headline(rows: Sequence[Row], finished: bool) -> list[str]:
    """Say in plain words who leads, and whether chance could have done it."""
    ranked = sorted((row for row in rows if row.aubc), key=lambda row: -row.aubc[0] if row.aubc else 0.0)
    if not ranked or ranked[0].aubc is None:
        return [
            "No seed has gone through all its rounds yet, so there is nothing to rank. The curves show what is there."
        ]
    best, area = ranked[0], ranked[0].aubc[0]
    opening = "" if finished else "So far, "
    if len(ranked) == 1:
        said = [
            f"{opening}{_short(best.learner)} is the only learner measured: "
            f"{100 * area:.2f} % accuracy, mean over the labels."
        ]
    else:
        second = ranked[1]
        behind = 100 * (area - (second.aubc or (area,))[0])
        said = [
            f"{opening}{_short(best.learner)} leads: {100 * area:.2f} % accuracy, mean over the labels, "
            f"{behind:.2f} points ahead of {_short(second.learner)}."
        ]
    said.append(_against_random(best, any(row.learner in BASELINES for row in ranked)))
    if best.seeds == 1 or best.gain_seeds == 1:
        said.append("With one seed nothing can be said about chance.")
    return [sentence for sentence in said if sentence]


def _against_random(best: Row, measured: bool) -> str:
    if best.learner in BASELINES:
        return "No learner does better than asking at random."
    if not measured:
        return "Random has no complete seed in this run, so nobody knows what asking at random would have reached."
    if best.gain is None:
        return "It shares no complete seed with random, so the two cannot be compared yet."
    gain, low, high = best.gain
    said = f"Against random, seed by seed, that is {_signed(gain)} points"
    if low is None or high is None:
        return f"{said}."
    verdict = "excludes zero" if low > 0 or high < 0 else "includes zero: chance alone could have done it"
    return f"{said}; the 95 % interval, {_signed(low)} to {_signed(high)} over {best.gain_seeds} seeds, {verdict}."


def _chart(lines: Sequence[Line], width: int, height: int) -> dict[str, Any]:
    """Lay the curves out on a width x height sheet; the template turns the numbers into SVG."""
    from matplotlib.ticker import MaxNLocator

    left, right, top, bottom = 46, width - 16, 14, height - 40
    low, high = _span(lines)
    labels = [point.labels for line in lines for point in line.points]
    first, last = min(labels), max(labels)
    wide = (last - first) or 1.0
    first, wide = (first, wide) if last > first else (first - 0.5, wide)

    def x(count: float) -> float:
        return round(left + 8 + (right - left - 16) * (count - first) / wide, 1)

    def y(accuracy: float) -> float:
        return round(bottom - (bottom - top) * (accuracy - low) / (high - low), 1)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x(count)} {y(accuracy)}" for count, accuracy in points)

    series = []
    for line in lines:
        sure = [(p.labels, p.accuracy[1], p.accuracy[2]) for p in line.points]
        band = [(n, down, up) for n, down, up in sure if down is not None and up is not None]
        there = [(n, down) for n, down, _ in band]
        back = [(n, up) for n, _, up in reversed(band)]
        series.append(
            {
                "style": line.style,
                "mean": path([(p.labels, p.accuracy[0]) for p in line.points]),
                "dots": [(x(p.labels), y(p.accuracy[0])) for p in line.points],
                "seeds": [path(seed) for seed in line.seeds] if len(line.seeds) > 1 else [],
                "band": path(there + back) + "Z" if len(band) > 1 else "",
            }
        )
    upright = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(100 * low, 100 * high)
    across = MaxNLocator(nbins=max(3, width // 110), steps=[1, 2, 5, 10], integer=True).tick_values(first, first + wide)
    return {
        **{"width": width, "height": height, "left": left, "right": right, "top": top, "bottom": bottom},
        "yticks": [(y(tick / 100), f"{tick:g}") for tick in upright if low <= tick / 100 <= high],
        "xticks": [(x(tick), f"{tick:g}") for tick in across if first <= tick <= first + wide],
        "series": series,
        "scale": {"first": first, "wide": wide, "left": left + 8, "span": right - left - 16, "width": width},
    }


def _hover(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """What the page's script shows beside the pointer: per line its name and points, worded and in 0..1."""
    return [
        {
            "name": line.learner,
            "points": [[point.labels, _percent(point.accuracy), point.accuracy[0]] for point in line.points],
        }
        for line in lines
    ]


def _forest(rows: Sequence[Row]) -> dict[str, Any]:
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


def _steps(lines: Sequence[Line]) -> dict[str, Any]:
    """Accuracy per round: the rounds with their label counts, and a learner's point (or None) for each."""
    numbers = sorted({point.round for line in lines for point in line.points})
    by_line = [(line.learner, {point.round: point for point in line.points}) for line in lines]
    counts = {n: _range([points[n].labels for _, points in by_line if n in points]) for n in numbers}
    return {
        "heads": [(number, counts[number]) for number in numbers],
        "rows": [(learner, [points.get(number) for number in numbers]) for learner, points in by_line],
    }


def _diagnoses(
    records: Sequence[Record], learners: Sequence[str] | None
) -> list[tuple[str, int, list[tuple[str, Any]]]]:
    """Each learner's own numbers after the last round that has some: mean, least and greatest over its seeds."""
    found = []
    for learner in measures.order(records, learners):
        own = [record for record in records if record.learner == learner and record.diagnosis]
        last = max((record.round for record in own), default=0)
        here = [record.diagnosis for record in own if record.round == last]
        numbers = []
        for name in dict.fromkeys(name for diagnosis in here for name in diagnosis):
            values = [diagnosis[name] for diagnosis in here if name in diagnosis]
            numbers.append((name, (math.fsum(values) / len(values), min(values), max(values), len(values))))
        if numbers:
            found.append((learner, last, numbers))
    return found


def _classes(records: Sequence[Record], learners: Sequence[str] | None) -> list[dict[str, Any]]:
    """How a learner's questions fall on the classes, all seeds and rounds together, the initial set left out."""
    found = []
    for learner in measures.order(records, learners):
        asked = [r.asked_classes for r in records if r.learner == learner and r.round > 0 and r.asked_classes]
        width = max((len(counts) for counts in asked), default=0)
        counts = [sum(some[k] for some in asked if k < len(some)) for k in range(width)]
        if sum(counts):
            found.append({"learner": learner, "counts": counts, "balance": measures.balance(counts), **_shares(counts)})
    return found


def _shares(counts: Sequence[int]) -> dict[str, Any]:
    total, most = sum(counts) or 1, max(counts, default=0) or 1
    return {"shares": [count / total for count in counts], "heat": [round(count / most, 3) for count in counts]}


def _galleries(directory: Path, records: Sequence[Record], learners: Sequence[str] | None) -> list[dict[str, Any]]:
    """What each learner asked, round by round, with its first seed: contact sheets as data URIs, counts per class."""
    found = []
    for learner in measures.order(records, learners):
        own = [record for record in records if record.learner == learner]
        seed = min((record.seed for record in own), default=0)
        rounds = []
        for record in sorted((record for record in own if record.seed == seed), key=lambda record: record.round):
            sheet = _sheet(directory / "asked" / learner / f"seed{seed}-round{record.round}.png")
            counts = list(record.asked_classes or ())
            rounds.append({"record": record, "sheet": sheet, "counts": counts, **_shares(counts)})
        if any(entry["sheet"] or sum(entry["counts"]) for entry in rounds):
            found.append({"learner": learner, "seed": seed, "rounds": rounds})
    return found


def _sheet(path: Path) -> dict[str, Any] | None:
    if not os.path.isfile(path):  # unlike pathlib's, False for a name too long for the file system
        return None
    content = path.read_bytes()
    if len(content) < 24 or not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    width, height = struct.unpack(">II", content[16:24])  # the first chunk of a PNG, IHDR, opens with its size
    return {"uri": "data:image/png;base64," + base64.b64encode(content).decode(), "width": width, "height": height}


def _provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Who made the records, and what they do not agree on."""
    fields = {"sets of versions": "versions", "machines": "machine", "commits": "commit"}
    found = {
        name: Counter(_words(getattr(record, field)) for record in records).most_common()
        for name, field in fields.items()
    }
    return {"fields": found, "mixed": [name for name, values in found.items() if len(values) > 1]}


def _words(value: object) -> str:
    if value is None or value in ("", {}, []):
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{key} {value[key]}" for key in sorted(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# numbers in words


def _asked_for(study: Mapping[str, Any]) -> dict[str, Any]:
    return {key: study.get(key) for key in ("learners", "rounds", "seeds")}


def _percent(interval: Interval | None, sign: bool = False) -> str:
    """An interval around a share as "87.31 ± 1.20", in percent; the mean alone where there is no interval."""
    if interval is None:
        return "–"
    mean, low, high = interval
    shown = _signed(mean) if sign else f"{100 * mean:.2f}"
    return shown if low is None or high is None else f"{shown} ± {50 * (high - low):.2f}"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _bytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:,.0f} MiB"


def _figure(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _range(values: Sequence[float]) -> str:
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _put(path: Path, content: bytes) -> None:
    """Replace a file as a whole: whoever reads it meets the old one or the new one, never half of either."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
