"""Ask for images that stand for the rest: far from what is known, and from one another."""

from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zoo.queries.geometry import (
    LOOKS,
    SHORT,
    TAKEN,
    VALUES,
    Points,
    blocks,
    farthest,
    finite,
    gaps,
    gaps_at_most,
    in_turn,
    kmeans,
    looks,
    squared,
)
from zoo.queries.uncertainty import two_best
from zoo.query import Query
from zoo.scan import Asked, Scan, top

LEVELS = 16  # radii tried between half the greedy one and the greedy one


def ask_kcenter(scan: Scan, n: int, features: str = "task") -> Asked:
    """Ask for the image farthest from all labeled and asked ones, again and again.

    The greedy 2-approximation of the k-centre problem: no choice of n images more than halves the largest distance
    that is left. `distance`: to the nearest labeled or earlier asked image. With nothing labeled the first is the
    medoid, and features are pixels if nothing is trained. The authors' further mixed-integer search: robust_kcenter.
    """
    new, known = looks(scan, features)
    positions, gains = from_known(Points.of(new), Points.of(known), n)
    return in_turn(positions, distance=gains.sqrt())


def ask_ff_active(scan: Scan, n: int, features: str = "task", unit: bool = False) -> Asked:
    """Ask for the farthest image in the space of activations, first to last; `unit`: on directions alone.

    The same traversal as kcenter's, in the layer before the head.
    """
    new, known = looks(scan, features, unit)
    positions, gains = from_known(Points.of(new), Points.of(known), n)
    return in_turn(positions, distance=gains.sqrt())


def from_known(new: Points, known: Points, n: int) -> tuple[Tensor, Tensor]:
    """Farthest first from what is known, or else from the medoid: positions and squared distances at their turn."""
    if len(known):
        if rounding_pays(new, known):
            return farthest(new, gaps_at_most(new, known), n, known)
        return farthest(new, gaps(new, known), n)
    mean = Points.of(new.factors[0].mean(0, keepdim=True))
    medoid = squared(mean, new).argmin().view(1)  # nearest to the mean: the least sum of squared distances to all
    bound = gaps(new, new[medoid]).index_fill_(0, medoid, TAKEN)
    positions, gains = farthest(new, bound, n - 1)
    return torch.cat([medoid, positions]), torch.cat([torch.full_like(bound[:1], torch.inf), gains])


def rounding_pays(new: Points, known: Points) -> bool:
    """Whether bounds by bf16 products save time: on a processor that multiplies bf16, for more than a few images."""
    able = new.squares.device.type == "cpu" and torch.cpu.get_capabilities()
    return bool(able and (able.get("avx512_bf16") or able.get("amx_bf16"))) and min(len(new), len(known)) > SHORT


def ask_robust_kcenter(scan: Scan, n: int, outliers: float = 1e-4, others: int = 2048, features: str = "task") -> Asked:
    """Ask for images that leave nothing far away, but for a few outliers.

    The paper searches for the least radius for which a mixed-integer program finds n images that leave no more than
    a share of `outliers` uncovered. Ours tries `LEVELS` radii from half the greedy one on, in place of the program
    with the image that covers most, again and again; where this fails at each smaller radius, the greedy answer
    stands. Candidates are the greedy answer and `others` drawn images: 2 (n + others) bytes per unlabeled image.
    `covers`: images that the asked one was the first to cover at that radius; zero where the greedy answer stands.
    """
    new, known = (Points.of(x) for x in looks(scan, features))
    greedy, _ = from_known(new, known, n)
    bound = gaps(new, known)
    after = torch.minimum(bound, gaps(new, new[greedy]))
    drawn = torch.randperm(len(new), generator=scan.generator("others")).to(greedy.device)
    rows = torch.cat([greedy, drawn[~torch.isin(drawn, greedy)][:others]])
    radii = torch.linspace(0.5, 1, LEVELS, device=after.device) * after.max().sqrt()
    reach = levels(new, new[rows], radii)
    low, high, picked, covers = 0, LEVELS - 1, greedy, greedy[:0]
    while low < high:  # the least radius that is enough lies in low..high
        middle = (low + high) // 2
        left, which, gain = covering(reach <= middle, bound > radii[middle].square(), n)
        if left <= outliers * len(new):
            high, picked, covers = middle, rows[which], gain
        else:
            low = middle + 1
    bound = torch.minimum(bound, gaps(new, new[picked])).index_fill_(0, picked, TAKEN)
    rest = farthest(new, bound, n - len(picked))[0]
    return in_turn(torch.cat([picked, rest]), covers=torch.cat([covers, covers.new_zeros(n - len(covers))]))


def levels(points: Points, centres: Points, radii: Tensor) -> Tensor:
    """The first of the rising radii that reaches from each point to each centre, uint8 (n m)."""
    out = torch.empty(len(points), len(centres), dtype=torch.uint8, device=radii.device)
    for rows in blocks(len(points), len(centres)):
        out[rows] = torch.bucketize(squared(points[rows], centres), radii.square(), out_int32=True)
    return out


def covering(reach: Tensor, bare: Tensor, n: int) -> tuple[int, Tensor, Tensor]:
    """At most n centres, each covering the most of what is still bare: how much stays bare, which, what each covers.

    reach: bool (u m), whether a point is covered by a centre. bare: bool (u,), the points to cover.
    """
    bare, gain = bare.clone(), covered(reach, bare)
    which, covers = [gain[:0]], [gain[:0]]
    for _ in range(n):
        best = gain.argmax().view(1)
        fresh = reach[:, best[0]] & bare
        if not bool(fresh.any()):
            break
        which.append(best)
        covers.append(gain[best])
        gain -= covered(reach, fresh)
        bare &= ~fresh
    return int(bare.sum()), torch.cat(which), torch.cat(covers)


