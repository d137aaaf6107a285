"""The axes of a protocol: each changes what it should and nothing else, for all learners alike."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from trainers.run import Snapshots
from trainers.seeds import Seeds, key
from zoo import datasets, register, testing
from zoo.cli import main
from zoo.datasets.sources import UNEVEN
from zoo.entry import never
from zoo.studies import cell, engine, measures
from zoo.studies import study as studies
from zoo.studies.gains import gain_split
from zoo.studies.oracles import Noisy, among, noisy, wrong
from zoo.studies.study import Study

TINY = {"steps": 3, "batch": 8, "width": 4}
MEASURED = ("fit_seconds", "select_seconds", "peak_bytes")
EVEN_AND_ODD = (("0", "2", "4", "6", "8"), ("1", "3", "5", "7", "9"))
QUICK = {"device": "cpu", **TINY}


class Killed(BaseException):
    """What kills a study."""


def tiny(*learners: str, **more: Any) -> Study:
    learners = learners or ("random", "margin")
    settings = {name: dict(TINY) for name in learners}
    fields = {"initial": 20, "budget": 10, "rounds": 2, "seeds": 2, "device": "cpu", "threads": 1, "settings": settings}
    return Study(data="digits", learners=learners, **{**fields, **more})


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def repeated(out: Path) -> list[dict[str, Any]]:
    """The records without what is measured."""
    return [{name: value for name, value in record.items() if name not in MEASURED} for record in lines(out)]


def ran(study: Study, out: Path) -> list[dict[str, Any]]:
    return repeated(engine.run(study, out, workers=1))


def start(**more: Any) -> zoo.Pool:
    return datasets.data("digits", **{"initial": 40, "seed": 0, **more})[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of the tiny study without any axis turned."""
    return ran(tiny(), tmp_path_factory.mktemp("protocol") / "plain")


# Growing budgets


@pytest.mark.parametrize(
    ("grow", "budgets"), [(1.0, [10, 10, 10, 10]), (1.5, [10, 15, 22, 34]), (2, [10, 20, 40, 80]), (1e300, None)]
)
def test_budgets_grow(grow: float, budgets: list[int] | None) -> None:
    got = tiny(rounds=4, grow=grow).budgets()
    assert got == budgets if budgets else got[1:] == [10**15] * 3


def test_labels_are_true_counts_where_the_budget_grows(tmp_path: Path, plain: list[dict[str, Any]]) -> None:
    records = ran(tiny(grow=1.5), tmp_path / "out")
    assert [r["labels"] for r in records] == [20, 30, 45] * 4
    assert [r["asked"] for r in records if r["round"] < 2] == [r["asked"] for r in plain if r["round"] < 2]


# Classes left out


def test_left_out_classes_are_drawn_by_the_seed() -> None:
    for seed in range(3):
        pool = start(leave_out=4, seed=seed)
        without = datasets.left_out(pool.names, 4, seed)
        assert len(set(without)) == 4
        counts = pool.labels[pool.labeled].bincount(minlength=10)
        assert (counts[without] == 0).all()
        assert counts.sum() == 40
        assert (counts > 0).sum() == 6
    assert len({tuple(datasets.left_out(pool.names, 4, seed)) for seed in range(9)}) > 5


@pytest.mark.parametrize("which", [("3", "7"), ["7", "3"], (3, 7)], ids=str)
def test_left_out_classes_are_named(which: Any) -> None:
    counts = (pool := start(leave_out=which)).labels[pool.labeled].bincount(minlength=10)
    assert counts[[3, 7]].tolist() == [0, 0]
    assert counts.sum() == 40


def test_what_is_left_of_the_initial_set_keeps_its_order_of_luck() -> None:
    small, whole = start(leave_out=("3",)), start()
    others = whole.labeled[whole.labels[whole.labeled] != 3]
    assert set(others.tolist()) <= set(small.labeled.tolist())
    assert torch.equal(small.images, whole.images)


def test_a_balanced_start_without_some_classes() -> None:
    counts = (pool := start(leave_out=("3", "7"), balanced=True)).labels[pool.labeled].bincount(minlength=10)
    assert counts.tolist() == [5, 5, 5, 0, 5, 5, 5, 0, 5, 5]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"leave_out": 10}, "leaves no class"),
        ({"leave_out": 11}, "leave_out=11"),
        ({"leave_out": -1}, "leave_out=-1"),
        ({"leave_out": True}, "whole number"),
        ({"leave_out": 9, "initial": 300}, "leave out fewer"),
        ({"leave_out": 5, "initial": 4, "balanced": True}, "over 5 classes"),
    ],
    ids=str,
)
def test_a_start_that_cannot_be_is_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        start(**more)


def test_a_start_that_only_another_seed_cannot_give_is_refused_at_once(tmp_path: Path) -> None:
    counts = [int((datasets.data("digits", initial=1438, seed=0)[0].labels == k).sum()) for k in range(10)]
    left = [sum(counts) - sum(counts[k] for k in datasets.left_out("0123456789", 5, seed)) for seed in range(6)]
    seed = min(range(6), key=lambda seed: left[seed])
    assert left[seed] < left[0]
    with pytest.raises(ValueError, match=f"there are {left[seed]} images"):
        engine.run(tiny(leave_out=5, initial=left[seed] + 1, seeds=6), tmp_path / "out")


