"""Published protocols as studies, and the published numbers beside ours."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from trainers import folder
from zoo import datasets
from zoo.naming import UnknownName, pick
from zoo.studies import measures
from zoo.studies.curves import Line
from zoo.studies.measures import Interval, Point, Record
from zoo.studies.study import Study, hushed

How = Literal["exact", "figure", "third party"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published curve, and how its numbers were read.

    learner: the one of ours that it stands beside, if any. name: what it is called there. accuracy: 0..1, at so many
    labels. within: how far numbers that were read off a figure may be off.
    """

    name: str
    labels: tuple[int, ...]
    accuracy: tuple[float, ...]
    how: How
    source: str
    within: float | None = None
    learner: str | None = None

    def __post_init__(self) -> None:
        wrong = [
            (self.how not in get_args(How), f"how={self.how!r} must be one of {', '.join(get_args(How))}"),
            (not self.source, "no source"),
            (not self.labels or len(self.labels) != len(self.accuracy), "a number of labels for each accuracy is due"),
            (list(self.labels) != sorted(set(self.labels)), "labels must grow"),
            (not all(0 <= value <= 1 for value in self.accuracy), "accuracies lie in [0, 1]"),
            (self.how == "figure" and not self.within, "a figure is read within something"),
        ]
        for fails, why in wrong:
            if fails:
                raise ValueError(f"the published numbers of {self.name!r}: {why}")

    @property
    def read(self) -> str:
        """How the numbers were read, in words."""
        return self.how if self.within is None else f"{self.how} ± {100 * self.within:g} points"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A published protocol: the study that follows it, where its settings come from, and what was published."""

    name: str
    what: str
    paper: str
    settings: str
    study: Study
    published: tuple[Published, ...]


@dataclass(frozen=True)
class Beside:
    """A published curve beside ours: at each of its label counts, its accuracy and ours, where we have been there."""

    published: Published
    numbers: tuple[tuple[int, float, Interval | None], ...]


@cache
def protocols() -> Mapping[str, Protocol]:
    """Every protocol of published.toml, by name."""
    tables = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
    return {name: protocol(name, table) for name, table in tables.items()}


def protocol(name: str, table: Mapping[str, Any]) -> Protocol:
    """A protocol out of its table. Raises TypeError and ValueError for what is missing or makes no sense."""
    published = tuple(Published(**_hard(each)) for each in table.get("published", ()))
    study = Study(**_hard(table["study"]), settings=table.get("learner", {}), protocol=name)
    for each in published:
        if each.learner is not None and each.learner not in study.learners:
            raise ValueError(f"{name}: {each.name!r} stands beside {each.learner!r}, which is not among the learners")
    about = {key: table[key] for key in ("what", "paper", "settings")}
    return Protocol(name=name, study=study, published=published, **about)


def _hard(table: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of a TOML table as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def study(
    name: str,
    *,
    data: str | None = None,
    root: str | None = None,
    scale: float = 1.0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **others: Any,
) -> Study:
    """The study of a protocol; whatever is not as published is among its notes.

    data: what stands in for the protocol's data, as "folder:PATH". root: where its data are, by their own name.
    scale: makes steps, labels and seeds that many times as many, in (0, 1]. settings: of single learners, replaced.
    others: fields of a study, replaced where they are not None: seeds, size, device, ...
    Raises UnknownName for the protocol; ValueError for a scale that is none, and for data that nobody can fetch.
    """
    whole = pick(protocols(), name, "protocol").study
    if not 0 < scale <= 1:
        raise ValueError(f"scale={scale} must be above 0, and at most 1, which is all of it")
    changed = {key: value for key, value in others.items() if value is not None}
    follows = replace(whole, **changed)
    machine = ("device", "devices", "precision", "threads")
    notes = [f"{key} = {value}, not {getattr(whole, key)}" for key, value in changed.items() if key not in machine]
    if data is not None and data != whole.data:
        own = data.startswith(datasets.FOLDER) and not halved(data)
        share = (follows.test_share or 0.2) if own else None
        follows = replace(follows, data=data, test_share=share)
        notes.append(f"{data} stands in for {whole.data}")
    elif whole.data not in datasets.names():
        raise ValueError(f"{whole.data} cannot be fetched. Give a folder of its images: --data folder:PATH")
    follows = replace(follows, root=root)
    for learner, table in (settings or {}).items():
        follows = replace(
            follows, settings={**follows.settings, learner: {**follows.settings.get(learner, {}), **table}}
        )
        notes += [f"{learner}.{key} = {value}" for key, value in table.items()]
    if scale < 1:
        follows = shortened(follows, scale)
        notes.append(f"shortened: scale {scale:g} of its steps, labels and seeds")
    return replace(follows, notes=tuple(f"Not as published: {note}." for note in notes))


def halved(data: str) -> bool:
    """Whether a folder of images has halves of its own, one to learn from and one to test on."""
    path = folder.checked(data.removeprefix(datasets.FOLDER))
    return any((path / half).is_dir() for half in ("train", "test"))


def shortened(study: Study, scale: float) -> Study:
    """The study with fewer labels, seeds, and steps of each stage; its rounds remain."""
    assert study.initial is not None
    assert study.budget is not None
    with hushed():
        pool, _ = replace(study, initial=0).pool(0)
    settings = {}
    for name in study.learners:
        have = study.learner(name, 0, pool).settings
        steps = {key: value for key, value in have.items() if key.endswith("steps") and isinstance(value, int)}
        fewer = {key: min(value, max(3, round(scale * value))) for key, value in steps.items()}
        settings[name] = {**study.settings.get(name, {}), **fewer}
    least = min(study.initial, pool.classes if study.balanced else 2)
    return replace(
        study,
        initial=max(least, round(scale * study.initial)),
        budget=max(1, round(scale * study.budget)),
        seeds=max(1, round(scale * study.seeds)),
        settings=settings,
    )


def published(study: Mapping[str, Any]) -> tuple[Published, ...]:
    """What was published of the protocol that a study.toml follows; nothing for one that follows none we know."""
    try:
        return pick(protocols(), str(study.get("protocol")), "protocol").published
    except UnknownName:
        return ()


def beside(study: Mapping[str, Any], records: Sequence[Record]) -> list[Beside]:
    """The published numbers, each with ours at as many labels: means over the seeds that got there."""
    found = []
    for each in published(study):
        own = [record for record in records if record.learner == each.learner]
        ours = {point.at: point.accuracy for point in measures.curve(own)}
        pairs = zip(each.labels, each.accuracy, strict=True)
        found.append(Beside(each, tuple((labels, value, ours.get(float(labels))) for labels, value in pairs)))
    return found


def lines(study: Mapping[str, Any], ours: Sequence[Line]) -> list[Line]:
    """The published curves, each in the style of the learner it stands beside; none where we have no curve yet."""
    styles = {line.learner: line.style for line in ours}
    drawn = []
    for each in published(study) if ours else ():
        off = each.within
        points = [
            Point(0, at, 1, (value, None if off is None else value - off, None if off is None else value + off))
            for at, value in zip(each.labels, each.accuracy, strict=True)
        ]
        style = styles.get(each.learner or "", -1)
        drawn.append(Line(f"published: {each.name} ({each.read})", points, [], style, published=True))
    return drawn
