"""The reference study: what it runs, what it keeps, and that it can be stopped and go on."""

from __future__ import annotations

import json
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

import zoo
from zoo.studies import engine, gains, measures
from zoo.studies.study import Study

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import reference_study

    return reference_study


def tiny() -> Study:
    names = ("llal", "margin", "random")
    settings = {name: {"steps": 3, "batch": 8, "width": 4} for name in names}
    return Study(
        data="digits",
        learners=names,
        controls=True,
        initial=20,
        budget=10,
        rounds=1,
        seeds=2,
        settings=settings,
        threads=1,
        device="cpu",
    )


def kept_lines(place: Path) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in (place / "results.jsonl").read_text().splitlines()]
    return [(each["learner"], each["seed"], each["round"], each["accuracy"], each["network"]) for each in lines]


def test_every_learner_of_the_study_has_as_many_trials_the_first_is_the_default(script: ModuleType) -> None:
    trials = tomllib.loads((SCRIPTS / "trials.toml").read_text())
    learners = {name for study in script.PARTS.values() for name in study.learners}
    assert trials.keys() == learners
    assert {len(each) for each in trials.values()} == {4}
    for name, each in trials.items():
        tried = [repr(zoo.create(name, seed=0, **settings)) for settings in each]
        assert len({*tried}) == 4
        assert tried.count(repr(zoo.create(name, seed=0))) == 1


@pytest.mark.parametrize("name", tomllib.loads((SCRIPTS / "trials.toml").read_text()))
def test_no_trial_beats_the_default(name: str) -> None:
    """By half a point on average over the parts, and nowhere half a point worse."""
    trials = tomllib.loads((SCRIPTS / "trials.toml").read_text())[name]
    gained = []  # by part that it was tuned on, and trial
    for path in sorted((SCRIPTS / "results" / "tuning").glob("*.jsonl")):
        if lines := [line for line in map(json.loads, path.read_text().splitlines()) if line["learner"] == name]:
            assert [line["settings"] for line in lines] == trials
            gained.append([line["aubc"] for line in lines])
    default = [repr(zoo.create(name, seed=0, **each)) for each in trials].index(repr(zoo.create(name, seed=0)))
    for trial in range(4):
        gains = [part[trial] - part[default] for part in gained]
        assert fmean(gains) < 0.005 or min(gains) <= -0.005, trials[trial]


def test_a_part_leaves_light_records_from_which_gains_are_split(script: ModuleType, tmp_path: Path) -> None:
    import keep

    script.run("digits", tiny(), tmp_path / "work", tmp_path / "out", 1)
    kept = tmp_path / "out" / "reference" / "digits"
    assert (kept / "table.md").read_text().startswith("| learner |")
    lines = [json.loads(line) for line in (kept / "results.jsonl").read_text().splitlines()]
    assert not any(name in line for line in lines for name in keep.LEFT_OUT)
    records = measures.read(kept / "results.jsonl")
    assert {record.learner for record in records} >= {"llal", "llal+random", "plain+llal", "margin", "random"}
    split = {each.learner: each for each in gains.gain_split(records)}["llal"]
    assert split.training is not None
    assert split.elsewhere is not None