def test_the_record_says_which_classes_were_left_out(tmp_path: Path) -> None:
    for record in ran(tiny(leave_out=3), tmp_path / "out"):
        assert record["left_out"] == datasets.left_out("0123456789", 3, record["seed"])
        if record["round"] == 0:
            assert [record["asked_classes"][k] for k in record["left_out"]] == [0, 0, 0]


# Imbalance


@pytest.mark.parametrize(
    ("kind", "classes", "of", "first", "last", "total"),
    [  # CIFAR's own counts: those of TA-VAAL's notes, and of Cui et al. 2019's rule
        ("alternating:100", 10, 5000, [50, 5000, 50], 5000, 25_250),
        ("alternating:10", 10, 5000, [500, 5000, 500], 5000, 27_500),
        ("long-tailed:100", 10, 5000, [5000, 2997, 1796], 50, 12_406),
        ("long-tailed:10", 10, 5000, [5000, 3871, 2997], 500, 20_431),
        ("long-tailed:100", 100, 500, [500, 477, 455], 5, 10_847),
    ],
)
def test_counts_of_imbalanced_pools(kind: str, classes: int, of: int, first: list[int], last: int, total: int) -> None:
    counts = datasets.uneven([of] * classes, kind)
    assert (counts[:3], counts[-1], sum(counts)) == (first, last, total)


def test_every_imbalanced_set_by_name_has_the_images_it_says() -> None:
    of = {"cifar10": [5000] * 10, "cifar100": [500] * 100}
    said = {source.name: source for source in datasets.describe()}
    for name, (base, imbalance) in UNEVEN.items():
        assert said[name].images == (sum(datasets.uneven(of[base], imbalance)), 10_000)


def test_the_pool_is_thinned_and_the_test_is_not() -> None:
    (pool, test), (whole, same) = (
        datasets.data("digits", initial=0, seed=3, imbalance=how) for how in ("alternating:10", None)
    )
    counts, all_ = (p.oracle(torch.arange(len(p))).bincount() for p in (pool, whole))
    assert counts[1::2].equal(all_[1::2])
    assert counts[::2].tolist() == [int(n / 10) for n in all_[::2].tolist()]
    assert torch.equal(test.images, same.images)
    assert torch.equal(test.targets, same.targets)
    kept = {image.numpy().tobytes() for image in pool.images}
    assert kept <= {image.numpy().tobytes() for image in whole.images}


