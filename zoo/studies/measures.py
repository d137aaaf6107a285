"""Turn the lines of results.jsonl into numbers: curves, areas under them, intervals, differences to random.

Accuracies and areas lie in [0, 1], times are seconds, memory is bytes. Round 0 is the initial set, so a study of
R rounds has R + 1 records per learner and seed. A seed is *complete* when all of them are there: tables compare
complete seeds only, curves show every record.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

BASELINES = ("random", "plain+random")  # the same learner, under its short and its full name

Interval = tuple[float, float | None, float | None]  # mean, low, high; the bounds are None for one seed


@dataclass(frozen=True)
class Record:
    """One learner after one round with one seed: a line of results.jsonl."""

    learner: str
    seed: int
    round: int  # 0: the initial set
    labels: int  # known labels at the time of this fit
    accuracy: float  # on held-out images, 0..1
    asked: tuple[int, ...]  # indices whose labels arrived in this round
    asked_classes: tuple[int, ...] | None  # how many of them each class has
    fit_seconds: float | None
    select_seconds: float | None  # None at round 0, where nobody selects
    peak_bytes: int | None
    steps: int | None
    plan: object
    diagnosis: Mapping[str, float]
    doubts: tuple[str, ...]  # what the diagnosis says against the learner's game
    versions: object
    machine: object
    commit: object
    entry: str | None = None  # None in records of old: its networks
    query: str | None = None  # its questions
    controls: tuple[str, ...] = ()  # its training with random questions, its questions with plain training
    ticks: int | None = None  # steps of the fit, those of all stages together
    scores: tuple[float, ...] | None = None  # of what was asked
    judged: Mapping[str, Any] | None = None  # where the images were made: the ledger of who judged them
    wrong: int = 0  # labels that are not the truth, of all known
    left_out: tuple[int, ...] = ()  # classes that the initial set has none of
    label_cost: float = 0.0  # of all answers so far, in the study's cost_unit
    network: str | None = None  # a name for the weights of the network that answers
    confusion: tuple[tuple[int, ...], ...] | None = None  # of the last round: true classes x guessed ones
    pseudo_labels: Mapping[str, float] | None = None  # where it labels images by itself: their count, and precision


@dataclass(frozen=True)
class Point:
    """Where a learner's seeds stand after one round: mean labels (or seconds), and accuracy 0..1 with its interval."""

    round: int
    at: float
    seeds: int
    accuracy: Interval


@dataclass(frozen=True)
class Row:
    """One learner in the table. Accuracies come from complete seeds; seconds and bytes from every record."""

    learner: str
    seeds: int  # complete ones
    planned: int
    aubc: Interval | None  # None: no seed is complete
    final: Interval | None
    gain: Interval | None  # AUBC minus random's, seed by seed, over the seeds both have complete
    gain_seeds: int
    fit_seconds: float | None  # mean per round
    select_seconds: float | None  # mean per round
    peak_bytes: int | None  # the largest seen
    log_aubc: Interval | None = None  # the same area over the logarithm of the labels


def read(path: Path) -> list[Record]:
    """Read the records of a run, oldest first; of two for the same learner, seed and round the first counts.

    A last line that was cut short (no line end, no JSON: the run died while writing it) is left out.
    Any other broken line raises ValueError with its file and number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Give the folder of a run that has recorded at least one fit.")
    lines = path.read_bytes().split(b"\n")
    records: dict[tuple[str, int, int], Record] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise _broken(path, number, f"is not JSON ({error})") from error
        try:
            record = _record(data)
        except KeyError as error:
            raise _broken(path, number, f"lacks the key {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise _broken(path, number, f"has a value that does not fit ({error})") from error
        records.setdefault((record.learner, record.seed, record.round), record)
    return list(records.values())


def settings(directory: Path) -> dict[str, Any]:
    """Read study.toml: what the run was asked to do (`data`, `learners`, `seeds`, `rounds`, ...)."""
    path = directory / "study.toml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no study.toml, so it is not a run. Give a folder that compare wrote."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not TOML ({error}). Restore it, or run the study again in another folder."
        ) from error


def aubc(labels: Sequence[float], accuracy: Sequence[float]) -> float:
    """Area under the accuracy curve over label counts, divided by the width: a mean accuracy, 0..1.

    Trapezoids over the true counts, so that short batches weigh what they are. Where no label arrived
    (one point, or several at the same count) it is the plain mean of the accuracies.
    """
    if not labels or len(labels) != len(accuracy):
        raise ValueError(
            f"{len(labels)} label counts and {len(accuracy)} accuracies make no curve. Give one of each per round."
        )
    if any(after < before for before, after in pairwise(labels)):
        raise ValueError(f"label counts {list(labels)} go down, and labels are never lost. Give the rounds in order.")
    width = labels[-1] - labels[0]
    if width == 0:
        return math.fsum(accuracy) / len(accuracy)
    steps = zip(pairwise(labels), pairwise(accuracy), strict=True)
    return math.fsum((x1 - x0) * (y0 + y1) / 2 for (x0, x1), (y0, y1) in steps) / width


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and its two-sided Student t interval (standard deviation with ddof=1); no bounds for one value."""
    if not values:
        raise ValueError("no value has no mean. Give at least one.")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is no probability. Give one between 0 and 1, such as 0.95.")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def balance(counts: Sequence[int]) -> float | None:
    """How evenly queries fall on the classes: entropy over its maximum, 1 even, 0 all in one; None if undefined."""
    total = sum(counts)
    if total == 0 or len(counts) < 2:
        return None
    shares = [count / total for count in counts if count]
    return max(0.0, -math.fsum(share * math.log(share) for share in shares) / math.log(len(counts)))


