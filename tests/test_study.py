"""Studies: what they write down, that they can be killed anywhere and go on, and whose folder it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from trainers.run import Snapshots
from zoo.studies import cell, engine, files
from zoo.studies import study as studies
from zoo.studies.study import Study

TINY = {"steps": 3, "batch": 8, "width": 4}
MEASURED = ("fit_seconds", "select_seconds", "peak_bytes")  # what another run need not repeat


class Killed(BaseException):
    """What kills a study."""


def tiny(*learners: str, **more: Any) -> Study:
    learners = learners or ("random", "margin")
    settings = {name: dict(TINY) for name in learners}
    fields = {
        "initial": 20,
        "budget": 10,
        "rounds": 2,
        "seeds": 2,
        "device": "cpu",
        "threads": 1,
        "settings": settings,
        **more,
    }
    return Study(data="digits", learners=learners, **fields)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def repeated(out: Path) -> list[dict[str, Any]]:
    """The records without what is measured."""
    return [{name: value for name, value in record.items() if name not in MEASURED} for record in lines(out)]


def in_order(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda record: (record["learner"], record["seed"], record["round"]))


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny study, never killed. Read it only."""
    return engine.run(tiny(), tmp_path_factory.mktemp("studies") / "finished", workers=1)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


# What is written down


def test_records_have_the_fields_of_the_contract(finished: Path) -> None:
    fields = {"learner", "plan", "seed", "round", "labels", "accuracy", "asked", "steps", *MEASURED}
    for record in lines(finished):
        assert fields <= set(record)


def test_every_learner_seed_and_round_has_one_record(finished: Path) -> None:
    cells = Counter((record["learner"], record["seed"], record["round"]) for record in lines(finished))
    assert cells == Counter((name, s, r) for name in ("random", "margin") for s in range(2) for r in range(3))


def test_accuracies_are_shares_of_the_test_images(finished: Path) -> None:
    for record in lines(finished):
        assert 0 <= record["accuracy"] <= 1
        assert record["accuracy"] * 359 == pytest.approx(round(record["accuracy"] * 359))


def test_seconds_and_bytes_are_positive(finished: Path) -> None:
    for record in lines(finished):
        assert record["fit_seconds"] > 0
        assert record["peak_bytes"] > 1_000_000


def test_nobody_selects_in_round_nought(finished: Path) -> None:
    for record in lines(finished):
        assert (record["select_seconds"] is None) == (record["round"] == 0)


def test_steps_and_plan_are_those_of_the_learner(finished: Path) -> None:
    assert {(record["steps"], record["plan"]) for record in lines(finished)} == {(3, "ours")}


def test_round_nought_is_the_initial_set_the_same_for_all_learners(finished: Path) -> None:
    for seed in range(2):
        pool, _ = zoo.data("digits", initial=20, seed=seed)
        starts = [r["asked"] for r in lines(finished) if (r["round"], r["seed"]) == (0, seed)]
        assert starts == [pool.labeled.tolist()] * 2


def test_seeds_have_initial_sets_of_their_own(finished: Path) -> None:
    one, other = ({tuple(r["asked"]) for r in lines(finished) if (r["round"], r["seed"]) == (0, s)} for s in (0, 1))
    assert not one & other


def test_the_same_network_stands_at_the_start_of_every_plain_learner(finished: Path) -> None:
    for seed in range(2):
        assert len({r["accuracy"] for r in lines(finished) if (r["round"], r["seed"]) == (0, seed)}) == 1


def test_labels_are_all_that_was_asked_so_far(finished: Path) -> None:
    for name, seed in studies.cells(tiny()):
        asked = 0
        for record in lines(finished):
            if (record["learner"], record["seed"]) == (name, seed):
                asked += len(record["asked"])
                assert record["labels"] == asked == 20 + 10 * record["round"]


def test_nothing_is_asked_twice(finished: Path) -> None:
    for name, seed in studies.cells(tiny()):
        asked = [i for r in lines(finished) if (r["learner"], r["seed"]) == (name, seed) for i in r["asked"]]
        assert len(set(asked)) == len(asked) == 40


