"""What an entry learns from the images alone, before a fit sees a label: once, blindly, and the same when repeated."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import zoo
from trainers import supervised
from trainers.pool import Pool
from zoo.entry import never
from zoo.register import entries
from zoo.testing import LAWS, Subject, pool, same, weights

SEEN = []


def pretext(run, seen, plan, *, trunk, head):  # noqa: ARG001
    """The trunk learns how bright an image is."""
    SEEN.append(seen)
    bright, step = run.setup(nn.Sequential(trunk, nn.LazyLinear(1)), supervised.adam(trunk, 1e-2))
    images = run.stream(torch.arange(len(seen)), plan.batch)
    for _, (x, _) in zip(run.steps(3, "pretext"), images, strict=False):
        step.zero_grad()
        run.backward((bright(x).squeeze(1) - x.mean((1, 2, 3))).square().mean())
        step.step()
    return {"trunk": trunk}


ENTRY = replace(entries()["plain"], name="prepared", pretext=pretext, plainly=never)


@pytest.fixture(autouse=True)
def _forget():
    SEEN.clear()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_an_entry_with_a_pretext_keeps_the_laws(law):
    law(Subject(ENTRY))


def test_it_sees_neither_labels_nor_rounds_nor_an_oracle_that_answers():
    Subject(ENTRY).learner().fit(pool())
    (seen,) = SEEN
    assert not len(seen.labeled)
    assert not seen.rounds
    with pytest.raises(ValueError, match="nobody can answer"):
        seen.oracle(torch.arange(2))


def test_it_is_computed_once_for_the_same_images_and_anew_for_others():
    p = pool()
    learner = Subject(ENTRY).learner()
    learner.fit(p)
    learner.fit(p.reveal(p.unlabeled[:5]))
    assert len(SEEN) == 1
    learner.fit(pool(seed=1))
    assert len(SEEN) == 2


def test_remembered_or_recomputed_a_later_round_is_the_same_bit_by_bit():
    p = pool()
    later = p.reveal(p.unlabeled[:5])
    once = Subject(ENTRY).learner().fit(p)
    assert same(weights(once.fit(later)), weights(Subject(ENTRY).learner().fit(later)))


def test_the_fit_begins_with_what_it_made():
    p = pool()
    learner = Subject(ENTRY).learner(steps=0).fit(p)
    fresh = learner.build(p.shape, p.classes, len(p.rounds))
    assert not torch.equal(learner.parts["trunk"].body.stage1[0][0].weight, fresh["trunk"].body.stage1[0][0].weight)
    assert torch.equal(learner.parts["head"].linear.weight, fresh["head"].linear.weight)


def test_a_warm_learner_goes_on_from_what_it_has_learned_instead():
    p = pool()
    warm = Subject(ENTRY).learner().fit(p).warm()
    SEEN.clear()
    warm.fit(p)
    assert not SEEN


def test_start_weights_of_other_images_do_not_stand_in_for_it():
    grey = Pool.of(torch.zeros(12, 1, 8, 8, dtype=torch.uint8), [0, 1, 2] * 4, 3).reveal([0, 1, 2])
    warm = Subject(ENTRY).learner().fit(pool()).warm()
    SEEN.clear()
    warm.fit(grey)
    assert len(SEEN) == 1


def test_a_made_up_doubt_is_logged_in_words(caplog):
    entry = replace(
        entries()["plain"],
        name="doubtful",
        diagnose=lambda *_: {"auc": 0.5},
        doubt=lambda numbers: [f"the AUC is {numbers['auc']:.2f}"],
    )
    p = pool()
    learner = Subject(entry).learner().fit(p)
    assert learner.diagnose(p, p.images[:4]) == {"auc": 0.5}
    assert caplog.messages == ["doubtful: the AUC is 0.50"]
    assert learner.doubts({}) == []


def test_vaal_doubts_a_critic_that_guesses_and_a_latent_that_is_dead():
    doubts = zoo.create("vaal", device="cpu").doubts
    good = {"critic_auc": 0.7, "active_units": 30, "latent_units": 32, "kl": 20.0, "recon": 0.3}
    assert doubts(good) == []
    (said,) = doubts({**good, "critic_auc": 0.51})
    assert said.startswith("the critic's AUC is 0.51")
    assert "only 3 of 32 latent units" in doubts({**good, "active_units": 3})[0]
