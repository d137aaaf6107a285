"""Distances between many images, and what is built on them. Nothing here is u x u: memory is that of the points."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from trainers.bounds import relieve
from zoo.scan import Asked, Scan

VALUES, ROWS = 2**21, 2048  # distances worked out at once, and points at most
SHORT, FLUSH = 512, 128  # the farthest points looked at together, and the picks made before all others are looked at
TRIES, ACCEPTED = 512, 256  # points proposed together, and how many of them are taken before all are looked at again
HALF = 0.00393  # of a number: by so much at most does rounding to bf16 move it (2^-8), and a little for float32
SIDE = 16  # pixels that distances between raw images are measured on
LOOKS = ("task", "pixels")  # what images may be compared by
TAKEN = -1.0  # the squared distance of a point that was picked: below that of any other


@dataclass(frozen=True, eq=False)
class Points:
    """n points in a Euclidean space: outer products of factors (n d1), (n d2), ..., which are never multiplied out.

    squares: their squared lengths (n,).
    """

    factors: tuple[Tensor, ...]
    squares: Tensor

    @classmethod
    def of(cls, *factors: Tensor) -> "Points":
        return cls(factors, torch.stack([finite(factor) for factor in factors]).prod(0).square())

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, which: Tensor | slice) -> "Points":
        return Points(tuple(factor[which] for factor in self.factors), self.squares[which])


def finite(x: Tensor) -> Tensor:
    """The lengths of the rows of x (n d). Raises RuntimeError where one is not finite: its distances mean nothing."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1)
    if broken := int((~lengths.square().isfinite()).sum()):
        raise RuntimeError(
            f"what the network says of {broken} of {len(x)} images is not finite: it has diverged. Lower its lr"
        )
    return lengths


def squared(a: Points, b: Points) -> Tensor:
    """The squared distances of all pairs (n m), never below zero: |a|^2 + |b|^2 - 2 a.b."""
    out = a.factors[0] @ b.factors[0].T
    for one, other in zip(a.factors[1:], b.factors[1:], strict=True):
        out.mul_(one @ other.T)  # (q x h) . (r x g) = (q . r) (h . g)
    return out.mul_(-2).add_(b.squares).add_(a.squares[:, None]).clamp_(min=0)


