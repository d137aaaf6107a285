"""Diverse queries against brute force and their published guarantees."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from trainers.seeds import generator
from zoo.queries import QUERIES, diversity
from zoo.queries.diversity import covering, facilities, representatives
from zoo.queries.geometry import Points, kmeans

GREEDY = ["kcenter", "robust_kcenter", "ff_active"]
ALL = [*GREEDY, "weighted_kmeans", "suggestive"]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scan_of(features, known=None, logits=None):
    known = features[:0] if known is None else known
    logits = random(len(features), 3, seed=9) if logits is None else logits
    return SimpleNamespace(
        features=features,
        known=known,
        logits=logits,
        probs=logits.softmax(1),
        parts={"trunk": None},
        pool=SimpleNamespace(unlabeled=torch.arange(len(features))),
        generator=lambda use: generator(0, use),
    )


def radius(x, known, chosen):
    """The largest distance that is left."""
    return torch.cdist(x.double(), torch.cat([known, x[list(chosen)]]).double()).amin(1).max().item()


@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.parametrize("labeled", [0, 1, 3])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_the_radius_is_at_most_twice_the_best(name, labeled, n):
    """Over every set of n from 12 images; of the robust form, as it is never above the greedy one here."""
    for seed in range(8):
        x, known = random(12, 2, seed=seed), random(labeled, 2, seed=100 + seed)
        chosen = QUERIES[name].ask(scan_of(x, known), n).positions.tolist()
        best = min(radius(x, known, some) for some in combinations(range(12), n))
        assert radius(x, known, chosen) <= 2 * best + 1e-6


def test_kcenter_is_the_plain_greedy_in_double_precision():
    x, known = random(3000, 8), random(20, 8, seed=1)
    asked = QUERIES["kcenter"].ask(scan_of(x, known), 300)
    bound = torch.cdist(x.double(), known.double()).amin(1)
    for position, distance in zip(asked.positions.tolist(), asked.detail["distance"].tolist(), strict=True):
        assert position == bound.argmax()
        assert distance == pytest.approx(bound.max().item(), abs=1e-4)
        bound = torch.minimum(bound, (x - x[position]).double().norm(dim=1))


def test_with_nothing_labeled_the_first_is_the_medoid():
    x = random(40, 3) + 5
    asked = QUERIES["kcenter"].ask(scan_of(x), 5)
    assert asked.positions[0] == torch.cdist(x, x).square().sum(1).argmin()
    assert asked.detail["distance"][0] == math.inf
    assert QUERIES["ff_active"].ask(scan_of(x), 1, unit=True).positions[0] == (
        torch.cdist(normalize(x), normalize(x)).square().sum(1).argmin()
    )


def test_distances_are_compared_not_their_squares_of_squares():
    """One image 3 from the only labeled one, one 2 from it on the other side: 3 first, then 2, then the one at 1."""
    x, known = torch.tensor([[1.0, 0], [-2.0, 0], [3.0, 0]]), torch.zeros(1, 2)
    asked = QUERIES["kcenter"].ask(scan_of(x, known), 3)
    assert asked.positions.tolist() == [2, 1, 0]
    assert asked.detail["distance"].tolist() == pytest.approx([3, 2, 1], abs=1e-5)


@pytest.mark.parametrize("name", GREEDY)
def test_the_twin_of_a_labeled_image_comes_after_all_distinct_ones(name):
    known = random(2, 3, seed=1)
    x = torch.cat([known, random(8, 3)])
    assert set(QUERIES[name].ask(scan_of(x, known), 10).positions[-2:].tolist()) == {0, 1}


def test_directions_alone_on_request():
    x, known = torch.tensor([[9.0, 0.1], [0.0, 1.0], [8.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert QUERIES["ff_active"].ask(scan_of(x, known), 1, unit=True).positions.tolist() == [1]
    assert QUERIES["ff_active"].ask(scan_of(x, known), 1).positions.tolist() == [0]


# robust ----------------------------------------------------------------------------------------------------------


def test_an_outlier_is_left_alone_if_outliers_are_allowed():
    """Two groups and one image far away; one label in the first group, one image to ask."""
    x = torch.cat(
        [0.1 * random(30, 2), torch.tensor([4.0, 0.0]) + 0.1 * random(30, 2, seed=1), torch.tensor([[0, 9.0]])]
    )
    known = torch.zeros(1, 2)
    assert QUERIES["kcenter"].ask(scan_of(x, known), 1).positions.item() == 60
    robust = QUERIES["robust_kcenter"].ask(scan_of(x, known), 1, outliers=1 / 61)
    assert 30 <= robust.positions.item() < 60
    assert robust.detail["covers"].item() == 30
    assert QUERIES["robust_kcenter"].ask(scan_of(x, known), 1, outliers=0.0).positions.item() == 60


def test_without_outliers_the_radius_is_no_larger_than_the_greedy_one():
    smaller = 0
    for seed in range(20):
        x, known = random(60, 2, seed=seed), random(2, 2, seed=100 + seed)
        one, other = (radius(x, known, QUERIES[q].ask(scan_of(x, known), 8).positions.tolist()) for q in GREEDY[:2])
        assert other <= one + 1e-5
        smaller += other < one - 1e-5
    assert smaller >= 5, "the search does find better sets"


def test_covering_takes_the_centre_that_covers_most_again_and_again():
    reach = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0]]).bool()
    left, which, covers = covering(reach, torch.tensor([1, 1, 1, 1, 1, 1]).bool(), 2)
    assert (left, which.tolist(), covers.tolist()) == (1, [1, 0], [4, 1])
    left, which, covers = covering(reach, torch.tensor([0, 0, 0, 0, 0, 1]).bool(), 3)
    assert (left, which.tolist()) == (1, []), "nothing covers it"


# weighted k-means ------------------------------------------------------------------------------------------------


def test_weighted_kmeans_is_the_paper_step_by_step():
    """Pre-filter by margin, k-means weighted by 1 - margin, the nearest image of each centre."""
    x, logits = random(80, 3), random(80, 4, seed=5)
    scan = scan_of(x, random(3, 3, seed=2), logits)
    asked = QUERIES["weighted_kmeans"].ask(scan, 6, beta=5)
    first, second = scan.probs.topk(2).values.unbind(1)
    weight = 1 - (first - second)
    some = weight.argsort(descending=True)[:30]
    middle = torch.cat([x, scan.known]).mean(0)
    _, centres = kmeans(x[some] - middle, 6, scan.generator("kmeans"), weight[some])
    nearest = torch.cdist(centres, x[some] - middle).argmin(1)
    assert len(nearest.unique()) == 6
    assert set(asked.positions.tolist()) == set(some[nearest].tolist())
    assert torch.equal(asked.scores, asked.detail["informativeness"])
    assert torch.allclose(asked.scores, weight[asked.positions])


def test_positions_are_those_of_images_not_the_numbers_of_centres():
    """Uncertain images at the end of the pool, in two groups: the first images of the pool are never the answer."""
    x = torch.cat([random(50, 2), torch.tensor([9.0, 0.0]) + random(10, 2), torch.tensor([-9.0, 0.0]) + random(10, 2)])
    logits = torch.cat([torch.tensor([[9.0, 0.0]]).repeat(50, 1), torch.zeros(20, 2)])
    positions = QUERIES["weighted_kmeans"].ask(scan_of(x, logits=logits), 2).positions
    assert sorted((positions - 50).div(10, rounding_mode="floor").tolist()) == [0, 1]


def test_of_two_centres_nearest_to_one_image_the_second_takes_the_next(monkeypatch):
    points, centres = torch.tensor([[0.0], [5.0], [6.0]]), torch.tensor([[0.1], [-0.1], [6.0]])
    assert representatives(Points.of(points), Points.of(centres)).tolist() == [0, 1, 2]
    monkeypatch.setattr(diversity, "blocks", lambda n, _: (slice(i, i + 1) for i in range(n)))
    assert representatives(Points.of(points), Points.of(centres)).tolist() == [0, 1, 2]


# suggestive ------------------------------------------------------------------------------------------------------


def worth(z, chosen):
    """The facility location function, from a cosine of -1 without anything chosen."""
    return (z @ z[list(chosen)].T).amax(1).sum().item() if chosen else -float(len(z))


def test_facilities_are_the_plain_greedy_and_within_the_published_bound():
    for seed in range(10):
        z = normalize(random(12, 3, seed=seed))
        chosen, gains = facilities(z, torch.arange(12), 4)
        greedy = chosen.tolist()
        for i, gain in enumerate(gains.tolist()):
            rise = [worth(z, [*greedy[:i], j]) - worth(z, greedy[:i]) for j in range(12)]
            assert gain == pytest.approx(max(rise), abs=1e-5)
            assert gain == pytest.approx(rise[greedy[i]], abs=1e-5)
        best = max(worth(z, some) for some in combinations(range(12), 4))
        assert worth(z, greedy) + 12 >= (1 - 1 / math.e) * (best + 12)


def test_gains_that_are_kept_up_to_date_are_those_worked_out_anew():
    z = normalize(random(300, 4))
    rows = torch.arange(0, 300, 2)
    chosen, gains = facilities(z, rows, 150)
    assert sorted(chosen.tolist()) == rows.tolist()
    assert (gains.diff() <= 1e-4).all()
    cosine = torch.full((300,), -1.0)
    for i in range(40):
        gain = (z @ z[rows].T - cosine[:, None]).clamp(min=0).sum(0)
        assert gains[i].item() == pytest.approx(gain.max().item(), rel=1e-4)
        cosine = torch.maximum(cosine, z @ z[chosen[i]])


def test_suggestive_asks_uncertain_images_that_stand_for_many():
    """Of four uncertain images two are asked: one in each of the groups, not the odd ones out."""
    groups = torch.cat([torch.tensor([[1.0, 0, 0]]).repeat(20, 1), torch.tensor([[0, 1.0, 0]]).repeat(20, 1)])
    x = torch.cat([groups + 0.01 * random(40, 3), torch.tensor([[0, 0, 1.0], [0, 0, -1.0]])])
    logits = torch.tensor([[9.0, 0.0]]).repeat(42, 1)
    logits[[3, 25, 40, 41]] = 0
    assert set(QUERIES["suggestive"].ask(scan_of(x, logits=logits), 2).positions.tolist()) == {3, 25}


# all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_image_of_a_pool_of_duplicates_is_asked_once(name):
    x = random(5, 3).repeat(6, 1)
    positions = QUERIES[name].ask(scan_of(x, random(1, 3, seed=1)), 30).positions
    assert sorted(positions.tolist()) == list(range(30))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_no_number_stops_the_selection(name, broken):
    x = random(10, 3)
    x[4] = broken
    with pytest.raises(RuntimeError, match="1 of 10 images"):
        QUERIES[name].ask(scan_of(x, random(1, 3, seed=1)), 2)


def test_what_only_comes_close_says_so():
    assert [name for name in ALL if QUERIES[name].approximate] == ["robust_kcenter", "suggestive"]
    assert [name for name in ALL if QUERIES[name].cold] == GREEDY
    assert [name for name in ALL if QUERIES[name].randomised] == ["robust_kcenter", "weighted_kmeans"]
