"""Creating, saving, loading, fine-tuning: what a learner does beyond the laws."""

import json
import logging
import math
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
import zoo
from zoo import register
from zoo.entry import Preset
from zoo.testing import CLASSES, SHAPE, Subject, alike, pool, same, weights

QUICK = {"steps": 2, "batch": 8, "width": 4, "device": "cpu"}


def fitted(name="plain", **settings):
    return zoo.create(name, **{**QUICK, **settings}).fit(pool())


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: zoo.create("val"), "Did you mean 'vaal'"),
        (lambda: zoo.create("vaal+margn"), "Did you mean 'margin'"),
        (lambda: zoo.create("vaal", query="margn"), "Did you mean 'margin'"),
        (lambda: zoo.create("vaal", plan="papr"), "Did you mean 'paper'"),
        (lambda: zoo.create("plain", plan="paper"), "no paper of its own"),
        (lambda: zoo.create("vaal", pretrained="digits9"), "no set of weights"),
        (lambda: zoo.data("digit", initial=4, seed=0), "Did you mean 'digits'"),
        (lambda: zoo.names("entry"), "Did you mean 'entries'"),
    ],
)
def test_unknown_names_get_the_closest_one(act, word):
    with pytest.raises(zoo.UnknownName, match=word):
        act()
    assert issubclass(zoo.UnknownName, LookupError)


