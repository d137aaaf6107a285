"""Ask for images that are typical of many: for the first labels of all."""

from types import MappingProxyType

import torch
from torch import Tensor

from zoo.queries.geometry import LOOKS, Points, blocks, gaps, in_turn, kmeans, looks, squared
from zoo.query import Query
from zoo.scan import Asked, Scan

SMALL = 5  # images of a cluster that TypiClust passes over
NEIGHBOURS = 20  # images that typicality is measured by


def ask_typiclust(scan: Scan, n: int, features: str = "pixels", most: int = 500, rounds: int = 20) -> Asked:
    """Ask for the most typical image of each of the largest clusters without a label.

    The whole pool in l + n clusters, but no more than `most`; those with the fewest labeled images first, of these
    the largest; then each in turn, again and again. `typicality`: one over the mean distance to the 20 nearest images
    without a label in the same cluster, or to half of the cluster. Clusters of 5 images or fewer come last, when no
    other has an image left (the authors' code stops there). Theirs are directions of self-supervised features of the
    whole pool; here they are those of `features`, "pixels" or "task", which is why this only comes close.
    """
    x, known = looks(scan, features, unit=True)
    everything = torch.cat([known, x])
    k = min(len(everything), len(known) + n, most)
    clusters, _ = kmeans(everything, k, scan.generator("kmeans"), rounds=rounds)
    sizes = torch.bincount(clusters, minlength=k).tolist()
    labeled = torch.bincount(clusters[: len(known)], minlength=k).tolist()
    own = clusters[len(known) :]
    members = [(own == cluster).nonzero().squeeze(1) for cluster in range(k)]
    turns = sorted(range(k), key=lambda c: (sizes[c] <= SMALL, labeled[c], -sizes[c]))
    positions: list[Tensor] = []
    typicality: list[Tensor] = []
    while len(positions) < n:
        large = [c for c in turns if len(members[c]) and sizes[c] > SMALL]
        for cluster in (large or [c for c in turns if len(members[c])])[: n - len(positions)]:
            typical = typicality_of(x[members[cluster]])
            best = typical.argmax()
            positions.append(members[cluster][best])
            typicality.append(typical[best])
            members[cluster] = members[cluster][torch.arange(len(typical), device=best.device) != best]
    return in_turn(torch.stack(positions), typicality=torch.stack(typicality))


def typicality_of(x: Tensor) -> Tensor:
    """How typical each is of x (n d): one over the mean distance to the nearest 20, or half of them; alone, zero."""
    near = min(NEIGHBOURS, len(x) // 2)
    if not near:
        return torch.zeros_like(x[:, 0])
    points, out = Points.of(x), torch.empty_like(x[:, 0])
    for rows in blocks(len(x), len(x)):
        distance = squared(points[rows], points)
        distance[torch.arange(len(distance)), torch.arange(len(x))[rows]] = torch.inf  # to itself
        out[rows] = distance.topk(near, largest=False).values.sqrt().mean(1)
    return 1 / (out + 1e-5)


def ask_probcover(
    scan: Scan,
    n: int,
    features: str = "pixels",
    delta: float = 0.0,
    purity: float = 0.95,
    sample: int = 2048,
    *,
    largest: int = 200_000,  # noqa: ARG001 (looked at before anything is computed)
) -> Asked:
    """Ask for the image with the most images around it that no labeled or asked one has around it.

    An image covers what is nearer to it than delta. delta = 0: the largest for which a share of `purity` of all balls
    holds images of one cluster only, of as many clusters as there are classes; measured at `sample` images, and anew in
    every round (ours; the authors' code is told one number, 0.75 for its features of CIFAR-10).
    `covers`: images that are newly covered. Of images that cover as many, one is drawn: a folder's images lie class by
    class, and its first would be of one. When all are covered, the rest is drawn (the authors' code repeats
    itself then). Their paper draws among the best five, their code takes the best, and so does this. As for
    typiclust, their features are self-supervised ones. The graph is never kept: an image's neighbours are worked out
    when it becomes covered, and once before. largest: a larger pool is refused before anything is trained, as all
    pairs of images are compared.
    """
    x, known = looks(scan, features, unit=True)
    chance = scan.generator("probcover")
    reach = delta or purest(torch.cat([known, x]), max(2, scan.pool.classes), purity, sample, chance)
    new = Points.of(x)
    bare = gaps(new, Points.of(known)) >= reach**2
    degree = torch.maximum(neighbours(new, new[bare], reach), bare.long())  # each covers itself
    lots = torch.randperm(len(x), generator=scan.generator("probcover ties")).to(x.device)
    positions, covers = [], []
    for _ in range(n):
        best = lots[degree[lots].argmax()].view(1)
        if not bool(degree[best] > 0):
            break
        fresh = bare & ((squared(new[best], new)[0] < reach**2).index_fill_(0, best, True))
        positions.append(best)
        covers.append(fresh.sum().view(1))
        bare &= ~fresh
        degree = torch.maximum(degree - neighbours(new, new[fresh], reach), bare.long())
        degree[best] = 0
    anywhere = torch.randperm(len(x), generator=chance).to(x.device)
    picked = torch.cat([*positions, anywhere[:0]])
    rest = anywhere[~torch.isin(anywhere, picked)][: n - len(picked)]
    return in_turn(torch.cat([picked, rest]), covers=torch.cat([*covers, torch.zeros_like(rest)]))


def neighbours(points: Points, of: Points, reach: float) -> Tensor:
    """How many of the others each point has within reach: int64 (n,)."""
    out = torch.empty_like(points.squares, dtype=torch.int64)
    for rows in blocks(len(points), len(of)):
        out[rows] = (squared(points[rows], of) < reach**2).sum(1)
    return out


def purest(x: Tensor, classes: int, purity: float, sample: int, chance: torch.Generator) -> float:
    """The largest radius at which a share of `purity` of the balls around x (n d) holds one cluster of k-means only.

    A ball is pure as long as its radius is no larger than the distance to the nearest point of another cluster.
    """
    clusters, _ = kmeans(x, min(classes, len(x)), chance)
    some = torch.randperm(len(x), generator=chance)[:sample].to(x.device)
    points, free = Points.of(x), torch.empty_like(x[: len(some), 0])
    for rows in blocks(len(some), len(x)):
        own = clusters[some[rows], None] == clusters
        free[rows] = squared(points[some[rows]], points).masked_fill_(own, torch.inf).amin(1)
    ordered = free.sort().values.sqrt()
    return float(ordered[min(len(ordered) - 1, int((1 - purity) * len(ordered) + 1e-9))])


typiclust = Query(
    "typiclust",
    ask_typiclust,
    "Hacohen, Dekel & Weinshall, ICML 2022, arXiv:2202.02794",
    cost="u (l + n) d",
    randomised=True,
    approximate=True,
    cold=True,
    ranges=MappingProxyType({"features": LOOKS, "most": "[1, inf)", "rounds": "[1, inf)"}),
)
probcover = Query(
    "probcover",
    ask_probcover,
    "Yehuda, Dekel, Hacohen & Weinshall, NeurIPS 2022, arXiv:2205.11320",
    cost="u^2 d",
    randomised=True,
    approximate=True,
    cold=True,
    ranges=MappingProxyType(
        {"features": LOOKS, "delta": "[0, inf)", "purity": "(0, 1]", "sample": "[1, inf)", "largest": "[1, inf)"}
    ),
)
