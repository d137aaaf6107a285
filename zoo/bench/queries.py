"""`alzoo bench`: what a query costs, beside a plain form of the same mathematics, measured in turn in one process.

Nothing here asserts anything about time. Each figure comes with its range; where there is a plain form, both answers
are compared on a small pool before either is timed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from trainers.pool import Pool, nobody
from zoo.device import peak_bytes
from zoo.nets.trunk import Head
from zoo.queries import QUERIES
from zoo.queries.bayesian import BLOCK, extended, told
from zoo.scan import Scan

Plain = Callable[[Scan, int], Tensor]  # (scan, n) -> positions (n,)

# A pool of this many unlabeled images, and how many of them are asked for, where the defaults would take minutes.
SLOWER: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "bait": (2_000, 20),
        "batch_bald": (500, 10),
        "dal": (50_000, 100),
        "jlp": (20_000, 50),
        "probcover": (10_000, 100),
        "robust_kcenter": (50_000, 200),
        "suggestive": (50_000, 100),
    }
)
SKIPPED = MappingProxyType({"deepfool": "it asks for gradients of a network, not for features"})


@dataclass(frozen=True)
class Figure:
    """One query: seconds of a call, and the memory that it took on top of what lay there, in MiB.

    plain: the same of the plain form, None where there is none. ratio: plain over ours, of the medians.
    """

    query: str
    unlabeled: int
    asked: int
    seconds: float
    least: float
    most: float
    mib: float
    plain: float | None = None
    plain_mib: float | None = None
    ratio: float | None = None


def queries(
    names: tuple[str, ...] = (), unlabeled: int = 50_000, asked: int = 1_000, d: int = 512, repeats: int = 3
) -> list[Figure]:
    """Time queries on made-up features (u d), a fiftieth as many labeled images, ten classes, dropout on the head.

    names: by default all that need no more than features.
    """
    figures = []
    for name in names or [name for name in QUERIES if name not in SKIPPED]:
        u, n = SLOWER.get(name, (unlabeled, asked))
        u, n = min(u, unlabeled), min(n, asked)
        if (form := PLAIN.get(name)) is not None:
            agree(name, form, d)
        figures.append(measure(name, form, u, n, d, repeats))
    return figures


def measure(name: str, form: Plain | None, u: int, n: int, d: int, repeats: int) -> Figure:
    """Our form and the plain one in turn: ours, plain, ours, plain."""
    own: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []
    for _ in range(repeats):
        own.append(timed(lambda scan: QUERIES[name].ask(scan, n), u, d))
        if form is not None:
            other.append(timed(lambda scan, form=form: form(scan, n), u, d))  # type: ignore[misc]
    seconds = [s for s, _ in own]
    middle, plain = median(seconds), median(s for s, _ in other) if other else None
    return Figure(
        query=name,
        unlabeled=u,
        asked=n,
        seconds=round(middle, 4),
        least=round(min(seconds), 4),
        most=round(max(seconds), 4),
        mib=round(median(m for _, m in own), 1),
        plain=None if plain is None else round(plain, 4),
        plain_mib=round(median(m for _, m in other), 1) if other else None,
        ratio=None if plain is None else round(plain / middle, 2),
    )


def timed(act: Callable[[Scan], object], u: int, d: int) -> tuple[float, float]:
    """Seconds, and MiB at the peak over what lay there before."""
    scan = made_up(u, max(1, u // 50), d)
    with peak_bytes() as peak:
        before, start = peak(), time.perf_counter()
        act(scan)
        seconds = time.perf_counter() - start
        return seconds, max(0, peak() - before) / 2**20


def made_up(u: int, known: int, d: int, classes: int = 10, seed: int = 0) -> Scan:
    """A scan of images that are black, of features that are drawn: clusters, as a trunk would make them."""
    chance = torch.Generator().manual_seed(seed)
    pool = Pool.hidden(torch.zeros(u + known, 1, 8, 8, dtype=torch.uint8), classes, nobody)
    pool = pool.reveal(torch.arange(known), labels=torch.arange(known) % classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = nn.ModuleDict({"trunk": nn.Flatten(), "head": Head(d, classes, 0.5)})
    scan = Scan(pool, parts)
    middles = 2 * torch.randn(classes * 5, d, generator=chance)
    kinds = torch.randint(len(middles), (u + known,), generator=chance)
    features = middles[kinds] + torch.randn(u + known, d, generator=chance)
    scan.known, scan.features = features[:known].clone(), features[known:].clone()
    return scan


def agree(name: str, form: Plain, d: int) -> None:
    """Raise RuntimeError where the two forms do not answer alike on a small pool."""
    scan = made_up(400, 8, d)
    n = 4 if name == "batch_bald" else 40
    if not torch.equal(QUERIES[name].ask(scan, n).positions, form(scan, n)):
        raise RuntimeError(f"bench: {name} and its plain form do not ask alike")


def plain_kcenter(scan: Scan, n: int) -> Tensor:
    """One pass over all features for each pick."""
    middle = (scan.features.sum(0) + scan.known.sum(0)) / (len(scan.features) + len(scan.known))
    x, known = scan.features - middle, scan.known - middle
    bound = torch.full_like(x[:, 0], torch.inf)
    for centre in known:
        bound = torch.minimum(bound, (x - centre).square().sum(1))
    picks = []
    for _ in range(n):
        best = bound.argmax()
        picks.append(best)
        bound = torch.minimum(bound, (x - x[best]).square().sum(1))
        bound[best] = -1
    return torch.stack(picks)


def plain_batch_bald(scan: Scan, n: int, draws: int = 100, configurations: int = 10_000) -> Tensor:
    """Every candidate is looked at for every pick."""
    p = torch.stack([log.exp() for log in scan.draws(draws)], 1)
    alone = -p.xlogy(p).sum(2).mean(1)
    weight, w = p.new_ones(1), p.new_full((1, draws), 1 / draws)
    left = torch.ones(len(p), dtype=torch.bool)
    picks, chance = [], scan.generator("batch_bald")
    for _ in range(n):
        gain = torch.cat([told(block, weight, w) for block in p.split(BLOCK)]) - alone
        best = int(torch.where(left, gain, -torch.inf).argmax())
        picks.append(best)
        left[best] = False
        weight, w = extended(weight, w, p[best], configurations, chance)
    return torch.tensor(picks)


PLAIN: Mapping[str, Plain] = MappingProxyType({"kcenter": plain_kcenter, "batch_bald": plain_batch_bald})


def record(figures: list[Figure]) -> dict[str, Any]:
    """What a file of figures says: the figures, and what they were measured on."""
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "figures": [asdict(figure) for figure in figures],
    }