def blocks(n: int, width: int) -> Iterator[slice]:
    """Rows 0..n in blocks of so few that a block of this width stays small, and what it is made of near at hand."""
    rows = max(1, min(ROWS, VALUES // max(1, width)))
    return (slice(start, start + rows) for start in range(0, n, rows))


def excess(a: Points, b: Points) -> Tensor:
    """|b|^2 / 2 - a.b of all pairs (n m): by half as much does their squared distance exceed |a|^2.

    The row's own length makes no difference to which is its smallest, so it is left out.
    """
    half = b.squares / 2
    (x, y), *more = zip(a.factors, b.factors, strict=True)
    if not more:
        return torch.addmm(half, x, y.T, alpha=-1)
    out = x @ y.T
    for one, other in more:
        out.mul_(one @ other.T)
    return half - out


def gaps(points: Points, centres: Points) -> Tensor:
    """The squared distance of each point to its nearest centre (n,), infinite without any."""
    out = torch.full_like(points.squares, torch.inf)
    for rows in blocks(len(points), len(centres)) if len(centres) else ():
        out[rows] = excess(points[rows], centres).amin(1)
    return out.mul_(2).add_(points.squares).clamp_(min=0)


def nearest(points: Points, centres: Points) -> tuple[Tensor, Tensor]:
    """The squared distance of each point to its nearest centre (n,), infinite without any, and which it is (n,)."""
    distance = torch.full_like(points.squares, torch.inf)
    which = torch.zeros_like(points.squares, dtype=torch.int64)
    for rows in blocks(len(points), len(centres)) if len(centres) else ():
        distance[rows], which[rows] = excess(points[rows], centres).min(1)
    return distance.mul_(2).add_(points.squares).clamp_(min=0), which


def gaps_at_most(points: Points, centres: Points) -> Tensor:
    """Bounds that the squared distance of each point to its nearest centre does not exceed (n,), by a bf16 product.

    A distance between rounded vectors is off by no more than the two were moved; rounding their product to bf16 moves
    it by no more than `HALF` of the two lengths; sums are float32. About twice as fast as `gaps` where the processor
    multiplies bf16. For points of one factor.
    """
    (x,), (y,) = points.factors, centres.factors
    low = y.bfloat16()
    half, moved = torch.empty_like(centres.squares), torch.empty_like(centres.squares)
    for rows in blocks(len(y), y.shape[1]):  # all at once would take the most room of all that is done here
        exact = low[rows].float()
        half[rows], moved[rows] = exact.square().sum(1) / 2, (y[rows] - exact).norm(dim=1)
    longest, most = (2 * half.amax()).sqrt(), moved.amax()
    out = torch.empty_like(points.squares)
    for rows in blocks(len(x), 2 * len(y)):  # their product is there in two types
        rounded = x[rows].bfloat16()
        exact = rounded.float()
        squares = exact.square().sum(1)
        near = (rounded @ low.T).float().sub_(half).amax(1).mul_(-2).add_(squares)
        slack = 2 * HALF * squares.sqrt() * longest
        out[rows] = (near.add_(slack).clamp_(min=0).sqrt_() + (x[rows] - exact).norm(dim=1) + most).square()
    return out


def farthest(points: Points, bound: Tensor, n: int, known: Points | None = None) -> tuple[Tensor, Tensor]:
    """n distinct points, each the farthest from all centres before it: positions, and squared distances at their turn.

    bound: the squared distance of each point to its nearest centre so far (u,); infinite before the first.
    known: these centres, where `bound` is only a bound; the distances that make a difference are worked out then.
    Exact with few passes over the points: distances only shrink, so the farthest of the short list is the farthest of
    all as long as it is no nearer than the first point outside was when the list was made.
    """
    bound, picks, gains = bound.clone(), [bound.new_zeros(0, dtype=torch.int64)], [bound[:0]]
    loose = torch.ones_like(bound, dtype=torch.bool)
    while left := n - sum(map(len, picks)):
        inside, short = bound.topk(min(2 * SHORT, len(bound)))
        if known is not None and bool(loose[short[: SHORT + 1]].any()):
            rows = short[loose[short]]
            bound[rows] = torch.minimum(bound[rows], gaps(points[rows], known))
            loose[rows] = False
            continue
        outside = inside[SHORT] if len(short) > SHORT else inside.new_tensor(-torch.inf)
        inside, short = inside[:SHORT], short[:SHORT]
        between = squared(points[short], points[short])
        gain, turn = [], []
        for _ in range(min(FLUSH, left, len(short))):
            best = inside.argmax(keepdim=True)
            gain.append(inside[best])
            turn.append(best)
            inside = torch.minimum(inside, between.index_select(0, best)[0])
            inside.index_fill_(0, best, TAKEN)
        sure = int((torch.cat(gain) >= outside).int().cumprod(0).sum())
        picks.append(short[torch.cat(turn)[:sure]])
        gains.append(torch.cat(gain)[:sure])
        bound = torch.minimum(bound, gaps(points, points[picks[-1]])).index_fill_(0, picks[-1], TAKEN)
    return torch.cat(picks), torch.cat(gains)


def scattered(
    points: Points, n: int, chance: Generator, first: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """n distinct points drawn as k-means++ does: positions, and squared distances at their turn (infinite at first).

    Each is drawn in proportion to its weight times its squared distance to the nearest point drawn so far; where
    all that is left lies on drawn points, the rest is drawn anywhere. first: the position of the first point (1,);
    by default it is drawn by weight. weights: (n,), zero or more.
    Exact with few passes over the points, by rejection: distances only shrink, so the last ones that were worked out
    for all are bounds; points proposed in proportion to the bound are taken with the chance distance / bound.
    """
    device = points.squares.device
    weights = torch.ones_like(points.squares) if weights is None else weights
    if first is None:
        first = drawn(weights, torch.rand(1, generator=chance, dtype=torch.float64).to(device))
    bound = gaps(points, points[first]).index_fill_(0, first, 0)
    picks, gains = [first], [torch.full_like(bound[:1], torch.inf)]
    while left := n - sum(map(len, picks)):
        mass = bound.double() * weights
        if not bool(mass.sum() > 0):
            anywhere = torch.randperm(len(points), generator=chance).to(device)
            rest = anywhere[~torch.isin(anywhere, torch.cat(picks))][:left]
            picks.append(rest)
            gains.append(bound[rest])
            break
        place, coin = torch.rand(2, TRIES, generator=chance, dtype=torch.float64).to(device)
        tries = drawn(mass, place)
        between = squared(points[tries], points[tries]).masked_fill_(tries[:, None] == tries, 0)
        taken, gain = accepted(bound[tries].cpu(), between.cpu(), coin.cpu(), min(ACCEPTED, left))
        picks.append(tries[taken.to(device)])
        gains.append(gain.to(device))
        bound = torch.minimum(bound, gaps(points, points[picks[-1]])).index_fill_(0, picks[-1], 0)
    return torch.cat(picks), torch.cat(gains)


def drawn(mass: Tensor, place: Tensor) -> Tensor:
    """Positions drawn in proportion to mass (n,), by numbers in [0, 1) (m,)."""
    heap = mass.double().cumsum(0)
    return torch.searchsorted(heap, place * heap[-1], right=True).clamp(max=len(mass) - 1)


def accepted(bound: Tensor, between: Tensor, coin: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Which of the proposed points are taken, one after the other, and their squared distances then. On the CPU.

    bound: their squared distances when all were last worked out (m,). between: those among them (m m). coin: (m,).
    """
    true, bars, taken, gain = bound, (coin * bound).tolist(), [], []
    for i, bar in enumerate(bars):
        if bar < (distance := float(true[i])):
            taken.append(i)
            gain.append(distance)
            true = torch.minimum(true, between[i])
            if len(taken) == most:
                break
    return torch.tensor(taken, dtype=torch.int64), torch.tensor(gain, dtype=bound.dtype)


def kmeans(
    x: Tensor, k: int, chance: Generator, weights: Tensor | None = None, rounds: int = 30
) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means of x (n d), from k-means++: the cluster of each point (n,), and the clusters' means (k d).

    A cluster that loses all its points goes on with the point that lies farthest from its own centre. Only where
    there are fewer distinct points than clusters, some stay empty. weights: (n,), zero or more. k is at most n.
    """
    points, weights = Points.of(x), torch.ones_like(x[:, 0]) if weights is None else weights
    centres = x[scattered(points, k, chance, weights=weights)[0]]
    clusters = torch.full((len(x),), -1, device=x.device)
    for _ in range(rounds):
        distance, now = nearest(points, Points.of(centres))
        empty = (torch.bincount(now, minlength=k) == 0).nonzero().squeeze(1)
        far = (distance * weights).topk(len(empty))
        now[far.indices[far.values > 0]] = empty[far.values > 0]
        if torch.equal(now, clusters):
            break
        clusters = now
        centres = means(x, clusters, weights, centres)
    return clusters, centres


def means(x: Tensor, clusters: Tensor, weights: Tensor, before: Tensor) -> Tensor:
    """The weighted means of the clusters (k d); without any weight, where they were before (k d).

    Sums over sorted rows, as adding them up in place is not repeatable on a GPU.
    """
    order = clusters.argsort(stable=True)
    lengths = torch.bincount(clusters, minlength=len(before))
    mass = torch.segment_reduce(weights[order], "sum", lengths=lengths)
    total = torch.segment_reduce((x * weights[:, None])[order], "sum", lengths=lengths)
    return torch.where(mass[:, None] > 0, total / mass[:, None], before)


def looks(scan: Scan, features: str, unit: bool = False) -> tuple[Tensor, Tensor]:
    """What distances are measured on, of the unlabeled images (u d) and of the labeled ones (l d), float32.

    features: "task", as the trunk sees them, or "pixels", the images themselves, shrunk to 16 pixels a side and
    about their mean; before there is a trunk, there are pixels only. unit: whether each row is divided by its length.
    Task features are moved so that their mean is zero, if they are not of unit length: where all lie far from the
    origin, float32 would lose their distances.
    """
    if features not in LOOKS:
        raise ValueError(f'features={features!r} must be "task" or "pixels"')
    pixels = features == "pixels" or "trunk" not in scan.parts
    if pixels:
        new, known = scan.each(shrunk), scan.each(shrunk, of=scan.pool.labeled)
    else:
        new, known = scan.features, scan.known
    finite(new), finite(known)
    if pixels or not unit:
        middle = (new.sum(0) + known.sum(0)) / (len(new) + len(known))
        new, known = new - middle, known - middle
        relieve()
    return (normalize(new), normalize(known)) if unit else (new, known)


def shrunk(x: Tensor) -> Tensor:
    """Images (b c h w), 16 pixels a side or less, as vectors (b d)."""
    return adaptive_avg_pool2d(x, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3]))).flatten(1)


def in_turn(positions: Tensor, **detail: Tensor) -> Asked:
    """What was picked one by one, in this order; as the score of a set is that of no single image, scores are ranks."""
    return Asked(positions, -torch.arange(len(positions), dtype=torch.float32), detail)