@pytest.mark.parametrize(
    ("settings", "kind", "word"),
    [
        ({"stepz": 3}, TypeError, "Did you mean 'steps'"),
        ({"query_settings": {"beta": 1}}, TypeError, "has no setting 'beta'"),
        ({"query": "bald", "query_settings": {"draws": "many"}}, ValueError, "draws='many' must be a whole number"),
        (
            {"query": "waal", "query_settings": {"weight": float("nan")}},
            ValueError,
            "weight=nan must be in",
        ),
        ({"steps": 2.5}, ValueError, "steps=2.5 must be a whole number"),
        ({"lr": float("nan")}, ValueError, "lr=nan must be above 0"),
        ({"steps": True}, ValueError, "must be a whole number"),
        ({"compiled": "no"}, ValueError, "compiled='no' must be of type bool"),
        ({"captured": 1}, ValueError, "captured=1 must be of type bool"),
        ({"captured": True, "devices": 2}, ValueError, "captured=True is for one device, not 2"),
        ({"lr": "fast"}, ValueError, "must be of type float"),
        ({"lr": 0}, ValueError, "lr=0 must be above 0"),
        ({"steps": -1}, ValueError, "steps=-1 must be at least 0"),
        ({"width": 0}, ValueError, "width=0 must be at least 1"),
        ({"schedule": "sine"}, ValueError, "must be one of"),
        ({"augment": "fip"}, ValueError, "must be one of"),
        ({"device": "gpu"}, ValueError, "must be auto, cpu, cuda"),
        ({"device": "cuda:99"}, ValueError, "CUDA devices"),
        ({"precision": "16-mixed"}, ValueError, "must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(settings, kind, word):
    with pytest.raises(kind, match=word):
        zoo.create("plain", **settings)


def test_what_needs_another_part_is_refused_before_training():
    needy = replace(register.queries()["margin"], needs=("vae",))
    with pytest.raises(ValueError, match="needs vae, which plain has not; it has trunk, head"):
        zoo.create("plain", query=needy, **QUICK).fit(pool())
    with pytest.raises(ValueError, match="no part 'tunk' to freeze; plain has trunk, head"):
        zoo.create("plain", freeze="tunk", **QUICK).fit(pool())


def test_who_learns_from_images_alone_has_what_a_query_of_a_pretext_needs():
    needy = replace(register.queries()["margin"], needs=("pretext",))
    assert zoo.create("gaal", query=needy, device="cpu").build(SHAPE, CLASSES).keys() >= {"trunk", "head"}
    with pytest.raises(ValueError, match="needs pretext, which plain has not"):
        zoo.create("plain", query=needy, device="cpu").build(SHAPE, CLASSES)


def test_a_whole_number_does_for_a_float():
    assert zoo.create("plain", lr=1).loop.lr == 1
    assert zoo.create("plain", dropout=0).build(SHAPE, CLASSES)["head"].dropout.__class__ is torch.nn.Identity


@pytest.mark.parametrize("name", ["vaal", "ta_vaal", "llal", "waal"])
def test_a_diagnosis_looks_at_images_of_the_pools_kind_and_at_two_at_least(name):
    learner = fitted(name)
    with pytest.raises(ValueError, match=r"images are .* for this learner"):
        learner.diagnose(pool(), torch.zeros(4, 1, 9, 9, dtype=torch.uint8))
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"{few} held-out images say nothing"):
            learner.diagnose(pool(), pool().images[:few])


def test_a_fit_is_known_by_all_of_its_images():
    """However large the pool: what was made of other images is never taken for what these make."""
    images = torch.randint(0, 256, (2_500, 1, 8, 8), dtype=torch.uint8)
    other = images.clone()
    other[1::2] = 255 - other[1::2]
    pools = [zoo.Pool.of(some, torch.zeros(2_500).long(), 2).reveal([0, 1]) for some in (images, other, images.clone())]
    learner = zoo.create("gaal", gan_steps=1, **QUICK)
    keys = [(learner.fit_key(p), learner.pretext_key(p)) for p in pools]
    assert keys[0] == keys[2]
    assert not {*keys[0]} & {*keys[1]}
    images[7] = 0
    assert learner.fit_key(pools[0]) != keys[0][0]
    with torch.inference_mode():
        frozen = replace(pools[1], images=other.clone())
    assert learner.fit_key(frozen) == keys[1][0]
    nhwc = replace(pools[1], images=other.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
    assert learner.fit_key(nhwc) == keys[1][0]


def test_what_the_query_draws_is_part_of_a_fit_that_draws_the_same():
    def key(asking, **settings):
        seed = {"networks": 0, "batches": 0, "queries": asking}
        return zoo.create("ta_vaal", seed=seed, device="cpu", **settings).fit_key(pool())

    assert key(0) == key(1)
    assert key(0, subset=5) != key(1, subset=5)


def test_settings_replace_the_presets_one_by_one():
    released = zoo.create("vaal", plan="released", steps=7, latent=9)
    assert (released.loop.steps, released.nets["latent"]) == (7, 9)
    assert (released.loop.vae_steps, released.nets["trunk"], released.augment) == (2, "vgg16_bn", "flip")
    assert register.entries()["vaal"].plans["released"].loop.steps == 39_062


def test_repr_shows_every_resolved_setting():
    learner = zoo.create("vaal+margin", seed=3, beta=0.5, freeze="trunk")
    for name, value in {**learner.settings, "seed": 3, "augment": "none", "query": "margin"}.items():
        assert f"{name}={value!r}" in repr(learner)
    assert "not fitted" in repr(learner)


def test_names_plus_and_query_are_one_thing():
    p = pool()
    one, other = zoo.create("plain+margin", **QUICK), zoo.create("plain", query="margin", **QUICK)
    assert one.name == other.name == "plain+margin"
    assert alike(one.fit(p).select(p, 4), other.fit(p).select(p, 4))
    assert alike(one.select(p, 4), zoo.create("margin", **QUICK).fit(p).select(p, 4))
    with pytest.raises(ValueError, match="already"):
        zoo.create("plain+margin", query="entropy")
    with pytest.raises(ValueError, match="is a query itself"):
        zoo.create("margin", query="entropy")


def test_other_packages_are_found_through_entry_points(monkeypatch):
    import zoo.queries.uncertainty as home

    mine = replace(register.queries()["margin"], name="mine")
    monkeypatch.setattr(home, "mine", mine, raising=False)
    point = EntryPoint("mine", "zoo.queries.uncertainty:mine", "alzoo.queries")
    monkeypatch.setattr(register, "entry_points", lambda group: [point] if group == point.group else [])
    register.queries.cache_clear()
    try:
        assert "mine" in zoo.names("queries")
        assert zoo.create("vaal+mine").query is mine
    finally:
        register.queries.cache_clear()


@pytest.mark.parametrize("name", ["plain", "vaal"])
def test_bf16_keeps_logits_and_critics_in_fp32_and_close(name):
    p = pool()
    full, half = (Subject(name).learner(precision=precision).fit(p).scan(p) for precision in ("32-true", "bf16-mixed"))
    assert half.probs.dtype == half.features.dtype == torch.float32
    assert torch.allclose(full.probs, half.probs, atol=0.1)
    assert not torch.equal(full.features, half.features)


def test_auto_precision_is_resolved_and_recorded():
    learner = zoo.create("plain", precision="auto", device="cpu")
    assert learner.precision in ("32-true", "bf16-mixed")
    assert f"precision={learner.precision!r}" in repr(learner)


def test_frozen_parts_keep_their_weights_and_their_statistics():
    def trunk_and_head(**settings):
        after = weights(fitted(freeze="trunk", **settings))
        return {k: v for k, v in after.items() if k.startswith("trunk.")}, after["head.linear.weight"]

    few, more = trunk_and_head(steps=1), trunk_and_head(steps=5)
    assert same(few[0], more[0])
    assert all(v == 0 for k, v in few[0].items() if k.endswith("num_batches_tracked"))
    assert not torch.equal(few[1], more[1])


def test_a_pretrained_file_counts_as_fitted_and_fit_goes_on_from_it(tmp_path):
    p = pool()
    base = fitted(steps=3)
    path = base.save(tmp_path / "base.safetensors")
    learner = zoo.create("margin", pretrained=str(path), steps=0, batch=8, device="cpu")
    assert learner.nets["width"] == 4
    assert torch.equal(learner.predict(p.images), base.predict(p.images))
    assert len(learner.select(p, 3)) == 3
    assert same(weights(base), weights(learner.fit(p))), "no step: what it started from"
    with pytest.raises(ValueError, match="width=8, but the networks"):
        zoo.create("plain", pretrained=str(path), width=8)


def test_fit_on_other_classes_replaces_the_head_alone(tmp_path):
    path = fitted(steps=3).save(tmp_path / "base.safetensors")
    p = pool()
    five = zoo.Pool.of(p.images, torch.arange(len(p)) % 5, 5).reveal(torch.arange(12))
    learner = zoo.create("plain", pretrained=str(path), steps=0, batch=8, device="cpu")
    with pytest.raises(ValueError, match="was fitted to"):
        learner.select(five, 2)
    before = weights(learner)
    after = weights(learner.fit(five))
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("trunk."))
    assert after["head.linear.weight"].shape == (5, 16)
    assert learner.predict(five.images[:2]).shape == (2, 5)


def test_weights_are_found_by_tag_and_verified(tmp_path, monkeypatch):
    path = fitted(steps=3).save(tmp_path / "plain.safetensors")
    digest = sha256(path.read_bytes()).hexdigest()
    line = f'[plain.tiny]\nfile = "{path.name}"\nsha256 = "{digest}"\nbytes = {path.stat().st_size}\ndata = "noise"\n'
    (tmp_path / "manifest.toml").write_text(line)
    (found,) = checkpoints.table(tmp_path / "manifest.toml")
    assert (found.name, found.about["data"]) == ("plain.tiny", "noise")
    assert checkpoints.fetch(found, tmp_path / "cache", beside=tmp_path) == path
    with monkeypatch.context() as here:
        here.setattr(checkpoints, "table", lambda: [found])
        here.setattr(checkpoints, "fetch", lambda *_: path)
        assert zoo.weights("plain.*") == [found]
        assert zoo.weights("vaal.*") == []
        assert len(zoo.create("entropy", pretrained="tiny", device="cpu").select(pool(), 2)) == 2
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.fetch(found, tmp_path / "cache", beside=tmp_path)


def test_a_saved_file_is_safetensors_with_a_card(tmp_path):
    learner = fitted("vaal", vae_width=4, game_steps=2)
    path = learner.save(tmp_path / "vaal.safetensors")
    assert same(load_file(path), weights(learner))
    card, _ = checkpoints.read(path)
    assert json.loads(json.dumps(card)) == card
    assert (card["name"], tuple(card["shape"]), card["classes"], card["seed"]) == ("vaal", SHAPE, CLASSES, 0)
    assert card["settings"] == learner.settings


def test_files_that_cannot_be_read_say_why(tmp_path):
    path = fitted().save(tmp_path / "a.safetensors")
    torn, foreign, newer = (tmp_path / f"{name}.safetensors" for name in ("torn", "foreign", "newer"))
    torn.write_bytes(path.read_bytes()[:-100])
    save_file({"x": torch.zeros(1)}, foreign)
    card, tensors = checkpoints.read(path)
    save_file(tensors, newer, metadata={"alzoo": json.dumps({**card, "format": 99})})
    for file, kind, word in (
        (tmp_path / "none.safetensors", FileNotFoundError, "no file"),
        (torn, ValueError, "no whole safetensors file"),
        (foreign, ValueError, "no alzoo card"),
        (newer, ValueError, "newer"),
    ):
        with pytest.raises(kind, match=word):
            zoo.load(file)


def test_a_card_that_lacks_anything_it_needs_cannot_be_read(tmp_path):
    card, tensors = checkpoints.read(fitted().save(tmp_path / "a.safetensors"))
    optional = {"alzoo", "captured", "compiled", "lr_scale"}
    for key in sorted(card.keys() - optional):
        less = {other: value for other, value in card.items() if other != key}
        save_file(tensors, tmp_path / "b.safetensors", metadata={"alzoo": json.dumps(less)})
        with pytest.raises(ValueError, match=f"'{key}'.*not written by alzoo"):
            zoo.load(tmp_path / "b.safetensors")
    less = {key: value for key, value in card.items() if key not in optional}
    save_file(tensors, tmp_path / "b.safetensors", metadata={"alzoo": json.dumps(less)})
    assert zoo.load(tmp_path / "b.safetensors", device="cpu").name == card["name"]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": [1]},
        {"settings": [1]},
        {"settings": {"nonsense": 1}},
        {"classes": "ten"},
        {"classes": 10**12},
        {"shape": "abc"},
        {"plan": []},
        {"freeze": 3},
    ],
    ids=str,
)
def test_a_card_of_nonsense_is_refused_with_the_name_of_its_file(tmp_path, changed):
    card, tensors = checkpoints.read(fitted().save(tmp_path / "a.safetensors"))
    save_file(tensors, tmp_path / "b.safetensors", metadata={"alzoo": json.dumps({**card, **changed})})
    with pytest.raises(ValueError, match=r"b\.safetensors"):
        zoo.load(tmp_path / "b.safetensors")


