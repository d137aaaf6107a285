"""Draws under dropout, and what is asked by them."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import zoo
from trainers import ensemble
from trainers.run import Run
from zoo.nets.common import Full
from zoo.nets.trunk import Trunk
from zoo.queries.bayesian import chosen, entropy, extended, frank_wolfe, jointly, posterior, told
from zoo.register import queries
from zoo.scan import Scan, dropouts, dropping, parted
from zoo.testing import CLASSES, Subject, pool


def scan(**settings):
    p = pool()
    return Subject("bald").learner(**settings).fit(p).scan(p)


def test_a_draw_is_the_head_under_one_mask_for_all_images():
    s = scan()
    (log,) = s.draws(1)
    d = s.features.shape[1]
    mask = (torch.rand(d, generator=s.generator("member 0 draw 0")) >= 0.3).float() / 0.7
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
    mask = (torch.rand(6, 1, 1, generator=s.generator("member 0 draw 0")) >= 0.5).float() * 2
    conv, _, average, flat = s.parts["trunk"]
    again = s.each(lambda x: s.parts["head"](flat(average(conv(x) * mask))))
    assert torch.allclose(first, again.log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("together", [1, 2**28])
def test_what_stands_before_a_dropout_in_a_trunk_is_seen_once_for_all_draws(monkeypatch, together):
    monkeypatch.setattr("zoo.scan.TOGETHER", together)
    s = scan()
    conv = nn.Conv2d(3, 6, 3)
    s.parts["trunk"] = nn.Sequential(
        nn.Sequential(conv, nn.ReLU()), nn.Dropout2d(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    s.parts["head"] = nn.Linear(6, CLASSES)
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    drawn = list(s.draws(3))
    seen = len(calls)
    for draw, log in enumerate(drawn):
        with dropping(s.generator(f"member 0 draw {draw}"), s.task):
            plain = s.each(s.task)
        assert torch.allclose(log, plain.log_softmax(1), atol=1e-6)
    plainly = len(calls) - seen  # one pass for each draw
    assert seen == (plainly if together == 1 else plainly // 3)


def test_a_network_is_parted_where_its_dropout_stands():
    drop, inner = nn.Dropout(0.5), nn.Linear(2, 2)
    first, rest = parted(Trunk(nn.Sequential(nn.Sequential(inner, nn.ReLU(), drop), nn.Tanh()), 2, ()))
    assert list(map(type, first)) == [nn.Linear, nn.ReLU]
    assert list(map(type, rest)) == [nn.Dropout, nn.Tanh]
    first, rest = parted(Full(inner, drop))  # it does more than its layers
    assert not len(first)
    assert list(map(type, rest)) == [Full]


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
    asked = zoo.register.queries()["bald"].ask(s, 36, draws=20)
    assert torch.allclose(asked.detail["BALD"].double(), expected[asked.positions], atol=1e-6)
    assert (asked.detail["BALD"] >= -1e-6).all()
    assert (asked.detail["BALD"] <= min(math.log(CLASSES), math.log(20))).all()


def test_without_dropout_it_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"needs draws.*dropout=0\.5"):
        zoo.create("vaal+bald", device="cpu").fit(pool())
    with pytest.raises(ValueError, match="needs draws"):
        zoo.create("bald", device="cpu", dropout=0.0).fit(pool())
    with pytest.raises(ValueError, match="draws=0"):
        zoo.create("bald", device="cpu", steps=1, query_settings={"draws": 0}).fit(pool()).select(pool(), 2)


def test_with_dropout_any_loop_can_ask_so():
    learner = zoo.create("vaal+bald", device="cpu", width=4, vae_width=4, steps=1, game_steps=1, dropout=0.3)
    assert len(learner.fit(pool()).select(pool(), 3)) == 3


def sharp(m, t, k, seed=0):
    """Draws (m t k) of m images."""
    return (6 * torch.rand(m, t, k, generator=torch.Generator().manual_seed(seed))).softmax(2)


def joint_information(p):
    """I(labels of all images; draw), over every configuration written out: (i t k) -> nats."""
    i, _, k = p.shape
    total = 0.0
    for labels in product(range(k), repeat=i):
        chance = torch.stack([p[j, :, label] for j, label in enumerate(labels)]).prod(0).mean()
        total -= (chance * chance.log()).item()
    return total - entropy(p).mean(1).sum().item()


def test_what_the_draws_say_is_summed_up_as_they_would_be_together():
    s = scan()
    p = torch.stack([log.exp() for log in s.draws(12)])
    seen = posterior(s, 12)
    assert seen.draws == 12
    assert torch.allclose(seen.mean, p.mean(0), atol=1e-6)
    assert torch.allclose(seen.variance, p.var(0, correction=0), atol=1e-6)
    assert torch.allclose(seen.entropy, entropy(p).mean(0), atol=1e-5)
    assert torch.equal(seen.votes.long(), nn.functional.one_hot(p.argmax(2), CLASSES).sum(0))


@pytest.mark.parametrize(
    ("name", "detail", "score"),
    [
        ("mc_least_confident", "confidence", lambda p: p.mean(0).amax(1)),
        ("mc_margin", "margin", lambda p: -p.mean(0).sort(1).values[:, -2:].diff().squeeze(1).neg()),
        ("mc_entropy", "entropy", lambda p: entropy(p.mean(0))),
        ("mean_std", "std", lambda p: p.std(0, unbiased=False).mean(1)),
        ("variation_ratio", "VR", lambda p: 1 - nn.functional.one_hot(p.argmax(2), CLASSES).float().mean(0).amax(1)),
    ],
)
def test_a_query_by_draws_is_its_formula(name, detail, score):
    s = scan()
    p = torch.stack([log.exp() for log in s.draws(12)])
    asked = queries()[name].ask(s, 36, draws=12)
    assert torch.allclose(asked.detail[detail], score(p)[asked.positions], atol=1e-5)


def test_equal_votes_are_ordered_by_the_entropy_of_the_mean():
    s = scan()
    asked = queries()["variation_ratio"].ask(s, 36, draws=4)
    spread = entropy(posterior(s, 4).mean)[asked.positions]
    ratio = asked.detail["VR"]
    assert (ratio.diff() <= 1e-6).all()
    assert len(ratio.unique()) < 36
    assert all(spread[i] >= spread[i + 1] - 1e-6 for i in range(35) if ratio[i] == ratio[i + 1])


def test_an_ensemble_votes_and_answers_together():
    p = pool()
    learner = Subject("ensemble").learner().fit(p)
    nets = learner.scan(p).members
    assert len(nets) == 5
    probs = torch.stack([learner.scan(p).each(net).softmax(1) for net in nets])
    assert torch.allclose(learner.scan(p).probs, probs.mean(0), atol=1e-6)
    assert torch.allclose(learner.predict(p.images[p.unlabeled]), probs.mean(0), atol=1e-6)
    asked = learner.select(p, 36)
    votes = nn.functional.one_hot(probs.argmax(2), CLASSES).sum(0).amax(1)
    order = [p.unlabeled.tolist().index(i) for i in asked]
    assert torch.allclose(asked.detail["VR"], 1 - votes[order] / 5)


def test_the_first_member_is_the_plain_network_and_the_others_start_apart():
    p = pool()
    parts, plain = (Subject(name).learner().fit(p).parts for name in ("ensemble", "plain"))
    assert all(torch.equal(v, parts[n].state_dict()[k]) for n in plain for k, v in plain[n].state_dict().items())
    heads = [parts["head"].linear.weight, *(member[1].linear.weight for member in parts["members"])]
    assert len({tuple(head.flatten().tolist()) for head in heads}) == 5


def test_debal_draws_from_every_member_and_mask():
    p = pool()
    learner = Subject("debal").learner().fit(p)
    assert len(list(learner.scan(p).draws(7))) == 3 * 7
    assert len(list(Subject("ensemble").learner().fit(p).scan(p).draws(7))) == 5


def test_one_member_draws_as_a_lone_network_and_one_without_dropout_is_a_vote():
    p = pool()
    alone, three = (Subject(name).learner(dropout=0.5).fit(p).scan(p) for name in ("bald", "debal"))
    assert all(torch.equal(a, b) for a, b in zip(alone.draws(7), three.draws(7), strict=False))
    voters = Subject("ensemble").learner().fit(p).scan(p)
    answers = [voters.each(member).log_softmax(1) for member in voters.members]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(voters.draws(7), answers, strict=True))


def test_snapshots_are_the_ends_of_cycles_of_one_run():
    p = pool()
    seen = []

    class Seeing(Run):
        def once(self, name, compute):
            seen.append(super().once(name, compute))
            return seen[-1]

    parts = zoo.create("plain", width=4, members=3, device="cpu").build(p.shape, p.classes)
    plan = ensemble.Plan(steps=8, batch=8, snapshots=True)
    ensemble.train(Seeing(p), p, plan, **parts)
    for kept, member in zip(seen, parts["members"], strict=True):
        assert all(torch.equal(value, member.state_dict()[name]) for name, value in kept.items())
    ends = [*parts["members"], nn.Sequential(parts["trunk"], parts["head"])]
    assert len({tuple(net[1].linear.weight.flatten().tolist()) for net in ends}) == 3
    counted = [next(v for k, v in net.state_dict().items() if "tracked" in k).item() for net in ends]
    assert counted == [2, 5, 8]  # eight steps, in three parts


def test_batch_bald_asking_for_one_is_bald():
    s = scan()
    alone, joint = (queries()[name].ask(s, 1, draws=20) for name in ("bald", "batch_bald"))
    assert torch.equal(alone.positions, joint.positions)
    assert torch.allclose(alone.detail["BALD"], joint.detail["gain"], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_batch_bald_is_the_greedy_choice_over_written_out_configurations(seed):
    p = sharp(9, 6, 2, seed)
    places, gains = jointly(p, 4, 10_000, torch.Generator())
    chosen = []
    for place, gain in zip(places.tolist(), gains.tolist(), strict=True):
        before = joint_information(p[chosen]) if chosen else 0.0
        every = {j: joint_information(p[[*chosen, j]]) - before for j in range(9) if j not in chosen}
        assert every[place] == pytest.approx(max(every.values()), abs=1e-5)
        assert gain == pytest.approx(every[place], abs=1e-5)
        chosen.append(place)


def test_the_information_of_a_set_does_not_depend_on_its_order():
    p = sharp(4, 6, 3)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        weight, w, total = torch.ones(1), torch.full((1, 6), 1 / 6), 0.0
        for j in order:
            total += (told(p[[j]], weight, w) - entropy(p[j]).mean()).item()
            weight, w = extended(weight, w, p[j], 10_000, torch.Generator())
        assert total == pytest.approx(joint_information(p), abs=1e-5)


def test_a_copy_of_a_sure_image_adds_nothing():
    """Each draw is certain of its label, so the first copy tells all that the second would."""
    sure = torch.eye(2)[torch.tensor([0, 0, 1, 1])][None]
    other = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8]]])
    places, gains = jointly(torch.cat([sure, sure, other]), 3, 1000, torch.Generator())
    assert places.tolist() == [0, 2, 1]
    assert gains[2].item() == pytest.approx(0, abs=1e-6)


def test_drawn_configurations_come_near_the_exact_gains():
    p = sharp(12, 20, 3)
    exact = jointly(p, 6, 10**6, torch.Generator())
    near = jointly(p, 6, 300, torch.Generator().manual_seed(0))
    assert torch.equal(exact[0][:5], near[0][:5])  # 3 ** 5 = 243 configurations at most: exact still
    assert torch.allclose(exact[1], near[1], atol=0.02)


def test_drawn_configurations_have_the_weights_of_all_of_them():
    p, chance = sharp(1, 5, 3)[0], torch.Generator().manual_seed(0)
    weight, w = extended(torch.ones(1), torch.full((1, 5), 0.2), p, 3, chance)
    drawn, posterior_of = extended(weight, w, p, 3000 // 9, chance), {}
    full = extended(weight, w, p, 9, chance)
    for a, row in zip(drawn[0], drawn[1], strict=True):
        near = (full[1] - row).abs().sum(1).argmin().item()
        posterior_of[near] = posterior_of.get(near, 0) + a.item()
    shares = torch.tensor([posterior_of.get(i, 0.0) for i in range(len(full[0]))])
    same = {tuple(row.tolist()): 0.0 for row in full[1]}  # label pairs (a, b) and (b, a) have one posterior
    assert shares.sum().item() == pytest.approx(1)
    assert len(same) <= 9
    assert (w.sum(1) - 1).abs().max() < 1e-5


def test_gains_never_rise_and_exhausted_draws_are_said(caplog):
    _, gains = jointly(sharp(30, 4, 3).square().softmax(2).mul(40).softmax(2), 20, 2000, torch.Generator())
    assert (gains.diff() <= 1e-6).all()
    assert gains.sum() <= math.log(4) + 0.02  # no more to know than which draw it is
    assert "4 draws tell no more" in caplog.text


def test_batch_bald_keeps_to_its_memory():
    s = scan()
    few = queries()["batch_bald"].ask(s, 5, draws=100, memory_mib=6 * 1200 / 2**20)  # the draws of six images
    best = queries()["bald"].ask(s, 6, draws=100)
    assert set(few.positions.tolist()) < set(best.positions.tolist())
    with pytest.raises(ValueError, match=r"memory_mib=0 holds the draws of 0 images"):
        queries()["batch_bald"].ask(s, 5, memory_mib=0)


@pytest.mark.parametrize("name", ["mean_std", "variation_ratio", "bald", "power_bald"])
def test_one_draw_disagrees_with_nobody(name):
    with pytest.raises(ValueError, match="draws=1: one draw cannot disagree"):
        queries()[name].ask(scan(), 3, draws=1)


def test_power_bald_draws_in_proportion():
    s = scan()
    bald = posterior(s, 10).bald
    counts = torch.zeros(36)
    for seed in range(400):
        s.seed = seed
        s.draws = lambda t, of=None, s=s: scan_draws(s, t)  # noqa: ARG005
        counts[queries()["power_bald"].ask(s, 1, draws=10).positions] += 1
    expected = 400 * bald / bald.sum()
    chi = ((counts - expected).square() / expected).sum().item()
    assert chi < 35 + 4 * math.sqrt(70)


LOGS = {}


def scan_draws(s, t):
    """The draws of seed 0, whatever the seed is now."""
    if not LOGS:
        seed, s.seed = s.seed, 0
        LOGS[t] = list(Scan.draws(s, t))
        s.seed = seed
    return iter(LOGS[t])


def test_frank_wolfe_goes_down_to_nothing_and_stays_distinct():
    v = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    residual = []
    for n in (1, 3, 6, 12, 24, 40):
        places, weights = frank_wolfe(v, n)
        assert len(places.unique()) == n
        residual.append((v.sum(0) - (weights[:, None] * v[places]).sum(0)).norm().item())
    assert residual == sorted(residual, reverse=True)
    assert residual[-1] < 0.2 * residual[0]


def test_frank_wolfe_first_takes_what_points_along_the_sum():
    v = torch.tensor([[1.0, 0.0], [0.5, 1.2], [0.0, 1.0], [-1.0, -0.1]], dtype=torch.float64)
    places, _ = frank_wolfe(v, 1)
    assert places.tolist() == [1]


def test_a_network_that_diverged_asks_nothing():
    s = scan()
    with torch.no_grad():
        s.parts["head"].linear.weight.fill_(math.nan)
    for name in ("bald", "mc_entropy", "mean_std", "power_bald", "batch_bald", "acs_fw"):
        with pytest.raises(RuntimeError, match="diverged"):
            queries()[name].ask(s, 3, draws=3)


def test_the_variance_of_a_sure_network_is_not_what_rounding_leaves():
    """Draws that differ in the fifth digit, and draws that do not differ at all."""
    chance = torch.Generator().manual_seed(0)
    base = torch.randn(50, 3, generator=chance) + torch.tensor([12.0, 0, 0])
    draws = [(base + 0.3 * torch.randn(50, 3, generator=chance)).log_softmax(1) for _ in range(40)]
    told = torch.stack(draws).double().exp().var(0, correction=0)
    of = SimpleNamespace(draws=lambda *_: iter(draws), device="cpu", pool=SimpleNamespace(unlabeled=base, classes=3))
    assert torch.allclose(posterior(of, 40).variance.double(), told, rtol=2e-2, atol=0)
    of.draws = lambda *_: iter(40 * draws[:1])
    assert posterior(of, 40).variance.count_nonzero() == 0


@pytest.mark.parametrize("name", ["acs_fw", "batch_bald"])
def test_draws_are_counted_where_nothing_drops(name):
    """An ensemble without dropout has one draw of each member, whatever `draws` says."""
    p, asked = pool(), []
    learner = zoo.create(name, members=4, dropout=0, device="cpu", steps=2, batch=8, width=2).fit(p)
    assert learner.scan(p).count(100) == len(list(learner.scan(p).draws(100))) == 4
    assert len(learner.select(p, 5)) == 5
    if name == "acs_fw":
        asked = list(chosen(learner.scan(p).draws(100), learner.scan(p), 100, 10))
        assert len(asked) == 4, "all there are"
    else:
        u, k = len(p.unlabeled), p.classes
        enough = zoo.create(
            name, members=4, dropout=0, device="cpu", query_settings={"memory_mib": 4 * k * 4 * u / 2**20}
        )
        assert enough.query_settings["memory_mib"] < 0.1
        with pytest.raises(ValueError, match="one draw cannot disagree"):
            zoo.create(name, dropout=0.3, device="cpu", steps=1, width=2, query_settings={"draws": 1}).fit(p).select(
                p, 2
            )


def test_batch_bald_says_so_where_nothing_is_told_from_the_first_image_on(caplog):
    sure = torch.zeros(6, 3, 2)
    sure[..., 0] = 1
    jointly(sure, 1, 100, torch.Generator())
    assert "tell no more after 0 of 1 images" in caplog.text
