"""CEAL against its definition: the gate, the falling threshold, what is trained on, and the faults of its ports."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

import zoo
from trainers import ceal
from trainers.pool import VALUES, Pool, normal
from trainers.run import Run
from zoo.entries.ceal import believed, doubt, precision
from zoo.nets.belief import Belief
from zoo.register import entries
from zoo.scan import Scan
from zoo.testing import Killed, same, weights

SHAPE, CLASSES = (1, 8, 8), 3
QUICK = {"device": "cpu", "width": 4, "batch": 8}
SURE_OF_ALL = {"delta0": 10.0, "dr": 0.0}
CRITERIA = ["least_confident", "margin", "entropy"]


def random_pool(n=40, labeled=12):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(labeled))


def shades():
    """Dark, grey and bright images, of class 0, 1 and 2; two of each are labeled."""
    chance = torch.Generator().manual_seed(1)
    low = torch.tensor([0, 90, 200]).repeat(30).view(-1, 1, 1, 1)
    images = (low + torch.randint(0, 50, (90, 1, 8, 8), generator=chance)).to(torch.uint8)
    return Pool.of(images, torch.arange(90) % 3, 3).reveal(torch.arange(6))


def cast(seed=0, sharp=1.0):
    """The networks; sharp: makes a fresh one surer of some images than of others."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = entries()["ceal"].build(SHAPE, CLASSES, width=4)
    with torch.no_grad():
        parts["head"].linear.weight *= sharp
    return parts


class Seeing(Run):
    """A run that remembers what each of its streams draws from: indices and their labels."""

    def stream(self, indices, size, augment=None):
        self.__dict__.setdefault("seen", []).append((indices, self.pool.labels[indices]))
        return super().stream(indices, size, augment)


def seen_by(pool, **plan):
    run = Seeing(pool)
    run.seen = []
    ceal.train(run, pool, ceal.Plan(**{"steps": 4, "batch": 8, "alone": 0.5, **SURE_OF_ALL, **plan}), **cast())
    return run.seen


def gate(logits, delta):
    belief = Belief()
    belief.delta.fill_(delta)
    return belief(torch.as_tensor(logits, dtype=torch.float32))


# The gate


