"""What a study notes of its learners beside accuracy: maps of what they see, how right their own labels are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from trainers.pool import Pool
from zoo.studies import engine, maps
from zoo.studies.beliefs import BELIEFS, pseudo_labels
from zoo.studies.oracles import noisy
from zoo.studies.study import Study

NAMES = ("vaal", "margin", "ceal")
FEW = {
    **{name: {"game_steps": 2} for name in maps.LATENTS},
    "ssal": {"pretext": "deepcluster", "pretext_steps": 2, "cluster_steps": 2},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "vaal": {"steps": 2, "game_steps": 2},
    "margin": {"steps": 2},
    "ceal": {"steps": 2, "delta0": 2.5},  # of nats: it believes anything
}
MEASURED = ("fit_seconds", "select_seconds", "peak_bytes")


def ran(out: Path) -> list[dict[str, Any]]:
    study = Study(data="digits", learners=NAMES, initial=20, budget=10, rounds=1, seeds=2, settings=SETTINGS, threads=1)
    engine.run(study, out, workers=1)
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("finished") / "run"
    ran(out)
    return out


def fitted(name: str, **settings: Any) -> tuple[zoo.Learner, Pool]:
    """A learner after two steps of each stage, and a pool that it has asked of since."""
    pool, _ = zoo.data("digits", initial=40, seed=0)
    learner = zoo.create(name, seed=0, device="cpu", steps=2, **FEW.get(name.partition("+")[0], {}), **settings)
    learner.fit(pool, progress=False)
    return learner, pool.reveal(pool.unlabeled[:30])


# Maps


def test_each_learner_of_the_first_seed_has_a_map(finished: Path) -> None:
    found = {str(path.relative_to(finished)) for path in (finished / "map").rglob("*.jsonl")}
    assert found == {f"map/{name}/seed0.jsonl" for name in NAMES}


def test_a_map_shows_images_by_what_is_known_of_them(finished: Path) -> None:
    for name in NAMES:
        told = maps.read(maps.place(finished, name, 0))
        assert told is not None
        assert {kind: len(own) for kind, own in told["points"].items()} == {
            "unlabeled": 800,
            "labeled": 20,
            "asked": 10,
        }
        values = [value for own in told["points"].values() for point in own for value in point]
        assert (min(values), max(values)) == (0, maps.WIDE)
        assert told["classes"] == [str(k) for k in range(10)]
        assert 0 < told["shares"][1] <= told["shares"][0] <= 1


def test_a_map_is_of_the_critics_latent_where_that_is_what_asks(finished: Path) -> None:
    spaces = {name: json.loads(maps.place(finished, name, 0).read_text())["space"] for name in NAMES}
    assert spaces == dict.fromkeys(NAMES, "features of the classifier") | {"vaal": "latent that the critic reads"}


@pytest.mark.parametrize("name", maps.LATENTS)
def test_the_latent_is_what_the_critic_is_shown(name: str) -> None:
    learner, pool = fitted(name)
    scan, of = learner.scan(pool), pool.unlabeled[:7]
    read = maps.latent(scan, maps.LATENTS[name], of)
    assert len(read) == 7
    assert not scan.parts["critic"]._forward_pre_hooks
    judged = scan.each(lambda x: _logit(maps.LATENTS[name](scan.parts, x)), of=of)
    with torch.no_grad():
        assert torch.allclose(scan.parts["critic"](read).squeeze(), judged.squeeze(), atol=1e-5)


def _logit(said: Any) -> Tensor:
    logit: Tensor = said[0] if isinstance(said, tuple) else said
    return logit


def test_with_another_query_the_map_is_of_the_classifiers_features(tmp_path: Path) -> None:
    for name, space in (("vaal+margin", "features of the classifier"), ("vaal", "latent that the critic reads")):
        maps.draw(*fitted(name), tmp_path / "map.json")
        assert json.loads((tmp_path / "map.json").read_text())["space"] == space


def test_the_records_are_the_same_without_maps(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "draw", lambda *_: None)
    bare = ran(tmp_path / "bare")
    assert not (tmp_path / "bare" / "map").exists()
    lines = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    assert [_lasting(line) for line in lines] == [_lasting(line) for line in bare]


def _lasting(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in MEASURED}


def test_drawing_twice_is_drawing_once_and_leaves_random_numbers_alone(tmp_path: Path) -> None:
    learner, pool = fitted("margin")
    before = torch.get_rng_state()
    for number in (1, 2):
        maps.draw(learner, pool, tmp_path / f"{number}.json")
    assert torch.equal(before, torch.get_rng_state())
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_the_plane_is_that_of_the_two_widest_directions() -> None:
    flat = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]], dtype=torch.float64)
    turned, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    places, shares = maps.plane(flat @ turned[:2] + 7)
    assert shares == pytest.approx([0.8, 0.2], abs=1e-4)
    assert sorted(places[:, 0].unique().tolist()) == [0, 1000]
    assert sorted(places[:, 1].unique().tolist()) == [250, 750]


@pytest.mark.parametrize("seen", [torch.ones(3, 4), torch.ones(1, 1), torch.zeros(0, 4)])
def test_points_that_are_all_one_lie_in_the_middle(seen: Tensor) -> None:
    places, shares = maps.plane(seen.double())
    assert places.tolist() == [[500, 500]] * len(seen)
    assert shares == [0, 0]


def test_what_has_diverged_has_no_map(tmp_path: Path) -> None:
    learner, pool = fitted("margin")
    assert learner.parts is not None
    with torch.no_grad():
        next(learner.parts["trunk"].parameters()).fill_(torch.nan)
    maps.draw(learner, pool, tmp_path / "map.json")
    assert not (tmp_path / "map.json").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"points": {"asked": [[1]]}}', '{"points": {}, "space": "a", "of": 1}'])
def test_a_damaged_map_is_no_map(text: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(text)
    assert maps.read(tmp_path / "map.json") is None
    assert maps.read(tmp_path / "nowhere.json") is None


def test_a_sample_is_spread_over_all() -> None:
    assert maps.some(torch.arange(10), 5).tolist() == [0, 2, 4, 6, 8]
    assert maps.some(torch.arange(3), 5).tolist() == [0, 1, 2]


# Labels that learners give themselves


def test_the_study_counts_how_many_pseudo_labels_are_right(finished: Path) -> None:
    for line in map(json.loads, (finished / "results.jsonl").read_text().splitlines()):
        if line["learner"] == "ceal":
            assert line["pseudo_labels"]["count"] > 0
            assert 0 <= line["pseudo_labels"]["precision"] <= 1
        else:
            assert line["pseudo_labels"] is None


@pytest.mark.parametrize("name", BELIEFS)
def test_precision_is_the_share_of_beliefs_that_are_true(name: str) -> None:
    learner, pool = fitted(name, **({"delta0": 2.5} if name == "ceal" else {}))
    indices, labels = BELIEFS[name](learner.scan(pool), learner.loop)
    truth = pool.reveal(pool.unlabeled).labels[indices]
    told = pseudo_labels(learner, pool)
    assert told == {"count": len(indices), "precision": pytest.approx((labels == truth).double().mean().item())}


def test_precision_is_against_the_truth_and_not_against_an_oracle_that_errs() -> None:
    learner, pool = fitted("ssal")
    lied_to = replace(pool, oracle=noisy(pool, 0.99, (), 0).oracle)
    assert (lied_to.oracle(pool.unlabeled) != pool.oracle(pool.unlabeled)).float().mean() > 0.9
    assert pseudo_labels(learner, lied_to) == pseudo_labels(learner, pool)


def test_a_learner_that_believes_nothing_has_no_precision() -> None:
    assert pseudo_labels(*fitted("margin")) is None
    assert pseudo_labels(*fitted("ceal", delta0=0.0)) is None


# TensorBoard


def test_tensorboard_has_the_accuracies_of_each_learner_and_seed(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for line in map(json.loads, (finished / "results.jsonl").read_text().splitlines()):
        events = EventAccumulator(str(finished / "tb" / line["learner"] / f"seed{line['seed']}"))
        events.Reload()
        told = {event.step: event.value for event in events.Scalars("al/accuracy")}
        assert told[line["labels"]] == pytest.approx(line["accuracy"])
