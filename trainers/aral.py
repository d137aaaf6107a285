"""Adversarial representation active learning: the classifier is also the discriminator of a conditional VAE-GAN.

Mottaghi & Yeung, 2019. https://arxiv.org/abs/1912.09720

Labeled, unlabeled and made images train one classifier: real or made is the logsumexp of its class logits, and a
generator, given a label, matches its features of real images ("bad GAN" semi-supervised learning, Dai et al., NIPS
2017). An encoder, given image and label, and VAAL's critic play over what is labeled; the critic asks.

The paper was reached as far as its abstract; its equations are here as the authors' code has them (MNIST, SVHN, CIFAR:
alimottaghi/adversarial-representation-active-learning@14b2d4d). Where that code says what cannot be meant, it is a
switch: the reconstruction is detached, so the squared error trains nobody, and the KL beside it is summed over the
batch; the generator draws from U[0, 1] while the KL pulls the latent to N(0, 1); unlabeled images are conditioned on
raw logits, labeled ones on one-hot labels; and for CIFAR labeled images are conditioned on a constant, so the critic
can read from the condition alone what is labeled. What ours does about the condition: both pools are conditioned on
the classifier's guess, as a one-hot row, without a gradient. The latent is then one function of the image, whichever
pool it is in, while a true label beside a guess would tell a labeled image wherever the guess is wrong. What is left is
the class: images of a class that has few labels look unlabeled, and should.

Also in the released code, and nowhere here: scores are collected from an iterator that shuffles itself and are used as
if they were in order, so that the query is random; their sign is turned; and the true labels of unlabeled images are
read while scoring. Each player draws batches of its own, a labeled batch is no larger than what is labeled, the rate
is held for an epoch, and for SVHN never falls below 1e-4; here all players share a step's two batches, streams wrap
around, and the rate falls step by step. A round starts from a checkpoint of the last, at times 10,000 steps old, with
fresh optimizers; here that is `learner.warm()`, from the last step.

Ours passes unlabeled and made images as one batch: with batch normalisation, one by one, each would be normalised by
its own statistics, which hides what the discriminator should see. Labeled images pass by themselves, and only they move
the running statistics, under which the classifier is evaluated: with gan=0 it is plain training, bit by bit, where
nothing in the classifier is random (the published ones have noise and dropout, drawn after the generator's). When all
three passed as one batch, as they did at first, the classifier was worse than plain training even with gan=0. While the
generator learns, the classifier's batch normalisation stands still: real and made features are compared under the same
statistics, which stay what they were.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from trainers import losses, supervised
from trainers.losses import auc, kl_per_image, says
from trainers.passes import through
from trainers.players import looking_on
from trainers.pool import Pool
from trainers.run import Run
from trainers.supervised import SCHEDULES, adam, descend, grown, pace, rate, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. The weights have their names from the released code."""

    game_steps: int = 400  # the last of the steps: with all players; before, the classifier learns from labels alone
    lr_game: float = 5e-3  # Adam, generator and encoder; for the narrow networks
    lr_critic: float = 2e-3  # Adam
    schedule_game: Literal["one-cycle", "quarters", "last-third", "constant"] = "constant"  # of all but the classifier
    beta1: float = 0.9  # Adam's first, of the critic, and of the classifier where its optimizer is adam
    beta1_game: float = 0.5  # of generator and encoder
    beta2: float = 0.999  # Adam's second, of the classifier
    beta2_game: float = 0.999  # of generator and encoder
    beta2_critic: float = 0.999
    cls: float = 1.0  # weight of the labels
    gan: float = 0.3  # weight of telling real from made
    trd: float = 0.03  # weight of the autoencoder's terms
    adv: float = 0.03  # weight of fooling the critic, and of its own loss, where Adam hides it
    match: Literal["absolute", "square"] = "absolute"  # how batch means of features are compared
    reconstruction: Literal["live", "detached"] = "live"  # the bound per image, or the released form that trains nobody
    known: Literal["guess", "label", "zero"] = "guess"  # what labeled images are conditioned on; zero: class 0 for all
    nll: bool = False  # whether generator and encoder take a step so that a latent can be read from its image (CIFAR)
    everything: bool = False  # whether labeled images are also among the unlabeled ones (SVHN and CIFAR)
    apart: bool = False  # whether batches pass classifier and encoder apart, each with their own batch statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least=dict.fromkeys(("game_steps", "cls", "gan", "trd"), 0))
        require(self, above={"adv": 0, "lr_game": 0, "lr_critic": 0})
        require(self, choices={"match": tuple(MATCHES), "reconstruction": tuple(BOUNDS), "known": tuple(KNOWN)})
        require(self, choices={"schedule_game": tuple(SCHEDULES)})
        for name in ("beta1", "beta1_game", "beta2", "beta2_game", "beta2_critic"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0, and below 1")


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    generator: nn.Module,  # (b z), (b k) -> images (b c h w); its `prior` alone: one latent for each row
    encoder: nn.Module,  # (b c h w), (b k) -> mu (b z), logvar (b z)
    critic: nn.Module,  # (b z) -> logit (b,): above zero means labeled
) -> None:
    plan, k, prior = grown(plan, pool), pool.classes, generator.get_submodule("prior")
    match, bound, known = MATCHES[plan.match], BOUNDS[plan.reconstruction], KNOWN[plan.known]
    task, task_step = run.setup(Task(trunk, head), remembering(supervised.optimizer(plan, trunk, head), plan), "task")
    labeled = run.stream(pool.labeled, plan.batch)
    if not len(pool.unlabeled):
        run.say("aral: nothing is unlabeled, so there is no game, and the classifier learns from the labels alone")
        alone(run, plan, plan.steps, task=task, task_step=task_step, labeled=labeled)
        return

    game, telling = (plan.beta1_game, plan.beta2_game), (plan.beta1, plan.beta2_critic)
    generator, generator_step = run.setup(generator, adam(generator, plan.lr_game, betas=game), "generator")
    encoder, encoder_step = run.setup(encoder, adam(encoder, plan.lr_game, betas=game), "encoder")
    critic, critic_step = run.setup(critic, adam(critic, plan.lr_critic, betas=telling), "critic")
    unlabeled = run.stream(torch.arange(len(pool)) if plan.everything else pool.unlabeled, plan.batch)
    early = max(0, plan.steps - plan.game_steps)

    # Until there is something to guess, the classifier learns from the labels alone.
    alone(run, plan, early, task=task, task_step=task_step, labeled=labeled)

    @run.whole
    def play(x: Tensor, y: Tensor, u: Tensor) -> None:
        # The classifier learns the labels, and to tell real images from those made for any label.
        with torch.no_grad():
            made, _, _ = make(generator, prior, u, k)
        logits, logits_u, logits_made = classified(task, x, u, made, plan.apart)
        loss = plan.cls * F.cross_entropy(logits, y) + plan.gan * tells(logits_u, logits_made)
        descend(run, loss, task_step)

        # The generator makes images whose features are on average those of real ones.
        made, z, label = make(generator, prior, u, k)
        with looking_on(task), batch_norms(task, training=False):
            with torch.no_grad():
                (_, guess), (features, guess_u) = through(task, [(x,), (u,)], apart=False)
            differ = match(task(made)[0].float(), features.float())
        if plan.nll:  # for CIFAR also such that the encoder finds the latent again, in a step of their own
            mu, logsigma = encoder(made, known(label, label))
            differ = differ + plan.trd * k * noise_nll(mu, logsigma, z)
            descend(run, differ, generator_step, encoder_step)
            differ = differ.detach()

        # Encoder and generator rebuild the unlabeled images, and the encoder makes the critic take all for labeled.
        seen = [(x, known(F.one_hot(y, k).float(), guess)), (u, guess_u)]
        (mu, _), (mu_u, logvar_u) = through(encoder, seen, apart=plan.apart)
        recon = generator(mu_u + torch.randn_like(mu_u) * (0.5 * logvar_u).exp(), guess_u)
        rebuild = bound(u, recon, mu_u, logvar_u)
        with looking_on(critic):
            fool = says(critic(mu), labeled=True) + says(critic(mu_u), labeled=True)
        descend(run, differ + plan.trd * rebuild + plan.adv * fool, generator_step, encoder_step)

        # The critic tells labeled from unlabeled, by what the encoder makes of them now.
        with torch.no_grad():
            (mu, _), (mu_now, _) = through(encoder, seen, apart=plan.apart)
        score, score_u = critic(torch.cat([mu, mu_now])).split([len(x), len(u)])
        tell = says(score, labeled=True) + says(score_u, labeled=False)
        descend(run, plan.adv * tell, critic_step)

        journal = {
            "task/loss": loss,
            "task/accuracy": (logits.argmax(1) == y).float().mean(),
            "task/real": realness(logits_u).mean(),
            "task/made": realness(logits_made).mean(),
            "gan/differ": differ,
            "vae/recon": F.mse_loss(recon.detach(), u),
            "vae/kl": kl_per_image(mu_u, logvar_u).mean(),
            "vae/fool": fool,
            "critic/loss": tell,
            "critic/auc": auc(score, score_u),
        }
        for name, value in journal.items():
            run.log(name, value)

    for step in run.steps(plan.steps, "game", early):
        rate(task_step, plan.lr * pace(plan, step, plan.steps))
        share = SCHEDULES[plan.schedule_game](step - early, plan.steps - early)
        for player, lr in ((generator_step, plan.lr_game), (encoder_step, plan.lr_game), (critic_step, plan.lr_critic)):
            rate(player, lr * share)
        play(*next(labeled), next(unlabeled)[0])


