"""Cost-effective active learning: learn from the labels, believe the surest guesses, learn from both.

Wang, Zhang, Li, Zhang & Lin, IEEE TCSVT 2017. https://arxiv.org/abs/1701.03551

The paper asks for the least sure images, takes the network's own guess for a label wherever the entropy of the guess is
below a threshold, goes on training on both, and then forgets the guesses: the images stay unlabeled and are judged
anew, by the next network and a stricter threshold. The authors have released no code. Of the public ports, the ones
that are most copied turn the margin around, write guesses over the labels so that a later answer is never used, keep
what was believed once for ever (and again each round), measure in training mode, and take scores from a loader that
shuffles, so that a guess belongs to another image. Here a guess lives in a supposition of the pool, which is dropped
when the fit ends; a network judges all unlabeled images in one pass, in evaluation mode and without augmentation; and
`select` reads the real pool.

The paper and the ports leave open how the threshold falls: by dr for every round (`linear`, ours), or by dr times the
round (`recursive`, two of the ports), which reaches 0 at round 6 under the paper's settings and at 16 otherwise. From
there on nothing is believed and this is plain training, bit by bit. A fit believes once: after the share `alone` of
its steps, with the network those steps have made. The paper's own order, in which the network of the round before
judges, by that round's threshold, is `alone=0` with learners that start warm. `steps` counts both stages, so a fit
costs what a plain one does, however much is believed (the ports train longer, the more they believe), and there is no
need to bound it.

Measured on the digits with 40, 90 and 140 random labels, one CPU core, 6 seeds that had no part in choosing the
settings: 84.9, 94.3 and 96.5 % held out, where plain training has 83.8, 94.5 and 96.5 (deviations 5, 1 and 1). Of what
it believes then, some three quarters of the pool, 94 to 100 % is right. Believing costs nothing here and gains nothing.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainers import supervised
from trainers.pool import Pool, normal, portions
from trainers.run import Run
from trainers.supervised import grown, learn, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. `steps` is the total of both stages."""

    alone: float = 0.7  # share of the steps that see the labels only; what is believed joins them for the rest
    delta0: float = 0.05  # a guess with an entropy below this is believed at round 0
    dr: float = 0.0033  # how fast that falls from round to round
    decay: Literal["linear", "recursive"] = "linear"
    normalize: bool = False  # whether entropies are in shares of ln k, the largest there is, instead of nats

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"alone": 0, "delta0": 0, "dr": 0}, choices={"decay": ("linear", "recursive")})
        if self.alone > 1:
            raise ValueError(f"alone={self.alone!r} is a share of the steps: at most 1")


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    belief: nn.Module,  # logits (u k) -> sure (u,), guess (u,): sure is an entropy below its `delta`, in nats
) -> None:
    plan = grown(plan, pool)
    judging = len(pool.rounds) - 1 - (plan.alone == 0)  # the round whose network judges: this one, or the one before
    delta = threshold(plan, now := max(0, judging))
    belief.get_buffer("delta").fill_(delta * (math.log(pool.classes) if plan.normalize else 1))
    if delta == 0 and (now == 0 or threshold(plan, now - 1) > 0):
        run.say(f"ceal: the threshold is 0 at round {now}; from here on nothing is believed, and training is plain")

    # The task network learns from the labels.
    task, task_step = run.setup(nn.Sequential(trunk, head), supervised.optimizer(plan, trunk, head), "task")
    labeled, first = run.stream(pool.labeled, plan.batch), round(plan.alone * plan.steps)
    learn(run, plan, run.steps(first, "task"), labeled, task=task, task_step=task_step)

    # It judges what is unlabeled; where it is sure, its guess is believed.
    believed, guesses = run.once("believed", lambda: believe(run, pool, task, belief))
    if len(believed):
        supposition = pool.suppose(believed, guesses)
        labeled = run.over(supposition).stream(supposition.labeled, plan.batch)
        run.log("ceal/largest", guesses.bincount().max() / len(guesses))
    run.log("ceal/delta", torch.tensor(delta))
    run.log("ceal/believed", torch.tensor(len(believed)))
    run.log("ceal/ratio", torch.tensor(len(believed) / len(pool.labeled)))

    # It goes on learning, from labels and guesses alike.
    learn(run, plan, run.steps(plan.steps, "task", first), labeled, task=task, task_step=task_step)


def threshold(plan: Plan, now: int) -> float:
    """The entropy below which a guess is believed at a round, 0 being the initial set's: never below 0."""
    falls = now if plan.decay == "linear" else now * (now + 1) / 2
    left = plan.delta0 - plan.dr * falls
    return left if left > 1e-9 * plan.delta0 else 0.0  # what rounding has left is nothing


@torch.no_grad()
def believe(run: Run, pool: Pool, task: nn.Module, belief: nn.Module) -> tuple[Tensor, Tensor]:
    """What the task network is sure of: indices of unlabeled images (h,), ascending, and its guesses (h,).

    Gate and guess come from one pass in evaluation mode; the modes are then as they were.
    """
    unlabeled = pool.unlabeled
    if not len(unlabeled):
        run.say("ceal: nothing is unlabeled, so there is nothing to believe, and training is plain")
    if not len(unlabeled) or belief.get_buffer("delta") <= 0:
        return unlabeled[:0], unlabeled[:0]
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    images = (pool.take(i).to(run.device) for i in portions(pool, unlabeled, run.device))
    sure, guess = belief(torch.cat([task(normal(x)) for x in images]))
    for module, mode in modes:
        module.training = mode
    return unlabeled[sure.cpu()], guess[sure].cpu()
