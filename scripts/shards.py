"""What is lost where a pool is looked at shard by shard: python scripts/shards.py [--out FILE]

Each shard gives its own answer of n images, and what is asked is chosen from all of these, which are few. For scores
that is exact. For choices that look at other choices, it is not: here is what it costs, on made-up features. A minute.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Generator, Tensor

from zoo.bench import record
from zoo.bench.queries import Size, made_up
from zoo.device import threads
from zoo.queries.diversity import from_known
from zoo.queries.geometry import Points, gaps, scattered
from zoo.queries.uncertainty import two_best
from zoo.scan import top

SIZE = Size(100_000, 100, 100, d=64)
SHARDS, TIMES = (10, 100), 10  # TIMES: what draws lots is drawn so often


def margin(shards: int) -> float:
    """How many of the n smallest margins the shards miss."""
    first, second = two_best(made_up(SIZE).probs)
    scores, n = second - first, SIZE.n
    merged = torch.cat([rows[top(scores[rows], n).positions] for rows in split(shards)])
    whole = top(scores, n).positions
    return float((merged[top(scores[merged], n).positions] != whole).sum())


def kcenter(shards: int) -> float:
    """The largest distance that is left, over that of the choice from all."""
    scan = made_up(SIZE)
    new, known = Points.of(scan.features), Points.of(scan.known)

    def left(picks: Tensor) -> float:
        centres = Points.of(torch.cat([scan.known, scan.features[picks]]))
        return float(gaps(new, centres).max().sqrt())

    merged = torch.cat([rows[from_known(new[rows], known, SIZE.n)[0]] for rows in split(shards)])
    chosen = merged[from_known(new[merged], known, SIZE.n)[0]]
    return left(chosen) / left(from_known(new, known, SIZE.n)[0])


def badge(shards: int) -> float:
    """The sum of squared distances to the nearest gradient asked, over that of the choice from all: medians."""
    scan = made_up(SIZE)
    best = torch.nn.functional.one_hot(scan.logits.argmax(1), SIZE.k)
    points = Points.of(scan.probs - best, scan.features)

    def draw(of: Points, chance: Generator) -> Tensor:
        return scattered(of, SIZE.n, chance, first=of.squares.argmax(keepdim=True))[0]

    def left(picks: Tensor) -> float:
        return float(gaps(points, points[picks]).sum(dtype=torch.float64))

    found, whole = [], []
    for seed in range(TIMES):
        chance = Generator().manual_seed(seed)
        merged = torch.cat([rows[draw(points[rows], chance)] for rows in split(shards)])
        found.append(left(merged[draw(points[merged], chance)]))
        whole.append(left(draw(points, chance)))
    return median(found) / median(whole)


def split(shards: int) -> tuple[Tensor, ...]:
    """Where the images of each shard are."""
    return torch.arange(SIZE.u).tensor_split(shards)


LOST = {"margin": margin, "kcenter": kcenter, "badge": badge}


def main() -> None:
    say = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "shards.json")
    given = say.parse_args()
    if given.out.exists():
        raise SystemExit(f"{given.out} exists. Give another file with --out")
    with threads(1):
        about: dict[str, Any] = {key: value for key, value in record([]).items() if key not in ("figures", "growth")}
        lost = {name: {str(m): round(of(m), 4) for m in SHARDS} for name, of in LOST.items()}
    what = {name: " ".join((of.__doc__ or "").split()) for name, of in LOST.items()}
    given.out.write_text(json.dumps({**about, "work": str(SIZE), "what": what, "lost": lost}, indent=1) + "\n")


if __name__ == "__main__":
    main()
