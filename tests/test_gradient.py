"""badge and bait against gradients and matrices written out."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from trainers.seeds import generator
from zoo.queries import QUERIES, gradient
from zoo.queries.geometry import VALUES, scattered, squared
from zoo.queries.gradient import information
from zoo.testing import pool


def scan_of(u=14, labeled=4, d=5, k=3, *, seed=0, features=None):
    chance = torch.Generator().manual_seed(seed)
    features = torch.randn(u, d, generator=chance) if features is None else features
    head = nn.Linear(features.shape[1], k)
    nn.init.normal_(head.weight, 0, 0.5, chance)
    nn.init.normal_(head.bias, 0, 0.5, chance)
    known = torch.randn(labeled, features.shape[1], generator=chance)
    logits = head(features).detach()
    return SimpleNamespace(
        features=features,
        known=known,
        logits=logits,
        known_logits=head(known).detach(),
        probs=logits.softmax(1),
        parts=nn.ModuleDict({"head": head}),
        pool=SimpleNamespace(unlabeled=torch.arange(len(features))),
        generator=lambda use: generator(seed, use),
    )


def last_layer_gradients(scan):
    """The gradients of the cross-entropy for the best guess, by autograd: weight (u k d) and bias (u k)."""
    head, out = scan.parts["head"], []
    for h, label in zip(scan.features, scan.logits.argmax(1), strict=True):
        loss = cross_entropy(head(h)[None], label[None])
        out.append(torch.autograd.grad(loss, (head.weight, head.bias)))
    weight, bias = zip(*out, strict=True)
    return torch.stack(weight), torch.stack(bias)


@pytest.mark.parametrize("bias", [False, True])
def test_badge_measures_the_gradients_of_the_last_layer(bias, monkeypatch):
    scan, seen = scan_of(), []
    monkeypatch.setattr(
        gradient, "scattered", lambda *args, **more: seen.append((args, more)) or scattered(*args, **more)
    )
    QUERIES["badge"].ask(scan, 4, bias=bias)
    points, first = seen[0][0][0], seen[0][1]["first"]
    weight, offset = last_layer_gradients(scan)
    g = torch.cat([weight, offset[:, :, None]], 2).flatten(1) if bias else weight.flatten(1)
    assert torch.allclose(points.squares, g.square().sum(1), atol=1e-5)
    assert torch.allclose(squared(points, points), torch.cdist(g, g).square(), atol=1e-4)
    assert first.tolist() == [int(g.norm(dim=1).argmax())], "the first is the longest"


def test_badges_distances_are_those_between_gradients():
    scan = scan_of(u=40)
    asked = QUERIES["badge"].ask(scan, 20)
    g = last_layer_gradients(scan)[0].flatten(1)[asked.positions]
    assert asked.detail["distance"][0] == math.inf
    for i in range(1, 20):
        nearest = (g[i] - g[:i]).norm(dim=1).min()
        assert asked.detail["distance"][i].item() == pytest.approx(nearest.item(), abs=1e-3)


def test_badge_draws_by_squared_distance():
    """Chi-square of the second image over 1000 draws from 6: below the 0.999 quantile for 4 degrees of freedom."""
    scan = scan_of(u=6)
    g = last_layer_gradients(scan)[0].flatten(1)
    first = int(g.norm(dim=1).argmax())
    chances = (g - g[first]).square().sum(1)
    chances = chances / chances.sum()
    counts = torch.zeros(6)
    for seed in range(1000):
        scan.generator = lambda use, seed=seed: generator(seed, use)
        positions = QUERIES["badge"].ask(scan, 2).positions.tolist()
        assert positions[0] == first
        counts[positions[1]] += 1
    rest = torch.arange(6) != first
    assert ((counts - 1000 * chances).square() / (1000 * chances))[rest].sum() < 18.5


def test_the_scale_of_features_changes_no_draw():
    scan = scan_of(u=30)
    large = SimpleNamespace(**{**vars(scan), "features": 64 * scan.features})
    one, two = QUERIES["badge"].ask(scan, 10), QUERIES["badge"].ask(large, 10)
    assert torch.equal(one.positions, two.positions)


def certain(sure, unsure):
    """A scan of images of which some have a certain guess: their logits are all but infinite."""
    scan = scan_of(u=sure + unsure)
    scan.logits[:sure] = torch.tensor([500.0, 0.0, 0.0])
    scan.probs = scan.logits.softmax(1)
    return scan


def test_certain_images_have_no_gradient_and_only_one_of_them_stands_for_all():
    """The origin is a place like any other: one image may stand for it, a second only when nothing else is left."""
    for seed in range(50):
        scan = certain(sure=8, unsure=6)
        scan.generator = lambda use, seed=seed: generator(seed, use)
        positions = QUERIES["badge"].ask(scan, 14).positions
        assert positions[0] >= 8, "never the first"
        assert (positions[:7] < 8).sum() <= 1
        assert sorted(positions.tolist()) == list(range(14))


def test_where_every_guess_is_certain_badge_asks_anywhere():
    counts = torch.zeros(6)
    for seed in range(600):
        scan = certain(sure=6, unsure=0)
        scan.generator = lambda use, seed=seed: generator(seed, use)
        positions = QUERIES["badge"].ask(scan, 3).positions
        assert len(positions.unique()) == 3
        counts[positions[1:]] += 1
    assert counts[1:].min() > 180, "each of the five twins of the first about 240 times"


def test_duplicates_are_asked_last():
    scan = scan_of(features=torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).repeat(4, 1))
    positions = QUERIES["badge"].ask(scan, 20).positions
    assert len({p % 5 for p in positions[:5].tolist()}) == 5
    assert len(positions.unique()) == 20


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, list | tuple) else [out]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return out


def test_badge_never_holds_a_gradient_written_out():
    """3,000 images, 64 classes of 64 features: 12 million numbers written out."""
    scan = scan_of(u=3000, d=64, k=64)
    with Largest() as largest:
        QUERIES["badge"].ask(scan, 20)
    assert largest.numbers <= VALUES


# bait ------------------------------------------------------------------------------------------------------------


def fisher(p, h):
    """(diag p - p p^T) x h h^T of one image."""
    return torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(h, h))


def dense(scan, n, lam=1.0, over=2.0):
    """The authors' selection on matrices written out: the added, in order, less the dropped."""
    head = scan.parts["head"]
    p, h = scan.logits.double().softmax(1), scan.features.double()
    q, x = head(scan.known).detach().double().softmax(1), scan.known.double()
    each, labeled = [fisher(*one) for one in zip(p, h, strict=True)], [fisher(*one) for one in zip(q, x, strict=True)]
    whole = sum(each + labeled) / len(each + labeled)
    start = lam * torch.eye(len(whole), dtype=torch.float64)
    start = start + (sum(labeled) / len(labeled) * len(labeled) / (len(labeled) + n) if labeled else 0)
    each = [one * n / (len(labeled) + n) for one in each]

    def trace(chosen):
        return float(torch.trace(torch.linalg.inv(start + sum(each[i] for i in chosen)) @ whole))

    chosen, gains = [], []
    while len(chosen) < min(len(each), max(n, round(over * n))):
        left = [i for i in range(len(each)) if i not in chosen]
        best = min(left, key=lambda i: trace([*chosen, i]))
        gains.append(
            (trace(chosen) if chosen else float(torch.trace(torch.linalg.inv(start) @ whole))) - trace([*chosen, best])
        )
        chosen.append(best)
    gain = dict(zip(chosen, gains, strict=True))
    while len(chosen) > n:
        chosen.remove(min(chosen, key=lambda i: trace([j for j in chosen if j != i])))
    return chosen, [gain[i] for i in chosen], trace(chosen), trace


