"""WAAL against its equations: the penalty, one step of each player, the pairs, the query, and its character."""

import math
from collections import Counter
from copy import deepcopy
from dataclasses import asdict
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainers import waal
from trainers.pool import Pool
from trainers.run import Run
from trainers.seeds import generator, reseed
from trainers.supervised import SCHEDULES
from zoo.entries.waal import both_norms, doubt, looks, single_worst
from zoo.nets.trunk import trunk
from zoo.nets.waal import Critic
from zoo.register import entries
from zoo.testing import who_moves

SHAPE, CLASSES = (1, 8, 8), 2
TINY = {"width": 4, "critic_width": 16}
RELEASED = asdict(entries()["waal"].plans["released"].loop)
del RELEASED["steps"], RELEASED["batch"]


def random_pool(n=40, labeled=12):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(labeled))


def cast(seed=0, **nets):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["waal"].build(SHAPE, CLASSES, **{**TINY, **nets})


def plan(**settings):
    return waal.Plan(**{"steps": 1, "batch": 8, **settings})


def authors_penalty(critic, u, x):
    """The released form: the gradient by a double backward, on interpolates, then the u's, then the l's."""
    between = u + torch.rand(len(u), 1) * (x - u)
    between = torch.cat([between, u, x]).requires_grad_()
    D = critic(between)[0]
    slope = torch.autograd.grad(D, between, torch.ones_like(D), retain_graph=True, create_graph=True)[0]
    return ((slope.norm(2, dim=1) - 1) ** 2).mean()


# The critic and its penalty


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_the_critics_gradient_is_autograds_twice_over(output, dropout):
    """With the dropout mask of the same pass; and so is the gradient of the penalty by the critic's parameters."""
    torch.manual_seed(0)
    critic = Critic(7, 20, dropout, output)
    features = (3 * torch.randn(11, 7)).requires_grad_()
    D, slope = critic(features)
    (expected,) = torch.autograd.grad(D.sum(), features, create_graph=True)
    assert torch.allclose(slope, expected, rtol=1e-5, atol=1e-6)
    ours, theirs = (
        torch.autograd.grad(
            (s.norm(dim=1) - 1).square().mean(), critic.parameters(), retain_graph=True, materialize_grads=True
        )
        for s in (slope, expected)
    )
    for here, there in zip(ours, theirs, strict=True):
        assert torch.allclose(here, there, rtol=1e-5, atol=1e-6)
    assert all(bool(ours[i].abs().sum() > 0) for i in (0, 2))  # both layers' weights


def test_the_critic_is_the_released_network():
    """One hidden layer, ReLU, dropout, one output behind a sigmoid; the mask is drawn as nn.Dropout draws it."""
    critic, x = Critic(7, 20, 0.5, "sigmoid"), torch.randn(9, 7)
    layers = nn.Sequential(critic.hidden, nn.ReLU(), nn.Dropout(0.5), critic.out, nn.Sigmoid())
    torch.manual_seed(1)
    D, _ = critic(x)
    torch.manual_seed(1)
    assert torch.allclose(D, layers(x)[:, 0], atol=1e-6)


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_the_penalty_is_the_written_out_formula(output):
    critic, x, u = Critic(5, 12, 0.5, output), torch.randn(6, 5), torch.randn(6, 5)
    torch.manual_seed(2)
    ours = waal.penalty(critic, x, u)
    torch.manual_seed(2)
    assert torch.allclose(ours, authors_penalty(critic, u, x), rtol=1e-5)


def test_a_critic_without_a_slope_still_gets_numbers():
    critic = Critic(3, 4)
    nn.init.constant_(critic.hidden.bias, -100.0)  # every ReLU is shut
    steep = waal.penalty(critic, torch.randn(5, 3), torch.randn(5, 3))
    steep.backward()
    assert steep.item() == 1
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in critic.parameters())


# The loop