def test_a_part_goes_on_from_what_was_kept_of_it_elsewhere(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, ran = tmp_path / "out", []
    script.run("digits", tiny(), tmp_path / "here", out, 1)
    kept = out / "reference" / "digits" / "results.jsonl"
    whole = [json.loads(line) for line in kept.read_text().splitlines()]
    lacking = [each for each in whole if (each["learner"], each["seed"], each["round"]) != ("llal", 1, 1)]
    kept.write_text("".join(json.dumps(each) + "\n" for each in lacking))
    run_cell = engine.run_cell

    def noting(study: Study, folder: Path, name: str, seed: int, *more: Any) -> None:
        ran.append((name, seed))
        run_cell(study, folder, name, seed, *more)

    monkeypatch.setattr(engine, "run_cell", noting)
    script.run("digits", tiny(), tmp_path / "there", out, 1, resume=True)
    assert ran == [("llal", 1)], "what of a cell was kept without what it asked is made anew"
    again = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [each["accuracy"] for each in again] == [each["accuracy"] for each in whole]
    with pytest.raises(FileExistsError, match="keeps another study"):
        script.run("digits", replace(tiny(), budget=5), tmp_path / "other", out, 1, resume=True)
    assert json.loads(kept.read_text().splitlines()[0]) == again[0]


def test_a_learner_is_run_anew_beside_what_was_kept_of_the_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    script.run("digits", tiny(), tmp_path / "here", out, 1)
    kept = out / "reference" / "digits"
    before = kept_lines(kept)
    slower = {name: {**of, "lr": 0.05} if name == "llal" else of for name, of in tiny().settings.items()}
    moved = replace(tiny(), settings=slower)
    with pytest.raises(FileExistsError, match=r"llal, llal\+random, plain\+llal with other settings"):
        script.run("digits", moved, tmp_path / "refused", out, 1, resume=True)
    assert kept_lines(kept) == before
    ran, run_cell = set(), engine.run_cell

    def noting(study: Study, folder: Path, name: str, seed: int, *more: Any) -> None:
        ran.add(name)
        run_cell(study, folder, name, seed, *more)

    monkeypatch.setattr(engine, "run_cell", noting)
    script.run("digits", moved, tmp_path / "there", out, 1, resume=True, anew=["llal"])
    assert ran == {"llal", "llal+random", "plain+llal"}
    after = kept_lines(kept)
    assert {name for name, *_ in before} == {name for name, *_ in after}
    assert [line for line in after if line[0] not in ran] == [line for line in before if line[0] not in ran]
    assert [line for line in after if line[0] in ran] != [line for line in before if line[0] in ran]
    assert tomllib.loads((kept / "study.toml").read_text())["learner"]["llal"]["lr"] == 0.05


def test_what_was_kept_before_there_was_a_setting_had_its_default(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    script.run("digits", tiny(), tmp_path / "here", out, 1)
    kept = out / "reference" / "digits" / "study.toml"
    text = kept.read_text()
    kept.write_text("".join(line for line in text.splitlines(True) if not line.startswith("momentum")))
    assert kept.read_text() != text
    monkeypatch.setattr(engine, "run_cell", None)
    script.run("digits", tiny(), tmp_path / "there", out, 1, resume=True)
    assert kept.read_text() == text


def test_what_is_done_when_the_minutes_are_over_is_kept(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cell = engine.run_cell

    def one(study: Study, folder: Path, name: str, seed: int, *more: Any) -> None:
        if name == "margin":
            raise script.Enough
        run_cell(study, folder, name, seed, *more)

    monkeypatch.setattr(engine, "run_cell", one)
    place = tmp_path / "out" / "reference" / "digits"
    with pytest.raises(script.Enough):
        script.run("digits", tiny(), tmp_path / "work", tmp_path / "out", 1)
    assert not place.exists(), "what is kept is a whole study, but for one that goes on from there"
    with pytest.raises(script.Enough):
        script.run("digits", tiny(), tmp_path / "work", tmp_path / "out", 1, resume=True)
    assert {record.learner for record in measures.read(place / "results.jsonl")} == {"llal"}


def test_a_kept_run_does_not_tell_where_the_images_lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import keep

    run, place = tmp_path / "run", tmp_path / "kept"
    run.mkdir()
    (run / "study.toml").write_text(
        'data = "folder:/home/me/my data/mnist"\nnotes = ["folder:/home/me/my data/mnist"]\n'
    )
    (run / "table.md").write_text("folder:/home/me/my data/mnist stands in for mnist.\n")
    (run / "results.jsonl").write_text("")
    monkeypatch.setattr(keep.report, "write", lambda _: None)
    keep.keep(run, place)
    assert (place / "study.toml").read_text() == 'data = "folder:PATH/mnist"\nnotes = ["folder:PATH/mnist"]\n'
    assert (place / "table.md").read_text() == "folder:PATH/mnist stands in for mnist.\n"


def test_trials_are_judged_on_images_that_are_not_the_tests(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Study] = []
    carry_out = script.carried_out

    def watched(study: Study, *more: object) -> Path:
        ran.append(study)
        found: Path = carry_out(study, *more)
        return found

    monkeypatch.setattr(script, "carried_out", watched)
    script.tune(
        "digits",
        replace(tiny(), learners=("random",), settings={"random": tiny().settings["random"]}),
        tmp_path / "work",
        tmp_path / "out",
        1,
    )
    assert len(ran) == 4
    assert all(study.validation for study in ran)
    lines = [json.loads(line) for line in (tmp_path / "out" / "tuning" / "digits.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1, 2, 3]
    assert all(len(line["areas"]) == 2 for line in lines)


def test_it_stops_when_the_minutes_are_over_and_says_so(script: ModuleType) -> None:
    with pytest.raises(script.Enough), script.limited(0.05):
        time.sleep(5)
