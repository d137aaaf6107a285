"""Published protocols: what is written of them, how they are run, and what is said where they are not followed."""

from __future__ import annotations

import bz2
import csv
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import Result, alzoo, refused

import zoo
from zoo import datasets
from zoo.datasets.labeled import Labeled
from zoo.datasets.sources import BY_NAME
from zoo.studies import cell, engine, measures, report, reproduce
from zoo.studies import study as studies
from zoo.studies.reproduce import Published, protocols
from zoo.studies.study import Study

FILE = Path(reproduce.__file__).with_name("published.toml")
SMALL = ("--scale", "0.2", "--rounds", "2", "--seeds", "2", "--device", "cpu", "--workers", "1")
GAN = ("--set", "*.gan_width=4", "--set", "*.latent=8", "--set", "gaal.gan_steps=4", "--set", "gaal.gan_batch=8")
QUICK = {"gan_steps": 4, "gan_batch": 8, "gan_width": 8, "latent": 8, "gan": "mlp", "plan": "paper"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))


def digits(
    path: Path,
    halves: tuple[str, ...] = ("train", "test"),
    names: str = "457",
    n: int = 30,
    size: tuple[int, ...] = (8, 8),
) -> Path:
    """A folder of small pictures: the classes are dark, grey and bright."""
    chance = np.random.default_rng(0)
    for half in halves:
        for k, name in enumerate(names):
            (path / half / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray((80 * k + chance.integers(0, 60, size)).astype(np.uint8)).save(
                    path / half / name / f"{i}.png"
                )
    return path


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


# published.toml


@pytest.mark.parametrize("name", list(protocols()))
def test_a_protocol_says_what_it_is_and_where_each_number_is_from(name: str) -> None:
    protocol = protocols()[name]
    assert protocol.what
    assert protocol.settings
    entry = zoo.create(protocol.study.learners[0]).entry
    assert protocol.paper.replace("é", "e") == entry.paper.replace("é", "e")
    assert protocol.study.plan == "paper"
    assert any(learner.endswith("random") for learner in protocol.study.learners)
    assert None not in (protocol.study.initial, protocol.study.budget)
    assert protocol.study.data in (*datasets.names(), "caltech256")
    for each in protocol.published:
        assert each.how in ("exact", "figure", "third party")
        assert len(each.source) > 10
        assert max(each.labels) <= protocol.study.initial + sum(protocol.study.budgets())
    text = tomllib.loads(FILE.read_text(encoding="utf-8"))[name]
    assert text.keys() <= {"what", "paper", "settings", "study", "learner", "published"}


@pytest.mark.parametrize("name", list(protocols()))
def test_what_was_published_lies_where_the_study_stops(name: str) -> None:
    study = protocols()[name].study
    assert study.initial is not None
    stops = {study.initial + sum(study.budgets()[:number]) for number in range(study.rounds + 1)}
    for each in protocols()[name].published:
        assert set(each.labels) <= stops


@pytest.mark.parametrize("name", list(protocols()))
def test_learners_are_made_and_fit_the_images(name: str) -> None:
    study = protocols()[name].study
    shape = {s.name: s.shape for s in datasets.describe()}.get(study.data) or (3, study.size or 64, study.size or 64)
    for learner in study.learners:
        made = zoo.create(learner, **{"plan": study.plan, **study.settings.get(learner, {})})
        with torch.device("meta"):
            made.entry.build(shape, len(study.classes) or 10, **made.nets)


def test_every_entry_with_a_paper_has_a_protocol() -> None:
    entries = {zoo.create(p.study.learners[0]).entry.name for p in protocols().values()}
    assert entries == set(zoo.names("entries")) - {"plain", "dpe"}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("how", "guessed", "must be one of"),
        ("source", "", "no source"),
        ("within", None, "within something"),
        ("labels", (1,), "for each accuracy"),
        ("labels", (2, 1), "must grow"),
        ("accuracy", (0.5, 50.0), r"\[0, 1\]"),
    ],
)
def test_a_number_that_says_too_little_is_refused(field: str, value: object, why: str) -> None:
    right = Published(name="a", labels=(1, 2), accuracy=(0.1, 0.2), how="figure", source="there", within=0.01)
    with pytest.raises(ValueError, match=why):
        replace(right, **{field: value})


