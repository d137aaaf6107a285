"""Fit on from pretrained weights: other classes, other colours, frozen parts, and parts on their own."""

import logging

import pytest
import torch
from torch import nn

import zoo
from zoo.cli import settings
from zoo.parts import coloured
from zoo.studies.study import Study
from zoo.testing import CLASSES, SHAPE, Subject, pool, weights

ENTRIES = zoo.names("entries")


def images(shape, classes, n=24):
    """A pool of random images, half of them labeled."""
    chance = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=chance)
    return zoo.Pool.of(pixels, torch.arange(n) % classes, classes).reveal(torch.arange(n // 2))


@pytest.fixture(scope="module", params=ENTRIES)
def base(request, tmp_path_factory):
    """A learner of each entry, and its file."""
    learner = Subject(request.param).learner().fit(pool())
    return learner, learner.save(tmp_path_factory.mktemp("base") / f"{request.param}.safetensors")


def started(base, **settings):
    """A quick learner of the same entry that starts from the file."""
    learner, path = base
    taken = {key: value for key, value in learner.settings.items() if key not in learner.nets}
    return zoo.create(learner.name, pretrained=path, device="cpu", **{**taken, **settings})


def test_other_classes_replace_the_layers_of_classes_and_nothing_else(base):
    learner, _ = base
    build = learner.entry.build
    kinds = [nn.ModuleDict(build(SHAPE, k, **learner.nets)).state_dict() for k in (CLASSES, 5)]
    parts = started(base).build(SHAPE, 5).state_dict()
    for name, value in weights(learner).items():
        if kinds[0][name].shape == kinds[1][name].shape:
            assert torch.equal(parts[name], value), name
        else:
            assert parts[name].shape == kinds[1][name].shape


def test_it_fits_other_classes_other_colours_and_other_sizes(base):
    for shape, classes in ((SHAPE, 5), ((1, 8, 8), CLASSES), ((3, 16, 12), 2)):
        p = images(shape, classes)
        learner = started(base)
        with pytest.raises(ValueError, match="was fitted to"):
            learner.select(p, 2)
        asked = learner.fit(p).select(p, 2)
        assert len(asked.scores) == 2
        assert learner.predict(p.images[:3]).shape == (3, classes)


def test_a_grey_image_gives_the_features_that_it_gave_in_colour(base, caplog):
    grey = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    learner = started(base)
    before = learner.parts["trunk"].eval()(grey.expand(-1, 3, -1, -1))
    with caplog.at_level(logging.WARNING, "alzoo"):
        parts = learner.build((1, 8, 8), CLASSES)
    assert torch.allclose(parts["trunk"].eval()(grey), before, atol=1e-5)
    assert f"{learner.name}: trunk.body.stage1.0.0" in caplog.text
    assert "another number of colours" in caplog.text


def test_the_same_images_and_classes_need_no_word(base, caplog):
    with caplog.at_level(logging.WARNING, "alzoo"):
        started(base).build(SHAPE, CLASSES)
    assert caplog.text == ""


@pytest.mark.parametrize("frozen", ["trunk", ("trunk", "head")])
def test_frozen_parts_stay_as_they_were_trained(base, frozen):
    learner, _ = base
    before = weights(learner)
    after = weights(started(base, freeze=frozen).fit(pool(seed=1)))
    assert all(torch.equal(before[key], after[key]) for key in before if key.split(".")[0] in frozen)


ONCE = {"steps": 1, "game_steps": 1, "lp_steps": 1, "alone": 0.0, "trust": 0.0}  # one step in which all take part


def moved(learner, fitted):
    """How far each part's parameters are from where they were: by part, one long row each."""
    pairs = {name: (learner.parts[name].parameters(), part.parameters()) for name, part in fitted.parts.items()}
    apart = {name: [(new - old).flatten() for old, new in zip(*pair, strict=True)] for name, pair in pairs.items()}
    return {name: torch.cat(rows).detach() for name, rows in apart.items() if rows}


def test_one_step_takes_a_scaled_part_so_much_as_far(base):
    learner, _ = base
    once = {name: value for name, value in ONCE.items() if name in learner.settings}
    whole = moved(learner, started(base, **once).fit(pool()))
    still = {name for name, row in whole.items() if not row.any()}
    assert still == ({"generator", "discriminator"} if learner.name == "gaal" else set())  # its pretext is over
    for part, row in whole.items():
        half = moved(learner, started(base, **once, lr_scale={part: 0.5}).fit(pool()))
        assert torch.allclose(half[part], row / 2, rtol=1e-2, atol=1e-6), part


def test_parts_scaled_to_nothing_stay_as_they_were(base):
    learner, _ = base
    before = weights(learner)
    for part in moved(learner, learner):  # those that have parameters
        after = weights(started(base, lr_scale={part: 0}).fit(pool(seed=1)))
        assert all(torch.equal(before[key], after[key]) for key in before if key.split(".")[0] == part), part


@pytest.mark.parametrize("name", ["gaal", "ssal"])
def test_the_pretext_scales_too(name):
    def made(**settings):
        learner = Subject(name).learner(**settings).fit(pool())
        return learner.build(SHAPE, CLASSES), learner.begun[1]

    part = "generator" if name == "gaal" else "trunk"
    plan = {"gan_steps": 1} if name == "gaal" else {"pretext": "deepcluster", "pretext_steps": 1}
    (start, whole), (_, half) = made(**plan), made(**plan, lr_scale={part: 0.5})
    for key, value in start[part].named_parameters(part):
        assert torch.allclose(half[key] - value, (whole[key] - value) / 2, rtol=1e-2, atol=1e-6)


def test_no_scale_and_a_scale_of_one_are_the_same_bit_by_bit(base):
    learner, _ = base
    plain, ones = (started(base, lr_scale=scale).fit(pool()) for scale in (None, dict.fromkeys(learner.parts, 1)))
    assert all(torch.equal(value, weights(ones)[key]) for key, value in weights(plain).items())


def test_scales_are_on_the_card_and_come_back_with_the_file(tmp_path):
    learner = Subject("vaal").learner(lr_scale={"trunk": 0.1, "vae": 2}).fit(pool())
    assert "lr_scale={'trunk': 0.1, 'vae': 2.0}" in repr(learner)
    again = zoo.load(learner.save(tmp_path / "vaal.safetensors"), device="cpu")
    assert again.lr_scale == learner.card()["lr_scale"] == learner.warm().lr_scale == {"trunk": 0.1, "vae": 2.0}


def test_a_study_hands_the_scales_to_its_learner(tmp_path):
    given = settings(["plain.lr_scale={trunk=0.1}"], ("plain",))
    study = Study(data="digits", learners=("plain",), settings=given)
    (tmp_path / "study.toml").write_text(study.toml())
    again = Study.read(tmp_path / "study.toml")
    assert again == study
    assert again.learner("plain", 0, pool()).lr_scale == {"trunk": 0.1}


def test_a_plain_twin_has_the_scales_of_its_parts():
    learner = Subject("aral").learner(training="plain", lr_scale={"trunk": 0.1, "critic": 2})
    assert learner.twin.lr_scale == {"trunk": 0.1}
    assert learner.fit(pool()).twin.parts is not None


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"tunk": 0.1}, "no part 'tunk' to scale; vaal has trunk, head, vae, critic"),
        ({"trunk": -1}, "must be at least 0, and finite"),
        ({"trunk": float("nan")}, "must be at least 0, and finite"),
        ({"trunk": float("inf")}, "must be at least 0, and finite"),
        ({"trunk": "slow"}, "must be of type float"),
        (0.1, "must be a table of parts and factors"),
    ],
    ids=str,
)
def test_scales_that_make_no_sense_are_refused(scale, said):
    with pytest.raises(ValueError, match=said):
        Subject("vaal").learner(lr_scale=scale).fit(pool())


