"""The page of a run: one HTML file that works offline, filled into templates/report.html.jinja."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.studies import critical, measures, pictures, reproduce, statistics
from zoo.studies.curves import Line, lines_of, short
from zoo.studies.drawings import bars, charts, course, forest, hover
from zoo.studies.gains import Split, gain_split
from zoo.studies.glossary import meanings
from zoo.studies.measures import BASELINES, Record, Row
from zoo.studies.words import bounds, extent, figure, joined, memory, percent, seconds, share, signed

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    """The templates, with the filters that write numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "percent": percent,
        "points": lambda interval: percent(interval, sign=True),
        "seconds": seconds,
        "signed": signed,
        "bounds": bounds,
        "bytes": memory,
        "figure": figure,
        "share": share,
        "number": lambda value: "" if value is None else f"{value:.6g}",
    }
    return made


def page(
    directory: Path, study: Mapping[str, Any], records: Sequence[Record], rows: Sequence[Row], lines: Sequence[Line]
) -> str:
    """The text of a run's report.html. rows: of `measures.summary`. lines: the run's curves."""
    asked = measures.asked_for(study)
    complete = sum(row.seeds for row in rows)
    planned = sum(row.planned for row in rows)
    rounds = max((record.round for record in records), default=0) if asked["rounds"] is None else asked["rounds"]
    results = directory / "results.jsonl"
    last = datetime.fromtimestamp(results.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC") if records else None
    finished = bool(rows) and complete >= planned
    shown = [*lines, *reproduce.lines(study, lines)]
    ranked = sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else math.inf)
    names = [row.learner for row in ranked]
    classes = pictures.class_names(directory, records)
    splits = _splits(records, asked["rounds"])
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
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
            rows=ranked,
            styles={line.learner: line.style for line in lines},
            forest=forest(rows),
            margin=statistics.MARGIN,
            lines=lines,
            shown=shown,
            charts=charts(shown),
            notes=study.get("notes", ()),
            protocol=reproduce.protocols().get(str(study.get("protocol"))),
            beside=reproduce.beside(study, records),
            splits=splits,
            bars=bars(splits),
            costs=_costs(records, study),
            plots=[hover(shown), hover(_timed(records, study))],
            steps=_steps(lines),
            beliefs=_beliefs(records, names),
            diagnoses=_diagnoses(records, names),
            doubts=measures.doubts(records, names),
            class_names=classes,
            classes=_classes(records, names),
            galleries=pictures.galleries(directory, records, names),
            maps=pictures.seen(directory, names),
            confusions=pictures.confusions(records, names, classes),
            settings=(directory / "study.toml").read_text(encoding="utf-8"),
            provenance=_provenance(records),
            baselines=BASELINES,
            **_comparisons(measures.whole(records, asked["rounds"]), names),
        )
    )


