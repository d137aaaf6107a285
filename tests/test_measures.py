"""Measures against numbers worked out by hand, and against damaged or unfinished files."""

import json
from pathlib import Path
from typing import Any

import pytest

from zoo.studies import measures


def line(learner: str, seed: int, number: int, accuracy: float, **more: Any) -> dict[str, Any]:
    record = {"learner": learner, "plan": "ours", "seed": seed, "round": number, "labels": 10 + 10 * number}
    return record | {"accuracy": accuracy, "asked": [number], "fit_seconds": 2.0, "select_seconds": None} | more


def stored(folder: Path, lines: list[dict[str, Any]], tail: str = "") -> Path:
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")
    return path


def test_area_of_a_line_is_its_middle():
    assert measures.aubc([10, 20, 30], [0.2, 0.4, 0.6]) == pytest.approx(0.4)


def test_area_weighs_rounds_by_their_true_label_counts():
    # 10 labels at 0.5 on average, 90 at 0.9: (10 * 0.5 + 90 * 0.9) / 100
    assert measures.aubc([0, 10, 100], [0.1, 0.9, 0.9]) == pytest.approx(0.86)


def test_area_of_one_point_is_its_accuracy_and_of_no_width_the_mean():
    assert measures.aubc([40], [0.7]) == 0.7
    assert measures.aubc([40, 40], [0.6, 0.8]) == pytest.approx(0.7)


@pytest.mark.parametrize(("labels", "accuracy"), [([], []), ([1, 2], [0.5]), ([20, 10], [0.5, 0.6])])
def test_area_refuses_what_is_no_curve(labels, accuracy):
    with pytest.raises(ValueError, match="Give"):
        measures.aubc(labels, accuracy)


def test_interval_matches_a_table_of_student_t():
    # mean 2, standard deviation 1 (ddof=1), n 3: t(0.975, 2) = 4.302653, over sqrt(3) = 2.484138
    mean, low, high = measures.mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 2.484138, 2 + 2.484138), abs=1e-6)
    # t(0.95, 1) = 6.313752, deviation 1/sqrt(2), over sqrt(2): 3.156876
    assert measures.mean_interval([0.0, 1.0], level=0.9) == pytest.approx((0.5, 0.5 - 3.156876, 0.5 + 3.156876))


def test_interval_of_equal_values_is_a_point_and_of_one_value_is_empty():
    assert measures.mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert measures.mean_interval([0.5]) == (0.5, None, None)


def test_interval_refuses_nothing_and_levels_that_are_no_probability():
    with pytest.raises(ValueError, match="at least one"):
        measures.mean_interval([])
    with pytest.raises(ValueError, match="95"):
        measures.mean_interval([1.0, 2.0], level=95)


def test_balance_is_one_when_even_and_zero_in_one_class():
    assert measures.balance([5, 5, 5, 5]) == pytest.approx(1.0)
    assert measures.balance([20, 0]) == 0.0
    assert measures.balance([1, 1, 0, 0]) == pytest.approx(0.5)
    assert measures.balance([0, 0]) is None


def test_read_ignores_a_torn_last_line_and_keeps_a_whole_one(tmp_path):
    lines = [line("vaal", 0, 0, 0.5), line("vaal", 0, 1, 0.6)]
    whole = json.dumps(line("vaal", 0, 2, 0.7))
    assert len(measures.read(stored(tmp_path, lines, whole[:40]))) == 2
    assert len(measures.read(stored(tmp_path, lines, whole))) == 3
    assert len(measures.read(stored(tmp_path, lines, "\0\0\0"))) == 2


def test_read_ignores_a_line_torn_inside_a_letter(tmp_path):
    path = stored(tmp_path, [line("vaal", 0, 0, 0.5)])
    path.write_bytes(path.read_bytes() + '{"learner": "é'.encode()[:-1])
    assert len(measures.read(path)) == 1


@pytest.mark.parametrize(
    "broken",
    [
        '{"learner": "va',
        "[]",
        '{"learner": "vaal"}',
        json.dumps(line("vaal", 0, 1, 1.5)),
        json.dumps(line("vaal", 0, 1, float("nan"))),
        json.dumps(line("", 0, 1, 0.5)),
        json.dumps(line("vaal", 0, -1, 0.5)),
    ],
)
def test_read_refuses_any_other_broken_line_by_file_and_number(tmp_path, broken):
    path = stored(tmp_path, [line("vaal", 0, 0, 0.5)], broken + "\n" + json.dumps(line("vaal", 0, 2, 0.5)) + "\n")
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2"):
        measures.read(path)