def alone(
    run: Run,
    plan: Plan,
    steps: int,
    *,
    task: nn.Module,  # (b c h w) -> features (b d), logits (b k)
    task_step: Optimizer,
    labeled: Iterator[tuple[Tensor, Tensor]],
) -> None:
    """The first steps of the classifier's schedule, with no other player."""

    @run.whole
    def play(x: Tensor, y: Tensor) -> None:
        _, logits = task(x)
        loss = plan.cls * F.cross_entropy(logits, y)
        descend(run, loss, task_step)
        run.log("task/loss", loss)
        run.log("task/accuracy", (logits.argmax(1) == y).float().mean())

    for step in run.steps(steps, "task"):
        rate(task_step, plan.lr * pace(plan, step, plan.steps))
        play(*next(labeled))


class Task(nn.Module):
    """Images (b c h w) to their features (b d) and logits (b k)."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        return features, self.head(features)


def classified(task: nn.Module, x: Tensor, u: Tensor, made: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The class logits of labeled, unlabeled and made images; apart, or else only labeled ones move the statistics."""
    _, logits = task(x)
    with batch_norms(task, track_running_stats=apart):
        (_, logits_u), (_, logits_made) = through(task, [(u,), (made,)], apart=apart)
    return logits, logits_u, logits_made


