"""A study: data x learners x seeds x rounds, written down record by record so that it can be killed and go on."""

from __future__ import annotations

import logging
import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tomli_w

from trainers.pool import Pool
from trainers.seeds import Seeds
from zoo import datasets
from zoo.catalogue import create
from zoo.learner import Learner
from zoo.naming import pick
from zoo.register import find
from zoo.studies.controls import controls, equal_steps, shuffles
from zoo.studies.oracles import noisy

Line = dict[str, Any]  # of results.jsonl
OWN = tuple(f.name for f in fields(Seeds))  # what a learner draws: networks, batches, queries
JUDGES = ("classifier", "nearest")
USES = ("initial", "oracle", *OWN)  # what a seed is for


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything needed to run it again. None means: decided by the data when it is first run.

    data: a name of `zoo.data`. learners: names of `zoo.create`, "vaal+margin" for an entry with a query.
    initial: labels at the start. budget: labels asked in a round. grow: each round asks for that many times the last.
    rounds: how often. seeds: how many runs of each. fixed: what all runs draw alike, of USES; it keeps the seed 0.
    balanced, root, size, test_share, split, validation, subset, imbalance, leave_out, classes: those of `zoo.data`,
    which draws by "initial".
    noise: the share of wrong answers, in the initial set too; groups: names of classes that are taken for one
    another, by default each for every other. label_cost: of one answer, in cost_unit.
    warm: each round starts from the networks of the last one, not from fresh ones. epochs: how often each labeled
    image is seen; the steps of a round follow from it and the labels there are.
    judge: who labels made images: a "classifier" that is trained on all labels of the pool, or the "nearest" real
    image. confidence: the classifier rejects what it gives less to; another image is shown in its place.
    diagnose: learners whose game is looked at, after the last round. None: that of all, after each.
    protocol: the name of the published one that this follows. notes: in what it does not, said on all that is written.
    controls: learners are joined by those of `zoo.studies.controls`. shuffle: and by themselves with shuffled scores.
    devices: that train each fit together, None for one. threads: of each process; part of the study, since the order of
    sums is. settings: of single learners, by name.
    """

    data: str
    learners: tuple[str, ...]
    initial: int | None = None
    budget: int | None = None
    grow: float = 1.0
    rounds: int = 5
    seeds: int = 1
    fixed: tuple[str, ...] = ()
    balanced: bool = False
    leave_out: int | tuple[str, ...] = 0
    classes: tuple[str, ...] = ()
    imbalance: str | None = None
    noise: float = 0.0
    groups: tuple[tuple[str, ...], ...] = ()
    label_cost: float = 0.0
    cost_unit: str = "seconds"
    warm: bool = False
    epochs: float | None = None
    judge: str | None = None
    confidence: float = 0.9
    diagnose: tuple[str, ...] | None = None
    protocol: str | None = None
    notes: tuple[str, ...] = ()
    controls: bool = False
    shuffle: bool = False
    plan: str = "ours"
    root: str | None = None
    size: int | None = None
    test_share: float | None = None
    split: int = 0
    validation: float | None = None
    subset: int | None = None
    device: str = "auto"
    precision: str = "32-true"
    devices: int | None = None
    threads: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        left = {*USES} - {*self.fixed} - (set() if self.noise else {"oracle"})
        senseless = [
            (self.rounds < 0, f"rounds={self.rounds} is too few; give 0 or more"),
            (self.seeds < 1, f"seeds={self.seeds} is too few; give 1 or more"),
            (self.budget is not None and self.budget < 1, f"budget={self.budget}: ask for at least 1 label a round"),
            (not 1 <= self.grow < math.inf, f"grow={self.grow} must be finite, and 1 (rounds ask for as many) or more"),
            (not 0 <= self.noise < 1, f"noise={self.noise} is no share of wrong answers; give 0 or more, below 1"),
            (self.groups and not self.noise, "groups say which classes a wrong answer mixes up; give noise, its share"),
            (not 0 <= self.label_cost < math.inf, f"label_cost={self.label_cost} must be finite, and 0 or more"),
            (not 0 < self.confidence <= 1, f"confidence={self.confidence} must be above 0, and at most 1"),
            (self.devices is not None and self.devices < 1, f"devices={self.devices} must be at least 1"),
            (self.epochs is not None and not 0 < self.epochs < math.inf, f"epochs={self.epochs} must be above 0"),
            (self.seeds > 1 and not left, f"fixed={self.fixed} leaves nothing that differs between seeds; fix less"),
            (not self.learners, "no learner is named; `alzoo list` shows them"),
        ]
        for fails, why in senseless:
            if fails:
                raise ValueError(why)
        if self.judge is not None:
            pick(dict.fromkeys(JUDGES), self.judge, "judge")
        for use in self.fixed:
            pick(dict.fromkeys(USES), use, "use of a seed")
        if twice := {name for name in self.learners if self.learners.count(name) > 1}:
            raise ValueError(f"learner {min(twice)!r} is named twice")
        for name, table in self.settings.items():
            if common := table.keys() & {"name", "seed", "device", "devices", "precision"}:
                raise ValueError(f"{name}.{min(common)} cannot be set for one learner: all share it in a study")
            if self.epochs is not None and "steps" in table:
                raise ValueError(f"{name}.steps is set, but epochs={self.epochs} says how many; give one of them")
        if strange := {*(self.diagnose or ())} - {*self.learners}:
            raise ValueError(f"diagnose={self.diagnose}, but {min(strange)!r} is not among the learners")
        if strange := self.settings.keys() - set(self.learners):
            raise ValueError(
                f"settings for {min(strange)!r}, which is not among the learners {', '.join(self.learners)}"
            )

    @classmethod
    def read(cls, path: Path) -> Study:
        """The study written in a study.toml."""
        table = tomllib.loads(path.read_text())
        settings = table.pop("learner", {})
        if strange := table.keys() - {f.name for f in fields(cls)}:
            raise ValueError(f"{path}: a study has no field {min(strange)!r}")
        return cls(**{name: _hard(value) for name, value in table.items()}, settings=settings)

    def toml(self) -> str:
        """The text of a study.toml."""
        table = {name: value for name, value in asdict(self).items() if value is not None and name != "settings"}
        return tomli_w.dumps({**table, "learner": dict(self.settings)} if self.settings else table)

    def folder(self) -> Path:
        """Where it goes by default: the same study, the same folder."""
        text = self.data.removeprefix("folder:")
        parts = [part for part in Path(text).parts if part not in ("/", ".", "..")] or [Path(text).resolve().name]
        name = "-".join(parts)
        same = replace(self, threads=None).toml()  # on a machine with other cores, too
        return Path("alzoo-runs") / f"{name}-{blake2b(same.encode(), digest_size=4).hexdigest()}"

    def budgets(self) -> list[int]:
        """How many labels are asked in each round."""
        assert self.budget is not None
        size, sizes = float(self.budget), []
        for _ in range(self.rounds):
            sizes.append(round(size))
            size = min(size * self.grow, 1e15)
        return sizes

    def seed(self, use: str, seed: int) -> int:
        """The seed for a use of USES in the run `seed`."""
        return 0 if use in self.fixed else seed

    def pool(self, seed: int) -> tuple[Pool, datasets.Test]:
        """The pool with its initial set, the same for all learners, and the held-out images."""
        pool, test = datasets.data(
            self.data,
            initial=self.initial or 0,
            seed=self.seed("initial", seed),
            balanced=self.balanced,
            root=self.root,
            size=self.size,
            test_share=self.test_share,
            split=self.split,
            validation=self.validation,
            subset=self.subset,
            imbalance=self.imbalance,
            leave_out=self.leave_out,
            classes=self.classes,
        )
        return noisy(pool, self.noise, self.groups, self.seed("oracle", seed)) if self.noise else pool, test

    def learner(self, name: str, seed: int, pool: Pool) -> Learner:
        """A learner as this study wants it; what depends on the data comes from the data, in the plan "ours"."""
        plan = {"plan": "ours" if self.plainly([name]) else self.plan, **self.settings.get(name, {})}
        ours = {"augment": augmentation(self.data, pool), "steps": steps(pool)} if plan["plan"] == "ours" else {}
        seeds = {use: self.seed(use, seed) for use in OWN}
        drawn = seeds if len({*seeds.values()}) > 1 else min(seeds.values())
        settings = {**ours, **plan, "devices": self.devices or 1}
        return create(name, seed=drawn, device=self.device, precision=self.precision, **settings)

    def plainly(self, names: Iterable[str]) -> list[str]:
        """Who of these trains plainly, and takes "ours" where the study's plan is another: there is no paper of it."""
        entries = {name: find(name)[1] for name in names}
        return [name for name, entry in entries.items() if entry.name == "plain" and self.plan in entry.missing]

    def paced(self, learner: Learner, labels: int) -> Learner:
        """The learner, not fitted to these yet, with the steps it takes for that many labels."""
        if self.epochs is None:
            return learner
        images = Fraction(str(self.epochs)) * labels
        loop = replace(learner.loop, steps=math.ceil(images / learner.loop.batch), grow=False)
        return replace(learner, loop=loop, twin=learner.twin and self.paced(learner.twin, labels))


