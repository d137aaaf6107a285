"""Several batches through one network: together, under one set of batch statistics, or apart, each under its own.

Where a critic compares what a network makes of labeled and of unlabeled images, batch normalisation apart hides what
sets the two apart as wholes, and may turn it around when the pool is scored by running averages. The released codes
pass them apart; ours pass them together. What it changed is measured in the loops that do so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def through(module: nn.Module, batches: Sequence[tuple[Tensor, ...]], *, apart: bool) -> list[Any]:
    """What a module makes of each batch, where a batch is all that the module takes: (b ...) and so on."""
    if apart:
        return [module(*batch) for batch in batches]
    sizes = [len(batch[0]) for batch in batches]
    out = module(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    if isinstance(out, Tensor):
        return list(out.split(sizes))
    return list(zip(*(part.split(sizes) for part in out), strict=True))
