"""What the reference study and the games have shown, as the README has it: tables, a figure, and nothing else.

`readme_tables.py` writes them, from scripts/results/reference/PART/results.jsonl and scripts/results/games.jsonl.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from reference_study import PARTS

import zoo
from zoo.studies import gains, measures, reproduce, statistics
from zoo.studies.curves import lines_of, panels
from zoo.studies.measures import Interval
from zoo.studies.words import percent, seconds

BASES = ("random", "margin")
STUDY = (
    *("learner", "AUBC, %", *(f"to {base}" for base in BASES), "by training", "by questions"),
    *("classes", "fit, s", "select, s", "verdict"),
)
GAME = ("entry", "what", "digits", "mnist", "cifar10")
DATA = GAME[2:]
PUBLISHED = ("run", "published curve", "ours", "labels", "published, %", "ours, %", "read")
SHOWN = (*BASES, "badge", "vaal", "ta_vaal", "aral", "waal", "gaal", "bgadl", "ceal", "ssal")  # in the figure


def parts(results: Path) -> list[Path]:
    """The folders of the parts of the reference study of which two seeds have been run: one has no interval."""
    there = [results / "reference" / name for name in PARTS]
    kept = [directory for directory in there if (directory / "results.jsonl").exists()]
    return [directory for directory in kept if len({record.seed for record in read(directory)}) > 1]


@cache
def read(directory: Path) -> list[measures.Record]:
    """The records of a part, of the seeds that all its learners have done."""
    records = measures.read(directory / "results.jsonl")
    runs = measures.complete(records)
    done = [{*runs.get(learner, ())} for learner in measures.settings(directory)["learners"]]
    return [record for record in records if all(record.seed in seeds for seeds in done)]


def study(directory: Path) -> list[list[str]]:
    """One row for each learner that is not there as a control, best AUBC first. Differences are in points."""
    records = read(directory)
    splits = {split.learner: split for split in gains.gain_split(records) if split.own}
    against = {base: {row.learner: row for row in statistics.differences(records, base)} for base in BASES}
    beside = gains.controls(records)

    def gained(base: str, learner: str) -> Interval | None:
        row = against[base].get(learner)
        return row.t if row else None

    rows = [row for row in measures.summary(records) if row.aubc and row.learner not in beside]
    return [
        [
            row.learner,
            percent(row.aubc),
            *(percent(gained(base, row.learner), sign=True) for base in against),
            *(percent(getattr(splits.get(row.learner), what, None), sign=True) for what in ("training", "questions")),
            asked_of(records, row.learner),
            seconds(row.fit_seconds),
            seconds(row.select_seconds),
            ", ".join(said(against[base].get(row.learner), base) for base in against if base != row.learner),
        ]
        for row in sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else 0.0)
    ]


def asked_of(records: Sequence[measures.Record], learner: str) -> str:
    """Of how many classes a batch of questions is: the exponential of the entropy of their counts, geometric mean."""
    batches = [r.asked_classes for r in records if r.learner == learner and r.round and r.asked_classes]
    even = [share for counts in batches if (share := measures.balance(counts)) is not None]
    return f"{len(batches[0]) ** fmean(even):.1f}" if even else "–"


def said(found: statistics.Difference | None, base: str) -> str:
    """A verdict in words."""
    if found is None:
        return f"not compared with {base}"
    words = {"better": "better than", "worse": "worse than", "equal": "equal to", "undecided": "undecided against"}
    return f"{words[found.verdict]} {base}"


def about(directory: Path) -> str:
    """What a part is, what it was measured on, and how a row is run again."""
    records = read(directory)
    given = measures.settings(directory)
    first = json.loads((directory / "results.jsonl").read_text().partition("\n")[0])
    pool = f", a pool of {given['subset']:,}" if given.get("subset") else ""
    if given.get("imbalance"):
        pool += f" before it is thinned out, {given['imbalance']}"
    counts = sorted({record.labels for record in records})
    seeds = len({record.seed for record in records})
    options = {
        name: given[name] for name in ("initial", "budget", "rounds", "seeds", "subset", "imbalance") if given.get(name)
    }
    again = " ".join(f"--{name} {value}" for name, value in options.items())
    old = "; ".join(f"{learner} ({', '.join(names)})" for learner, names in moved(directory).items())
    since = f" Run before these settings got today's defaults: {old}." if old else ""
    return (
        f"{directory.name}: {counts[0]} to {counts[-1]} labels in {len(counts) - 1} rounds, {seeds} seeds{pool}; "
        f"{first['machine']}, torch {first['versions']['torch']}, commit {str(first['commit'])[:7]}. Again: "
        f"`alzoo compare {given['data']} --learners NAME,random {again}`{since}"
    )


def moved(directory: Path) -> dict[str, list[str]]:
    """Learners of a part that were run with other settings than are now the default, and which these are."""
    found = {}
    for name, given in measures.settings(directory).get("learner", {}).items():
        now = {**zoo.create(name, device="cpu").settings, "steps": given.get("steps")}  # steps: the data's
        if others := sorted(key for key, value in given.items() if key in now and now[key] != value):
            found[name] = others
    return found


def figure(directories: Sequence[Path]) -> bytes:
    """Learning curves of the entries, random, margin and badge, a panel for each part, as SVG."""
    plots = {}
    for directory in directories:
        records = [record for record in read(directory) if record.learner in SHOWN]
        lines = sorted(lines_of(records, SHOWN), key=lambda line: SHOWN.index(line.learner))
        plots[f"{directory.name}: mean of seeds, 95 % interval"] = lines
    return panels(plots, (5, 4), "svg")


def overview(directories: Sequence[Path]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of all parts together: what each learner gains on random, best mean first, and the verdict."""
    gained: dict[str, dict[str, statistics.Difference]] = defaultdict(dict)
    for directory in directories:
        records = read(directory)
        beside = gains.controls(records)
        for row in statistics.differences(records, "random"):
            if row.learner not in beside:
                gained[row.learner][directory.name] = row

    def mean(learner: str) -> float:
        return fmean(row.t[0] for row in gained[learner].values())

    def told(row: statistics.Difference | None) -> str:
        return "–" if row is None else f"{percent(row.t, sign=True)}, {row.verdict}"

    names = [directory.name for directory in directories]
    rows = [[who, *(told(gained[who].get(name)) for name in names)] for who in sorted(gained, key=mean, reverse=True)]
    return ["to random, points of AUBC", *names], rows


