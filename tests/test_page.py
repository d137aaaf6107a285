"""The parts of the page beyond the summary: where gains come from, and what accuracy has cost."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from test_report import page, words

from zoo.studies import measures, report
from zoo.studies.curves import lines_of
from zoo.studies.drawings import course

AREAS = {"random": 0.50, "waal": 0.62, "waal+random": 0.57, "plain+waal": 0.53, "margin": 0.55}
CONTROLS = ["waal+random", "plain+waal"]


def study(folder: Path, learners: tuple[str, ...] = tuple(AREAS), seeds: int = 3, rounds: int = 2, **more: Any) -> Path:
    """A run whose learners have flat curves, and fits of 2 seconds a round, selections of half a second."""
    keep, top = more.pop("keep", lambda *_: True), more.pop("top", "")
    lines = []
    for learner in learners:
        for seed in range(seeds):
            for number in range(rounds + 1):
                if not keep(learner, seed, number):
                    continue
                own = {
                    "controls": CONTROLS if learner == "waal" else [],
                    "network": learner if "waal" in learner else "p",
                }
                line = {"learner": learner, "seed": seed, "round": number, "labels": 40 + 20 * number, **own}
                line |= {"accuracy": AREAS[learner] + 0.01 * seed, "query": learner.split("+")[-1], "plan": "ours"}
                line |= {"fit_seconds": 2.0, "select_seconds": 0.5 if number else None, "asked": []}
                lines.append(line | {key: value(line) for key, value in more.items()})
    names = ", ".join(json.dumps(name) for name in learners)
    text = f'data = "digits"\nlearners = [{names}]\nseeds = {seeds}\nrounds = {rounds}\n{top}\n'
    (folder / "study.toml").write_text(text, encoding="utf-8")
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def section(said: str, head: str, until: str) -> str:
    assert head in said, said
    return said.split(head, 1)[1].split(until, 1)[0]


# Where gains come from


def test_a_gain_is_split_into_training_and_questions(tmp_path: Path) -> None:
    _, reader = page(study(tmp_path))
    said = section(words(reader), "Where gains come from", "Ranks Mean rank")
    assert "waal 3 +12.00 ± 0.00 +7.00 ± 0.00 +5.00 ± 0.00 +3.00 ± 0.00" in said
    assert "margin 3 +5.00 ± 0.00 none +5.00 ± 0.00 +5.00 ± 0.00" in said
    assert "waal+random" not in said.split("elsewhere", 1)[1]


def test_without_controls_nothing_is_split(tmp_path: Path) -> None:
    folder = study(tmp_path, ("random", "waal", "margin"))
    assert "Where gains come from" not in words(page(folder)[1])
    assert "by training" not in (folder / "table.md").read_text()


def test_a_control_that_was_not_run_is_a_dash(tmp_path: Path) -> None:
    said = words(page(study(tmp_path, ("random", "waal", "waal+random")))[1])
    assert "waal 3 +12.00 ± 0.00 +7.00 ± 0.00 +5.00 ± 0.00 –" in section(said, "Where gains come from", "over seconds")


def test_one_seed_is_split_without_intervals(tmp_path: Path) -> None:
    said = words(page(study(tmp_path, seeds=1))[1])
    assert "waal 1 +12.00 +7.00 +5.00 +3.00" in section(said, "Where gains come from", "Accuracy over seconds")


def test_the_table_for_a_paper_has_the_split_where_there_are_controls(tmp_path: Path) -> None:
    report.write(study(tmp_path))
    ranked, split = (tmp_path / "table.md").read_text(encoding="utf-8").split("\n\n")
    assert len(ranked.splitlines()) == 2 + len(AREAS)
    head, rule, *rows = split.splitlines()
    assert head.count("|") == rule.count("|") == 7
    assert rows == ["| waal | 3 | +12.00 ± 0.00 | +7.00 ± 0.00 | +5.00 ± 0.00 | +3.00 ± 0.00 |"]


# What accuracy has cost


def test_seconds_add_up_over_rounds(tmp_path: Path) -> None:
    records = measures.read(study(tmp_path) / "results.jsonl")
    assert [measures.spent(records)["waal", 1, number] for number in range(3)] == [2.0, 4.5, 7.0]


@pytest.mark.parametrize("lost", [0, 1])
def test_seconds_after_a_gap_are_not_known(tmp_path: Path, lost: int) -> None:
    folder = study(tmp_path, ("random",), seeds=1, keep=lambda *cell: cell[2] != lost)
    assert len(measures.spent(measures.read(folder / "results.jsonl"))) == lost
    folder = study(tmp_path, ("random",), seeds=1, fit_seconds=lambda line: None if line["round"] == lost else 1.0)
    assert len(measures.spent(measures.read(folder / "results.jsonl"))) == lost


def test_the_page_shows_accuracy_over_seconds(tmp_path: Path) -> None:
    text, reader = page(study(tmp_path, fit_seconds=lambda line: 200.0 if line["learner"] == "waal" else 2.0))
    said = section(words(reader), "Accuracy over seconds", "Accuracy per round")
    assert "waal 2 63.00 ± 2.48 601" in said
    assert "random 2 51.00 ± 2.48 7.00" in said
    assert "answers" not in said
    assert re.findall(r'data-unit="(\w+)"', text) == ["labels", "seconds"]
    scales = [json.loads(found.replace("&#34;", '"')) for found in re.findall(r'data-scale="([^"]+)"', text)]
    assert [scale["log"] for scale in scales] == [False, False, True, True]
    assert 10 ** scales[2]["first"] == pytest.approx(2)
    assert 10 ** (scales[2]["first"] + scales[2]["wide"]) == pytest.approx(601)


def test_answers_have_a_price_of_their_own_or_count_as_seconds(tmp_path: Path) -> None:
    price = {"label_cost": lambda line: 3.0 * line["labels"]}
    said = words(page(study(tmp_path, top='cost_unit = "EUR"', **price))[1])
    said = section(said, "Accuracy over seconds", "Accuracy per round")
    assert "answers, EUR" in said
    assert "random 2 51.00 ± 2.48 7.00 240" in said
    said = words(page(study(tmp_path, top='cost_unit = "seconds"', **price))[1])
    said = section(said, "Accuracy over seconds", "Accuracy per round")
    assert "are added to those of the machine" in said
    assert "random 2 51.00 ± 2.48 247 240" in said


def test_unknown_seconds_draw_nothing(tmp_path: Path) -> None:
    text, reader = page(study(tmp_path, fit_seconds=lambda _: None))
    assert "Accuracy over seconds" not in words(reader)
    assert re.findall(r'data-unit="(\w+)"', text) == ["labels"]


def test_a_learner_wears_the_same_style_in_both_plots(tmp_path: Path) -> None:
    folder = study(tmp_path, fit_seconds=lambda line: None if line["learner"] == "waal" else 1.0)
    text, _ = page(folder)
    worn = {line.learner: line.style for line in lines_of(measures.read(folder / "results.jsonl"), tuple(AREAS))}
    seconds = text.split('data-unit="seconds"')[1].split("</figure>")[0]
    assert seconds.count("<li>") == len(AREAS) - 1
    for name in ("waal+random", "plain+waal", "margin"):
        colour = worn[name] % 6
        assert re.search(rf'title="{re.escape(name)}"><svg class="key c{colour} ', seconds)


def test_seconds_that_round_to_nothing_are_drawn(tmp_path: Path) -> None:
    text, _ = page(study(tmp_path, fit_seconds=lambda _: 0.0, select_seconds=lambda _: 0.0))
    assert "Accuracy over seconds" in text
    assert "nan" not in text.split('data-unit="seconds"')[1].split("</figure>")[0].lower()


# Games


def test_the_page_shows_how_a_game_went_over_the_rounds(tmp_path: Path) -> None:
    def told(line: dict[str, Any]) -> dict[str, float]:
        return {"critic_auc": (0.5, 0.75, 0.625)[line["round"]]} if line["learner"] == "waal" else {}

    text, reader = page(study(tmp_path, diagnosis=told))
    assert "waal critic_auc 0.625 0.625 to 0.625 2" in section(words(reader), "Diagnosis", "Settings")
    assert "critic_auc of waal, round by round: 0.5, 0.75, 0.625" in text
    assert [found for found in re.findall(r'd="(M[^"]+)"', text) if found == "M0 5L50 -5L100 0"]


def test_a_number_of_one_round_has_no_course(tmp_path: Path) -> None:
    text, reader = page(study(tmp_path, rounds=0, diagnosis=lambda _: {"critic_auc": 0.5}))
    assert "waal critic_auc 0.5 0.5 to 0.5 0 –" in section(words(reader), "Diagnosis", "Settings")
    assert "round by round" not in text


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ((), ""),
        ((1.0,), ""),
        ((2.0, 2.0), "M0 0L100 0"),
        ((0.0, math.nan, 1.0), "M0 5L100 -5"),
        ((math.nan, 1.0), ""),
    ],
)
def test_a_course_goes_from_its_least_to_its_greatest(values: tuple[float, ...], path: str) -> None:
    assert course(values) == path
