"""typiclust and probcover against their published steps, and where those stop."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from trainers.seeds import generator
from zoo.queries import QUERIES, geometry, typicality
from zoo.queries.geometry import kmeans
from zoo.queries.typicality import purest, typicality_of


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scan_of(features, known=None, classes=3, seed=0):
    known = features[:0] if known is None else known
    return SimpleNamespace(
        features=features,
        known=known,
        parts={"trunk": None},
        pool=SimpleNamespace(unlabeled=torch.arange(len(features)), classes=classes),
        generator=lambda use: generator(seed, use),
    )


def ask(name, scan, n, **settings):
    return QUERIES[name].ask(scan, n, features="task", **settings)


def groups(*sizes, spread=0.1):
    """Directions in tight groups of these sizes, orthogonal to one another."""
    eye = torch.eye(len(sizes))
    return torch.cat([eye[i] + spread * random(size, len(sizes), seed=i) for i, size in enumerate(sizes)])


# typiclust -------------------------------------------------------------------------------------------------------


def test_typicality_is_one_over_the_mean_distance_to_the_nearest_20(monkeypatch):
    x = random(50, 3)
    distance = torch.cdist(x.double(), x.double()).sort(1).values[:, 1:21]
    expected = 1 / (distance.mean(1) + 1e-5)
    assert torch.allclose(typicality_of(x).double(), expected, rtol=1e-4)
    monkeypatch.setattr(geometry, "VALUES", 120)
    assert torch.allclose(typicality_of(x).double(), expected, rtol=1e-4), "block by block"
    few = torch.cdist(x[:9], x[:9]).sort(1).values[:, 1:5]
    assert torch.allclose(typicality_of(x[:9]), 1 / (few.mean(1) + 1e-5), rtol=1e-4), "or to half of the cluster"


def test_alone_an_image_is_typical_of_nothing_and_no_number_breaks():
    assert typicality_of(random(1, 3)).tolist() == [0]


def published(scan, n, clusters):
    """The authors' selection over given clusters, labeled images first, as long as it has something to choose from."""
    features = normalize(torch.cat([scan.known, scan.features])).double()
    labels, known = clusters.clone(), len(scan.known)
    ids, sizes = labels.unique(return_counts=True)
    table = [
        (int((labels[:known] == c).sum()), -int(size), int(c)) for c, size in zip(ids, sizes, strict=True) if size > 5
    ]
    order = [c for _, _, c in sorted(table)]
    labels[:known] = -1
    chosen = []
    for i in range(n):
        members = (labels == order[i % len(order)]).nonzero().squeeze(1)
        near = min(20, len(members) // 2)
        distance = torch.cdist(features[members], features[members]).sort(1).values[:, 1 : near + 1]
        chosen.append(int(members[(1 / (distance.mean(1) + 1e-5)).argmax()]))
        labels[chosen[-1]] = -1
    return [position - known for position in chosen]


@pytest.mark.parametrize("labeled", [0, 4])
def test_typiclust_is_the_authors_selection(labeled, monkeypatch):
    seen = []
    monkeypatch.setattr(typicality, "kmeans", lambda *args, **more: seen.append(kmeans(*args, **more)) or seen[-1])
    scan = scan_of(random(240, 3), random(labeled, 3, seed=1))
    asked = ask("typiclust", scan, 12, most=7)
    clusters, centres = seen[0]
    assert len(clusters) == 240 + labeled, "the whole pool is clustered"
    assert len(centres) == 7
    assert asked.positions.tolist() == published(scan, 12, clusters)


def test_there_are_as_many_clusters_as_labels_and_questions(monkeypatch):
    seen = []
    monkeypatch.setattr(typicality, "kmeans", lambda x, k, *args, **more: seen.append(k) or kmeans(x, k, *args, **more))
    ask("typiclust", scan_of(random(40, 3), random(4, 3)), 5)
    ask("typiclust", scan_of(random(40, 3), random(4, 3)), 5, most=6)
    assert seen == [9, 6]


def test_the_largest_group_without_a_label_comes_first():
    x = groups(30, 20, 40)
    asked = ask("typiclust", scan_of(x, x[70:71]), 2)
    assert [sum(p >= edge for edge in (30, 50)) for p in asked.positions.tolist()] == [0, 1]


def test_small_clusters_are_passed_over_until_nothing_else_is_left():
    """Five images of a group of their own come last, not never: the authors' code fails there."""
    x = groups(12, 10, 5, spread=0.01)
    asked = ask("typiclust", scan_of(x), 27, most=3)
    assert sorted(asked.positions.tolist()) == list(range(27))
    assert min(asked.positions[-5:].tolist()) >= 22


# probcover -------------------------------------------------------------------------------------------------------


def greedy_cover(scan, picks, delta):
    """The published greedy on the whole graph, whose picks these may be: what they cover, one after the other."""
    x = normalize(torch.cat([scan.known, scan.features])).double()
    near, known = torch.cdist(x, x) < delta, len(scan.known)
    near.fill_diagonal_(True)
    bare, covers = ~near[:known].any(0), []
    for pick in picks + known:
        degree = (near & bare).sum(1)
        assert degree[pick] == degree.max()
        covers.append(int(degree.max()))
        bare &= ~near[pick]
    return covers


@pytest.mark.parametrize("labeled", [0, 1, 6])
@pytest.mark.parametrize("delta", [0.2, 0.5, 1.0])
def test_probcover_is_the_published_greedy(labeled, delta, monkeypatch):
    """In blocks of 7 rows too: no row of the graph is left out at the end."""
    scan = scan_of(random(150, 3), random(labeled, 3, seed=1))
    asked = ask("probcover", scan, 12, delta=delta)
    assert asked.detail["covers"].tolist() == greedy_cover(scan, asked.positions, delta)
    monkeypatch.setattr(geometry, "VALUES", 1000)
    assert torch.equal(ask("probcover", scan, 12, delta=delta).positions, asked.positions)


def test_where_all_cover_as_many_the_order_of_the_pool_plays_no_part():
    """A folder's images lie class by class: the first of equal ones would be of one class."""
    scan = scan_of(torch.eye(60), torch.zeros(0, 60))
    asked = ask("probcover", scan, 12, delta=0.5)
    assert asked.detail["covers"].tolist() == [1] * 12
    assert asked.positions.max() >= 30 > asked.positions.min()


def test_what_is_covered_never_shrinks_and_is_what_is_said_to_be():
    scan = scan_of(random(100, 3), random(3, 3, seed=1))
    asked = ask("probcover", scan, 40, delta=0.4)
    x = normalize(torch.cat([scan.known, scan.features]))
    near = torch.cdist(x, x) < 0.4
    before = int(near[:3].any(0).sum())
    for i, covers in enumerate(asked.detail["covers"].tolist()):
        after = int(near[torch.cat([torch.arange(3), 3 + asked.positions[: i + 1]])].any(0).sum())
        assert after - before == covers >= 0
        before = after


def test_when_all_is_covered_the_rest_is_drawn_from_what_was_not_asked():
    """The authors' code goes on with the first image of all, labeled or not."""
    firsts = set()
    for seed in range(20):
        asked = ask("probcover", scan_of(groups(10, 10, spread=0.01), seed=seed), 20, delta=0.5)
        assert asked.detail["covers"].tolist() == [10, 10] + [0] * 18
        assert sorted(asked.positions.tolist()) == list(range(20))
        firsts.add(asked.positions[2].item())
    assert len(firsts) > 5


def test_every_image_covers_itself_however_small_the_ball():
    asked = ask("probcover", scan_of(random(20, 3)), 20, delta=1e-9)
    assert sorted(asked.positions.tolist()) == list(range(20))
    assert asked.detail["covers"].tolist() == [1] * 20


def test_delta_is_the_largest_of_which_95_in_100_balls_are_pure():
    x, chance = normalize(random(200, 3)), generator(0, "x")
    clusters, _ = kmeans(x, 4, generator(0, "x"))
    delta = purest(x, 4, 0.95, 500, chance)
    distance = torch.cdist(x.double(), x.double())

    def pure(radius):
        return sum(len(clusters[row < radius].unique()) == 1 for row in distance) / 200

    assert pure(delta - 1e-4) >= 0.95
    assert pure(delta + 1e-4) < 0.95


def test_with_one_cluster_every_ball_is_pure():
    assert purest(torch.ones(10, 2), 3, 0.95, 100, generator(0, "x")) == math.inf
    assert sorted(ask("probcover", scan_of(torch.ones(10, 2)), 10).positions.tolist()) == list(range(10))


def test_probcover_asks_in_each_group_without_a_label():
    x = groups(30, 20, 40)
    asked = ask("probcover", scan_of(x, x[70:71]), 2)
    assert [sum(p >= edge for edge in (30, 50)) for p in asked.positions.tolist()] == [0, 1]


# both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["typiclust", "probcover"])
def test_every_image_of_a_pool_of_duplicates_is_asked_once(name):
    scan = scan_of(random(4, 3).repeat(6, 1), random(1, 3, seed=1))
    assert sorted(ask(name, scan, 24).positions.tolist()) == list(range(24))


@pytest.mark.parametrize("name", ["typiclust", "probcover"])
def test_what_is_no_number_stops_the_selection(name):
    x = random(10, 3)
    x[4, 0] = math.nan
    with pytest.raises(RuntimeError, match="1 of 10 images"):
        ask(name, scan_of(x), 2)
