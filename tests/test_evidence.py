"""What the README has of the reference study and of the games: numbers written out, from records made for the test."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("evidence")


def part(results: Path, name: str = "digits", waal: float = 0.7) -> Path:
    """Two rounds, three seeds. In areas: random .6, margin .65, waal .7, its training alone .62, its questions .68."""
    learners = {"waal": waal, "waal+random": 0.62, "plain+waal": 0.68, "margin": 0.65, "random": 0.6}
    own = {"controls": ["waal+random", "plain+waal"], "entry": "waal", "query": "waal"}
    lines = [
        {"learner": name, "seed": seed, "round": number, "labels": 40 * (1 + number), "accuracy": mean + 0.001 * seed}
        | {
            "asked": [],
            "asked_classes": [5, 5, 0, 0],
            "fit_seconds": 2.0,
            "select_seconds": 0.5 if number else None,
            "plan": "ours",
        }
        | {"versions": {"torch": "2"}, "machine": "m", "commit": "0123456789", "network": f"{name}{seed}"}
        | (own if name == "waal" else {"entry": name.partition("+")[0], "query": "random"})
        for name, mean in learners.items()
        for seed in range(3)
        for number in range(2)
    ]
    directory = results / "reference" / name
    directory.mkdir(parents=True)
    (directory / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ('data = "digits"', 'learners = ["waal", "margin", "random"]', "initial = 40", "subset = 1000")
    (directory / "study.toml").write_text("\n".join(given))
    return directory


def test_a_row_has_areas_differences_and_what_they_come_from(evidence: ModuleType, tmp_path: Path) -> None:
    directory = part(tmp_path)
    rows = {row[0]: row[1:] for row in evidence.study(directory)}
    assert list(rows) == ["waal", "margin", "random"]  # best first, and no control
    area, to_random, to_margin, training, questions, classes, fit, select, verdict = rows["waal"]
    assert area.startswith("70.10 ±")
    assert to_random.startswith("+10.00")
    assert to_margin.startswith("+5.00")
    assert training.startswith("+2.00")
    assert questions.startswith("+8.00")
    assert classes == "2.0"  # of the four: two as often as each other, two never
    assert (fit, select) == ("2.00", "0.50")
    assert verdict == "better than random, better than margin"
    assert rows["random"][1] == "–"
    assert rows["random"][-1] == "worse than margin"
    assert rows["margin"][3:5] == ["–", "–"]
    assert evidence.about(directory) == (
        "digits: 40 to 80 labels in 1 rounds, 3 seeds, a pool of 1,000; m, torch 2, commit 0123456. Again: "
        "`alzoo compare digits --learners NAME,random --initial 40 --subset 1000`"
    )
    assert b"waal" in evidence.figure([directory])


def test_a_part_says_whose_defaults_have_moved_since(evidence: ModuleType, tmp_path: Path) -> None:
    directory = part(tmp_path)
    path = directory / "study.toml"
    kept = f"{path.read_text()}\n[learner.waal]\nalpha = 0.5\nsteps = 7\nlr = 0.1\n[learner.random]\nlr = 0.1\n"
    path.write_text(kept)
    assert evidence.moved(directory) == {"waal": ["alpha"]}
    assert evidence.about(directory).endswith("Run before these settings got today's defaults: waal (alpha).")


def test_all_parts_stand_side_by_side(evidence: ModuleType, tmp_path: Path) -> None:
    part(tmp_path, "cifar10", waal=0.5), part(tmp_path)
    parts = evidence.parts(tmp_path)
    assert [each.name for each in parts] == ["digits", "cifar10"]
    columns, rows = evidence.overview(parts)
    assert columns[1:] == ["digits", "cifar10"]
    assert [row[0] for row in rows] == ["margin", "waal"], "by the mean over parts"
    assert rows[1][1].startswith("+10.00")
    assert rows[1][1].endswith(", better")
    assert rows[1][2].startswith("\N{MINUS SIGN}10.00")
    assert rows[1][2].endswith(", worse")
    assert evidence.figure(parts).count(b"mean of seeds") == 2


def test_a_seed_counts_once_all_learners_have_it(evidence: ModuleType, tmp_path: Path) -> None:
    directory = part(tmp_path)
    path = directory / "results.jsonl"
    *lines, last = path.read_text().splitlines(keepends=True)
    assert json.loads(last)["seed"] == 2
    path.write_text("".join(lines))
    assert {record.seed for record in evidence.read(directory)} == {0, 1}
    assert ", 2 seeds, " in evidence.about(directory)
    path = part(tmp_path, "mnist") / "results.jsonl"
    begun = [line for line in path.read_text().splitlines(keepends=True) if '"random", "seed": 0' not in line]
    path.write_text("".join(line for line in begun if json.loads(line)["seed"] < 2))
    assert evidence.parts(tmp_path) == [directory], "one seed is complete in the other, and that has no interval"


def game(**more: Any) -> dict[str, Any]:
    return {"data": "mnist", "entry": "vaal", "form": "ours", "missing": True, "seed": 0, "machine": "m", **more}


def test_a_cell_is_the_mean_over_seeds_and_their_ends(evidence: ModuleType) -> None:
    lines = [
        game(numbers={"novelty": 0.8, "active_units": 30, "latent_units": 32}),
        game(numbers={"novelty": 0.9, "active_units": 32, "latent_units": 32}, seed=1),
        game(numbers={"novelty": 0.5, "active_units": 0, "latent_units": 32}, form="released scale"),
        game(numbers={"novelty": 0.1}, missing=False),
        game(numbers={"retrieval": 0.25}, entry="bgadl", missing=False, data="digits"),
    ]
    rows = {(entry, what): cells for entry, what, *cells in evidence.games(lines)}
    assert len(rows) == len(evidence.GAMES)
    assert rows["vaal", "novelty, AUC"] == ["–", "0.85 (0.8 to 0.9)", "–"]
    assert rows["vaal", "active latent units"] == ["–", "31 of 32 (30 to 32)", "–"]
    assert rows["vaal", "novelty, AUC, released scale"] == ["–", "0.5", "–"]
    assert rows["bgadl", "companions nearest to their own image"] == ["25.0 %", "–", "–"]


def test_every_row_is_a_number_of_a_game_that_is_played(evidence: ModuleType) -> None:
    played = {(game.entry, game.form, game.missing) for game in importlib.import_module("games").GAMES}
    assert {(row.entry, row.form, row.missing) for row in evidence.GAMES} <= played


def reproduction(results: Path) -> Path:
    """A run of waal-cifar10 at 2,000 and 4,000 labels, and at 5,000, where nothing was published."""
    directory = results / "published" / "waal-cifar10-small"
    directory.mkdir(parents=True)
    kept = part(results / "elsewhere") / "results.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    for line in lines:
        line["labels"] = (2000, 4000)[line["round"]]
    lines += [{**line, "labels": 5000, "round": 2} for line in lines if line["round"]]
    (directory / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = ("seeds = 3, not 5", "waal.steps = 9", "waal.alpha = 0.1", "waal+random.steps = 9")
    notes = json.dumps([f"Not as published: {note}." for note in said])
    study = ('protocol = "waal-cifar10"', 'data = "cifar10"', 'learners = ["waal", "waal+random"]', f"notes = {notes}")
    (directory / "study.toml").write_text("\n".join(study))
    return directory


def test_a_published_curve_stands_beside_ours_where_both_have_been(evidence: ModuleType, tmp_path: Path) -> None:
    reproduction(tmp_path)
    (([row], note),) = evidence.reproduced(tmp_path)
    name, curve, ours, labels, published, accuracy, read = row
    assert name == "[waal-cifar10-small](scripts/results/published/waal-cifar10-small/table.md)"
    assert (curve, ours, labels) == ("the released code again", "waal", "2,000, 4,000")
    assert (published, read) == ("67.9, 76.0", "third party")
    assert [each[:7] for each in accuracy.split(", ")] == ["70.10 ±", "70.10 ±"]
    assert note == "waal-cifar10-small, 3 seeds: seeds = 3, not 5; *.steps = 9; waal.alpha = 0.1."


@pytest.mark.usefixtures("evidence")
def test_the_readme_gets_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readme_tables = importlib.import_module("readme_tables")
    monkeypatch.setattr(readme_tables, "figures", lambda *_, **__: "none\n")
    part(tmp_path)
    (tmp_path / "games.jsonl").write_text(json.dumps(game(numbers={"novelty": 0.8})) + "\n")
    reproduction(tmp_path)
    page = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("bench", "study", "games", "published"))
    text = readme_tables.written(page, tmp_path)
    assert "![learning curves](scripts/results/reference/curves.svg)" in text
    assert "| waal | 70.10" in text
    assert "| vaal | novelty, AUC | – | 0.8 | – |" in text
    assert "1 seeds. m." in text
    assert "| 67.9, 76.0 |" in text
    assert "Not as published:\n\n- waal-cifar10-small, 3 seeds" in text