@pytest.mark.parametrize(
    ("settings", "nets"),
    [
        ({"alpha": 0.5}, {}),
        ({"alpha": 0.5, "apart": True, "reuse_features": False, "critic_steps": 2}, {}),
        ({"alpha": 0.5, "reuse_features": False}, {}),
        (RELEASED, {"critic_output": "sigmoid", "critic_dropout": 0.5, "head_layers": 2, "dropout": 0.5}),
    ],
    ids=["ours", "apart", "fresh", "released"],
)
def test_two_steps_of_each_player_are_the_transcription_of_the_equations(settings, nets):
    pool, parts = random_pool(), cast(**nets)
    ours, mirror = plan(steps=2, **{"schedule": "constant", **settings}), deepcopy(parts)
    waal.train(Run(pool, seed=3), pool, ours, **parts)

    # The same, written out, with the gradient of the critic by a double backward.
    f, h, D = mirror["trunk"], mirror["head"], mirror["critic"]
    sgd = {"momentum": ours.momentum, "nesterov": ours.nesterov, "weight_decay": ours.weight_decay}
    f_step, h_step = (torch.optim.SGD(net.parameters(), ours.lr, **sgd) for net in (f, h))
    if ours.critic_optimizer == "adam":
        D_step = torch.optim.Adam(D.parameters(), ours.lr_critic)
    else:
        D_step = torch.optim.SGD(D.parameters(), ours.lr_critic, ours.momentum)
    gamma = 12 / 28 if ours.gamma == "ratio" else 1
    sign = -1 if ours.penalty == "released" else 1
    pairs = Run(pool, seed=3).stream(waal.paired(pool.labeled, pool.unlabeled), 8)
    with torch.random.fork_rng():
        for step in range(2):
            reseed(torch.device("cpu"), 3, "step", len(pool.rounds), "game", step)
            images, y = next(pairs)
            x, u, y = images[:8], images[8:], y[:8]
            joint = not ours.apart
            z_x, z_u = f(images).split(8) if joint else (f(x), f(u))
            loss = F.cross_entropy(h(z_x), y)
            loss = loss + ours.alpha * (D(z_u)[0].mean() - gamma * D(z_x)[0].mean())
            f_step.zero_grad()
            h_step.zero_grad()
            loss.backward()
            f_step.step()
            h_step.step()
            if not ours.reuse_features:
                with torch.no_grad():
                    z_x, z_u = f(images).split(8) if joint else (f(x), f(u))
            for _ in range(ours.critic_steps):
                gp = authors_penalty(D, z_u.detach(), z_x.detach())
                distance = D(z_u.detach())[0].mean() - gamma * D(z_x.detach())[0].mean()
                D_step.zero_grad()
                (-ours.alpha * distance + sign * ours.alpha * ours.penalty_weight * gp).backward()
                D_step.step()

    for name in ("trunk", "head", "critic"):
        for (key, here), there in zip(
            parts[name].state_dict().items(), mirror[name].state_dict().values(), strict=True
        ):
            assert torch.allclose(here, there, atol=2e-5), f"{name}.{key}"


def test_each_player_moves_its_own_parameters_only():
    """Seen at every optimizer step: what has changed since the last one belongs to one player."""
    pool, parts = random_pool(), cast()
    moved = who_moves(waal.train, pool, plan(steps=2, critic_steps=2), parts)
    assert moved == 2 * [("trunk", {"trunk"}), ("head", {"head"}), ("critic", {"critic"}), ("critic", {"critic"})]
    assert all(p.requires_grad for p in parts["critic"].parameters())


def losses(pool, settings, seed=0):
    """The losses of one step: that of trunk and head, then the critic's."""
    seen = []

    class Listening(Run):
        def backward(self, loss):
            seen.append(loss.item())
            super().backward(loss)

    waal.train(Listening(pool, seed=seed), pool, plan(**settings), **cast())
    return seen


@pytest.mark.parametrize(("penalty", "sign"), [("added", 1), ("released", -1)])
def test_the_sign_of_the_penalty_by_finite_differences(penalty, sign, monkeypatch):
    settings = {"penalty": penalty, "penalty_weight": 3.0, "alpha": 0.5}
    before, real = losses(random_pool(), settings), waal.penalty
    monkeypatch.setattr(waal, "penalty", lambda *args: real(*args) + 0.01)
    task, critic = losses(random_pool(), settings)
    assert task == before[0]
    assert (critic - before[1]) / 0.01 == pytest.approx(sign * 3.0 * 0.5, rel=1e-3)


