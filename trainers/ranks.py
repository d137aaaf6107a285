"""Several processes that train the same networks together, each on its share of every batch: what they exchange.

All of them run the same program and meet in the same exchanges, in the same order; what only one of them does, alone or
by its own clock, must not contain any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. number: its own, from 0 on. of: how many there are."""

    number: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether files are this rank's to write."""
        return self.number == 0

    def part(self, n: int) -> slice:
        """This rank's part of n things in a row; parts differ by one at most."""
        return self.parts(n)[self.number]

    def parts(self, n: int) -> list[slice]:
        """Every rank's part of n things in a row."""
        return [slice(n * number // self.of, n * (number + 1) // self.of) for number in range(self.of)]


ALONE = Ranks()


def agreed(ranks: Ranks, compute: Callable[[], T]) -> T:
    """What the first rank computes, on every rank; what it raises is raised on every rank."""
    if ranks.of == 1:
        return compute()
    said: list[Any] = [None]
    if ranks.first:
        try:
            said = [(compute(), None)]
        except Exception as error:
            said = [(None, error)]
    dist.broadcast_object_list(said, src=0)
    value: T
    value, raised = said[0]
    if raised is not None:
        raise raised
    return value


def average(ranks: Ranks, tensors: Sequence[Tensor]) -> None:
    """Each tensor becomes its mean over the ranks, the same bits on all of them; one exchange for all together."""
    if ranks.of == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= ranks.of
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(mean.view_as(tensor))


def alike(ranks: Ranks, value: object) -> bool:
    """Whether all ranks give the same value."""
    if ranks.of == 1:
        return True
    values: list[object] = [None] * ranks.of
    dist.all_gather_object(values, value)
    return all(other == value for other in values)


def least(ranks: Ranks, values: Tensor) -> Tensor:
    """The smallest of each value over the ranks."""
    if ranks.of > 1:
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def joined(ranks: Ranks, part: Tensor, lengths: Sequence[int]) -> Tensor:
    """The parts of all ranks one after the other: (n_r ...), of which every rank knows every n_r -> (sum n_r ...)."""
    if ranks.of == 1:
        return part
    parts = [part.new_empty(n, *part.shape[1:]) for n in lengths]
    parts[ranks.number] = part.detach().contiguous()
    for number, each in enumerate(parts):
        if each.numel():
            dist.broadcast(each, src=number)
    return torch.cat(parts)