def order(records: Sequence[Record], learners: Sequence[str] | None = None) -> list[str]:
    """Name the learners as the records do, in the order of study.toml; those it does not list come last, by appearance.

    A query alone may be listed by its short name: "margin" finds the records of "plain+margin".
    """
    seen = dict.fromkeys(record.learner for record in records)
    listed = [f"plain+{name}" if name not in seen and f"plain+{name}" in seen else name for name in learners or ()]
    return list(dict.fromkeys([*listed, *seen]))


def complete(records: Sequence[Record], rounds: int | None = None) -> dict[str, dict[int, list[Record]]]:
    """Gather each learner's complete seeds, records in order of round 0..`rounds` (else the last anyone reached)."""
    last = max((record.round for record in records), default=0) if rounds is None else rounds
    runs: dict[str, dict[int, dict[int, Record]]] = {}
    for record in records:
        if record.round <= last:
            runs.setdefault(record.learner, {}).setdefault(record.seed, {})[record.round] = record
    return {
        learner: {
            seed: [run[number] for number in range(last + 1)]
            for seed, run in sorted(by.items())
            if len(run) == last + 1
        }
        for learner, by in runs.items()
    }


def whole(records: Sequence[Record], rounds: int | None = None) -> list[Record]:
    """The records of complete seeds alone."""
    return [record for by in complete(records, rounds).values() for run in by.values() for record in run]


def curve(records: Sequence[Record], at: Sequence[float] | None = None) -> list[Point]:
    """One learner's points, round by round, over whichever seeds have reached that round.

    at: where each record lies, by default at its labels.
    """
    points = []
    places = [record.labels for record in records] if at is None else at
    for number in sorted({record.round for record in records}):
        here = [pair for pair in zip(records, places, strict=True) if pair[0].round == number]
        mean = math.fsum(place for _, place in here) / len(here)
        points.append(Point(number, mean, len(here), mean_interval([record.accuracy for record, _ in here])))
    return points


def spent(records: Sequence[Record]) -> dict[tuple[str, int, int], float]:
    """Seconds of fits and selections from round 0 to each record, by (learner, seed, round).

    A record with a gap before it, or whose seconds or those before it are not known, is left out.
    """
    found: dict[tuple[str, int, int], float] = {}
    for record in sorted(records, key=lambda record: record.round):
        before = found.get((record.learner, record.seed, record.round - 1)) if record.round else 0.0
        asking = record.select_seconds if record.round else 0.0
        if None not in (before, asking, record.fit_seconds):
            total = sum(value for value in (before, asking, record.fit_seconds) if value is not None)
            found[record.learner, record.seed, record.round] = total
    return found


