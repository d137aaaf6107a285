"""Semi-supervised active learning: clusters give the start, and labels spread over the graph of neighbours.

Siméoni, Budnik, Avrithis & Gravier, "Rethinking deep active learning: Using unlabeled data at model training",
ICPR 2020. https://arxiv.org/abs/1911.08177. The spreading is that of Iscen, Tolias, Avrithis & Chum, CVPR 2019,
https://arxiv.org/abs/1904.04717; the clustering that of Caron, Bojanowski, Joulin & Douze, "Deep Clustering for
Unsupervised Learning of Visual Features", ECCV 2018, https://arxiv.org/abs/1807.05520; `semi="fixmatch"` is Sohn et
al., "FixMatch", NeurIPS 2020, https://arxiv.org/abs/2001.07685 (without their moving average of the weights).

The point of the paper: what is asked matters less than that the unlabeled images take part in training. Once, the
trunk learns to tell clusters of its own features apart. Then, in every round, it starts from there, learns from the
labels, and goes on with labels that have spread to the other images, each weighed by how sure it is (omega) and by how
rare its class is (zeta).

Switches, because paper and released code differ: the code has no supervised stage (`sup_share=0`), computes zeta and
leaves it out, since it asks whether a flag that is True equals 4 (`zeta=False`), looks at augmented images for the
features (`features`), draws half of the images by omega and weighs them by omega too, which is about its square
(`lp_mode="prob"`), and while it clusters it keeps the last layer although the clusters have new numbers
(`fresh_top=False`), moves it as it moves the trunk (`top_alone=False`) and shows large clusters more often
(`uniform=False`). Where it takes a similarity below zero as it is, we follow the paper: no tie. Also in the released
code, and nowhere here: an image that nothing has reached turns all weights into no number; the pretext stops at epoch
10 on a name that is not defined, and one set of its weights serves both CIFAR sets; its CEAL changes nothing; jLP looks
at augmented images; true labels of unlabeled images are read for a log; labels are not spread anew after the first
epoch (they are here). Its pixels are shifted in by reflection; ours are black. Its threshold on omega, 0 in all its
settings, and the weight normalisation of its cluster layer are not here.

`steps` are all steps of the task network after the pretext, those on labels and those on labels that have spread. So a
learner that is compared with this one takes as many. Spread labels never touch the pool: they lie in `Beliefs`.

What was wrong here at first, and cost 12 points on CIFAR-10 where labels are few and steps some hundreds:
- A batch had 12 labels where the labels alone have 32, and its loss was divided by all 32 (`mixed_batch`,
  `labeled_share`).
- As published, the surest spread label weighs 1, however unsure it is. On digits and MNIST it is .85 to 1 of what can
  be; on CIFAR-10 .15, so that all weighed seven times what they are sure of. Ours weigh just that (`surest`).
- As published, a spread label counts as one image in the mean of a batch, and where classes are given the same say: the
  less it weighs, the less was learned from the true labels beside it. Ours counts as much as it weighs (`counts`).
- Labeled images were normalised together with the others of a batch, which cost 1.7 points even where the others had no
  weight at all (500 labels, one seed). Ours pass apart (`apart`).
- The pretext: hundreds of steps, where the paper has hundreds of epochs, cost a point or two and gain nothing. It is in
  the published plans, and in ours when it is asked for (`pretext="deepcluster"`).
Trials of these on held-out images are in scripts/results/tuning; scripts/results/games.jsonl has what each form is
worth beside labels alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from trainers import graph, supervised
from trainers.passes import through
from trainers.pool import Pool
from trainers.run import Run
from trainers.supervised import grown, optimizer, pace, rate, require

LOOK = 256  # images that are looked at together for their features


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. `lr` and the optimizer serve both stages; `batch` are the labeled images of a step on labels."""

    sup_share: float = 0.2  # of `steps`, at the beginning, on the labels alone

    semi: Literal["propagation", "fixmatch", "none"] = "propagation"  # how the unlabeled take part
    mixed_batch: int = 64  # of labeled images and others together (propagation)
    labeled_share: float = 0.5  # of these
    apart: bool = True  # labeled images and others pass the task network apart, each with their own batch statistics
    lp_steps: int = 50  # between two times that labels are spread
    lp_mode: Literal["prob", "full", "uniform"] = "prob"  # whom to learn from: drawn by omega, all, drawn evenly
    lp_share: float = 0.5  # of the unlabeled images that is drawn
    omega: bool = True  # weigh a spread label by how sure it is
    surest: bool = False  # the surest of all weighs 1, and all others in proportion (the paper); else each as it is
    counts: Literal["weights", "images"] = "weights"  # what a batch's mean and zeta go by; in the paper images
    zeta: bool = True  # weigh a class by how rare it is
    features: Literal["clean", "augmented"] = "clean"  # what the graph and the clusters are made of
    neighbours: int = 10  # in the graph; the paper's 50 ask for more images of a class than a small pool has
    gamma: float = 3.0  # the power of a similarity
    alpha: float = 0.99  # how far labels spread
    iterations: int = 20  # of conjugate gradients

    mu: int = 2  # unlabeled images for each labeled one (fixmatch)
    threshold: float = 0.95  # how sure a guess must be (fixmatch)
    unlabeled_weight: float = 1.0  # of the unlabeled images' loss (fixmatch)

    pretext: Literal["deepcluster", "none"] = "none"  # hundreds of steps gain nothing, and the paper has epochs
    pretext_steps: int = 300
    pretext_batch: int = 32
    lr_pretext: float = 0.01  # of the trunk
    lr_top: float = 0.1  # of the last layer
    top_alone: bool = True  # the last layer moves by plain SGD; else as the trunk does, momentum and weight decay too
    cluster_steps: int = 50  # between two clusterings
    clusters: int = 5  # per class
    kmeans_iterations: int = 20
    uniform: bool = True  # every cluster is shown as often
    fresh_top: bool = True  # the last layer begins anew with every clustering
    whiten: bool = False  # features on 256 principal axes of unit variance, before they are clustered

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"sup_share": 0, "mixed_batch": 2, "lp_steps": 1, "neighbours": 1, "alpha": 0})
        require(self, at_least={"iterations": 1, "mu": 1, "threshold": 0, "unlabeled_weight": 0, "clusters": 1})
        require(self, at_least={"pretext_steps": 0, "pretext_batch": 2, "cluster_steps": 1, "kmeans_iterations": 0})
        require(self, above={"lr_pretext": 0, "lr_top": 0, "gamma": 0, "lp_share": 0, "labeled_share": 0})
        require(self, choices={"semi": ("propagation", "fixmatch", "none"), "pretext": ("deepcluster", "none")})
        require(self, choices={"lp_mode": ("prob", "full", "uniform"), "features": ("clean", "augmented")})
        require(self, choices={"counts": ("weights", "images")})
        for name in ("sup_share", "lp_share", "threshold"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at most 1")
        for name in ("labeled_share", "alpha"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be below 1")
        if self.apart and not 2 <= self.told <= self.mixed_batch - 2:
            what = f"{self.told} of mixed_batch={self.mixed_batch}"
            raise ValueError(f"{what} images are labeled; apart, two at least must be, and two must not")

    @property
    def told(self) -> int:
        """How many images of a mixed batch are labeled."""
        return min(self.mixed_batch - 1, max(1, round(self.mixed_batch * self.labeled_share)))


def pretext(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # noqa: ARG001 (it waits for labels)
) -> Mapping[str, nn.Module]:
    """Train the trunk to tell the clusters of its own features apart: the start of every fit on these images."""
    moves = optimizer(replace(plan, lr=plan.lr_pretext), trunk)
    if plan.pretext == "none" or moves is None:
        return {}
    everything = torch.arange(len(pool))
    d = features(run, plan, trunk, everything[:1]).shape[1]
    clusters = Clusters(len(pool), d, min(plan.clusters * pool.classes, len(pool)))
    body, body_step = run.setup(trunk, moves, "pretext")
    alone, alike = (
        SGD(clusters.parameters(), plan.lr_top, fused=True),
        optimizer(replace(plan, lr=plan.lr_top), clusters),
    )
    top, top_step = run.setup(clusters, alone if plan.top_alone else alike, "clusters")
    order = run.order(everything, plan.pretext_batch)

    @run.whole
    def play(x: Tensor, y: Tensor) -> None:
        # Trunk and last layer say which cluster an image is in.
        logits = top(body(x))
        loss = F.cross_entropy(logits, y)
        body_step.zero_grad()
        top_step.zero_grad()
        run.backward(loss)
        body_step.step()
        top_step.step()
        run.log("pretext/loss", loss)
        run.log("pretext/accuracy", (logits.argmax(1) == y).float().mean())

    for step in run.steps(plan.pretext_steps, "pretext"):
        # From time to time the images are clustered by their features, and the last layer begins anew.
        if step % plan.cluster_steps == 0:
            before = clusters.assigned.clone()
            clusters.assign(cluster(plan, features(run, plan, trunk, everything), clusters.k))
            if plan.fresh_top:
                clusters.begin()
            if step > 0:
                run.log("pretext/nmi", graph.nmi(before, clusters.assigned))

        # Every cluster is shown as often.
        i = torch.multinomial(clusters.odds, plan.pretext_batch, replacement=True) if plan.uniform else next(order)
        rate(body_step, plan.lr_pretext * pace(plan, step, plan.pretext_steps))
        rate(top_step, plan.lr_top * pace(plan, step, plan.pretext_steps))
        play(run.look(i), clusters.assigned[i.to(run.device)])
    return {"trunk": trunk}


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
) -> None:
    plan, semi = grown(plan, pool), plan.semi
    if semi != "none" and not len(pool.unlabeled):
        semi = "none"
        run.say("ssal: nothing is unlabeled, so there is nothing for labels to spread to: it learns from labels alone")
    first = plan.steps if semi == "none" else round(plan.sup_share * plan.steps)

    # The task network learns from the labels alone.
    task, task_step = run.setup(nn.Sequential(trunk, head), optimizer(plan, trunk, head), "task")
    labeled = run.stream(pool.labeled, plan.batch)
    alone = replace(plan, steps=first)
    supervised.learn(run, alone, run.steps(first, "labels"), labeled, task=task, task_step=task_step)

    # Then it goes on with the unlabeled images too.
    if semi == "propagation":
        learn_from_spread_labels(run, pool, plan, plan.steps - first, trunk=trunk, task=task, task_step=task_step)
    elif semi == "fixmatch":
        learn_from_sure_guesses(run, pool, plan, plan.steps - first, task=task, task_step=task_step)


def learn_from_spread_labels(
    run: Run, pool: Pool, plan: Plan, steps: int, *, trunk: nn.Module, task: nn.Module, task_step: Optimizer
) -> None:
    """Mixed batches of labeled images and of unlabeled ones that labels have spread to."""
    everything = torch.cat([pool.labeled, pool.unlabeled])
    known, y_known = torch.arange(len(pool.labeled)), pool.labels[pool.labeled]
    told, m = plan.told, len(pool.unlabeled)
    if plan.lp_mode != "full":
        m = max(1, round(plan.lp_share * m))
    beliefs = Beliefs(m, pool.classes)
    run.setup(beliefs, None, "beliefs")
    labeled, order = run.stream(pool.labeled, told), run.order(torch.arange(m), plan.mixed_batch - told)

    @run.whole
    def play(x: Tensor, y: Tensor, u: Tensor, guess: Tensor, omega: Tensor) -> None:
        # It learns from both, each image weighed by how sure its label is and how rare its class: omega zeta CE / b.
        logits = torch.cat(through(task, [(x,), (u,)], apart=plan.apart))
        target, weight = torch.cat([y, guess]), F.pad(omega, (told, 0), value=1)
        each = weight * beliefs.zeta[target] * F.cross_entropy(logits, target, reduction="none")
        loss = each.sum() / (weight.sum() if plan.counts == "weights" else len(each))
        task_step.zero_grad()
        run.backward(loss)
        task_step.step()
        run.log("semi/loss", loss)
        run.log("semi/accuracy", (logits[:told].argmax(1) == y).float().mean())
        run.log("semi/agreement", (logits[told:].argmax(1) == guess).float().mean())

    for step in run.steps(steps, "semi"):
        # From time to time the labels spread anew over the graph of the features, and some of the images are drawn.
        if step % plan.lp_steps == 0:
            net = graph.build(features(run, plan, trunk, everything), plan.neighbours, plan.gamma)
            spread = graph.propagate(
                net, known.to(run.device), y_known.to(run.device), pool.classes, plan.alpha, plan.iterations
            )
            beliefs.take(pool.unlabeled, spread, plan)
            run.log("spread/omega", spread.weights[len(known) :].mean())
            run.log("spread/raw", spread.raw.amax())
            run.log("spread/largest", spread.labels[len(known) :].bincount().max() / len(pool.unlabeled))

        (x, y), (i, guess, omega) = next(labeled), beliefs(next(order))
        rate(task_step, plan.lr * pace(plan, step, steps))
        play(x, y, run.look(i), guess, omega)


def learn_from_sure_guesses(
    run: Run, pool: Pool, plan: Plan, steps: int, *, task: nn.Module, task_step: Optimizer
) -> None:
    """FixMatch: what it is sure of when it looks at an image weakly augmented, it is told when it sees it strongly."""
    b, u = plan.batch, plan.mu * plan.batch
    labeled, order = run.stream(pool.labeled, b), run.order(pool.unlabeled, u)

    @run.whole
    def play(x: Tensor, y: Tensor, weakly: Tensor, strongly: Tensor) -> None:
        # It learns from the labels, and from its own guesses that are above the threshold; the others count as zero.
        on_x, weak, strong = task(torch.cat([x, weakly, strongly])).split([b, u, u])
        sure, guess = weak.detach().softmax(1).max(1)
        kept = (sure >= plan.threshold).float()
        consistent = (kept * F.cross_entropy(strong, guess, reduction="none")).mean()
        loss = F.cross_entropy(on_x, y) + plan.unlabeled_weight * consistent
        task_step.zero_grad()
        run.backward(loss)
        task_step.step()
        run.log("semi/loss", loss)
        run.log("semi/accuracy", (on_x.argmax(1) == y).float().mean())
        run.log("semi/kept", kept.mean())

    for step in run.steps(steps, "semi"):
        (x, y), i = next(labeled), next(order)
        rate(task_step, plan.lr * pace(plan, step, steps))
        play(x, y, run.look(i), run.look(i, "strong"))


class Beliefs(nn.Module):
    """The labels that have spread, of the m images drawn: in every snapshot, and never in the pool.

    Positions (b,) among the drawn to images (b,), labels (b,) and weights (b,). `zeta` (k,): the weight of each class.
    """

    drawn: Tensor
    labels: Tensor
    omega: Tensor
    zeta: Tensor

    def __init__(self, m: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("drawn", torch.zeros(m, dtype=torch.int64))
        self.register_buffer("labels", torch.zeros(m, dtype=torch.int64))
        self.register_buffer("omega", torch.zeros(m))
        self.register_buffer("zeta", torch.ones(classes))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        positions = positions.to(self.drawn.device)
        return self.drawn[positions], self.labels[positions], self.omega[positions]

    def take(self, unlabeled: Tensor, spread: graph.Spread, plan: Plan) -> None:
        """Draw among the unlabeled images (u,), which come last in what has been spread."""
        known = len(spread.labels) - len(unlabeled)
        labels, omega = spread.labels[known:], (spread.weights if plan.surest else spread.raw)[known:]
        if plan.lp_mode == "prob":
            chosen = graph.draw(omega, len(self.drawn))
        else:
            chosen = torch.randperm(len(unlabeled), device=omega.device)[: len(self.drawn)]
        self.drawn.copy_(unlabeled.to(omega.device)[chosen])
        self.labels.copy_(labels[chosen])
        reached = (omega[chosen] > 0).to(omega)  # no label has spread to the others
        self.omega.copy_(omega[chosen] if plan.omega else reached)
        if plan.zeta:
            weight = F.pad(self.omega if plan.counts == "weights" else reached, (known, 0), value=1)
            self.zeta.copy_(graph.balance(torch.cat([spread.labels[:known], self.labels]), len(self.zeta), weight))


class Clusters(nn.Module):
    """The cluster of every image, how often each is to be shown, and the last layer: features (b d) -> logits (b k)."""

    assigned: Tensor
    odds: Tensor

    def __init__(self, n: int, d: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.layer = nn.Linear(d, k)
        self.register_buffer("assigned", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("odds", torch.ones(n))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.layer(features.float())
        return logits

    def assign(self, assigned: Tensor) -> None:
        """Give every image (n,) a cluster; together, the images of each are as likely as those of any other."""
        self.assigned.copy_(assigned)
        self.odds.copy_(1 / assigned.bincount(minlength=self.k)[assigned])

    def begin(self) -> None:
        """Forget which number each cluster had."""
        nn.init.normal_(self.layer.weight, 0, 0.01)
        nn.init.zeros_(self.layer.bias)


def features(run: Run, plan: Plan, trunk: nn.Module, indices: Tensor) -> Tensor:
    """What the trunk makes of images (n,) in evaluation mode: float32 (n d)."""
    augment = "none" if plan.features == "clean" else None
    training = trunk.training
    trunk.eval()
    with torch.no_grad(), run.fabric.autocast():
        out = torch.cat([trunk(run.look(i, augment)).float() for i in indices.split(LOOK)])
    trunk.train(training)
    return out


def cluster(plan: Plan, x: Tensor, k: int) -> Tensor:
    """The clusters (n,) of features (n d), each of length one."""
    return graph.kmeans(F.normalize(graph.whiten(x) if plan.whiten else x), k, plan.kmeans_iterations)
