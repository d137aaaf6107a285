"""CEAL asks where it is unsure, and believes itself where it is sure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from trainers import ceal as loop
from trainers.pool import Pool
from zoo import diagnosis
from zoo.entry import Entry, Preset
from zoo.nets.belief import Belief
from zoo.nets.common import Shape
from zoo.nets.trunk import task
from zoo.queries.uncertainty import ask_entropy, ask_least_confident, ask_margin
from zoo.query import Query
from zoo.scan import Asked, Scan

CRITERIA = {  # -> how to ask, what the query calls its quantity, what the paper calls it
    "least_confident": (ask_least_confident, "confidence", "lc"),
    "margin": (ask_margin, "margin", "ms"),
    "entropy": (ask_entropy, "entropy", "en"),
}


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0
) -> dict[str, nn.Module]:
    return {**task(shape, classes, trunk, width, dropout), "belief": Belief()}


def ask(scan: Scan, n: int, criterion: Literal["least_confident", "margin", "entropy"] = "entropy") -> Asked:
    """Ask for the least sure: the smallest best guess `lc`, the smallest margin `ms`, or the largest entropy `en`."""
    if criterion not in CRITERIA:
        raise ValueError(f"criterion={criterion!r} must be one of {', '.join(CRITERIA)}")
    asking, ours, theirs = CRITERIA[criterion]
    asked = asking(scan, n)
    return Asked(asked.positions, asked.scores, {theirs: asked.detail[ours]})


def believed(scan: Scan) -> tuple[Tensor, Tensor]:
    """What a fitted learner believes now: indices of unlabeled images (h,) and its guesses (h,), on the CPU.

    Its networks are those at the end of the fit, its threshold that of the fit. So this is not quite what it was
    trained on: that was judged on the way, and what has been trained on looks surer since.
    """
    sure, guess = scan.parts["belief"](scan.logits)
    return scan.pool.unlabeled[sure.cpu()], guess[sure].cpu()


def precision(indices: Tensor, guesses: Tensor, later: Pool) -> tuple[int, int]:
    """How many of these guesses were right, and of how many: those whose true label `later` has, revealed since.

    A learner that asks for its least sure images hardly ever asks for one it believed, and if so for one of the worst:
    for a fair number, let `later` come from random questions.
    """
    known = (later.labels[indices] >= 0) & ~later.supposed[indices]
    right = later.labels[indices][known] == guesses[known]
    return int(right.sum()), int(known.sum())


def diagnose(scan: Scan, held_out: Tensor) -> dict[str, float]:
    """Whether its beliefs can help. True labels are hidden, so whether they are right is for `precision` to say.

    delta: the threshold of the fit, in nats. believed, ratio: how many unlabeled images are below it, and how many
    for one labeled. share, held_out_share: of the unlabeled images, and of held-out ones, which it never trained on;
    far apart, it believes what it has told itself. largest: share of the most frequent guess, 0 where there is none.
    """
    pool, delta = scan.pool, scan.parts["belief"].get_buffer("delta").item()
    _, guesses = believed(scan)
    fresh = diagnosis.held(scan, held_out)
    return {
        "delta": delta,
        "believed": len(guesses),
        "ratio": len(guesses) / max(1, len(pool.labeled)),
        "share": len(guesses) / max(1, len(pool.unlabeled)),
        "held_out_share": len(believed(fresh)[0]) / max(1, len(held_out)),
        "largest": guesses.bincount().max().item() / len(guesses) if len(guesses) else 0.0,
        "classes": pool.classes,
    }


def doubt(numbers: Mapping[str, float]) -> list[str]:
    """What these numbers say against the method, in plain sentences."""
    if numbers["delta"] == 0:
        return ["the threshold has fallen to 0: nothing is believed, and this is plain training"]
    if numbers["believed"] == 0:
        return ["no guess is sure enough to be believed: this is plain training. Raise delta0"]
    if numbers["largest"] > max(0.5, 1.5 / numbers["classes"]):
        return [f"{numbers['largest']:.0%} of what it believes is one class: its guesses collapse. Lower delta0"]
    return []


# Caltech-256: 256 classes, 1,000 questions a round. For CACD (500 people) the paper has delta0=0.05, dr=0.0033 and a
# rate of 0.01 (recalled; the pair is third-party too: the defaults of a public port).
PAPER = Preset(
    loop.Plan(
        steps=956,  # third-party: a public port's 10 epochs a round, here over all 24,486 training images
        batch=256,  # recalled
        optimizer="sgd",  # recalled: momentum 0.9
        lr=0.001,  # recalled
        schedule="constant",  # ours: not known
        nesterov=False,  # recalled
        weight_decay=5e-4,  # recalled
        alone=0.5,  # ours: the paper starts from the network of the round before, `alone=0` on warm learners
        delta0=0.005,  # recalled, and third-party: the default of a public port
        dr=0.00033,  # the same
        decay="linear",  # one reading; the ports differ
        normalize=False,  # third-party: all ports but one, whose beliefs are never trained on
    ),
    {"trunk": "vgg16_bn"},  # ours: the paper's AlexNet of 227 px from ImageNet is not here; this is nearest in kind
    lr_scale={"head": 10.0},  # recalled: 0.01 for the new last layer
)

RANGES = MappingProxyType({"criterion": ("least_confident", "margin", "entropy")})

ceal = Entry(
    name="ceal",
    paper="Wang, Zhang, Li, Zhang & Lin, TCSVT 2017, arXiv:1701.03551",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan()), "paper": PAPER}),
    train=loop.train,
    query=Query("ceal", ask, "arXiv:1701.03551", ranges=RANGES),
    diagnose=diagnose,
    doubt=doubt,
    missing=MappingProxyType({"released": "CEAL's authors have released no code; the public ones are other people's"}),
)
