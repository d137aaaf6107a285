"""A graph over images by their nearest neighbours, what spreads along it, and clusters of images.

Iscen, Tolias, Avrithis & Chum, "Label Propagation for Deep Semi-supervised Learning", CVPR 2019.
https://arxiv.org/abs/1904.04717. The diffusion is that of Zhou et al., NIPS 2003.

Functions of tensors alone: float32 or float64, on any device, without randomness but for what `kmeans` and `draw` are
given. Nothing is ever as large as n by n.
"""

import math
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

VALUES = 2**24  # similarities held at once
GROUP = 32  # values whose largest is looked for first
MANY = 10_000  # images from which on another package's index is worth its start
ITERATIONS = 20  # of conjugate gradients, always all of them: no look at the residual, so no wait for the device
LINE = 16  # float32 values that a processor fetches at once


@dataclass(frozen=True, eq=False)
class Graph:
    """A sparse matrix (n n), row after row: S, symmetric, with eigenvalues in [-1, 1].

    starts: int32 (n+1,), where each row begins in `columns` (e,), int32, and in `values` (e,). Beyond 2^31 values both
    are int64: half as many bytes to read are a tenth of the time.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __matmul__(self, x: Tensor) -> Tensor:
        """S x: (n m) -> (n m). Each row is a bag of weighted rows of x, summed in one order: it repeats bit by bit."""
        return F.embedding_bag(
            self.columns, x, self.starts, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )


@dataclass(frozen=True, eq=False)
class Spread:
    """What label propagation believes of every image.

    labels: int64 (n,), the true ones where they are known. weights: float (n,) in [0, 1], the paper's omega: how sure
    it is, against the surest; 1 where the label is known, 0 where nothing has reached. raw: the same before it was
    divided by the largest, and before the known were given 1.
    """

    labels: Tensor
    weights: Tensor
    raw: Tensor


def neighbours(features: Tensor, k: int = 50) -> tuple[Tensor, Tensor]:
    """The min(k, n - 1) nearest others of every row (n d) by inner product: similarities, and int64 indices.

    Exact, block by block; by faiss where it is installed and the pool is large. A row is left out of its own neighbours
    by its index, so that a twin stays a neighbour.
    """
    n = len(features)
    k = min(k, n - 1)
    if n >= MANY and features.dtype == torch.float32 and features.device.type == "cpu" and find_spec("faiss"):
        return by_faiss(features, k)
    return by_blocks(features, k)


def by_blocks(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`neighbours` by products of blocks of rows with all of them, one after the other in the same memory."""
    n, wide, found = len(features), -(-len(features) // GROUP) * GROUP, []
    room = features.new_full((min(n, max(1, VALUES // wide)), wide), -math.inf)
    for rows in torch.arange(n, device=features.device).split(len(room)):
        similar = room[: len(rows)]
        torch.mm(features[rows], features.T, out=similar[:, :n])
        similar.scatter_(1, rows[:, None], -math.inf)
        found.append(largest(similar, k))
    values, indices = zip(*found, strict=True)
    return torch.cat(values), torch.cat(indices)


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row (r n) and their places, from the k groups of the largest maxima."""
    groups = x.unflatten(1, (-1, GROUP))
    if groups.shape[1] <= k:
        values, places = x.topk(k)
        return values, places
    best = groups.amax(2).topk(k).indices
    values, within = groups.gather(1, best[:, :, None].expand(-1, -1, GROUP)).flatten(1).topk(k)
    return values, best.gather(1, within // GROUP) * GROUP + within % GROUP


def by_faiss(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`neighbours` by the flat index of faiss, with as many threads as torch has. float32 on the CPU."""
    import faiss

    index, threads = faiss.IndexFlatIP(features.shape[1]), faiss.omp_get_max_threads()
    rows = np.ascontiguousarray(features.detach().numpy())
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        index.add(rows)
        similar, there = map(torch.from_numpy, index.search(rows, k + 1))
    finally:
        faiss.omp_set_num_threads(threads)
    own = there == torch.arange(len(there))[:, None]
    own[:, -1] |= ~own.any(1)  # hidden by as many twins: then the farthest goes
    shape = len(there), k
    return similar[~own].view(shape), there[~own].view(shape)


def build(features: Tensor, k: int = 50, gamma: float = 3.0) -> Graph:
    """S = D^-1/2 (A + A') D^-1/2, where a_ij = max(0, cos)^gamma if j is among the k nearest of i (Eqs. 8-9).

    Two images that are neighbours of each other both ways are tied twice as strongly. A row without ties is zero.
    """
    return tied(*neighbours(F.normalize(features), k), gamma)


def tied(similar: Tensor, there: Tensor, gamma: float = 3.0) -> Graph:
    """The graph of neighbours int64 (n k) that are so similar (n k)."""
    n, here = len(there), torch.arange(len(there), device=there.device)[:, None].expand_as(there)
    tie = similar.clamp(min=0).pow(gamma).flatten()
    both_ways = torch.cat([(here * n + there).flatten(), (there * n + here).flatten()])
    pairs, which = both_ways.unique(return_inverse=True)
    w = tie.new_zeros(len(pairs)).index_add_(0, which, tie.repeat(2))
    rows, columns = pairs // n, pairs % n
    degree = w.new_zeros(n).index_add_(0, rows, w)
    scale = torch.where(degree > 0, degree.rsqrt(), 0)
    starts = torch.cat([rows.new_zeros(1), rows.bincount(minlength=n).cumsum(0)])
    whole = torch.int32 if len(columns) < 2**31 else torch.int64
    return Graph(starts.to(whole), columns.to(whole), w * (scale[rows] * scale[columns]))


def diffuse(graph: Graph, sources: Tensor, alpha: float = 0.99, iterations: int = ITERATIONS) -> Tensor:
    """What reaches every node from the sources (n m): z in (I - alpha S) z = sources, by conjugate gradients (n m).

    Every column has coefficients of its own, and is what it would be alone. `iterations` are done whatever is left.
    Where there are more than a few, columns of zeros fill the rows up to whole lines of memory, which takes less time,
    as it does to write into the same memory again and again.
    """
    m = sources.shape[1]
    left = sources.new_zeros(len(sources), m + (-m % LINE if m > LINE // 2 else 0))
    left[:, :m] = sources
    z, along, products = torch.zeros_like(left), left.clone(), torch.empty_like(left)
    size = torch.mul(left, left, out=products).sum(0)
    for _ in range(iterations):
        change = graph @ along
        torch.sub(along, change, alpha=alpha, out=change)
        step = ratio(size, torch.mul(along, change, out=products).sum(0))
        z.addcmul_(along, step)
        left.addcmul_(change, step, value=-1)
        size, before = torch.mul(left, left, out=products).sum(0), size
        torch.addcmul(left, along, ratio(size, before), out=along)
    return z[:, :m]


def propagate(
    graph: Graph, known: Tensor, labels: Tensor, classes: int, alpha: float = 0.99, iterations: int = ITERATIONS
) -> Spread:
    """Spread the labels int64 (l,) of the nodes `known` int64 (l,) over the graph (Eqs. 10-11).

    Every class starts with one unit, shared by its labeled nodes. Then a node belongs to the class that has sent it
    most, and is as sure as the shares are uneven: 1 - entropy / log(classes), divided by the surest of all nodes.
    """
    each = labels.bincount(minlength=classes).to(graph.values)
    sources = graph.values.new_zeros(len(graph), classes)
    sources[known, labels] = 1 / each[labels]
    z = diffuse(graph, sources, alpha, iterations).clamp(min=0)
    total = z.sum(1, keepdim=True)
    p = ratio(z, total)
    entropy = -p.xlogy(p).sum(1)
    raw = torch.where(total[:, 0] > 0, 1 - entropy / math.log(classes), 0).clamp(min=0)
    return Spread(
        labels=z.argmax(1).index_copy(0, known, labels),
        weights=ratio(raw, raw.amax()).index_fill(0, known, 1),
        raw=raw,
    )


def balance(labels: Tensor, classes: int, weights: Tensor | None = None) -> Tensor:
    """The weight of each class (k,) that gives all of them the same say, the paper's zeta: (n / k) / n_c.

    weights (n,): how much each label counts, by default 1.
    """
    each = labels.bincount(weights, minlength=classes)
    return each.sum() / classes / each.clamp(min=1)


def draw(weights: Tensor, n: int, chance: Generator | None = None) -> Tensor:
    """n distinct positions, one after the other with a chance in proportion to the weights (u,) that are left.

    Gumbel's trick draws all in one go (Kool et al., ICML 2019). Those of weight 0 come last.
    """
    uniform = torch.rand(len(weights), generator=chance, dtype=torch.float64, device=weights.device)
    return (weights.double().log() - (-uniform.log()).log()).topk(n).indices


def kmeans(x: Tensor, k: int, iterations: int = 20, chance: Generator | None = None) -> Tensor:
    """The clusters of rows (n d), by Lloyd's algorithm from k random rows: int64 (n,) in [0, min(k, n)), none empty."""
    k = min(k, len(x))
    means = x[torch.randperm(len(x), generator=chance, device=x.device)[:k]]
    for _ in range(iterations):
        cluster = fill(x, means, nearest(x, means))
        means = torch.zeros_like(means).index_add_(0, cluster, x) / cluster.bincount(minlength=k)[:, None]
    return fill(x, means, nearest(x, means))


def nearest(x: Tensor, means: Tensor) -> Tensor:
    """The closest mean (k d) of each row (n d): int64 (n,)."""
    half = means.square().sum(1) / 2
    return torch.cat([(half - rows @ means.T).argmin(1) for rows in x.split(max(1, VALUES // len(means)))])


def fill(x: Tensor, means: Tensor, cluster: Tensor) -> Tensor:
    """The clusters (n,), with the row that lies farthest out in the largest one moved into each that is empty."""
    sizes = cluster.bincount(minlength=len(means))
    for empty in (sizes == 0).nonzero()[:, 0]:
        largest = sizes.argmax()
        inside = (cluster == largest).nonzero()[:, 0]
        farthest = inside[(x[inside] - means[largest]).square().sum(1).argmax()]
        cluster = cluster.index_fill(0, farthest, int(empty))
        sizes = cluster.bincount(minlength=len(means))
    return cluster


def whiten(x: Tensor, most: int = 256) -> Tensor:
    """Rows (n d) on their first `most` principal axes, each scaled to unit variance."""
    x = x - x.mean(0)
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    kept = variance.flip(0)[:most].clamp(min=1e-6 * float(variance[-1].clamp(min=1e-12)))
    white: Tensor = x @ axes.flip(1)[:, :most] * kept.rsqrt()
    return white


def nmi(a: Tensor, b: Tensor) -> Tensor:
    """How much two clusterings (n,) say of one another: mutual information over the mean entropy, in [0, 1]."""
    joint = (a * (int(b.max()) + 1) + b).bincount(minlength=1).float()
    p, q, r = (counts / counts.sum() for counts in (a.bincount().float(), b.bincount().float(), joint))
    here, there, both = (-s.xlogy(s).sum() for s in (p, q, r))
    return torch.where(here + there > 0, 2 * (here + there - both) / (here + there), torch.ones_like(both))


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is not above 0."""
    return torch.where(b > 0, a / b, 0)