def test_a_card_without_bottom_is_refused(tmp_path):
    _, tensors = checkpoints.read(fitted().save(tmp_path / "a.safetensors"))
    save_file(tensors, tmp_path / "b.safetensors", metadata={"alzoo": 100_000 * "["})
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoints.read(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "other", [{"a": 1}, torch.zeros(3), b"rubbish", b""], ids=["dict", "tensor", "rubbish", "empty"]
)
def test_a_file_that_is_no_snapshot_is_refused_and_left_alone(tmp_path, other):
    path = tmp_path / "x.pt"
    if isinstance(other, bytes):
        path.write_bytes(other)
    else:
        torch.save(other, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"x\.pt is no (whole )?snapshot"):
        zoo.create("plain", **QUICK).fit(pool(), snapshot=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: t.pop("head.linear.bias"), "head.linear.bias"),
        (lambda t: t.update({"more": torch.zeros(1)}), "more"),
        (lambda t: t.update({"head.linear.bias": torch.zeros(9)}), r"\(9,\)"),
    ],
)
def test_weights_of_other_networks_are_refused(tmp_path, change, word):
    card, tensors = checkpoints.read(fitted().save(tmp_path / "a.safetensors"))
    change(tensors)
    save_file(tensors, tmp_path / "b.safetensors", metadata={"alzoo": json.dumps(card)})
    with pytest.raises(ValueError, match=word):
        zoo.load(tmp_path / "b.safetensors")


