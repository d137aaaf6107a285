"""The controls of a fair comparison: an entry's questions with plain training (and its training with random ones)."""

from dataclasses import replace

import pytest
import torch

import zoo
from zoo.entry import never
from zoo.register import entries
from zoo.testing import LAWS, Subject, alike, pool, same, weights


def unfair(run, p, plan, *, trunk, head):
    """Plain training that has seen nothing of the images before: a stand-in for a loop of another kind."""
    with torch.no_grad():
        head.linear.bias.add_(1)
    entries()["plain"].train(run, p, plan, trunk=trunk, head=head)


OWN = replace(entries()["plain"], name="unfair", train=unfair, plainly=never)


def learner(**settings):
    return Subject(OWN).learner(**settings)


def test_its_own_networks_ask_and_a_plain_one_answers():
    p = pool()
    control, own, plain = learner(training="plain").fit(p), learner().fit(p), Subject("plain").learner().fit(p)
    assert same(weights(control), weights(own))
    assert alike(control.select(p, 5), own.select(p, 5))
    assert torch.equal(control.predict(p.images), plain.predict(p.images))
    assert not torch.equal(control.predict(p.images), own.predict(p.images))


def test_the_twin_has_equal_settings():
    twin = learner(training="plain", steps=7, lr=0.03, width=8, augment="shift", seed=4).twin
    assert (twin.loop.steps, twin.loop.lr, twin.nets["width"], twin.augment, twin.seed) == (7, 0.03, 8, "shift", 4)
    assert learner().twin is None


@pytest.mark.parametrize("name", sorted({*zoo.names("entries")} - {"dpe"}))  # whose KL is its weight decay
def test_by_default_a_twin_trains_as_random_questions_do(name):
    twin = zoo.create(name, training="plain", device="cpu").twin
    assert twin is None or twin.loop == zoo.create("random", device="cpu").loop


@pytest.mark.parametrize(("name", "plan"), [("llal", "paper"), ("ta_vaal", "released"), ("waal", "paper")])
def test_the_twin_of_a_published_plan_takes_its_steps_and_its_optimizer(name, plan):
    small = {"trunk": "small", "width": 4, "steps": 8, "batch": 8}
    small |= {"game_steps": 2, "vae_width": 4, "subset": 8} if name == "ta_vaal" else {}
    control = zoo.create(name, plan=plan, training="plain", device="cpu", **small)
    now = pool().reveal(pool().unlabeled[:20])
    steps = 8 * -(-len(now.labeled) // 8) // -(-len(now.rounds[0]) // 8) if control.loop.grow else 8
    assert control.twin.length(now) == steps
    assert (name == "waal") == (steps == 8)
    fields = ("momentum", "late", "nesterov", "weight_decay", "schedule", "lr")
    assert [getattr(control.twin.loop, f) for f in fields] == [getattr(control.loop, f) for f in fields]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_control_keeps_the_laws(law):
    if law.__name__ == "killed_and_resumed_is_never_killed":  # its twin's steps come after its own
        return

    class Control(Subject):
        def learner(self, **settings):
            return super().learner(training="plain", **settings)

    law(Control(OWN))


def test_where_training_is_plain_already_it_is_said_so(caplog):
    assert zoo.create("plain+vaal", device="cpu").twin is None
    assert "plainly already" in caplog.text
    assert zoo.create("vaal", training="plain", device="cpu").twin is None


def test_a_control_is_saved_with_its_twin(tmp_path, monkeypatch):
    monkeypatch.setitem(entries(), "unfair", OWN)
    p = pool()
    control = zoo.create("plain+unfair", device="cpu", width=4, steps=3, batch=8).fit(p)
    assert control.twin is not None
    again = zoo.load(control.save(tmp_path / "control.safetensors"), device="cpu")
    assert torch.equal(control.predict(p.images), again.predict(p.images))
    assert alike(control.select(p, 5), again.select(p, 5))
    assert repr(control) == repr(again)


def test_another_training_is_refused():
    with pytest.raises(ValueError, match="training='none'"):
        zoo.create("vaal", training="none")


@pytest.mark.parametrize(("name", "nets"), [("bgadl", {"trunk": "lenet"}), ("waal", {"head_layers": 2})])
def test_the_twin_has_the_trunk_and_head_of_the_entry(name, nets):
    p = replace(pool(), images=torch.zeros(48, 1, 28, 28, dtype=torch.uint8))
    control = zoo.create(name, training="plain", device="cpu", steps=2, batch=8, **nets)
    own, twin = control.build(p.shape, p.classes), control.twin.build(p.shape, p.classes)
    assert set(twin) == {"trunk", "head"}
    for part in twin:
        assert same(dict(own[part].state_dict()), dict(twin[part].state_dict()))


def test_whether_training_is_plain_is_up_to_the_plan():
    assert zoo.create("gaal", training="plain", device="cpu").twin is None
    assert zoo.create("gaal", training="plain", learner="svm", trunk="pixels", device="cpu").twin is not None
