"""Learning loss asks for the images whose loss its ranker predicts to be the largest."""

from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainers import llal as loop
from zoo.entry import Entry, Parts, Preset
from zoo.nets.common import Shape
from zoo.nets.ranker import Ranker
from zoo.nets.trunk import task
from zoo.query import Query
from zoo.scan import Asked, Scan, evaluating, top


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0, ranker_width: int = 64
) -> dict[str, nn.Module]:
    parts = task(shape, classes, trunk, width, dropout)
    return {**parts, "ranker": ranker(parts["trunk"], shape, ranker_width)}


def ranker(trunk: nn.Module, shape: Shape, width: int) -> Ranker:
    """A ranker for what the stages of this trunk make of images (c h w): one blank image shows it."""
    with evaluating(trunk), torch.no_grad():
        _, maps = loop.read(trunk, torch.zeros(1, *shape, device=next(trunk.parameters()).device))
    if not maps:
        raise ValueError("this trunk tells no stages whose maps a ranker could read; take another trunk")
    last = maps[0].dim() == 3 or any(getattr(m, "output_fmt", "") == "NHWC" for m in trunk.modules())  # as timm says
    return Ranker([m.shape[-1 if last else 1] for m in maps], width, last)


def ask(scan: Scan, n: int, *, subset: int = 0) -> Asked:
    """Ask for the largest predicted losses. subset: look at so many images only, drawn anew each round; 0: at all."""
    some = draw(scan, n, subset)
    predicted = scan.each(lambda x: predict(scan.parts, x), of=scan.pool.unlabeled[some])
    asked = top(predicted, n, loss=predicted)
    return Asked(some.to(asked.positions.device)[asked.positions], asked.scores, asked.detail)
