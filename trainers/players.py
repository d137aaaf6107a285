"""What is done to a player, a module and its optimizer: how fast it learns, and when it only looks on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Idle(Optimizer):
    """The optimizer of a player that is frozen: it has nothing to move."""

    def __init__(self) -> None:
        super().__init__([nn.Parameter(torch.empty(0))], {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def scale(factors: Mapping[nn.Module, float], optimizer: Optimizer) -> None:
    """Parameters of some modules become groups of their own, in place: the rate times `lr_scale`, as timm calls it."""
    own = {parameter: factor for module, factor in factors.items() for parameter in module.parameters()}
    groups = []
    for group in optimizer.param_groups:
        for factor in dict.fromkeys(own.get(parameter, 1.0) for parameter in group["params"]):
            mine = [parameter for parameter in group["params"] if own.get(parameter, 1.0) == factor]
            groups.append({**group, "params": mine, "lr": factor * group["lr"], "lr_scale": factor})
    optimizer.param_groups[:] = groups


@contextmanager
def looking_on(module: nn.Module) -> Iterator[None]:
    """A player that only looks on: what passes through it inside gives its parameters no gradient."""
    learns = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learns:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learns:
            parameter.requires_grad_(True)


def gradients(optimizer: Optimizer) -> list[Tensor]:
    """Those of all that an optimizer moves."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
