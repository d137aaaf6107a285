"""Distances, farthest-first, draws by squared distance and k-means, against their definitions written out."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.pool import Pool
from trainers.seeds import generator
from zoo.queries import geometry
from zoo.queries.geometry import (
    Points,
    accepted,
    drawn,
    farthest,
    gaps_at_most,
    in_turn,
    kmeans,
    looks,
    nearest,
    scattered,
    squared,
)
from zoo.scan import Scan


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def table(x, y):
    """All squared distances, one difference at a time, in double precision."""
    return (x.double()[:, None] - y.double()).square().sum(2)


def naive_farthest(x, known, n):
    bound, picks, gains = table(x, known).amin(1), [], []
    for _ in range(n):
        picks.append(int(bound.argmax()))
        gains.append(float(bound.max()))
        bound = torch.minimum(bound, table(x, x[picks[-1:]])[:, 0])
        bound[picks] = -1
    return picks, gains


def test_squared_distances_are_those_of_the_points():
    x, y = random(7, 5), random(4, 5, seed=1)
    assert torch.allclose(squared(Points.of(x), Points.of(y)).double(), table(x, y), atol=1e-5)


def test_distances_of_outer_products_are_those_of_the_products_multiplied_out():
    q, h = random(9, 4), random(9, 6, seed=1)
    g = (q.double()[:, :, None] * h.double()[:, None]).flatten(1)
    points = Points.of(q, h)
    assert torch.allclose(points.squares.double(), g.square().sum(1), rtol=1e-5)
    assert torch.allclose(squared(points, points[2:5]).double(), table(g, g[2:5]), atol=1e-4)


def test_a_distance_is_never_below_zero():
    x = random(200, 64) + 30
    assert squared(Points.of(x), Points.of(x)).min() >= 0


def test_the_nearest_is_found_block_by_block(monkeypatch):
    x, y = random(50, 3), random(7, 3, seed=1)
    whole = nearest(Points.of(x), Points.of(y))
    monkeypatch.setattr(geometry, "VALUES", 30)
    distance, which = nearest(Points.of(x), Points.of(y))
    assert torch.equal(which, table(x, y).argmin(1))
    assert torch.equal(which, whole[1])
    assert torch.allclose(distance.double(), table(x, y).amin(1), atol=1e-5)


def test_without_a_centre_every_distance_is_infinite():
    x = Points.of(random(5, 3))
    assert nearest(x, x[:0])[0].tolist() == [math.inf] * 5


@pytest.mark.parametrize(("short", "flush"), [(512, 64), (16, 5), (1, 1), (8, 64)])
def test_farthest_first_is_the_plain_greedy(monkeypatch, short, flush):
    monkeypatch.setattr(geometry, "SHORT", short)
    monkeypatch.setattr(geometry, "FLUSH", flush)
    x, known = random(700, 6), random(5, 6, seed=1)
    positions, gains = farthest(Points.of(x), nearest(Points.of(x), Points.of(known))[0], 150)
    expected, distances = naive_farthest(x, known, 150)
    assert positions.tolist() == expected
    assert gains.tolist() == pytest.approx(distances, abs=1e-4)
    assert (gains.diff() <= 1e-5).all()


def test_the_bounds_that_are_kept_are_those_worked_out_anew():
    """What lies outside n picks is nowhere farther than the next one would be."""
    x, known = random(300, 4), random(3, 4, seed=1)
    points = Points.of(x)
    start = nearest(points, Points.of(known))[0]
    positions, gains = farthest(points, start, 41)
    centres = torch.cat([known, x[positions[:40]]])
    assert table(x, centres).amin(1).max().item() == pytest.approx(gains[40].item(), abs=1e-5)


def test_the_farthest_are_distinct_among_duplicates():
    x = random(3, 4).repeat(20, 1)
    points = Points.of(x)
    positions, _ = farthest(points, nearest(points, points[:1])[0], 60)
    assert sorted(positions.tolist()) == list(range(60))
    assert len({p % 3 for p in positions[:2].tolist()} - {0}) == 2, "distinct points come before their duplicates"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("d", [1, 7, 600])
def test_a_bound_in_low_precision_is_never_below_the_distance_and_not_far_above(scale, d):
    x, known = scale * random(300, d), scale * random(40, d, seed=1)
    known[:5] = x[:5]
    true, bound = table(x, known).amin(1).sqrt(), gaps_at_most(Points.of(x), Points.of(known)).double().sqrt()
    longest = max(float(x.norm(dim=1).max()), float(known.norm(dim=1).max()))
    assert (bound >= true).all()
    assert (bound**2 - true**2).max() < 0.06 * longest**2


@pytest.mark.parametrize(("short", "flush"), [(512, 128), (16, 5), (1, 1), (8, 64)])
def test_farthest_first_from_bounds_is_the_plain_greedy(monkeypatch, short, flush):
    monkeypatch.setattr(geometry, "SHORT", short)
    monkeypatch.setattr(geometry, "FLUSH", flush)
    x, known = random(700, 6), random(40, 6, seed=1)
    points, centres = Points.of(x), Points.of(known)
    positions, gains = farthest(points, gaps_at_most(points, centres), 150, centres)
    expected, distances = naive_farthest(x, known, 150)
    assert positions.tolist() == expected
    assert gains.tolist() == pytest.approx(distances, abs=1e-4)


def test_from_bounds_only_what_matters_is_worked_out(monkeypatch):
    seen, gaps = [], geometry.gaps
    x, known = random(3000, 4), random(50, 4, seed=1)
    x[:30] += 20
    points, centres = Points.of(x), Points.of(known)
    monkeypatch.setattr(geometry, "SHORT", 16)
    bound = gaps_at_most(points, centres)
    monkeypatch.setattr(geometry, "gaps", lambda p, c: (len(c) == 50 and seen.append(len(p))) or gaps(p, c))
    farthest(points, bound, 5, centres)
    assert 0 < sum(seen) <= 64


def test_the_gaps_are_those_to_the_nearest_whatever_the_factors():
    q, h = random(90, 3), random(90, 6, seed=1)
    g = (q.double()[:, :, None] * h.double()[:, None]).flatten(1)
    points = Points.of(q, h)
    assert torch.allclose(geometry.gaps(points, points[:7]).double(), table(g, g[:7]).amin(1), atol=1e-4)
    assert geometry.gaps(points, points[:0]).tolist() == [math.inf] * 90


FIVE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 1.0]])


def pairs(x, weights):
    """The chances of the second and third point that k-means++ draws after the first."""
    chances = {}
    d = table(x, x) * weights
    for second in range(1, len(x)):
        left = torch.minimum(d[0], d[second])
        for third in range(1, len(x)):
            chances[second, third] = float(d[0, second] / d[0].sum() * left[third] / left.sum())
    return {pair: chance for pair, chance in chances.items() if chance > 0}


def chi_square(counts, chances, n):
    assert not counts.keys() - chances.keys(), "drawn although it has no mass"
    return sum((counts.get(pair, 0) - n * chance) ** 2 / (n * chance) for pair, chance in chances.items())


def draws(n, weights=None):
    counts = {}
    for seed in range(n):
        picks, _ = scattered(Points.of(FIVE), 3, generator(seed, "draws"), torch.tensor([0]), weights)
        pair = tuple(picks[1:].tolist())
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@pytest.mark.parametrize("weights", [torch.ones(5), torch.tensor([1.0, 2.0, 0.5, 0.1, 0.0])], ids=["alike", "weighted"])
def test_points_are_drawn_by_squared_distance(weights):
    """Chi-square of 2000 pairs: below the 0.999 quantile, 31.3 for 11 degrees of freedom (16.8 at most for 5)."""
    chances = pairs(FIVE, weights)
    assert chi_square(draws(2000, weights), chances, 2000) < {12: 31.3, 6: 20.6}[len(chances)]


def test_draws_that_forget_to_reject_are_found_out(monkeypatch):
    monkeypatch.setattr(
        geometry, "accepted", lambda bound, between, coin, most: accepted(bound, between, 0 * coin, most)
    )
    chances = pairs(FIVE, torch.ones(5))
    assert chi_square(draws(2000), chances, 2000) > 31.3


def test_draws_by_the_fourth_power_are_found_out(monkeypatch):
    """A squared distance that is squared once more: the official code's `D2` is none, and is squared later."""
    monkeypatch.setattr(geometry, "drawn", lambda mass, place: drawn(mass.square(), place))
    chances = pairs(FIVE, torch.ones(5))
    assert chi_square(draws(2000), chances, 2000) > 31.3


