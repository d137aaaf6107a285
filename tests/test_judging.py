"""Judging made images: by a person, by a classifier, by the nearest real image."""

from dataclasses import replace

import pytest
import torch

import zoo
from trainers.pool import normal
from zoo.judging import nearest
from zoo.selection import Selection
from zoo.testing import Subject, pool


def made_of(images):
    empty = torch.empty(0, dtype=torch.int64)
    return Selection(empty, torch.zeros(len(images)), images=images)


def test_a_person_may_say_that_they_cannot_tell():
    p = pool()
    images, labels, ledger = zoo.judge(made_of(p.images[:3]), by=lambda shown: torch.tensor([2, -1, 0])[: len(shown)])
    assert torch.equal(images, p.images[[0, 2]])
    assert labels.tolist() == [2, 0]
    assert (ledger.accepted.tolist(), ledger.rejected.tolist(), ledger.asked.tolist()) == ([0, 2], [1], [])
    more = p.admit(images, labels)
    assert len(more.labeled) == len(p.labeled) + 2


def test_a_classifier_rejects_what_it_is_not_sure_of():
    p = pool()
    learner = Subject("plain").learner().fit(p)
    best = learner.predict(p.images[:9]).max(1)
    bar = best.values.median().item()
    _, labels, ledger = zoo.judge(made_of(p.images[:9]), by=learner, confidence=bar)
    assert ledger.accepted.tolist() == (best.values >= bar).nonzero().squeeze(1).tolist()
    assert torch.equal(labels, best.indices[ledger.accepted])


def test_the_nearest_real_image_lends_its_label_and_only_unknown_ones_are_asked():
    p = pool()
    known, unknown = int(p.labeled[1]), int(p.unlabeled[2])
    shown = p.images[[known, unknown, unknown]].clone()
    shown[:, 0, 0, 0] ^= 1  # almost
    _, labels, ledger = zoo.judge(made_of(shown), by=p)
    truth = p.oracle(torch.tensor([known, unknown, unknown]))
    assert torch.equal(labels, truth)
    assert ledger.asked.tolist() == [unknown]


def test_nearest_is_brute_force_in_blocks_of_any_size():
    p = pool()
    made = pool(seed=4).images[:5]
    gaps = (made[:, None].double() - p.images.double()).square().sum((2, 3, 4))
    for size in (1, 7, 48, 1000):
        assert nearest(made, p, size).tolist() == gaps.argmin(1).tolist()


def test_real_images_need_no_judge():
    p = pool()
    with pytest.raises(ValueError, match=r"pool.reveal"):
        zoo.judge(Selection(torch.tensor([1]), torch.zeros(1)), by=p)
    with pytest.raises(ValueError, match="confidence=2"):
        zoo.judge(made_of(p.images[:1]), by=p, confidence=2)


@pytest.mark.parametrize("answer", [[1], [0.7, 0.7], [-7, 0], "ab", [[1, 2]]])
def test_a_person_answers_with_labels(answer):
    with pytest.raises(ValueError, match=r"images were shown|is none"):
        zoo.judge(made_of(pool().images[:2]), by=lambda _: answer)


def test_judges_who_cannot_judge_are_refused():
    p = pool()
    made = made_of(p.images[:2])
    with pytest.raises(ValueError, match="supposition"):
        zoo.judge(made, by=p.suppose(p.unlabeled[:3], [0, 0, 0]))
    with pytest.raises(ValueError, match="do not fit a pool"):
        zoo.judge(made_of(torch.zeros(2, 1, 9, 9, dtype=torch.uint8)), by=p)
    with pytest.raises(ValueError, match="label 9 is none"):
        zoo.judge(made, by=replace(p, labels=torch.full_like(p.labels, -1), oracle=lambda i: torch.full_like(i, 9)))
    with pytest.raises(TypeError, match="by=None cannot judge"):
        zoo.judge(made, by=None)
    with pytest.raises(RuntimeError, match="not fitted"):
        zoo.judge(made, by=p, through=zoo.create("plain", device="cpu"))


def test_with_unique_no_real_image_is_compared_with_two_made_ones():
    p = pool()
    unknown = int(p.unlabeled[2])
    shown = p.images[[unknown, unknown, unknown]]
    _, labels, ledger = zoo.judge(made_of(shown), by=p, unique=True)
    gaps = (p.images.double() - p.images[unknown].double()).square().sum((1, 2, 3))
    assert ledger.near.tolist() == gaps.argsort()[:3].tolist()
    assert torch.equal(labels, p.oracle(ledger.near))
    assert zoo.judge(made_of(shown), by=p)[2].near.tolist() == 3 * [unknown]
    with pytest.raises(ValueError, match="judge fewer"):
        zoo.judge(made_of(torch.cat([p.images, p.images[:1]])), by=p, unique=True)


@pytest.mark.parametrize("unique", [False, True])
def test_images_may_be_compared_by_the_features_of_a_learner(unique):
    p = pool()
    learner = Subject("plain").learner().fit(p)
    made = pool(seed=4).images[:6]
    _, _, ledger = zoo.judge(made_of(made), by=p, unique=unique, through=learner)
    scan = learner.scan(p)
    with torch.no_grad():
        here = learner.parts["trunk"].eval()(normal(made))
    gaps = torch.cdist(here, scan.each(scan.parts["trunk"], of=torch.arange(len(p))))
    for one, near in zip(gaps, ledger.near, strict=True):
        assert near == one.argmin()
        gaps[:, near] = torch.inf if unique else gaps[:, near]


def test_the_ledger_keeps_real_made_and_rejected_labels_apart():
    p = pool()
    known, unknown, silent = int(p.labeled[0]), int(p.unlabeled[0]), int(p.unlabeled[1])
    answer = p.oracle
    p = replace(p, oracle=lambda indices: torch.where(indices == silent, -1, answer(indices)))
    images, _, ledger = zoo.judge(made_of(p.images[[known, unknown, silent]]), by=p)
    assert len(images) == 2
    assert ledger.counts == {"real": 2, "made": 2, "rejected": 1}
    assert ledger.shown == ledger.counts["made"] + ledger.counts["rejected"]
    _, _, ledger = zoo.judge(made_of(p.images[:4]), by=lambda shown: torch.full((len(shown),), -1))
    assert ledger.counts == {"real": 0, "made": 0, "rejected": 4}
    assert ledger.near.tolist() == []
