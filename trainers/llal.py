"""Learning loss: a small head reads the task network on its way and learns which of two images has the larger loss.

Yoo & Kweon, CVPR 2019. https://arxiv.org/abs/1905.03677

The paper learns from pairs, since the losses themselves shrink while the network trains: a hinge on the difference of
two predictions, whose targets pass no gradient. The head shapes the task network too, until a share of the training is
done; from then on it only watches. Its authors published no code. The usual one by others keeps the networks from
round to round, and drops the learning rate one epoch early; here every round starts anew. It pools by fixed sizes
(32, 16, 8, 4); here every map is averaged whole, whatever its size.

The images of a batch are paired from both ends, the first with the last; of an odd batch the middle one has no pair.
A pair of equal losses counts as if the second were larger, as in that code.
The published weight of the pairs is 1. On digits with 90 labels it costs accuracy: 0.944 at 1, 0.958 at 0.1, 0.962
under plain training (one CPU thread, means of 3 seeds). Ours is 0.1.

This loop is also the first half of TA-VAAL, with the logistic form of the pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import supervised
from trainers.pool import Pool
from trainers.run import Run
from trainers.supervised import grown, optimizer, pace, rate, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. The task network's settings are those of the plain loop."""

    pairs: Literal["hinge", "logistic"] = "hinge"  # how far two predictions are from the right order
    weight: float = 0.1  # of the pairs beside the cross-entropy (the paper's lambda)
    margin: float = 1.0  # of the hinge (the paper's xi)
    joint: float = 0.6  # share of the steps in which the ranker shapes the trunk too

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"weight": 0, "margin": 0, "joint": 0}, choices={"pairs": tuple(PAIRS)})


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d); its `stages` are the modules whose maps the ranker reads
    head: nn.Module,  # (b d) -> (b k)
    ranker: nn.Module,  # maps [(b c h w) or (b n d), one per stage] -> predicted loss (b,)
) -> None:
    plan = grown(plan, pool)
    task, task_step = run.setup(Meeting(trunk, head, ranker), optimizer(plan, trunk, head, ranker), "task")

    @run.whole
    def play(x: Tensor, y: Tensor, *, joint: bool) -> None:
        # The task network learns from the labels, and the ranker which of two images has the larger loss.
        logits, predicted = task(x, joint=joint)
        losses = F.cross_entropy(logits, y, reduction="none")
        order = PAIRS[plan.pairs](predicted, losses.detach(), plan.margin)
        task_step.zero_grad()
        run.backward(losses.mean() + plan.weight * order)
        task_step.step()

        run.log("task/loss", losses.mean())
        run.log("task/accuracy", (logits.argmax(1) == y).float().mean())
        run.log("ranker/loss", order)
        run.log("ranker/right", ((ahead(predicted) > 0) == (ahead(losses) > 0)).float().mean())

    for step, (x, y) in zip(run.steps(plan.steps, "task"), run.stream(pool.labeled, plan.batch), strict=False):
        rate(task_step, plan.lr * pace(plan, step, plan.steps))
        play(x, y, joint=step < round(plan.joint * plan.steps))


class Meeting(nn.Module):
    """Images (b c h w) to logits (b k) and predicted losses (b,): where trunk, head and ranker meet.

    joint: whether the ranker's gradient goes on into the trunk; if not, it only watches.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, ranker: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head, self.ranker = trunk, head, ranker

    def forward(self, x: Tensor, joint: bool = True) -> tuple[Tensor, Tensor]:
        features, maps = read(self.trunk, x)
        return self.head(features), self.ranker([m if joint else m.detach() for m in maps])


def read(trunk: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Images (b c h w) to the trunk's features (b d), and to the map that each of its `stages` makes on the way."""
    maps: list[Tensor] = []
    stages = cast(Iterable[nn.Module], trunk.stages)
    hooks = [stage.register_forward_hook(lambda _module, _given, out: maps.append(out)) for stage in stages]
    try:
        features: Tensor = trunk(x)
    finally:
        for hook in hooks:
            hook.remove()
    return features, maps


def ahead(values: Tensor) -> Tensor:
    """By how much the first of each pair is above the second: (b,) -> (b // 2,), i against b - 1 - i."""
    return (values - values.flip(0))[: len(values) // 2]


def hinge(predicted: Tensor, losses: Tensor, margin: float) -> Tensor:
    """How far the larger loss is from being predicted larger by the margin, a mean over pairs."""
    sign = torch.where(ahead(losses) > 0, 1.0, -1.0)
    return (margin - sign * ahead(predicted)).clamp(min=0).mean()


def logistic(predicted: Tensor, losses: Tensor, margin: float) -> Tensor:  # noqa: ARG001
    """How surprising the order of the losses is, if sigmoid of a difference is the chance of the first being larger.

    Saquil, Kim & Hall, "Ranking CGANs", BMVC 2018. https://arxiv.org/abs/1804.04082
    """
    return F.binary_cross_entropy_with_logits(ahead(predicted), (ahead(losses) > 0).float())


PAIRS = {"hinge": hinge, "logistic": logistic}
