"""jLP: the graph's diffusion, farthest first, against brute force with a dense inverse."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import zoo
from trainers import graph
from zoo.queries import QUERIES


def scan_of(known, features):
    return SimpleNamespace(known=known, features=features)


def ask(scan, n, **settings):
    return QUERIES["jlp"].ask(scan, n, **settings)


def cloud(known, unknown, d=5, seed=0):
    x = torch.randn(known + unknown, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return scan_of(x[:known], x[known:])


def inverse(scan, k, alpha=0.99):
    """(I - alpha S)^-1, dense, from the written-out graph."""
    x = F.normalize(torch.cat([scan.known, scan.features]))
    n, a = len(x), torch.zeros(len(x), len(x), dtype=x.dtype)
    for i in range(n):
        similar = (x @ x[i]).tolist()
        for j in sorted((j for j in range(n) if j != i), key=lambda j: -similar[j])[:k]:
            a[i, j] = max(0, similar[j]) ** 3
    w = a + a.T
    scale = w.sum(1).rsqrt()
    return torch.linalg.inv(torch.eye(n, dtype=x.dtype) - alpha * scale[:, None] * w * scale)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_brute_force_with_a_dense_inverse(seed):
    scan = cloud(4, 40, seed=seed)
    asked = ask(scan, 15, neighbours=6, iterations=300)
    all_ways, source = inverse(scan, 6), torch.zeros(44, dtype=torch.float64)
    source[:4] = 1
    for position, f in zip(asked.positions.tolist(), asked.detail["f"].tolist(), strict=True):
        reached = all_ways @ source
        reached[source > 0] = math.inf
        assert position == reached.argmin().item() - 4
        assert f == pytest.approx(reached.min().item(), rel=1e-6)
        source[position + 4] = 1


def test_after_twenty_iterations_it_asks_as_after_all():
    scan = cloud(4, 60)
    assert ask(scan, 20).positions.tolist() == ask(scan, 20, iterations=400).positions.tolist()


def chain(n):
    """Each shares one coordinate with the next, and none with any other."""
    return F.normalize(torch.eye(n, n + 1).double() + torch.eye(n, n + 1).double().roll(1, 1))


def test_on_a_chain_it_asks_for_the_far_end_first():
    x = chain(9)
    asked = ask(scan_of(x[:1], x[1:]), 3, neighbours=2)
    assert asked.positions[0] == 7
    assert asked.positions[1] in (3, 4)  # then for the middle
    from_the_middle = ask(scan_of(x[[4]], x[[0, 1, 2, 3, 5, 6, 7, 8]]), 2, neighbours=2)
    assert set(from_the_middle.positions.tolist()) == {0, 7}


def test_what_nothing_reaches_comes_first():
    x = torch.zeros(12, 4)
    x[:8, 0], x[8:, 1] = 1, 1
    asked = ask(scan_of(x[:1], x[1:]), 2, neighbours=2)
    assert asked.positions[0] >= 7
    assert asked.detail["f"][0] == 0


@pytest.mark.parametrize(
    "settings",
    [{"neighbours": 0}, {"neighbours": -1}, {"iterations": 0}, {"alpha": 1.5}, {"alpha": 0.0}, {"gamma": 0.0}],
)
def test_settings_under_which_nothing_spreads_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=.* must be in .*'jlp'"):
        zoo.create("jlp", query_settings=settings)


def test_never_what_is_labeled_and_never_twice():
    scan = cloud(5, 30)
    asked = ask(scan, 30, neighbours=4)
    assert sorted(asked.positions.tolist()) == list(range(30))


def test_what_is_reached_rises_and_the_scores_fall():
    asked = ask(cloud(3, 50), 50, neighbours=5)
    assert (asked.scores.diff() <= 0).all()
    assert torch.allclose(asked.scores, -asked.detail["f"], rtol=1e-3)


def test_twins_of_the_labeled_come_last():
    scan = cloud(3, 10)
    features = torch.cat([scan.features, scan.known])
    asked = ask(scan_of(scan.known, features), 5, neighbours=5)
    assert (asked.positions < 10).all()


@pytest.mark.parametrize("which", ["known", "features"])
def test_features_that_are_no_numbers_are_never_ranked(which):
    scan = cloud(4, 20)
    getattr(scan, which)[2, 1] = math.nan
    with pytest.raises(RuntimeError, match="not finite"):
        ask(scan, 3)


def test_a_turned_sign_would_be_caught(monkeypatch):
    """Asking for what is reached most is the other end of the chain."""
    diffuse = graph.diffuse
    monkeypatch.setattr(graph, "diffuse", lambda *args: -diffuse(*args))
    x = chain(9)
    assert ask(scan_of(x[:1], x[1:]), 1, neighbours=2).positions[0] == 0


def test_no_class_plays_a_part():
    """The same networks, the same images, labeled otherwise: the same question."""
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=chance)
    here, there = (zoo.Pool.of(images, torch.arange(60) % 3 * turn, 3).reveal(torch.arange(9)) for turn in (0, 1))
    learner = zoo.create("jlp", device="cpu", width=4, steps=3, batch=8).fit(here)
    asked = learner.select(here, 10)
    assert asked.indices.tolist() == learner.select(there, 10).indices.tolist()
    assert asked.detail.keys() == {"f"}


def test_it_solves_once_for_each_image(monkeypatch):
    calls, diffuse = [], graph.diffuse
    monkeypatch.setattr(graph, "diffuse", lambda *args: calls.append(args[1].sum().item()) or diffuse(*args))
    ask(cloud(3, 20), 4, neighbours=4)
    assert calls == [3, 4, 5, 6]
