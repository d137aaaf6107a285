"""Queries against their definitions, written out."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import zoo
from trainers.seeds import generator
from zoo.queries import QUERIES
from zoo.query import inside
from zoo.register import entries, queries
from zoo.scan import top


def scan_of(logits):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    pool = SimpleNamespace(unlabeled=torch.arange(len(logits)))
    return SimpleNamespace(logits=logits, probs=logits.softmax(1), pool=pool, generator=lambda use: generator(0, use))


def order(name, scan):
    """All positions as the query asks for them."""
    return QUERIES[name].ask(scan, len(scan.logits)).positions.tolist()


rows = some.lists(some.lists(some.floats(-9, 9, width=32), min_size=4, max_size=4), min_size=1, max_size=12)


def brute(name, p):
    best, second, *_ = sorted(p, reverse=True)
    return {
        "least_confident": -best,
        "margin": second - best,
        "entropy": -sum(q * math.log(q) for q in p if q > 0),
    }[name]


@pytest.mark.parametrize("name", ["least_confident", "margin", "entropy"])
@given(logits=rows)
@settings(max_examples=60, deadline=None)
def test_scores_are_the_definition_for_any_logits(name, logits):
    scan = scan_of(logits)
    asked = QUERIES[name].ask(scan, len(logits))
    expected = [brute(name, p) for p in scan.probs[asked.positions].tolist()]
    assert asked.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert (asked.scores.diff() <= 0).all()
    assert sorted(asked.positions.tolist()) == list(range(len(logits)))


@pytest.mark.parametrize("name", ["least_confident", "margin", "entropy"])
def test_the_uniform_guess_is_asked_first_and_the_sure_one_last(name):
    assert order(name, scan_of([[0, 0, 0], [200, 0, -200], [1, 0.5, 0]])) == [0, 2, 1]


@given(gaps=some.sets(some.integers(0, 70), min_size=1))
@settings(max_examples=40, deadline=None)
def test_of_two_classes_all_three_ask_in_one_order(gaps):
    scan = scan_of([[gap / 10, 0.0] for gap in gaps])
    assert order("least_confident", scan) == order("margin", scan) == order("entropy", scan)


def test_entropy_is_finite_where_a_probability_underflows():
    asked = QUERIES["entropy"].ask(scan_of([[300.0, 0.0, -300.0], [1.0, 1.0, 1.0]]), 2)
    assert asked.detail["entropy"].tolist() == pytest.approx([math.log(3), 0.0], abs=1e-6)


def test_details_are_the_papers_quantities():
    scan = scan_of([[2.0, 1.0, 0.0]])
    p = scan.probs[0]
    assert QUERIES["margin"].ask(scan, 1).detail["margin"].item() == pytest.approx((p[0] - p[1]).item())
    assert QUERIES["least_confident"].ask(scan, 1).detail["confidence"].item() == pytest.approx(p[0].item())


def test_random_asks_for_every_image_equally_often():
    """Chi-square over 2000 draws of 3 from 10: below the 0.999 quantile for 9 degrees of freedom."""
    counts = torch.zeros(10)
    for seed in range(2000):
        scan = scan_of(torch.zeros(10, 2))
        scan.generator = lambda use, seed=seed: generator(seed, use)
        counts[QUERIES["random"].ask(scan, 3).positions] += 1
    assert ((counts - 600).square() / (600 * 0.7)).sum() < 27.9


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_never_ranked(broken):
    with pytest.raises(RuntimeError, match="1 of 3 scores are not finite"):
        top(torch.tensor([1.0, broken, 0.0]), 2)


def test_of_equal_scores_the_first_is_asked_first():
    assert top(torch.tensor([1.0, 2.0, 2.0, 1.0]), 3).positions.tolist() == [1, 2, 0]


@pytest.mark.parametrize("k", [2, 3, 10, 32, 47, 48, 100])
def test_the_two_best_guesses_are_those_of_a_sort(k, monkeypatch):
    from zoo.queries import uncertainty

    monkeypatch.setattr(uncertainty, "ROWS", 7)
    p = torch.randn(50, k, generator=torch.Generator().manual_seed(0)).round(decimals=1).softmax(1)  # some are equal
    first, second = uncertainty.two_best(p)
    assert torch.equal(torch.stack([first, second], 1), p.sort(1, descending=True).values[:, :2])


@pytest.mark.parametrize("n", [1, 7, 40, 60])
def test_of_equal_scores_the_first_are_asked_however_few_are_sorted(n):
    scores = torch.arange(60.0).remainder(9)
    assert torch.equal(top(scores, n).positions, scores.sort(descending=True, stable=True).indices[:n])


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("typiclust", {"most": 0}),
        ("typiclust", {"rounds": 0}),
        ("batch_bald", {"draws": 0}),
        ("batch_bald", {"configurations": -3}),
        ("batch_bald", {"memory_mib": 0.0}),
        ("bald", {"draws": -2}),
        ("power_bald", {"beta": float("inf")}),
        ("acs_fw", {"projections": 1}),
        ("bait", {"lam": 0.0}),
        ("bait", {"over": 0.5}),
        ("probcover", {"delta": -0.5}),
        ("probcover", {"purity": 3.0}),
        ("probcover", {"sample": 0}),
        ("robust_kcenter", {"others": -3}),
        ("weighted_kmeans", {"beta": -1.0}),
        ("suggestive", {"candidates": -1.0}),
        ("deepfool", {"iterations": 0}),
        ("dal", {"steps": 0}),
        ("llal", {"subset": -1}),
        ("bgadl", {"draws": 1}),
        ("kcenter", {"features": "pixel"}),
        ("waal", {"uncertainty": "both"}),
        ("ceal", {"criterion": "margn"}),
        ("gaal", {"solver": "sgd"}),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_trained(name, asked):
    setting, value = next(iter(asked.items()))
    with pytest.raises(ValueError, match=re.escape(f"{setting}={value!r} must be ") + f".*for the query '{name}'"):
        zoo.create(name, query_settings=asked)


def test_ranges_are_about_numbers_that_there_are_and_defaults_are_inside():
    for query in queries().values():
        for setting, interval in query.ranges.items():
            assert inside(query.settings[setting], interval), (query.name, setting)
        numbers = {key for key, value in query.settings.items() if type(value) in (int, float)}
        assert numbers == {key for key, where in query.ranges.items() if isinstance(where, str)}, query.name
    asking = [entry.query for entry in entries().values()]
    assert all(inside(query.settings[key], interval) for query in asking for key, interval in query.ranges.items())


@pytest.mark.parametrize(
    ("interval", "numbers", "others"),
    [("[0, 1)", (0, 0.5), (-0.1, 1)), ("(0, 1]", (0.5, 1), (0, 1.1)), ("[1, inf)", (1, 1e9), (0, float("inf")))],
)
def test_intervals(interval, numbers, others):
    assert all(inside(number, interval) for number in numbers)
    assert not any(inside(number, interval) for number in others)
