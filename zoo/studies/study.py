"""A study: data x learners x seeds x rounds, written down record by record so that it can be killed and go on."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch

from trainers.pool import Pool
from zoo import datasets
from zoo.catalogue import create
from zoo.device import fabric
from zoo.journal import seldom, tensorboard
from zoo.learner import Learner
from zoo.studies.files import put

Line = dict[str, Any]  # of results.jsonl
Emit = Callable[[str, Line], None]  # ("record", its fields) or ("step", where a fit stands)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything needed to run it again. None means: decided by the data when it is first run.

    data: a name of `zoo.data`. learners: names of `zoo.create`, "vaal+margin" for an entry with a query.
    initial: labels at the start. budget: labels asked in a round. rounds: how often. seeds: how many runs of each.
    threads: of each process; part of the study, since the order of sums is. settings: of single learners, by name.
    """

    data: str
    learners: tuple[str, ...]
    initial: int | None = None
    budget: int | None = None
    rounds: int = 5
    seeds: int = 1
    balanced: bool = False
    plan: str = "ours"
    root: str | None = None
    size: int | None = None
    test_share: float | None = None
    device: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rounds", "seeds"):
            if getattr(self, name) < (0 if name == "rounds" else 1):
                raise ValueError(f"{name}={getattr(self, name)} is too few; give {1 if name == 'seeds' else 0} or more")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget={self.budget}: ask for at least 1 label a round")
        if not self.learners:
            raise ValueError("no learner is named; `alzoo list` shows them")
        if twice := {name for name in self.learners if self.learners.count(name) > 1}:
            raise ValueError(f"learner {min(twice)!r} is named twice")
        for name, table in self.settings.items():
            if common := table.keys() & {"name", "seed", "device", "precision"}:
                raise ValueError(f"{name}.{min(common)} cannot be set for one learner: all share it in a study")
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
        return cls(**{**table, "learners": tuple(table["learners"])}, settings=settings)

    def toml(self) -> str:
        """The text of a study.toml."""
        table = {name: value for name, value in asdict(self).items() if value is not None and name != "settings"}
        return tomli_w.dumps({**table, "learner": dict(self.settings)} if self.settings else table)

    def folder(self) -> Path:
        """Where it goes by default: the same study, the same folder."""
        name = self.data.removeprefix("folder:").strip("/").replace("/", "-")
        same = replace(self, threads=None).toml()  # on a machine with other cores, too
        return Path("alzoo-runs") / f"{name}-{blake2b(same.encode(), digest_size=4).hexdigest()}"

    def pool(self, seed: int) -> tuple[Pool, datasets.Test]:
        """The pool with its initial set, the same for all learners, and the held-out images."""
        return datasets.data(
            self.data,
            initial=self.initial or 0,
            seed=seed,
            balanced=self.balanced,
            root=self.root,
            size=self.size,
            test_share=self.test_share,
        )

    def learner(self, name: str, seed: int, pool: Pool) -> Learner:
        """A learner as this study wants it; what depends on the data comes from the data, in the plan "ours"."""
        plan = {"plan": self.plan, **self.settings.get(name, {})}
        ours = {"augment": augmentation(self.data, pool), "steps": steps(pool)} if plan["plan"] == "ours" else {}
        return create(name, seed=seed, device=self.device, precision=self.precision, **{**ours, **plan})


