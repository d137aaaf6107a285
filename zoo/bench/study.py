"""A round beside a plain script, what a step's machinery costs, members at once, and how long a start takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import SGD, Adam

import zoo
from trainers.dpe import Together
from trainers.losses import elbo, says
from trainers.pool import at, normal
from trainers.run import Run, Snapshots
from trainers.seeds import generator, reseed
from trainers.supervised import one_cycle, rate
from zoo.bench import Act, Case
from zoo.bench.data import made_up
from zoo.journal import seldom
from zoo.nets.trunk import task

CPU = torch.device("cpu")
ROUND = {"steps": 60, "game_steps": 60, "augment": "none", "device": "cpu"}


def cases(*, quick: bool = False) -> list[Case]:
    """quick: fewer steps, for tests."""
    steps = 20 if quick else 2_000
    settings = {**ROUND, **({"steps": 3, "game_steps": 3} if quick else {})}
    return [
        Case(
            name="a round of vaal on digits",
            work=f"fit ({settings['steps']} and {settings['game_steps']} steps) and ask for 20",
            forms={
                "ours": lambda: lambda: ask(settings),
                "plain script": lambda: lambda: script(settings),
            },
            check=lambda: same_round(settings),
        ),
        Case(
            name="machinery of a step",
            work=f"{steps:,} steps of a linear layer, 32 images 3x32x32, journal, watch and snapshots",
            forms={
                "ours": lambda: stepping(steps),
                "by hand": lambda: by_hand(steps),
            },
        ),
        Case(
            name="five members",
            work="forward and back, 32 images 1x16x16",
            forms={
                "one after another": lambda: backward(Together(five()), 2 if quick else 20),
                "batched": lambda: backward(Batched(five()), 2 if quick else 20),
            },
            check=same_members,
        ),
        Case(
            name="start",
            work="seconds of a process",
            forms={
                "alzoo --help": lambda: process("-m", "zoo", "--help"),
                "alzoo list": lambda: process("-m", "zoo", "list"),
                "import zoo, and a learner": lambda: process("-c", "import zoo; zoo.create('vaal'); zoo.names()"),
                "import torch": lambda: process("-c", "import torch"),
            },
        ),
    ]


def ask(settings: dict[str, Any]) -> Tensor:
    pool, _ = zoo.data("digits", initial=40, seed=0)
    learner = zoo.create("vaal", seed=0, **settings).fit(pool, progress=False)
    return learner.select(pool, 20).indices


def script(settings: dict[str, Any]) -> Tensor:
    """The same by hand: no run, no scan, no Fabric; the same random numbers, so that it asks for the same images."""
    pool, _ = zoo.data("digits", initial=40, seed=0)
    learner = zoo.create("vaal", seed=0, **settings)
    plan, parts = learner.loop, learner.build(pool.shape, pool.classes, 1)
    parts.to(memory_format=torch.channels_last)
    net, vae, critic = nn.Sequential(parts["trunk"], parts["head"]), parts["vae"], parts["critic"]
    task_step = SGD(net.parameters(), plan.lr, 0.9, weight_decay=plan.weight_decay, nesterov=True, fused=True)
    vae_step, critic_step = (Adam(part.parameters(), plan.lr_game, fused=True) for part in (vae, critic))
    encoder = vae.get_submodule("encoder")
    own, labeled, unlabeled = (
        shuffled(number, indices, plan.batch)
        for number, indices in enumerate((pool.labeled, pool.labeled, pool.unlabeled))
    )
    with torch.random.fork_rng():
        for step in range(plan.steps):
            reseed(CPU, 0, "step", 1, "task", step)
            i = next(own)
            rate(task_step, plan.lr * one_cycle(step, plan.steps))
            move(task_step, F.cross_entropy(net(normal(pool.images[i])), pool.labels[i]))
        for step in range(plan.game_steps):
            reseed(CPU, 0, "step", 1, "game", step)
            x, u = normal(pool.images[next(labeled)]), normal(pool.images[next(unlabeled)])
            recon, mu, logvar = vae(torch.cat([x, u]))
            (recon_x, recon_u), (mu_x, mu_u), (logvar_x, logvar_u) = (out.chunk(2) for out in (recon, mu, logvar))
            rebuild = elbo(x, recon_x, mu_x, logvar_x, 1) + elbo(u, recon_u, mu_u, logvar_u, 1)
            move(vae_step, rebuild + 2 * says(critic(mu), labeled=True))
            with torch.no_grad():
                mu, _ = encoder(torch.cat([x, u]))
            logit_x, logit_u = critic(mu).chunk(2)
            move(critic_step, says(logit_x, labeled=True) + says(logit_u, labeled=False))
    parts.eval()
    with torch.no_grad():
        logits = [critic(encoder(normal(pool.images[i]))[0]) for i in pool.unlabeled.split(1024)]
    return pool.unlabeled[torch.cat(logits).sort(stable=True).indices[:20]]


def shuffled(number: int, indices: Tensor, size: int) -> Iterator[Tensor]:
    """Endless batches of indices, as the stream of that number of a run with seed 0 in its first round has them."""
    left, turn = indices[:0], 0
    while True:
        while len(left) < size:
            chance = generator(0, "stream", 1, number, "shuffle", turn)
            left, turn = torch.cat([left, indices[torch.randperm(len(indices), generator=chance)]]), turn + 1
        yield left[:size]
        left = left[size:]


def move(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def same_round(settings: dict[str, Any]) -> None:
    if not torch.equal(ask(settings), script(settings)):
        raise RuntimeError("bench: a round of vaal and the plain script do not ask for the same images")


def layer() -> tuple[nn.Module, torch.optim.Optimizer]:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    return net, SGD(net.parameters(), 0.01, fused=True)


def stepping(steps: int) -> Act:
    """A loop of our own kind, with everything that a step may leave behind."""
    pool, folder = made_up(1024), TemporaryDirectory()
    kept = Snapshots(Path(folder.name) / "kept", "bench")
    run = Run(pool, journal=lambda *_: None, watch=seldom(lambda *_: None), snapshots=kept)
    net, optimizer = run.setup(*layer())

    def act() -> None:
        with folder:
            for _, (x, y) in zip(run.steps(steps), run.stream(pool.labeled, 32), strict=False):
                loss = F.cross_entropy(net(x), y)
                optimizer.zero_grad()
                run.backward(loss)
                optimizer.step()
                run.log("task/loss", loss)

    return act


def by_hand(steps: int) -> Act:
    """The same images through the same layer, and nothing else."""
    pool, chance = made_up(1024), torch.Generator().manual_seed(0)
    net, optimizer = layer()

    def act() -> None:
        for step in range(steps):
            if step % 32 == 0:
                order = torch.randperm(len(pool), generator=chance)
            i = order[step % 32 * 32 :][:32]
            move(optimizer, F.cross_entropy(net(normal(at(pool.images, i))), pool.labels[i]))

    return act


def five() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [nn.Sequential(*task((1, 16, 16), 10).values()) for _ in range(5)]


class Batched(nn.Module):
    """Images (b c h w) to the logits of every member (m b k), their weights stacked: torch.func's way."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        parameters, self.running = stack_module_state(members)
        self.names = list(parameters)
        self.weights = nn.ParameterList(parameters.values())
        self.base = [deepcopy(members[0]).to("meta")]  # in a list, it is no part

    def forward(self, x: Tensor) -> Tensor:
        def one(weights: dict[str, Tensor], running: dict[str, Tensor]) -> Tensor:
            out: Tensor = functional_call(self.base[0], (weights, running), (x,))
            return out

        return vmap(one)(dict(zip(self.names, self.weights, strict=True)), self.running)


def backward(net: nn.Module, times: int) -> Callable[[], None]:
    x, y = digits()

    def act() -> None:
        for _ in range(times):
            net.zero_grad()
            torch.stack([F.cross_entropy(logits, y) for logits in net(x)]).sum().backward()

    return act


def digits() -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    return torch.randn(32, 1, 16, 16, generator=chance), torch.arange(32) % 10


def same_members() -> None:
    x, _ = digits()
    if not torch.allclose(Together(five())(x), Batched(five())(x), atol=1e-4):
        raise RuntimeError("bench: members one after another and batched do not answer alike")


def process(*words: str) -> Act:
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
