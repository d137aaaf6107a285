"""Bayesian generative active deep learning: every labeled image gets made companions of its class to train with.

Tran, Do, Reid & Carneiro, ICML 2019. https://arxiv.org/abs/1904.11643

An encoder and a class-conditional generator rebuild the labeled images, x' = g(e(x), y); the generator also makes
images from the prior that a discriminator takes for real and the classifier for their class; and the classifier learns
from labels, rebuilt and made images alike. Unlabeled images are looked at only to ask (BALD). The authors' code is a
demo on MNIST (github.com/toantm/BGADL); what is not in it is recalled from the paper, and marked so.

Losses and the order of the four steps are the demo's. Its bound averages the KL over batch and latent and the squared
error over pixels (`elbo="released"`); ours and the paper's are, for the encoder, sums over an image. Latents are drawn
anew between the steps, as there; what discriminator and classifier look at is made without gradient, which changes no
update. Its encoder passes one ReLU value of an image on (`encoder_form="scalar"`), so that x' cannot be near x: ours
can. It starts all networks anew in every round, as `fit` does, and before the first question it trains the classifier
alone (`alone_first`). Ours is one rule for all rounds: the classifier is alone for a share of its steps (`alone`), then
the others join in, and it learns from made images in the last steps only (`trust`), at a weight below that of real
ones.

Companions are of the images as they are: augmentation is the classifier's alone (the demo has none).

Also in the demo, and nowhere here: BALD's passes run over a shuffled loader, so each row mixes different images, and
the default classifier has no dropout at all; its passes move the running statistics; asked images stay in the pool; it
reports the best accuracy of all rounds so far; rows come in a fixed order, and a last batch that is not full is
dropped. Where a classifier has batch normalisation (the demo's has none), made images are normalised in batches of
their own, and leave no trace in its running statistics: ours.

What was wrong here at first: rebuilding stood in the generator's loss as a sum over the pixels of an image, beside
two means over images, and outweighed them the more, the larger the images. On CIFAR-10 what was made looked like no
class at all, to an independent judge as to the classifier. It is a mean over pixels now, in all forms, as in the demo.
scripts/results/games.jsonl has what companions and made images are worth, the same fit without them, and plain training
with the same dropout: on CIFAR-10 with 1,500 labels it is the dropout that costs points, not the made images; 0.3 costs
less, and was a little worse on MNIST.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adadelta, Optimizer

from trainers import losses, supervised
from trainers.losses import kl_per_image
from trainers.players import looking_on
from trainers.pool import Pool
from trainers.run import Run
from trainers.supervised import adam, descend, grown, pace, rate, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. `steps` are the classifier's, those alone and those in company together."""

    alone: float = 0.6  # the share of the steps before the others join in
    trust: float = 0.8  # the share of the steps before the classifier learns from made images
    alone_first: bool = False  # alone for all steps while no question has been asked
    lr_game: float = 1e-2  # Adam, of encoder, generator and discriminator; for the narrow networks
    gamma: float = 150.0  # weight of rebuilding in the generator's loss: a mean over pixels, as its other terms are
    beta: float = 0.1  # weight of the KL term in the encoder's loss; 0.1: a pixel's deviation is 0.3, not 1
    elbo: Literal["image", "released"] = "image"  # how the encoder's loss is scaled
    lambda_prior: float = 0.2  # weight of images made from the prior, in the classifier's loss
    lambda_recon: float = 1.0  # weight of rebuilt images
    adadelta: bool = False  # all four on Adadelta, rates halved on the way; optimizer, schedule and both lr rest
    decay_per_label: float = 0.0  # this over the number of labels is added to weight_decay

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("alone", "trust", "gamma", "beta", "lambda_prior", "lambda_recon", "decay_per_label")
        require(self, at_least=dict.fromkeys(positive, 0), above={"lr_game": 0}, choices={"elbo": tuple(ELBOS)})
        for name in ("alone", "trust"):
            if (share := getattr(self, name)) > 1:
                raise ValueError(f"{name}={share!r} is a share of the steps, at most 1")


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    encoder: nn.Module,  # (b c h w) -> mu (b z), logvar (b z)
    generator: nn.Module,  # latent (b z), label (b,) -> (b c h w) in [-1, 1]
    discriminator: nn.Module,  # (b c h w) -> logit (b,): above zero means real
) -> None:
    plan, bound = grown(plan, pool), ELBOS[plan.elbo]
    task_step = task_optimizer(plan, len(pool.labeled), trunk, head)
    task, task_step = run.setup(nn.Sequential(trunk, head), task_step, "task")
    encoder, encoder_step = run.setup(encoder, game_optimizer(plan, encoder), "encoder")
    generator, generator_step = run.setup(generator, game_optimizer(plan, generator), "generator")
    discriminator, discriminator_step = run.setup(discriminator, game_optimizer(plan, discriminator), "discriminator")
    order = run.order(pool.labeled, plan.batch)
    alone = plan.steps if plan.alone_first and len(pool.rounds) <= 1 else int(plan.alone * plan.steps)

    @run.whole
    def play(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # the images as they are
        # The encoder gives latents that rebuild the image, near the prior.
        mu, logvar = encoder(x)
        with looking_on(generator):
            recon = generator(draw(mu, logvar), y)
        rebuild = bound(x, recon, mu, logvar, plan.beta)
        descend(run, rebuild, encoder_step)

        # The generator makes images that pass for real and for their class, and rebuilds from what is encoded now.
        z = torch.randn_like(mu)
        with torch.no_grad():
            mu, logvar = encoder(x)
        made = generator(z, y)
        with looking_on(discriminator), looking_on(task), forgetting(task):
            as_real, as_class = says(discriminator(made), real=True), F.cross_entropy(task(made), y)
        again = squared(x, generator(draw(mu, logvar), y))
        descend(run, as_real + as_class + plan.gamma * again, generator_step)

        # Both kinds are made once more, by the generator as it is now.
        with torch.no_grad():
            made, rebuilt = generator(z, y), generator(draw(mu, logvar), y)

        # The discriminator tells real images from either kind.
        logit_x, logit_made = discriminator(x), discriminator(made)
        tell = says(logit_x, real=True) + says(logit_made, real=False) + says(discriminator(rebuilt), real=False)
        descend(run, tell, discriminator_step)

        journal = {
            "encoder/recon": F.mse_loss(recon.detach(), x),
            "encoder/kl": kl_per_image(mu, logvar).mean(),
            "generator/as_real": as_real,
            "generator/as_class": as_class,
            "discriminator/loss": tell,
            "discriminator/real": (logit_x > 0).float().mean(),
            "discriminator/made": (logit_made <= 0).float().mean(),
        }
        for name, value in journal.items():
            run.log(name, value)
        return made, rebuilt

    @run.whole
    def learn(x: Tensor, y: Tensor, *made: Tensor) -> None:
        # The classifier learns from the labels, and in the end from both kinds, under the labels they were made for.
        logits = task(x)
        loss = F.cross_entropy(logits, y)
        if made:
            with forgetting(task):
                on_made, on_rebuilt = (F.cross_entropy(task(images), y) for images in made)
            loss = loss + plan.lambda_prior * on_made + plan.lambda_recon * on_rebuilt
        descend(run, loss, task_step)
        run.log("task/loss", loss)
        run.log("task/accuracy", (logits.argmax(1) == y).float().mean())

    # At first the classifier learns alone: the generator will go by what it says.
    for step in run.steps(alone, "alone"):
        i = next(order)
        rate(task_step, rates(plan, step)[0])
        learn(run.look(i), pool.labels[i].to(run.device))

    for step in run.steps(plan.steps, "together", first=alone):
        i = next(order)
        task_lr, game_lr = rates(plan, step)
        rate(task_step, task_lr)
        for player_step in (encoder_step, generator_step, discriminator_step):
            rate(player_step, game_lr)
        y = pool.labels[i].to(run.device)
        made = play(run.look(i, "none"), y)
        learn(run.look(i), y, *(made if step >= int(plan.trust * plan.steps) else ()))


def draw(mu: Tensor, logvar: Tensor) -> Tensor:
    """A latent from N(mu, exp(logvar)): (b z)."""
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def says(logits: Tensor, *, real: bool) -> Tensor:
    """How far a discriminator is from saying that all of a batch (b,) is real (or that none is)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


@contextmanager
def forgetting(module: nn.Module) -> Iterator[None]:
    """What passes through inside leaves no trace in running statistics."""
    norms = [(norm, norm.momentum) for norm in module.modules() if isinstance(norm, _BatchNorm)]
    for norm, _ in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum


def squared(x: Tensor, recon: Tensor) -> Tensor:
    """The squared error of a pixel in [0, 1], its mean over all images (b c h w). These are in [-1, 1], twice as wide.

    A sum over an image would outweigh the other terms of the generator's loss, the more so the larger the image is.
    """
    return F.mse_loss(recon, x) / 4


def released(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    """The released form: `squared` + beta KL of a latent unit, a mean over all of them."""
    return squared(x, recon) + beta * kl_per_image(mu, logvar).mean() / mu.shape[1]


ELBOS = {"image": losses.elbo, "released": released}


def task_optimizer(plan: Plan, labels: int, trunk: nn.Module, head: nn.Module) -> Optimizer | None:
    """The classifier's, None if it is frozen. The fewer the labels, the more weight decay: `decay_per_label`."""
    decay = plan.weight_decay + plan.decay_per_label / labels
    if not plan.adadelta:
        return supervised.optimizer(replace(plan, weight_decay=decay), trunk, head)
    learns = [p for module in (trunk, head) for p in module.parameters() if p.requires_grad]
    return Adadelta(learns, weight_decay=decay) if learns else None


def game_optimizer(plan: Plan, module: nn.Module) -> Optimizer | None:
    """Of one of the other three, None if it is frozen. Adam's first beta is 0.5, as DCGAN's."""
    if not plan.adadelta:
        return adam(module, plan.lr_game, betas=(0.5, 0.999))
    learns = [p for p in module.parameters() if p.requires_grad]
    return Adadelta(learns) if learns else None


def rates(plan: Plan, step: int) -> tuple[float, float]:
    """The learning rates at a step: the classifier's, and that of the other three.

    Adadelta's start at 1. Of the released 50 epochs, every 5th halves the first, every 8th the second.
    """
    if plan.adadelta:
        epoch = 50 * step // plan.steps
        return 0.5 ** (epoch // 5), 0.5 ** (epoch // 8)
    return plan.lr * pace(plan, step, plan.steps), plan.lr_game
