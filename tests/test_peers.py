"""Our queries against well-kept packages of other people, where these are installed: pip install 'alzoo[peers]'."""

import numpy as np
import pytest
import torch

from zoo.queries.bayesian import jointly
from zoo.queries.geometry import Points, farthest, nearest

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def sharp(m, t, k, seed):
    """Draws (m t k) of m images."""
    return (6 * torch.rand(m, t, k, generator=torch.Generator().manual_seed(seed))).softmax(2)


@pytest.mark.parametrize("seed", range(3))
def test_batch_bald_picks_what_the_authors_own_package_picks(seed):
    theirs = pytest.importorskip("batchbald_redux.batchbald")
    p = sharp(40, 30, 3, seed)
    ours, gains = jointly(p, 4, 10**5, torch.Generator())
    batch = theirs.get_batchbald_batch(p.double().log(), 4, 10**5, dtype=torch.double)
    assert ours.tolist() == batch.indices
    assert torch.allclose(gains.cumsum(0).double(), torch.tensor(batch.scores, dtype=torch.double), atol=1e-4)


def test_kcenter_picks_what_scikit_activeml_picks():
    pool = pytest.importorskip("skactiveml.pool")
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    known, new = x[:20], x[20:]
    ours, _ = farthest(Points.of(new), nearest(Points.of(new), Points.of(known))[0], 60)
    y = np.r_[np.zeros(20), np.full(280, np.nan)]
    theirs, _ = pool.k_greedy_center(x.numpy(), y, batch_size=60, random_state=0)
    assert (ours + 20).tolist() == theirs.tolist()


@pytest.mark.parametrize("method", ["least_confident", "margin_sampling", "entropy"])
def test_uncertainties_rank_as_scikit_activeml_ranks(method):
    pool = pytest.importorskip("skactiveml.pool")
    p = sharp(60, 1, 4, 0)[:, 0].double()
    first, second = p.topk(2).values.unbind(1)
    ours = {
        "least_confident": 1 - p.amax(1),
        "margin_sampling": 1 - (first - second),
        "entropy": -(p * p.log()).sum(1),
    }[method]
    assert np.allclose(ours.numpy(), pool.uncertainty_scores(p.numpy(), method=method))
