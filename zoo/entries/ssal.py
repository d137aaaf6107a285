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

DEFAULT = loop.Plan()


def build(
    shape: Shape, classes: int, *, trunk: str = "small", width: int = 32, dropout: float = 0.0
) -> dict[str, nn.Module]:
    parts = task(shape, classes, trunk, width, dropout)
    if trunk == "cnn13":  # the published head
        weight_norm(parts["head"].get_submodule("linear"))
    return parts


def spread(scan: Scan, plan: loop.Plan = DEFAULT) -> graph.Spread:
    """The labels of the pool spread over its images by their features, as a plan does: labeled ones first."""
    pool = scan.pool
    net = graph.build(torch.cat([scan.known, scan.features]), plan.neighbours, plan.gamma)
    known = torch.arange(len(scan.known), device=scan.device)
    return graph.propagate(
        net, known, pool.labels[pool.labeled].to(scan.device), pool.classes, plan.alpha, plan.iterations
    )


def precision(scan: Scan, truth: Tensor) -> dict[str, float]:
    """How often spread labels are right, for studies in which the truth is known afterwards: no learner calls this.

    truth: int64 (n,), of the whole pool. precision: over all unlabeled images. weighted: each as sure as it is.
    """
    believed, known = spread(scan), len(scan.known)
    right = (believed.labels[known:].cpu() == truth[scan.pool.unlabeled]).double()
    omega = believed.weights[known:].double().cpu()
    return {
        "precision": right.mean().item(),
        "weighted": ((omega * right).sum() / omega.sum().clamp(min=1e-12)).item(),
    }


def diagnose(scan: Scan, held_out: Tensor) -> dict[str, float]:  # noqa: ARG001 (it is about the pool)
    """Whether labels spread well: all over the unlabeled images, by the features as they are now.

    omega: the mean weight of a spread label, that of the surest being 1. sure: the share of weights above one half.
    reached: the share that anything has reached. raw_omega: the largest weight before it was made 1. largest: the share
    of the class that most of these have got. classes: how many there are. agreement: how often the classifier's own
    guess is the spread label.
    """
    believed, known = spread(scan), len(scan.known)
    labels, omega = believed.labels[known:], believed.weights[known:]
    return {
        "omega": omega.mean().item(),
        "sure": (omega > 0.5).float().mean().item(),
        "reached": (omega > 0).float().mean().item(),
        "raw_omega": believed.raw.amax().item(),
        "largest": labels[omega > 0].bincount(minlength=1).amax().item() / max(1, int((omega > 0).sum())),
        "classes": scan.pool.classes,
        "agreement": (scan.probs.argmax(1) == labels).float().mean().item(),
    }


def doubt(numbers: Mapping[str, float]) -> list[str]:
    """What speaks against the spread labels: one class that takes all, weights that say nothing, a classifier that
    disagrees."""
    against = []
    if numbers["largest"] > max(0.5, 1.5 / numbers["classes"]):
        against.append(f"one class has got {numbers['largest']:.0%} of the spread labels; they have collapsed")
    if numbers["omega"] < 0.02:
        against.append(f"the mean weight of a spread label is {numbers['omega']:.3f}; the unlabeled hardly take part")
    if numbers["agreement"] < 0.5:
        against.append(f"the classifier agrees with {numbers['agreement']:.0%} of the spread labels; one of them fails")
    return against


# Read in osimeoni/RethinkingDeepActiveLearning@8a0056f, for CIFAR-10 with 100 labels in the first round, where not said
# otherwise. Its pretext cannot finish as released; its settings stand in the code and in the names of its weights.
RELEASED = Preset(
    loop.Plan(
        steps=63_800,  # 200 epochs of 319 batches, each a pass over the drawn half of 49,900 images
        sup_share=0.0,
        mixed_batch=128,
        labeled_share=50 / 128,
        optimizer="sgd",
        lr=0.2,
        nesterov=True,
        weight_decay=2e-4,
        schedule="cosine",
        semi="propagation",
        lp_steps=319,  # every epoch
        lp_mode="prob",
        lp_share=0.5,
        omega=True,
        surest=True,
        counts="images",
        apart=False,
        zeta=False,
        features="augmented",
        neighbours=50,
        gamma=3.0,
        alpha=0.99,
        iterations=20,
        pretext="deepcluster",
        pretext_steps=156_000,  # 400 epochs of 390 batches
        pretext_batch=128,
        lr_pretext=0.02,
        lr_top=0.02,
        top_alone=False,
        cluster_steps=390,  # every epoch
        clusters=5,
        kmeans_iterations=10,
        uniform=False,
        fresh_top=False,
        whiten=False,
    ),
    {"trunk": "cnn13"},
    augment="flip+shift",  # shifts by up to 4 pixels, mirrored, digits too
)
# The paper as it is recalled: a supervised stage before the spreading, zeta as in Iscen et al. (read in their code),
# the clustering as in Caron et al. (read in their code), clean features, 250 epochs of pretext. The rest as released.
PAPER = Preset(
    loop.Plan(
        steps=64_400,  # 200 epochs of 3 batches (read), then 63,800 as above
        sup_share=600 / 64_400,  # recalled: that there is such a stage
        batch=32,  # read
        mixed_batch=128,
        labeled_share=50 / 128,
        optimizer="sgd",
        lr=0.2,
        nesterov=True,
        weight_decay=2e-4,
        schedule="cosine",
        semi="propagation",
        lp_steps=319,
        lp_mode="prob",
        lp_share=0.5,
        omega=True,
        surest=True,
        counts="images",
        apart=False,
        zeta=True,  # recalled
        features="clean",  # recalled
        neighbours=50,
        gamma=3.0,
        alpha=0.99,
        iterations=20,
        pretext="deepcluster",
        pretext_steps=97_500,  # recalled: 250 epochs
        pretext_batch=128,
        lr_pretext=0.02,
        lr_top=0.02,
        cluster_steps=390,
        clusters=5,
        kmeans_iterations=10,
        uniform=True,  # recalled
        top_alone=True,  # recalled
        fresh_top=True,  # recalled
        whiten=False,
    ),
    {"trunk": "cnn13"},
    augment="flip+shift",
)

ssal = Entry(
    name="ssal",
    paper="Siméoni, Budnik, Avrithis & Gravier, ICPR 2020, arXiv:1911.08177",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan()), "paper": PAPER, "released": RELEASED}),
    train=loop.train,
    query=jlp,
    pretext=loop.pretext,
    diagnose=diagnose,
    doubt=doubt,
)
