"""The page of a run: one HTML file that works offline, filled into report.html.jinja."""

from __future__ import annotations

import base64
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zoo.studies import measures, reproduce, statistics
from zoo.studies.curves import Line, lines_of, short, span
from zoo.studies.gains import Split, gain_split
from zoo.studies.measures import BASELINES, Record, Row
from zoo.studies.words import bounds, extent, figure, joined, memory, percent, seconds, signed


def page(
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
        "percent": percent,
        "points": lambda interval: percent(interval, sign=True),
        "seconds": seconds,
        "signed": signed,
        "bounds": bounds,
        "bytes": memory,
        "figure": figure,
        "number": lambda value: "" if value is None else f"{value:.6g}",
    }
    asked = measures.asked_for(study)
    complete = sum(row.seeds for row in rows)
    planned = sum(row.planned for row in rows)
    rounds = max((record.round for record in records), default=0) if asked["rounds"] is None else asked["rounds"]
    results = directory / "results.jsonl"
    last = datetime.fromtimestamp(results.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC") if records else None
    finished = bool(rows) and complete >= planned
    shown = [*lines, *reproduce.lines(study, lines)]
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
        labels=extent([record.labels for record in records]),
        headline=_headline(rows, finished),
        rows=sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else math.inf),
        styles={line.learner: line.style for line in lines},
        forest=_forest(rows),
        compared=sorted(statistics.differences(records), key=lambda row: -row.t[0]),
        margin=statistics.MARGIN,
        targets={target.learner: target for target in statistics.targets(records)},
        floor=statistics.floor(records),
        penalties=statistics.penalties(records) if max((row.seeds for row in rows), default=0) > 1 else {},
        overlaps=sorted(statistics.overlap(records).items(), key=lambda pair: -pair[1]),
        lines=lines,
        shown=shown,
        charts=_charts(shown),
        notes=study.get("notes", ()),
        protocol=reproduce.protocols().get(str(study.get("protocol"))),
        beside=reproduce.beside(study, records),
        splits=_splits(records, asked["rounds"]),
        costs=_costs(records, study),
        plots=[_hover(shown), _hover(_timed(records, study))],
        steps=_steps(lines),
        diagnoses=_diagnoses(records, study.get("learners")),
        doubts=measures.doubts(records, study.get("learners")),
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
            f"{opening}{short(best.learner)} is the only learner measured: "
            f"{100 * area:.2f} % accuracy, mean over the labels."
        ]
    else:
        second = ranked[1]
        behind = 100 * (area - (second.aubc or (area,))[0])
        said = [
            f"{opening}{short(best.learner)} leads: {100 * area:.2f} % accuracy, mean over the labels, "
            f"{behind:.2f} points ahead of {short(second.learner)}."
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
    said = f"Against random, seed by seed, that is {signed(gain)} points"
    if low is None or high is None:
        return f"{said}."
    verdict = "excludes zero" if low > 0 or high < 0 else "includes zero: chance alone could have done it"
    return f"{said}; the 95 % interval, {signed(low)} to {signed(high)} over {best.gain_seeds} seeds, {verdict}."


def _splits(records: Sequence[Record], rounds: int | None) -> list[Split]:
    """Where gains come from; nothing where no gain has more than one part."""
    found = gain_split(records, rounds)
    apart = [split for split in found if split.questions not in (None, split.gain) or (split.own and split.elsewhere)]
    return found if apart else []


def _costs(records: Sequence[Record], study: Mapping[str, Any]) -> dict[str, Any]:
    """What accuracy has cost: charts over seconds, and what was spent up to the last round; nothing if unknown."""
    lines = _timed(records, study)
    spent, last = [], {line.learner: line.points[-1] for line in lines}
    for learner, point in last.items():
        here = [record for record in records if record.learner == learner and record.round == point.round]
        answers = math.fsum(record.label_cost for record in here) / len(here)
        spent.append({"learner": learner, "point": point, "labels": answers})
    return {
        "lines": lines,
        "charts": _charts(lines, log=True),
        "spent": spent,
        "unit": str(study.get("cost_unit", "seconds")),
        "answers": any(row["labels"] for row in spent),
    }


def _timed(records: Sequence[Record], study: Mapping[str, Any]) -> list[Line]:
    """The curves over seconds: of fits and selections, and of people's answers where their cost is in seconds."""
    people = study.get("cost_unit", "seconds") == "seconds"
    spent = measures.spent(records)

    def until(record: Record) -> float | None:
        seconds = spent.get((record.learner, record.seed, record.round))
        return None if seconds is None else seconds + people * record.label_cost

    return lines_of(records, study.get("learners"), until)


def _charts(lines: Sequence[Line], log: bool = False) -> list[dict[str, Any]]:
    """One for wide windows, one for narrow ones."""
    return [_chart(lines, width, height, log) for width, height in ((1000, 460), (420, 380))] if lines else []


def _chart(lines: Sequence[Line], width: int, height: int, log: bool) -> dict[str, Any]:
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
        sure = [(p.at, p.accuracy[1], p.accuracy[2]) for p in line.points]
        band = [(n, down, up) for n, down, up in sure if down is not None and up is not None]
        there = [(n, down) for n, down, _ in band]
        back = [(n, up) for n, _, up in reversed(band)]
        series.append(
            {
                "style": line.style,
                "published": line.published,
                "mean": path([(p.at, p.accuracy[0]) for p in line.points]),
                "dots": [(x(p.at), y(p.accuracy[0])) for p in line.points],
                "seeds": [path(seed) for seed in line.seeds] if len(line.seeds) > 1 else [],
                "band": path(there + back) + "Z" if len(band) > 1 else "",
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


def _hover(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """What the page's script shows beside the pointer: per line its name and points, worded and in 0..1."""
    return [
        {
            "name": line.learner,
            "points": [[point.at, percent(point.accuracy), point.accuracy[0]] for point in line.points],
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
    counts = {n: extent([points[n].at for _, points in by_line if n in points]) for n in numbers}
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
        name: Counter(joined(getattr(record, field)) for record in records).most_common()
        for name, field in fields.items()
    }
    return {"fields": found, "mixed": [name for name, values in found.items() if len(values) > 1]}
