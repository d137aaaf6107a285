"""What learners of a study come to alike is made once, and no result depends on it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zoo.learner import Learner
from zoo.studies import engine, fits
from zoo.studies.study import Study, prepare

TINY = {"steps": 3, "batch": 8, "width": 4}
MEASURED = ("fit_seconds", "select_seconds", "peak_bytes")
WAAL = {**TINY, "critic_width": 8}


def study(*learners: str, settings: dict[str, dict[str, Any]] | None = None, **more: Any) -> Study:
    fields: dict[str, Any] = {"initial": 20, "budget": 10, "rounds": 2, "seeds": 1, "device": "cpu", "threads": 1}
    tables = {name: WAAL if name == "waal" else TINY for name in learners} | (settings or {})
    return Study(data="digits", learners=learners, settings=tables, **fields | more)


def records(out: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often who is fitted, by name and round."""
    count: Counter[tuple[str, int]] = Counter()
    own = Learner.fit

    def fit(self: Learner, pool: Any, **how: Any) -> Learner:
        count[self.name, len(pool.rounds) - 1] += 1
        return own(self, pool, **how)

    monkeypatch.setattr(Learner, "fit", fit)
    return count


def test_a_study_makes_each_fit_once(counted: Counter[tuple[str, int]], tmp_path: Path) -> None:
    engine.run(study("random", "margin", "waal", controls=True), tmp_path, workers=1)
    twin = "the plain twin of plain+waal"
    later = [(name, number) for name in ("random", "margin", "waal", "waal+random", twin) for number in (1, 2)]
    assert counted == Counter([("random", 0), ("waal", 0), (twin, 0), *later])


def test_no_result_depends_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretext = {**TINY, "pretext": "deepcluster", "pretext_steps": 8, "cluster_steps": 3, "lp_steps": 1}
    both = study("random", "margin", "waal", "ssal", settings={"ssal": pretext}, controls=True)
    shared = records(engine.run(both, tmp_path / "shared", workers=1))
    monkeypatch.setattr(fits.Fits, "taken", lambda *_: None)
    assert records(engine.run(both, tmp_path / "apart", workers=1)) == shared


def test_curves_of_a_fit_that_was_taken_are_those_of_the_fit(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = engine.run(study("waal", controls=True, rounds=1), tmp_path / "out", workers=1)
    curves = {}
    for name in ("waal", "plain+waal"):
        events = EventAccumulator(str(out / "tb" / name / "seed0")).Reload()
        curves[name] = {
            tag: [(e.step, e.value) for e in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
            if not tag.startswith("al/")
        }
    assert curves["waal"] == curves["plain+waal"] != {}


def test_the_seconds_are_those_of_the_fit_that_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = fits.Fits.keep
    long = {"seconds": 1000.0, "bytes": 2**50}
    monkeypatch.setattr(fits.Fits, "keep", lambda self, of, pool, spent: keep(self, of, pool, spent | long))
    engine.run(study("random", "margin", rounds=0), tmp_path, workers=1)
    first, second = (json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines())
    assert first["fit_seconds"] < 1000 <= second["fit_seconds"]
    assert first["peak_bytes"] < second["peak_bytes"] == 2**50


def test_only_what_others_come_to_is_kept() -> None:
    pool, _ = (whole := prepare(study("random", "margin", "bald", "waal", controls=True))).pool(0)
    expected = {"random": 1, "margin": 1, "bald": 0, "waal": 3, "waal+random": 1, "plain+waal": 1}
    assert {name: fits.awaited(whole, name, pool) for name in whole.learners} == expected


def test_the_fits_of_a_seed_go_with_its_last_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = []
    cell = engine.run_cell

    def watched(s: Study, out: Path, name: str, seed: int, *rest: Any) -> None:
        there.append([fits.folder(out, each).exists() for each in range(2)])
        cell(s, out, name, seed, *rest)

    monkeypatch.setattr(engine, "run_cell", watched)
    engine.run(study("random", "margin", seeds=2), tmp_path, workers=1)
    assert there == [[False, False], [True, False], [False, False], [False, True]]
    assert not (tmp_path / "cells").exists()
