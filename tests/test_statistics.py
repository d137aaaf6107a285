"""Statistics with known answers: curves with a planted effect, and with none."""

import math

import numpy as np
import pytest

from zoo.studies import critical, measures, statistics
from zoo.studies.measures import Record


def record(learner, seed, number, accuracy, labels=None, asked=()):
    return Record(
        learner=learner,
        seed=seed,
        round=number,
        labels=40 * (number + 1) if labels is None else labels,
        accuracy=accuracy,
        asked=tuple(asked),
        asked_classes=None,
        fit_seconds=None,
        select_seconds=None,
        peak_bytes=None,
        steps=None,
        plan="ours",
        diagnosis={},
        doubts=(),
        versions=None,
        machine=None,
        commit=None,
    )


def study(chance, effects, seeds=5, rounds=4, noise=0.02):
    """Curves that rise from .5; a learner's effect is added in every round, its own noise to every seed."""
    records = []
    for seed in range(seeds):
        shared = chance.normal(0, 0.05)  # a good or bad initial set, the same for all
        for learner, effect in effects.items():
            own = chance.normal(0, noise)
            records += [record(learner, seed, r, 0.5 + 0.05 * r + shared + effect + own) for r in range(rounds + 1)]
    return records


def test_an_effect_that_is_not_there_is_found_in_one_of_twenty_studies():
    chance = np.random.default_rng(0)
    found = [statistics.differences(study(chance, {"random": 0, "a": 0}))[0] for _ in range(600)]
    wrong = sum(d.verdict in ("better", "worse") for d in found) / 600
    assert 0.03 < wrong < 0.075
    assert sum(d.p < 0.05 for d in found) / 600 == pytest.approx(wrong, abs=0.01)


def test_the_interval_holds_a_planted_effect_nineteen_times_in_twenty():
    chance = np.random.default_rng(1)
    found = [statistics.differences(study(chance, {"random": 0, "a": 0.03}))[0] for _ in range(600)]
    assert 0.93 < sum(d.t[1] <= 0.03 <= d.t[2] for d in found) / 600 < 0.97
    assert 0.75 < sum(d.bootstrap[1] <= 0.03 <= d.bootstrap[2] for d in found) / 600 < 0.95  # five seeds: too narrow
    assert np.mean([d.t[0] for d in found]) == pytest.approx(0.03, abs=0.002)


def test_shared_luck_cancels_since_seeds_are_paired():
    d = statistics.differences(study(np.random.default_rng(2), {"random": 0, "a": 0.01}, noise=1e-4))[0]
    assert d.verdict == "better"
    assert d.p < 1e-5


def test_equal_is_said_by_the_margin_alone():
    assert statistics.verdict((0.0, -0.002, 0.002)) == "equal"
    assert statistics.verdict((0.001, 0.0005, 0.002)) == "equal"  # surely above zero, and not worth a word
    assert statistics.verdict((0.0, -0.01, 0.01)) == "undecided"
    assert statistics.verdict((0.02, 0.01, 0.03)) == "better"
    assert statistics.verdict((-0.02, -0.03, -0.01)) == "worse"
    assert statistics.verdict((0.1, None, None)) == "undecided"


def test_one_seed_has_no_bounds_and_no_p():
    (d,) = statistics.differences(study(np.random.default_rng(0), {"random": 0, "a": 0.1}, seeds=1))
    assert (d.t[1], d.bootstrap[1], d.p, d.adjusted, d.verdict) == (None, None, None, None, "undecided")


def test_p_values_are_those_of_scipy():
    from scipy.stats import ttest_1samp

    gains = [0.01, 0.03, -0.01, 0.02, 0.04]
    assert statistics.p_value(gains) == pytest.approx(ttest_1samp(gains, 0).pvalue)
    assert statistics.p_value([0.1, 0.1]) == 0
    assert statistics.p_value([0.0, 0.0]) == 1


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, None, 0.6]) == [1.0, None, 1.0]


def test_among_many_null_learners_holm_keeps_the_family_right():
    chance = np.random.default_rng(3)
    effects = {"random": 0, **{f"null{i}": 0 for i in range(8)}}
    wrong = 0
    for _ in range(200):
        wrong += any(d.adjusted < 0.05 for d in statistics.differences(study(chance, effects)))
    assert wrong / 200 < 0.09