@given(rows=some.lists(some.lists(some.floats(-9, 9, width=32), min_size=4, max_size=4), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_sure_is_an_entropy_below_delta_and_the_guess_is_the_best_class(rows):
    sure, guess = gate(rows, 0.5)
    for row, is_sure, best in zip(torch.tensor(rows).double().softmax(1).tolist(), sure, guess, strict=True):
        entropy = -sum(p * math.log(p) for p in row if p > 0)
        assert abs(entropy - 0.5) < 1e-4 or bool(is_sure) == (entropy < 0.5)
        assert row[best] == pytest.approx(max(row))


@given(delta=some.floats(0, 2), more=some.floats(0, 1), seed=some.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_larger_threshold_believes_no_less(delta, more, seed):
    logits = 4 * torch.randn(50, 5, generator=torch.Generator().manual_seed(seed))
    assert not (gate(logits, delta)[0] & ~gate(logits, delta + more)[0]).any()


def test_the_gate_is_strict_and_zero_believes_nothing():
    uniform = torch.zeros(1, 7)
    limit = -(uniform.log_softmax(1).exp() * uniform.log_softmax(1)).sum().item()
    assert limit == pytest.approx(math.log(7))
    assert not gate(uniform, limit)[0]
    assert gate(uniform, limit + 1e-6)[0]
    assert not gate([[900.0, 0.0, -900.0]], 0.0)[0]


def test_a_certain_guess_has_entropy_0_and_is_believed_where_a_port_finds_no_number():
    certain = torch.tensor([[900.0, 0.0, -900.0]])
    p = certain.softmax(1)
    assert not (-(p * p.log()).sum(1) < 1e-6)  # 0 log 0
    sure, guess = gate(certain, 1e-6)
    assert sure.item()
    assert guess.item() == 0


def test_delta_as_the_surest_guess_has_the_notes_values():
    """With the rest of a guess spread evenly: entropy 0.05 is p=.9940 of 10 classes and .996 of 256."""
    for classes, delta, p in ((10, 0.1, 0.9867), (10, 0.05, 0.9940), (10, 0.005, 0.9995), (100, 0.05, 0.9954)):
        for q, expected in ((p + 1e-4, True), (p - 1e-4, False)):
            row = torch.tensor([[q] + (classes - 1) * [(1 - q) / (classes - 1)]])
            assert gate(row.log(), delta)[0].item() is expected


def test_entropy_in_shares_is_entropy_over_the_log_of_the_classes():
    """0.1 of ln 10 is p=.9647 with the rest spread evenly."""
    pool = random_pool()
    for share, nats in ((True, 0.1 * math.log(CLASSES)), (False, 0.1)):
        parts = cast()
        ceal.train(Run(pool), pool, ceal.Plan(steps=1, batch=8, delta0=0.1, normalize=share), **parts)
        assert parts["belief"].delta.item() == pytest.approx(nats)
    for q, expected in ((0.9647 + 1e-4, True), (0.9647 - 1e-4, False)):
        row = torch.tensor([[q] + 9 * [(1 - q) / 9]])
        assert gate(row.log(), 0.1 * math.log(10))[0].item() is expected


# The threshold


def test_linear_decay_takes_dr_a_round_and_recursive_decay_takes_dr_times_the_round():
    linear = ceal.Plan(delta0=0.05, dr=0.0033)
    recursive = replace(linear, decay="recursive")
    last = 0.05
    for now in range(30):
        last -= recursive.dr * now  # as two of the ports have it, which do not stop at 0
        assert ceal.threshold(linear, now) == pytest.approx(max(0.0, 0.05 - 0.0033 * now))
        assert ceal.threshold(recursive, now) == pytest.approx(max(0.0, last))


@pytest.mark.parametrize(("decay", "zero"), [("linear", 16), ("recursive", 6)])
def test_it_is_0_at_the_round_that_arithmetic_says_under_both_pairs_of_settings(decay, zero):
    for delta0, dr in ((0.05, 0.0033), (0.005, 0.00033)):
        plan = ceal.Plan(delta0=delta0, dr=dr, decay=decay)
        assert [now for now in range(30) if ceal.threshold(plan, now) == 0] == list(range(zero, 30))


def test_what_rounding_leaves_of_the_threshold_is_nothing():
    for n in range(1, 40):
        for delta0 in (5e-5, 0.005, 0.05, 0.3):
            assert ceal.threshold(ceal.Plan(delta0=delta0, dr=delta0 / n), n) == 0
            assert n == 1 or ceal.threshold(ceal.Plan(delta0=delta0, dr=delta0 / n), n - 1) > 0


def test_a_fit_counts_its_round_from_the_initial_set_on():
    pool = random_pool()
    for now in range(3):
        learner = zoo.create("ceal", **QUICK, steps=1, delta0=0.05, dr=0.01).fit(pool)
        assert learner.parts["belief"].delta.item() == pytest.approx(0.05 - 0.01 * now)
        pool = pool.reveal(learner.select(pool, 2))
    known = replace(pool, rounds=())
    learner.fit(known)
    assert learner.parts["belief"].delta.item() == pytest.approx(0.05)


def test_it_says_when_the_threshold_first_hits_0(caplog):
    pool, said = random_pool(), []
    for _ in range(4):
        caplog.clear()
        learner = zoo.create("ceal", **QUICK, steps=1, delta0=0.05, dr=0.03).fit(pool)
        said.append("the threshold is 0 at round 2" in caplog.text)
        pool = pool.reveal(learner.select(pool, 2))
    assert said == [False, False, True, False]


# Without belief it is plain training


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("doubting", [{"delta0": 0.0}, {"delta0": 1e-9}], ids=["threshold 0", "nobody below it"])
def test_with_nothing_believed_it_is_plain_training_bit_by_bit(criterion, doubting):
    pool = random_pool()
    same_settings = {**QUICK, "steps": 11, "dropout": 0.5, "augment": "shift"}
    plain = zoo.create(f"plain+{criterion}", **same_settings).fit(pool)
    for alone in (0.0, 0.5, 1.0):
        ours = zoo.create("ceal", query_settings={"criterion": criterion}, **same_settings, **doubting, alone=alone)
        ours.fit(pool)
        own = {name: value for name, value in weights(ours).items() if not name.startswith("belief")}
        assert same(weights(plain), own)
        assert ours.ticks == plain.ticks == 11
        here, there = ours.select(pool, 9), plain.select(pool, 9)
        assert torch.equal(here.indices, there.indices)
        assert torch.equal(here.scores, there.scores)


def test_what_it_believes_changes_what_it_learns():
    pool = random_pool()
    plain, ours = (
        zoo.create(name, **QUICK, steps=6, **more).fit(pool) for name, more in (("plain", {}), ("ceal", SURE_OF_ALL))
    )
    assert not torch.equal(weights(plain)["head.linear.weight"], weights(ours)["head.linear.weight"])
    assert plain.ticks == ours.ticks == 6


def test_with_everything_labeled_there_is_nothing_to_believe_and_it_says_so(caplog):
    pool = random_pool()
    full = pool.reveal(pool.unlabeled)
    ours, plain = (zoo.create(name, **QUICK, steps=4).fit(full) for name in ("ceal", "plain"))
    assert "nothing is unlabeled" in caplog.text
    assert torch.equal(weights(plain)["head.linear.weight"], weights(ours)["head.linear.weight"])


# What it trains on


def test_both_stages_are_the_transcription_of_the_equations():
    """Step 1: mean cross-entropy of labels. Judge. Step 2: mean cross-entropy of labels and guesses, same optimizer."""
    pool, parts = random_pool(), cast(sharp=40)
    mirror = deepcopy(parts)
    plan = ceal.Plan(steps=2, batch=8, alone=0.5, lr=1e-3, delta0=1.02)
    ceal.train(Run(pool, seed=3), pool, plan, **parts)

    task = nn.Sequential(mirror["trunk"], mirror["head"])
    step = torch.optim.SGD(task.parameters(), 1e-3, 0.9, weight_decay=5e-4, nesterov=True)
    run = Run(pool, seed=3)

    def learn(batches, number):
        x, y = next(batches)
        done = (number + 1) / 3
        step.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * (done - 0.2) / 0.8))
        p = task(x).softmax(1)
        loss = -sum(p[i, y[i]].log() for i in range(8)) / 8
        step.zero_grad()
        loss.backward()
        step.step()

    learn(run.stream(pool.labeled, 8), 0)
    task.eval()
    p = task(normal(pool.images[pool.unlabeled])).detach().softmax(1)
    task.train()
    sure = -(p * p.log()).sum(1) < 1.02
    assert 3 < sure.sum() < len(sure) - 3
    believed = pool.suppose(pool.unlabeled[sure], p.argmax(1)[sure])
    learn(run.over(believed).stream(believed.labeled, 8), 1)
    for part in ("trunk", "head"):
        there = mirror[part].state_dict()
        for key, here in parts[part].state_dict().items():
            assert torch.allclose(here, there[key], rtol=1e-5, atol=1e-5), f"{part}.{key}"


def test_labels_come_first_then_labels_and_guesses_weigh_alike():
    pool = random_pool()
    (first, labels), (both, _) = seen_by(pool)
    assert torch.equal(first, pool.labeled)
    assert torch.equal(labels, pool.labels[pool.labeled])
    assert torch.equal(both, torch.arange(len(pool)))  # each once: no weights


def test_guesses_never_stand_for_labels_and_the_oracle_is_asked_for_the_labeled_only():
    asked = []
    pool = random_pool()
    truth = pool.oracle
    pool = replace(pool, oracle=lambda i: asked.extend(i.tolist()) or truth(i))
    for now in range(3):
        learner = zoo.create("ceal", **QUICK, steps=4, **SURE_OF_ALL).fit(pool)
        (_, _), (both, labels) = seen_by(pool)
        inside = torch.isin(both, pool.labeled)
        assert torch.equal(labels[inside], truth(pool.labeled))  # each label is true, asked images included
        assert torch.equal(both[~inside], pool.unlabeled)  # a guess is about unlabeled images only
        question = learner.select(pool, 5)
        assert len(question) == 5
        assert torch.isin(question.indices, pool.unlabeled).all()  # what was believed may be asked
        after = pool.reveal(question)
        assert len(after.unlabeled) == len(pool.unlabeled) - 5
        assert not after.supposed.any()
        pool = after
        assert len(asked) == 5 * (now + 1)


def test_the_true_label_of_an_image_that_was_believed_wins():
    """A port writes guesses into the labels, so that an answer that comes later is never trained on."""
    pool = shades()
    learner = zoo.create("ceal", **QUICK, steps=40, delta0=0.8).fit(pool)
    indices, guesses = believed(learner.scan(pool))
    told = pool.reveal(indices[:1], labels=[(int(guesses[0]) + 1) % 3])
    _, (both, labels) = seen_by(told)
    assert labels[both == indices[0]].item() == (int(guesses[0]) + 1) % 3
    assert len(both.unique()) == len(both)


def test_what_was_believed_in_one_round_is_forgotten_in_the_next():
    """A port adds beliefs to the labeled and never takes them back."""
    pool = random_pool()
    after = pool.reveal(pool.unlabeled[:2])
    learner = zoo.create("ceal", **QUICK, steps=4, **SURE_OF_ALL).fit(pool)
    fresh = zoo.create("ceal", **QUICK, steps=4, **SURE_OF_ALL).fit(after)
    assert same(weights(learner.fit(after)), weights(fresh))
    doubting = seen_by(after, delta0=0.0)
    assert [indices.tolist() for indices, _ in doubting] == [after.labeled.tolist()]


def test_gate_and_guess_come_from_one_look_in_evaluation_mode_that_leaves_no_trace():
    pool, parts = random_pool(), cast()
    modes = []
    parts["trunk"].register_forward_hook(lambda module, _, out: modes.append((module.training, len(out))))
    ceal.train(Run(pool, augment="strong"), pool, ceal.Plan(steps=4, batch=8, alone=0.5, **SURE_OF_ALL), **parts)
    assert modes == 2 * [(True, 8)] + [(False, 28)] + 2 * [(True, 8)]
    norms = [m for m in parts["trunk"].modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 4 for norm in norms)


def test_beliefs_depend_neither_on_the_batch_nor_on_the_order_of_the_pool(monkeypatch):
    """A port maps the scores of a shuffled loader to the images of another shuffle."""
    pool, parts = random_pool(), cast(sharp=40)
    parts["belief"].delta.fill_(0.93)
    task = nn.Sequential(parts["trunk"], parts["head"])
    indices, guesses = ceal.believe(Run(pool), pool, task, parts["belief"])
    assert 3 < len(indices) < len(pool.unlabeled)
    monkeypatch.setitem(VALUES, "cpu", 3 * 64)
    again = ceal.believe(Run(pool), pool, task, parts["belief"])
    assert torch.equal(indices, again[0])
    assert torch.equal(guesses, again[1])
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(3))
    moved = replace(pool, images=pool.images[order], labels=pool.labels[order])
    there, others = ceal.believe(Run(moved), moved, task, parts["belief"])
    assert dict(zip(order[there].tolist(), others.tolist(), strict=True)) == dict(
        zip(indices.tolist(), guesses.tolist(), strict=True)
    )