def test_read_lets_the_first_of_two_records_win_and_names_a_missing_file(tmp_path):
    records = measures.read(stored(tmp_path, [line("vaal", 0, 0, 0.5), line("vaal", 0, 0, 0.9)]))
    assert [record.accuracy for record in records] == [0.5]
    with pytest.raises(FileNotFoundError, match="Give"):
        measures.read(tmp_path / "nowhere" / "results.jsonl")


def test_summary_pairs_seeds_with_random_and_keeps_the_order_of_the_study(tmp_path):
    lines = []
    for seed, base in enumerate([0.4, 0.5, 0.6]):
        lines += [line("random", seed, number, base) for number in (0, 1)]
        lines += [line("vaal", seed, number, base + 0.1 + 0.01 * seed, peak_bytes=7 + number) for number in (0, 1)]
    vaal, random = measures.summary(measures.read(stored(tmp_path, lines)), ["vaal", "random"], 1, 3)
    assert (vaal.learner, random.learner) == ("vaal", "random")
    # differences 0.10, 0.11, 0.12: mean 0.11, half 4.302653 * 0.01 / sqrt(3); the seeds' own spread cancels
    assert vaal.gain == pytest.approx((0.11, 0.11 - 0.02484138, 0.11 + 0.02484138), abs=1e-7)
    assert random.gain is None
    assert random.aubc is not None
    assert random.aubc[0] == pytest.approx(0.5)
    assert vaal.final is not None
    assert vaal.final[0] == pytest.approx(0.61)
    assert (vaal.seeds, vaal.planned, vaal.gain_seeds, vaal.peak_bytes) == (3, 3, 3, 8)
    assert (vaal.fit_seconds, vaal.select_seconds) == (2.0, None)


def test_summary_with_one_seed_has_no_bounds(tmp_path):
    lines = [line(name, 0, number, 0.5) for name in ("random", "vaal") for number in (0, 1)]
    for row in measures.summary(measures.read(stored(tmp_path, lines))):
        assert row.aubc == (0.5, None, None)
        assert row.final == (0.5, None, None)


def test_summary_of_an_unfinished_run_compares_complete_seeds_only(tmp_path):
    lines = [line("random", seed, number, 0.5) for seed in (0, 1) for number in (0, 1, 2)]
    lines += [line("vaal", 0, number, 0.6) for number in (0, 1, 2)] + [line("vaal", 1, 0, 0.1)]
    lines += [line("waal", 0, 0, 0.9, fit_seconds=4.0)]
    records = measures.read(stored(tmp_path, lines))
    random, vaal, waal, gaal = measures.summary(records, ["random", "vaal", "waal", "gaal"], 2, 3)
    assert [(row.seeds, row.planned) for row in (random, vaal, waal, gaal)] == [(2, 3), (1, 3), (0, 3), (0, 3)]
    assert vaal.aubc == (pytest.approx(0.6), None, None)
    assert vaal.gain == (pytest.approx(0.1), None, None)
    assert (waal.aubc, waal.final, waal.gain, waal.fit_seconds) == (None, None, None, 4.0)
    assert (gaal.aubc, gaal.fit_seconds) == (None, None)


def test_summary_without_random_has_no_difference(tmp_path):
    (row,) = measures.summary(measures.read(stored(tmp_path, [line("vaal", 0, 0, 0.5)])))
    assert row.gain is None


def test_order_finds_a_query_under_its_full_name(tmp_path):
    lines = [line(name, 0, 0, 0.5) for name in ("stranger", "plain+margin", "plain+random")]
    records = measures.read(stored(tmp_path, lines))
    assert measures.order(records, ["margin", "vaal"]) == ["plain+margin", "vaal", "stranger", "plain+random"]
    assert measures.summary(records)[1].gain == (0.0, None, None)


def test_curve_shows_every_seed_that_got_there(tmp_path):
    lines = [line("vaal", 0, 0, 0.4), line("vaal", 0, 1, 0.7), line("vaal", 1, 0, 0.6, labels=12)]
    first, second = measures.curve(measures.read(stored(tmp_path, lines)))
    assert (first.at, first.seeds, first.accuracy[0]) == (11.0, 2, pytest.approx(0.5))
    assert (second.at, second.seeds, second.accuracy) == (20.0, 1, (0.7, None, None))


def test_settings_names_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"study\.toml"):
        measures.settings(tmp_path)
    (tmp_path / "study.toml").write_text("data = ")
    with pytest.raises(ValueError, match="is not TOML"):
        measures.settings(tmp_path)
    with pytest.raises(ValueError, match=r"rounds = 'x' in study.toml must be a whole number"):
        measures.asked_for({"learners": ["random"], "rounds": "x"})
