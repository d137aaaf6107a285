"""Who says what a made image shows: a person, a classifier that may reject it, or the nearest real image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainers.pool import Pool, integers, nobody, normal
from zoo.learner import Learner
from zoo.queries.latent import nearest_each
from zoo.selection import Selection

Person = Callable[[Tensor], Tensor]  # uint8 images (n c h w) -> labels (n,), -1 where nobody can tell


@dataclass(frozen=True, eq=False)
class Ledger:
    """What judging has cost and brought: labels of real images, of made ones, and refusals, each by itself.

    by: who judged. shown: how many images. accepted: positions in the selection that have a label, int64 (m,).
    rejected: the others, int64 (shown - m,). near: the real image each was compared with, int64 (shown,), if any was.
    asked: indices of real images whose label was asked for on the way, int64, those included that nobody could tell.
    """

    by: str
    shown: int
    accepted: Tensor
    rejected: Tensor
    asked: Tensor
    near: Tensor

    @property
    def counts(self) -> dict[str, int]:
        """real: labels asked of real images. made: labels that made images have got. rejected: that have got none."""
        return {"real": len(self.asked), "made": len(self.accepted), "rejected": len(self.rejected)}


def judge(
    selection: Selection,
    by: Person | Learner | Pool,
    confidence: float = 0.9,
    *,
    unique: bool = False,
    through: Learner | None = None,
) -> tuple[Tensor, Tensor, Ledger]:
    """Labels for the made images of a selection: what `pool.admit` takes, and a ledger.

    by: a function that shows images to a person and gives labels, -1 where they cannot tell; or a fitted learner,
        which rejects what it gives less than `confidence` to (in (0, 1]); or a pool, whose nearest real image lends
        its label: the known one, or else the oracle's, who may not be able to tell.
    unique: no real image is compared with two made ones; the first made one has the first choice.
    through: a fitted learner by whose features images are compared; without it, by their pixels.
    Returns images uint8 (m c h w), labels int64 (m,) and the ledger; rejected images are left out.
    Raises ValueError for a selection without made images, a confidence that is no share, a supposition, images of
    another shape, answers that are no labels, and more made images than real ones to compare with where each is to have
    its own; RuntimeError for a learner that is not fitted; TypeError for anything else that is to judge.
    """
    if selection.images is None:
        raise ValueError("this selection holds real images, which need no judge: pool.reveal(selection)")
    if not 0 < confidence <= 1:
        raise ValueError(f"confidence={confidence} must be in (0, 1]")
    images, none = selection.images, torch.empty(0, dtype=torch.int64)
    asked, near = none, none
    if isinstance(by, Learner):
        name = by.name
        best, labels = by.predict(images).max(1)
        labels = torch.where(best >= confidence, labels, -1)
    elif isinstance(by, Pool):
        name = "the nearest real image"
        near = compared(images, by, unique, through)
        labels = by.labels[near].clone()
        asked = near[labels < 0].unique()
        answers = torch.full_like(by.labels, -1)
        answers[asked] = told(by.oracle(asked.clone()), asked, by.classes) if len(asked) else asked
        labels = torch.where(labels < 0, answers[near], labels)
    elif callable(by):
        name = "a person"
        labels = told(by(images), images, None)
    else:
        raise TypeError(f"by={by!r} cannot judge: give a function that asks a person, a fitted learner, or a pool")
    places, taken = torch.arange(len(images)), labels >= 0
    ledger = Ledger(name, len(images), places[taken], places[~taken], asked, near)
    return images[taken.to(images.device)], labels[taken], ledger


def told(answers: Any, asked: Tensor, classes: int | None) -> Tensor:
    """What somebody has answered, int64 on the CPU, -1 where they cannot tell. Raises ValueError for anything else."""
    labels = integers(answers, f"{len(asked)} images were shown; labels are")
    if len(labels) != len(asked):
        raise ValueError(f"{len(asked)} images were shown, but {tuple(labels.shape)} labels came back")
    if strange := [n for n in labels.tolist() if n < -1 or (classes is not None and n >= classes)]:
        raise ValueError(f"label {strange[0]} is none: they are numbered from 0 on, and -1 says that nobody can tell")
    return labels


def compared(images: Tensor, pool: Pool, unique: bool, through: Learner | None) -> Tensor:
    """The index of the real image that each made one is compared with: uint8 (n c h w) -> int64 (n,)."""
    if pool.supposed.any():
        raise ValueError("this pool is a supposition: its labels are believed, not known. Judge by the real pool")
    if pool.shape != tuple(images.shape[1:]):
        raise ValueError(f"made images of shape {tuple(images.shape[1:])} do not fit a pool of {pool.shape}")
    if through is not None and through.parts is None:
        raise RuntimeError(f"{through.name} is not fitted. Call fit(pool) first, or create it with pretrained=...")
    if unique and len(images) > len(pool):
        raise ValueError(
            f"{len(images)} made images cannot each have one of {len(pool)} real ones; judge fewer at once"
        )
    if through is None and not unique:
        return nearest(images, pool)
    made, real = (described(some, pool, through) for some in (images.to(pool.images.device), pool.images))
    return (nearest_each(made, real)[0] if unique else torch.cdist(made, real).argmin(1)).cpu()


def described(images: Tensor, pool: Pool, through: Learner | None) -> Tensor:
    """What images (n c h w) of the pool's kind are compared by: features or pixels (n d)."""
    if through is None:
        return normal(images).flatten(1)
    return through.scan(Pool.hidden(images, pool.classes, nobody, pool.names)).features


def nearest(images: Tensor, pool: Pool, size: int = 4096) -> Tensor:
    """The index of the real image with the smallest squared pixel distance: uint8 (n c h w) -> int64 (n,).

    Blocks of `size` real images are compared at a time; ties go to the lower index.
    """
    made = normal(images.to(pool.images.device)).flatten(1)
    best = torch.full((len(made),), torch.inf, device=made.device)
    where = torch.zeros(len(made), dtype=torch.int64, device=made.device)
    for indices in torch.arange(len(pool)).split(size):
        gap, place = torch.cdist(made, normal(pool.take(indices)).flatten(1)).min(1)
        where = torch.where(gap < best, indices.to(made.device)[place], where)
        best = torch.minimum(gap, best)
    return where.cpu()
