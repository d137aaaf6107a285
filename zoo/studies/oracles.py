"""An oracle that is wrong now and then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainers.pool import UNKNOWN, Oracle, Pool
from trainers.seeds import key
from zoo.naming import pick


@dataclass(frozen=True, eq=False)
class Noisy:
    """The answers of another oracle, a share of them wrong.

    Whether an image gets a wrong answer, and which, depends on the seed and the image's index alone: asked again, it
    gets the same one. With a larger share, what was wrong stays wrong in the same way.
    others: for each class, those it can be taken for; a class with none is always told right.
    """

    truth: Oracle
    share: float
    others: tuple[tuple[int, ...], ...]
    seed: int

    def __call__(self, indices: Tensor) -> Tensor:
        asked, known = indices.tolist(), self.truth(indices).tolist()
        return torch.tensor([self._said(i, k) for i, k in zip(asked, known, strict=True)], dtype=torch.int64)

    def _said(self, index: int, known: int) -> int:
        others = () if known == UNKNOWN else self.others[known]
        if not others or key(self.seed, "wrong", index) >= self.share * 2**63:
            return known
        return others[key(self.seed, "wrong answer", index) % len(others)]


def noisy(pool: Pool, share: float, groups: Sequence[Sequence[str]], seed: int) -> Pool:
    """The pool with the same rounds, from the initial set on asked of an oracle that errs.

    groups: names of classes that are taken for one another; by default every class for every other. Raises as `among`.
    """
    oracle = Noisy(pool.oracle, share, among(groups, pool.names), seed)
    fresh = replace(pool, oracle=oracle, labels=torch.full_like(pool.labels, UNKNOWN), rounds=())
    for indices in pool.rounds:
        fresh = fresh.reveal(indices)
    return fresh


def among(groups: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """For each class, the numbers of those it is grouped with.

    Raises UnknownName for a class that is none, ValueError for one named twice or alone in its group.
    """
    number = {name: k for k, name in enumerate(names)}
    numbers = [[pick(number, name, "class") for name in group] for group in groups] or [list(range(len(names)))]
    others: list[tuple[int, ...]] = [()] * len(names)
    for group in numbers:
        if len(group) < 2:
            raise ValueError(f"groups: {names[group[0]] if group else 'a group'!r} is alone; name two or more classes")
        for k in group:
            if others[k] or group.count(k) > 1:
                raise ValueError(f"groups: class {names[k]!r} is named twice; name each class once")
            others[k] = tuple(other for other in group if other != k)
    return tuple(others)


def wrong(pool: Pool) -> int:
    """How many of the labels known so far are not the truth."""
    if not isinstance(pool.oracle, Noisy):
        return 0
    asked = torch.cat(pool.rounds)
    asked = asked[pool.labels[asked] != UNKNOWN]
    return int((pool.oracle.truth(asked) != pool.labels[asked]).sum())
