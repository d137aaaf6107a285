"""Bayesian generative active deep learning: every labeled image gets made companions of its class to train with.

Tran, Do, Reid & Carneiro, ICML 2019. https://arxiv.org/abs/1904.11643
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adadelta, Adam, Optimizer

from trainers import losses, supervised
from trainers.losses import kl_per_image
from trainers.pool import Pool
from trainers.run import Run, looking_on
from trainers.supervised import SCHEDULES, rate, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. `steps` are those of the classifier, with or without the others."""

    alone: float = 0.6  # the share of the steps in which the classifier learns alone, before the game
    trust: float = 0.8  # the share of the steps after which it learns from made images too
    alone_first: bool = False  # while nothing but the initial set is labeled, it learns alone all along
    lr_game: float = 1e-2  # of encoder, generator and discriminator
    gamma: float = 0.75  # weight of rebuilding in the generator's loss
    beta: float = 0.1  # weight of the KL term in the encoder's
    elbo: Literal["image", "released"] = "image"  # how these two are scaled
    lambda_prior: float = 1.0  # weight of images made from the prior in the classifier's loss
    lambda_recon: float = 1.0  # weight of rebuilt images
    adadelta: bool = False  # all four on Adadelta, with rates that halve; `optimizer` and `schedule` rest
    decay_per_label: bool = False  # weight_decay is divided by the number of labeled images

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = ("alone", "trust", "gamma", "beta", "lambda_prior", "lambda_recon")
        require(self, at_least=dict.fromkeys(weights, 0), above={"lr_game": 0}, choices={"elbo": tuple(ELBOS)})


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    encoder: nn.Module,  # (b c h w) -> mu (b z), logvar (b z)
    generator: nn.Module,  # z (b z), label (b,) -> (b c h w) in [-1, 1]
    discriminator: nn.Module,  # (b c h w) -> logit (b,): above zero means real
) -> None:
    bound, share = ELBOS[plan.elbo], 1 / len(pool.labeled) if plan.decay_per_label else 1.0
    task, task_step = nn.Sequential(trunk, head), optimizer(plan, plan.lr, plan.weight_decay * share, trunk, head)
    task, task_step = run.setup(task, task_step, "task")
    encoder, encoder_step = run.setup(encoder, player(plan, encoder), "encoder")
    generator, generator_step = run.setup(generator, player(plan, generator), "generator")
    discriminator, discriminator_step = run.setup(discriminator, player(plan, discriminator), "discriminator")
    labeled = run.stream(pool.labeled, plan.batch)
    alone = plan.steps if plan.alone_first and len(pool.rounds) <= 1 else int(plan.alone * plan.steps)

    # At first the classifier learns from the labels alone: the generator will go by what it says.
    for step in run.steps(alone, "alone"):
        x, y = next(labeled)
        rate(task_step, plan.lr * task_rate(plan, step))
        logits = task(x)
        loss = F.cross_entropy(logits, y)
        task_step.zero_grad()
        run.backward(loss)
        task_step.step()
        run.log("task/loss", loss)
        run.log("task/accuracy", (logits.argmax(1) == y).float().mean())

    for step in run.steps(plan.steps, "game", first=alone):
        x, y = next(labeled)
        rate(task_step, plan.lr * task_rate(plan, step))
        for each in (encoder_step, generator_step, discriminator_step):
            rate(each, plan.lr_game * game_rate(plan, step))

        # The encoder makes its latents rebuild the image, and keeps them near the prior.
        mu, logvar = encoder(x)
        with looking_on(generator):
            recon = generator(draw(mu, logvar), y)
        rebuild = bound(x, recon, mu, logvar, plan.beta)
        encoder_step.zero_grad()
        run.backward(rebuild)
        encoder_step.step()

        # The generator makes images that pass for real and for their class, and rebuilds what is encoded now.
        z = torch.randn_like(mu)
        with torch.no_grad():
            mu, logvar = encoder(x)
        made = generator(z, y)
        with looking_on(discriminator), looking_on(task), forgetting(task):
            pass_for_real = real(discriminator(made), True)
            pass_for_class = F.cross_entropy(task(made), y)
        again = bound(x, generator(draw(mu, logvar), y), mu, logvar, 0.0)
        generator_step.zero_grad()
        run.backward(pass_for_real + pass_for_class + plan.gamma * again)
        generator_step.step()

        # Then both kinds of image are made once more, for the two who judge them.
        with torch.no_grad():
            made, rebuilt = generator(z, y), generator(draw(mu, logvar), y)

        # The discriminator tells real images from either kind.
        logit_x, logit_made = discriminator(x), discriminator(made)
        tell = real(logit_x, True) + real(logit_made, False) + real(discriminator(rebuilt), False)
        discriminator_step.zero_grad()
        run.backward(tell)
        discriminator_step.step()

        # The classifier learns from the labels, and from both kinds under the label they were made for.
        logits = task(x)
        loss = F.cross_entropy(logits, y)
        if step >= plan.trust * plan.steps:
            with forgetting(task):
                loss = loss + plan.lambda_prior * F.cross_entropy(task(made), y)
                loss = loss + plan.lambda_recon * F.cross_entropy(task(rebuilt), y)
        task_step.zero_grad()
        run.backward(loss)
        task_step.step()


def draw(mu: Tensor, logvar: Tensor) -> Tensor:
    """A latent from N(mu, exp(logvar)): (b z)."""
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def real(logits: Tensor, yes: bool) -> Tensor:
    """How far a discriminator is from saying that all of a batch (b,) is real (or that none is)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(yes)))


@contextmanager
def forgetting(module: nn.Module) -> Iterator[None]:
    """What passes through inside leaves no trace in running statistics: these are of real images alone."""
    norms = [(norm, norm.momentum) for norm in module.modules() if isinstance(norm, _BatchNorm)]
    for norm, _ in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum


def player(plan, module):
    return optimizer(replace(plan, optimizer="adam"), plan.lr_game, 0.0, module)


def optimizer(plan, lr, weight_decay, *modules):
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    if plan.adadelta:
        return Adadelta(parameters, lr, weight_decay=weight_decay) if parameters else None
    if plan.optimizer == "adam":
        return Adam(parameters, lr, (0.5, 0.999), weight_decay=weight_decay, fused=True)
    return supervised.optimizer(replace(plan, lr=lr, weight_decay=weight_decay), *modules)


def task_rate(plan: Plan, step: int) -> float:
    return 0.5 ** (50 * step // plan.steps // 5) if plan.adadelta else SCHEDULES[plan.schedule](step, plan.steps)


def game_rate(plan: Plan, step: int) -> float:
    return 0.5 ** (50 * step // plan.steps // 8) if plan.adadelta else 1.0


def released(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    """The released form, on images in [0, 1]: the mean squared error of a pixel + beta mean KL of a latent unit."""
    return F.mse_loss(recon, x) / 4 + beta * kl_per_image(mu, logvar).mean() / mu.shape[1]


ELBOS = {"image": losses.elbo, "released": released}
