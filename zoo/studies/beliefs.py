"""How right learners are where they label images by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from trainers.pool import UNKNOWN, Pool
from zoo.entries.ceal import believed
from zoo.entries.ssal import spread
from zoo.learner import Learner
from zoo.scan import Scan
from zoo.studies.oracles import Noisy


def spread_over_all(scan: Scan, plan: Any) -> tuple[Tensor, Tensor]:
    """ssal's labels: indices of all unlabeled images (u,), and what has spread to each (u,), on the CPU.

    None of either for a plan that spreads no labels.
    """
    if plan.semi != "propagation":
        return scan.pool.unlabeled[:0], scan.pool.unlabeled[:0]
    return scan.pool.unlabeled, spread(scan, plan).labels[len(scan.known) :].cpu()


BELIEFS: Mapping[str, Callable[[Scan, Any], tuple[Tensor, Tensor]]] = {
    "ceal": lambda scan, plan: believed(scan),  # noqa: ARG005 (it carries its threshold with it)
    "ssal": spread_over_all,
}


def pseudo_labels(learner: Learner, pool: Pool) -> dict[str, float] | None:
    """How many unlabeled images the fitted learner labels by itself, and the `precision`: what share of these is right.

    None for a learner that labels none. For studies alone, in which the truth can be had: no learner is told of it.
    """
    if learner.entry.name not in BELIEFS or not len(pool.unlabeled):
        return None
    indices, labels = BELIEFS[learner.entry.name](learner.scan(pool), learner.loop)
    if not len(indices):
        return None
    oracle = pool.oracle.truth if isinstance(pool.oracle, Noisy) else pool.oracle
    truth = oracle(indices)
    told = truth != UNKNOWN
    return {"count": len(indices), "precision": (labels == truth)[told].double().mean().item()} if told.any() else None
