"""Train the weights that the manifest lists; each can be made again from one command.

usage: train_weights.py --name vaal.digits --name plain.mnist    # some
       train_weights.py --tag digits                             # those of every entry on one data set
       train_weights.py --all                                    # every entry on every data set below
       options: --out FOLDER (checkpoints/), --data folder:PATH (where a data set lies unpacked), --device cuda,
                --seeds 3 (measured with so many; the file is the first one's), --minutes 9 (stop then, status 75: the
                same command goes on)
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import publish
import torch
from torch import Tensor

import checkpoints
import zoo
from zoo.datasets import Test
from zoo.device import resolve_device
from zoo.learner import Learner
from zoo.naming import pick

ROOT = Path(__file__).parents[1]
GOES_ON = 75  # the exit status of a run that has stopped in between


class Enough(Exception):
    """The minutes are over."""


@dataclass(frozen=True)
class Recipe:
    """How the weights of one tag are trained.

    settings: those of `zoo.create`. entries: more of these for single entries. source: where the same images come
    from, if not from `data`: `folder:PATH`.
    """

    data: str
    labels: int
    licence: str
    plan: str = "ours"
    settings: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = ""


KINDS = {".png": "PNG", ".jpg": "JPEG (lossy)", ".jpeg": "JPEG (lossy)"}
UCI = "UCI lists it under CC BY 4.0 (recalled)"
RECIPES = {
    "digits": Recipe("digits", 200, UCI),
    "mnist": Recipe(
        "mnist",
        1_000,
        "CC BY-SA 3.0",
        settings={"augment": "shift", "steps": 2_000},
        entries={
            "vaal": {"game_steps": 2_000},
            "gaal": {"gan_steps": 12_000},
            "aral": {"game_steps": 1_000},
            "ta_vaal": {"game_steps": 1_500},
            "ssal": {"lp_steps": 400},
            "dpe": {"steps": 1_500},
        },
    ),
    "cifar10": Recipe(
        "cifar10",
        5_000,
        "none stated by its authors",
        settings={"augment": "flip+shift", "steps": 1_000, "batch": 64},
        entries={
            "vaal": {"game_steps": 500},
            "gaal": {"gan_steps": 5_000},
            "aral": {"game_steps": 500},
            "ta_vaal": {"game_steps": 500},
            "ssal": {"mixed_batch": 128, "lp_steps": 400},
        },
    ),
    "cifar10_large": Recipe("cifar10", 10_000, "none stated by its authors", settings={"trunk": "resnet18"}),
}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = ask.add_mutually_exclusive_group(required=True)
    which.add_argument("--name", action="append", metavar="ENTRY.TAG")
    which.add_argument("--tag", choices=RECIPES)
    which.add_argument("--all", action="store_true")
    ask.add_argument("--out", type=Path, default=ROOT / "checkpoints")
    ask.add_argument("--work", type=Path, default=ROOT / "build" / "weights", help="what is kept between pieces")
    ask.add_argument("--data", metavar="NAME", help="another source of the same images, as folder:PATH")
    ask.add_argument("--device", default="auto")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--seeds", type=int, default=1)
    ask.add_argument("--minutes", type=float, default=float("inf"))
    given = ask.parse_args()
    tags = [given.tag] if given.tag else list(RECIPES)
    names = given.name or [f"{entry}.{tag}" for tag in tags for entry in zoo.names("entries")]
    end = time.monotonic() + 60 * given.minutes
    for each in (given.out, given.work):
        each.mkdir(parents=True, exist_ok=True)
    for name in names:
        tag = pick({tag: tag for tag in RECIPES}, name.partition(".")[2], "recipe")
        recipe = RECIPES[tag] if given.data is None else replace(RECIPES[tag], source=given.data)
        seeds = range(given.seed, given.seed + given.seeds)
        try:
            about = make(name, recipe, seeds=seeds, device=given.device, out=given.out, work=given.work, end=end)
        except Enough:
            sys.stdout.write(f"{name}: not done yet; the same command goes on\n")
            sys.exit(GOES_ON)
        publish.write(given.out)
        sys.stdout.write(f"{name}: {about['accuracy']:.4f} of {about['n']}, {about['minutes']} minutes\n")


def make(name: str, recipe: Recipe, *, seeds: range, device: str, out: Path, work: Path, end: float) -> dict[str, Any]:
    """Train one name with each seed, and write the first one's file; what its card says about it."""
    entry = name.partition(".")[0]
    accuracies, first = [], None
    for seed in seeds:
        pool, test = zoo.data(recipe.source or recipe.data, initial=recipe.labels, seed=seed)
        settings = {**recipe.settings, **recipe.entries.get(entry, {})}
        learner = zoo.create(entry, seed=seed, device=device, plan=recipe.plan, **settings)
        learner, seconds, steps = trained(learner, pool, work, name, end)
        accuracies.append(accuracy(learner, test))
        if first is None:
            numbers = learner.diagnose(pool, test.images)
            first = learner, test
            about = {
                "data": recipe.data + copied(recipe.source),
                "shape": list(pool.shape),
                "classes": pool.classes,
                "labels": len(pool.labeled),
                "unlabeled": len(pool.unlabeled),
                "names": list(pool.names),
                "pool": f'zoo.data("{called(recipe)}", initial={recipe.labels}, seed={seed})',
                "plan": recipe.plan,
                "settings": settings,
                "seed": seed,
                "n": len(test.images),
                "steps": steps,
                "device": processor(device),
                "minutes": round(seconds / 60, 2),
                "commit": commit(),
                "licence": recipe.licence,
                "diagnosis": numbers,
            }
    assert first is not None
    return written(*first, out / f"{name}.safetensors", {**about, "accuracies": accuracies})


