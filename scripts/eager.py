"""Plain training, VAAL's game and its scores as most released code has them: torch's own layers, a DataLoader.

Each goes on until `watch`, which is told of every step, raises something.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, Dataset

import zoo
from trainers.run import Watch
from zoo.bench.released import plainly
from zoo.learner import Learner
from zoo.nets.critic import Critic
from zoo.nets.trunk import task
from zoo.nets.vae import VAE

FOREVER = 10**9  # steps: the clock ends such a fit


class Images(Dataset[tuple[Tensor, int]]):
    """Images one by one, each flipped or not and normalised by itself, as most released code has it."""

    def __init__(self, pool: zoo.Pool, indices: Tensor) -> None:
        self.images, self.labels, self.indices = pool.images, pool.labels, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        i = self.indices[position]
        x = self.images[i]
        if torch.rand(1) < 0.5:
            x = x.flip(2)
        return x.float().div(255).sub(0.5).div(0.5), int(self.labels[i])


def endless(pool: zoo.Pool, indices: Tensor, batch: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of a DataLoader, again and again."""
    loader = DataLoader(Images(pool, indices), batch, shuffle=True, num_workers=workers, drop_last=True)
    while True:
        yield from loader


def plain(pool: zoo.Pool, learner: Learner, workers: int, watch: Watch) -> None:
    """Cross-entropy as most code has it: a loader, the default optimizer, the loss read in every step."""
    device = torch.device(learner.device)
    parts = plainly(task(pool.shape, pool.classes, learner.nets["trunk"]))
    net = nn.Sequential(parts["trunk"], parts["head"]).to(device)
    optimizer = SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    losses = []
    for step, (x, y) in enumerate(endless(pool, pool.labeled, learner.loop.batch, workers)):
        x, y = x.to(device), y.to(device)  # noqa: PLW2901
        with autocast(device, learner.precision):
            loss = F.cross_entropy(net(x), y)
        learn(optimizer, loss)
        losses.append(loss.item())
        watch("task", step + 1, FOREVER)


def game(pool: zoo.Pool, learner: Learner, workers: int, watch: Watch) -> None:
    """VAAL's game as the released code has it, in alzoo's mathematics: the same losses, one step of each player.

    The critic's step sends both batches through the whole autoencoder, decoder included; gradients reach the critic in
    the autoencoder's step; every loss is read in every step.
    """
    device, nets, batch = torch.device(learner.device), learner.nets, learner.loop.batch
    vae = plainly({"vae": VAE(pool.shape, nets["latent"], nets["vae_width"])})["vae"].to(device)
    critic = Critic(nets["latent"], nets["critic_width"], nets["critic_layers"]).to(device)
    vae_step, critic_step = Adam(vae.parameters(), 5e-4), Adam(critic.parameters(), 5e-4)
    labeled, unlabeled = endless(pool, pool.labeled, batch, workers), endless(pool, pool.unlabeled, batch, workers)
    says = F.binary_cross_entropy_with_logits
    logged = []
    for step, ((x, _), (u, _)) in enumerate(zip(labeled, unlabeled, strict=False)):
        x, u = x.to(device), u.to(device)  # noqa: PLW2901
        with autocast(device, learner.precision):
            recon_x, mu_x, logvar_x = vae(x)
            recon_u, mu_u, logvar_u = vae(u)
            on_x, on_u = critic(mu_x), critic(mu_u)
            fool = says(on_x, torch.ones_like(on_x)) + says(on_u, torch.ones_like(on_u))
            loss = bound(x, recon_x, mu_x, logvar_x) + bound(u, recon_u, mu_u, logvar_u) + fool
        learn(vae_step, loss)
        with autocast(device, learner.precision):
            with torch.no_grad():
                _, mu_x, _ = vae(x)
                _, mu_u, _ = vae(u)
            on_x, on_u = critic(mu_x), critic(mu_u)
            tell = says(on_x, torch.ones_like(on_x)) + says(on_u, torch.zeros_like(on_u))
        learn(critic_step, tell)
        logged.append((loss.item(), fool.item(), tell.item()))
        watch("game", step + 1, FOREVER)


def scores(pool: zoo.Pool, learner: Learner, workers: int, watch: Watch) -> None:
    """The whole autoencoder over a loader's batches, as the released code scores, each result read at once."""
    assert learner.parts is not None
    vae, critic = learner.parts["vae"].eval(), learner.parts["critic"].eval()
    device = next(vae.parameters()).device
    logits = []
    for step, (x, _) in enumerate(endless(pool, pool.unlabeled, learner.loop.batch, workers)):
        with torch.no_grad(), autocast(device, learner.precision):
            logits.append(critic(vae(x.to(device))[1]).cpu())
        watch("score", step + 1, FOREVER)


def bound(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Half the squared error of an image, and its KL."""
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum()
    return (0.5 * (recon - x).pow(2).sum() + kl) / len(x)


def learn(optimizer: Optimizer, loss: Tensor) -> None:
    """One step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bf16 where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
