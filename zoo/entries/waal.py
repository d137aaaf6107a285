"""WAAL asks for what its classifier is unsure of and its critic finds far from the labeled."""

from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainers import waal as loop
from trainers.losses import auc
from trainers.pool import normal
from zoo.entry import Entry, Preset
from zoo.nets.common import Shape
from zoo.nets.trunk import task
from zoo.nets.waal import Classifier, Critic
from zoo.query import Query
from zoo.scan import Asked, Scan, evaluating, top


def build(
    shape: Shape,
    classes: int,
    *,
    trunk: str = "small",
    width: int = 32,
    dropout: float = 0.0,
    head_layers: int = 1,
    critic_width: int = 50,
    critic_dropout: float = 0.0,
    critic_output: str = "linear",
) -> dict[str, nn.Module]:
    """head_layers: 2 for the released head, with a hidden layer of 50. critic_output: "linear", or "sigmoid"."""
    parts = task(shape, classes, trunk, width, dropout)
    if head_layers not in (1, 2):
        raise ValueError(f"head_layers={head_layers} must be 1 or 2")
    if head_layers == 2:
        parts["head"] = Classifier(parts["trunk"].d, classes, dropout)
    return {**parts, "critic": Critic(parts["trunk"].d, critic_width, critic_dropout, critic_output)}


def ask(scan: Scan, n: int, weight: float = 10.0, uncertainty: str = "both_norms") -> Asked:
    """Ask where the prediction is flat and D is high: the smallest U(x) - weight D(x).

    U grows as the prediction departs from the uniform one, where it is smallest. uncertainty: "both_norms", half the
    2-norm and half the 1-norm of log p, as released; "single_worst", the largest -log p, the released alternative.
    """
    if uncertainty not in UNCERTAINTIES:
        raise ValueError(f"uncertainty={uncertainty!r} must be one of {', '.join(UNCERTAINTIES)}")
    u = UNCERTAINTIES[uncertainty](scan.logits.log_softmax(1))
    D, _ = looks(scan, scan.features)
    return top(weight * D - u, n, uncertainty=u, D=D)


def both_norms(log: Tensor) -> Tensor:
    """log p (u k) to half its 2-norm and half its 1-norm (u,); 15.15 nats where ten classes are all alike."""
    return 0.5 * log.norm(dim=1) + 0.5 * log.abs().sum(1)


def single_worst(log: Tensor) -> Tensor:
    """log p (u k) to the largest -log p of a class (u,)."""
    return -log.amin(1)


UNCERTAINTIES = {"both_norms": both_norms, "single_worst": single_worst}


def looks(scan: Scan, features: Tensor) -> tuple[Tensor, Tensor]:
    """The critic on features (b d): D (b,) and its gradient (b d)."""
    critic: nn.Module = scan.parts["critic"]
    with evaluating(critic), torch.no_grad():
        D, slope = critic(features)
    return D, slope


waal = Entry(
    name="waal",
    paper="Shui, Zhou, Gagne & Wang, AISTATS 2020, arXiv:1911.09162",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan())}),
    train=loop.train,
    query=Query("waal", ask, "arXiv:1911.09162, Sec. 4", cost="u k + u d", needs=("critic",)),
)
