"""A study: data x learners x seeds x rounds, written down record by record so that it can be killed and go on."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from functools import cache, partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors.torch import load as tensors
from safetensors.torch import save

import checkpoints
from trainers.pool import Pool
from trainers.ranks import Ranks, agreed
from trainers.run import Journal
from trainers.seeds import Seeds
from zoo import datasets, device
from zoo.catalogue import create, load
from zoo.device import peak_bytes
from zoo.journal import seldom, tensorboard
from zoo.judging import judge
from zoo.learner import Learner
from zoo.naming import pick
from zoo.studies import maps
from zoo.studies.beliefs import pseudo_labels
from zoo.studies.controls import controls, controls_of, equal_steps, shuffles
from zoo.studies.files import put
from zoo.studies.locks import held
from zoo.studies.oracles import noisy, wrong

Line = dict[str, Any]  # of results.jsonl
Emit = Callable[[str, Line], None]  # ("record", its fields) or ("step", where a fit stands)
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
    image. confidence: the classifier rejects what it gives less to; what is rejected gets no label.
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
        name = self.data.removeprefix("folder:").strip("/").replace("/", "-")
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
        plan = {"plan": self.plan, **self.settings.get(name, {})}
        ours = {"augment": augmentation(self.data, pool), "steps": steps(pool)} if plan["plan"] == "ours" else {}
        seeds = {use: self.seed(use, seed) for use in OWN}
        drawn = seeds if len({*seeds.values()}) > 1 else min(seeds.values())
        settings = {**ours, **plan, "devices": self.devices or 1}
        return create(name, seed=drawn, device=self.device, precision=self.precision, **settings)

    def paced(self, learner: Learner, labels: int) -> Learner:
        """The learner, not fitted to these yet, with the steps it takes for that many labels."""
        if self.epochs is None:
            return learner
        images = Fraction(str(self.epochs)) * labels
        loop = replace(learner.loop, steps=math.ceil(images / learner.loop.batch))
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


def run_cell(study: Study, out: Path, name: str, seed: int, done: list[Line], emit: Emit) -> None:
    """The rounds of one learner with one seed that are not in `done` yet, each emitted as a record.

    Of several ranks all call this; the first one writes, and says what is written.
    """
    ranks = device.ranks(study.devices or 1)
    with hushed():  # `prepare` has said already what there is to say of the data
        pool, test = study.pool(seed)
    learner, at = study.learner(name, seed, pool), -1  # and the round it has been fitted to
    learner.begun = _begun.get(name)  # with another seed it may have been the same
    pools = relived(pool, done, partial(made, out, name, seed))  # of each round
    ticks = sum(record["ticks"] for record in done)

    def file(number: int, kind: str) -> Path:
        """What is kept of a round while the study goes on, so that it can be killed."""
        return out / "cells" / f"{name}-seed{seed}-round{number}.{kind}"

    def fit(number: int, write: Journal | None = None) -> float:
        """Train on the pool of that round; seconds."""
        nonlocal learner, at
        warm = study.warm and number > 0
        learner = study.paced(recall(number - 1).warm() if warm else learner, len(pools[number].labeled))
        start = time.perf_counter()
        learner.fit(
            pools[number],
            journal=write and (lambda what, value, step: write(what, value, ticks + step)),
            progress=seldom(lambda stage, n, steps: emit("step", {**who, "round": number, "done": (stage, n, steps)})),
            snapshot=file(number, "snapshot"),
        )
        seconds, at = time.perf_counter() - start, number
        if study.warm and ranks.first:
            keep(learner, file(number, "safetensors"))
            file(number - 2, "safetensors").unlink(missing_ok=True)
        return seconds

    def recall(number: int) -> Learner:
        """The learner as that round left it: it is that still, or was kept in a file, or is trained again."""
        nonlocal at
        kept = file(number, "safetensors")
        if at != number and (values := agreed(ranks, lambda: checkpoints.read(kept) if kept.exists() else None)):
            learner.filled(*values)
            at = number
        elif at != number:
            fit(number)
        return learner

    def asked(number: int) -> Asking:
        """What is asked for in that round, and answered."""
        images = made(out, name, seed, number)
        asking = noted(file(number, "json"), lambda: ask(study, out, recall(number - 1), pools[-1], images), ranks)
        pools.append(told(pools[-1], asdict(asking), images))
        if ranks.first:
            _contact_sheet(pools[-1], new(pools), out / "asked" / name / f"seed{seed}-round{number}.png")
        return asking

    device.fabric(learner.device, learner.precision)  # imported and started before anything is timed
    who = {"learner": name, "seed": seed}
    with tensorboard(out / "tb" / name / f"seed{seed}") if ranks.first else nullcontext(nowhere) as write:
        for number in range(len(done), study.rounds + 1):
            with peak_bytes() as peak:  # of the question and of the fit
                asking = asked(number) if number > 0 else Asking(pool.rounds[0].tolist(), None, None, None)
                took = {"fit_seconds": round(fit(number, write), 4), "peak_bytes": peak()}
            ticks += learner.ticks
            _begun[name] = learner.begun
            stands = standing(study, name, learner, pools, test)
            write("al/accuracy", stands["accuracy"], stands["labels"])
            if seed == 0 and number == study.rounds:
                maps.draw(learner, pools[-1], maps.place(out, name, seed) if ranks.first else None)
            left_out = datasets.left_out(pool.names, study.leave_out, study.seed("initial", seed))
            drawn = {**who, "round": number, "left_out": left_out, **asdict(asking)}
            emit("record", {**drawn, **stands, **took, **provenance(), "notes": study.notes})


def nowhere(name: str, value: float, step: int) -> None:
    """The journal of a rank that writes nothing."""


_begun: dict[str, Any] = {}  # the pretext of each learner that this process was last busy with


def made(out: Path, name: str, seed: int, number: int) -> Path:
    """Where the images are that a learner has made in a round, and that got a label."""
    return out / "made" / name / f"seed{seed}-round{number}.safetensors"


def told(pool: Pool, asking: Line, images: Path) -> Pool:
    """The pool after a round: with the answers of its oracle, or with the made images that got a label."""
    if asking.get("judged") is None:
        return pool.reveal(asking["asked"])
    return pool.reveal([]).admit(tensors(images.read_bytes())["images"], asking["judged"]["labels"])


def relived(pool: Pool, done: list[Line], images: Callable[[int], Path]) -> list[Pool]:
    """The pool of each round that there is a record of, and of the first one."""
    pools = [pool]
    for record in done[1:]:
        pools.append(told(pools[-1], record, images(record["round"])))
    return pools


def new(pools: Sequence[Pool]) -> torch.Tensor:
    """What has got a label, or an answer at least, since the last round but one: indices, made images among them."""
    pool, before = pools[-1], len(pools[-2].made) if len(pools) > 1 else 0
    return torch.cat([pool.rounds[-1], torch.arange(len(pool) + before, len(pool) + len(pool.made))])


def standing(study: Study, name: str, learner: Learner, pools: Sequence[Pool], test: datasets.Test) -> Line:
    """What a record says of a learner that is fitted to the last of these pools."""
    guesses = learner.predict(test.images).argmax(1)
    pool = pools[-1]
    known = pool.labels[new(pools)]
    last = len(pool.rounds) > study.rounds
    looked_at = study.diagnose is None or (last and name in study.diagnose)
    with hushed():  # its doubts go into the record
        diagnosis = learner.diagnose(pool, test.images) if looked_at else {}
        beliefs = pseudo_labels(learner, pool) if looked_at else None
    return {
        "plan": learner.plan,
        "entry": learner.entry.name,
        "query": learner.query.name,
        "controls": controls_of(learner),  # none where the network that answers is trained plainly
        "labels": len(pool.labeled),
        "label_cost": study.label_cost * (sum(map(len, pool.rounds)) + len(pool.made)),  # of all answers so far
        "wrong": wrong(pool),  # of all labels so far
        "asked_classes": known[known >= 0].bincount(minlength=pool.classes).tolist(),
        "accuracy": (guesses == test.targets).double().mean().item(),
        "confusion": confusion(test.targets, guesses, pool.classes) if last else None,
        "network": digest(learner),
        "steps": learner.loop.steps,
        "ticks": learner.ticks,
        "pseudo_labels": beliefs,
        "diagnosis": diagnosis,
        "doubts": learner.doubts(diagnosis),
    }


@dataclass(frozen=True)
class Asking:
    """What a learner asks for in a round, the first to be asked first, why, and the seconds it took to choose."""

    asked: list[int]
    scores: list[float] | None
    select_seconds: float | None
    judged: Line | None  # where the images were made: their labels, and the ledger of who judged


def noted(note: Path, asks: Callable[[], Asking], ranks: Ranks) -> Asking:
    """What is asked, by a note that is written before anything is made of it: asked once, whatever happens then."""
    if not agreed(ranks, note.exists):
        asking = asks()
        if ranks.first:
            put(note, json.dumps(asdict(asking)).encode())
    return Asking(**json.loads(agreed(ranks, note.read_text)))


def ask(study: Study, out: Path, learner: Learner, pool: Pool, file: Path) -> Asking:
    """What a fitted learner asks for next. Images that it has made for it, and that got a label, go into a file."""
    start = time.perf_counter()
    selection = learner.select(pool, study.budgets()[len(pool.rounds) - 1])
    seconds = round(time.perf_counter() - start, 4)
    if selection.images is None:
        return Asking(list(selection), selection.scores.tolist(), seconds, None)
    by = pool if study.judge == "nearest" else classifier(study, out)
    images, labels, ledger = judge(selection, by, study.confidence)
    put(file, save({"images": images}))
    judged = {"by": study.judge, "shown": ledger.shown, "labels": labels.tolist(), **ledger.counts}
    return Asking([], selection.scores[ledger.accepted].tolist(), seconds, judged)


def classifier(study: Study, out: Path) -> Learner:
    """A plain network that knows all labels of the pool: it judges made images in place of a person."""
    path = out / "cells" / "judge.safetensors"
    with held(out / ".locks" / "judge", wait=True):  # whoever comes first trains it for all
        if path.exists():
            return load(path, device=study.device)
        pool, _ = study.pool(0)
        augment = augmentation(study.data, pool)
        judging = create("plain", seed=0, device=study.device, steps=steps(pool), augment=augment)
        judging.fit(pool.reveal(pool.unlabeled), progress=False)
        keep(judging, path)
        return judging


def keep(learner: Learner, path: Path) -> None:
    """A fitted learner in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    learner.save(path, overwrite=True)