def _hard(value: Any) -> Any:
    """Lists of a TOML file as the tuples they were."""
    return tuple(map(_hard, value)) if isinstance(value, list) else value


def prepare(study: Study) -> Study:
    """The study with nothing left open, and everything refused now that could only fail later.

    Every learner and every setting of it is written out, so that a later version with other defaults repeats it.
    Loads the data (decoding a folder once), and builds every learner's networks. Raises what they raise, and
    ValueError for a budget larger than the pool.
    """
    pool, _ = study.pool(0)
    share = max(4 * pool.classes, len(pool) // 100)
    study = replace(
        study,
        initial=share if study.initial is None else study.initial,
        budget=share if study.budget is None else study.budget,
    )
    assert study.initial is not None
    if study.initial < 1:
        raise ValueError(f"initial={study.initial}: every learner needs a label to start with")
    if (needed := study.initial + sum(study.budgets())) > len(pool):
        each = study.budget if study.grow == 1 else f"{study.budget}, each {study.grow} times the last,"
        raise ValueError(
            f"{study.initial} labels + {study.rounds} rounds of {each} are {needed}, more than the pool's "
            f"{len(pool)} images. Lower --initial, --budget or --rounds"
        )
    with hushed():
        for seed in reversed(range(study.seeds if study.leave_out else 1)):  # which classes it lacks may differ
            pool, _ = study.pool(seed)
        study = joined(study, pool)
    learners = {name: study.learner(name, 0, pool) for name in study.learners}
    for learner in learners.values():
        learner.build(pool.shape, pool.classes)
        study.paced(learner, needed)
        if learner.query_settings.get("synthesize") and study.judge is None:
            raise ValueError(
                f"{learner.name} asks for images it has made, and nobody says what they show. Give judge, "
                f"{' or '.join(JUDGES)} (--judge)"
            )
    if others := [name for name in study.plainly(study.learners) if "plan" not in study.settings.get(name, {})]:
        note = f"{', '.join(others)}: plain training has no plan {study.plan!r}, and takes 'ours'."
        study = replace(study, notes=(*study.notes, note))
    settings = {
        name: {**study.settings.get(name, {}), "plan": learner.plan, **learner.settings, "augment": learner.augment}
        for name, learner in learners.items()
    }
    if study.epochs is not None:
        settings = {name: {key: table[key] for key in table if key != "steps"} for name, table in settings.items()}
    devices = study.devices or 1
    threads = study.threads or max(1, (os.cpu_count() or 1) // (len(cells(study)) * devices))
    return replace(study, settings=settings, threads=threads, devices=devices if devices > 1 else None)


def joined(study: Study, pool: Pool) -> Study:
    """The study with the controls it wants among its learners."""

    def create(names: Iterable[str]) -> dict[str, Learner]:
        return {name: study.learner(name, 0, pool) for name in names}

    def join(more: Mapping[str, Mapping[str, Any]]) -> Study:
        return replace(study, learners=(*study.learners, *more), settings={**study.settings, **more})

    if study.shuffle:
        study = join(shuffles(create(study.learners), study.settings))
    if study.controls:
        study = join(controls(create(study.learners), study.settings))
        if study.epochs is None:  # else all see every label as often
            study = join(equal_steps(create(study.learners), study.settings, pool))
    return study


def cells(study: Study) -> list[tuple[str, int]]:
    """Every learner with every seed, the seeds in turn, so that a half-finished study compares something."""
    return [(name, seed) for seed in range(study.seeds) for name in study.learners]


@contextmanager
def hushed() -> Iterator[None]:
    """No warnings of alzoo's own inside."""
    log = logging.getLogger("alzoo")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def steps(pool: Pool) -> int:
    """How long the task network trains by default: 250 steps are enough for small digits, photographs need more."""
    return 250 if max(pool.shape[1:]) <= 16 else 1000


def augmentation(data: str, pool: Pool) -> str:
    """What may be done to images of this data without changing their label: digits are not mirrored."""
    digits = data in ("digits", "mnist", "svhn")
    return "shift" if digits or pool.shape[0] == 1 else "flip+shift"
