"""Plain training on the labeled images: the loop under every query-only strategy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from trainers.pool import UNKNOWN, Pool
from trainers.run import Run


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Defaults: ours, for small networks in seconds."""

    steps: int = 250  # of the task network
    batch: int = 32  # two at least: batch normalisation needs company
    grow: bool = False  # with more labels more steps, so that they are as many epochs as in round 0
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9  # of sgd
    lr: float = 0.1
    schedule: Literal["one-cycle", "quarters", "late-drop", "last-third", "cosine", "sixteenths", "constant"] = (
        "one-cycle"
    )
    late: float = 1.0  # what the rate is multiplied by after three quarters of the steps
    nesterov: bool = True
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        require(self, at_least={"steps": 0, "batch": 2, "weight_decay": 0, "late": 0}, above={"lr": 0, "momentum": 0})
        require(self, choices={"optimizer": ("sgd", "adam"), "schedule": tuple(SCHEDULES)})


P = TypeVar("P", bound=Plan)


def train(run: Run, pool: Pool, plan: Plan, *, trunk: nn.Module, head: nn.Module) -> None:
    """Minimise the cross-entropy of the labels.

    trunk: images (b c h w) -> features (b d). head: features (b d) -> logits (b k).
    """
    plan = grown(plan, pool)
    task, task_step = run.setup(nn.Sequential(trunk, head), optimizer(plan, trunk, head), "task")
    labeled = run.stream(pool.labeled, plan.batch)
    learn(run, plan, run.steps(plan.steps, "task"), labeled, task=task, task_step=task_step)


def learn(
    run: Run,
    plan: Plan,
    steps: Iterator[int],
    labeled: Iterator[tuple[Tensor, Tensor]],
    *,
    task: nn.Module,  # (b c h w) -> logits (b k)
    task_step: Optimizer,
) -> None:
    """The steps of one stage; the schedule is that of all `plan.steps`, of which the stage may be a part."""

    @run.whole
    def play(x: Tensor, y: Tensor) -> None:
        logits = task(x)
        loss = F.cross_entropy(logits, y)
        task_step.zero_grad()
        run.backward(loss)
        task_step.step()
        run.log("task/loss", loss)
        run.log("task/accuracy", (logits.argmax(1) == y).float().mean())

    for step, (x, y) in zip(steps, labeled, strict=False):
        rate(task_step, plan.lr * pace(plan, step, plan.steps))
        play(x, y)


def grown(plan: P, pool: Pool) -> P:
    """The plan, and where it grows, so many steps that the labels of now come as often as those of round 0 did."""
    if not plan.grow or not pool.rounds:
        return plan
    now, first = (math.ceil(labels / plan.batch) for labels in (len(pool.labeled), answered(pool)))
    return replace(plan, steps=plan.steps * now // max(1, first), grow=False)


def answered(pool: Pool) -> int:
    """How many labels the initial set has brought."""
    return int((pool.labels[pool.rounds[0]] != UNKNOWN).sum())


def optimizer(plan: Plan, *modules: nn.Module) -> Optimizer | None:
    """The plan's optimizer for the parameters that are not frozen; None if all are."""
    if not (parameters := [p for module in modules for p in module.parameters() if p.requires_grad]):
        return None
    if plan.optimizer == "adam":
        return adam(nn.ModuleList(modules), plan.lr, plan.weight_decay)
    return SGD(parameters, plan.lr, plan.momentum, weight_decay=plan.weight_decay, nesterov=plan.nesterov, fused=True)


def adam(
    module: nn.Module, lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)
) -> Optimizer | None:
    """Adam for the parameters of a module that are not frozen; None if all are."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return Adam(parameters, lr, betas, weight_decay=weight_decay, fused=True) if parameters else None


def rate(step: Optimizer, lr: float) -> None:
    """Give the optimizer a learning rate, and a part that has a scale so much of it."""
    for group in step.param_groups:
        scaled = lr * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):  # in a captured step, which reads it from where it lies
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


def descend(run: Run, loss: Tensor, *steps: Optimizer) -> None:
    """One step of the players that the loss is for."""
    for step in steps:
        step.zero_grad()
    run.backward(loss)
    for step in steps:
        step.step()


def pace(plan: Plan, step: int, steps: int) -> float:
    """The share of lr at a step of a stage of so many."""
    return SCHEDULES[plan.schedule](step, steps) * late(plan, step, steps)


def late(plan: Plan, step: int, steps: int) -> float:
    """What a rate is multiplied by at a step of a stage of so many."""
    return plan.late if 4 * step >= 3 * steps else 1.0


def one_cycle(step: int, steps: int) -> float:
    """The share of lr at a step: up to 1 in the first fifth, then down along a cosine; never 0."""
    done = (step + 1) / (steps + 1)
    return done / 0.2 if done < 0.2 else 0.5 * (1 + math.cos(math.pi * (done - 0.2) / 0.8))


def quarters(step: int, steps: int) -> float:
    """Divided by ten at every multiple of a quarter of the steps, rounded down, as the released VAAL does."""
    return 0.1 ** (step // max(1, steps // 4))


def late_drop(step: int, steps: int) -> float:
    """Divided by ten once, after four fifths of the steps, as learning loss does: epoch 160 of 200."""
    return 0.1 if 5 * step >= 4 * steps else 1.0


def last_third(step: int, steps: int) -> float:
    """1 for two thirds of the steps, then straight down to 0 after the last one, as the released ARAL does."""
    return min(3 * (1 - step / max(1, steps)), 1.0)


def cosine(step: int, steps: int) -> float:
    """Half a cosine that would reach 0 after 210 epochs, and stops after 200, as the released SSAL does."""
    return 0.5 * (1 + math.cos(math.pi * step / max(1, steps) * 200 / 210))


def sixteenths(step: int, steps: int) -> float:
    """Seven sixteenths of a cosine's turn, as FixMatch does."""
    return math.cos(7 * math.pi * step / (16 * max(1, steps)))


def constant(step: int, steps: int) -> float:  # noqa: ARG001
    return 1.0


SCHEDULES = {
    "one-cycle": one_cycle,
    "quarters": quarters,
    "late-drop": late_drop,
    "last-third": last_third,
    "cosine": cosine,
    "sixteenths": sixteenths,
    "constant": constant,
}


def require(
    plan: object,
    *,
    at_least: dict[str, float] | None = None,
    above: dict[str, float] | None = None,
    choices: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """Refuse a plan whose numbers make no sense. Raises ValueError that names the field and the range."""
    for name, least in (at_least or {}).items():
        if not least <= getattr(plan, name) < math.inf:
            raise ValueError(f"{name}={getattr(plan, name)!r} must be at least {least}, and finite")
    for name, least in (above or {}).items():
        if not least < getattr(plan, name) < math.inf:
            raise ValueError(f"{name}={getattr(plan, name)!r} must be above {least}, and finite")
    for name, values in (choices or {}).items():
        if getattr(plan, name) not in values:
            raise ValueError(f"{name}={getattr(plan, name)!r} must be one of {', '.join(values)}")
