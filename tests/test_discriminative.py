"""Discriminative active learning: its critic against the written-out step, its balance, and what it asks for."""

from types import SimpleNamespace

import pytest
import torch
from torch.optim import Adam

from trainers.seeds import generator
from zoo.nets.critic import Critic
from zoo.queries import QUERIES, discriminative
from zoo.queries.discriminative import balance, learned, seen, standard

SETTINGS = {"steps": 60, "batch": 16, "lr": 1e-2, "stop": 0.98, "width": 16}


def scan_of(features, known, seed=0):
    return SimpleNamespace(features=features, known=known, generator=lambda use: generator(seed, use))


def ask(scan, n, **settings):
    return QUERIES["dal"].ask(scan, n, **{**SETTINGS, **settings})


def counted(monkeypatch):
    """How many steps each critic has taken."""
    steps = []

    class Counting(Adam):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            steps.append(0)

        def step(self, closure=None):
            steps[-1] += 1
            super().step(closure)

    monkeypatch.setattr(discriminative, "Adam", Counting)
    return steps


def test_one_step_is_the_transcription_of_the_weighted_loss():
    chance = torch.Generator().manual_seed(0)
    h, labeled = torch.randn(10, 4, generator=chance), torch.arange(10) >= 8
    chance.manual_seed(5)
    ours = learned(h, labeled, chance, **{**SETTINGS, "steps": 1})

    chance.manual_seed(5)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=chance)))
        theirs = Critic(4, 16, hidden=3)
    step = Adam(theirs.parameters(), 1e-2)
    p = theirs(h).sigmoid()  # of labeled
    weights = {False: 10 / (2 * 8), True: 10 / (2 * 2)}
    loss = sum(-weights[bool(y)] * (q if y else 1 - q).log() for q, y in zip(p, labeled, strict=True)) / 10
    loss.backward()
    step.step()
    for here, there in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(here, there, atol=1e-5)


def test_both_sides_weigh_the_same():
    weight = balance(torch.tensor([True, False, False, False]))
    assert torch.allclose(weight, torch.tensor([2, 2 / 3, 2 / 3, 2 / 3]))
    assert weight.mean().item() == pytest.approx(1)


def blind(labeled=5, unlabeled=50):
    """Features that tell nothing, of few labeled and many unlabeled."""
    return torch.ones(labeled + unlabeled, 3), torch.arange(labeled + unlabeled) < labeled


def test_a_critic_that_sees_nothing_is_undecided_unless_its_weights_do_not_work(monkeypatch):
    """In the released code the weights are counted on one-hot labels: both are 1, and the critic says unlabeled."""
    h, labeled = blind()
    settings = {**SETTINGS, "steps": 300, "batch": 64}
    assert learned(h, labeled, generator(0, "x"), **settings)(h[:1]).abs().item() < 0.1
    monkeypatch.setattr(discriminative, "balance", lambda labeled: torch.ones(len(labeled)))
    assert learned(h, labeled, generator(0, "x"), **settings)(h[:1]).item() == pytest.approx(-2.3, abs=0.3)  # ln 1/10


def test_a_critic_that_always_says_unlabeled_has_not_learned_enough(monkeypatch):
    steps = counted(monkeypatch)
    h, labeled = blind()  # always saying unlabeled is right for 10 of 11
    learned(h, labeled, generator(0, "x"), **{**SETTINGS, "stop": 0.9})
    learned(torch.where(labeled[:, None], h, -h), labeled, generator(0, "x"), **{**SETTINGS, "stop": 0.9})
    assert steps[0] == 60
    assert 10 <= steps[1] < 60


def test_a_critic_has_the_published_three_layers_of_256():
    assert QUERIES["dal"].settings["width"] == 256
    with torch.device("meta"):
        critic = Critic(128, QUERIES["dal"].settings["width"], hidden=3)
    assert sum(p.numel() for p in critic.parameters()) == 128 * 256 + 256 + 2 * (256 * 256 + 256) + 256 + 1


