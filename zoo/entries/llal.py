"""Learning loss asks for the images whose loss its ranker predicts to be the largest."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import llal as loop
from zoo import diagnosis
from zoo.entry import Entry, Parts, Preset
from zoo.nets.common import Shape
from zoo.nets.ranker import Ranker
from zoo.nets.trunk import Trunk, task
from zoo.query import Query
from zoo.scan import Asked, Scan, evaluating, top


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0, ranker_width: int = 64
) -> dict[str, nn.Module]:
    parts = task(shape, classes, trunk, width, dropout)
    return {**parts, "ranker": ranker(parts["trunk"], shape, ranker_width)}


def ranker(trunk: nn.Module, shape: Shape, width: int) -> Ranker:
    """A ranker for what the stages of this trunk make of images (c h w): one blank image shows it.

    Raises ValueError for a trunk without stages, and for stages that make no maps.
    """
    assert isinstance(trunk, Trunk)
    if not trunk.paths:
        raise ValueError("this trunk tells no stages whose maps a ranker could read; take another trunk")
    with evaluating(trunk), torch.no_grad():
        _, maps = loop.read(trunk, torch.zeros(1, *shape, device=next(trunk.parameters()).device))
    nhwc = any(getattr(m, "output_fmt", "") == "NHWC" for m in trunk.modules())  # as timm says
    last = []
    for stage, made, c in zip(trunk.paths, maps, trunk.channels or [None] * len(maps), strict=True):
        sides = {False: made.shape[1], True: made.shape[-1]} if isinstance(made, Tensor) and made.dim() > 2 else {}
        guess = bool(sides) and (made.dim() == 3 or nhwc)
        if not (fits := [axis for axis in (guess, not guess) if axis in sides and c in (None, sides[axis])]):
            what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"{stage} of this trunk makes {what}, no map that a ranker reads; take another trunk")
        last.append(fits[0])
    return Ranker([m.shape[-1 if ends else 1] for m, ends in zip(maps, last, strict=True)], width, last)


def ask(scan: Scan, n: int, *, subset: int = 0) -> Asked:
    """Ask for the largest predicted losses. subset: look at so many images only, drawn anew each round; 0: at all."""
    some = scan.drawn(n, subset)
    predicted = scan.each(lambda x: predict(scan.parts, x), of=scan.pool.unlabeled[some])
    asked = top(predicted, n, loss=predicted)
    return Asked(some.to(asked.positions.device)[asked.positions], asked.scores, asked.detail)


def predict(parts: Parts, x: Tensor) -> Tensor:
    """Images (b c h w) to their predicted losses (b,)."""
    _, predicted = loop.Meeting(parts["trunk"], parts["head"], parts["ranker"])(x)
    loss: Tensor = predicted
    return loss


def diagnose(scan: Scan, held_out: Tensor) -> dict[str, float]:
    """Whether the ranker knows what is hard.

    rank_correlation: Spearman's, of the predicted loss with the classifier's own entropy, over held-out images.
    rank_correlation_labeled: with the true loss, over the labeled images, which both were trained on. 0 is chance.
    """
    fresh = diagnosis.held(scan, held_out)
    log = fresh.logits.log_softmax(1)
    logits = scan.each(scan.task, of=scan.pool.labeled)
    known = scan.pool.labels[scan.pool.labeled].to(logits.device)
    return {
        "rank_correlation": diagnosis.correlation(
            fresh.each(lambda x: predict(scan.parts, x)), -(log.exp() * log).sum(1)
        ),
        "rank_correlation_labeled": diagnosis.correlation(
            scan.each(lambda x: predict(scan.parts, x), of=scan.pool.labeled),
            F.cross_entropy(logits, known, reduction="none"),
        ),
    }


def doubt(numbers: Mapping[str, float]) -> list[str]:
    """What speaks against the ranker: that it does not find hard what the classifier is unsure of."""
    if (found := numbers["rank_correlation"]) < 0.1:
        return [f"predicted losses and the classifier's entropy are ranked unlike ({found:.2f}); the ranker is blind"]
    return []


# No code of the authors' exists: settings as in Mephisto405/Learning-Loss-for-Active-Learning (third-party).
PAPER = Preset(
    loop.Plan(
        steps=1_600,  # 200 epochs of 1,000 labels, third-party; with more labels more, as `grow` says
        grow=True,
        batch=128,  # third-party
        optimizer="sgd",  # third-party, as are the next four
        lr=0.1,
        schedule="late-drop",
        nesterov=False,
        weight_decay=5e-4,
        pairs="hinge",  # third-party, as are the next three
        weight=1.0,
        margin=1.0,
        joint=121 / 200,  # the ranker only watches from the 122nd of 200 epochs on
    ),
    {"trunk": "resnet18", "ranker_width": 128},  # third-party
    augment="flip+shift",  # third-party
    asks={"subset": 10_000},  # third-party
)

llal = Entry(
    name="llal",
    paper="Yoo & Kweon, CVPR 2019, arXiv:1905.03677",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan()), "paper": PAPER}),
    train=loop.train,
    query=Query(
        "llal", ask, "arXiv:1905.03677", cost="u", needs=("ranker",), ranges=MappingProxyType({"subset": "[0, inf)"})
    ),
    diagnose=diagnose,
    doubt=doubt,
    missing=MappingProxyType(
        {"released": "its authors published no code; plan='paper' follows the usual code of others"}
    ),
)