def digest(learner: Learner) -> str:
    """A name for the weights of the network that answers: equal ones, and hardly any others, have the same."""
    parts = (learner.twin or learner).parts
    assert parts is not None
    out = blake2b(digest_size=8)
    for part in ("trunk", "head"):
        for value in parts[part].state_dict().values():
            out.update(value.detach().cpu().contiguous().numpy().tobytes())
    return out.hexdigest()


def confusion(targets: torch.Tensor, guesses: torch.Tensor, classes: int) -> list[list[int]]:
    """How many images of each class (rows) were taken for each (columns)."""
    table: list[list[int]] = (targets * classes + guesses).bincount(minlength=classes**2).view(classes, -1).tolist()
    return table


def _contact_sheet(pool: Pool, asked: torch.Tensor, path: Path, most: int = 64) -> None:
    """The first images asked, in asking order, side by side as a PNG file."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    if not len(asked):
        return  # all that was made was rejected
    images = pool.take(asked[:most]).cpu()
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(make_grid(images, nrow=16, padding=1, pad_value=128)).save(path)


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


def provenance() -> dict[str, Any]:
    """What a record was made by and on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("alzoo", "torch", "torchvision", "timm", "numpy")},
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}",
        "commit": commit(),
    }


@cache
def commit() -> str:
    """The commit of alzoo's own checkout, or nothing where it is installed from a wheel."""
    here = Path(__file__).parent
    out = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return out.stdout.strip()


def steps(pool: Pool) -> int:
    """How long the task network trains by default: 250 steps are enough for small digits, photographs need more."""
    return 250 if max(pool.shape[1:]) <= 16 else 1000


def augmentation(data: str, pool: Pool) -> str:
    """What may be done to images of this data without changing their label: digits are not mirrored."""
    digits = data in ("digits", "mnist", "svhn")
    return "shift" if digits or pool.shape[0] == 1 else "flip+shift"
