"""Engines: any number of processes on one folder, killed whenever you like, write what one alone writes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_study import TINY, Killed, fragile, in_order, lines, repeated, tiny

from trainers.run import Diverged
from zoo.cli import app
from zoo.studies import engine, locks, records
from zoo.studies import study as studies
from zoo.studies.study import Study

LONG = 120  # seconds after which a process that should have ended hangs

SHARING = """
import sys
from pathlib import Path
import zoo.learner
from trainers.run import Snapshots
from zoo.studies import engine
from zoo.studies.study import Study

zoo.learner.Snapshots = lambda path, owner, _: Snapshots(path, owner, 0)
print("ready", flush=True)
sys.stdin.readline()
engine.run(Study.read(Path(sys.argv[1])), Path(sys.argv[2]), engine="shared")
"""


class Started:
    """A process that shares a folder, ready to begin."""

    def __init__(self, study: Study, out: Path) -> None:
        written = out.with_suffix(".toml")
        written.write_text(study.toml())
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHARING, str(written), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def go(self) -> Started:
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self

    def ends_well(self) -> None:
        _, error = self.process.communicate(timeout=LONG)
        assert self.process.returncode == 0, error.decode()

    def dies(self) -> None:
        self.process.kill()
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def written(out: Path) -> int:
    path = out / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def several() -> Study:
    """Four cells of some length, of which two have a pretext."""
    few = {"steps": 12, "batch": 8, "width": 4}
    settings = {
        "margin": few,
        "ssal": {**few, "pretext": "deepcluster", "pretext_steps": 8, "cluster_steps": 4, "lp_steps": 4},
    }
    return tiny(*settings, settings=settings, rounds=1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process writes, by itself."""
    return in_order(repeated(engine.run(several(), tmp_path_factory.mktemp("engines") / "alone", workers=1)))


# Several processes, one folder


def test_two_processes_share_the_cells_and_write_what_one_writes(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [Started(several(), out), Started(several(), out)]
    for one in both:
        one.go()
    for one in both:
        one.ends_well()
    assert in_order(repeated(out)) == alone
    assert not (out / "cells").exists()


def test_a_killed_process_leaves_its_cell_to_others_who_end_as_if_it_never_was(
    alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    out, chance = tmp_path / "out", random.Random(0)
    steady, *others = [Started(several(), out) for _ in range(4)]
    for doomed in others:
        doomed.go()
        before = written(out)
        until(lambda before=before: written(out) > before or list(out.glob("cells/*.snapshot")))
        time.sleep(chance.uniform(0, 0.05))
        doomed.dies()
    assert len(records.unfinished(several(), out)) > 0
    steady.go().ends_well()
    assert in_order(repeated(out)) == alone


def test_who_finds_no_cell_free_ends_and_the_others_go_on(tmp_path: Path) -> None:
    study = studies.prepare(tiny("random", seeds=1, rounds=0))
    out = tmp_path / "out"
    with locks.held(out / ".locks" / "random-seed0") as ours:
        assert ours
        assert engine.execute(study, out, engine="shared") == [("random", 0)]
        assert not (out / "results.jsonl").exists()
    assert engine.execute(study, out, engine="shared") == []
    assert len(lines(out)) == 1


def test_a_seed_that_nobody_is_at_comes_first_so_that_equal_fits_are_made_once(tmp_path: Path) -> None:
    study, out = studies.prepare(tiny("random", "margin", seeds=2, rounds=0)), tmp_path / "out"
    with locks.held(out / ".locks" / "seed0"), locks.held(out / ".locks" / "random-seed0"):
        assert engine.execute(study, out, engine="shared") == [("random", 0)]
    assert [(line["learner"], line["seed"]) for line in lines(out)] == [("random", 1), ("margin", 1), ("margin", 0)]


def test_the_command_says_what_others_are_at_and_the_last_one_writes_the_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "digits", "--learners", "random", "--rounds", "0", "--device", "cpu", "--engine", "shared"]
    words += ["--set", "random.steps=3", "--out", str(out)]
    with locks.held(out / ".locks" / "random-seed0"):
        early = CliRunner().invoke(app, words)
        assert early.exit_code == 0, early.output
        assert "others are at random seed 0" in early.output
        assert not (out / "report.html").exists()
    last = CliRunner().invoke(app, words)
    assert last.exit_code == 0, last.output
    assert (out / "report.html").exists()


def test_all_go_on_with_the_threads_of_the_first(tmp_path: Path) -> None:
    study = studies.prepare(tiny("random", seeds=1, rounds=0))
    with engine.claimed(Study(**{**vars(study), "threads": 3}), tmp_path / "out", alone=False):
        other = Study(**{**vars(study), "threads": 1})
        with engine.claimed(other, tmp_path / "out", alone=False) as joined:
            assert joined.threads == 3


def test_who_shares_does_not_begin_beside_one_who_does_not_nor_the_other_way_round(tmp_path: Path) -> None:
    study, out = studies.prepare(tiny("random", seeds=1, rounds=0)), tmp_path / "out"
    with engine.claimed(study, out), pytest.raises(FileExistsError, match="a process that does not share it"):
        engine.run(study, out, engine="shared")
    with engine.claimed(study, out, alone=False), pytest.raises(FileExistsError, match="--engine shared"):
        engine.run(study, out)


def test_another_study_is_refused_by_who_shares(tmp_path: Path) -> None:
    out = engine.run(tiny("random", seeds=1, rounds=0), tmp_path / "out", engine="shared")
    with pytest.raises(FileExistsError, match="another study"):
        engine.run(tiny("random", seeds=2, rounds=0), out, engine="shared")


def test_an_engine_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="Did you mean 'shared'"):
        engine.run(tiny("random", seeds=1, rounds=0), tmp_path / "out", engine="share")