@pytest.mark.parametrize("labeled", [0, 1, 4])
@pytest.mark.parametrize(("n", "over", "lam"), [(4, 2.0, 1.0), (3, 1.0, 0.01), (5, 2.5, 0.01), (1, 2.0, 1.0)])
def test_bait_is_the_dense_forward_and_backward_search(labeled, n, over, lam):
    scan = scan_of(labeled=labeled, seed=n)
    asked = QUERIES["bait"].ask(scan, n, lam=lam, over=over)
    chosen, gains, *_ = dense(scan, n, lam, over)
    assert asked.positions.tolist() == chosen
    assert asked.detail["gain"].tolist() == pytest.approx(gains, rel=1e-6)


def test_bait_comes_close_to_the_best_set_of_all():
    scan = scan_of(u=9, labeled=2, seed=5)
    _, _, ours, trace = dense(scan, 3)
    assert ours <= 1.1 * min(trace(list(some)) for some in combinations(range(9), 3))


def test_the_information_is_the_expected_square_of_the_gradient():
    """E over y ~ p of g g^T, for g the gradient of the cross-entropy by autograd."""
    scan = scan_of(u=6)
    head, expected = scan.parts["head"], 0
    for h, p in zip(scan.features, scan.probs, strict=True):
        for y in range(3):
            loss = cross_entropy(head(h)[None], torch.tensor([y]))
            g = torch.autograd.grad(loss, head.weight)[0].flatten()
            expected = expected + p[y] * torch.outer(g, g)
    assert torch.allclose(information(scan.probs, scan.features), expected, atol=1e-5)