def test_asked_classes_count_the_answers(finished: Path) -> None:
    for record in lines(finished):
        assert len(record["asked_classes"]) == 10
        assert sum(record["asked_classes"]) == len(record["asked"])


def test_two_learners_ask_differently(finished: Path) -> None:
    asked = {tuple(record["asked"]) for record in lines(finished) if record["round"] > 0}
    assert len(asked) == 8


def test_a_study_leaves_curves_and_what_was_asked(finished: Path) -> None:
    for name, seed in studies.cells(tiny()):
        assert list((finished / "tb" / name / f"seed{seed}").glob("events.*"))
        assert {p.name for p in (finished / "asked" / name).glob(f"seed{seed}-*")} == {
            f"seed{seed}-round1.png",
            f"seed{seed}-round2.png",
        }


def test_a_finished_study_leaves_no_snapshot_and_no_note(finished: Path) -> None:
    assert not [path for path in finished.rglob("*") if path.suffix in (".snapshot", ".json")]
    assert not list(finished.glob(".study*"))


def test_the_study_is_written_down_whole(finished: Path) -> None:
    assert Study.read(finished / "study.toml") == studies.prepare(tiny())


def test_another_run_repeats_all_but_seconds_and_memory(finished: Path, tmp_path: Path) -> None:
    assert repeated(engine.run(tiny(), tmp_path / "again", workers=1)) == repeated(finished)


def test_no_rounds_are_the_initial_set_alone(tmp_path: Path) -> None:
    out = engine.run(tiny("margin", rounds=0, seeds=1), tmp_path / "out", workers=1)
    assert [record["round"] for record in lines(out)] == [0]


def test_two_workers_write_the_same_records(finished: Path, tmp_path: Path) -> None:
    out = engine.run(tiny(), tmp_path / "two", workers=2)
    assert in_order(repeated(out)) == in_order(repeated(finished))


# The same folder again


def test_a_finished_study_adds_nothing(copied: Path) -> None:
    before = contents(copied)
    engine.run(tiny(), copied, workers=1)
    assert contents(copied) == before


def test_the_study_that_was_written_down_goes_on(copied: Path) -> None:
    before = contents(copied)
    engine.run(Study.read(copied / "study.toml"), copied, workers=1)
    assert contents(copied) == before


@pytest.mark.parametrize("kept", [0, 1, 4, 8, 11])
def test_what_is_left_of_a_study_is_done(kept: int, copied: Path, finished: Path) -> None:
    whole = (finished / "results.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "results.jsonl").write_bytes(b"".join(whole[:kept]))
    engine.run(tiny(), copied, workers=1)
    assert (copied / "results.jsonl").read_bytes().startswith(b"".join(whole[:kept]))
    assert repeated(copied) == repeated(finished)


@pytest.mark.parametrize("kept", [0, 5])
@pytest.mark.parametrize("left", [1, 100, -1], ids=["one byte", "half", "all but its end"])
def test_a_torn_last_line_is_cut_and_done_again(kept: int, left: int, copied: Path, finished: Path) -> None:
    whole = (finished / "results.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "results.jsonl").write_bytes(b"".join(whole[:kept]) + whole[kept][:left])
    engine.run(tiny(), copied, workers=1)
    assert repeated(copied) == repeated(finished)


def other_studies() -> list[Study]:
    settings = {"random": dict(TINY), "margin": {**TINY, "lr": 0.01}}
    return [
        tiny("random"),
        tiny(budget=11),
        tiny(rounds=3),
        tiny(seeds=3),
        tiny(balanced=True),
        tiny(settings=settings),
    ]


@pytest.mark.parametrize("other", other_studies(), ids=["learners", "budget", "rounds", "seeds", "balanced", "lr"])
def test_another_study_is_refused_and_nothing_overwritten(other: Study, copied: Path) -> None:
    before = contents(copied)
    with pytest.raises(FileExistsError, match=r"another study.*Give another folder"):
        engine.run(other, copied, workers=1)
    assert contents(copied) == before


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no study"):
        engine.run(tiny(), tmp_path, workers=1)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        engine.run(tiny(), tmp_path / "file", workers=1)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert len(lines(engine.run(tiny("random", seeds=1, rounds=0), tmp_path, workers=1))) == 1


@pytest.mark.parametrize("left", [".lock", ".study.toml.12345"])
def test_a_study_killed_before_it_was_written_down_goes_on(left: str, tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / left).touch()
    assert len(lines(engine.run(tiny("random", seeds=1, rounds=0), tmp_path, workers=1))) == 1


# Refused before anything is trained


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"initial": 1400, "budget": 30}, r"1400 labels \+ 2 rounds of 30 are 1460.*Lower"),
        ({"initial": 2000}, "initial=2000"),
        ({"initial": 0}, "initial=0"),
        ({"balanced": True, "initial": 5}, "balanced"),
        ({"settings": {"margin": {"width": 0}}}, "width=0"),
        ({"settings": {"margin": {"lr": -1.0}}}, "lr=-1.0"),
        ({"device": "abacus"}, "device='abacus'"),
    ],
    ids=str,
)
def test_what_could_only_fail_later_is_refused_at_once(wrong: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why):
        engine.run(tiny(**wrong), tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["margn", "vaal+margn", "vall+margin"])