def reproduced(results: Path) -> list[tuple[list[list[str]], str]]:
    """Of every run of a published protocol: its published curves beside ours, and what is not as published.

    A curve is a row: at the fewest labels that both have been at, and at the most.
    """
    found = []
    for directory in sorted(path.parent for path in (results / "published").glob("*/results.jsonl")):
        given, records = measures.settings(directory), measures.read(directory / "results.jsonl")
        name = f"[{directory.name}](scripts/results/published/{directory.name}/table.md)"
        rows = []
        for beside in reproduce.beside(given, records):
            both = [(at, theirs, ours) for at, theirs, ours in beside.numbers if ours is not None]
            if both:
                ends = both[:1] if len(both) == 1 else (both[0], both[-1])
                labels, theirs, ours = zip(*ends, strict=True)
                who = (name, beside.published.name, str(beside.published.learner))
                cells = (map("{:,}".format, labels), (f"{100 * value:.1f}" for value in theirs), map(percent, ours))
                rows += [[*who, *(", ".join(each) for each in cells), beside.published.read]]
        seeds = len({record.seed for record in records})
        notes = [note.removeprefix("Not as published: ").rstrip(".") for note in given.get("notes", ())]
        found += [(rows, f"{directory.name}, {seeds} seeds: {'; '.join(shared(notes, given['learners']))}.")]
    return found


def shared(notes: Sequence[str], learners: Sequence[str]) -> list[str]:
    """Notes, those that are the same for every learner said once: `*.steps = 9`."""

    def brief(note: str) -> str:
        who, _, what = note.partition(".")
        same = who in learners and all(f"{learner}.{what}" in notes for learner in learners)
        return f"*.{what}" if same else note

    return list(dict.fromkeys(map(brief, notes)))


