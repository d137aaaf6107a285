"""Draws under dropout, and what is asked by them."""

import math

import pytest
import torch
from torch import nn

import zoo
from zoo.scan import Scan, dropouts
from zoo.testing import CLASSES, Subject, pool


def scan(**settings):
    p = pool()
    return Subject("bald").learner(**settings).fit(p).scan(p)


def test_a_draw_is_the_head_under_one_mask_for_all_images():
    s = scan()
    (log,) = s.draws(1)
    d = s.features.shape[1]
    mask = (torch.rand(d, generator=s.generator("draw 0")) >= 0.5).float() * 2
    head = s.parts["head"].linear
    assert torch.allclose(log, head(s.features * mask).log_softmax(1), atol=1e-6)


def test_draws_differ_repeat_and_leave_no_trace():
    s = scan()
    first, second = (log.clone() for log in s.draws(2))
    assert not torch.allclose(first, second)
    assert torch.equal(first, next(iter(s.draws(1))))
    assert torch.allclose(s.logits.log_softmax(1), Scan(s.pool, s.parts).logits.log_softmax(1))
    assert not [hook for layer in dropouts(s.parts) for hook in layer._forward_hooks.values()]


def test_dropout_in_a_trunk_is_drawn_too_maps_at_a_time():
    s = scan()
    s.parts["trunk"] = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Dropout2d(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    s.parts["head"] = nn.Linear(6, CLASSES)
    first, second = s.draws(2)
    assert not torch.allclose(first, second)
    mask = (torch.rand(6, 1, 1, generator=s.generator("draw 0")) >= 0.5).float() * 2
    conv, _, average, flat = s.parts["trunk"]
    again = s.each(lambda x: s.parts["head"](flat(average(conv(x) * mask))))
    assert torch.allclose(first, again.log_softmax(1), atol=1e-6)


def test_draws_do_not_depend_on_the_batch_and_touch_no_statistics():
    s = scan()
    buffers = {name: value.clone() for name, value in s.parts.named_buffers()}
    (log,) = s.draws(1)
    small = Scan(s.pool, s.parts, seed=s.seed)
    small.features = small.each(s.parts["trunk"], size=5)
    assert torch.allclose(log, next(iter(small.draws(1))), atol=1e-5)
    assert all(torch.equal(value, buffers[name]) for name, value in s.parts.named_buffers())


def test_bald_is_the_written_out_mutual_information_and_lies_in_its_bounds():
    s = scan()
    draws = torch.stack([log.exp() for log in s.draws(20)]).double()
    mean = draws.mean(0)
    expected = -(mean * mean.log()).sum(1) + (draws * draws.log()).sum(2).mean(0)
    asked = zoo.catalogue.queries()["bald"].ask(s, 36, draws=20)
    assert torch.allclose(asked.detail["BALD"].double(), expected[asked.positions], atol=1e-6)
    assert (asked.detail["BALD"] >= -1e-6).all()
    assert (asked.detail["BALD"] <= min(math.log(CLASSES), math.log(20))).all()


def test_without_dropout_it_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"needs dropout.*dropout=0\.5"):
        zoo.create("vaal+bald", device="cpu").fit(pool())
    with pytest.raises(ValueError, match="needs dropout"):
        zoo.create("bald", device="cpu", dropout=0.0).fit(pool())
    with pytest.raises(ValueError, match="draws=0"):
        zoo.create("bald", device="cpu", steps=1, query_settings={"draws": 0}).fit(pool()).select(pool(), 2)


def test_with_dropout_any_loop_can_ask_so():
    learner = zoo.create("vaal+bald", device="cpu", width=4, vae_width=4, steps=1, game_steps=1, dropout=0.3)
    assert len(learner.fit(pool()).select(pool(), 3)) == 3
