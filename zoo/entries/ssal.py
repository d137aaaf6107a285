"""SSAL trains on the unlabeled images too, and asks where labels have spread to least."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from trainers import graph
from trainers import ssal as loop
from zoo.entry import Entry, Preset
from zoo.nets.common import Shape
from zoo.nets.trunk import task
from zoo.queries.propagation import jlp
from zoo.scan import Scan


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0
) -> dict[str, nn.Module]:
    return task(shape, classes, trunk, width, dropout)


ssal = Entry(
    name="ssal",
    paper="Siméoni, Budnik, Avrithis & Gravier, ICPR 2020, arXiv:1911.08177",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan())}),
    train=loop.train,
    query=jlp,
    pretext=loop.pretext,
)
