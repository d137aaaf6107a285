"""Plain forms of what queries compute: what one writes down first, and what is found in released code.

Each takes a scan and how many to ask for, and gives positions (n,), unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import cg
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import one_hot

from trainers.graph import Graph
from zoo.queries.bayesian import extended
from zoo.scan import Scan


def pairwise_calls(scan: Scan, n: int, loop: bool = False) -> Tensor:
    """kcenter by a call of scikit-learn's pairwise distances for each pick, in float64: Google's code, and TA-VAAL's.

    loop: the minimum with the last distances is taken image by image, in Python: the code of BADGE's authors.
    """
    x, known = scan.features.numpy(), scan.known.numpy()
    bound = pairwise_distances(x, known).min(1)
    picks = []
    for _ in range(n):
        best = int(bound.argmax())
        picks.append(best)
        now = pairwise_distances(x, x[[best]])[:, 0]
        if loop:
            for i in range(len(bound)):
                bound[i] = min(bound[i], now[i])
        else:
            bound = np.minimum(bound, now)
        bound[best] = -1
    return torch.tensor(picks)


def cdist_calls(scan: Scan, n: int) -> Tensor:
    """kcenter by torch.cdist for each pick: DISTIL's."""
    bound = torch.cdist(scan.features, scan.known).amin(1)
    picks = []
    for _ in range(n):
        best = bound.argmax()
        picks.append(best)
        bound = torch.minimum(bound, torch.cdist(scan.features, scan.features[best][None])[:, 0])
        bound[best] = -1
    return torch.stack(picks)


def product_calls(scan: Scan, n: int) -> Tensor:
    """kcenter by one product of all features with each pick, |x|^2 + |y|^2 - 2 x.y."""
    middle = torch.cat([scan.known, scan.features]).mean(0)
    x, known = scan.features - middle, scan.known - middle
    squares, bound = x.square().sum(1), torch.full_like(x[:, 0], torch.inf)
    for some in known.split(100):
        bound = torch.minimum(bound, (some.square().sum(1) - 2 * (x @ some.T)).amin(1) + squares)
    picks = []
    for _ in range(n):
        best = bound.argmax()
        picks.append(best)
        bound = torch.minimum(bound, squares + squares[best] - 2 * (x @ x[best]))
        bound[best] = -1
    return torch.stack(picks)


def full_matrix(scan: Scan, n: int) -> Tensor:
    """kcenter on all distances of all images, held in float64: deepAL's."""
    x = torch.cat([scan.known, scan.features]).double()
    squares = x.square().sum(1)
    table = (squares[:, None] + squares - 2 * (x @ x.T)).clamp_(min=0).sqrt_()
    centre = torch.arange(len(x)) < len(scan.known)
    picks = []
    for _ in range(n):
        rest = (~centre).nonzero().squeeze(1)
        best = rest[table[rest][:, centre].amin(1).argmax()]
        picks.append(best - len(scan.known))
        centre[best] = True
    return torch.stack(picks)


def factors(scan: Scan) -> tuple[Tensor, Tensor]:
    """The two factors (u k), (u d) of the gradients that badge asks by."""
    return scan.probs - one_hot(scan.logits.argmax(1), scan.logits.shape[1]), scan.features


def written_out(scan: Scan, n: int) -> Tensor:
    """badge on gradients (u, k d) that are written out: deepALplus's, scikit-activeml's."""
    q, h = factors(scan)
    g = (q[:, :, None] * h[:, None]).flatten(1)
    squares = g.square().sum(1)
    return seeded(scan, squares, lambda best: squares + squares[best] - 2 * (g @ g[best]), n)


def factored(scan: Scan, n: int) -> Tensor:
    """badge on the two factors, with all distances worked out at each pick: the authors' own form."""
    q, h = factors(scan)
    squares = q.square().sum(1) * h.square().sum(1)
    return seeded(scan, squares, lambda best: squares + squares[best] - 2 * (q @ q[best]) * (h @ h[best]), n)


def seeded(scan: Scan, squares: Tensor, distance: Callable[[int], Tensor], n: int) -> Tensor:
    """k-means++ from the longest on, each drawn by scipy in proportion to the least squared distance (u,) to a pick."""
    chance = np.random.default_rng(int(torch.randint(2**31, (), generator=scan.generator("plain"))))
    best = int(squares.argmax())
    picks, bound = [best], np.full(len(squares), np.inf)
    for _ in range(n - 1):
        bound = np.minimum(bound, np.clip(distance(best).double().numpy(), 0, None))
        bound[picks] = 0
        lots = stats.rv_discrete(values=(np.arange(len(bound)), bound / bound.sum()), seed=chance)
        best = int(lots.rvs(size=1)[0])
        picks.append(best)
    return torch.tensor(picks)


def every_candidate(scan: Scan, n: int, draws: int = 100, configurations: int = 10_000) -> Tensor:
    """batch_bald that looks at every candidate for every pick, in float64: the authors' form.

    Configurations beyond so many are drawn as ours are, so that the answers can be compared.
    """
    p = torch.stack([log.double().exp() for log in scan.draws(draws)], 1)
    alone = -p.xlogy(p).sum(2).mean(1)
    weight, w = p.new_ones(1), p.new_full((1, draws), 1 / draws)
    left = torch.ones(len(p), dtype=torch.bool)
    picks, chance = [], scan.generator("batch_bald")
    for _ in range(n):
        gain = torch.stack([-(weight @ (w @ one).xlogy(w @ one)).sum() for one in p]) - alone
        best = int(torch.where(left, gain, -torch.inf).argmax())
        picks.append(best)
        left[best] = False
        weight, w = extended(weight, w, p[best], configurations, chance)
    return torch.tensor(picks)


def spread_matrix(graph: Graph, alpha: float = 0.99) -> Any:
    """I - alpha S, as scipy has it (n n)."""
    n = len(graph)
    return identity(n, format="csr") - alpha * csr_matrix(
        (graph.values.numpy(), graph.columns.numpy(), graph.starts.numpy()), (n, n)
    )


def class_by_class(system: Any, sources: Tensor, iterations: int = 20) -> Tensor:
    """Label propagation's (I - alpha S) z = sources (n m), by scipy, class by class: Iscen et al.'s own form."""
    columns = [cg(system, column, rtol=1e-30, maxiter=iterations)[0] for column in sources.T.double().numpy()]
    return torch.from_numpy(np.stack(columns, 1)).float()


def all_neighbours(x: Tensor, k: int, of: int) -> Tensor:
    """The k nearest of the first `of` rows of unit vectors (n d), themselves included, by scikit-learn: (of, k)."""
    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x.numpy())
    return torch.from_numpy(found.kneighbors(x[:of].numpy(), return_distance=False))


def scipy_entropy(scan: Scan, n: int) -> Tensor:
    """entropy by scipy, the largest by numpy: modAL's."""
    scores = stats.entropy(scan.probs.numpy(), axis=1)
    return torch.from_numpy(np.argpartition(-scores, n)[:n])


def numpy_margin(scan: Scan, n: int) -> Tensor:
    """margin by a partition of each row, the smallest by numpy: modAL's."""
    parted = np.partition(-scan.probs.numpy(), 1, axis=1)
    return torch.from_numpy(np.argpartition(parted[:, 1] - parted[:, 0], n)[:n])