def right_beliefs(pool):
    """The labels and guesses of the second stage, and how many guesses are true."""
    run = Seeing(pool)
    run.seen = []
    ceal.train(run, pool, ceal.Plan(steps=60, batch=8, alone=0.8, delta0=0.8), **cast())
    _, (both, labels) = run.seen
    guessed = torch.isin(both, pool.unlabeled)
    return int((labels == pool.oracle(both))[guessed].sum()), int(guessed.sum())


def test_character_it_believes_the_right_images():
    right, guessed = right_beliefs(shades())
    assert guessed > 60
    assert right > 0.95 * guessed


def test_character_would_catch_scores_of_a_loader_that_shuffles(monkeypatch):
    def shuffled(*args):
        indices, guesses = straight(*args)
        return indices, guesses[torch.randperm(len(guesses), generator=torch.Generator().manual_seed(0))]

    straight = ceal.believe
    monkeypatch.setattr(ceal, "believe", shuffled)
    right, guessed = right_beliefs(shades())
    assert right < 0.6 * guessed


def test_killed_while_it_believes_it_goes_on_with_what_it_believed(tmp_path):
    pool = random_pool()
    settings = {**QUICK, "steps": 6, "alone": 0.5, **SURE_OF_ALL}
    whole = weights(zoo.create("ceal", **settings).fit(pool))

    def kill(stage, done, steps):  # noqa: ARG001
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        zoo.create("ceal", **settings).fit(pool, progress=kill, snapshot=tmp_path / "fit", snapshot_seconds=0)
    assert same(whole, weights(zoo.create("ceal", **settings).fit(pool, snapshot=tmp_path / "fit")))


