"""What a question about a pool takes in memory, told before anything is trained.

What a query holds grows with the unlabeled images: their features and copies of these, their probabilities, single
numbers. `ROOM` has it for every query of the zoo, rounded up: measured on 100,000 images or fewer, or reckoned from the
code (batch_bald, bait, gaal, and what `FIT` says). A test measures some of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainers import bounds
from trainers.pool import Pool
from zoo.device import fabric
from zoo.nets.common import Shape
from zoo.nets.trunk import Trunk
from zoo.queries.geometry import SIDE
from zoo.query import SHUFFLED
from zoo.scan import dropouts, evaluating

if TYPE_CHECKING:
    from zoo.learner import Learner

SPARE = 96 * 2**20  # bytes of pages and features that lie in memory all the same, and of what is not yet given back
BATCHES = 192 * 2**20  # bytes that come and go while batches pass through small networks, or blocks of distances
REBUILT = 20  # bytes for each pixel and channel of images that are rebuilt, and compared with what was made of them
TRAINED = 80 * 2**20  # bytes that stay taken after training


@dataclass(frozen=True)
class Room:
    """Numbers of four bytes that a query holds at most of each unlabeled image.

    d: features and copies of them; k: rows of probabilities; square: matrices of classes; one: single numbers. more: by
    the query's settings and n, further ones. known: labeled images take as much of d. Where d is 0, features are looked
    at a few rows after the other, and lie on a file if they are large.
    """

    d: float = 0
    k: float = 0
    square: float = 0
    one: float = 32
    more: Callable[[Mapping[str, Any], int], float] = lambda _, __: 0
    known: bool = False

    def of(self, d: int, k: int, settings: Mapping[str, Any], n: int) -> float:
        """All of these together, of d features and k classes."""
        return self.d * d + self.k * k + self.square * k**2 + self.one + self.more(settings, n)


DRAWN = Room(k=14)  # sums over draws
ROOM: Mapping[str, Room] = MappingProxyType(
    {
        "random": Room(),
        "least_confident": Room(k=4),
        "margin": Room(k=5),
        "entropy": Room(k=6),
        **dict.fromkeys(("mc_least_confident", "mc_margin", "mc_entropy", "mean_std", "variation_ratio"), DRAWN),
        **dict.fromkeys(("bald", "power_bald", "ensemble", "debal", "bgadl"), DRAWN),
        "batch_bald": DRAWN,
        "acs_fw": Room(k=14, more=lambda s, _: 6 * s["projections"]),
        "kcenter": Room(d=2, one=8, known=True),
        "ff_active": Room(d=2, one=8, known=True),
        "robust_kcenter": Room(d=3, one=80, more=lambda s, n: 0.65 * (n + s["others"]), known=True),
        "weighted_kmeans": Room(d=2, k=4),
        "suggestive": Room(d=2, k=5, one=72),
        "badge": Room(d=1, k=8),
        "bait": Room(d=5, k=6, square=24, known=True),
        "deepfool": Room(one=32),
        "dal": Room(d=4, more=lambda s, _: 3 * s["width"], known=True),
        "jlp": Room(d=4, more=lambda s, _: 40 * s["neighbours"], known=True),
        "typiclust": Room(d=5.2, known=True),
        "probcover": Room(d=6, known=True),
        **dict.fromkeys(("vaal", "ta_vaal", "aral", "llal"), Room()),
        "waal": Room(k=6),
        "ceal": Room(k=6),
        "dpe": Room(k=6),
        "gaal": Room(d=3, k=6, one=300),
    }
)
FIT = {"ssal": Room(d=6, one=800)}  # what a loop holds, where it is more than labels and the order of its streams
STRANGE = Room(d=3, k=14, one=72)  # what is taken for granted of a query of somebody else's
CHEAP = ("random", "least_confident", "margin", "entropy", "badge", "kcenter")  # named to who is refused


def holdable(learner: Learner, pool: Pool, n: int = 1, held_out: Tensor | None = None) -> None:
    """Raise ValueError where training on a pool of bounded memory, and asking for n of its images, would exceed it.

    held_out: uint8 (m c h w), images on which it is going to be diagnosed: an autoencoder rebuilds them all at once.
    What the networks themselves take, whatever the pool, shows as they learn: see `trainers.bounds.relieve`.
    """
    if (limit := pool.memory) is None:
        return
    if learner.device != "cpu":
        raise ValueError(f"memory={bounds.said(limit)} is kept on the CPU, not on {learner.device}: leave it out there")
    fabric(learner.device, learner.precision)  # what it imports counts
    parts = learner.build(pool.shape, pool.classes) if learner.parts is None else learner.parts
    query, u, d = learner.query, len(pool.unlabeled), width(parts, pool.shape)
    here = bounds.held() + SPARE + TRAINED * (learner.parts is None)
    rebuilt = 0 if held_out is None or learner.entry.rebuild is None else REBUILT * held_out.numel()

    def held(name: str, settings: Mapping[str, Any]) -> int:
        fit = FIT.get(learner.entry.name, Room()).of(d, pool.classes, {}, n)
        return here + max(BATCHES, rebuilt, 4 * round(u * max(fit, asked(name, settings, parts, pool, n))))

    settings = {**query.settings, **learner.query_settings}
    if query.cold and learner.parts is None and not len(pool.labeled) and "features" in settings:
        settings["features"] = "pixels"  # there is no trunk yet
    need = held(query.name.removesuffix(SHUFFLED), settings)
    if need <= limit:
        return
    fitting = [name for name in CHEAP if held(name, {}) <= limit]
    others = f", or ask by {', '.join(fitting)}, for which there is room" * bool(fitting)
    tested = f", and {len(held_out)} test images that it rebuilds" if held_out is not None and rebuilt else ""
    fewer = "a trunk with fewer features (width=8)"
    if settings.get("features") == "pixels":
        fewer += ", compared by these and not by pixels (query_settings={'features': 'task'})"
    raise ValueError(
        f"{learner.name} would hold {bounds.said(need)}, more than memory={bounds.said(limit)}: {bounds.said(here)} is "
        f"taken, and the rest is for batches, or for {u:,} unlabeled images of {d} features and {pool.classes} "
        f"classes{tested}. Give it more memory, fewer images (--subset), or {fewer}{others}"
    )


def asked(name: str, settings: Mapping[str, Any], parts: nn.ModuleDict, pool: Pool, n: int) -> float:
    """Numbers of four bytes that a query holds at most of each unlabeled image."""
    room, d = ROOM.get(name, STRANGE), width(parts, pool.shape)
    k = pool.classes * (1 + len(list(parts["members"].children())) if "members" in parts else 1)
    if settings.get("space") == "pixels":
        d = prod(pool.shape)
    elif settings.get("features") == "pixels":
        d = pool.shape[0] * min(SIDE, pool.shape[1]) * min(SIDE, pool.shape[2])
    u = max(1, len(pool.unlabeled))
    bound = settings.get("memory_mib", 0) * 2**18 / u  # batch_bald's own, for its draws
    draws = settings.get("draws", 0) if dropouts(parts["trunk"], parts["head"]) else 1
    more = room.d * d * len(pool.labeled) / u if room.known else 0.0
    return room.of(d, k, settings, n) + more + 2.0 * float(min(bound, k * draws))


def width(parts: nn.ModuleDict, shape: Shape) -> int:
    """How many features the trunk has."""
    trunk = parts["trunk"]
    if isinstance(trunk, Trunk):
        return trunk.d
    with evaluating(parts), torch.no_grad():
        return int(trunk(torch.zeros(1, *shape)).shape[1])
