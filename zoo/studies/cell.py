"""One cell of a study, a learner and a seed: round after round, so that it can be killed anywhere and go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors.torch import load as tensors
from safetensors.torch import save

import checkpoints
from trainers.pool import Pool
from trainers.ranks import Ranks, agreed
from trainers.run import Journal
from zoo import datasets, device
from zoo.catalogue import create, load
from zoo.device import peak_bytes
from zoo.journal import seldom, tensorboard
from zoo.judging import judge
from zoo.learner import Learner
from zoo.studies import maps
from zoo.studies.beliefs import pseudo_labels
from zoo.studies.controls import controls_of
from zoo.studies.files import put
from zoo.studies.fits import Fits
from zoo.studies.locks import held
from zoo.studies.oracles import wrong
from zoo.studies.provenance import provenance
from zoo.studies.records import images_of
from zoo.studies.study import Line, Study, augmentation, hushed, steps

PATIENCE = 64  # with a judge who rejects
Emit = Callable[[str, Line], None]  # ("record", its fields) or ("step", where a fit stands)


def run_cell(study: Study, out: Path, name: str, seed: int, done: list[Line], emit: Emit) -> None:
    """The rounds of one learner with one seed that are not in `done` yet, each emitted as a record.

    Of several ranks all call this; the first one writes, and says what is written.
    """
    ranks, file = device.ranks(study.devices or 1), partial(kept_aside, out, name, seed)
    with hushed():  # `prepare` has said already what there is to say of the data
        pool, test = study.pool(seed)
    images = images_of(out, seed, pool, test)
    learner, at = study.learner(name, seed, pool), -1  # and the round it has been fitted to
    fits = Fits(study, out, name, seed, pool)
    pools = relived(pool, done, partial(made, out, name, seed))  # of each round
    ticks = sum(record["ticks"] for record in done)

    def fit(number: int, write: Journal = nowhere, peak: Callable[[], int] = int) -> Line:
        """Train on the pool of that round, or take what an equal fit made; what that took, then or now."""
        nonlocal learner, at
        warm = study.warm and number > 0
        learner = study.paced(recall(number - 1).warm() if warm else learner, len(pools[number].labeled))
        learner, took = fits.fit(
            learner,
            pools[number],
            journal=lambda what, value, step: write(what, value, ticks + step),
            watch=seldom(lambda stage, n, steps: emit("step", {**who, "round": number, "done": (stage, n, steps)})),
            snapshot=file(number, "snapshot"),
            peak=peak,
        )
        at = number
        if study.warm and ranks.first:
            keep(learner, file(number, "safetensors"))
            file(number - 2, "safetensors").unlink(missing_ok=True)
        return took

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
        place = made(out, name, seed, number)
        asking = noted(file(number, "json"), lambda: ask(study, out, recall(number - 1), pools[-1], place), ranks)
        pools.append(told(pools[-1], asdict(asking), place))
        if ranks.first:
            _contact_sheet(pools[-1], new(pools), out / "asked" / name / f"seed{seed}-round{number}.png")
        return asking

    device.fabric(learner.device, learner.precision)  # imported and started before anything is timed
    lacking = datasets.left_out(pool.names, study.leave_out, study.seed("initial", seed))
    who = {"learner": name, "seed": seed}
    with tensorboard(out / "tb" / name / f"seed{seed}") if ranks.first else nullcontext(nowhere) as write:
        for number in range(len(done), study.rounds + 1):
            with peak_bytes() as peak:  # of the question and of the fit
                asking = asked(number) if number > 0 else Asking(pool.rounds[0].tolist(), None, None, None)
                took = fit(number, write, peak)
            ticks += learner.ticks
            stands = standing(study, name, learner, pools, test)
            write("al/accuracy", stands["accuracy"], stands["labels"])
            if seed == 0 and number == study.rounds:
                maps.draw(learner, pools[-1], maps.place(out, name, seed) if ranks.first else None)
            drawn = {**who, "round": number, "images": images, "left_out": lacking, **asdict(asking)}
            emit("record", {**drawn, **stands, **took, **provenance(), "notes": study.notes})


def nowhere(name: str, value: float, step: int) -> None:
    """The journal of a rank that writes nothing."""


def kept_aside(out: Path, name: str, seed: int, number: int, kind: str) -> Path:
    """What is kept of a round while the study goes on, so that it can be killed."""
    return out / "cells" / f"{name}-seed{seed}-round{number}.{kind}"


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
    """What a fitted learner asks for next. Images that it has made for it, and that got a label, go into a file.

    The budget counts labels, not what was shown for them: if a judge rejects too many, four times as many are shown,
    again and again, up to `PATIENCE` times the budget.
    """
    n = shown = study.budgets()[len(pool.rounds) - 1]
    most, seconds = min(PATIENCE * n, len(pool.unlabeled)), 0.0
    while True:
        start = time.perf_counter()
        selection = learner.select(pool, shown)
        seconds = round(seconds + time.perf_counter() - start, 4)
        if selection.images is None:
            return Asking(list(selection), selection.scores.tolist(), seconds, None)
        by = pool if study.judge == "nearest" else classifier(study, out)
        _, labels, ledger = judge(selection, by, study.confidence)
        if len(labels) >= n or shown >= most:
            break
        shown = min(4 * shown, most)
    taken, labels = ledger.accepted[:n], labels[:n]
    if len(taken) == n:
        shown = int(taken[-1]) + 1  # the others were not needed
    put(file, save({"images": selection.images[taken].contiguous()}))
    counts = {"real": len(ledger.asked), "made": len(taken), "rejected": shown - len(taken)}
    judged = {"by": study.judge, "shown": shown, "labels": labels.tolist(), **counts}
    return Asking([], selection.scores[taken].tolist(), seconds, judged)


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
