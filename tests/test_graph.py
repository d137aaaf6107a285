"""Graphs of neighbours, what spreads along them, and clusters: against dense algebra, scipy and brute force."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import cg

from trainers import graph


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, d=6, seed=0):
    return torch.randn(n, d, generator=chance(seed), dtype=torch.float64)


def dense(net):
    return net @ torch.eye(len(net), dtype=net.values.dtype)


def ties(x, k, gamma=3.0):
    """A, dense, as the paper defines it."""
    x = F.normalize(x)
    similar, a = x @ x.T, torch.zeros(len(x), len(x), dtype=x.dtype)
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        for j in sorted(others, key=lambda j: -similar[i, j])[:k]:
            a[i, j] = max(0.0, float(similar[i, j])) ** gamma
    return a


def system(n=60, k=5, seed=0, classes=3, alpha=0.99):
    """A graph, its dense I - alpha S, and the sources of a few labels."""
    net = graph.build(cloud(n, seed=seed), k)
    known = torch.arange(0, n, 7)
    labels = torch.arange(len(known)) % classes
    sources = torch.zeros(n, classes, dtype=torch.float64)
    for i, y in zip(known.tolist(), labels.tolist(), strict=True):
        sources[i, y] = 1 / (labels == y).sum()
    return net, torch.eye(n, dtype=torch.float64) - alpha * dense(net), known, labels, sources


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_the_graph_is_the_written_out_formula(gamma):
    x = cloud(30)
    a = ties(x, 4, gamma)
    w = a + a.T
    scale = w.sum(1).rsqrt()
    assert torch.allclose(dense(graph.build(x, 4, gamma)), scale[:, None] * w * scale, atol=1e-12)


def test_it_is_symmetric_hollow_and_never_negative_and_its_norm_is_at_most_one():
    s = dense(graph.build(cloud(80), 7))
    assert torch.equal(s, s.T)
    assert (s.diagonal() == 0).all()
    assert (s >= 0).all()
    v = torch.ones(80, dtype=torch.float64)
    for _ in range(200):
        v = F.normalize(s @ v, dim=0)
    assert (s @ v).norm() <= 1 + 1e-5
    assert torch.linalg.eigvalsh(s).abs().max() <= 1 + 1e-9


@pytest.mark.parametrize("n", [1, 33, 500])
def test_the_largest_are_found_in_the_groups_of_the_largest(n):
    x = torch.full((9, -(-n // graph.GROUP) * graph.GROUP), -math.inf)
    x[:, :n] = torch.randn(9, n, generator=chance())
    for k in {1, min(n, 5), n}:
        values, places = graph.largest(x, k)
        assert torch.equal(values, x.topk(k).values)
        assert torch.equal(x.gather(1, places), values)
        assert all(len(set(row)) == k for row in places.tolist())


def test_faiss_finds_the_same_neighbours():
    pytest.importorskip("faiss")
    x = torch.nn.functional.normalize(cloud(600, seed=3).float())
    x[300:320] = x[0]  # twins
    similar, there = graph.by_faiss(x, 9)
    blockwise, _ = graph.by_blocks(x, 9)
    assert torch.allclose(similar, blockwise, atol=1e-5)
    assert torch.allclose((x[:, None] * x[there]).sum(2), similar, atol=1e-5)
    assert not (there == torch.arange(600)[:, None]).any()
    assert all(len(set(row)) == 9 for row in there.tolist())


@pytest.mark.parametrize(
    ("n", "dtype", "used"), [(30, torch.float32, True), (29, torch.float32, False), (30, torch.float64, False)]
)
def test_faiss_is_used_where_it_is_installed_and_the_pool_is_large(monkeypatch, n, dtype, used):
    monkeypatch.setattr(graph, "MANY", 30)
    monkeypatch.setattr(graph, "find_spec", lambda name: name == "faiss")
    monkeypatch.setattr(graph, "by_faiss", lambda *_: "faiss")
    assert (graph.neighbours(cloud(n).to(dtype), 3) == "faiss") == used
    monkeypatch.setattr(graph, "find_spec", lambda _: None)
    assert graph.neighbours(cloud(n).to(dtype), 3) != "faiss"


@pytest.mark.parametrize("values", [2**24, 200, 1])
def test_neighbours_are_exact_in_blocks_of_any_size(monkeypatch, values):
    monkeypatch.setattr(graph, "VALUES", values)
    x = cloud(40)
    similar, there = graph.neighbours(x, 5)
    brute = (x @ x.T).fill_diagonal_(-math.inf).topk(5)
    assert torch.equal(there, brute.indices)
    assert torch.allclose(similar, brute.values)
    assert there.shape == (40, 5)


def test_a_twin_stays_a_neighbour_and_nobody_is_their_own():
    x = F.normalize(cloud(10)).repeat_interleave(3, 0)
    _, there = graph.neighbours(x, 2)
    for i in range(30):
        assert set(there[i].tolist()) == set(range(i // 3 * 3, i // 3 * 3 + 3)) - {i}


@pytest.mark.parametrize(("n", "k"), [(1, 50), (2, 50), (5, 50), (5, 4), (3, 1)])
def test_few_images_have_few_neighbours(n, k):
    assert graph.neighbours(cloud(n), k)[1].shape == (n, min(k, n - 1))
    net = graph.build(cloud(n), k)
    assert len(net) == n
    assert (net @ torch.ones(n, 2, dtype=torch.float64)).shape == (n, 2)


def test_a_similarity_below_zero_is_no_tie_and_a_row_without_ties_is_zero():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [0.0, 0.0]])
    s = dense(graph.build(x, 3))
    assert (s[2:] == 0).all()
    assert (s[:, 2:] == 0).all()
    assert torch.allclose(s[:2, :2], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), atol=1e-6)


def test_neighbours_both_ways_are_tied_twice():
    """On a line of angles, 0 and 1 are each other's nearest; 2's nearest is 1, which does not answer."""
    angle = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    net = graph.build(torch.stack([angle.cos(), angle.sin()], 1), 1, gamma=1.0)
    a, b = 2 * math.cos(0.1), math.cos(0.2)
    expected = torch.tensor([[0, a / math.sqrt(a * (a + b)), 0], [0, 0, b / math.sqrt(b * (a + b))], [0, 0, 0]])
    assert torch.allclose(dense(net), (expected + expected.T).double(), atol=1e-12)


def test_conjugate_gradients_converge_to_the_dense_solution():
    net, system_matrix, _, _, sources = system(n=200, k=10)
    z = graph.diffuse(net, sources, iterations=300)
    assert torch.allclose(z, torch.linalg.solve(system_matrix, sources), atol=1e-9)


@pytest.mark.parametrize("iterations", [3, 20])
def test_each_column_is_scipys_conjugate_gradients_after_as_many_iterations(iterations):
    net, system_matrix, _, _, sources = system(n=200, k=10)
    z = graph.diffuse(net, sources, iterations=iterations)
    matrix = csr_matrix(system_matrix.numpy())
    for c in range(sources.shape[1]):
        theirs, _ = cg(matrix, sources[:, c].numpy(), rtol=0.0, atol=0.0, maxiter=iterations)
        assert np.allclose(z[:, c].numpy(), theirs, atol=1e-10)
        assert torch.allclose(graph.diffuse(net, sources[:, [c]], iterations=iterations)[:, 0], z[:, c], atol=1e-12)


def test_more_iterations_than_there_is_to_do_leave_no_holes():
    net = graph.build(cloud(4), 2)
    z = graph.diffuse(net, torch.eye(4, dtype=torch.float64)[:, :2], iterations=60)
    expected = torch.linalg.inv(torch.eye(4, dtype=torch.float64) - 0.99 * dense(net))[:, :2]
    assert torch.allclose(z, expected, atol=1e-8)
    assert torch.equal(graph.diffuse(net, torch.zeros(4, 3, dtype=torch.float64)), torch.zeros(4, 3).double())


def test_in_single_precision_it_ends_at_the_same_labels():
    x = cloud(300, 8)
    known, labels = torch.arange(0, 300, 20), torch.arange(15) % 4
    low, high = (graph.propagate(graph.build(x.to(t), 8), known, labels, 4) for t in (torch.float32, torch.float64))
    assert low.weights.dtype == torch.float32
    assert (low.labels == high.labels).float().mean() > 0.99
    assert torch.allclose(low.weights.double(), high.weights, atol=1e-3)


def test_spreading_is_the_written_out_formula():
    net, system_matrix, known, labels, sources = system()
    spread = graph.propagate(net, known, labels, 3, iterations=300)
    z = torch.linalg.solve(system_matrix, sources).clamp(min=0)
    raw = torch.zeros(60, dtype=torch.float64)
    for i in range(60):
        p = z[i] / z[i].sum()
        raw[i] = 1 - sum(-q * math.log(q) for q in p.tolist() if q > 0) / math.log(3)
    assert torch.allclose(spread.raw, raw, atol=1e-8)
    for i in range(60):
        if i in known.tolist():
            assert spread.labels[i] == labels[known.tolist().index(i)]
            assert spread.weights[i] == 1
        else:
            assert spread.labels[i] == z[i].argmax()
            assert spread.weights[i].item() == pytest.approx((raw[i] / raw.max()).item(), abs=1e-7)


def blobs(*sizes):
    """Groups of directions at right angles to one another: no ties between them."""
    near = [F.one_hot(torch.tensor(i), len(sizes)).double().repeat(n, 1) for i, n in enumerate(sizes)]
    x = torch.cat(near)
    return torch.cat([x, 0 * x], 1) + torch.cat(
        [0 * x, 0.1 * x * torch.rand(len(x), 1, generator=chance()).double()], 1
    )


def test_two_groups_with_a_label_each_and_one_without():
    spread = graph.propagate(graph.build(blobs(20, 30, 10), 5), torch.tensor([3, 25]), torch.tensor([1, 0]), 2)
    assert spread.labels[:20].eq(1).all()
    assert spread.labels[20:50].eq(0).all()
    assert torch.allclose(spread.weights[:50], torch.ones(50, dtype=torch.float64))
    assert spread.weights[50:].eq(0).all()
    assert spread.weights.isfinite().all()
    assert spread.raw.isfinite().all()


def test_a_known_label_stays_whatever_the_neighbours_say():
    x = blobs(20)
    known, labels = torch.arange(5), torch.tensor([0, 0, 0, 0, 1])
    spread = graph.propagate(graph.build(x, 19), known, labels, 2)
    assert torch.equal(spread.labels[:5], labels)
    assert spread.weights[:5].eq(1).all()
    assert (spread.weights[5:] <= 1).all()


def test_only_one_class_is_labeled():
    spread = graph.propagate(graph.build(blobs(12), 3), torch.tensor([0, 1]), torch.tensor([2, 2]), 5)
    assert spread.labels.eq(2).all()
    assert spread.weights.isfinite().all()


def test_the_order_of_images_and_of_classes_does_not_matter():
    x, known = cloud(60), torch.arange(0, 60, 7)
    labels = torch.arange(len(known)) % 3
    order, other = torch.randperm(60, generator=chance(1)), torch.tensor([2, 0, 1])
    place = order.argsort()
    here = graph.propagate(graph.build(x, 5), known, labels, 3)
    there = graph.propagate(graph.build(x[order], 5), place[known], other[labels], 3)
    assert torch.equal(other[here.labels][order], there.labels)
    assert torch.allclose(here.weights[order], there.weights, atol=1e-9)


def test_each_class_starts_with_one_unit_however_many_labels_it_has(monkeypatch):
    given = []
    monkeypatch.setattr(graph, "diffuse", lambda *args: given.append(args[1]) or args[1])
    net = graph.build(cloud(10), 3)
    graph.propagate(net, torch.tensor([0, 1, 2, 5]), torch.tensor([0, 0, 0, 2]), 3)
    expected = torch.zeros(10, 3, dtype=torch.float64)
    expected[:3, 0], expected[5, 2] = 1 / 3, 1
    assert torch.allclose(given[0], expected)


def test_scaled_sources_change_nothing(monkeypatch):
    net, _, known, labels, _ = system()
    here, diffuse = graph.propagate(net, known, labels, 3), graph.diffuse
    monkeypatch.setattr(graph, "diffuse", lambda net, sources, *rest: diffuse(net, 64 * sources, *rest))
    there = graph.propagate(net, known, labels, 3)
    assert torch.equal(here.labels, there.labels)
    assert torch.allclose(here.weights, there.weights, atol=1e-12)


def test_without_spreading_only_the_labeled_have_anything():
    net, _, known, labels, sources = system()
    assert torch.equal(graph.diffuse(net, sources, alpha=0.0), sources)
    weights = graph.propagate(net, known, labels, 3, alpha=0.0).weights
    assert weights.nonzero()[:, 0].tolist() == known.tolist()


def test_rare_classes_weigh_more_and_all_have_the_same_say():
    labels = torch.tensor([0, 0, 0, 1, 1, 3])
    zeta = graph.balance(labels, 4)
    assert zeta.isfinite().all()
    for c, count in ((0, 3), (1, 2), (3, 1)):
        assert zeta[c].item() == pytest.approx((6 / 4) / count)
        assert zeta[labels][labels == c].sum().item() == pytest.approx(6 / 4)


def test_drawing_follows_the_weights_one_after_the_other():
    """The chance of {0, 1} of three with weights 3, 2, 1: 3/6 2/3 + 2/6 3/4 = 7/12."""
    g, weights = chance(), torch.tensor([3.0, 2.0, 1.0])
    both = sum({0, 1} == set(graph.draw(weights, 2, g).tolist()) for _ in range(4000))
    assert both / 4000 == pytest.approx(7 / 12, abs=4 * math.sqrt(7 / 12 * 5 / 12 / 4000))


def test_drawn_are_distinct_and_weight_zero_comes_last():
    weights = torch.tensor([0.0, 0.2, 0.0, 1.0, 0.5])
    drawn = graph.draw(weights, 4, chance())
    assert len(set(drawn.tolist())) == 4
    assert set(drawn[:3].tolist()) == {1, 3, 4}


def test_clusters_are_found_and_a_step_more_never_hurts():
    x = torch.cat([blobs(15, 20, 25).float() + 0.01 * torch.randn(60, 6, generator=chance()) for _ in range(2)])
    truth = torch.tensor([0] * 15 + [1] * 20 + [2] * 25).repeat(2)

    def spread_of(cluster):
        return sum(float((x[cluster == c] - x[cluster == c].mean(0)).square().sum()) for c in range(3))

    best = min((graph.kmeans(x, 3, 20, chance(s)) for s in range(10)), key=spread_of)
    assert graph.nmi(best, truth).item() == pytest.approx(1, abs=1e-5)
    inertia = [spread_of(graph.kmeans(x, 3, i, chance(3))) for i in range(1, 8)]
    assert all(b <= a + 1e-4 for a, b in pairwise(inertia))


def test_clusters_are_lloyds():
    x, g = cloud(50, 3), chance(5)
    means = x[torch.randperm(50, generator=chance(5))[:4]]
    for _ in range(6):
        cluster = torch.cdist(x, means).argmin(1)
        means = torch.stack([x[cluster == c].mean(0) for c in range(4)])
    assert torch.equal(graph.kmeans(x, 4, 6, g), torch.cdist(x, means).argmin(1))


@pytest.mark.parametrize(("n", "k"), [(40, 15), (6, 6), (4, 9)])
def test_no_cluster_is_empty_even_among_equals(n, k):
    for x in (torch.ones(n, 3), torch.cat([torch.zeros(n - 1, 3), torch.ones(1, 3)])):
        cluster = graph.kmeans(x, k, 5, chance())
        assert cluster.bincount(minlength=min(k, n)).min() >= 1
        assert cluster.max() == min(k, n) - 1


def test_whitened_features_have_unit_variance_and_no_correlation():
    x = cloud(500, 5) @ cloud(5, 5, seed=1) + 3
    white = graph.whiten(x, 4)
    assert white.shape == (500, 4)
    assert torch.allclose(white.T @ white / 500, torch.eye(4, dtype=torch.float64), atol=1e-8)
    assert graph.whiten(torch.ones(9, 3)).isfinite().all()


def test_mutual_information_is_counted_out():
    a, b = torch.randint(4, (200,), generator=chance()), torch.randint(6, (200,), generator=chance(1))
    b[:100] = a[:100]

    def entropy(*columns):
        counts = Counter(zip(*columns, strict=True)).values()
        return -sum(n / 200 * math.log(n / 200) for n in counts)

    here, there, both = entropy(a.tolist()), entropy(b.tolist()), entropy(a.tolist(), b.tolist())
    assert graph.nmi(a, b).item() == pytest.approx(2 * (here + there - both) / (here + there), abs=1e-5)
    assert graph.nmi(a, (a + 1) % 4).item() == pytest.approx(1, abs=1e-5)
    assert graph.nmi(torch.zeros(5).long(), torch.zeros(5).long()) == 1


def test_it_never_holds_n_by_n(monkeypatch):
    monkeypatch.setattr(graph, "VALUES", 1280)
    sizes, largest = [], graph.largest

    def watched(x, k):
        sizes.append(x.numel())
        return largest(x, k)

    monkeypatch.setattr(graph, "largest", watched)
    graph.build(cloud(100), 5)
    assert max(sizes) <= 1280
    assert len(sizes) == 10