def prepare(study: Study) -> Study:
    """The study with nothing left open, and everything refused now that could only fail later.

    Every setting of every learner is written out, so that a later version with other defaults repeats it. Loads the
    data (decoding a folder once), and builds every learner's networks. Raises what they raise, and ValueError for a
    budget larger than the pool.
    """
    pool, _ = study.pool(0)
    share = max(4 * pool.classes, len(pool) // 100)
    study = replace(
        study,
        initial=share if study.initial is None else study.initial,
        budget=share if study.budget is None else study.budget,
    )
    assert study.initial is not None
    assert study.budget is not None
    if study.initial < 1:
        raise ValueError(f"initial={study.initial}: every learner needs a label to start with")
    if (needed := study.initial + study.rounds * study.budget) > len(pool):
        raise ValueError(
            f"{study.initial} labels + {study.rounds} rounds of {study.budget} are {needed}, more than the pool's "
            f"{len(pool)} images. Lower --initial, --budget or --rounds"
        )
    learners = {name: study.learner(name, 0, pool) for name in study.learners}
    for learner in learners.values():
        learner.build(pool.shape, pool.classes)
    settings = {
        name: {**study.settings.get(name, {}), "plan": learner.plan, **learner.settings, "augment": learner.augment}
        for name, learner in learners.items()
    }
    threads = study.threads or max(1, (os.cpu_count() or 1) // len(cells(study)))
    return replace(study, settings=settings, threads=threads)


def cells(study: Study) -> list[tuple[str, int]]:
    """Every learner with every seed, the seeds in turn, so that a half-finished study compares something."""
    return [(name, seed) for seed in range(study.seeds) for name in study.learners]


def run_cell(study: Study, out: Path, name: str, seed: int, done: list[Line], emit: Emit) -> None:
    """The rounds of one learner with one seed that are not in `done` yet, each emitted as a record."""
    with hushed():  # `prepare` has said already what there is to say of the data
        pool, test = study.pool(seed)
    learner = study.learner(name, seed, pool)
    for record in done[1:]:
        pool = pool.reveal(record["asked"])
    place = out / "cells"

    def file(number: int, kind: str) -> Path:
        """What is kept of a round while it goes on, so that it can be killed."""
        return place / f"{name}-seed{seed}-round{number}.{kind}"

    ticks = sum(record["ticks"] for record in done)

    def fit(number: int) -> float:
        """Train on the pool as it is; seconds."""
        start = time.perf_counter()
        learner.fit(
            pool,
            journal=lambda what, value, step: write(what, value, ticks + step),
            progress=seldom(lambda stage, n, steps: emit("step", {**who, "round": number, "done": (stage, n, steps)})),
            snapshot=file(number, "snapshot"),
        )
        return time.perf_counter() - start

    fabric(learner.device, learner.precision)  # imported and started before anything is timed
    who = {"learner": name, "seed": seed}
    with tensorboard(out / "tb" / name / f"seed{seed}") as write:
        for number in range(len(done), study.rounds + 1):
            select_seconds = None
            if number > 0:
                asked, select_seconds = _next_query(study, learner, pool, file(number, "json"), number, fit)
                pool = pool.reveal(asked)
                _contact_sheet(pool, asked, out / "asked" / name / f"seed{seed}-round{number}.png")
            with peak_bytes() as peak:
                fit_seconds, most = fit(number), peak()
            ticks += learner.ticks
            accuracy = (learner.predict(test.images).argmax(1) == test.targets).double().mean().item()
            write("al/accuracy", accuracy, len(pool.labeled))
            known = pool.labels[pool.rounds[-1]]
            with hushed():  # its doubts go into the record
                diagnosis = learner.diagnose(pool, test.images)
            emit(
                "record",
                {
                    **who,
                    "plan": learner.plan,
                    "round": number,
                    "labels": len(pool.labeled),
                    "accuracy": accuracy,
                    "asked": pool.rounds[-1].tolist(),
                    "asked_classes": known[known >= 0].bincount(minlength=pool.classes).tolist(),
                    "steps": learner.loop.steps,
                    "ticks": learner.ticks,
                    "diagnosis": diagnosis,
                    "doubts": learner.doubts(diagnosis),
                    "fit_seconds": round(fit_seconds, 4),
                    "select_seconds": select_seconds,
                    "peak_bytes": most,
                    **provenance(),
                },
            )


def _next_query(
    study: Study, learner: Learner, pool: Pool, note: Path, number: int, fit: Callable[[int], float]
) -> tuple[list[int], float]:
    """What the learner asks for round `number`, and the seconds it took; noted in a file before it is used."""
    if note.exists():
        noted = json.loads(note.read_text())
        return noted["asked"], noted["select_seconds"]
    assert study.budget is not None
    if learner.parts is None:  # killed between the record of the last round and this note
        fit(number - 1)
    start = time.perf_counter()
    asked = list(learner.select(pool, study.budget))
    seconds = round(time.perf_counter() - start, 4)
    put(note, json.dumps({"asked": asked, "select_seconds": seconds}).encode())
    return asked, seconds


def _contact_sheet(pool: Pool, asked: list[int], path: Path, most: int = 64) -> None:
    """The first images asked, in asking order, side by side as a PNG file."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    images = pool.take(torch.tensor(asked[:most])).cpu()
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(make_grid(images, nrow=16, padding=1, pad_value=128)).save(path)


@contextmanager
def peak_bytes() -> Iterator[Callable[[], int]]:
    """The most memory this process held inside: on the GPU where there is one, else resident (Linux) or since start."""
    import resource

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield torch.cuda.max_memory_allocated
        return
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if os.access(forget, os.W_OK):
        forget.write_text("5")
        yield lambda: 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        yield lambda: unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