def test_bait_can_ask_for_the_whole_pool():
    scan = scan_of(u=7)
    assert sorted(QUERIES["bait"].ask(scan, 7).positions.tolist()) == list(range(7))


def test_a_certain_image_tells_bait_nothing():
    scan = certain(sure=4, unsure=5)
    asked = QUERIES["bait"].ask(scan, 5)
    assert min(asked.positions.tolist()) >= 4


def test_matrices_too_large_are_refused_with_the_remedy():
    scan = scan_of(u=3, d=3000, k=10)
    with pytest.raises(ValueError, match=r"10 classes x 3000 features.*6\.7 GiB.*'project': 819"):
        QUERIES["bait"].ask(scan, 1)
    assert len(QUERIES["bait"].ask(scan, 2, project=4).positions) == 2


def test_a_projection_that_turns_nothing_changes_nothing(monkeypatch):
    """It is scaled so that products stay what they were, on average: here, of one with orthogonal columns, exactly."""
    scan = scan_of()
    plain = QUERIES["bait"].ask(scan, 4)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: math.sqrt(shape[1]) * torch.eye(*shape))
    turned = QUERIES["bait"].ask(scan, 4, project=5)
    assert torch.equal(plain.positions, turned.positions)
    assert torch.allclose(plain.detail["gain"], turned.detail["gain"])


@pytest.mark.parametrize("name", ["badge", "bait"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["features", "logits"])
def test_what_is_no_number_stops_the_selection(name, broken, which):
    scan = scan_of()
    getattr(scan, which)[3, 1] = broken
    scan.probs = scan.logits.softmax(1)
    with pytest.raises(RuntimeError, match="1 of 14 images"):
        QUERIES[name].ask(scan, 3)


def test_of_an_ensemble_bait_knows_the_labeled_as_it_sees_the_others(monkeypatch):
    """By the mean of the members, the labeled images too."""
    p, given = pool(), []
    monkeypatch.setattr(gradient, "information", lambda q, h: given.append(q) or information(q, h))
    learner = zoo.create("bait", members=3, device="cpu", steps=2, batch=8, width=2).fit(p)
    learner.select(p, 2)
    assert torch.allclose(given[0].float(), learner.predict(p.images[p.labeled]), atol=1e-5)
    assert torch.allclose(given[1].float(), learner.predict(p.images[p.unlabeled]), atol=1e-5)