def test_a_frozen_trunk_stays_as_it_is():
    pool = random_pool()
    learner = zoo.create("ceal", **QUICK, steps=6, freeze=("trunk",), **SURE_OF_ALL)
    start = {name: value.clone() for name, value in learner.build(SHAPE, CLASSES, 1).state_dict().items()}
    end = weights(learner.fit(pool))
    assert all(torch.equal(start[name], end[name]) for name in start if name.startswith("trunk"))
    assert not torch.equal(start["head.linear.weight"], end["head.linear.weight"])


def test_started_warm_the_last_rounds_network_judges_as_in_the_paper():
    """With alone=0 nothing is learned before it judges: network and threshold are those of the round before."""
    pool = shades()
    first = zoo.create("ceal", **QUICK, steps=40, alone=0.0, delta0=0.8, dr=0.1).fit(pool)
    after = pool.reveal(first.select(pool, 5))
    indices, guesses = believed(first.scan(after))
    run = Seeing(after)
    run.seen = []
    warm = first.warm()
    warm.entry.train(run, after, warm.loop, **warm.build(after.shape, after.classes, 2))
    both, labels = run.seen[-1]
    inside = torch.isin(both, indices)
    assert torch.equal(both, torch.cat([after.labeled, indices]).sort().values)
    assert torch.equal(labels[inside], guesses)