def test_parts_can_be_taken_out_and_used_alone(base):
    learner, path = base
    again = zoo.load(path, device="cpu")
    assert set(again.parts) == set(learner.parts)
    assert again.parts["trunk"](torch.zeros(2, *SHAPE)).shape[0] == 2


def test_weights_of_another_entry_are_refused(tmp_path):
    path = Subject("plain").learner().fit(pool()).save(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="the weights of plain, cannot be those of vaal: these weights are of other"):
        zoo.create("vaal", pretrained=path, device="cpu")


def test_what_sees_colours_shares_them_out_and_what_makes_them_averages():
    sees, told = nn.Conv2d(1, 5, 3), nn.Conv2d(2, 5, 3)
    makes, last = nn.ConvTranspose2d(5, 3, 4), nn.Conv2d(5, 3, 1)
    wide = coloured(sees, "weight", sees.weight, 1, 3)
    assert torch.allclose(wide.sum(1), sees.weight[:, 0])
    assert torch.allclose(coloured(nn.Conv2d(3, 5, 3), "weight", wide, 3, 1), sees.weight)
    more = coloured(told, "weight", told.weight, 1, 3)
    assert torch.equal(more[:, 3], told.weight[:, 1])
    assert torch.allclose(coloured(makes, "weight", makes.weight, 3, 1)[:, 0], makes.weight.mean(1))
    assert torch.allclose(coloured(last, "weight", last.weight, 3, 1)[0], last.weight.mean(0))
    assert torch.allclose(coloured(last, "bias", last.bias, 3, 1), last.bias.mean(0, keepdim=True))
    assert coloured(nn.Linear(3, 3), "weight", torch.zeros(3, 3), 3, 1) is None
    assert coloured(nn.BatchNorm2d(3), "weight", torch.zeros(3), 3, 1) is None