def here_and_there(seed=0):
    """Labeled and some unlabeled features around 0; the last ten unlabeled ones lie elsewhere."""
    chance = torch.Generator().manual_seed(seed)
    known = torch.randn(20, 5, generator=chance)
    here, there = torch.randn(40, 5, generator=chance), 4 + torch.randn(10, 5, generator=chance)
    return scan_of(torch.cat([here, there]), known, seed)


@pytest.mark.parametrize("seed", range(3))
def test_character_it_asks_for_what_lies_where_nothing_is_labeled(seed):
    asked = ask(here_and_there(seed), 8, sub_batches=1)
    assert (asked.positions >= 40).all()
    assert (asked.detail["P"] > 0.9).all()


def test_character_would_catch_a_critic_that_is_turned_around(monkeypatch):
    def turned(h, labeled, *args, **kwargs):
        return learned(h, ~labeled, *args, **kwargs)

    monkeypatch.setattr(discriminative, "learned", turned)
    assert (ask(here_and_there(), 8, sub_batches=1).positions < 40).any()


def test_where_pool_and_labels_are_alike_no_part_is_preferred():
    """Twenty questions of ten from two halves of one distribution: their share of the first half is about a half."""
    first = 0
    for seed in range(20):
        chance = torch.Generator().manual_seed(seed)
        scan = scan_of(torch.randn(40, 3, generator=chance), torch.randn(40, 3, generator=chance), seed)
        first += int((ask(scan, 10, sub_batches=1, steps=20).positions < 20).sum())
    assert 70 < first < 130  # of 200; deviation about 6


def test_what_is_asked_counts_as_labeled_for_the_next_critic(monkeypatch):
    told = []

    def seeing(h, labeled, *args, **kwargs):
        told.append(int(labeled.sum()))
        return learned(h, labeled, *args, **kwargs)

    monkeypatch.setattr(discriminative, "learned", seeing)
    asked = ask(here_and_there(), 7, sub_batches=3, steps=5)
    assert told == [20, 23, 25]
    assert len(asked.positions.unique()) == len(asked.scores) == len(asked.detail["P"]) == 7
    assert (asked.scores.diff() < 0).all()
    told.clear()
    ask(here_and_there(), 2, sub_batches=9, steps=5)
    assert told == [20, 21]


@pytest.mark.parametrize("sample", [0, 1, 3, 100])
def test_a_sample_limits_what_a_critic_learns_from_and_not_what_can_be_asked(sample):
    labeled = torch.arange(50) >= 45
    rows = seen(labeled, sample, torch.Generator().manual_seed(0))
    assert len(rows) == len(rows.unique()) == 5 + (min(45, 5 * sample) if sample else 45)
    assert int(labeled[rows].sum()) == 5
    scan = here_and_there()
    asked = ask(scan, 50, sample=sample, steps=3)
    assert asked.positions.sort().values.tolist() == list(range(50))


def test_features_are_brought_to_one_scale_and_those_that_never_vary_to_none():
    h = torch.stack([torch.arange(8.0) * 100, torch.full((8,), 3.3)], 1)
    assert torch.allclose(standard(h)[:, 0].square().mean(), torch.tensor(1.0))
    assert torch.allclose(standard(h)[:, 1], torch.zeros(8), atol=1e-3)


def test_the_same_scan_gives_the_same_answer_and_another_seed_another():
    first, again = (ask(here_and_there(), 9, steps=5).positions for _ in range(2))
    assert torch.equal(first, again)
    other = here_and_there()
    other.generator = lambda use: generator(7, use)
    assert not torch.equal(first, ask(other, 9, steps=5).positions)


def test_features_that_are_no_numbers_are_refused():
    scan = here_and_there()
    scan.features[3] = torch.nan
    with pytest.raises(RuntimeError, match="not finite"):
        ask(scan, 3, steps=2)


@pytest.mark.parametrize("setting", [{"sub_batches": 0}, {"steps": 0}, {"batch": 0}, {"sample": -1}, {"lr": 0.0}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ask(here_and_there(), 3, **setting)
