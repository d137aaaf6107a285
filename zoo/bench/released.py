"""Steps as the released codes of VAAL, TA-VAAL and WAAL (deepALplus) take them, in our own words, for the bench.

float32 with the channels first, plain optimizers, whole autoencoder passes where the encoder would do, critics that
gather gradients nobody uses, WAAL's penalty in a step where nothing hears it, scores by a network in training mode.
The batches come from whoever calls. The mathematics is that of our loops under their `released` plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from trainers.run import Run
from zoo.nets.common import Mean
from zoo.nets.halving import Doubling, Halving
from zoo.nets.vgg import Copied

Parts = dict[str, nn.Module]
Batches = Iterator[Any]  # of images (b c h w) and labels (b,)
Step = Callable[[Batches, Batches], None]  # labeled, unlabeled
Losses = dict[str, Tensor]

PLAIN = {Halving: nn.Conv2d, Doubling: nn.ConvTranspose2d, Copied: nn.Linear, Mean: nn.AdaptiveAvgPool2d}


def plainly(parts: Parts) -> Parts:
    """The same networks, of torch's own layers."""
    for part in parts.values():
        for layer in part.modules():
            layer.__class__ = PLAIN.get(type(layer), layer.__class__)
    return parts


def bce(logits: Tensor, answer: float) -> Tensor:
    return F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, answer))


