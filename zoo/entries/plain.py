"""Plain supervised training: what every query-only strategy stands on. By itself it asks anywhere."""

from types import MappingProxyType

from torch import nn

from trainers import ensemble
from zoo.entry import Entry, Preset, always
from zoo.nets.common import Shape
from zoo.nets.trunk import task
from zoo.queries.uncertainty import random


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0, members: int = 1
) -> dict[str, nn.Module]:
    nets = [task(shape, classes, trunk, width, dropout) for _ in range(members)]
    more: dict[str, nn.Module] = {"members": nn.ModuleList(nn.Sequential(*net.values()) for net in nets[1:])}
    return nets[0] | more if members > 1 else nets[0]


plain = Entry(
    name="plain",
    paper="-",
    build=build,
    plans=MappingProxyType({"ours": Preset(ensemble.Plan())}),
    train=ensemble.train,
    query=random,
    plainly=always,
    missing=MappingProxyType(
        dict.fromkeys(("paper", "released"), "plain training has no paper of its own; give it the settings by name")
    ),
)
