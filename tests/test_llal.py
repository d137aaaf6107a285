"""Learning loss against its equations: the pairs, one step, who shapes whom, the query, and its character."""

import math
from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

import zoo
from trainers import llal, supervised
from trainers.llal import Meeting, hinge, logistic, read
from trainers.pool import Pool, normal
from trainers.run import Run
from trainers.seeds import generator
from zoo import diagnosis
from zoo.entries.llal import predict, ranker
from zoo.nets.ranker import Ranker
from zoo.nets.trunk import Trunk, task, trunk
from zoo.register import entries

SHAPE, CLASSES = (1, 8, 8), 3
TINY = {"width": 4, "ranker_width": 4}


def random_pool(n=40, labeled=12):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(labeled))


def cast(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["llal"].build(SHAPE, CLASSES, **TINY)


def plan(**settings):
    return llal.Plan(**{"steps": 1, "batch": 8, **settings})


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


@pytest.mark.parametrize(
    ("losses", "predicted", "by_hinge", "by_chance"),
    [
        ([2.0, 1.0], [0.0, 0.0], 1.0, math.log(2)),
        ([2.0, 1.0], [5.0, 0.0], 0.0, math.log(1 + math.exp(-5))),  # 0.0067
        ([1.0, 2.0], [0.0, 5.0], 0.0, math.log(1 + math.exp(-5))),
        ([2.0, 1.0], [0.0, 5.0], 6.0, 5 + math.log(1 + math.exp(-5))),
        ([1.0, 1.0], [0.5, 0.0], 1.5, math.log(1 + math.exp(0.5))),  # a tie: as if the second were larger
    ],
)
def test_pairs_by_hand(losses, predicted, by_hinge, by_chance):
    losses, predicted = torch.tensor(losses), torch.tensor(predicted)
    assert hinge(predicted, losses, 1.0).item() == pytest.approx(by_hinge, abs=1e-6)
    assert logistic(predicted, losses, 1.0).item() == pytest.approx(by_chance, abs=1e-6)


@pytest.mark.parametrize("b", [2, 3, 8, 9])
def test_pairs_are_the_written_out_formulas(b):
    """The first with the last, and so on; the middle one of an odd batch has no pair."""
    losses, predicted = torch.rand(b), torch.randn(b)
    by_hinge = by_chance = 0.0
    for i in range(b // 2):
        j = b - 1 - i
        sign = 1 if losses[i] > losses[j] else -1
        by_hinge += max(0.0, 0.7 - sign * (predicted[i] - predicted[j]).item()) * 2 / (b - b % 2)
        chance = torch.sigmoid(predicted[i] - predicted[j]).item()
        by_chance -= math.log(chance if losses[i] > losses[j] else 1 - chance) / (b // 2)
    assert hinge(predicted, losses, 0.7).item() == pytest.approx(by_hinge, rel=1e-5)
    assert logistic(predicted, losses, 0.7).item() == pytest.approx(by_chance, rel=1e-5)


@pytest.mark.parametrize("pairs", [hinge, logistic])
def test_pairs_do_not_care_which_of_the_two_is_first(pairs):
    losses, predicted = torch.rand(8), torch.randn(8)
    assert torch.allclose(pairs(predicted, losses, 1.0), pairs(predicted.flip(0), losses.flip(0), 1.0))


@pytest.mark.parametrize("form", ["hinge", "logistic"])
@pytest.mark.parametrize("batch", [8, 7])
def test_one_step_is_the_transcription_of_the_equations(form, batch):
    pool, parts = random_pool(), cast()
    mirror = deepcopy(parts)
    ours = plan(pairs=form, batch=batch, weight=0.7, margin=0.4, lr=0.3, schedule="constant")
    llal.train(Run(pool, seed=3), pool, ours, **parts)

    net, head, reader = mirror["trunk"], mirror["head"], mirror["ranker"]
    x, y = next(Run(pool, seed=3).stream(pool.labeled, batch))
    first = net.body.stage1(x)
    second = net.body.stage2(first)
    third = net.body.stage3(second)
    losses = -head(net.body.flat(net.body.pool(third))).log_softmax(1)[torch.arange(batch), y]
    means = [m.mean((2, 3)) for m in (first, second, third)]
    hidden = [F.relu(m @ look[0].weight.T + look[0].bias) for m, look in zip(means, reader.looks, strict=True)]
    predicted = torch.cat(hidden, 1) @ reader.weigh.weight[0] + reader.weigh.bias
    order = 0.0
    for i in range(batch // 2):
        true, guess = losses[i].item() - losses[batch - 1 - i].item(), predicted[i] - predicted[batch - 1 - i]
        if form == "hinge":
            order += torch.clamp(0.4 - (guess if true > 0 else -guess), min=0)
        else:
            order += F.binary_cross_entropy(guess.sigmoid(), torch.tensor(float(true > 0)))
    (losses.sum() / batch + 0.7 * order / (batch // 2)).backward()
    for module in mirror.values():
        for p in module.parameters():  # one step of SGD with Nesterov's momentum from rest
            gradient = p.grad + 5e-4 * p.data
            p.data -= 0.3 * (gradient + 0.9 * gradient)
    for name, part in parts.items():
        for (key, here), there in zip(part.state_dict().items(), mirror[name].state_dict().values(), strict=True):
            assert torch.allclose(here, there, atol=1e-5), f"{name}.{key}"


def trained(**settings):
    pool, parts = random_pool(), cast()
    llal.train(Run(pool, seed=1), pool, plan(**settings), **parts)
    return parts


def plainly(**settings):
    pool, parts = random_pool(), cast()
    settings = supervised.Plan(**{"steps": 1, "batch": 8, **settings})
    supervised.train(Run(pool, seed=1), pool, settings, trunk=parts["trunk"], head=parts["head"])
    return parts


def test_without_weight_it_is_plain_training_bit_by_bit():
    ours, theirs = trained(weight=0.0, steps=5), plainly(steps=5)
    assert same(ours["trunk"], theirs["trunk"])
    assert same(ours["head"], theirs["head"])


@pytest.mark.parametrize("pairs", ["hinge", "logistic"])
def test_the_ranker_reaches_the_trunk_by_its_maps_and_the_head_never(pairs):
    """The targets of the pairs pass no gradient: what moves the head is the cross-entropy alone."""
    ours, theirs = trained(weight=5.0, pairs=pairs), plainly()
    assert same(ours["head"], theirs["head"])
    assert not same(ours["trunk"], theirs["trunk"])


def test_a_ranker_that_only_watches_leaves_the_task_network_plain_and_learns_all_the_same():
    ours, theirs = trained(weight=5.0, joint=0.0, steps=5), plainly(steps=5)
    assert same(ours["trunk"], theirs["trunk"])
    assert same(ours["head"], theirs["head"])
    assert not same(ours["ranker"], cast()["ranker"])


class Lines(nn.Module):
    """A trunk of two linear layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 4), nn.Linear(4, 5)
        self.stages = (self.one,)

    def forward(self, x):
        return self.two(self.one(x.flatten(1)).relu())


class Weighs(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 1)

    def forward(self, maps):
        return self.line(maps[0]).squeeze(1)


def test_the_ranker_shapes_the_trunk_in_epoch_120_of_200_and_no_more_in_121(monkeypatch):
    """Counted from 0, with one and with two steps in an epoch."""
    joint = entries()["llal"].plans["paper"].loop.joint
    pool = random_pool()
    for each in (1, 2):
        parts = {"trunk": Lines(), "head": nn.Linear(5, CLASSES), "ranker": Weighs()}
        said, forward = [], Meeting.forward
        monkeypatch.setattr(Meeting, "forward", lambda self, x, joint: said.append(joint) or forward(self, x, joint))  # noqa: B023
        llal.train(Run(pool), pool, plan(steps=200 * each, joint=joint, lr=1e-3), **parts)
        monkeypatch.undo()
        assert said == [True] * 121 * each + [False] * 79 * each


@pytest.mark.parametrize("joint", [True, False])
def test_what_joint_means(joint):
    meeting = Meeting(Lines(), nn.Linear(5, CLASSES), Weighs())
    logits, predicted = meeting(torch.randn(6, *SHAPE), joint)
    assert logits.shape == (6, CLASSES)
    predicted.square().sum().backward()
    stem = meeting.trunk.one.weight.grad
    assert stem.abs().sum() > 0 if joint else stem is None
    assert meeting.ranker.line.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("frozen", [("ranker",), ("trunk",), ("trunk", "head", "ranker")])
def test_what_is_frozen_stays(frozen):
    pool = random_pool()
    learner = zoo.create("llal", device="cpu", **TINY, steps=3, batch=8, freeze=frozen)
    fresh = learner.build(pool.shape, pool.classes, len(pool.rounds))
    learner.fit(pool)
    for name, part in learner.parts.items():
        assert same(part, fresh[name]) == (name in frozen)


@pytest.mark.parametrize(
    ("name", "shape", "channels", "last"),
    [
        ("small", (1, 8, 8), [32, 32, 128], False),
        ("small", (3, 9, 33), [32, 32, 128], False),
        ("resnet18", (3, 10, 8), [64, 128, 256, 512], False),
        ("timm/resnet18", (1, 31, 50), [64, 64, 128, 256, 512], False),
        ("timm/test_vit", (3, 32, 32), [64] * 6, True),
        ("timm/test_mambaout", (3, 32, 32), [16, 32, 48, 64], True),
    ],
)
def test_it_reads_every_trunk(name, shape, channels, last):
    net = trunk(name, shape)
    before = deepcopy(net.state_dict())
    reader = ranker(net, shape, 8)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [look[0].in_features for look in reader.looks] == channels
    assert reader.last == (last,) * len(channels)
    x = torch.rand(2, *shape) * 2 - 1
    features, maps = read(net.eval(), x)
    assert torch.equal(features, net(x))
    assert reader(maps).shape == (2,)
    dims = [tuple(i for i in range(1, m.dim()) if i != (m.dim() - 1 if last else 1)) for m in maps]
    hidden = [look(m.mean(dim)) for look, m, dim in zip(reader.looks, maps, dims, strict=True)]
    assert torch.allclose(reader(maps), reader.weigh(torch.cat(hidden, 1))[:, 0], atol=1e-6)
    assert not any(module._forward_hooks for module in net.modules())


def test_published_sizes():
    def count(part):
        return sum(p.numel() for p in part.parameters())

    with torch.device("meta"):
        parts = entries()["llal"].build((3, 32, 32), 10, **entries()["llal"].plans["paper"].nets)
        vgg = trunk("vgg16_bn", (3, 32, 32))
        assert [look[0].in_features for look in ranker(vgg, (3, 32, 32), 8).looks] == [64, 128, 256, 512, 512]
    assert count(parts["ranker"]) == 123_905
    assert count(parts["trunk"]) + count(parts["head"]) == 11_173_962


def test_a_copy_reads_its_own_trunk_and_autocast_leaves_the_prediction_whole():
    parts = cast()
    meeting = Meeting(parts["trunk"], parts["head"], parts["ranker"]).eval()
    twin, x = deepcopy(meeting), torch.randn(3, *SHAPE)
    for p in twin.trunk.parameters():
        p.data.zero_()
    assert not torch.equal(twin(x)[1], meeting(x)[1])
    with torch.autocast("cpu", torch.bfloat16):
        assert {out.dtype for out in meeting(x)} == {torch.float32}
        assert torch.allclose(meeting(x)[1], parts["ranker"](read(parts["trunk"], x)[1]))


def test_a_pass_that_fails_leaves_no_hooks_behind():
    parts = cast()
    with pytest.raises(RuntimeError):
        read(parts["trunk"], torch.zeros(2, 7, 8, 8))
    assert not any(module._forward_hooks for module in parts["trunk"].modules())


def test_a_trunk_without_stages_is_refused():
    net = task(SHAPE, 2, width=4)["trunk"]
    net.paths = ()
    with pytest.raises(ValueError, match="no stages"):
        ranker(net, SHAPE, 4)
    with pytest.raises(ValueError, match="no stages"):
        zoo.create("llal", trunk="pixels", device="cpu").build(SHAPE, 2)
    with pytest.raises(ValueError, match="maps to read"):
        Ranker([], 4)


def test_published_schedule_drops_once_at_epoch_160_of_200():
    for each in (1, 8, 79):
        rates = [supervised.late_drop(step, 200 * each) for step in range(200 * each)]
        assert rates == [1.0] * 160 * each + [0.1] * 40 * each
    assert entries()["llal"].plans["paper"].loop.schedule == "late-drop"


def test_steps_grow_with_the_labels_that_were_answered():
    """Who could not tell in round 0 has given no label."""
    images, loop = torch.zeros(60, *SHAPE, dtype=torch.uint8), llal.Plan(steps=100, batch=4, grow=True)
    pool = Pool.hidden(images, 2, lambda asked: torch.where(asked % 2 == 0, 1, -1))
    first = pool.reveal(torch.arange(16))
    assert len(first.labeled) == 8
    assert supervised.grown(loop, first).steps == 100
    assert supervised.grown(loop, first.reveal(torch.arange(16, 32))).steps == 200


@pytest.mark.parametrize("data", ["read", "bare"])
def test_it_refuses_stages_that_make_no_maps(data):
    class Odd(nn.Module):
        def forward(self, x):
            return [x] if data == "bare" else x.flatten(1)

    body = nn.Sequential(OrderedDict(odd=Odd(), end=Pick()))
    with pytest.raises(ValueError, match=r"odd of this trunk makes .*take another trunk"):
        ranker(Trunk(nn.Sequential(nn.Conv2d(1, 4, 1), body), 4, ("1.odd",)), SHAPE, 4)


class Pick(nn.Module):
    """Anything to features (b d)."""

    def forward(self, x):
        return (x[0] if isinstance(x, list) else x).flatten(1)[:, :4]


def test_it_reads_channels_where_each_stage_has_them():
    """A convolution's second, tokens' last, as told; whichever side is as long as told."""

    class Tokens(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2)

    class Last(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    body = nn.Sequential(nn.Conv2d(1, 4, 1), Last(), nn.Conv2d(8, 6, 1), Tokens(), Pick())
    net = Trunk(body, 4, ("0", "1", "2", "3"), (4, 4, 6, 6))
    reader = ranker(net, SHAPE, 8)
    assert reader.last == (False, True, False, True)
    assert [look[0].in_features for look in reader.looks] == [4, 4, 6, 6]
    _, maps = read(net, torch.rand(3, *SHAPE))
    assert reader(maps).shape == (3,)
    with pytest.raises(ValueError, match=r"^2 of this trunk makes \(1, 6, 8, 4\), no map"):
        ranker(Trunk(body, 4, ("2",), (5,)), SHAPE, 8)


def test_published_epochs_grow_with_the_labels():
    loop, first = entries()["llal"].plans["paper"].loop, torch.arange(1000)
    for labels, batches in ((1000, 8), (2000, 16), (10_000, 79)):
        now = SimpleNamespace(labeled=torch.arange(labels), rounds=(first,), labels=torch.zeros(20_000).long())
        assert supervised.grown(loop, now).steps == 200 * batches
        assert supervised.grown(llal.Plan(), now) == llal.Plan()


def test_what_grows_is_the_whole_training_its_joint_share_and_its_schedule():
    pool, rates, joint = random_pool(labeled=8).reveal(torch.arange(8, 16)), [], []

    class Seeing(Run):
        def setup(self, module, optimizer, player=None):
            optimizer.register_step_pre_hook(lambda opt, *_: rates.append(opt.param_groups[0]["lr"]))
            module.register_forward_pre_hook(lambda _, __, told: joint.append(told["joint"]), with_kwargs=True)
            return super().setup(module, optimizer, player)

    settings = plan(steps=10, lr=0.5, joint=0.6, schedule="late-drop", grow=True)
    llal.train(Seeing(pool), pool, settings, **cast())
    assert rates == pytest.approx(16 * [0.5] + 4 * [0.05])
    assert joint == 12 * [True] + 8 * [False]


def fitted(pool, **settings):
    return zoo.create("llal", device="cpu", **{**TINY, "steps": 2, "batch": 8, **settings}).fit(pool)


class Bright(nn.Module):
    def forward(self, maps):
        return maps[0].mean(1)


def test_it_asks_for_the_largest_predicted_loss_over_the_whole_pool():
    pool = random_pool()
    learner = fitted(pool)
    flat = nn.Flatten()
    flat.stages = (flat,)  # its own map
    learner.parts.update({"trunk": flat, "head": nn.Linear(64, CLASSES), "ranker": Bright()})
    asked = learner.select(pool, 6)
    brightness = normal(pool.images[pool.unlabeled]).mean((1, 2, 3))
    assert asked.indices.tolist() == pool.unlabeled[brightness.argsort(descending=True)[:6]].tolist()
    assert torch.allclose(asked.detail["loss"], brightness.sort(descending=True).values[:6])
    assert torch.equal(asked.scores, asked.detail["loss"])


def test_a_subset_is_drawn_anew_each_round_and_the_best_of_it_asked():
    pool = random_pool()
    learner = fitted(pool)
    whole = learner.select(pool, len(pool.unlabeled))
    learner.query_settings = {"subset": 10}
    some = learner.select(pool, 4)
    assert some.indices.tolist() == learner.select(pool, 4).indices.tolist()
    order = {index: place for place, index in enumerate(whole.indices.tolist())}
    places = [order[index] for index in some.indices.tolist()]
    assert places == sorted(places)
    assert places != [0, 1, 2, 3]
    candidates = learner.select(pool, 10).indices
    assert torch.isin(some.indices, candidates).all()
    later = replace(pool, rounds=(*pool.rounds, pool.rounds[0][:0]))
    assert set(learner.select(later, 10)) != set(learner.select(pool, 10))
    assert len(set(learner.select(pool, 15))) == 15, "more than the subset can be asked"
    learner.query_settings = {"subset": -1}
    with pytest.raises(ValueError, match="subset"):
        learner.select(pool, 1)


def test_scores_have_no_batch_mates():
    pool = random_pool()
    scan = fitted(pool).scan(pool)
    one, many = (scan.each(lambda x: predict(scan.parts, x), size=size) for size in (1, 7))
    assert torch.allclose(one, many, atol=1e-5)


def easy_and_hard():
    """Dark images whose class is where they are lit, and bright noise whose class nobody can tell; a half labeled."""
    chance = generator(0, "character")
    targets = torch.randint(0, 2, (120,), generator=chance)
    images = torch.randint(0, 30, (120, 1, 8, 8), dtype=torch.uint8, generator=chance)
    for image, target in zip(images[:80], targets, strict=False):
        image[0, :, 4 * target : 4 * target + 4] += 100
    images[80:] = torch.randint(150, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=chance)
    known = torch.cat([torch.arange(40), torch.arange(80, 100)])
    return Pool.of(images, targets, 2).reveal(known)


def hard_ones_asked(seed=0, **settings):
    pool = easy_and_hard()
    learner = zoo.create("llal", device="cpu", width=4, steps=60, batch=16, lr=0.05, seed=seed, **settings).fit(pool)
    return int((learner.select(pool, 15).indices >= 80).sum())


@pytest.mark.parametrize("pairs", ["hinge", "logistic"])
@pytest.mark.parametrize("seed", range(2))
def test_character_it_asks_for_what_nobody_can_tell(seed, pairs):
    """A turned sign in the pairs fails here, and so does asking for the smallest."""
    assert hard_ones_asked(seed, pairs=pairs, weight=1.0) >= 13


def test_character_would_catch_a_turned_sign(monkeypatch):
    monkeypatch.setitem(llal.PAIRS, "hinge", lambda predicted, losses, margin: hinge(-predicted, losses, margin))
    assert hard_ones_asked(weight=1.0) < 5


def test_diagnosis_ranks_what_it_says():
    pool = random_pool()
    learner = fitted(pool, steps=20)
    held_out = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    numbers = learner.diagnose(pool, held_out)
    learner.parts.eval()
    with torch.no_grad():
        logits, predicted = Meeting(*learner.parts.values())(normal(held_out))
        probs = logits.softmax(1)
        true = spearmanr(predicted, -(probs * probs.log()).sum(1)).statistic
        logits, predicted = Meeting(*learner.parts.values())(normal(pool.images[pool.labeled]))
        known = spearmanr(predicted, F.cross_entropy(logits, pool.labels[pool.labeled], reduction="none")).statistic
    assert numbers == {"rank_correlation": pytest.approx(true), "rank_correlation_labeled": pytest.approx(known)}


def test_rank_correlation_with_ties():
    a, b = torch.tensor([1.0, 1.0, 2.0, 5.0, 5.0]), torch.tensor([3.0, 1.0, 1.0, 0.0, 9.0])
    assert diagnosis.correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert diagnosis.correlation(a, torch.ones(5)) == diagnosis.correlation(a[:1], b[:1]) == 0
    assert math.isnan(diagnosis.correlation(torch.tensor([1.0, math.nan]), torch.ones(2)))


def test_it_doubts_a_ranker_that_is_blind():
    doubts = zoo.create("llal", device="cpu").doubts
    assert doubts({"rank_correlation": 0.6, "rank_correlation_labeled": 0.9}) == []
    assert "0.03" in doubts({"rank_correlation": 0.03, "rank_correlation_labeled": 0.9})[0]


def test_the_journal_has_the_ranker_in_a_group_of_its_own():
    lines = []
    zoo.create("llal", device="cpu", **TINY, steps=2, batch=8).fit(random_pool(), journal=lambda *at: lines.append(at))
    assert {name for name, _, _ in lines} == {"task/loss", "task/accuracy", "ranker/loss", "ranker/right"}
    assert all(0 <= value <= 1 for name, value, _ in lines if name == "ranker/right")


@pytest.mark.parametrize("setting", [{"weight": -1.0}, {"joint": -0.1}, {"margin": -1.0}, {"pairs": "all"}])
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("llal", **setting)