def test_the_step_of_trunk_and_head_does_not_depend_on_the_penalty():
    pool, one, other = random_pool(), cast(), cast()
    waal.train(Run(pool), pool, plan(penalty_weight=0.0), **one)
    waal.train(Run(pool), pool, plan(penalty_weight=5.0), **other)

    def same(part):
        return all(torch.equal(a, b) for a, b in zip(one[part].parameters(), other[part].parameters(), strict=True))

    assert [part for part in one if same(part)] == ["trunk", "head"]


def test_the_released_penalty_on_frozen_features_is_a_constant():
    """What the released code adds to the loss of trunk and head changes no gradient; here it is left out."""
    parts, x, u = cast(), torch.randn(8, *SHAPE), torch.randn(8, *SHAPE)
    parts["critic"].requires_grad_(False)
    gradients = []
    for weight in (0.0, 5.0):
        with torch.no_grad():
            z_x, z_u = parts["trunk"](x), parts["trunk"](u)
        loss = F.cross_entropy(parts["head"](parts["trunk"](x)), torch.zeros(8, dtype=torch.int64))
        loss = loss + weight * authors_penalty(parts["critic"], z_u, z_x)
        gradients.append(torch.autograd.grad(loss, list(parts["trunk"].parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


class Halves(nn.Module):
    """Images to the brightness of their left and right half: two features, and nothing to learn."""

    def forward(self, x):
        return torch.stack([half.mean((1, 2, 3)) for half in x.chunk(2, 3)], 1)


def slope_after(penalty, steps=300):
    pool = dark_and_bright()
    torch.manual_seed(0)
    critic = Critic(2, 32)
    settings = {"steps": steps, "batch": 16, "lr_critic": 0.01, "penalty": penalty}
    waal.train(Run(pool), pool, plan(**settings), trunk=Halves(), head=nn.Linear(2, 3), critic=critic)
    x = Halves()(torch.cat([x for x, _ in islice(Run(pool).stream(pool.unlabeled, 30), 2)]))
    return critic(x)[1].norm(dim=1).mean().item()


def test_a_critic_of_two_features_comes_to_a_slope_of_one():
    assert slope_after("added") == pytest.approx(1, abs=0.1)


def test_the_released_sign_drives_the_slope_away_from_one():
    assert abs(slope_after("released") - 1) > 0.5


@pytest.mark.parametrize(
    ("apart", "reuse", "sizes"), [(False, True, [16]), (False, False, [16, 16]), (True, False, 4 * [8])]
)
def test_labeled_and_unlabeled_pass_together_or_apart_and_always_in_training_mode(apart, reuse, sizes):
    pool, parts, seen = random_pool(), cast(), []
    parts["trunk"].register_forward_hook(lambda module, x, _: seen.append((len(x[0]), module.training)))
    waal.train(Run(pool), pool, plan(steps=3, apart=apart, reuse_features=reuse), **parts)
    assert seen == 3 * [(size, True) for size in sizes]


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_rates_fall_late_for_every_player_and_the_task_has_its_schedule(schedule):
    pool, rates = random_pool(), []

    class Seeing(Run):
        def setup(self, module, optimizer, player=None):
            optimizer.register_step_pre_hook(lambda opt, *_: rates.append((player, opt.param_groups[0]["lr"])))
            return super().setup(module, optimizer, player)

    waal.train(Seeing(pool), pool, plan(steps=8, late=0.1, lr=0.5, lr_critic=0.2, schedule=schedule), **cast())
    late, pace = 6 * [1.0] + 2 * [0.1], [SCHEDULES[schedule](step, 8) for step in range(8)]
    for player, due in (("trunk", pace), ("head", pace), ("critic", 8 * [1.0])):
        lr = 0.2 if player == "critic" else 0.5
        expected = [lr * a * b for a, b in zip(due, late, strict=True)]
        assert [rate for who, rate in rates if who == player] == pytest.approx(expected)


# The pairs


@pytest.mark.parametrize(("known", "rest"), [(3, 10), (4, 8), (1, 5), (10, 3), (5, 5)])
def test_the_shorter_list_is_laid_again_and_again_beside_the_longer(known, rest):
    pairs = waal.paired(torch.arange(known), torch.arange(100, 100 + rest))
    n = max(known, rest)
    assert pairs.tolist() == [[i % known, 100 + i % rest] for i in range(n)]
    for column, of in ((0, known), (1, rest)):
        uses = Counter(pairs[:, column].tolist())
        assert len(uses) == of
        assert set(uses.values()) <= {n // of, math.ceil(n / of)}


def test_one_epoch_of_the_stream_shows_every_pair_once():
    images = torch.arange(23, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()
    pool = Pool.of(images, torch.arange(23) % 3, 3).reveal(range(5))
    stream = Run(pool).stream(waal.paired(pool.labeled, pool.unlabeled), 6)
    seen, answers = [], []
    for x, y in islice(stream, 9):  # three epochs of 18 pairs
        assert x.shape == (12, 1, 8, 8)
        grey = ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        seen += zip(grey[:6], grey[6:], strict=True)
        answers += zip(grey[:6], y[:6].tolist(), strict=True)
        assert y[6:].tolist() == 6 * [-1]
    epochs = [seen[i : i + 18] for i in (0, 18, 36)]
    assert [sorted(epoch) for epoch in epochs] == 3 * [sorted((i % 5, 5 + i) for i in range(18))]
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(answer == grey % 3 for grey, answer in answers)


# The query


def test_uncertainty_is_smallest_where_all_classes_are_alike():
    alike = torch.zeros(1, 10).log_softmax(1)
    assert both_norms(alike).item() == pytest.approx(15.1536, abs=1e-4)
    assert both_norms(alike).item() == pytest.approx(0.5 * (10**0.5 + 10) * math.log(10), rel=1e-6)
    others = torch.randn(500, 10, generator=generator(0, "logits")).log_softmax(1)
    assert (both_norms(others) > both_norms(alike)).all()
    assert (single_worst(others) > single_worst(alike)).all()


def test_uncertainty_is_the_written_out_formula():
    p = torch.randn(6, 4).softmax(1)
    expected = [0.5 * sum(math.log(q) ** 2 for q in row) ** 0.5 - 0.5 * sum(map(math.log, row)) for row in p.tolist()]
    assert torch.allclose(both_norms(p.log()), torch.tensor(expected), rtol=1e-5)
    worst = [max(-math.log(q) for q in row) for row in p.tolist()]
    assert torch.allclose(single_worst(p.log()), torch.tensor(worst), rtol=1e-5)


class Brightness(nn.Module):  # one feature
    def forward(self, x):
        return x.mean((1, 2, 3))[:, None]


class Logits(nn.Module):  # surer, the brighter
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, features):
        return self.scale * features * torch.tensor([[1.0, -1.0]])


class Bright(nn.Module):  # the brighter, the more unlabeled-like
    def forward(self, features):
        return features[:, 0], torch.ones_like(features)


def stub(pool, scale, **settings):
    learner = zoo.create("waal", device="cpu", **TINY, steps=1, batch=8, **settings).fit(pool)
    for name, part in {"trunk": Brightness(), "head": Logits(scale), "critic": Bright()}.items():
        learner.parts[name] = part
    learner.parts["nothing"] = nn.Linear(1, 1)  # tells the device
    return learner


@pytest.mark.parametrize("which", ["both_norms", "single_worst"])
@pytest.mark.parametrize("weight", [0.0, 0.7, 10.0])
def test_it_asks_for_the_smallest_uncertainty_minus_weight_times_D(weight, which):
    pool = random_pool()
    asked = stub(pool, 30.0, query_settings={"weight": weight, "uncertainty": which}).select(pool, 6)
    D = (pool.images[pool.unlabeled].float() / 127.5 - 1).mean((1, 2, 3))
    log = (30 * D[:, None] * torch.tensor([1.0, -1.0])).softmax(1).log()
    U = 0.5 * log.norm(dim=1) + 0.5 * log.abs().sum(1) if which == "both_norms" else -log.min(1).values
    best = (U - weight * D).argsort()[:6]
    assert asked.indices.tolist() == pool.unlabeled[best].tolist()
    assert torch.allclose(asked.detail["uncertainty"], U[best], rtol=1e-4)
    assert torch.allclose(asked.detail["D"], D[best], atol=1e-5)
    assert torch.allclose(asked.scores, weight * D[best] - U[best], rtol=1e-4, atol=1e-5)


def test_ten_is_the_released_weight_and_both_norms_the_released_uncertainty():
    assert zoo.create("waal").query_settings == {"weight": 10.0, "uncertainty": "both_norms"}


def test_predictions_beyond_float32_are_asked_last_and_are_no_infinities():
    pool = random_pool()
    asked = stub(pool, 1e4, query_settings={"weight": 0.0}).select(pool, len(pool.unlabeled))
    assert asked.detail["uncertainty"].isfinite().all()
    assert asked.detail["uncertainty"][-1] > 200


def test_scores_know_no_batch_mates_and_no_dropout():
    pool = random_pool()
    learner = zoo.create("waal", device="cpu", **TINY, critic_dropout=0.5, dropout=0.5, steps=3, batch=8).fit(pool)
    scan = learner.scan(pool)
    D, _ = looks(scan, scan.features)
    alone = torch.cat([looks(scan, scan.each(scan.parts["trunk"], of=i[None]))[0] for i in pool.unlabeled])
    assert torch.allclose(D, alone, atol=1e-5)
    assert torch.equal(D, looks(scan, scan.features)[0])


def test_an_unknown_uncertainty_is_refused():
    with pytest.raises(ValueError, match=r"uncertainty='worst' must be one of both_norms, single_worst"):
        zoo.create("waal", query_settings={"uncertainty": "worst"})


# Its character


def dark_and_bright():
    chance = generator(0, "character")
    dark = torch.randint(0, 100, (60, 3, 8, 8), dtype=torch.uint8, generator=chance)
    bright = torch.randint(150, 256, (30, 3, 8, 8), dtype=torch.uint8, generator=chance)
    targets = torch.randint(0, 3, (90,), generator=chance)
    return Pool.of(torch.cat([dark, bright]), targets, 3).reveal(torch.arange(30))


def asked_bright(seed=0, weight=10.0, **settings):
    """How many of 20 asked images are bright, where the classifier holds everything for equally unsure."""
    pool = dark_and_bright()
    asking = {"query_settings": {"weight": weight}, "seed": seed}
    learner = zoo.create("waal", device="cpu", steps=40, batch=16, **asking, **settings).fit(pool)
    for value in learner.parts["head"].parameters():
        nn.init.zeros_(value)
    return int((learner.select(pool, 20).indices >= 60).sum())


@pytest.mark.parametrize("seed", range(3))
def test_character_it_asks_for_what_the_labels_have_never_shown(seed):
    """Dark images are labeled, dark and bright ones are not: where uncertainty ties, it must want the bright."""
    assert asked_bright(seed) >= 18


def test_character_would_catch_a_turned_query():
    assert asked_bright(weight=-10.0) < 10


def test_character_would_catch_a_critic_that_is_paid_for_the_contrary(monkeypatch):
    monkeypatch.setattr(waal.Plan, "__post_init__", lambda _: None)
    assert asked_bright(alpha=-2e-3, penalty="released") < 10  # minus the distance, and the penalty as it was


# Plans, diagnosis, journal


def test_published_networks_have_their_published_sizes():
    def count(part):
        return sum(p.numel() for p in part.parameters())

    for name in ("paper", "released"):
        entry = entries()["waal"]
        with torch.device("meta"):
            parts = entry.build((3, 32, 32), 10, **entry.plans[name].nets)
        assert [count(parts[part]) for part in parts] == [14_723_136, 26_160, 25_701]
        assert parts["critic"].output == ("sigmoid" if name == "released" else "linear")


@pytest.mark.parametrize(("shape", "d"), [((1, 28, 28), 320), ((1, 16, 16), 20), ((3, 33, 50), 20 * 5 * 9)])
def test_lenet(shape, d):
    net = trunk("lenet", shape)
    assert net.d == d
    assert net(torch.randn(2, *shape)).shape == (2, d)
    assert len(net.stages) == 2


def test_published_trunks_refuse_images_that_leave_them_no_pixel():
    with pytest.raises(ValueError, match="16x16 or more"):
        trunk("lenet", (1, 15, 28))


@pytest.mark.parametrize("side", [(28, 28), (33, 31), (50, 64)])
@pytest.mark.parametrize(("name", "d"), [("vgg16_conv", 512), ("vgg16_bn", 4096)])
def test_vgg_takes_images_of_other_sizes(name, d, side):
    """Sides that are no multiple of 32 are rounded up where they are halved."""
    with torch.device("meta"):
        assert trunk(name, (1, *side))(torch.randn(2, 1, *side)).shape == (2, d)


def test_released_steps_are_80_epochs_of_max_l_u():
    plans = entries()["waal"].plans
    assert plans["released"].loop.steps == 80 * math.ceil(49_000 / 64)
    assert plans["paper"].loop.steps == 80 * math.ceil(48_000 / 64)


def test_ours_takes_the_steps_of_plain_training():
    ours, plain = (entries()[name].plans["ours"].loop for name in ("waal", "plain"))
    assert (ours.steps, ours.batch) == (plain.steps, plain.batch)


@pytest.mark.parametrize(
    "setting",
    [
        {"alpha": 0.0},
        {"momentum": 0.0},
        {"late": -0.1},
        {"gamma": "half"},
        {"critic_steps": 0},
        {"critic_optimizer": "lion"},
        {"lr_critic": 0.0},
        {"penalty": "none"},
        {"penalty_weight": -1.0},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("waal", **setting)


@pytest.mark.parametrize("net", [{"head_layers": 3}, {"critic_output": "tanh"}, {"critic_dropout": 1.0}])
def test_networks_that_make_no_sense_are_refused(net):
    name = next(iter(net))
    with pytest.raises(ValueError, match=name if name != "critic_dropout" else "dropout"):
        zoo.create("waal", **net).fit(random_pool())


def test_diagnosis_tells_a_game_from_none():
    pool = dark_and_bright()
    held_out = pool.images[::3]
    alive = zoo.create("waal", device="cpu", steps=60, batch=16).fit(pool).diagnose(pool, held_out)
    assert alive["critic_auc"] > 0.65
    assert alive["distance"] > 0.5
    assert 0.6 < alive["slope"] < 1.6
    assert alive["critic_share"] > 0.1
    assert doubt(alive) == []
    dead = zoo.create("waal", device="cpu", steps=60, batch=16, penalty="released").fit(pool).diagnose(pool, held_out)
    assert not 0.5 < dead["slope"] < 2
    assert "slope" in " ".join(doubt(dead))


def test_doubts_are_sentences_with_their_numbers():
    numbers = {"critic_auc": 0.51, "distance": 0.0, "slope": 0.06, "critic_share": 0.02}
    auc, slope, share = doubt(numbers)
    assert "0.51" in auc
    assert "0.06" in slope
    assert "2%" in share
    assert "turned around" in doubt({**numbers, "critic_auc": 0.2})[0]
    assert doubt({"critic_auc": 0.7, "distance": 1.0, "slope": 1.1, "critic_share": 0.4}) == []


def test_a_frozen_trunk_leaves_the_game_to_the_others():
    pool = random_pool()
    learner = zoo.create("waal", device="cpu", **TINY, steps=2, batch=8, freeze=("trunk", "critic"))
    before = {name: part.clone() for name, part in learner.build(SHAPE, CLASSES, len(pool.rounds)).state_dict().items()}
    after = learner.fit(pool).parts.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"head"}


def test_with_everything_labeled_the_critic_is_left_out_and_said_so(caplog):
    pool = random_pool()
    full = pool.reveal(pool.unlabeled)
    zoo.create("waal", device="cpu", **TINY, steps=2, batch=8).fit(full)
    assert len(caplog.messages) == 1
    assert "nothing is unlabeled" in caplog.text


def test_the_journal_has_the_game_in_groups():
    pool, lines = random_pool(), []
    learner = zoo.create("waal", device="cpu", **TINY, steps=120, batch=8)
    learner.fit(pool, journal=lambda *line: lines.append(line))
    names = {name for name, _, _ in lines}
    assert {"task/loss", "task/accuracy", "critic/distance", "critic/penalty", "critic/auc"} == names
    assert [step for name, _, step in lines if name == "critic/distance"] == [100, 120]
    assert all(0 <= value <= 1 for name, value, _ in lines if name in ("critic/auc", "task/accuracy"))