def test_proposals_are_taken_by_the_true_share_of_the_bound():
    bound, coin = torch.tensor([4.0, 4.0, 2.0, 3.0]), torch.tensor([0.5, 0.2, 0.6, 0.9])
    between = torch.tensor([[0.0, 1.0, 1.5, 3.0], [1.0, 0, 1, 1], [1.5, 1, 0, 0.5], [3.0, 1, 0.5, 0]])
    taken, gain = accepted(bound, between, coin, 4)
    # 2.0 < 4 is taken; 0.8 < min(4, 1) is; 1.2 < min(2, 1.5, 1) is not, nor is 2.7 < min(3, 3, 1)
    assert taken.tolist() == [0, 1]
    assert gain.tolist() == [4.0, 1.0]
    assert accepted(bound, between, coin, 1)[0].tolist() == [0]


def test_what_has_no_mass_is_never_drawn():
    mass = torch.tensor([0.0, 0.0, 1.0, 0.0, 3.0, 0.0])
    assert drawn(mass, torch.tensor([0.0, 0.2499, 0.25, 0.9999], dtype=torch.float64)).tolist() == [2, 2, 4, 4]


def test_where_no_distance_is_left_points_are_drawn_anywhere():
    """Chi-square over 2000 draws of 2 of the 4 other twins: below the 0.999 quantile for 3 degrees of freedom."""
    counts = torch.zeros(5)
    for seed in range(2000):
        picks, _ = scattered(Points.of(torch.zeros(5, 2)), 3, generator(seed, "twins"), torch.tensor([2]))
        assert len(set(picks.tolist())) == 3
        counts[picks[1:]] += 1
    others = counts[[0, 1, 3, 4]]
    assert counts[2] == 0
    assert ((others - 1000).square() / (1000 * 0.5)).sum() * 3 / 4 < 16.3