@contextmanager
def batch_norms(module: nn.Module, **flags: bool) -> Iterator[None]:
    """The flags of those batch normalisations that are in training mode, inside.

    training=False: they use their running statistics, and leave them as they are. track_running_stats=False: they use
    those of the batch, and leave the running ones as they are.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
    before = [{name: getattr(norm, name) for name in flags} for norm in norms]
    for norm in norms:
        vars(norm).update(flags)
    try:
        yield
    finally:
        for norm, values in zip(norms, before, strict=True):
            vars(norm).update(values)


def make(generator: nn.Module, prior: nn.Module, u: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """As many images (b c h w) as u has, made for any labels; the latents (b z) and labels (b k), one-hot, of these."""
    label = F.one_hot(torch.randint(k, (len(u),), device=u.device), k).float()
    z = prior(label)
    return generator(z, label), z, label


def realness(logits: Tensor) -> Tensor:
    """The logit of being real: logsumexp of the class logits (b k) -> (b,). Real with probability Z / (Z + 1)."""
    return logits.logsumexp(1)


def tells(real: Tensor, made: Tensor) -> Tensor:
    """How far class logits (b k) are from telling real from made: half of -log D, half of -log(1 - D)."""
    s, t = realness(real), realness(made)
    return 0.5 * (F.softplus(s) - s).mean() + 0.5 * F.softplus(t).mean()


def absolute(made: Tensor, real: Tensor) -> Tensor:
    """The mean absolute difference of two batches' mean features (b d) (SVHN, CIFAR)."""
    return (made.mean(0) - real.mean(0)).abs().mean()


def square(made: Tensor, real: Tensor) -> Tensor:
    """The mean squared difference of two batches' mean features (b d) (MNIST)."""
    return (made.mean(0) - real.mean(0)).square().mean()


def live(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """The negative evidence lower bound per image: half the squared error + KL."""
    return losses.elbo(x, recon, mu, logvar, 1.0)


def detached(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """The released form: the mean squared error of a pixel, without a gradient + KL summed over the whole batch."""
    return F.mse_loss(recon.detach(), x) + kl_per_image(mu, logvar).sum()


def noise_nll(mu: Tensor, logsigma: Tensor, z: Tensor) -> Tensor:
    """How unlikely latents (b z) are under N(mu, exp(logsigma)^2): as released, not the log of a variance."""
    return (logsigma + 0.5 * ((z - mu) / (1e-8 + logsigma.exp())).square()).sum(1).mean()


def zero(label: Tensor, guess: Tensor) -> Tensor:  # noqa: ARG001
    """Class 0, whatever the image."""
    return F.one_hot(torch.zeros_like(label[:, 0], dtype=torch.int64), label.shape[1]).to(label.dtype)


MATCHES = {"absolute": absolute, "square": square}
BOUNDS = {"live": live, "detached": detached}
KNOWN = {"guess": lambda label, guess: guess, "label": lambda label, guess: label, "zero": zero}  # noqa: ARG005


def remembering(step: Optimizer | None, plan: Plan) -> Optimizer | None:
    """The classifier's optimizer, with the plan's betas if it is Adam."""
    for group in step.param_groups if step is not None and plan.optimizer == "adam" else ():
        group["betas"] = (plan.beta1, plan.beta2)
    return step
