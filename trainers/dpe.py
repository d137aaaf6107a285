"""Deep probabilistic ensembles: members that are trained together, as samples of one Gaussian for each weight.

Chitta, Alvarez & Lesnikowski 2018, "Deep Probabilistic Ensembles: Approximate Variational Inference through KL
Regularization". https://arxiv.org/abs/1811.02640

Each weight's mean and variance over the members are held near the Gaussian that networks start from (He), so that the
members stay apart. The form of the KL term is that of two Gaussians; which weights it runs over, the members' shared
batches and every number are ours, since the paper's own could not be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import supervised
from trainers.pool import Pool
from trainers.run import Run
from trainers.supervised import grown, pace, rate, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours."""

    beta: float = 1e-5  # weight of the KL, summed over all weights, against the sum of the members' cross-entropies
    weight_decay: float = 0.0  # the KL takes its place

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"beta": 0})


class Together(nn.Module):
    """Images (b c h w) to the logits of every member (m b k)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members])


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    members: Sequence[nn.Module],  # the others, trunk and head in one: (b c h w) -> (b k)
) -> None:
    plan = grown(plan, pool)
    nets = [nn.Sequential(trunk, head), *members]
    ensemble, ensemble_step = run.setup(Together(nets), supervised.optimizer(plan, *nets), "members")
    labeled = run.stream(pool.labeled, plan.batch)

    @run.whole
    def play(x: Tensor, y: Tensor) -> None:
        # Every member learns the labels; together they stay spread as wide as they started.
        logits = ensemble(x)
        wrong = torch.stack([F.cross_entropy(each, y) for each in logits]).sum()
        spread = spread_apart(nets)
        ensemble_step.zero_grad()
        run.backward(wrong + plan.beta * spread)
        ensemble_step.step()
        run.log("task/loss", wrong / len(nets))
        run.log("task/kl", spread)

    for step, (x, y) in zip(run.steps(plan.steps, "members"), labeled, strict=False):
        rate(ensemble_step, plan.lr * pace(plan, step, plan.steps))
        play(x, y)


def spread_apart(nets: Sequence[nn.Module], least: float = 1e-8) -> Tensor:
    """Over all weights of two axes or more, the KL of N(mean, variance over the members) from He's N(0, 2 / fan-in).

    least: of a variance, so that its logarithm stays finite.
    """
    total = next(nets[0].parameters()).new_zeros(())
    for together in zip(*(net.parameters() for net in nets), strict=True):
        if together[0].ndim > 1:
            weights = torch.stack([weight.movedim(1, -1) for weight in together])  # as they lie: channels last
            he = 2 / weights[0][0].numel()
            mean = weights.mean(0)
            variance = (weights - mean).square().mean(0) + least  # var() takes ten times as long over so few
            total = total + 0.5 * ((variance + mean.square()) / he - 1 - (variance / he).log()).sum()
    return total