def _comparisons(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    """What is said of learners side by side, over the records of complete seeds; learners in the order of `names`."""
    several = any(len(by) > 1 for by in measures.complete(records).values())
    ranking = statistics.ranking([records])
    penalties = statistics.penalties(records) if several else {}
    overlaps = statistics.overlap(records)
    alike = {a: {b: overlaps.get((a, b), overlaps.get((b, a))) for b in names} for a in names}
    return {
        "compared": sorted(statistics.differences(records), key=lambda row: -row.t[0]),
        "signed_ranks": {row.learner: row for row in statistics.signed_ranks([records])},
        "targets": sorted(statistics.targets(records), key=lambda row: (row.labels is None, row.labels)),
        "floor": statistics.floor(records),
        "alike": _alike(records),
        "ranking": ranking,
        "ranks": [critical.layout(ranking, width) for width in (1000, 420)] if ranking else [],
        "penalties": {a: {b: penalties[a][b] for b in names if b in penalties} for a in names if a in penalties},
        "burdens": {b: math.fsum(row[b] for row in penalties.values()) / len(penalties) for b in penalties},
        "overlaps": {a: row for a, row in alike.items() if any(share is not None for share in row.values())},
    }


def _alike(records: Sequence[Record]) -> int:
    """How many learners have random's very network at round 0, with every seed they share with it; random included."""
    first = {(r.learner, r.seed): r.network for r in records if r.round == 0 and r.network}
    base = next((name for name in BASELINES if any(name == learner for learner, _ in first)), None)
    own: dict[str, list[bool]] = {}
    for (learner, seed), network in first.items():
        if (base, seed) in first:
            own.setdefault(learner, []).append(network == first[str(base), seed])
    return sum(map(all, own.values()))


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
        "charts": charts(lines, log=True),
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


def _steps(lines: Sequence[Line]) -> dict[str, Any]:
    """Accuracy per round: the rounds with their label counts, and a learner's point (or None) for each."""
    numbers = sorted({point.round for line in lines for point in line.points})
    by_line = [(line.learner, {point.round: point for point in line.points}) for line in lines]
    counts = {n: extent([points[n].at for _, points in by_line if n in points]) for n in numbers}
    return {
        "heads": [(number, counts[number]) for number in numbers],
        "rows": [(learner, [points.get(number) for number in numbers]) for learner, points in by_line],
    }


def _diagnoses(records: Sequence[Record], learners: Sequence[str]) -> list[dict[str, Any]]:
    """Each learner's own numbers about its game: after the last round that has some, and how they got there."""
    found = []
    for learner in measures.order(records, learners):
        own = [record for record in records if record.learner == learner and record.diagnosis]
        means = meanings(own[-1].entry or "") if own else {}
        for name in dict.fromkeys(name for record in own for name in record.diagnosis):
            told = [(record.round, record.diagnosis[name]) for record in own if name in record.diagnosis]
            by_round = [[value for at, value in told if at == number] for number in sorted({at for at, _ in told})]
            rounds = [math.fsum(values) / len(values) for values in by_round]
            found.append(
                {
                    **{"learner": learner, "name": name, "meaning": means.get(name, "")},
                    **{"mean": rounds[-1], "low": min(by_round[-1]), "high": max(by_round[-1])},
                    **{"seeds": len(by_round[-1]), "last": max(at for at, _ in told)},
                    **{"rounds": rounds, "course": course(rounds)},
                }
            )
    return found


def _beliefs(records: Sequence[Record], learners: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """How right learners are where they label by themselves: for each round the precision, and the mean count."""
    rounds = sorted({record.round for record in records})
    found = []
    for learner in learners:
        row: list[Any] = []
        for number in rounds:
            here = [r.pseudo_labels for r in records if (r.learner, r.round) == (learner, number) and r.pseudo_labels]
            mean = measures.mean_interval([told["precision"] for told in here]) if here else None
            row.append((mean, math.fsum(told["count"] for told in here) / len(here) if here else 0))
        if any(mean for mean, _ in row):
            found.append((learner, row))
    return found


def _classes(records: Sequence[Record], learners: Sequence[str]) -> list[dict[str, Any]]:
    """How a learner's questions fall on the classes, all seeds and rounds together, the initial set left out."""
    found = []
    for learner in measures.order(records, learners):
        asked = [r.asked_classes for r in records if r.learner == learner and r.round > 0 and r.asked_classes]
        width = max((len(counts) for counts in asked), default=0)
        counts = [sum(some[k] for some in asked if k < len(some)) for k in range(width)]
        if total := sum(counts):
            most = sorted(range(width), key=lambda k: -counts[k])[:3]
            told = {"balance": measures.balance(counts), "most": [(k, counts[k] / total) for k in most]}
            found.append({"learner": learner, "counts": counts, **told, **pictures.shares(counts)})
    return found


def _provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Who made the records, and what they do not agree on."""
    fields = {"sets of versions": "versions", "machines": "machine", "commits": "commit"}
    found = {
        name: Counter(joined(getattr(record, field)) for record in records).most_common()
        for name, field in fields.items()
    }
    return {"fields": found, "mixed": [name for name, values in found.items() if len(values) > 1]}