def trained(learner: Learner, pool: zoo.Pool, work: Path, name: str, end: float) -> tuple[Learner, float, int]:
    """The fitted learner, the seconds it took and its steps. Raises Enough when the time is over; it can go on.

    The seconds are the processor's on a CPU, which others may share, and the clock's elsewhere.
    """
    asked = f"{commit()} {learner!r} {pool.shape} {pool.labeled.tolist()} {len(pool)}"
    asked = sha256(asked.encode()).hexdigest()[:12]
    kept, spent = work / f"{name}.{asked}.safetensors", work / f"{name}.{asked}.json"
    seconds, steps = json.loads(spent.read_text()) if spent.exists() else (0.0, 0)
    if kept.exists():
        return zoo.load(kept, device=learner.device), seconds, steps
    clock = time.process_time if learner.device == "cpu" else time.monotonic
    began = clock()

    def watch(*_: object) -> None:
        if time.monotonic() > end:
            raise Enough

    try:
        learner.fit(pool, progress=watch, snapshot=kept.with_suffix(".snapshot"))
    finally:
        spent.write_text(json.dumps([seconds + clock() - began, learner.ticks]))
    learner.save(kept)
    return learner, *json.loads(spent.read_text())


def written(learner: Learner, test: Test, path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The file with its card, in half precision where that changes no decision on the test images."""
    whole = path.with_name(f".{path.name}.whole")
    try:
        card, weights = checkpoints.read(learner.save(whole, overwrite=True))
    finally:
        whole.unlink(missing_ok=True)
    decisions = learner.predict(test.images).argmax(1)
    for half in (True, False):
        numbers = {
            name: value.half() if half and value.is_floating_point() else value for name, value in weights.items()
        }
        checkpoints.write(path, card, numbers)
        again = zoo.load(path, device=learner.device)
        finite = all(bool(value.isfinite().all()) for value in numbers.values())
        if finite and torch.equal(again.predict(test.images).argmax(1), decisions):
            break
    else:
        raise RuntimeError(f"{path} does not decide as the learner that it was written from")
    about = {**about, "half": half, "accuracy": round(accuracy(again, test), 6)}
    checkpoints.write(path, {**card, "about": about}, numbers)
    return about


def called(recipe: Recipe) -> str:
    """What `zoo.data` is asked for; a folder without the place where it lies."""
    return f"folder:PATH/{Path(recipe.source).name}" if recipe.source else recipe.data


def copied(source: str) -> str:
    """What the images were decoded from, where they are a copy: JPEG, for example, is lossy."""
    if not source:
        return ""
    first = next(path for path in Path(source.removeprefix("folder:")).rglob("*.*") if path.suffix.lower() in KINDS)
    return f", from a copy as {KINDS[first.suffix.lower()]} files"


def accuracy(learner: Learner, test: Test) -> float:
    right: Tensor = learner.predict(test.images).argmax(1) == test.targets
    return right.double().mean().item()


def processor(device: str) -> str:
    """What it was trained on, in words."""
    if resolve_device(device).startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}, processor time"


@cache
def commit() -> str:
    """The commit of this tree as the script began, with a plus if files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