def test_labels_to_a_target_by_hand():
    records = [record("random", 0, r, a) for r, a in enumerate([0.5, 0.6, 0.7, 0.8])]
    records += [record("fast", 0, r, a) for r, a in enumerate([0.5, 0.7, 0.9, 0.9])]
    records += [record("slow", 0, r, a) for r, a in enumerate([0.5, 0.55, 0.6, 0.65])]
    found = {t.learner: t for t in statistics.targets(records)}
    assert found["random"].labels == 160
    assert found["fast"].labels == pytest.approx(100)  # half way between 80 and 120
    assert found["fast"].saving == pytest.approx(1 - 100 / 160)
    assert (found["slow"].labels, found["slow"].saving, found["slow"].most) == (None, None, 160)
    assert {t.learner: t.labels for t in statistics.targets(records, 0.5)} == dict.fromkeys(found, 40)


def test_a_curve_that_dips_is_made_to_rise_before_it_is_read():
    records = [record("random", 0, r, a) for r, a in enumerate([0.5, 0.7, 0.6, 0.8])]
    (target,) = statistics.targets(records, 0.65)
    assert target.labels == pytest.approx(80)  # .7 and .6 count as .65 each


def test_the_penalty_matrix_by_hand():
    records = []
    for seed in range(5):
        wobble = 1e-3 * seed
        for r in range(5):
            records.append(record("random", seed, r, 0.5 + 0.1 * r))
            records.append(record("late", seed, r, 0.5 + 0.1 * r + (0.05 + wobble if r >= 2 else 0.0)))
    matrix = statistics.penalties(records)  # rounds 1, 2, 4
    assert matrix["late"]["random"] == pytest.approx(2 / 3)
    assert matrix["random"]["late"] == 0


def test_checkpoints_end_where_random_has_arrived():
    records = []
    for seed in range(5):
        for r in range(5):
            records.append(record("random", seed, r, [0.5, 0.9, 0.9, 0.9, 0.9][r]))
            records.append(record("late", seed, r, [0.5, 0.9, 0.95 + 1e-3 * seed, 0.99, 0.99][r]))
    assert statistics.penalties(records)["late"]["random"] == 0  # round 1 alone


def test_ranks_and_the_critical_difference():
    chance = np.random.default_rng(0)
    effects = {"random": 0, "good": 0.05, "bad": -0.05, "same": 0.0}
    found = statistics.ranking([study(chance, effects, noise=0.003) for _ in range(3)])
    assert found.blocks == 15
    assert found.ranks["good"] == 1
    assert found.ranks["bad"] == 4
    assert found.critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 15)), rel=1e-3)  # Demsar's table, k = 4
    assert found.p < 1e-4
    assert statistics.ranking([study(chance, {"random": 0, "a": 0})]) is None


def test_ranks_that_are_tied_everywhere_are_all_the_same():
    flat = [record(learner, seed, r, 0.5) for learner in ("random", "a", "b") for seed in (0, 1) for r in (0, 1)]
    found = statistics.ranking([flat])
    assert set(found.ranks.values()) == {2}
    assert found.p == 1


def test_only_learners_that_every_study_has_are_ranked():
    chance = np.random.default_rng(0)
    studies = [study(chance, {"random": 0, "a": 0, "b": 0, more: 0}) for more in ("c", "d")]
    assert statistics.shared(studies) == ["random", "a", "b"]
    assert set(statistics.ranking(studies).ranks) == {"random", "a", "b"}


def test_bars_join_what_is_less_than_the_critical_difference_apart():
    ranking = statistics.Ranking({"a": 1.0, "b": 1.5, "c": 2.4, "d": 3.6, "e": 6.0}, critical=1.5, p=0.01, blocks=9)
    assert critical.cliques(ranking) == [(1.0, 2.4), (2.4, 3.6)]


@pytest.mark.parametrize("width", [420, 1000])
@pytest.mark.parametrize("k", [3, 4, 30])
def test_the_plot_of_ranks_has_every_learner_inside_the_sheet_and_no_two_on_one_line(width, k):
    found = statistics.Ranking({f"learner{i}": 1 + (k - 1) * (i / (k - 1)) ** 2 for i in range(k)}, 1.2, 0.01, 9)
    sheet = critical.layout(found, width)
    assert {mark["learner"] for mark in sheet["marks"]} == set(found.ranks)
    assert all(sheet["left"] <= mark["x"] <= sheet["right"] for mark in sheet["marks"])
    assert all(sheet["axis"] < mark["y"] <= sheet["height"] for mark in sheet["marks"])
    for side in (True, False):
        ys = [mark["y"] for mark in sheet["marks"] if mark["left"] is side]
        assert len(ys) == len(set(ys))


