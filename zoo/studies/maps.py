"""A map of what a fitted learner sees: images of the pool in two dimensions, by what is known of them.

Drawing it changes nothing: no weight, no random number, no record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.pool import Pool
from zoo.entries.aral import critic_logit as aral
from zoo.entries.ta_vaal import judge as ta_vaal
from zoo.entries.vaal import critic_logit as vaal
from zoo.learner import Learner
from zoo.query import SHUFFLED
from zoo.scan import Scan
from zoo.studies.files import put

MOST = {"unlabeled": 800, "labeled": 400, "asked": 300}  # points of each kind; asked: in the last round
WIDE = 1000  # coordinates are whole numbers from 0 to this

Show = Callable[[nn.ModuleDict, Tensor], Any]  # shows images (b c h w) to the critic
LATENTS: Mapping[str, Show] = {"vaal": vaal, "ta_vaal": ta_vaal, "aral": aral}  # whose critic reads a latent


def place(out: Path, name: str, seed: int) -> Path:
    """Where the map of a learner lies in a study's folder."""
    return out / "map" / name / f"seed{seed}.jsonl"


def draw(learner: Learner, pool: Pool, path: Path | None) -> None:
    """Write one line of JSON: where the learner sees images of each kind of MOST, evenly spaced over the pool.

    The plane is that of the two widest directions (PCA) of what its critic reads, if it asks by a latent (`LATENTS`),
    else of its classifier's features. Both axes have one scale, and PCA fixes their signs by the largest loading, so
    that the same weights give the same map. The file holds the `space` in words, the `shares` of variance along the
    axes, the number of images it is a sample `of`, the names of all `classes`, and `points`: for each kind pairs of
    whole numbers in [0, WIDE].
    No file is written where what is seen is not finite. path: None for all ranks but the first, which look, too.
    """
    asks_itself = learner.query.name.removesuffix(SHUFFLED) == learner.entry.query.name
    show = LATENTS.get(learner.entry.name) if asks_itself else None
    kinds = {kind: some(indices, MOST[kind]) for kind, indices in known(pool).items()}
    scan, shown = learner.scan(pool), torch.cat([*kinds.values()])
    seen = scan.each(scan.parts["trunk"], of=shown) if show is None else latent(scan, show, shown)
    if path is None or not seen.isfinite().all():
        return
    places, shares = plane(seen.flatten(1).double().cpu())
    points = places.split([len(indices) for indices in kinds.values()])
    told = {
        "space": "features of the classifier" if show is None else "latent that the critic reads",
        "shares": shares,
        "of": len(pool),
        "classes": list(pool.names),
        "points": {kind: own.tolist() for kind, own in zip(kinds, points, strict=True)},
    }
    put(path, json.dumps(told, separators=(",", ":")).encode() + b"\n")


def known(pool: Pool) -> dict[str, Tensor]:
    """Indices of the pool's own images by kind."""
    last = pool.rounds[-1] if len(pool.rounds) > 1 else pool.rounds[0][:0]  # nobody has asked for the initial set
    labeled = pool.labeled[pool.labeled < len(pool)]  # without images that somebody has made
    return {
        "unlabeled": pool.unlabeled[~torch.isin(pool.unlabeled, last)],
        "labeled": labeled[~torch.isin(labeled, last)],
        "asked": last,
    }


def some(indices: Tensor, most: int) -> Tensor:
    """At most so many of them, evenly spaced."""
    return indices if len(indices) <= most else indices[torch.arange(most) * len(indices) // most]


def latent(scan: Scan, show: Show, of: Tensor) -> Tensor:
    """What the critic reads of these images: (n z)."""
    read: list[Tensor] = []
    hook = scan.parts["critic"].register_forward_pre_hook(lambda _, given: read.append(given[0]))

    def view(x: Tensor) -> Tensor:
        show(scan.parts, x)
        return read.pop()

    try:
        return scan.each(view, of=of)
    finally:
        hook.remove()


def plane(seen: Tensor) -> tuple[Tensor, list[float]]:
    """Points (n d) in the plane of their two widest directions, int (n 2) in [0, WIDE]; their shares of variance."""
    from sklearn.decomposition import PCA

    places, shares = torch.zeros(len(seen), 2, dtype=torch.float64), [0.0, 0.0]
    if len(seen) and (seen != seen[0]).any():  # else they are one point
        axes = min(2, *seen.shape)
        pca = PCA(axes, random_state=0)
        places[:, :axes] = torch.from_numpy(pca.fit_transform(seen.numpy()))
        shares[:axes] = [round(float(share), 4) for share in pca.explained_variance_ratio_]
        low, high = places.amin(0), places.amax(0)
        places = (places - (low + high) / 2) / (high - low).amax()
    return (WIDE * (places + 0.5)).round().int(), shares


def read(path: Path) -> dict[str, Any] | None:
    """What `draw` wrote; None where there is nothing, or nothing whole."""
    if not os.path.isfile(path):  # unlike pathlib's, False for a name too long for the file system
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        [[int(x), int(y)] for own in told["points"].values() for x, y in own]
        str(told["space"]), int(told["of"]), [float(share) for share in told["shares"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return told
