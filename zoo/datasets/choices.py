"""Which images: of the initial set, of an uneven pool, of the test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from trainers.numbers import whole
from trainers.seeds import generator
from zoo.naming import pick


def initial_set(
    targets: Tensor, names: Sequence[str], initial: int, seed: int, balanced: bool, without: Sequence[int] = ()
) -> Tensor:
    """Indices of the initial set: int64 (initial,), ascending. without: classes that it has none of."""
    initial = whole("initial", initial)
    if not 0 <= initial <= len(targets):
        raise ValueError(
            f"initial={initial} of a pool of {len(targets)} images is not possible; give 0..{len(targets)}"
        )
    chance = generator(seed, "initial")
    shuffled = torch.randperm(len(targets), generator=chance)
    wanted = torch.ones(len(names), dtype=torch.bool)
    wanted[list(without)] = False
    shuffled = shuffled[wanted[targets[shuffled]]]
    if initial > len(shuffled):
        raise ValueError(
            f"initial={initial}, but without {', '.join(names[k] for k in without)} there are {len(shuffled)} images; "
            "give fewer, or leave out fewer classes"
        )
    if not balanced or not initial:
        return shuffled[:initial].sort().values
    among = int(wanted.sum())
    each, left_over = divmod(initial, among)
    if not each:
        raise ValueError(f"initial={initial} cannot be balanced over {among} classes; give {among} or more")
    counts = targets.bincount(minlength=len(names))
    rich = ((counts > each) & wanted).nonzero().squeeze(1)
    if (poor := ((counts < each) & wanted).nonzero().squeeze(1)).numel() or len(rich) < left_over:
        least = int(poor[0] if len(poor) else counts.where(wanted, len(targets)).argmin())
        raise ValueError(
            f"initial={initial} cannot be balanced: class {names[least]!r} has only {int(counts[least])} images; "
            "give fewer, or balanced=False"
        )
    more = rich[torch.randperm(len(rich), generator=chance)[:left_over]]
    quota = (each * wanted.long()).index_add(0, more, torch.ones_like(more))
    chosen = [shuffled[targets[shuffled] == k][: int(n)] for k, n in enumerate(quota)]
    return torch.cat(chosen).sort().values


def left_out(names: Sequence[str], leave_out: int | Sequence[str], seed: int) -> list[int]:
    """The numbers of the classes that `data` leaves out of the initial set, ascending."""
    if isinstance(leave_out, str):
        leave_out = [leave_out]
    if isinstance(leave_out, Sequence):
        chosen = sorted({*numbers(leave_out, names)})
    else:
        if not 0 <= (n := whole("leave_out", leave_out)) <= len(names):
            raise ValueError(f"leave_out={n} of {len(names)} classes is not possible; give 0..{len(names) - 1}")
        chosen = sorted(torch.randperm(len(names), generator=generator(seed, "left out"))[:n].tolist()) if n else []
    if len(chosen) == len(names):
        raise ValueError(f"leave_out={leave_out!r} leaves no class to start with; leave out fewer")
    return chosen


def numbers(classes: Sequence[str], names: Sequence[str]) -> list[int]:
    """The numbers of classes that are given by name, or by number where no name is one."""
    number = {name: k for k, name in enumerate(names)}
    if not any(name.isdigit() for name in names):
        number |= {str(k): k for k in range(len(names))}
    return [pick(number, str(name), "class") for name in classes]


def thinned(targets: Tensor, names: Sequence[str], imbalance: str, seed: int) -> Tensor:
    """Indices of the images that stay in an imbalanced pool: int64 (n,), ascending."""
    counts = uneven(targets.bincount(minlength=len(names)).tolist(), imbalance)
    if 0 in counts:
        raise ValueError(f"imbalance={imbalance!r} leaves nothing of class {names[counts.index(0)]!r}; lower the ratio")
    chance = generator(seed, "imbalance")
    order = torch.randperm(len(targets), generator=chance)
    return torch.cat([order[targets[order] == k][:n] for k, n in enumerate(counts)]).sort().values


def uneven(counts: Sequence[int], imbalance: str) -> list[int]:
    """How many images of each class an imbalance leaves: "alternating:RATIO" or "long-tailed:RATIO".

    Alternating is that of TA-VAAL's CIFAR (50, 5000, 50, ... at ratio 100), long-tailed that of Cui et al. 2019
    (https://arxiv.org/abs/1901.05555): n ratio^(-k / (classes - 1)), rounded down.
    """
    kind, _, text = imbalance.partition(":") if isinstance(imbalance, str) else ("", "", "")
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if kind not in ("alternating", "long-tailed") or not 1 < ratio < math.inf:
        raise ValueError(
            f"imbalance={imbalance!r} is neither alternating:RATIO nor long-tailed:RATIO with a ratio above 1; "
            "give alternating:100, for example"
        )
    if kind == "alternating":
        return [n if k % 2 else int(n / ratio) for k, n in enumerate(counts)]
    return [int(n * (1 / ratio) ** (k / (len(counts) - 1))) for k, n in enumerate(counts)]


def share(name: str, value: Any) -> float:
    """A share that leaves something on both sides; ValueError for any other."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(f"{name}={value!r} is not between 0 and 1; give 0.2 for every fifth image")
    return float(value)


def parted(targets: Tensor, names: Sequence[str], share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A share of each class for the test: indices of the rest (n,) and of the test (m,), ascending."""
    chance, test = generator(seed, "test split"), torch.zeros(len(targets), dtype=torch.bool)
    for k, name in enumerate(names):
        mine = (targets == k).nonzero().squeeze(1)
        if len(mine) < 2:
            raise ValueError(f"class {name!r} has {len(mine)} images; a pool and a test need two or more")
        n = min(max(round(share * len(mine)), 1), len(mine) - 1)
        test[mine[torch.randperm(len(mine), generator=chance)[:n]]] = True
    return (~test).nonzero().squeeze(1), test.nonzero().squeeze(1)
