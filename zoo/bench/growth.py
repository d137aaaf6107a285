"""How the time of a query grows with the pool: one look at each size, features on a memory map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.bench import Growth, timed
from zoo.bench.queries import SETTINGS, Size, into, made_up
from zoo.queries import QUERIES
from zoo.register import affordable

POOLS = (10_000, 100_000, 1_000_000)
PATIENCE = 60.0  # seconds that a query may be expected to take at the next size


def grown(
    names: Sequence[str] = (), pools: Sequence[int] = POOLS, n: int = 100, watch: Callable[[str], None] = lambda _: None
) -> list[Growth]:
    """Every query, or these, asked for n images of each pool: 64 features, 100 labeled, 10 classes, 10 draws."""
    sizes = [Size(u, n, 100, d=64) for u in sorted(pools)]
    with TemporaryDirectory() as folder:
        features = {size.u: on_disk(Path(folder) / f"{size.u}.npy", size) for size in sizes}
        return [follow(name, sizes, features, watch) for name in names or QUERIES]


def follow(name: str, sizes: Sequence[Size], features: dict[int, Tensor], watch: Callable[[str], None]) -> Growth:
    """One query, from the smallest pool up, until it refuses or would take too long."""
    query, settings = QUERIES[name], asked_with(name)
    seconds: dict[int, float] = {}
    mib, note = 0.0, ""
    for size in sizes:
        watch(f"{name}, {size.u:,}")
        try:
            affordable(query, size.u, settings)
        except ValueError:
            note = f"refuses {size.u:,}"
            break
        if (expected := onwards(seconds, size.u)) > PATIENCE:
            note = f"{size.u:,} not tried: some {expected:.0f} s"
            break
        scan = made_up(size, features[size.u])
        assert len(scan.probs) == size.u
        seconds[size.u], _, mib = timed(partial(query.ask, scan, n_of(size, name), **settings))
    return Growth(
        query=name,
        cost=query.cost,
        work=f"{n_of(sizes[0], name)} asked, {sizes[0].d} features",
        seconds={str(u): float(f"{s:.4g}") for u, s in seconds.items()},
        mib=round(mib, 1),
        exponent=round(slope(seconds), 2) if len(seconds) > 1 else None,
        note=note,
    )


def n_of(size: Size, name: str) -> int:
    """How many are asked for: fewer where each is a matter of large matrices."""
    return min(size.n, 10) if name in ("bait", "batch_bald") else size.n


def asked_with(name: str) -> dict[str, Any]:
    """Settings of a query: ten draws are enough to see how time grows."""
    draws = {"draws": 10} if "draws" in QUERIES[name].settings else {}
    return {**SETTINGS.get(name, {}), **draws}


def slope(seconds: dict[int, float]) -> float:
    """The exponent of the power of u that comes closest to these seconds by u."""
    logs = [math.log(u) for u in seconds], [math.log(s) for s in seconds.values()]
    power: float = linear_regression(*logs).slope
    return power


def onwards(seconds: dict[int, float], u: int) -> float:
    """The seconds to be expected at u: by the last two, or in proportion to the last; 0 where there is none."""
    if not seconds:
        return 0.0
    last = max(seconds)
    power = max(1.0, slope(dict(list(seconds.items())[-2:]))) if len(seconds) > 1 else 1.0
    return seconds[last] * math.pow(u / last, power)


def on_disk(path: Path, size: Size) -> Tensor:
    """Features (l + u, d) on a memory map."""
    kept = np.lib.format.open_memmap(path, "w+", np.float32, (size.u + size.l, size.d))
    return into(torch.from_numpy(kept))