def test_which_images_stay_depends_on_the_seed() -> None:
    one, again, other = (start(imbalance="long-tailed:20", seed=seed, initial=10) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert one.images.shape == other.images.shape
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize(
    "how", ["alternating", "alternating:1", "alternating:0.5", "alternating:nan", "long-tailed:inf", "tailed:10", "", 3]
)
def test_an_imbalance_that_is_none_is_refused(how: Any) -> None:
    with pytest.raises(ValueError, match="give alternating:100"):
        start(imbalance=how)


def test_a_class_that_would_vanish_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing of class '0'; lower the ratio"):
        start(imbalance="alternating:1000")


def test_an_imbalanced_name_has_no_other_imbalance() -> None:
    with pytest.raises(ValueError, match="is alternating:100 already"):
        datasets.data("cifar10_alternating", initial=1, seed=0, imbalance="alternating:10")


def test_a_balanced_start_that_a_thinned_pool_cannot_give_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be balanced"):
        engine.run(tiny(imbalance="alternating:100", balanced=True, initial=None), tmp_path / "out")


# Noisy oracles


def answers(share: float, groups: Any = (), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What an oracle that errs says of every image, and the truth."""
    pool = start()
    everything = torch.arange(len(pool))
    return noisy(pool, share, groups, seed).oracle(everything), pool.oracle(everything)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_a_share_of_the_answers_is_wrong(share: float) -> None:
    said, truth = answers(share)
    n, errors = len(truth), int((said != truth).sum())
    assert abs(errors - share * n) < 3.5 * (share * (1 - share) * n) ** 0.5
    assert said.min() >= 0
    assert said.max() <= 9
    mistaken = said[(truth == 3) & (said != 3)].bincount(minlength=10)
    if share == 0.9:  # about 14 of each other class
        assert (mistaken[[k for k in range(10) if k != 3]] > 3).all()


def test_wrong_answers_stay_within_groups() -> None:
    said, truth = answers(0.5, EVEN_AND_ODD)
    assert (said % 2 == truth % 2).all()
    assert 0.4 < (said != truth).double().mean() < 0.6


def test_classes_of_no_group_are_always_told_right() -> None:
    said, truth = answers(0.9, (("1", "7"),))
    apart = (truth != 1) & (truth != 7)
    assert torch.equal(said[apart], truth[apart])
    assert set(said[~apart].tolist()) == {1, 7}
    assert (said != truth).any()


def test_asked_again_an_image_gets_the_same_answer_in_whatever_company() -> None:
    oracle = noisy(start(), 0.5, (), 4).oracle
    some = torch.tensor([5, 900, 17, 5])
    assert torch.equal(oracle(some), oracle(torch.arange(1000))[some])
    torch.manual_seed(1)
    assert torch.equal(oracle(some), oracle(some))


def test_more_noise_keeps_what_was_wrong_already() -> None:
    (little, truth), (much, _) = answers(0.1), answers(0.4)
    mistaken = little != truth
    assert torch.equal(much[mistaken], little[mistaken])


def test_noise_depends_on_its_seed() -> None:
    assert not torch.equal(answers(0.3, seed=0)[0], answers(0.3, seed=1)[0])


def test_an_oracle_that_cannot_tell_still_cannot() -> None:
    pool = replace(start(), oracle=lambda indices: torch.full_like(indices, -1))
    assert (Noisy(pool.oracle, 0.99, among((), pool.names), 0)(torch.arange(50)) == -1).all()


def test_the_initial_set_and_the_queries_are_told_wrong_and_the_test_is_not() -> None:
    study = tiny(noise=0.3, initial=400)
    (pool, test), (clean, same) = study.pool(1), replace(study, noise=0.0).pool(1)
    assert torch.equal(test.targets, same.targets)
    assert torch.equal(pool.labeled, clean.labeled)
    assert torch.equal(pool.images, clean.images)
    assert 80 < wrong(pool) == int((pool.labels[pool.labeled] != clean.labels[clean.labeled]).sum()) < 160
    more = pool.unlabeled[:400]
    assert 80 < wrong(pool.reveal(more)) - wrong(pool) < 160
    assert wrong(clean) == 0


@pytest.mark.parametrize("groups", [(("0",),), ((),), (("0", "1"), ("1", "2")), (("0", "0"),)], ids=str)
def test_groups_that_make_no_sense_are_refused(groups: Any) -> None:
    with pytest.raises(ValueError, match="groups"):
        tiny(noise=0.1, groups=groups).pool(0)


def test_a_group_of_unknown_classes_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(zoo.UnknownName, match="class"):
        engine.run(tiny(noise=0.1, groups=datasets.SUPERCLASSES), tmp_path / "out")


def test_superclasses_are_twenty_groups_of_five() -> None:
    assert [len(group) for group in datasets.SUPERCLASSES] == [5] * 20
    assert len({name for group in datasets.SUPERCLASSES for name in group}) == 100


def test_noise_is_recorded_and_paired(tmp_path: Path) -> None:
    records = ran(tiny(noise=0.4), tmp_path / "out")
    for seed in range(2):
        first = [r for r in records if (r["seed"], r["round"]) == (seed, 0)]
        assert len({(r["wrong"], r["network"], tuple(r["asked"])) for r in first}) == 1
    assert all(0 < r["wrong"] < r["labels"] for r in records)


# Seeds of their own


def drawn(**fixed: Any) -> dict[str, list[Any]]:
    """What two runs of a study draw, by use."""
    study = tiny("random", noise=0.5, leave_out=2, **fixed)
    out: dict[str, list[Any]] = {use: [] for use in studies.USES}
    for seed in range(2):
        pool, _ = study.pool(seed)
        learner = study.learner("random", seed, pool)
        parts = learner.build(pool.shape, pool.classes)
        out["networks"].append(parts["head"].linear.weight.detach().clone())
        learner.fit(start(), journal=lambda *_: None)
        out["initial"].append(pool.labeled)
        out["oracle"].append(pool.oracle(torch.arange(100)))
        out["queries"].append(learner.scan(pool).generator("random").initial_seed())
        out["batches"].append(key(learner.seed, "stream", 1, 0, "shuffle", 0))
    return out


@pytest.mark.parametrize("varied", studies.USES)
def test_one_use_varies_while_the_others_stay(varied: str) -> None:
    for use, (one, other) in drawn(fixed=tuple(use for use in studies.USES if use != varied)).items():
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same == (use != varied), use


@pytest.mark.parametrize("fixed", studies.USES)
def test_one_use_stays_while_the_others_vary(fixed: str) -> None:
    for use, (one, other) in drawn(fixed=(fixed,)).items():
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same == (use == fixed), use


def test_equal_seeds_are_the_one_number() -> None:
    p = start(initial=20)
    one = zoo.create("margin", seed=7, **QUICK).fit(p)
    three = zoo.create("margin", seed={"networks": 7, "batches": 7, "queries": 7}, **QUICK).fit(p)
    assert all(torch.equal(a, b) for a, b in zip(one.parts.parameters(), three.parts.parameters(), strict=True))


def test_seeds_change_what_they_are_for_and_nothing_else() -> None:
    p = start(initial=20)

    def learner(networks: int, batches: int, queries: int) -> zoo.Learner:
        seed = {"networks": networks, "batches": batches, "queries": queries}
        return zoo.create("random", seed=seed, **QUICK)

    def fitted(*seeds: int) -> torch.Tensor:
        return torch.cat([value.flatten() for value in learner(*seeds).fit(p).parts.parameters()])

    assert torch.equal(fitted(0, 0, 0), fitted(0, 0, 1))
    assert not torch.equal(fitted(0, 0, 0), fitted(0, 1, 0))
    assert not torch.equal(fitted(0, 0, 0), fitted(1, 0, 0))
    asked = [list(learner(*seeds).fit(p).select(p, 9)) for seeds in ((0, 0, 0), (1, 1, 0), (0, 0, 1))]
    assert asked[0] == asked[1] != asked[2]


def test_seeds_are_saved_and_loaded(tmp_path: Path) -> None:
    seed = {"networks": 1, "batches": 2, "queries": 3}
    learner = zoo.create("random", seed=seed, **QUICK).fit(start(initial=20))
    assert zoo.load(learner.save(tmp_path / "a.safetensors"), device="cpu").seed == Seeds(**seed)


@pytest.mark.parametrize("seed", [{"networks": 1}, {"networks": 1, "batches": 2, "queries": 0.5}, {}], ids=str)
def test_seeds_that_are_not_whole_are_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="queries"):
        zoo.create("random", seed=seed)


def test_the_split_has_a_seed_of_its_own(tmp_path: Path) -> None:
    from PIL import Image

    for k in range(2):
        (tmp_path / "pets" / str(k)).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 100 * k + i).save(tmp_path / "pets" / str(k) / f"{i}.png")
    more = {"test_share": 0.25, "initial": 4}
    one, again, other = (
        datasets.data(f"folder:{tmp_path / 'pets'}", seed=seed, split=split, **more)[1].images
        for seed, split in ((0, 0), (1, 0), (0, 1))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="split=1"):
        start(split=1)


# Warm starts


def test_a_warm_round_starts_from_the_last_ones_networks(tmp_path: Path, plain: list[dict[str, Any]]) -> None:
    records = ran(tiny(warm=True), tmp_path / "out")
    for seed in range(2):
        pool, _ = tiny().pool(seed)
        learner = tiny().learner("margin", seed, pool).fit(pool)
        for record in (r for r in records if (r["learner"], r["seed"]) == ("margin", seed)):
            if record["round"]:
                pool = pool.reveal(record["asked"])
                learner = learner.warm().fit(pool)
            assert record["network"] == cell.digest(learner)
    cold = [r["network"] for r in plain]
    assert [a == r["network"] for a, r in zip(cold, records, strict=True)] == [r["round"] == 0 for r in records]


def fragile(monkeypatch: pytest.MonkeyPatch, moments: int) -> None:
    """From here on a study is killed at that moment: each step, record, and both sides of each file are one."""
    left = iter(range(1, moments))

    def moment() -> None:
        if next(left, None) is None:
            raise Killed

    @contextmanager
    def watching(*_: Any) -> Iterator[Callable[..., None]]:
        yield lambda *_: moment()

    def around(function: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            moment()
            function(*arguments)
            moment()

        return guarded

    monkeypatch.setattr(engine, "_watching", watching)
    monkeypatch.setattr(cell, "put", around(cell.put))
    monkeypatch.setattr(cell, "keep", around(cell.keep))
    monkeypatch.setattr(cell, "seldom", lambda watch: watch)
    monkeypatch.setattr("zoo.learner.Snapshots", lambda path, owner, _: Snapshots(path, owner, 0))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ran(tiny("margin", seeds=1, warm=True), tmp_path_factory.mktemp("protocol") / "warm")


@pytest.mark.parametrize("at", range(1, 23))
def test_a_warm_study_killed_at_any_moment_and_continued_is_never_killed(
    at: int, warm: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny("margin", seeds=1, warm=True)
    with monkeypatch.context() as patches:
        fragile(patches, at)
        with pytest.raises(Killed):
            engine.run(study, tmp_path / "out", workers=1)
    assert ran(study, tmp_path / "out") == warm
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.parametrize("lost", ["*.safetensors", "*round0.safetensors", "*"])
@pytest.mark.parametrize("at", [11, 16, 19])
def test_a_warm_study_that_lost_its_networks_trains_them_again(
    lost: str, at: int, warm: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny("margin", seeds=1, warm=True)
    with monkeypatch.context() as patches:
        fragile(patches, at)
        with pytest.raises(Killed):
            engine.run(study, tmp_path / "out", workers=1)
    for path in (tmp_path / "out" / "cells").glob(lost):
        path.unlink()
    assert ran(study, tmp_path / "out") == warm


def test_a_warm_study_with_twins_and_seeds_killed_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"batch": 8, "width": 4}
    settings = {"plain+unfair": few, "vaal": {**few, "game_steps": 3}}
    study = tiny("plain+unfair", "vaal", warm=True, epochs=0.7, grow=1.3, noise=0.2, leave_out=2, settings=settings)
    monkeypatch.setitem(register.entries(), "unfair", unfair())
    whole, chance, deaths, over = ran(study, tmp_path / "whole"), random.Random(1), 0, False
    while not over:
        with monkeypatch.context() as patches:
            fragile(patches, chance.randint(12, 40))
            try:
                engine.run(study, tmp_path / "out", workers=1)
                over = True
            except Killed:
                deaths += 1
    assert deaths >= 3
    assert repeated(tmp_path / "out") == whole


# Steps by labels


def test_steps_follow_from_the_labels(tmp_path: Path) -> None:
    settings = {"random": {"batch": 8, "width": 4}, "margin": {"batch": 7, "width": 4}}
    study = tiny(epochs=1.1, settings=settings)
    for record in ran(study, tmp_path / "out"):
        batch = settings[record["learner"]]["batch"]
        assert record["steps"] == -(-11 * record["labels"] // (10 * batch)) == record["ticks"]


def test_exact_shares_are_not_rounded_up() -> None:
    pool, _ = tiny().pool(0)
    study = tiny("random", epochs=0.1, settings={})
    learner = replace(zoo.create("random", **QUICK), loop=replace(zoo.create("random").loop, batch=3))
    assert study.paced(learner, 30).loop.steps == 1  # in floating point, 0.1 * 30 / 3 is above 1
    assert tiny().paced(learner, len(pool.labeled)) is learner


def test_a_twin_keeps_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(register.entries(), "unfair", unfair())
    learner = zoo.create("plain+unfair", **QUICK)
    paced = tiny(epochs=2.0, settings={}).paced(learner, 40)
    assert (paced.loop.steps, paced.twin.loop.steps) == (10, 10)


@pytest.mark.parametrize("settings", [{"margin": {"steps": 3}}, {"random": {"batch": 8, "steps": 9}}], ids=str)
def test_epochs_and_steps_exclude_each_other(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"steps is set, but epochs=2\.0"):
        tiny(epochs=2.0, settings=settings)


# What labels cost


def test_costs_add_up(tmp_path: Path, plain: list[dict[str, Any]]) -> None:
    records = ran(tiny(label_cost=0.5, cost_unit="EUR"), tmp_path / "out")
    assert [r["label_cost"] for r in records] == [r["labels"] / 2 for r in records]
    assert [{**r, "label_cost": 0.0} for r in records] == plain
    assert Study.read(tmp_path / "out" / "study.toml").cost_unit == "EUR"


# Records


def test_records_hold_what_a_report_needs(plain: list[dict[str, Any]]) -> None:
    for record in plain:
        assert (record["entry"], record["query"]) == ("plain", record["learner"])
        assert (record["confusion"] is None) == (record["round"] < 2)
        if record["round"]:
            assert len(record["scores"]) == len(record["asked"])
            assert record["scores"] == sorted(record["scores"], reverse=True)
        else:
            assert record["scores"] is None
    table = torch.tensor(plain[2]["confusion"])
    assert table.sum() == 359
    assert table.diag().sum().item() / 359 == pytest.approx(plain[2]["accuracy"])
    assert table.sum(1).equal(tiny().pool(0)[1].targets.bincount())


def test_round_nought_is_one_network_for_all_plain_learners(plain: list[dict[str, Any]]) -> None:
    networks = Counter((r["seed"], r["network"]) for r in plain if r["round"] == 0)
    assert sorted(networks.values()) == [2, 2]


def test_records_are_read_with_all_that(tmp_path: Path) -> None:
    out = engine.run(tiny(noise=0.3, label_cost=2.0, leave_out=1), tmp_path / "out", workers=1)
    for read, line in zip(measures.read(out / "results.jsonl"), lines(out), strict=True):
        assert (read.entry, read.query, list(read.controls)) == (line["entry"], line["query"], line["controls"])
        assert (read.wrong, list(read.left_out), read.label_cost) == (
            line["wrong"],
            line["left_out"],
            line["label_cost"],
        )
        assert (read.ticks, read.network) == (line["ticks"], line["network"])
        assert read.scores == (line["scores"] and tuple(line["scores"]))
        assert (read.confusion is None) == (line["confusion"] is None)


# Written down, and run again


TURNED: list[dict[str, Any]] = [
    {"grow": 1.5},
    {"leave_out": 3},
    {"leave_out": ("3", "7")},
    {"imbalance": "alternating:5"},
    {"noise": 0.2},
    {"noise": 0.2, "groups": EVEN_AND_ODD},
    {"warm": True},
    {"label_cost": 3.0, "cost_unit": "EUR"},
    {"fixed": ("networks", "initial")},
    {"epochs": 0.5, "settings": {"random": {"batch": 8, "width": 4}, "margin": {"batch": 8, "width": 4}}},
    {"shuffle": True},
]


@pytest.mark.parametrize("turned", TURNED, ids=str)
def test_a_written_study_repeats_its_records(turned: dict[str, Any], tmp_path: Path) -> None:
    out = engine.run(tiny(rounds=1, **turned), tmp_path / "out", workers=1)
    again = Study.read(out / "study.toml")
    assert studies.prepare(again) == again == studies.prepare(tiny(rounds=1, **turned))
    assert ran(again, tmp_path / "again") == repeated(out)


def test_every_axis_makes_another_study() -> None:
    folders = {tiny(**turned).folder() for turned in [{}, *TURNED]}
    assert len(folders) == len(TURNED) + 1


@pytest.mark.parametrize("turned", [t for t in TURNED if not {"fixed", "shuffle"} & t.keys()], ids=str)
def test_learners_stay_paired(turned: dict[str, Any], tmp_path: Path) -> None:
    records = ran(tiny(rounds=1, **turned), tmp_path / "out")
    for seed in range(2):
        first = [r for r in records if (r["seed"], r["round"]) == (seed, 0)]
        assert len(first) == 2
        assert len({(tuple(r["asked"]), r["network"], r["accuracy"], r["labels"]) for r in first}) == 1


# Refused at once


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"grow": 0.5}, "grow=0.5"),
        ({"grow": float("inf")}, "grow=inf"),
        ({"grow": float("nan")}, "grow=nan"),
        ({"noise": -0.1}, "noise=-0.1"),
        ({"noise": 1.0}, "noise=1.0"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"groups": EVEN_AND_ODD}, "give noise"),
        ({"label_cost": -1}, "label_cost=-1"),
        ({"label_cost": float("nan")}, "label_cost=nan"),
        ({"epochs": 0.0, "settings": {}}, "epochs=0"),
        ({"epochs": float("inf"), "settings": {}}, "epochs=inf"),
        ({"fixed": ("initial", "networks", "batches", "queries")}, "leaves nothing"),
    ],
    ids=str,
)
def test_a_protocol_that_makes_no_sense_is_none(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        tiny(**wrong)


def test_an_unknown_use_of_seeds_is_refused() -> None:
    with pytest.raises(zoo.UnknownName, match="Did you mean 'networks'"):
        tiny(fixed=("network",))


def test_a_growing_budget_larger_than_the_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 rounds of 300, each 2.0 times the last, are 2120.*Lower"):
        engine.run(tiny(budget=300, rounds=3, grow=2.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def alzoo(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["alzoo", *map(str, words)])
    main()


QUICKLY = (
    "--learners",
    "random,margin",
    "--initial",
    20,
    "--budget",
    10,
    "--rounds",
    1,
    "--device",
    "cpu",
    "--workers",
    1,
)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--grow", "0"), "grow=0.0"),
        (("--leave-out", "10"), "leaves no class"),
        (("--leave-out", "cat"), "no class is called 'cat'"),
        (("--imbalance", "steep"), "give alternating:100"),
        (("--noise", "2"), "noise=2.0"),
        (("--groups", "1+7"), "give noise"),
        (("--noise", "0.1", "--groups", "superclasses"), "no class is called 'beaver'"),
        (("--noise", "0.1", "--groups", "1+7,7+2"), "named twice"),
        (("--epochs", "0"), "epochs=0"),
        (("--epochs", "2", "--set", "*.steps=3"), "epochs=2.0"),
        (("--label-cost", "-1"), "label_cost=-1"),
        (("--fix", "luck"), "no use of a seed is called 'luck'"),
        (("--split", "3"), "--test-share"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_command_line_refuses_in_one_line(
    words: tuple[str, ...],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        alzoo(monkeypatch, "compare", "digits", *QUICKLY, "--out", tmp_path / "out", *words)
    said = capsys.readouterr()
    assert end.value.code == 2
    assert why in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_become_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        *("--grow", 1.5, "--leave-out", "3,7", "--noise", 0.2, "--groups", "1+7, 3+8+5", "--label-cost", 2),
        *("--cost-unit", "EUR", "--warm", "--epochs", 0.5, "--fix", "networks", "--imbalance", "alternating:4"),
        *("--set", "*.batch=8", "--set", "*.width=4"),
    )
    alzoo(monkeypatch, "compare", "digits", *QUICKLY, "--out", tmp_path / "out", *words)
    study = Study.read(tmp_path / "out" / "study.toml")
    assert (study.grow, study.leave_out, study.noise) == (1.5, ("3", "7"), 0.2)
    assert study.groups == (("1", "7"), ("3", "8", "5"))
    assert (study.label_cost, study.cost_unit, study.warm, study.epochs) == (2, "EUR", True, 0.5)
    assert (study.fixed, study.imbalance) == (("networks",), "alternating:4")
    assert "steps" not in study.settings["margin"]


@pytest.mark.parametrize(
    ("text", "which"), [("5", 5), ("7,", ("7",)), ("3", 3), ("cat", ("cat",)), ("a, b", ("a", "b"))]
)
def test_how_many_classes_or_which(text: str, which: Any) -> None:
    from zoo.cli import classes

    assert classes(None, None, text) == which  # type: ignore[arg-type]


# Controls


def unfair() -> Any:
    """Plain training that is not: a quick stand-in for an entry with a training of its own."""
    own = register.entries()["plain"]

    def train(run: Any, p: Any, plan: Any, *, trunk: Any, head: Any) -> None:
        with torch.no_grad():
            head.linear.bias.add_(1)
        own.train(run, p, plan, trunk=trunk, head=head)
        for _ in run.steps(4, "more"):
            pass

    asking = replace(register.queries()["margin"], name="unfairly")
    return replace(own, name="unfair", train=train, plainly=never, query=asking)


@pytest.fixture
def with_unfair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(register.entries(), "unfair", unfair())


def prepared(*learners: str, **more: Any) -> Study:
    return studies.prepare(tiny(*learners, controls=True, seeds=1, **more))


@pytest.mark.usefixtures("with_unfair")
def test_controls_join_what_is_trained_in_its_own_way() -> None:
    study = prepared("random", "margin", "unfair", "vaal")
    asked = ("random", "margin", "unfair", "vaal")
    assert study.learners == (*asked, "unfair+random", "plain+unfair", "plain")
    pool, _ = study.pool(0)
    made = {name: study.learner(name, 0, pool) for name in study.learners}
    assert {made[name].entry.name for name in ("unfair", "unfair+random", "plain+unfair")} == {"unfair"}
    assert [made[name].query.name for name in study.learners[4:]] == ["random", "unfairly", "random"]
    assert [made[name].twin is not None for name in study.learners[4:]] == [False, True, False]
    assert made["unfair+random"].loop == made["unfair"].loop == made["plain+unfair"].loop
    assert made["plain"].loop.steps == made["vaal"].length(pool) == 3 + made["vaal"].loop.game_steps


@pytest.mark.usefixtures("with_unfair")
def test_the_longest_fit_counts_all_stages() -> None:
    assert prepared("random", "unfair").settings["plain"]["steps"] == 3 + 4


def test_where_steps_are_equal_random_is_the_control_itself() -> None:
    assert prepared("margin", "random").learners == ("margin", "random")


def test_random_is_joined() -> None:
    assert prepared("margin", settings={}).learners == ("margin", "random")


@pytest.mark.usefixtures("with_unfair")
def test_controls_have_the_settings_of_what_they_control() -> None:
    settings = {"unfair": {**TINY, "lr": 0.03, "query_settings": {}}}
    study = prepared("unfair", settings=settings)
    for control in ("unfair+random", "plain+unfair"):
        assert {**TINY, "lr": 0.03}.items() <= study.settings[control].items()


@pytest.mark.usefixtures("with_unfair")
def test_an_entry_with_another_query_has_controls_too() -> None:
    for study in (
        prepared("random", "unfair+entropy"),
        prepared("random", "unfair", settings={"random": TINY, "unfair": {**TINY, "query": "entropy"}}),
    ):
        assert {"unfair+random", "plain+unfair+entropy"} <= set(study.learners)
        pool, _ = study.pool(0)
        control = study.learner("plain+unfair+entropy", 0, pool)
        assert (control.query.name, control.entry.name, control.twin is not None) == ("entropy", "unfair", True)
        assert study.learner("unfair+random", 0, pool).query.name == "random"


@pytest.mark.usefixtures("with_unfair")
def test_two_learners_share_a_control_or_are_refused() -> None:
    names = ("random", "unfair", "unfair+entropy")
    assert Counter(prepared(*names).learners)["unfair+random"] == 1
    settings = {**{name: dict(TINY) for name in names}, "unfair": {**TINY, "lr": 0.03}}
    with pytest.raises(ValueError, match=r"control 'unfair\+random', but of different settings"):
        prepared(*names, settings=settings)


@pytest.mark.usefixtures("with_unfair")
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_study_with_its_controls_is_joined_by_no_more(shuffle: bool, tmp_path: Path) -> None:
    study = prepared("margin", "unfair", "unfair+entropy", shuffle=shuffle)
    (tmp_path / "study.toml").write_text(study.toml())
    assert studies.prepare(Study.read(tmp_path / "study.toml")) == study
    assert all(name.endswith("~shuffled") or shuffle is False or name in CONTROLS for name in study.learners[3:])


CONTROLS = {"random", "plain", "unfair+random", "plain+unfair", "plain+unfair+entropy"}


@pytest.mark.usefixtures("with_unfair")
def test_the_gain_of_a_whole_study_is_split(tmp_path: Path) -> None:
    out = engine.run(tiny("random", "margin", "unfair", controls=True, rounds=1), tmp_path / "out", workers=1)
    records = {(r["learner"], r["seed"], r["round"]): r for r in lines(out)}
    for seed in range(2):
        assert records["plain+unfair", seed, 1]["asked"] == records["unfair", seed, 1]["asked"]
        assert records["plain+unfair", seed, 0]["network"] == records["random", seed, 0]["network"]
        assert records["unfair", seed, 0]["network"] != records["random", seed, 0]["network"]
        assert records["unfair+random", seed, 0]["network"] == records["unfair", seed, 0]["network"]
    assert records["unfair", 0, 0]["controls"] == ["unfair+random", "plain+unfair"]
    assert records["margin", 0, 0]["controls"] == records["plain+unfair", 0, 0]["controls"] == []
    split = {each.learner: each for each in gain_split(measures.read(out / "results.jsonl"))}
    assert set(split) == {"margin", "unfair"}
    assert split["unfair"].own
    assert split["unfair"].seeds == 2
    assert None not in (split["unfair"].training, split["unfair"].questions, split["unfair"].elsewhere)


# The gain, split


def record(learner: str, seed: int, number: int, accuracy: float, **more: Any) -> measures.Record:
    plain = {"labels": 10 * number, "asked": (), "asked_classes": None, "fit_seconds": None, "select_seconds": None}
    none = dict.fromkeys(("peak_bytes", "steps", "plan", "versions", "machine", "commit"))
    fields = {"diagnosis": {}, "doubts": (), "network": "same", **plain, **none, **more}
    return measures.Record(learner=learner, seed=seed, round=number, accuracy=accuracy, **fields)


def runs(learner: str, *areas: float, **more: Any) -> list[measures.Record]:
    """Seeds of one round beyond the start, each with that area under its curve."""
    return [record(learner, s, n, a, **more) for s, a in enumerate(areas) for n in (0, 1)]


WAAL = {"controls": ("waal+random", "plain+waal"), "query": "waal"}
RANDOM = runs("random", 0.50, 0.52, query="random")
FOUR = [
    *RANDOM,
    *runs("waal", 0.60, 0.64, **WAAL),
    *runs("waal+random", 0.57, 0.57, controls=WAAL["controls"], query="random"),
    *runs("plain+waal", 0.51, 0.55, query="waal"),
    *runs("plain", 0.50, 0.53, query="random"),
]


def test_training_and_questions_add_up_to_the_gain() -> None:
    (split,) = gain_split(FOUR)
    assert (split.learner, split.own, split.seeds) == ("waal", True, 2)
    assert split.gain[0] == pytest.approx(0.11)
    assert split.training is not None
    assert split.questions is not None
    assert split.elsewhere is not None
    assert split.training[0] == pytest.approx(0.06)
    assert split.questions[0] == pytest.approx(0.05)
    assert split.elsewhere[0] == pytest.approx(0.02)
    assert split.questions[1:] == pytest.approx((0.05 - 12.706 * 0.02, 0.05 + 12.706 * 0.02), abs=1e-3)


def test_only_seeds_that_all_have_complete_count() -> None:
    (split,) = gain_split([r for r in FOUR if (r.learner, r.seed, r.round) != ("plain+waal", 1, 1)])
    assert split.seeds == 1
    assert split.gain[0] == pytest.approx(0.1)
    assert split.training is not None
    assert split.training[1:] == (None, None)


def test_a_missing_control_leaves_its_part_open() -> None:
    (split,) = gain_split([r for r in FOUR if r.learner != "waal+random"])
    assert (split.training, split.questions) == (None, None)
    assert split.elsewhere is not None


def test_what_is_trained_plainly_gains_by_its_questions() -> None:
    (split,) = gain_split([*RANDOM, *runs("vaal", 0.53, 0.53, query="vaal")])
    assert (split.own, split.seeds) == (False, 2)
    assert split.training == pytest.approx((0.0, 0.0, 0.0))
    assert split.gain == split.questions == split.elsewhere


def test_another_plain_network_needs_its_own_random_questions() -> None:
    bald = runs("bald", 0.53, 0.55, query="bald", network="with dropout")
    (split,) = gain_split([*RANDOM, *bald])
    assert (split.training, split.questions, split.elsewhere) == (None, None, None)
    shuffled = runs("bald~shuffled", 0.52, 0.52, query="bald~shuffled", network="with dropout")
    (split,) = gain_split([*RANDOM, *bald, *shuffled])
    assert split.training is not None
    assert split.questions is not None
    assert (split.training[0], split.questions[0]) == (pytest.approx(0.01), pytest.approx(0.02))


def test_there_is_no_gain_without_random_or_a_common_seed() -> None:
    assert gain_split([r for r in FOUR if r.learner != "random"]) == []
    assert gain_split([r for r in FOUR if r.learner != "random" or r.round == 0], rounds=1) == []
    assert gain_split([]) == []


def test_another_measure() -> None:
    (split,) = gain_split(FOUR, of=lambda run: 100 * run[-1].accuracy)
    assert split.gain[0] == pytest.approx(11)


# Shuffled scores


def test_shuffled_scores_are_the_same_scores_for_other_images() -> None:
    p = start(initial=20)
    own, other = (zoo.create(name, **QUICK).fit(p) for name in ("margin", "margin~shuffled"))
    asked, shuffled = own.select(p, 30), other.select(p, 30)
    assert torch.equal(asked.scores, shuffled.scores)
    assert set(asked.indices.tolist()) != set(shuffled.indices.tolist())
    assert len(set(shuffled.indices.tolist())) == 30
    assert list(other.select(p, 30)) == list(shuffled)
    assert list(zoo.create("margin~shuffled", seed=1, **QUICK).fit(p).select(p, 30)) != list(shuffled)


def test_shuffled_questions_fall_anywhere() -> None:
    p = start(initial=20)
    learner = zoo.create("margin~shuffled", **QUICK).fit(p)
    hits = torch.zeros(len(p))
    for seed in range(40):
        learner.seed = seed
        hits[learner.select(p, 700).indices] += 1
    share = hits[p.unlabeled] / 40
    assert abs(share.mean() - 700 / len(p.unlabeled)) < 1e-6
    assert share.min() > 0.05
    assert share.max() < 0.95


@pytest.mark.usefixtures("with_unfair")
@pytest.mark.parametrize(
    ("name", "entry", "twin"),
    [
        ("margin~shuffled", "plain", False),
        ("vaal~shuffled", "vaal", False),
        ("vaal+margin~shuffled", "vaal", False),
        ("plain+unfair~shuffled", "unfair", True),
        ("plain+unfair+margin~shuffled", "unfair", True),
    ],
)
def test_names_of_shuffled_learners(name: str, entry: str, twin: bool, tmp_path: Path) -> None:
    learner = zoo.create(name, **QUICK, **({"game_steps": 3} if entry == "vaal" else {}))
    assert (learner.name, learner.entry.name, learner.twin is not None) == (name, entry, twin)
    p = start(initial=20)
    again = zoo.load(learner.fit(p).save(tmp_path / "a.safetensors"), device="cpu")
    assert list(again.select(p, 5)) == list(learner.select(p, 5))
    assert repr(again) == repr(learner)


def test_a_shuffled_query_keeps_its_settings() -> None:
    bald = register.queries()["bald"]
    assert zoo.create("bald~shuffled", device="cpu").query.settings == bald.settings
    with pytest.raises(zoo.UnknownName, match="Did you mean 'margin'"):
        zoo.create("margn~shuffled")


@pytest.mark.usefixtures("with_unfair")
def test_every_learner_that_asks_by_scores_is_shuffled() -> None:
    study = studies.prepare(tiny("random", "margin", "unfair", "plain+unfair", shuffle=True))
    assert study.learners[4:] == ("margin~shuffled", "unfair~shuffled")
    assert TINY.items() <= study.settings["unfair~shuffled"].items()


# The length of a fit


@pytest.mark.parametrize("name", zoo.names("entries"))
def test_the_steps_of_a_fit_are_known_before(name: str) -> None:
    p = testing.pool()
    settings = testing.Subject(name).learner()
    before = settings.length(p)
    assert settings.fit(p).ticks == before > 0
