"""Deep probabilistic ensembles ask where the members' mean is most spread out."""

from types import MappingProxyType

from torch import nn

from trainers import dpe as loop
from zoo.entries.plain import build as build_plain
from zoo.entry import Entry, Preset
from zoo.nets.common import Shape
from zoo.queries.bayesian import ask_mc_entropy
from zoo.query import Query

PAPER = "Chitta, Alvarez & Lesnikowski 2018, arXiv:1811.02640"


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0, members: int = 3
) -> dict[str, nn.Module]:
    if members < 2:
        raise ValueError(f"members={members}: one network has nobody to stay apart from; give 2 or more")
    return build_plain(shape, classes, trunk=trunk, width=width, dropout=dropout, members=members)


dpe = Entry(
    name="dpe",
    paper=PAPER,
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan())}),
    train=loop.train,
    query=Query(
        "dpe", ask_mc_entropy, PAPER, cost="u k t", needs=("members",), ranges=MappingProxyType({"draws": "[1, inf)"})
    ),
    missing=MappingProxyType(
        {
            "paper": "its settings could not be established; give them by name",
            "released": "no code of the authors has been found",
        }
    ),
)