def test_a_number_beside_nobody_is_refused() -> None:
    table = tomllib.loads(FILE.read_text(encoding="utf-8"))["vaal-cifar10"]
    table["published"][0]["learner"] = "waal"
    with pytest.raises(ValueError, match="not among the learners"):
        reproduce.protocol("vaal-cifar10", table)


# What is said where a protocol is not followed


def test_a_protocol_that_is_followed_has_no_notes() -> None:
    assert reproduce.study("vaal-cifar10").notes == ()
    assert reproduce.study("vaal-cifar10", device="cpu", root="/data").notes == ()
    assert reproduce.study("vaal-cifar10").protocol == "vaal-cifar10"


def test_whatever_differs_is_noted(tmp_path: Path) -> None:
    where = f"folder:{digits(tmp_path / 'data')}"
    more = {"gaal": {"gan_steps": 5}, "gaal+margin": {}, "gaal+random": {}}
    study = reproduce.study("gaal-mnist57", data=where, scale=0.1, seeds=20, settings=more)
    assert study.notes == (
        "Not as published: seeds = 20, not 10.",
        f"Not as published: {where} stands in for mnist.",
        "Not as published: gaal.gan_steps = 5.",
        "Not as published: shortened: scale 0.1 of its steps, labels and seeds.",
    )
    assert (study.initial, study.budget, study.rounds, study.seeds) == (5, 1, 20, 2)
    assert study.settings["gaal"]["gan_steps"] == 3
    assert study.settings["gaal+random"]["gan_steps"] == 0


def test_scale_shortens_every_stage_and_keeps_a_label_for_each_class(tmp_path: Path) -> None:
    where = f"folder:{digits(tmp_path / 'data')}"
    whole = zoo.create("ssal", plan="paper").settings
    study = reproduce.study("ssal-cifar10", data=where, scale=0.01)
    assert study.initial == 3
    for key in ("steps", "pretext_steps", "lp_steps"):
        assert study.settings["ssal"][key] == max(3, round(whole[key] / 100))


def test_a_folder_without_halves_is_split(tmp_path: Path) -> None:
    where = f"folder:{digits(tmp_path / 'data', ('',))}"
    assert reproduce.study("ceal-caltech256", data=where).test_share == 0.2
    both = f"folder:{digits(tmp_path / 'both')}"
    assert reproduce.study("ceal-caltech256", data=both).test_share is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("gaal-mnist75",), "Did you mean 'gaal-mnist57'"),
        (("ceal-caltech256",), "Give a folder of its images: --data folder:PATH"),
        (("gaal-mnist57", "--scale", "0"), "scale=0.0"),
        (("gaal-mnist57", "--scale", "2"), "scale=2.0"),
        (("gaal-mnist57", "--data", "folder:nowhere"), "nowhere"),
        (("gaal-mnist57", "--set", "vaal.steps=3"), "not among the learners"),
    ],
    ids=str,
)
def test_refusals(words: tuple[str, ...], why: str) -> None:
    assert why in refused(alzoo("reproduce", *words))


def test_protocols_are_listed() -> None:
    for words in (("reproduce",), ("reproduce", "--list")):
        said = alzoo(*words)
        assert said.exit_code == 0
        assert all(name in said.stdout for name in protocols())