def test_scattered_points_are_distinct_up_to_all_of_them():
    x = random(40, 3).repeat(5, 1)
    picks, gains = scattered(Points.of(x), 200, generator(0, "all"))
    assert sorted(picks.tolist()) == list(range(200))
    assert len({p % 40 for p in picks[:40].tolist()}) == 40, "twins come last"
    assert gains[0] == math.inf


def test_squared_distances_at_their_turn_are_those_to_the_nearest_drawn_before():
    x = random(400, 3)
    picks, gains = scattered(Points.of(x), 300, generator(0, "turns"))
    d = table(x, x)
    expected = [d[p, picks[:i]].min().item() for i, p in enumerate(picks.tolist()) if i]
    assert gains[1:].tolist() == pytest.approx(expected, abs=1e-4)


def blobs(per=30, k=4, d=3):
    centres = 20 * torch.eye(4)[:k, :d] if k <= d else random(k, d) * 20
    return torch.cat([c + random(per, d, seed=i) for i, c in enumerate(centres)])


def test_k_means_finds_clusters_that_lie_apart():
    clusters, centres = kmeans(blobs(), 4, generator(0, "kmeans"))
    assert all(len(part.unique()) == 1 for part in clusters.split(30))
    assert len(clusters.unique()) == 4
    assert torch.allclose(centres[clusters[0]], blobs()[:30].mean(0), atol=1e-5)


def test_k_means_is_lloyds(monkeypatch):
    """From the same start, three rounds of nearest centre and weighted mean."""
    x, weights, start = random(60, 2), torch.rand(60, generator=generator(0, "w")), torch.tensor([0, 1, 2, 3])
    monkeypatch.setattr(geometry, "scattered", lambda *_, **__: (start, None))
    centres = x[start].double()
    for _ in range(3):
        clusters = table(x, centres).argmin(1)
        centres = torch.stack(
            [
                (x[clusters == c].double() * weights[clusters == c, None]).sum(0)
                / weights[clusters == c].double().sum()
                for c in range(4)
            ]
        )
    ours = kmeans(x, 4, generator(0, "kmeans"), weights, rounds=3)
    assert torch.equal(ours[0], clusters)
    assert torch.allclose(ours[1].double(), centres, atol=1e-5)