@pytest.mark.parametrize(
    ("engine_", "more", "why"),
    [
        ("local", {"gpus": 0.5}, "for the engine ray, not local"),
        ("ray", {"workers": 2}, "as many cells as it has room for"),
    ],
    ids=["gpus", "workers"],
)
def test_what_does_not_go_with_an_engine_is_refused(
    engine_: str, more: dict[str, Any], why: str, tmp_path: Path
) -> None:
    study = studies.prepare(tiny("random", seeds=1, rounds=0))
    with pytest.raises(ValueError, match=why):
        engine.execute(study, tmp_path / "out", engine=engine_, **more)
    assert not (tmp_path / "out").exists()


# Ray


def test_without_ray_the_command_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["compare", "digits", "--learners", "random", "--engine", "ray", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.output == "alzoo: the engine ray needs Ray. Install it: pip install 'alzoo[ray]'\n"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, which hands this process's paths on to its tasks."""
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.mark.filterwarnings("default")  # those of Ray are its own
@pytest.mark.usefixtures("ray")
def test_tasks_of_a_cluster_write_what_one_process_writes(tmp_path: Path) -> None:
    study = tiny("random", "margin")
    one, other = engine.run(study, tmp_path / "one", workers=1), engine.run(study, tmp_path / "other", engine="ray")
    assert in_order(repeated(one)) == in_order(repeated(other))
    assert not (other / "cells").exists()


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("ray")
def test_a_learner_that_diverges_on_a_cluster_says_so_as_elsewhere(tmp_path: Path) -> None:
    study = tiny("margin", seeds=1, settings={"margin": {**TINY, "lr": 1e30}})
    with pytest.raises(Diverged, match="learning rate"):
        engine.run(study, tmp_path / "out", engine="ray")


# Locks


def test_a_lock_is_one_holders_or_shared_by_all_who_share(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.held(path) as first, locks.held(path) as second, locks.held(path, shared=True) as third:
        assert (first, second, third) == (True, False, False)
    with locks.held(path, shared=True) as first, locks.held(path, shared=True) as second, locks.held(path) as third:
        assert (first, second, third) == (True, True, False)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
sys.path[:] = {sys.path!r}
from zoo.studies.locks import held
with held(Path({str(tmp_path / "lock")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with locks.held(tmp_path / "lock") as ours:
            assert not ours
    finally:
        holder.kill()
        holder.communicate()
    with locks.held(tmp_path / "lock") as ours:
        assert ours


# Records


@pytest.mark.parametrize("left", [b"", b'{"learner": "ran', b"{}", b"\xff"])
def test_what_a_killed_process_left_of_a_line_is_cut_before_the_next(left: bytes, tmp_path: Path) -> None:
    whole = b'{"learner": "random", "seed": 0, "round": 0, "ticks": 1}\n'
    (tmp_path / "results.jsonl").write_bytes(whole + left)
    assert len(records.records(tmp_path)["random", 0]) == 1
    records.append(tmp_path, {"learner": "random", "seed": 0, "round": 1})
    assert [json.loads(line)["round"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [0, 1]


def test_a_torn_line_that_is_all_there_is_is_cut_too(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b'{"learner"')
    records.append(tmp_path, {"learner": "random", "seed": 0, "round": 0})
    assert (tmp_path / "results.jsonl").read_text() == '{"learner": "random", "seed": 0, "round": 0}\n'


@pytest.mark.parametrize(
    "line", [b"{]", b"{}", b"123", b"\xff\xfe", bytes(50), b'{"learner": "random", "seed": 0, "round": 0}']
)
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    whole = b'{"learner": "random", "seed": 0, "round": 0, "ticks": 1}\n'
    (tmp_path / "results.jsonl").write_bytes(whole + line + b"\n")
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is damaged. Delete that line"):
        records.records(tmp_path)
    (tmp_path / "results.jsonl").write_bytes(whole + b"\n")  # as it may be then
    assert len(records.records(tmp_path)["random", 0]) == 1


# Killed at twenty moments


def with_pretexts() -> Study:
    """Two learners that learn from images alone first, one of them asking for images that it has made."""
    asks = {"query_settings": {"synthesize": True, "starts": 4, "search_steps": 3}}
    settings = {
        "ssal": {**TINY, "pretext": "deepcluster", "pretext_steps": 8, "cluster_steps": 3, "lp_steps": 1},
        "gaal": {**TINY, "gan_steps": 8, "gan_batch": 8, **asks},
    }
    return tiny(*settings, settings=settings, seeds=1, rounds=1, budget=4, judge="nearest", diagnose=())


MOMENTS = sorted(random.Random(20).sample(range(1, 40), 20))


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Records, which hold what was asked and a digest of the networks."""
    return repeated(engine.run(with_pretexts(), tmp_path_factory.mktemp("engines") / "whole", workers=1))


@pytest.mark.parametrize("at", MOMENTS)
def test_killed_at_twenty_random_moments_and_continued_is_never_killed(
    at: int, never_killed: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        fragile(patches, at)
        with pytest.raises(Killed):
            engine.run(with_pretexts(), tmp_path / "out", workers=1)
    assert repeated(engine.run(with_pretexts(), tmp_path / "out", workers=1)) == never_killed