def bound(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """VAAL's: the mean squared error of a pixel, and the KL summed over the batch."""
    return F.mse_loss(recon, x) - 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()


def mean_bound(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """TA-VAAL's: the KL is a mean over batch and latent."""
    return F.mse_loss(recon, x) - 0.5 * (1 + logvar - mu.square() - logvar.exp()).mean()


def vaal_task(parts: Parts, plan: Any) -> Callable[[Tensor, Tensor], Tensor]:
    task = nn.Sequential(parts["trunk"], parts["head"])
    optimizer = SGD(task.parameters(), plan.lr, 0.9, weight_decay=plan.weight_decay)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(task(x), y)
        move(optimizer, loss)
        return loss

    return step


def vaal_game(parts: Parts, plan: Any) -> Callable[[Iterator[Any], Iterator[Any]], Losses]:
    vae, critic = parts["vae"], parts["critic"]
    vae_step, critic_step = Adam(vae.parameters(), plan.lr_game), Adam(critic.parameters(), plan.lr_game)

    def step(labeled: Batches, unlabeled: Batches) -> Losses:
        for _ in range(plan.vae_steps):
            (x, _), (u, _) = next(labeled), next(unlabeled)
            (recon_x, mu_x, logvar_x), (recon_u, mu_u, logvar_u) = vae(x), vae(u)
            fool = bce(critic(mu_x), 1) + bce(critic(mu_u), 1)
            move(vae_step, bound(x, recon_x, mu_x, logvar_x) + bound(u, recon_u, mu_u, logvar_u) + fool)
        with torch.no_grad():
            (_, mu_x, _), (_, mu_u, _) = vae(x), vae(u)
        tell = bce(critic(mu_x), 1) + bce(critic(mu_u), 0)
        move(critic_step, tell)
        return {"vae/fool": fool, "critic/loss": tell}

    return step


def vaal(parts: Parts, plan: Any, _: float) -> Step:
    learn, play = vaal_task(parts, plan), vaal_game(parts, plan)

    def step(labeled: Batches, unlabeled: Batches) -> None:
        first = next(labeled)
        learn(*first)
        play(chain([first], labeled), unlabeled)

    return step


def vaal_first(parts: Parts, plan: Any, run: Run, reseeded: Callable[[str], None]) -> Losses:
    pool = run.pool
    task, labeled, unlabeled = (run.stream(i, plan.batch) for i in (pool.labeled, pool.labeled, pool.unlabeled))
    reseeded("task")
    loss = vaal_task(parts, plan)(*next(task))
    reseeded("game")
    return {"task/loss": loss, **vaal_game(parts, plan)(labeled, unlabeled)}


def ta_vaal(parts: Parts, plan: Any, _: float) -> Step:
    play = ta_vaal_game(parts, plan)

    def step(labeled: Batches, unlabeled: Batches) -> None:
        play(next(labeled)[0], next(unlabeled)[0])

    return step


def ta_vaal_game(parts: Parts, plan: Any) -> Callable[[Tensor, Tensor], Losses]:
    from trainers.llal import Meeting

    meeting = Meeting(parts["trunk"], parts["head"], parts["ranker"]).eval()
    vae, critic = parts["vae"], parts["critic"]
    vae_step, critic_step = Adam(vae.parameters(), plan.lr_game), Adam(critic.parameters(), plan.lr_game)

    def step(x: Tensor, u: Tensor) -> Losses:
        with torch.no_grad():  # the frozen networks, again at every step
            rank_x, rank_u = meeting(x)[1][:, None], meeting(u)[1][:, None]
        (recon_x, mu_x, logvar_x), (recon_u, mu_u, logvar_u) = vae(x, rank_x.sigmoid()), vae(u, rank_u.sigmoid())
        fool = bce(critic(torch.cat([mu_x, rank_x], 1)), 1) + bce(critic(torch.cat([mu_u, rank_u], 1)), 1)
        move(vae_step, mean_bound(x, recon_x, mu_x, logvar_x) + mean_bound(u, recon_u, mu_u, logvar_u) + fool)
        with torch.no_grad():
            (_, mu_x, _), (_, mu_u, _) = vae(x, rank_x.sigmoid()), vae(u, rank_u.sigmoid())
        tell = bce(critic(torch.cat([mu_x, rank_x], 1)), 1) + bce(critic(torch.cat([mu_u, rank_u], 1)), 0)
        move(critic_step, tell)
        return {"vae/fool": fool, "critic/loss": tell}

    return step


def ta_vaal_first(parts: Parts, plan: Any, run: Run, reseeded: Callable[[str], None]) -> Losses:
    pool = run.pool
    run.stream(pool.labeled, plan.batch)  # the task network's
    labeled = run.stream(pool.labeled, plan.batch, "none")
    # those that play are the first `subset` of the unlabeled, in the order that the loop draws
    from trainers.ta_vaal import drawn

    unlabeled = run.stream(drawn(run, pool, plan.subset), plan.batch, "none")
    reseeded("game")
    return ta_vaal_game(parts, plan)(next(labeled)[0], next(unlabeled)[0])


def waal(parts: Parts, plan: Any, ratio: float) -> Step:
    play = waal_game(parts, plan, ratio)

    def step(labeled: Batches, unlabeled: Batches) -> None:
        (x, y), (u, _) = next(labeled), next(unlabeled)
        play(x, y, u, lambda: torch.rand(len(x), 1))

    return step


def waal_game(parts: Parts, plan: Any, ratio: float) -> Callable[..., Losses]:
    trunk, head, layers = parts["trunk"], parts["head"], parts["critic"]
    critic = nn.Sequential(layers.get_submodule("hidden"), nn.ReLU(), layers.get_submodule("out"), nn.Sigmoid())
    trunk_step, head_step, critic_step = (
        SGD(net.parameters(), plan.lr, plan.momentum) for net in (trunk, head, critic)
    )

    def apart(z_u: Tensor, z_x: Tensor) -> Tensor:
        far: Tensor = critic(z_u).mean() - ratio * critic(z_x).mean()
        return far

    def steep(z_u: Tensor, z_x: Tensor, share: Tensor) -> Tensor:
        at = torch.cat([z_u + share * (z_x - z_u), z_u, z_x]).requires_grad_()
        (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
        far: Tensor = (slope.norm(dim=1) - 1).square().mean()
        return far

    def step(x: Tensor, y: Tensor, u: Tensor, shares: Callable[[], Tensor]) -> Losses:
        critic.requires_grad_(False)
        z_x, z_u = trunk(x), trunk(u)
        loss, distance = F.cross_entropy(head(z_x), y), apart(z_u, z_x)
        with torch.no_grad():
            z_x, z_u = trunk(x), trunk(u)
        inert = steep(z_u, z_x, torch.full((len(x), 1), 0.5))
        move((trunk_step, head_step), loss + plan.alpha * distance + plan.alpha * 5 * inert)
        critic.requires_grad_(True)
        with torch.no_grad():
            z_x, z_u = trunk(x), trunk(u)
        penalty, distance = steep(z_u, z_x, shares()), apart(z_u, z_x)
        move(critic_step, -plan.alpha * distance - plan.alpha * plan.penalty_weight * penalty)
        return {"task/loss": loss, "critic/distance": distance, "critic/penalty": penalty}

    return step


def waal_first(parts: Parts, plan: Any, run: Run, reseeded: Callable[[str], None]) -> Losses:
    from trainers.waal import paired

    pool = run.pool
    images, answers = next(run.stream(paired(pool.labeled, pool.unlabeled), plan.batch))
    (x, u), y = images.chunk(2), answers[: plan.batch]
    reseeded("game")
    ratio = len(pool.labeled) / len(pool.unlabeled)
    return waal_game(parts, plan, ratio)(x, y, u, lambda: torch.rand(len(x), 1))


def score(parts: Parts, batches: Iterable[Any]) -> Tensor:
    """The critic's answer to each image (n,), by the whole autoencoder, in whatever mode it is."""
    with torch.no_grad():
        return torch.cat([parts["critic"](parts["vae"](x)[1]) for x, _ in batches])


def move(optimizers: Any, loss: Tensor) -> None:
    optimizers = optimizers if isinstance(optimizers, tuple) else (optimizers,)
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


STEPS = MappingProxyType({"vaal": vaal, "ta_vaal": ta_vaal, "waal": waal})
FIRST = MappingProxyType({"vaal": vaal_first, "ta_vaal": ta_vaal_first, "waal": waal_first})
