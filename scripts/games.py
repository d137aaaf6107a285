"""Whether the inner game of every entry is alive: one line for each fit, in scripts/results/games.jsonl.

    python scripts/games.py --data mnist=folder:PATH --data cifar10=folder:PATH    # goes on where it was stopped

A critic cannot tell labeled from unlabeled images where chance has drawn the labels, and should not. So the games over
labeled and unlabeled are looked at where the initial labels leave out half of the classes: `novelty` is how often the
query puts an image of these before another one (AUC; 0.5 is chance). The others are looked at with labels of all
classes.

Forms: the default plan, and what it is compared with. That is the released scale of the loss, under which a latent
dies, or the same fit without a part: the made images, the spread labels, the pretext. `accuracy` is that on the test
images, `judged` how often a plain network that knows all labels sees in a made image the class it was made for. The
other numbers are those of `Learner.diagnose`, and of the labels that a learner gives by itself (`precision`, `count`).
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from trainers.losses import auc
from trainers.pool import Pool
from zoo.studies.beliefs import pseudo_labels
from zoo.studies.provenance import provenance
from zoo.studies.study import augmentation, hushed, steps

RESULTS = Path(__file__).parent / "results" / "games.jsonl"
SUBSET = 10_000  # images of the larger pools
LABELS = {"digits": 100, "mnist": 300, "cifar10": 1_500}
CRITICS = ("vaal", "ta_vaal", "aral", "waal")  # who ask by labeled against unlabeled


@dataclass(frozen=True)
class Game:
    """One fit. entry, form: which, in words. settings: of `zoo.create`. missing: half of the classes have no label."""

    entry: str
    form: str = "ours"
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: bool = False


GAMES = (
    *(Game(entry, missing=True) for entry in CRITICS),
    *(Game(entry, "released scale", {"elbo": "released"}, missing=True) for entry in ("vaal", "ta_vaal")),
    *(Game(entry) for entry in ("ta_vaal", "llal", "aral", "gaal", "bgadl", "ceal", "ssal")),
    Game("plain"),
    Game("plain", "dropout as bgadl's", {"dropout": 0.5}),
    Game("bgadl", "without made images", {"lambda_prior": 0.0, "lambda_recon": 0.0}),
    Game("ssal", "labels alone", {"semi": "none"}),
    Game("ssal", "pretext and labels", {"semi": "none", "pretext": "deepcluster"}),
    Game("ssal", "with pretext", {"pretext": "deepcluster"}),
    Game(
        "ssal",
        "with pretext, as published",
        {"pretext": "deepcluster", "surest": True, "counts": "images", "apart": False},
    ),
)


def played(game: Game, name: str, source: str, seed: int) -> dict[str, Any]:
    """One fit, and what its game has come to. On one thread of the CPU."""
    pool, test = zoo.data(
        source,
        initial=LABELS[name],
        seed=seed,
        subset=None if name == "digits" else SUBSET,
        leave_out=5 if game.missing else 0,
    )
    learner = zoo.create(
        game.entry,
        seed=seed,
        device="cpu",
        **{"steps": steps(pool), "augment": augmentation(name, pool), **game.settings},
    )
    began = time.process_time()
    with hushed():
        learner.fit(pool, progress=False)
        seconds = round(time.process_time() - began, 1)
        numbers = learner.diagnose(pool, test.images[:2_000])
    if game.missing:
        numbers["novelty"] = novelty(learner, pool)
    if game.entry == "bgadl":
        numbers["judged"] = judged(learner, judge(name, source, seed))
    numbers |= pseudo_labels(learner, pool) or {}
    numbers["accuracy"] = (learner.predict(test.images).argmax(1) == test.targets).double().mean().item()
    return {
        "data": name,
        "entry": game.entry,
        "form": game.form,
        "missing": game.missing,
        "seed": seed,
        "labels": LABELS[name],
        "numbers": {key: float(f"{value:.4g}") for key, value in numbers.items()},
        "seconds": seconds,
        **provenance(),
    }


@cache
def judge(name: str, source: str, seed: int) -> zoo.Learner:
    """Plain training on all labels of the pool: who had no part in the game, and knows more than its classifier."""
    pool, _ = zoo.data(source, initial=0, seed=seed, subset=None if name == "digits" else SUBSET)
    plain = zoo.create("plain", seed=seed, device="cpu", steps=steps(pool), augment=augmentation(name, pool))
    with hushed():
        return plain.fit(pool.reveal(torch.arange(len(pool))), progress=False)


def judged(learner: zoo.Learner, by: zoo.Learner) -> float:
    """How often a judge takes an image that was made for a class for one of that class."""
    made_for = torch.arange(1_000) % 10
    return (by.predict(learner.sample(len(made_for), labels=made_for)).argmax(1) == made_for).double().mean().item()


def novelty(learner: zoo.Learner, pool: Pool) -> float:
    """How often the critic puts an unlabeled image of a class without labels before one of the others; ties count half.

    waal's query adds how unsure the classifier is; here its critic is alone.
    """
    asked = learner.select(pool, len(pool.unlabeled))
    order: Tensor = asked.detail["D"] if learner.entry.name == "waal" else asked.scores
    truth, known = pool.oracle(asked.indices), pool.labels[pool.labeled].unique()
    new = ~torch.isin(truth, known)
    return auc(order[new], order[~new]).item()


def left(done: list[dict[str, Any]], names: list[str], seeds: int) -> Iterator[tuple[Game, str, int]]:
    """What there is no line of yet."""
    there = {(line["data"], line["entry"], line["form"], line["missing"], line["seed"]) for line in done}
    for seed in range(seeds):
        for name in names:
            for game in GAMES:
                if (name, game.entry, game.form, game.missing, seed) not in there:
                    yield game, name, seed


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", action="append", default=[], metavar="NAME=folder:PATH", help="where NAME lies unpacked")
    ask.add_argument("--only", action="append", choices=LABELS)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--out", type=Path, default=RESULTS)
    given = ask.parse_args()
    elsewhere = dict(each.split("=", 1) for each in given.data)
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    torch.set_num_threads(1)
    for game, name, seed in left(done, given.only or [*LABELS], given.seeds):
        line = played(game, name, elsewhere.get(name, name), seed)
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        sys.stdout.write(f"{name} {game.entry} {game.form} seed {seed}: {line['seconds']} s\n")


if __name__ == "__main__":
    main()