def test_the_plot_of_ranks_is_the_same_file_for_the_same_ranks():
    found = statistics.Ranking({"a": 1.0, "$b$": 2.5, "c": 2.5}, 1.2, 0.01, 9)
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert critical.plot(found, "ranks", kind) == critical.plot(found, "ranks", kind)
        assert critical.plot(found, "ranks", kind).startswith(start)


def test_wilcoxon_is_scipys():
    from scipy import stats

    gains = [0.01, 0.03, -0.01, 0.02, 0.04, 0.05]
    assert statistics.wilcoxon(gains) == stats.wilcoxon(gains).pvalue
    assert statistics.wilcoxon([0.01, 0.02, 0.0, 0.04]) == 0.25  # three that differ, all up: 2 / 2^3
    assert statistics.wilcoxon([0.0, 0.0]) is None
    assert statistics.wilcoxon([0.1]) is None


def test_signed_ranks_pool_data_sets_and_seeds_and_are_adjusted_for_their_number():
    chance = np.random.default_rng(0)
    effects = {"plain+random": 0, "good": 0.05, "same": 0.0}
    good, same = statistics.signed_ranks([study(chance, effects, seeds=4, noise=0.003) for _ in range(3)])
    assert (good.learner, good.pairs, same.learner) == ("good", 12, "same")
    assert good.median == pytest.approx(0.05, abs=0.005)
    assert good.p == 2 / 2**12
    assert good.adjusted == 2 * good.p
    assert same.adjusted == same.p > 0.05


def test_of_studies_without_an_effect_signed_ranks_find_one_in_twenty():
    chance = np.random.default_rng(1)
    found = [statistics.signed_ranks([study(chance, {"random": 0, "a": 0}, seeds=8)])[0].p for _ in range(400)]
    assert 0.02 < sum(p < 0.05 for p in found) / 400 < 0.07


def test_the_noise_floor_is_the_spread_of_random_before_anybody_has_asked():
    records = [record("calm", seed, 0, 0.5) for seed in range(3)]
    records += [record("random", seed, number, 0.4 + 0.1 * seed + number) for seed in range(3) for number in (0, 1)]
    found = statistics.floor(records)
    assert (found.learner, found.least, found.most) == ("random", 0.4, pytest.approx(0.6))
    assert found.deviation == pytest.approx(0.1)
    assert statistics.floor(records[:3]).learner == "calm"
    assert statistics.floor(records[:1]) is None


def test_overlap_counts_shared_questions():
    records = []
    for learner, asked in (("a", [1, 2, 3]), ("b", [3, 4, 5]), ("random", [7])):
        records += [record(learner, 0, 0, 0.5, asked=[99]), record(learner, 0, 1, 0.6, asked=asked)]
    assert statistics.overlap(records) == {("a", "b"): 1 / 5, ("a", "random"): 0, ("b", "random"): 0}


def test_areas_over_labels_and_over_their_logarithm():
    run = [record("a", 0, r, a, labels) for r, (a, labels) in enumerate([(0.5, 10), (0.7, 20), (0.9, 80)])]
    assert statistics.area(run) == pytest.approx((10 * 0.6 + 60 * 0.8) / 70)
    assert statistics.area(run, log=True) == pytest.approx((1 * 0.6 + 2 * 0.8) / 3)


def test_the_first_round_is_a_checkpoint_even_where_random_never_learns():
    records = []
    for seed in range(5):
        for r in range(4):
            records.append(record("random", seed, r, [0.5, 0.5, 0.5, 0.502][r]))
            records.append(record("late", seed, r, [0.5, 0.6, 0.7, 0.7][r] + (1e-3 * seed if r else 0)))
    assert statistics.penalties(records)["late"]["random"] == 1


def test_the_last_bit_of_an_area_is_no_difference():
    """Two curves whose areas are equal, but for how they are summed: equal ranks, and no pair for Wilcoxon."""
    one, other = [0.6, 0.6, 0.2, 0.7], [0.1, 0.7, 0.6, 0.2]
    assert 0 < abs(area(one) - area(other)) < 1e-15
    records = [
        record(name, seed, r, curve[r])
        for seed in range(3)
        for name, curve in (("random", one), ("a", other), ("b", one))
        for r in range(4)
    ]
    assert set(statistics.ranking([records]).ranks.values()) == {2.0}
    assert [row.p for row in statistics.signed_ranks([records])] == [None, None]


def area(accuracies):
    return measures.aubc([40, 80, 120, 160], accuracies)


def test_a_plateau_a_bit_below_the_goal_has_reached_it():
    assert statistics.reach([10, 20], [0.9 - 1e-16, 0.9 - 1e-16], 0.9) == 10