def summary(
    records: Sequence[Record],
    learners: Sequence[str] | None = None,
    rounds: int | None = None,
    seeds: int | None = None,
) -> list[Row]:
    """One row per learner, in the order of study.toml: pass its `learners`, `rounds`, `seeds`, else the records decide.

    Areas, final accuracies and differences come from complete seeds only, so that an unfinished run never compares
    a short curve with a long one; a learner without a complete seed has none of them yet.
    """
    runs = complete(records, rounds)
    planned = len({record.seed for record in records}) if seeds is None else seeds
    areas = {
        learner: {seed: aubc([r.labels for r in run], [r.accuracy for r in run]) for seed, run in by.items()}
        for learner, by in runs.items()
    }
    baseline = next((areas[name] for name in BASELINES if name in areas), {})
    rows = []
    for learner in order(records, learners):
        own = [record for record in records if record.learner == learner]
        area = areas.get(learner, {})
        logs = (
            [
                aubc([math.log2(max(1, r.labels)) for r in run], [r.accuracy for r in run])
                for run in runs[learner].values()
            ]
            if area
            else []
        )
        gains = [] if learner in BASELINES else [area[seed] - baseline[seed] for seed in area if seed in baseline]
        rows.append(
            Row(
                learner=learner,
                seeds=len(area),
                planned=max(planned, len(area)),
                aubc=mean_interval(list(area.values())) if area else None,
                final=mean_interval([run[-1].accuracy for run in runs[learner].values()]) if area else None,
                gain=mean_interval(gains) if gains else None,
                gain_seeds=len(gains),
                fit_seconds=_mean([record.fit_seconds for record in own]),
                select_seconds=_mean([record.select_seconds for record in own]),
                peak_bytes=max((record.peak_bytes for record in own if record.peak_bytes is not None), default=None),
                log_aubc=mean_interval(logs) if logs else None,
            )
        )
    return rows


def _broken(path: Path, number: int, reason: str) -> ValueError:
    return ValueError(f"{path}, line {number} {reason}. Delete that line and run the study again: it fills the gap.")


def _record(data: Any) -> Record:
    if not isinstance(data, dict):
        raise TypeError(f"{data!r} is no object")
    seed, number, labels, accuracy = int(data["seed"]), int(data["round"]), int(data["labels"]), float(data["accuracy"])
    if not (isinstance(data["learner"], str) and data["learner"]):
        raise ValueError(f"learner {data['learner']!r} is no name")
    if number < 0 or labels < 0:
        raise ValueError(f"round {number} and labels {labels} are counts, from 0 up")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy {accuracy} is not in [0, 1]")
    counts = data.get("asked_classes")
    return Record(
        learner=data["learner"],
        seed=seed,
        round=number,
        labels=labels,
        accuracy=accuracy,
        asked=tuple(int(index) for index in data.get("asked") or ()),
        asked_classes=None if counts is None else tuple(int(count) for count in counts),
        fit_seconds=_number(data.get("fit_seconds")),
        select_seconds=_number(data.get("select_seconds")),
        peak_bytes=None if data.get("peak_bytes") is None else int(data["peak_bytes"]),
        steps=None if data.get("steps") is None else int(data["steps"]),
        plan=data.get("plan"),
        diagnosis={str(k): float(v) for k, v in (data.get("diagnosis") or {}).items() if v is not None},
        doubts=tuple(map(str, data.get("doubts") or ())),
        versions=data.get("versions"),
        machine=data.get("machine"),
        commit=data.get("commit"),
        entry=data.get("entry"),
        query=data.get("query"),
        controls=tuple(map(str, data.get("controls") or ())),
        ticks=None if data.get("ticks") is None else int(data["ticks"]),
        scores=None if data.get("scores") is None else tuple(map(float, data["scores"])),
        judged=data.get("judged"),
        wrong=int(data.get("wrong") or 0),
        left_out=tuple(map(int, data.get("left_out") or ())),
        label_cost=float(data.get("label_cost") or 0),
        network=data.get("network"),
        confusion=None if data.get("confusion") is None else tuple(tuple(map(int, row)) for row in data["confusion"]),
        pseudo_labels=data.get("pseudo_labels") and {str(k): float(v) for k, v in data["pseudo_labels"].items()},
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def doubts(records: Sequence[Record], learners: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """What the learners' last diagnoses say against their games: (learner, sentence), each sentence with its seed."""
    found = []
    for learner in order(records, learners):
        last: dict[int, Record] = {}
        for record in records:
            if record.learner == learner and record.round >= last.get(record.seed, record).round:
                last[record.seed] = record
        for record in last.values():
            where = f"seed {record.seed}, round {record.round}"
            found += [(learner, f"{sentence} ({where})") for sentence in record.doubts]
    return found


def asked_for(study: Mapping[str, Any]) -> dict[str, Any]:
    """What `summary` takes of a study.toml. Raises ValueError for a value of another kind."""
    for key in ("rounds", "seeds"):
        if not isinstance(study.get(key, 0), int):
            raise ValueError(f"{key} = {study[key]!r} in study.toml must be a whole number. Mend it there")
    return {key: study.get(key) for key in ("learners", "rounds", "seeds")}