def test_a_cluster_that_loses_its_points_goes_on_with_the_farthest(monkeypatch):
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1], [100.0]])
    monkeypatch.setattr(geometry, "scattered", lambda *_, **__: (torch.tensor([0, 0, 2]), None))
    clusters, _ = kmeans(x, 3, generator(0, "kmeans"))
    assert len(clusters.unique()) == 3
    assert (clusters == clusters[4]).sum() == 1


def test_k_means_of_twins_leaves_clusters_empty_and_no_number_broken():
    clusters, centres = kmeans(torch.ones(10, 2), 3, generator(0, "kmeans"))
    assert len(clusters) == 10
    assert torch.equal(centres, torch.ones(3, 2))
    clusters, centres = kmeans(random(10, 2), 3, generator(0, "kmeans"), torch.zeros(10))
    assert centres.isfinite().all()


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, list | tuple) else [out]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return out


def test_nothing_is_quadratic_in_the_number_of_points():
    """6,000 points: 36 million pairs. Nothing larger than a block, or than the points themselves."""
    x, chance = random(6000, 4), generator(0, "memory")
    points = Points.of(x)
    with Largest() as largest:
        farthest(points, nearest(points, points[:500])[0], 100)
        scattered(points, 100, chance)
        kmeans(x, 100, chance, rounds=3)
    assert largest.numbers <= geometry.VALUES


def scan_of(features, known, trunk=True, images=None):
    n = len(features) + len(known)
    images = torch.zeros(n, 1, 8, 8, dtype=torch.uint8) if images is None else images
    pool = Pool.of(images, torch.zeros(n, dtype=torch.int64), 2).reveal(range(len(features), n))
    parts = torch.nn.ModuleDict({"trunk" if trunk else "nothing": torch.nn.Linear(1, 1)})
    scan = Scan(pool, parts)
    scan.__dict__.update(features=features, known=known)
    return scan


def test_far_from_the_origin_distances_are_not_lost():
    x, known = random(200, 8), random(4, 8, seed=1)
    far = 4096.0  # float32 has 2^-11 there; the squares have 2
    shifted, shifted_known = x + far, known + far
    new, old = looks(scan_of(shifted, shifted_known), "task")
    positions, _ = farthest(Points.of(new), nearest(Points.of(new), Points.of(old))[0], 20)
    assert positions.tolist() == naive_farthest(shifted, shifted_known, 20)[0]


def test_pixels_are_the_images_shrunk_to_16_pixels_about_their_mean():
    images = torch.randint(0, 256, (6, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    new, known = looks(scan_of(random(4, 2), random(2, 2), images=images), "pixels")
    expected = (images.float() / 127.5 - 1).reshape(6, 3, 16, 2, 16, 3).mean((3, 5)).flatten(1)
    assert torch.allclose(torch.cat([new, known]), expected - expected.mean(0), atol=1e-5)


def test_before_there_is_a_trunk_there_are_pixels():
    images = torch.randint(0, 256, (6, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scan = scan_of(random(4, 2), random(2, 2), trunk=False, images=images)
    assert looks(scan, "task")[0].shape == (4, 81)


def test_unit_rows_have_length_one():
    new, known = looks(scan_of(random(4, 3), random(2, 3)), "task", unit=True)
    assert torch.cat([new, known]).norm(dim=1).tolist() == pytest.approx([1] * 6)


def test_other_looks_are_refused():
    with pytest.raises(ValueError, match='features=\'trunk\' must be "task" or "pixels"'):
        looks(SimpleNamespace(parts={}), "trunk")


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e30])
def test_points_that_are_no_numbers_have_no_distance(broken):
    x = random(5, 3)
    x[2, 1] = broken
    with pytest.raises(RuntimeError, match="1 of 5 images"):
        Points.of(x)
    with pytest.raises(RuntimeError, match="1 of 5 images"):
        looks(scan_of(x, random(2, 3)), "task")


def test_what_was_picked_one_by_one_is_scored_by_rank():
    asked = in_turn(torch.tensor([4, 2, 9]), gain=torch.tensor([1.0, 5.0, 2.0]))
    assert asked.scores.tolist() == [0, -1, -2]
    assert asked.detail["gain"].tolist() == [1, 5, 2]