def test_save_never_overwrites_unless_told_to_and_never_leaves_half_a_file(tmp_path):
    learner = fitted()
    path = learner.save(tmp_path / "a.safetensors")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        learner.save(path)
    assert path.read_bytes() == before
    other = zoo.create("plain", **{**QUICK, "seed": 5}).fit(pool())
    other.save(path, overwrite=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RuntimeError, match="not fitted"):
        zoo.create("plain").save(tmp_path / "b.safetensors")


def test_images_of_many_shapes():
    for shape in ((1, 8, 8), (3, 10, 10), (1, 28, 28), (3, 31, 33), (5, 16, 12)):
        chance = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (14, *shape), dtype=torch.uint8, generator=chance)
        p = zoo.Pool.of(images, torch.arange(14) % 2, 2).reveal(torch.arange(6))
        learner = Subject("vaal").learner(augment="flip+shift").fit(p)
        assert len(learner.select(p, 3)) == 3
        assert learner.rebuild(images[:2]).shape == (2, *shape)


def test_images_may_lie_in_any_order_in_memory():
    p = pool()
    nhwc = replace(p, images=p.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
    learner = Subject("vaal").learner()
    once, first = weights(learner.fit(p)), learner.select(p, 4)
    assert same(once, weights(learner.fit(nhwc)))
    assert alike(first, learner.select(nhwc, 4))


def test_made_images_are_trained_on_and_never_asked():
    p = pool()
    made = torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    more = p.admit(made, [0, 1, 2, 0, 1, 2])
    learner = Subject("vaal").learner()
    assert not same(weights(learner.fit(p)), weights(learner.fit(more)))
    assert torch.isin(learner.select(more, len(p.unlabeled)).indices, p.unlabeled).all()


def test_a_custom_plan_object_can_be_an_entry_of_its_own():
    entry = replace(
        register.entries()["plain"], name="slow", plans={"ours": Preset(replace(zoo.create("plain").loop, steps=1))}
    )
    assert zoo.create(entry).loop.steps == 1
    assert zoo.create(entry).name == "slow"


def test_warnings_of_a_fit_go_to_the_log_once(caplog):
    p = pool()
    full = p.reveal(p.unlabeled)
    with caplog.at_level(logging.WARNING, "alzoo"):
        Subject("vaal").learner().fit(full)
    assert len(caplog.records) == 1


def test_tensorboard_files_are_written_where_asked(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Subject("vaal").learner().fit(pool(), journal=tmp_path / "tb")
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert {"task/loss", "vae/kl", "critic/auc"} <= set(events.Tags()["scalars"])


def test_what_is_saved_under_a_name_of_the_zoos_is_the_zoos(tmp_path):
    p = pool()
    mine = replace(register.queries()["entropy"], name="margin")
    with pytest.raises(ValueError, match="not the zoo's 'margin'"):
        zoo.create(mine, **QUICK).fit(p).save(tmp_path / "a.safetensors")


def test_ones_own_entry_and_query_are_loaded_by_giving_them(tmp_path):
    p = pool()
    gini = zoo.Query("gini", lambda scan, n, power=2.0: zoo.top(-scan.probs.pow(power).sum(1), n), paper="ours")
    toy = replace(register.entries()["plain"], name="toy")
    for made, own in (
        (zoo.create(gini, query_settings={"power": 3.0}, **QUICK), {"query": gini}),
        (zoo.create(toy, **QUICK), {"entry": toy}),
        (zoo.create(toy, query=gini, **QUICK), {"entry": toy, "query": gini}),
        (zoo.create("plain", query=gini, **QUICK), {"query": gini}),
    ):
        path = made.fit(p).save(tmp_path / f"{made.name}.safetensors")
        with pytest.raises(zoo.UnknownName, match="load"):
            zoo.load(path)
        again = zoo.load(path, device="cpu", **own)
        assert again.name == made.name
        assert alike(made.select(p, 4), again.select(p, 4))
        assert repr(again) == repr(made)


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path):
    path = fitted().save(tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    zoo.load(path)
    zoo.create("plain", pretrained=path, device="cpu")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("frozen", [("vae",), ("critic",), ("trunk", "head"), ("vae", "critic", "trunk", "head")])
def test_any_part_can_be_frozen_and_the_others_learn(frozen):
    p = pool()
    few, more = (
        weights(Subject("vaal").learner(steps=steps, game_steps=steps, freeze=frozen).fit(p)) for steps in (2, 4)
    )
    for part in ("trunk", "head", "vae", "critic"):
        held = all(torch.equal(few[k], more[k]) for k in few if k.startswith(f"{part}."))
        assert held == (part in frozen), part


@pytest.mark.parametrize("name", ["margin", "vaal"])
def test_a_fit_that_diverges_in_its_last_step_is_not_taken_for_one(name):
    with pytest.raises(zoo.Diverged) as caught:
        zoo.create(name, **{**QUICK, "steps": 1}, lr=1e38, schedule="constant").fit(pool())
    assert caught.value.player
    assert caught.value.step >= 0


def test_start_weights_that_do_not_fit_the_images_stay_fresh_and_it_is_said_so(caplog):
    small = Subject("vaal").learner().fit(pool())
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=chance)
    larger = zoo.Pool.of(images, torch.arange(12) % 3, 3).reveal([0, 1, 2, 3])
    assert len(small.warm().fit(larger).select(larger, 2)) == 2
    assert "vae do not fit images of (3, 16, 16)" in caplog.text


@pytest.mark.parametrize("seed", ["a", 1.5, None, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed="):
        zoo.create("plain", seed=seed)
    with pytest.raises(ValueError, match="seed="):
        zoo.data("digits", initial=4, seed=seed)


def test_numbers_of_numpy_and_torch_do(tmp_path):
    p = pool()
    learner = zoo.create("plain", **{**QUICK, "steps": np.int64(2)}, seed=torch.tensor(3), lr=np.float32(0.5)).fit(p)
    assert zoo.load(learner.save(tmp_path / "a.safetensors")).seed == 3
    assert len(learner.select(p, np.int64(2))) == 2


@pytest.mark.parametrize("what", [None, 3, ["vaal"]])
def test_a_learner_is_a_name_an_entry_or_a_query(what):
    with pytest.raises((TypeError, zoo.UnknownName)):
        zoo.create(what)
    with pytest.raises(TypeError, match="an Entry or a Query"):
        zoo.create("plain", query=3)


@pytest.mark.parametrize(
    "answer",
    [
        zoo.Asked(torch.tensor([0, 1, -1]), torch.zeros(3)),
        zoo.Asked(torch.tensor([0, 1, 99]), torch.zeros(3)),
        zoo.Asked(torch.tensor([0, 1, 1]), torch.zeros(3)),
        zoo.Asked(torch.tensor([0, 1, 2]), torch.zeros(2)),
        zoo.Asked(torch.tensor([0, 1, 2]), torch.tensor([1.0, 2.0, 3.0])),
        zoo.Asked(torch.tensor([0, 1, 2]), torch.tensor([3.0, math.nan, 1.0])),
        zoo.Asked(torch.tensor([0, 1, 2]), torch.zeros(3), {"raw": torch.zeros(2)}),
    ],
    ids=["negative", "beyond", "twice", "few scores", "rising scores", "no numbers", "short detail"],
)
def test_a_broken_answer_of_a_query_is_never_passed_on(answer):
    p = pool()
    with pytest.raises(RuntimeError, match="the query 'odd' is broken"):
        zoo.create(zoo.Query("odd", lambda *_: answer, paper="-"), **QUICK).fit(p).select(p, 3)


def test_a_plan_tells_its_own_query_what_the_paper_says_and_no_other():
    assert zoo.create("ta_vaal", plan="paper", device="cpu").query_settings == {"subset": 10_000}
    assert zoo.create("ta_vaal", device="cpu").query_settings == {"subset": 0}
    assert zoo.create("ta_vaal+margin", plan="paper", device="cpu").query_settings == {}
    told = zoo.create("ta_vaal", plan="paper", device="cpu", query_settings={"subset": 7})
    assert told.query_settings == {"subset": 7}
