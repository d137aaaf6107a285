"""The command line: what it says, what it writes, and one line and status 2 for everything it cannot do."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import datasets, register
from zoo.cli import default_learners, main, settings
from zoo.studies import engine, provenance
from zoo.studies.study import Study

ROOT = Path(zoo.__file__).parents[1]
TINY = (
    *("--learners", "random,margin", "--initial", "20", "--budget", "10", "--rounds", "1", "--seeds", "1"),
    *("--set", "*.steps=3", "--set", "*.batch=8", "--set", "*.width=4", "--device", "cpu", "--workers", "1"),
)


class Result(NamedTuple):
    """What a command has said, and its exit status."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def alzoo(*words: object) -> Result:
    """What the command says to these words, on a wide terminal."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    said = patch.object(sys, "argv", ["alzoo", *map(str, words)])
    with said, patch.dict(os.environ, COLUMNS="300"), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def compare(data: str, out: Path, *more: object) -> Result:
    return alzoo("compare", data, *TINY, "--out", out, *more)


def refused(result: Result) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("alzoo: ")
    return line


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}


def fill(path: Path, classes: tuple[str, ...] = ("cat", "dog"), n: int = 8) -> Path:
    """A folder <class>/<i>.png of small pictures; the classes differ in brightness."""
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.full((8, 8), 100 * k + i, np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache and a working folder of the test's own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What `compare digits` says, and its folder. Read it only."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    return compare("digits", out), out


@pytest.fixture
def copied(compared: tuple[Result, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(compared[1], tmp_path / "copied"))


# Help and lists


def test_help_names_the_commands() -> None:
    result = alzoo("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("list", "compare", "report"))


@pytest.mark.parametrize("command", ["list", "compare", "report"])
def test_every_command_has_help(command: str) -> None:
    result = alzoo(command, "--help")
    assert result.exit_code == 0
    assert "--help" in result.stdout


@pytest.mark.parametrize("option", ["learners", "initial", "budget", "rounds", "seeds", "out", "plan", "engine", "set"])
def test_compare_has_the_options_of_the_contract(option: str) -> None:
    assert f"--{option}" in alzoo("compare", "--help").stdout


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("entries", register.names("entries")),
        ("queries", register.names("queries")),
        ("weights", [weights.name for weights in zoo.weights()]),
        ("data", [*datasets.names(), "folder:PATH"]),
    ],
)
def test_list_shows_everything_of_a_kind(kind: str, names: list[str]) -> None:
    result = alzoo("list", kind)
    assert result.exit_code == 0
    assert kind in result.stdout.lower()
    assert [name for name in names if name not in result.stdout] == []


def test_list_alone_shows_every_kind() -> None:
    result = alzoo("list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("vaal", "margin", "Weights", "cifar10"))


def test_a_list_of_one_kind_shows_no_other() -> None:
    assert "cifar10" not in alzoo("list", "queries").stdout


# Compare


def test_compare_ends_well_and_says_where_the_report_is(compared: tuple[Result, Path]) -> None:
    result, out = compared
    assert result.exit_code == 0, result.output
    assert f"report: {out / 'report.html'}" in result.stdout
    assert "margin" in result.stdout
    assert "random" in result.stdout


def test_compare_writes_everything_of_the_contract(compared: tuple[Result, Path]) -> None:
    _, out = compared
    for name in ("results.jsonl", "summary.csv", "curves.png", "report.html", "study.toml"):
        assert (out / name).stat().st_size > 0
    assert list((out / "tb").rglob("events.*"))


def test_compare_records_every_round(compared: tuple[Result, Path]) -> None:
    records = [json.loads(line) for line in (compared[1] / "results.jsonl").read_text().splitlines()]
    assert [(r["learner"], r["round"], r["labels"]) for r in records] == [
        ("random", 0, 20),
        ("random", 1, 30),
        ("margin", 0, 20),
        ("margin", 1, 30),
    ]


def test_the_summary_has_a_row_for_each_learner_and_no_interval_of_one_seed(compared: tuple[Result, Path]) -> None:
    rows = list(csv.DictReader((compared[1] / "summary.csv").read_text().splitlines()))
    assert {row["learner"] for row in rows} == {"random", "margin"}
    for row in rows:
        assert 0 <= float(row["aubc"]) <= 1
        assert 0 <= float(row["final"]) <= 1
        assert row["aubc_low"] == row["aubc_high"] == ""


def test_the_curves_are_a_picture(compared: tuple[Result, Path]) -> None:
    with Image.open(compared[1] / "curves.png") as image:
        image.load()
        assert min(image.size) > 100


def test_the_settings_are_in_study_toml(compared: tuple[Result, Path]) -> None:
    study = Study.read(compared[1] / "study.toml")
    assert set(study.settings) == {"random", "margin"}
    for own in study.settings.values():
        assert {"steps": 3, "batch": 8, "width": 4}.items() <= own.items()
    assert (study.data, study.initial, study.budget, study.rounds, study.seeds) == ("digits", 20, 10, 1, 1)


def test_the_same_command_goes_on(copied: Path) -> None:
    before = (copied / "results.jsonl").read_bytes()
    assert compare("digits", copied).exit_code == 0
    assert (copied / "results.jsonl").read_bytes() == before


def test_results_go_to_a_folder_of_the_studys_own(tmp_path: Path) -> None:
    assert alzoo("compare", "digits", *TINY, "--rounds", "0", "--learners", "random").exit_code == 0
    (out,) = (tmp_path / "work" / "alzoo-runs").iterdir()
    assert out.name.startswith("digits-")
    assert (out / "report.html").exists()


def test_a_folder_of_pictures_is_compared(tmp_path: Path) -> None:
    data = fill(tmp_path / "pets")
    more = ("--test-share", "0.25", "--initial", "4", "--budget", "2")
    result = compare(f"folder:{data}", tmp_path / "out", *more)
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 4


def paint(folder: Path) -> None:
    """One picture gets other pixels."""
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder / "dog" / "1.png")


def move(folder: Path) -> None:
    """The last cats are dogs now; the order of all pictures stays."""
    for name in ("6.png", "7.png"):
        (folder / "cat" / name).rename(folder / "dog" / f"!{name}")


@pytest.mark.parametrize(("half", "change"), [("train", paint), ("test", paint), ("train", move)])
@pytest.mark.parametrize("killed", [True, False])
def test_a_study_does_not_go_on_with_pictures_that_have_changed(
    half: str, change: Callable[[Path], None], killed: bool, tmp_path: Path
) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "test")
    again = partial(compare, f"folder:{tmp_path / 'pets'}", tmp_path / "out", "--initial", "4", "--budget", "2")
    assert again().exit_code == 0
    records = tmp_path / "out" / "results.jsonl"
    if killed:
        *done, _ = records.read_bytes().splitlines(keepends=True)
        records.write_bytes(b"".join(done))
    before = records.read_bytes()
    shutil.copytree(tmp_path / "pets", tmp_path / "kept")
    change(tmp_path / "pets" / half)
    assert "have changed since" in refused(again())
    assert records.read_bytes() == before
    shutil.rmtree(tmp_path / "pets")
    (tmp_path / "kept").rename(tmp_path / "pets")
    assert again().exit_code == 0
    assert len(records.read_bytes().splitlines()) == 4


@pytest.mark.parametrize("where", ["train/run", "train/cat/run", "test/cat/run"])
def test_a_study_is_not_written_among_its_pictures(where: str, tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "test", n=2)
    line = refused(compare(f"folder:{tmp_path / 'pets'}", tmp_path / "pets" / where, "--initial", "4", "--budget", "2"))
    assert "whose folders are classes" in line
    assert not (tmp_path / "pets" / where).exists()


def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine, "append", full)
    line = refused(compare("digits", tmp_path / "o"))
    assert f"{tmp_path / 'o'} cannot be written: No space left on device. Make room there" in line


def test_told_to_end_it_ends_tidily(tmp_path: Path) -> None:
    more = (
        "--learners",
        "random",
        "--rounds",
        "0",
        "--workers",
        "1",
        "--set",
        "*.steps=100000",
        "--out",
        tmp_path / "o",
    )
    asked = [sys.executable, "-m", "zoo", "compare", "digits", *map(str, more)]
    with subprocess.Popen(asked, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "o" / "study.toml").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (143, "")


def test_pictures_that_cannot_be_read_are_named_and_counted_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "test", n=2)
    (tmp_path / "pets" / "train" / "dog" / "torn.png").write_bytes(b"no picture")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own: as outside of it
    result = compare(f"folder:{tmp_path / 'pets'}", tmp_path / "out", "--initial", "4", "--budget", "2")
    assert result.exit_code == 0, result.output
    assert "1 of 17 images" in result.stderr
    assert "dog/torn.png" in result.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 4


# Report


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_half_finished_run_is_reported(kept: int, copied: Path) -> None:
    whole = (copied / "results.jsonl").read_text().splitlines(keepends=True)
    (copied / "results.jsonl").write_text("".join(whole[:kept]) + whole[kept][:50])
    for name in ("summary.csv", "curves.png", "report.html"):
        (copied / name).unlink()
    result = alzoo("report", copied)
    assert result.exit_code == 0, result.output
    for name in ("summary.csv", "curves.png", "report.html"):
        assert (copied / name).stat().st_size > 0


def test_several_runs_are_reported(copied: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copied, tmp_path / "other")
    for out in (copied, other):
        (out / "report.html").unlink()
    assert alzoo("report", copied, other).exit_code == 0
    assert all((out / "report.html").exists() for out in (copied, other))


def test_a_report_changes_no_result(copied: Path) -> None:
    before = (copied / "results.jsonl").read_bytes()
    alzoo("report", copied)
    assert (copied / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_a_report_of_no_run_is_refused(made: bool, tmp_path: Path) -> None:
    if made:
        (tmp_path / "nothing").mkdir()
    assert "nothing" in refused(alzoo("report", tmp_path / "nothing"))


# Refused in one line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["digts"], "Did you mean 'digits'?"),
        (["digits", "--learners", "random,margn"], "Did you mean 'margin'?"),
        (["digits", "--learners", "vaal+margn"], "Did you mean 'margin'?"),
        (["digits", "--learners", "val+margin"], "Did you mean 'vaal'?"),
        (["digits", "--learners", "margin+random"], "margin"),
        (["digits", "--learners", "random,random"], "named twice"),
        (["digits", "--learners", ","], "learner"),
        (["digits", "--plan", "papr"], "'papr'"),
        (["digits", "--set", "margin.stps=3"], "Did you mean 'steps'?"),
        (["digits", "--set", "margn.steps=3"], "Did you mean 'margin'?"),
        (["digits", "--set", "steps=3"], "NAME.key=value"),
        (["digits", "--set", "margin.steps"], "NAME.key=value"),
        (["digits", "--set", "margin.=3"], "NAME.key=value"),
        (["digits", "--set", "margin.query_settings={n=1}", "--set", "margin.query_settings.n=2"], "query_settings"),
        (["digits", "--set", "badge.query_settings.temperature=2", "--learners", "badge"], "temperature"),
        (["digits", "--set", "margin.steps=-1"], "steps=-1"),
        (["digits", "--set", "margin.steps=1.5"], "steps=1.5"),
        (["digits", "--set", "margin.steps=many"], "steps='many'"),
        (["digits", "--set", "margin.batch=0"], "batch=0"),
        (["digits", "--set", "margin.lr=0"], "lr=0"),
        (["digits", "--set", "margin.lr=nan"], "lr=nan"),
        (["digits", "--set", "margin.lr=fast"], "lr='fast'"),
        (["digits", "--set", "margin.optimizer=lion"], "optimizer='lion'"),
        (["digits", "--set", "margin.width=0"], "width=0"),
        (["digits", "--set", "margin.dropout=2.0"], "2.0"),
        (["digits", "--set", "margin.trunk=smal"], "small"),
        (["digits", "--set", "margin.augment=spin"], "augment='spin'"),
        (["digits", "--set", "margin.seed=3"], "seed"),
        (["digits", "--initial", "0"], "initial=0"),
        (["digits", "--initial", "-5"], "initial=-5"),
        (["digits", "--initial", "1439"], "initial=1439"),
        (["digits", "--initial", "5", "--balanced"], "initial=5"),
        (["digits", "--budget", "1419"], "more than the pool's 1438 images"),
        (["digits", "--budget", "0"], "budget=0"),
        (["digits", "--rounds", "-1"], "rounds=-1"),
        (["digits", "--seeds", "0"], "seeds=0"),
        (["digits", "--size", "0"], "size 0"),
        (["digits", "--size", "4"], "8 pixels"),
        (["digits", "--test-share", "0.2"], "--test-share"),
        (["digits", "--device", "abacus"], "device='abacus'"),
        (["digits", "--device", "cuda:99"], "device='cuda:99'"),
        (["digits", "--precision", "17-true"], "precision='17-true'"),
        (["digits", "--workers", "-1"], "workers"),
        (["folder:"], "path"),
        (["folder:nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_in_one_line(words: list[str], why: str, tmp_path: Path) -> None:
    assert why in refused(compare(words[0], tmp_path / "out", *words[1:]))
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    assert "no images" in refused(compare(f"folder:{tmp_path / 'pets'}", tmp_path / "out"))


def test_a_folder_of_one_class_is_refused(tmp_path: Path) -> None:
    data = fill(tmp_path / "pets", ("cat",))
    line = refused(compare(f"folder:{data}", tmp_path / "out", "--test-share", "0.2"))
    assert "one class only, 'cat'" in line


def test_a_train_folder_of_one_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train", ("cat",))
    fill(tmp_path / "pets" / "test", ("cat",))
    assert "one class only, 'cat'" in refused(compare(f"folder:{tmp_path / 'pets'}", tmp_path / "out"))


def test_a_folder_without_a_test_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert "--test-share" in refused(compare(f"folder:{fill(tmp_path / 'pets')}", tmp_path / "out"))


def test_a_class_without_a_readable_picture_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "test")
    for path in (tmp_path / "pets" / "train" / "dog").iterdir():
        path.write_bytes(b"no picture")
    assert "class 'dog'" in refused(compare(f"folder:{tmp_path / 'pets'}", tmp_path / "out"))
    assert "8 of 16 images" in caplog.text


def test_pictures_of_many_sizes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    data = fill(tmp_path / "pets")
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(data / "cat" / "odd.png")
    assert "--size" in refused(compare(f"folder:{data}", tmp_path / "out", "--test-share", "0.2"))


def test_the_folder_of_another_study_is_refused_and_left_alone(copied: Path) -> None:
    before = contents(copied)
    assert "another study" in refused(compare("digits", copied, "--budget", "11"))
    assert contents(copied) == before


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "no study" in refused(compare("digits", tmp_path / "mine"))
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(compare("digits", tmp_path / "file"))


def test_a_study_that_is_running_is_refused(copied: Path) -> None:
    with engine.claimed(Study.read(copied / "study.toml"), copied):
        line = refused(compare("digits", copied))
    assert "another process" in line


def test_a_part_frozen_on_the_command_line_is_written_down(tmp_path: Path) -> None:
    result = compare("digits", tmp_path / "out", "--set", "margin.freeze=trunk", "--rounds", "0")
    assert result.exit_code == 0, result.output
    assert "trunk" in Study.read(tmp_path / "out" / "study.toml").settings["margin"].get("freeze", ())


def test_a_learner_that_diverges_is_one_line_too(tmp_path: Path) -> None:
    line = refused(compare("digits", tmp_path / "out", "--set", "margin.lr=1e30"))
    assert "task diverged" in line
    assert "learning rate" in line


@pytest.mark.parametrize(
    "words", [["compare"], ["compare", "digits", "--rounds", "few"], ["list", "cats"], ["report"], ["train"]], ids=str
)
def test_words_that_make_no_command_are_refused_in_one_line(words: list[str]) -> None:
    assert refused(alzoo(*words))


# Settings


def test_settings_are_read_as_toml_or_else_as_words() -> None:
    given = ["a.x=3", "a.y=0.5", "a.z=true", "b.name=small", 'b.freeze=["trunk"]', "b.text='3'"]
    assert settings(given, ("a", "b")) == {
        "a": {"x": 3, "y": 0.5, "z": True},
        "b": {"name": "small", "freeze": ["trunk"], "text": "3"},
    }


def test_a_star_sets_all_and_the_last_word_counts() -> None:
    assert settings(["*.lr=1", "b.lr=2"], ("a", "b+c", "b")) == {"a": {"lr": 1}, "b+c": {"lr": 1}, "b": {"lr": 2}}


# What is imported when

LOADED = """
import sys
{}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def loaded(code: str) -> set[str]:
    """What is imported in a new Python after this code."""
    done = subprocess.run([sys.executable, "-c", LOADED.format(code)], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"]], ids=" ".join)
def test_help_does_not_wait_for_torch(words: list[str]) -> None:
    modules = loaded(
        f"from zoo.cli import main\nsys.argv = ['alzoo', *{words}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code"
    )
    assert "zoo" in modules
    assert not modules & {"torch", "lightning", "timm", "matplotlib", "sklearn"}


def test_importing_the_zoo_does_not_import_torch() -> None:
    modules = loaded("import zoo")
    assert "zoo" in modules
    assert not modules & {"torch", "lightning", "timm", "matplotlib", "sklearn", "torchvision"}


def test_create_waits_for_what_only_some_need() -> None:
    modules = loaded("import zoo; zoo.create")
    assert "torch" in modules
    assert not modules & {"lightning", "timm", "matplotlib"}


@pytest.mark.parametrize("command", [[Path(sys.executable).with_name("alzoo")], [sys.executable, "-m", "zoo"]])
def test_alzoo_is_a_command(command: list[str | Path]) -> None:
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith("Usage: alzoo")
    assert "compare" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("steps=1", "lr=1e38", "schedule=constant"), "diverged"),
        (("batch=1",), "batch=1 must be at least 2"),
        (("query_settings=3",), "query_settings=3"),
        (("freeze=tunk",), "no part 'tunk'"),
        (("seed=3",), "margin.seed cannot be set for one learner"),
        (("plan=3",), "no plan of margin is called 3"),
    ],
)
def test_settings_that_come_to_nothing_are_refused_in_one_line(
    settings: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    options = [word for setting in settings for word in ("--set", f"margin.{setting}")]
    line = refused(alzoo("compare", "digits", "--learners", "margin", "--rounds", 0, "--out", tmp_path / "o", *options))
    assert words in line


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(alzoo("compare", "digits", "--learners", "margin", "--out", tmp_path / "file" / "under"))
    assert "cannot be made" in line
    assert "--out" in line


def test_a_damaged_line_is_named_when_the_study_goes_on(tmp_path: Path) -> None:
    assert compare("digits", tmp_path / "o").exit_code == 0
    results = tmp_path / "o" / "results.jsonl"
    results.write_text("{damaged\n" + results.read_text())
    assert "line 1 is damaged" in refused(compare("digits", tmp_path / "o"))


def test_how_a_learner_asks_is_a_table_of_its_own() -> None:
    given = [
        "*.query_settings.weight=1",
        "a.query_settings.weight=2.5",
        "a.query_settings.by=worst",
        "b.trunk=timm/x.y",
    ]
    assert settings(given, ("a", "b")) == {
        "a": {"query_settings": {"weight": 2.5, "by": "worst"}},
        "b": {"query_settings": {"weight": 1}, "trunk": "timm/x.y"},
    }


def test_plain_training_takes_its_own_plan_beside_published_ones(tmp_path: Path) -> None:
    few = ("--set", "vaal.game_steps=2", "--set", "vaal.vae_width=4", "--set", "vaal.trunk=small")
    words = [*TINY, "--learners", "vaal,random", "--plan", "paper", *few, "--out", tmp_path / "run"]
    done = alzoo("compare", "digits", *words)
    assert done.exit_code == 0, done.output
    assert "random: plain training has no plan 'paper', and takes 'ours'." in done.output
    table = tomllib.loads((tmp_path / "run" / "study.toml").read_text())["learner"]
    assert (table["random"]["plan"], table["vaal"]["plan"]) == ("ours", "paper")
    assert set(default_learners("paper")) >= {"vaal", "ssal", "random", "margin"}
    assert "dpe" not in default_learners("paper")
    assert "gaal" not in default_learners("released")


def test_brackets_in_a_path_are_no_markup(tmp_path: Path) -> None:
    for name in ("o[red]x", "o[/red]x"):
        done = alzoo("compare", "digits", *TINY, "--out", tmp_path / name.replace("/", "-"))
        assert f"report: {tmp_path / name.replace('/', '-')}" in done.output
        assert alzoo("report", tmp_path / name.replace("/", "-")).exit_code == 0


def test_figures_without_a_folder_to_go_to_are_refused_before_anything_is_timed(tmp_path: Path) -> None:
    done = alzoo("bench", "queries", "--queries", "random", "--json", tmp_path / "none" / "x.json")
    assert "there is no folder" in refused(done)


def test_a_run_is_not_put_among_the_classes_of_its_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / "own" / name / f"{i}.png")
    asked = (
        "compare",
        f"folder:{tmp_path / 'own'}",
        *TINY,
        "--test-share",
        "0.2",
        "--initial",
        "4",
        "--budget",
        "2",
        "--out",
    )
    assert "whose folders are classes" in refused(alzoo(*asked, tmp_path / "own" / "runs" / "a"))
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"cat", "dog"}


def test_a_study_of_a_folder_has_a_name_that_shows() -> None:
    names = [Study(data=f"folder:{path}", learners=("random",)).folder().name for path in ("./photos", "../a/photos/")]
    assert names[0].startswith("photos-")
    assert names[1].startswith("a-photos-")
    assert not Study(data="folder:.", learners=("random",)).folder().name.startswith(".")


def test_without_git_and_in_somebody_elses_repository_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(zoo.__file__).parents[1]
    assert provenance.commit.__wrapped__() == ("" if not (here / ".git").exists() else provenance.commit())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit.__wrapped__() == ""
    monkeypatch.undo()
    own = tmp_path / "theirs"
    (own / "a" / "b" / "c").mkdir(parents=True)
    name = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), (*name, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", *words], cwd=own, check=True)
    monkeypatch.setattr(provenance, "__file__", str(own / "a" / "b" / "c" / "provenance.py"))
    assert provenance.commit.__wrapped__() == ""
    monkeypatch.setattr(provenance, "__file__", str(own / "b" / "c" / "provenance.py"))
    assert len(provenance.commit.__wrapped__()) == 40