# The query


def scan_of(logits):
    """A scan whose network gives these logits."""
    pool = Pool.of(torch.zeros(len(logits), 1, 8, 8, dtype=torch.uint8), [0] * len(logits), len(logits[0]))
    scan = Scan(pool, nn.ModuleDict({"belief": Belief(), "head": nn.Linear(1, 1)}))
    scan.__dict__["logits"] = torch.as_tensor(logits, dtype=torch.float32)
    return scan


def ask(criterion, logits):
    return entries()["ceal"].query.ask(scan_of(logits), len(logits), criterion=criterion)


def test_of_two_margins_the_smaller_is_asked_first():
    """A port takes the second minus the first and sorts upwards: it asks for the surest."""
    rows = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    asked = ask("margin", rows.log().tolist())
    assert asked.positions.tolist() == [1, 0]
    assert asked.detail["ms"].tolist() == pytest.approx([0.0, 0.8], abs=1e-6)
    port = (rows.sort(1).values[:, 0] - rows.sort(1).values[:, 1]).argsort()
    assert port.tolist() == [0, 1]


@pytest.mark.parametrize(("criterion", "name"), [*zip(CRITERIA, ["lc", "ms", "en"], strict=True)])
def test_each_criterion_is_the_papers_formula(criterion, name):
    logits = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(1).sort(descending=True).values
    raw = {"lc": p[:, 0], "ms": p[:, 0] - p[:, 1], "en": -(p * p.log()).sum(1)}[name]
    asked = ask(criterion, logits)
    assert asked.positions.tolist() == raw.argsort(descending=name == "en").tolist()
    assert torch.allclose(asked.detail[name], raw[asked.positions], atol=1e-6)
    assert set(asked.detail) == {name}