@dataclass(frozen=True)
class Row:
    """A number of the games: of which entry and form, and whether classes had no label."""

    entry: str
    what: str
    number: str
    form: str = "ours"
    missing: bool = False
    of: str | None = None  # the number it is a count out of
    share: bool = False  # in percent


def critic(entry: str, form: str = "ours", named: str = "") -> Row:
    return Row(entry, f"novelty, AUC{named}", "novelty", form, missing=True)


def latent(entry: str, form: str = "ours", named: str = "") -> Row:
    return Row(entry, f"active latent units{named}", "active_units", form, missing=True, of="latent_units")


def accuracy(entry: str, form: str, what: str) -> Row:
    return Row(entry, what, "accuracy", form, share=True)


GAMES = (
    *(
        number(entry, *form)
        for entry in ("vaal", "ta_vaal")
        for form in ((), ("released scale", ", released scale"))
        for number in (critic, latent)
    ),
    Row("ta_vaal", "rank correlation with entropy, held out", "rank_correlation"),
    Row("llal", "rank correlation with entropy, held out", "rank_correlation"),
    critic("aral"),
    latent("aral"),
    accuracy("aral", "ours", "accuracy, random labels"),
    critic("waal"),
    Row("waal", "slope of the critic; 1 is due", "slope", missing=True),
    Row("waal", "distance of unlabeled to labeled", "distance", missing=True),
    Row("gaal", "\\|f\\| left by the search, of that before", "boundary"),
    Row("gaal", "random made images rejected at .9", "rejected", share=True),
    Row("gaal", "held-out images rejected at .9", "rejected_real", share=True),
    Row("gaal", "margin of what is asked, of any; 1 is random", "matched"),
    Row("gaal", "nearest real image is of the same class", "agreement", share=True),
    Row("bgadl", "companions nearest to their own image", "retrieval", share=True),
    Row("bgadl", "made images of their class, to a judge", "judged", share=True),
    accuracy("bgadl", "ours", "accuracy"),
    accuracy("bgadl", "without made images", "accuracy without made images"),
    Row("ceal", "right pseudo-labels", "precision", share=True),
    Row("ceal", "unlabeled images with a pseudo-label", "share", share=True),
    Row("ssal", "right spread labels", "precision", share=True),
    accuracy("ssal", "ours", "accuracy"),
    accuracy("ssal", "labels alone", "accuracy, labels alone"),
    accuracy("ssal", "pretext and labels", "accuracy, pretext and labels"),
    accuracy("ssal", "with pretext", "accuracy, pretext and spread labels"),
    accuracy("ssal", "with pretext, as published", "accuracy, both, spread labels counted as published"),
    accuracy("plain", "ours", "accuracy, random labels"),
    accuracy("plain", "dropout as bgadl's", "accuracy, random labels, dropout of bgadl"),
)


def games(lines: Sequence[Mapping[str, Any]], rows: Sequence[Row] = GAMES) -> list[list[str]]:
    """One row for each number: the mean over seeds, and from where to where they go."""
    return [[row.entry, row.what, *(cell(row, name, lines) for name in DATA)] for row in rows]


def cell(row: Row, name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """One number on one data set in words; a dash where it was not played."""
    which = {"data": name, "entry": row.entry, "form": row.form, "missing": row.missing}
    of = [line["numbers"] for line in lines if all(line[key] == value for key, value in which.items())]
    found = [numbers for numbers in of if row.number in numbers]  # no pseudo-label, no precision
    if not found:
        return "–"
    shown: Callable[[float], str] = (lambda v: f"{100 * v:.1f} %") if row.share else (lambda v: f"{v:.3g}")
    values = [numbers[row.number] for numbers in found]
    ends = f" ({shown(min(values))} to {shown(max(values))})" if len(values) > 1 else ""
    out_of = f" of {found[0][row.of]:g}" if row.of else ""
    return f"{shown(fmean(values))}{out_of}{ends}"


def read_games(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
