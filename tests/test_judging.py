"""Judging made images: by a person, by a classifier, by the nearest real image."""

import pytest
import torch

import zoo
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
    with pytest.raises(ValueError, match="labels came back"):
        zoo.judge(made_of(p.images[:2]), by=lambda _: torch.tensor([1]))
