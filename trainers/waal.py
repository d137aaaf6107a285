"""Wasserstein adversarial active learning: a critic on the features measures how far the labeled lie from the rest.

Shui, Zhou, Gagne & Wang, AISTATS 2020. https://arxiv.org/abs/1911.09162 (code: cjshui/WAAL)

The paper bounds the risk by that on the labeled images plus the Wasserstein distance between the labeled and all
images. A critic estimates the distance by Kantorovich's duality, for which it has to be 1-Lipschitz; trunk and head
minimise both, so that the unlabeled images train them too. The released code differs in four places:

- Its critic subtracts the gradient penalty inside a loss that is minimised, so that it is driven away from being
  1-Lipschitz. Ours adds it; the released sign is `penalty="released"`.
- Its critic ends in a sigmoid, and learns by SGD on a loss times alpha: steps of 2e-5, under which it hardly moves.
  Ours is linear (`critic_output`) and learns by Adam, which no factor slows down (`critic_optimizer`, `lr_critic`).
- It weighs the mean over the labeled by |L| / |U|. For all images against the labeled ones the duality gives
  |U| / (|L| + |U|) times the plain difference of the means, a factor that alpha takes in: the weight is one
  (`gamma`). The paper's own bias coefficient, C0, could not be read; no plan here claims to have it.
- It adds the penalty to the loss of trunk and head as well, on features that carry no gradient and with the critic
  frozen: a constant there, and left out here.

Also there, and nowhere here: every image passes the trunk three times a step, so that the running statistics of batch
normalisation move three times (here once, or twice without `reuse_features`); the last batch of an epoch is smaller.

One epoch has max(|L|, |U|) pairs; the i-th holds U[i mod |U|] and L[i mod |L|] (the paper's redundancy trick). The
steps are those of plain training, though: the released epochs repeat a label 49 times at 1,000 labels of 50,000, and
whoever compares with a baseline of fewer steps measures the steps.

Labeled and unlabeled images pass the trunk apart in the released code, each under their own batch statistics, while
queries see all under the same. What the critic has learned then need not hold where it is asked: with dark images
labeled and bright ones not, and ours otherwise, 10 to 20 of 20 asked images were bright (6 seeds, 250 steps, width 16);
with both in one pass, all 20 were, in every seed. One pass is ours; the released way is `apart=True`.

With nothing unlabeled this is the plain loop.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from trainers import supervised
from trainers.losses import auc
from trainers.passes import through
from trainers.players import looking_on
from trainers.pool import Pool
from trainers.run import Run
from trainers.supervised import adam, grown, late, optimizer, pace, rate, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. The task network's settings are those of the plain loop."""

    alpha: float = 5e-4  # weight of the distance (the paper's mu); with 0 the critic would learn nothing
    gamma: Literal["one", "ratio"] = "one"  # weight of the labeled mean in it: 1, or |L| / |U| as released
    critic_steps: int = 1  # of the critic for each step of the task network, all on the same batch
    critic_optimizer: Literal["adam", "sgd"] = "adam"
    lr_critic: float = 2e-3
    penalty: Literal["added", "released"] = "added"  # released: subtracted
    penalty_weight: float = 10.0  # against the distance
    apart: bool = False  # labeled and unlabeled images pass the trunk apart, each with their own batch statistics
    reuse_features: bool = True  # the critic sees the features from before the task network's step

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"critic_steps": 1, "penalty_weight": 0}, above={"alpha": 0, "lr_critic": 0})
        require(self, choices={"gamma": ("one", "ratio"), "critic_optimizer": ("adam", "sgd")})
        require(self, choices={"penalty": tuple(SIGNS)})


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    critic: nn.Module,  # (b d) -> D (b,), high means unlabeled, and its gradient by the features (b d)
) -> None:
    if not len(pool.unlabeled):
        run.say("waal: nothing is unlabeled, so there is no distance to measure and the critic is not trained")
        supervised.train(run, pool, plan, trunk=trunk, head=head)
        return

    plan = grown(plan, pool)
    gamma = 1.0 if plan.gamma == "one" else len(pool.labeled) / len(pool.unlabeled)
    trunk, trunk_step = run.setup(trunk, optimizer(plan, trunk), "trunk")
    head, head_step = run.setup(head, optimizer(plan, head), "head")
    critic, critic_step = run.setup(critic, critic_optimizer(plan, critic), "critic")
    pairs = run.stream(paired(pool.labeled, pool.unlabeled), plan.batch)

    @run.whole
    def play(images: Tensor, answers: Tensor) -> None:
        (x, u), (y, _) = images.chunk(2), answers.chunk(2)

        # Trunk and head learn the labels, and bring labeled and unlabeled features together.
        features_x, features_u = through(trunk, [(x,), (u,)], apart=plan.apart)
        logits = head(features_x)
        loss = F.cross_entropy(logits, y)
        with looking_on(critic):
            (D_u, _), (D_x, _) = critic(features_u), critic(features_x)
        distance = D_u.mean() - gamma * D_x.mean()
        trunk_step.zero_grad()
        head_step.zero_grad()
        run.backward(loss + plan.alpha * distance)
        trunk_step.step()
        head_step.step()

        # The critic drives D apart as far as a slope of one allows: at its highest, the distance is Wasserstein's.
        if not plan.reuse_features:
            with torch.no_grad():
                features_x, features_u = through(trunk, [(x,), (u,)], apart=plan.apart)
        features_x, features_u = features_x.detach().float(), features_u.detach().float()
        for _ in range(plan.critic_steps):
            steep = penalty(critic, features_x, features_u)
            (D_u, _), (D_x, _) = critic(features_u), critic(features_x)
            distance = D_u.mean() - gamma * D_x.mean()
            critic_step.zero_grad()
            run.backward(plan.alpha * (SIGNS[plan.penalty] * plan.penalty_weight * steep - distance))
            critic_step.step()

        run.log("task/loss", loss)
        run.log("task/accuracy", (logits.argmax(1) == y).float().mean())
        run.log("critic/distance", distance)
        run.log("critic/penalty", steep)
        run.log("critic/auc", auc(D_u, D_x))

    for step, (images, answers) in zip(run.steps(plan.steps, "game"), pairs, strict=False):
        rate(trunk_step, plan.lr * pace(plan, step, plan.steps))
        rate(head_step, plan.lr * pace(plan, step, plan.steps))
        rate(critic_step, plan.lr_critic * late(plan, step, plan.steps))
        play(images, answers)


def paired(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """(l,) and (u,) to max(l, u) pairs (n 2): the shorter list again and again, in its order."""
    i = torch.arange(max(len(labeled), len(unlabeled)))
    return torch.stack([labeled[i % len(labeled)], unlabeled[i % len(unlabeled)]], 1)


def penalty(critic: nn.Module, x: Tensor, u: Tensor) -> Tensor:
    """How far the critic's slope is from one: the mean of (|gradient| - 1)^2 on features (b d) of both and between."""
    between = u + torch.rand(len(u), 1, device=u.device) * (x - u)
    _, slope = critic(torch.cat([between, u, x]))
    steep: Tensor = (slope.norm(dim=1) - 1).square().mean()
    return steep


SIGNS = {"added": 1.0, "released": -1.0}


def critic_optimizer(plan: Plan, critic: nn.Module) -> Optimizer | None:
    if plan.critic_optimizer == "adam":
        return adam(critic, plan.lr_critic)
    parameters = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    return SGD(parameters, plan.lr_critic, plan.momentum, fused=True) if parameters else None