# A whole protocol, on a stand-in


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What `reproduce gaal-mnist57` says on small pictures, and its folder. Read it only."""
    where = tmp_path_factory.mktemp("reproduced")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ALZOO_HOME", str(where / "home"))
        for module in (studies, cell):
            patched.setattr(module, "steps", lambda _: 5)
        data = f"folder:{digits(where / 'data')}"
        said = alzoo("reproduce", "gaal-mnist57", "--data", data, "--out", where / "out", *SMALL, *GAN)
    assert said.exit_code == 0, said.output
    return said, where / "out"


def test_notes_are_on_everything_that_is_written(small: tuple[Result, Path]) -> None:
    said, out = small
    notes = measures.settings(out)["notes"]
    assert any("stands in for mnist" in note for note in notes)
    assert any("scale 0.2" in note for note in notes)
    page, table = ((out / name).read_text(encoding="utf-8") for name in ("report.html", "table.md"))
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for note in notes:
        assert note in said.stdout
        assert note in page
        assert note in table
        assert all(note in row["notes"] for row in rows)
        assert all(note in record["notes"] for record in lines(out))
    plots = [(out / f"curves.{kind}").read_bytes() for kind in ("png", "svg")]
    study = (out / "study.toml").read_text()
    (out / "study.toml").write_text(study.replace("notes = [", "unsaid = ["))
    report.write(out)
    bare = [(out / f"curves.{kind}").read_bytes() for kind in ("png", "svg")]
    (out / "study.toml").write_text(study)
    report.write(out)
    assert all(with_notes != without for with_notes, without in zip(plots, bare, strict=True))


def test_published_numbers_stand_beside_ours(small: tuple[Result, Path]) -> None:
    said, out = small
    page, table = ((out / name).read_text(encoding="utf-8") for name in ("report.html", "table.md"))
    assert "Beside the published numbers" in page
    assert "published: GAAL (figure ± 0.3 points)" in page
    assert "| GAAL | gaal | 50 | 96.30 | – | figure ± 0.3 points | the paper&#39;s" not in table
    assert "| GAAL | gaal | 50 | 96.30 | – | figure ± 0.3 points | the paper's own figure" in table
    assert "| simple GAN | not run | 250 | 98.00 | – |" in table
    assert "SVM active" in said.stdout
    assert "third party" in said.stdout


def test_ours_is_shown_where_we_have_been() -> None:
    study = {"protocol": "gaal-mnist57"}
    fields: dict[str, Any] = {"asked": (), "asked_classes": None, "diagnosis": {}, "doubts": ()}
    fields |= dict.fromkeys(("fit_seconds", "select_seconds", "peak_bytes", "steps", "plan"))
    fields |= dict.fromkeys(("versions", "machine", "commit"))
    records = [
        measures.Record(learner="gaal", seed=seed, round=n, labels=50 + 10 * n, accuracy=0.9 + 0.01 * n, **fields)
        for seed in range(2)
        for n in range(6)
    ]
    gaal = reproduce.beside(study, records)[0]
    assert [labels for labels, _, _ in gaal.numbers] == [50, 100, 150, 200, 250]
    assert gaal.numbers[1][1:] == (0.976, (pytest.approx(0.95), pytest.approx(0.95), pytest.approx(0.95)))
    assert gaal.numbers[2][2] is None
    assert reproduce.beside({"data": "digits"}, records) == []
    assert reproduce.beside({"protocol": "of a later version"}, records) == []


def test_only_those_named_are_diagnosed_and_after_the_last_round(small: tuple[Result, Path]) -> None:
    looked_at = {(record["learner"], record["round"]) for record in lines(small[1]) if record["diagnosis"]}
    assert looked_at == {("gaal", 2)}
    with pytest.raises(ValueError, match="'vaal' is not among the learners"):
        synthesizing(diagnose=("vaal",))


def test_the_classes_of_the_protocol_are_the_only_ones(small: tuple[Result, Path]) -> None:
    records = lines(small[1])
    assert {len(record["asked_classes"]) for record in records} == {2}
    assert {record["learner"] for record in records} == {"gaal", "gaal+margin", "gaal+random"}


def test_a_protocol_without_numbers_says_so(tmp_path: Path) -> None:
    study = studies.prepare(replace(Study(data="digits", learners=("random",), rounds=0), protocol="aral-mnist"))
    study = replace(study, settings={"random": {**study.settings["random"], "steps": 3}})
    out = engine.run(study, tmp_path / "out", workers=1)
    report.write(out)
    assert "No number of this protocol could be established" in (out / "report.html").read_text(encoding="utf-8")


# Made images in a study


def synthesizing(**more: Any) -> Study:
    settings = {"gaal": {**QUICK, "query_settings": {"synthesize": True}}}
    fields = {"classes": ("5", "7"), "initial": 10, "budget": 4, "rounds": 2, "judge": "classifier", "confidence": 0.5}
    fields |= {"device": "cpu", "threads": 1, "settings": settings}
    return Study(**{"data": "digits", "learners": ("gaal",), **fields, **more})


def ran(study: Study, out: Path) -> list[dict[str, Any]]:
    measured = ("fit_seconds", "select_seconds", "peak_bytes")
    return [{k: v for k, v in r.items() if k not in measured} for r in lines(engine.run(study, out, workers=1))]


def test_made_images_are_judged_and_admitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (studies, cell):
        monkeypatch.setattr(module, "steps", lambda _: 5)
    first, second, third = ran(synthesizing(), tmp_path / "out")
    assert (first["judged"], len(first["asked"])) == (None, 10)
    assert [record["labels"] for record in (first, second, third)] == [10, 14, 18]
    assert second["asked"] == []
    assert {key: second["judged"][key] for key in ("by", "shown", "real", "made", "rejected")} == {
        **{"by": "classifier", "shown": 4, "real": 0, "made": 4, "rejected": 0}
    }
    assert second["asked_classes"] == [second["judged"]["labels"].count(k) for k in (0, 1)]
    assert len(second["scores"]) == 4
    assert (tmp_path / "out" / "asked" / "gaal" / "seed0-round2.png").exists()
    assert measures.read(tmp_path / "out" / "results.jsonl")[1].judged == second["judged"]
    report.write(tmp_path / "out")
    assert "4 made, 0 rejected by a classifier, 18 known" in (tmp_path / "out" / "report.html").read_text()


def test_made_images_have_colours_where_the_pool_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (studies, cell):
        monkeypatch.setattr(module, "steps", lambda _: 5)
    where = f"folder:{digits(tmp_path / 'data', names='57', size=(8, 8, 3))}"
    settings = {"gaal": {**QUICK, "gan": "dcgan", "query_settings": {"synthesize": True}}}
    study = synthesizing(data=where, classes=(), settings=settings)
    assert [record["labels"] for record in ran(study, tmp_path / "out")] == [10, 14, 18]
    with Image.open(tmp_path / "out" / "asked" / "gaal" / "seed0-round1.png") as sheet:
        red, green, _ = sheet.split()
        assert red.tobytes() != green.tobytes()


def test_what_a_judge_rejects_gets_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (studies, cell):  # it knows too little to be sure
        monkeypatch.setattr(module, "steps", lambda _: 1)
    records = ran(synthesizing(confidence=1.0), tmp_path / "out")
    assert [record["labels"] for record in records] == [10, 10, 10]
    unlabeled = records[1]["judged"]["shown"]  # which is as many as may be shown
    assert [record["judged"]["rejected"] for record in records[1:]] == [unlabeled, unlabeled]
    assert unlabeled > 4
    report.write(tmp_path / "out")


def test_more_is_shown_to_a_judge_who_rejects_until_the_budget_has_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_third(selection: Any, _by: Any, _confidence: float) -> Any:
        answers = torch.tensor([i % 2 if i % 3 == 2 else -1 for i in range(len(selection.images))])
        return zoo.judge(selection, by=lambda _: answers)

    monkeypatch.setattr(cell, "judge", every_third)
    monkeypatch.setattr(cell, "classifier", lambda *_: None)
    first, second, third = ran(synthesizing(), tmp_path / "out")
    assert [record["labels"] for record in (first, second, third)] == [10, 14, 18]
    expected = {"by": "classifier", "shown": 12, "real": 0, "made": 4, "rejected": 8, "labels": [0, 1, 0, 1]}
    assert second["judged"] == expected
    assert len(second["scores"]) == 4


def test_the_nearest_real_image_may_judge(tmp_path: Path) -> None:
    _, second, _ = ran(synthesizing(judge="nearest"), tmp_path / "out")
    assert second["judged"]["by"] == "nearest"
    assert second["judged"]["made"] == 4
    assert second["judged"]["real"] <= 4


def test_a_study_with_made_images_is_killed_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (studies, cell):
        monkeypatch.setattr(module, "steps", lambda _: 5)
    whole = ran(synthesizing(), tmp_path / "whole")
    out, told = tmp_path / "killed", cell.told

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cell, "told", killed)  # what is asked is noted, and not yet used
    with pytest.raises(KeyboardInterrupt):
        engine.run(synthesizing(), out, workers=1)
    monkeypatch.setattr(cell, "told", told)
    assert ran(synthesizing(), out) == whole
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(out)[:2]))
    assert ran(synthesizing(), out) == whole


def test_who_makes_images_needs_a_judge() -> None:
    with pytest.raises(ValueError, match="Give judge, classifier or nearest"):
        studies.prepare(synthesizing(judge=None))
    with pytest.raises(LookupError, match="no judge is called 'nobody'"):
        synthesizing(judge="nobody")
    with pytest.raises(ValueError, match=r"confidence=0\.0"):
        synthesizing(confidence=0.0)


def test_a_pretext_is_made_once_for_seeds_that_would_make_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    own = zoo.register.entries()["gaal"]

    def pretext(*args: Any, **parts: Any) -> Any:
        made.append(args)
        return own.pretext(*args, **parts)

    monkeypatch.setitem(zoo.register.entries(), "gaal", replace(own, pretext=pretext))
    study = synthesizing(judge="nearest", rounds=1, seeds=2)
    shared = ran(replace(study, fixed=("networks", "batches")), tmp_path / "shared")
    assert len(made) == 1
    ran(study, tmp_path / "own")
    assert len(made) == 3
    again = replace(study, fixed=("networks", "batches"))
    alone = [r for r in ran(replace(again, seeds=2), tmp_path / "again") if r["seed"] == 1]
    assert alone == [r for r in shared if r["seed"] == 1]


# Some of the classes, and another test


def test_classes_are_numbered_anew() -> None:
    pool, test = datasets.data("digits", initial=10, seed=0, classes=("7", "5"))
    whole, all_tests = datasets.data("digits", initial=1438, seed=0)
    assert pool.names == ("7", "5")
    assert torch.equal(pool.images, whole.images[(whole.labels == 7) | (whole.labels == 5)])
    assert len(test.targets) == int(((all_tests.targets == 7) | (all_tests.targets == 5)).sum())
    assert torch.equal(test.images[test.targets == 1], all_tests.images[all_tests.targets == 5])
    known = pool.labeled
    kept = whole.labels[(whole.labels == 7) | (whole.labels == 5)]
    assert torch.equal(pool.labels[known], (kept[known] == 5).long())


@pytest.mark.parametrize("classes", [("5",), ("5", "5"), ("5", "five")], ids=str)
def test_classes_that_make_no_task_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises((ValueError, LookupError), match=r"two or more|no class is called 'five'"):
        datasets.data("digits", initial=10, seed=0, classes=classes)


def usps(root: Path, targets: tuple[int, ...]) -> Path:
    """The files of USPS as they are: a line an image, pixels from -1 to 1."""
    root.mkdir()
    for name in ("usps.bz2", "usps.t.bz2"):
        pixels = " ".join(f"{i}:{1.0 if i % 2 else -1.0}" for i in range(1, 257))
        (root / name).write_bytes(bz2.compress("".join(f"{k + 1} {pixels}\n" for k in targets).encode()))
    return root


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.arange(20) % 10
    known = Labeled(images, targets, datasets.Test(images, targets), tuple("0123456789"))
    monkeypatch.setitem(BY_NAME, "mnist", lambda _: known)


@pytest.mark.usefixtures("small_mnist")
def test_usps_is_framed_as_mnist_is(tmp_path: Path) -> None:
    root = usps(tmp_path / "root", (5, 7, 1, 0, 7))
    pool, test = datasets.data("mnist_usps", initial=4, seed=0, root=root, classes=("5", "7"))
    assert pool.shape == (1, 28, 28)
    assert pool.names == ("5", "7")
    assert test.targets.tolist() == [0, 1, 1]
    assert test.images.shape == (3, 1, 28, 28)
    assert test.images[:, :, 4:24, 4:24].float().std() > 50
    margin = test.images.clone()
    margin[:, :, 4:24, 4:24] = 0
    assert not margin.any()


@pytest.mark.usefixtures("small_mnist")
def test_usps_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.usps.download_url", offline)
    with pytest.raises(ConnectionError, match=r"Put usps\.bz2 and usps\.t\.bz2 into that folder"):
        datasets.data("mnist_usps", initial=4, seed=0, root=tmp_path)