def covered(reach: Tensor, some: Tensor) -> Tensor:
    """How many of some, bool (u,), each centre of reach, bool (u m), covers: int64 (m,)."""
    out = torch.zeros_like(reach[0], dtype=torch.int64)
    for rows in some.nonzero().squeeze(1).split(max(1, VALUES // max(1, len(out)))):
        out += reach[rows].sum(0)
    return out


def ask_weighted_kmeans(scan: Scan, n: int, beta: float = 10.0, features: str = "task", rounds: int = 30) -> Asked:
    """Ask for the images nearest to the centres of n clusters of the most uncertain ones.

    Of the beta n images of the least margin, weighted by informativeness = 1 - margin. Where one image is the nearest
    to two centres, the second takes the next. Distances between images as the trunk sees them.
    """
    first, second = two_best(scan.probs)
    sure = top(second - first, min(len(first), max(n, round(beta * n))))
    informative = 1 + sure.scores
    x = looks(scan, features)[0][sure.positions]
    _, centres = kmeans(x, n, scan.generator("kmeans"), informative, rounds)
    chosen = representatives(Points.of(x), Points.of(centres))
    turn = informative[chosen].sort(descending=True, stable=True)
    return Asked(sure.positions[chosen[turn.indices]], turn.values, {"informativeness": turn.values})


def representatives(points: Points, centres: Points) -> Tensor:
    """For each centre in turn, the nearest point that no other centre has taken: distinct positions (k,)."""
    taken = torch.zeros(len(points), device=points.squares.device)
    chosen = []
    for rows in blocks(len(centres), len(points)):
        for distance in squared(centres[rows], points):
            chosen.append((distance + taken).argmin(keepdim=True))
            taken.index_fill_(0, chosen[-1], torch.inf)
    return torch.cat(chosen)


def ask_suggestive(scan: Scan, n: int, candidates: float = 2.0) -> Asked:
    """Ask for the uncertain images that stand for the most others.

    Of the `candidates` times n most uncertain images, those that most raise the sum, over all unlabeled images, of
    the cosine to the most similar one asked (facility location). The paper segments; its uncertainty is the variance
    of four networks trained on resampled labels. Here it is the entropy of the one network there is, and an image's
    descriptor is its features. `gain`: what an image adds to that sum at its turn; before the first, a cosine is -1.
    """
    log = scan.logits.log_softmax(1)
    unsure = top(-(log.exp() * log).sum(1), min(len(log), max(n, round(candidates * n)))).positions
    finite(scan.features)
    chosen, gains = facilities(normalize(scan.features), unsure, n)
    return in_turn(chosen, gain=gains)


def facilities(x: Tensor, rows: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """n of the rows, each raising most the sum over unit vectors x (u d) of the cosine to the nearest one chosen.

    The gains of all rows are kept up to date: a choice changes them by those images alone that it is the nearest to,
    fewer and fewer. rows: positions (m,). Gives positions (n,) and gains (n,), summed in float64.
    """
    candidates, taken = x[rows], torch.zeros_like(rows, dtype=torch.bool)
    cosine, gain = torch.full_like(x[:, 0], -1.0), torch.zeros_like(x[rows, 0], dtype=torch.float64)
    for some in blocks(len(x), len(rows)):
        gain += (x[some] @ candidates.T).add_(1).sum(0)
    chosen, gains = [], []
    for _ in range(n):
        best = gain.masked_fill(taken, -torch.inf).argmax().view(1)
        chosen.append(rows[best])
        gains.append(gain[best])
        taken[best] = True
        now = (x @ candidates[best].T).squeeze(1)
        for some in (now > cosine).nonzero().squeeze(1).split(max(1, VALUES // len(rows))):
            before, after = cosine[some, None], now[some, None]
            gain -= (x[some] @ candidates.T).clamp(min=before, max=after).sub_(before).sum(0)
        cosine = torch.maximum(cosine, now)
    return torch.cat(chosen), torch.cat(gains)


SEEN = MappingProxyType({"features": LOOKS})
kcenter = Query(
    "kcenter",
    ask_kcenter,
    "Sener & Savarese, ICLR 2018, arXiv:1708.00489",
    cost="u (l + n) d",
    cold=True,
    ranges=SEEN,
)
robust_kcenter = Query(
    "robust_kcenter",
    ask_robust_kcenter,
    "Sener & Savarese, ICLR 2018, arXiv:1708.00489",
    cost="u (l + n + m) d",
    randomised=True,
    approximate=True,
    cold=True,
    ranges=MappingProxyType({**SEEN, "outliers": "[0, 1]", "others": "[0, inf)"}),
)
ff_active = Query(
    "ff_active", ask_ff_active, "Geifman & El-Yaniv 2017, arXiv:1711.00941", cost="u (l + n) d", cold=True, ranges=SEEN
)
weighted_kmeans = Query(
    "weighted_kmeans",
    ask_weighted_kmeans,
    "Zhdanov 2019, arXiv:1901.05954",
    cost="n^2 d",
    randomised=True,
    ranges=MappingProxyType({**SEEN, "beta": "[1, inf)", "rounds": "[1, inf)"}),
)
suggestive = Query(
    "suggestive",
    ask_suggestive,
    "Yang, Zhang, Chen, Zhang & Chen, MICCAI 2017, arXiv:1706.04737",
    cost="u n d",
    approximate=True,
    ranges=MappingProxyType({"candidates": "[1, inf)"}),
)