def test_unknown_learners_are_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(zoo.UnknownName, match="Did you mean"):
        engine.run(tiny("random", name), tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_unknown_data_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(zoo.UnknownName, match="Did you mean 'digits'"):
        engine.run(Study(data="digit", learners=("random",)), tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"rounds": -1}, "rounds=-1"),
        ({"seeds": 0}, "seeds=0"),
        ({"budget": 0}, "budget=0"),
        ({"learners": ()}, "no learner"),
        ({"learners": ("margin", "random", "margin")}, "'margin' is named twice"),
        ({"settings": {"vaal": {"steps": 3}}}, "settings for 'vaal'"),
    ],
    ids=str,
)
def test_a_study_that_makes_no_sense_is_none(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Study(**{"data": "digits", "learners": ("margin", "random"), **wrong})


def test_what_is_left_open_is_decided_by_the_data() -> None:
    study = studies.prepare(Study(data="digits", learners=("random",), device="cpu"))
    assert (study.initial, study.budget) == (40, 40)


def test_every_setting_is_written_out_and_those_given_stay() -> None:
    settings = studies.prepare(tiny("margin")).settings["margin"]
    assert TINY.items() <= settings.items()
    assert {"plan", "lr", "batch", "augment", "trunk"} <= settings.keys()


@pytest.mark.parametrize("name", zoo.names("entries"))
def test_what_was_decided_is_decided_once(name: str, tmp_path: Path) -> None:
    study = studies.prepare(Study(data="digits", learners=(name,), device="cpu"))
    (tmp_path / "study.toml").write_text(study.toml())
    assert studies.prepare(Study.read(tmp_path / "study.toml")) == study


def test_frozen_parts_stay_frozen() -> None:
    study = studies.prepare(tiny(settings={"margin": {**TINY, "freeze": "trunk"}}))
    pool, _ = study.pool(0)
    assert study.learner("margin", 0, pool).freeze == ("trunk",)


def test_another_query_stays_another_query() -> None:
    study = studies.prepare(tiny("vaal", settings={"vaal": {"query": "margin"}}))
    pool, _ = study.pool(0)
    assert study.learner("vaal", 0, pool).query.name == "margin"


def test_the_seeds_take_turns() -> None:
    assert studies.cells(tiny()) == [("random", 0), ("margin", 0), ("random", 1), ("margin", 1)]


# Killed anywhere


def fragile(monkeypatch: pytest.MonkeyPatch, moments: int) -> None:
    """From here on a study is killed at that moment: each step, record, and both sides of a note are one."""
    left = iter(range(1, moments))

    def moment() -> None:
        if next(left, None) is None:
            raise Killed

    @contextmanager
    def watching(*_: Any) -> Iterator[Callable[..., None]]:
        yield lambda *_: moment()

    def noting(path: Path, content: bytes) -> None:
        moment()
        whole(path, content)
        moment()

    whole = cell.put
    monkeypatch.setattr(engine, "_watching", watching)
    monkeypatch.setattr(cell, "put", noting)
    monkeypatch.setattr(cell, "seldom", lambda watch: watch)
    monkeypatch.setattr("zoo.learner.Snapshots", lambda path, owner, _: Snapshots(path, owner, 0))


@pytest.fixture(scope="module")
def one_cell(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the tiny study of one learner and one seed writes when it is never killed."""
    return repeated(engine.run(tiny("margin", seeds=1), tmp_path_factory.mktemp("studies") / "cell", workers=1))


@pytest.mark.parametrize("at", range(1, 17))
def test_killed_at_any_moment_and_continued_is_never_killed(
    at: int, one_cell: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny("margin", seeds=1)
    with monkeypatch.context() as patches:
        fragile(patches, at)
        with pytest.raises(Killed):
            engine.run(study, tmp_path / "out", workers=1)
    assert repeated(engine.run(study, tmp_path / "out", workers=1)) == one_cell


@pytest.mark.parametrize("at", [9, 12, 16], ids=["in a fit", "after a note", "after the last record"])
def test_a_killed_study_leaves_no_litter_in_the_end(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny("margin", seeds=1)
    with monkeypatch.context() as patches:
        fragile(patches, at)
        with pytest.raises(Killed):
            engine.run(study, tmp_path / "out", workers=1)
    engine.run(study, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "cells").exists()


def test_killed_again_and_again_is_never_killed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, deaths, over = random.Random(0), 0, False
    while not over:
        with monkeypatch.context() as patches:
            fragile(patches, chance.randint(5, 15))
            try:
                engine.run(tiny(), tmp_path / "out", workers=1)
                over = True
            except Killed:
                deaths += 1
    assert deaths >= 3
    assert repeated(tmp_path / "out") == repeated(finished)


DYING = """
import os, signal, sys
from pathlib import Path
from zoo.studies import engine
from zoo.studies.study import Study

append = engine.append

def dying(out, record):
    path = out / "results.jsonl"
    if path.exists() and path.read_bytes().count(b"\\n") == 4:
        path.open("ab").write(b'{"learner": "ran')
        os.kill(os.getpid(), signal.SIGKILL)
    append(out, record)

engine.append = dying
engine.run(Study.read(Path(sys.argv[1])), Path(sys.argv[2]), workers=1)
"""

HOLDING = """
import sys
from pathlib import Path
from zoo.studies import engine
from zoo.studies.study import Study

with engine.claimed(Study.read(Path(sys.argv[1])), Path(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def command(script: str, out: Path, study: Study) -> list[str]:
    written = out.with_suffix(".toml")
    written.write_text(study.toml())
    return [sys.executable, "-c", script, str(written), str(out)]


def test_a_process_killed_for_good_within_a_line_goes_on(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    died = subprocess.run(
        command(DYING, out, tiny()), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert (out / ".lock").exists()  # left behind, and in nobody's way
    assert not (out / "results.jsonl").read_bytes().endswith(b"\n")
    assert repeated(engine.run(tiny(), out, workers=1)) == repeated(finished)


def test_the_second_of_two_processes_is_refused_in_one_line(tmp_path: Path) -> None:
    study, out = studies.prepare(tiny("random", seeds=1, rounds=0)), tmp_path / "out"
    first = subprocess.Popen(command(HOLDING, out, study), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        with pytest.raises(FileExistsError, match=r"being written by another process.*--out") as refused:
            engine.run(study, out, workers=1)
        assert "\n" not in str(refused.value)
    finally:
        first.kill()
        first.communicate()
    assert len(lines(engine.run(study, out, workers=1))) == 1


def test_a_lock_left_behind_does_not_block(copied: Path) -> None:
    (copied / ".lock").write_text("12345\n")
    before = contents(copied)
    engine.run(tiny(), copied, workers=1)
    assert contents(copied) == before


def test_a_folder_is_free_again_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.prepare(tiny("random", seeds=1, rounds=0))
    with monkeypatch.context() as patches:
        fragile(patches, 1)
        with pytest.raises(Killed):
            engine.run(study, tmp_path / "out", workers=1)
    with engine.claimed(study, tmp_path / "out"):
        pass


def test_a_diverged_learner_stops_the_study_and_keeps_what_was_done(tmp_path: Path) -> None:
    settings = {"random": dict(TINY), "margin": {**TINY, "lr": 1e30}}
    with pytest.raises(zoo.Diverged):
        engine.run(tiny(settings=settings), tmp_path / "out", workers=1)
    assert [record["learner"] for record in lines(tmp_path / "out")] == ["random"] * 3


# study.toml


STUDIES = [
    Study(data="digits", learners=("random",)),
    tiny(),
    tiny("vaal+margin", "vaal", plan="paper", precision="bf16-mixed", balanced=True),
    Study(data='folder:C:\\my "own" pictures/é', learners=("margin",), root="/a b/c", size=32, test_share=0.2),
    Study(
        data="cifar10",
        learners=("badge", "vaal"),
        settings={
            "vaal": {"elbo": "released", "beta": 0.1, "nesterov": False, "steps": 7},
            "badge": {"query_settings": {"depth": 2}, "freeze": ["trunk"]},
        },
    ),
]


@pytest.mark.parametrize("study", STUDIES, ids=[study.data for study in STUDIES])
def test_a_study_is_read_as_it_was_written(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(study.toml(), encoding="utf-8")
    assert Study.read(tmp_path / "study.toml") == study


@pytest.mark.parametrize("study", STUDIES, ids=[study.data for study in STUDIES])
def test_what_was_read_is_written_as_it_was(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(study.toml(), encoding="utf-8")
    assert Study.read(tmp_path / "study.toml").toml() == study.toml()


def test_a_field_that_no_study_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('data = "digits"\nlearners = ["random"]\nbugdet = 3\n')
    with pytest.raises(ValueError, match="no field 'bugdet'"):
        Study.read(tmp_path / "study.toml")


def test_the_same_study_goes_to_the_same_folder_and_another_elsewhere() -> None:
    folders = [study.folder() for study in (tiny(), *other_studies())]
    assert tiny().folder() == folders[0]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == Path("alzoo-runs") for folder in folders)
    assert folders[0].name.startswith("digits-")


def test_a_folder_of_pictures_gives_one_name() -> None:
    folder = Study(data="folder:/home/me/pictures", learners=("random",)).folder()
    assert folder.parent == Path("alzoo-runs")
    assert folder.name.startswith("home-me-pictures-")


# Small things of the engine


@pytest.mark.parametrize(
    ("data", "shape", "augment"),
    [("digits", (1, 8, 8), "shift"), ("svhn", (3, 8, 8), "shift"), ("cifar10", (3, 8, 8), "flip+shift")],
)
def test_only_what_stays_itself_is_mirrored(data: str, shape: tuple[int, int, int], augment: str) -> None:
    pool = SimpleNamespace(shape=shape)
    assert studies.augmentation(data, pool) == augment  # type: ignore[arg-type]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put(tmp_path / "note.json", b"old")

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(files.os, "replace", die)
    with pytest.raises(Killed):
        files.put(tmp_path / "note.json", b"new")
    assert (tmp_path / "note.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "note.json"]


def test_rounds_follow_one_another_in_every_cell(finished: Path) -> None:
    for name, seed in studies.cells(tiny()):
        rounds = [r["round"] for r in lines(finished) if (r["learner"], r["seed"]) == (name, seed)]
        assert all(later == sooner + 1 for sooner, later in pairwise(rounds))


def test_small_digits_train_briefly_and_photographs_longer() -> None:
    def pool(side: int) -> zoo.Pool:
        return zoo.Pool.of(torch.zeros(4, 3, side, side, dtype=torch.uint8), [0, 1, 0, 1], 2)

    assert [studies.steps(pool(side)) for side in (8, 16, 28, 224)] == [250, 250, 1000, 1000]
    learner = Study(data="folder:x", learners=("vaal",)).learner("vaal", 0, pool(32))
    assert (learner.loop.steps, learner.augment) == (1000, "flip+shift")
    other = Study(data="mnist", learners=("vaal",), settings={"vaal": {"steps": 7, "augment": "none"}})
    assert (other.learner("vaal", 0, pool(28)).loop.steps, other.learner("vaal", 0, pool(28)).augment) == (7, "none")
    paper = Study(data="mnist", learners=("vaal",), plan="paper").learner("vaal", 0, pool(28))
    assert (paper.loop.steps, paper.augment) == (39_062, "flip")