def test_entropy_is_asked_by_default_and_an_unknown_criterion_is_refused():
    pool = random_pool()
    assert "en" in zoo.create("ceal", **QUICK, steps=1).fit(pool).select(pool, 3).detail
    with pytest.raises(ValueError, match="criterion='random' must be one of"):
        zoo.create("ceal", **QUICK, steps=1, query_settings={"criterion": "random"}).fit(pool).select(pool, 3)


# Diagnosis


def test_diagnosis_counts_what_it_believes():
    pool = shades()
    learner = zoo.create("ceal", **QUICK, steps=60, delta0=0.8).fit(pool)
    numbers = learner.diagnose(pool, pool.images[6:])
    entropy = zoo.create("ceal").query.ask(learner.scan(pool), len(pool.unlabeled)).detail["en"]
    assert numbers["delta"] == pytest.approx(0.8)
    assert numbers["believed"] == int((entropy < 0.8).sum()) > 60
    assert numbers["ratio"] == numbers["believed"] / 6
    assert numbers["share"] == numbers["held_out_share"] == numbers["believed"] / 84
    indices, guesses = believed(learner.scan(pool))
    assert numbers["largest"] == pytest.approx(max(guesses.tolist().count(k) for k in range(3)) / len(guesses))
    assert doubt(numbers) == []
    right, revealed = precision(indices, guesses, pool.reveal(indices[:20]))
    assert revealed == 20
    assert right == int((guesses[:20] == pool.oracle(indices[:20])).sum())
    assert precision(indices, guesses, pool) == (0, 0)
    assert precision(indices, guesses, pool.suppose(indices, guesses)) == (0, 0)


def test_it_doubts_a_threshold_of_0_no_beliefs_and_beliefs_of_one_class():
    fine = {"delta": 0.05, "believed": 10, "largest": 0.3, "classes": 10}
    assert doubt(fine) == []
    assert "fallen to 0" in doubt({**fine, "delta": 0.0})[0]
    assert "sure enough" in doubt({**fine, "believed": 0})[0]
    assert "one class" in doubt({**fine, "largest": 0.51})[0]
    assert doubt({**fine, "largest": 0.7, "classes": 2}) == []
    assert "one class" in doubt({**fine, "largest": 0.8, "classes": 2})[0]


def test_the_journal_says_how_much_is_believed():
    pool, lines = random_pool(), []
    zoo.create("ceal", **QUICK, steps=4, **SURE_OF_ALL).fit(pool, journal=lambda *line: lines.append(line))
    values = {name: value for name, value, _ in lines}
    names = {"task/loss", "task/accuracy", "ceal/delta", "ceal/believed", "ceal/ratio", "ceal/largest"}
    assert set(values) == names
    assert values["ceal/believed"] == 28
    assert values["ceal/ratio"] == pytest.approx(28 / 12)
    assert 1 / CLASSES <= values["ceal/largest"] <= 1


# Plans


@pytest.mark.parametrize(
    "setting", [{"delta0": -0.1}, {"dr": -1.0}, {"decay": "cosine"}, {"alone": 1.5}, {"alone": -0.5}, {"steps": -1}]
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("ceal", **setting)


def test_there_is_no_released_plan_and_the_papers_is_the_second_pair():
    with pytest.raises(zoo.UnknownName, match="released no code"):
        zoo.create("ceal", plan="released")
    loop = entries()["ceal"].plans["paper"].loop
    assert (loop.delta0, loop.dr) == (0.005, 0.00033)


def test_the_papers_last_layer_learns_ten_times_faster_unless_told_otherwise(tmp_path):
    settings = {"plan": "paper", "trunk": "small", "width": 4, "steps": 1, "batch": 8, "device": "cpu"}
    assert zoo.create("ceal", **settings).lr_scale == {"head": 10.0}
    mine = zoo.create("ceal", **settings, lr_scale={"head": 1.0, "trunk": 0.5}).fit(random_pool())
    assert mine.lr_scale == {"head": 1.0, "trunk": 0.5}
    assert zoo.load(mine.save(tmp_path / "mine.safetensors"), device="cpu").lr_scale == mine.lr_scale
    assert zoo.create("ceal", **settings, training="plain").twin.lr_scale == {"head": 10.0}
    assert zoo.create("ceal").lr_scale == {}
