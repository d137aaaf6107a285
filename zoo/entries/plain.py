"""Plain supervised training: what every query-only strategy stands on. By itself it asks anywhere."""

from types import MappingProxyType

from torch import nn

from trainers import supervised
from zoo.entry import Entry, Preset
from zoo.nets.common import Shape
from zoo.nets.trunk import task
from zoo.queries.uncertainty import random


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0
) -> dict[str, nn.Module]:
    return task(shape, classes, trunk, width, dropout)


plain = Entry(
    name="plain",
    paper="-",
    build=build,
    plans=MappingProxyType({"ours": Preset(supervised.Plan())}),
    train=supervised.train,
    query=random,
    plainly=True,
    missing=MappingProxyType(
        dict.fromkeys(("paper", "released"), "plain training has no paper of its own; give it the settings by name")
    ),
)
