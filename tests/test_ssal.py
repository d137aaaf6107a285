"""SSAL against its equations: each loss, one step of each player, who sees what, and its character."""

import math
from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainers import graph, ssal, supervised
from trainers.pool import Pool, nobody, normal
from trainers.run import Run
from trainers.seeds import reseed
from zoo.entries.ssal import diagnose, doubt, precision, spread
from zoo.nets.trunk import task, trunk
from zoo.register import entries
from zoo.studies.beliefs import pseudo_labels

SHAPE, CLASSES = (1, 8, 8), 3


def random_pool(n=60, known=12):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(known))


def hidden(pool):
    return Pool.hidden(pool.images, pool.classes, nobody)


def cast(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["ssal"].build(SHAPE, CLASSES, width=4)


def plan(**settings):
    small = {"steps": 1, "sup_share": 0.0, "mixed_batch": 10, "labeled_share": 50 / 128, "neighbours": 5}
    return ssal.Plan(
        **{**small, "pretext": "deepcluster", "pretext_steps": 1, "lr_pretext": 0.05, "lr_top": 2.0, **settings}
    )


def learner(**settings):
    quick = {
        "device": "cpu",
        "width": 4,
        "steps": 4,
        "batch": 8,
        "mixed_batch": 8,
        "pretext": "deepcluster",
        "pretext_steps": 4,
        "cluster_steps": 2,
    }
    return zoo.create("ssal", **{**quick, **settings})


def equal(parts, mirror):
    for name, part in parts.items():
        for (key, here), there in zip(part.state_dict().items(), mirror[name].state_dict().values(), strict=True):
            assert torch.allclose(here, there, atol=2e-5), f"{name}.{key}"


def sgd(*modules, lr=0.1):
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.SGD(parameters, lr * supervised.one_cycle(0, 1), 0.9, weight_decay=5e-4, nesterov=True)


def moved(step, loss):
    step.zero_grad()
    loss.backward()
    step.step()


def test_steps_on_labels_alone_are_plain_training():
    pool, parts, mirror = random_pool(), cast(), cast()
    ssal.train(Run(pool, seed=3, augment="shift"), pool, plan(semi="none", steps=4), **parts)
    run = Run(pool, seed=3, augment="shift")
    net, stream = nn.Sequential(*mirror.values()), run.stream(pool.labeled, 32)
    step = sgd(net)
    for i in range(4):
        supervised.rate(step, 0.1 * supervised.one_cycle(i, 4))
        x, y = next(stream)
        moved(step, F.cross_entropy(net(x), y))
    equal(parts, mirror)


@pytest.mark.parametrize("omega", ["surest", "raw", None])
@pytest.mark.parametrize("zeta", [True, False])
@pytest.mark.parametrize("features", ["clean", "augmented"])
@pytest.mark.parametrize("mode", ["prob", "full", "uniform"])
@pytest.mark.parametrize("by", ["weights", "images"])
@pytest.mark.parametrize("apart", [True, False])
def test_a_step_on_spread_labels_is_the_written_out_equation(omega, zeta, features, mode, by, apart):
    pool, parts = random_pool(), cast()
    mirror = deepcopy(parts)
    ours = plan(
        omega=omega is not None,
        surest=omega == "surest",
        zeta=zeta,
        features=features,
        lp_mode=mode,
        counts=by,
        apart=apart,
    )
    ssal.train(Run(pool, seed=3, augment="shift"), pool, ours, **parts)

    run = Run(pool, seed=3, augment="shift")
    run.stream(pool.labeled, 32)  # of the first stage
    labeled, net, step = run.stream(pool.labeled, 4), nn.Sequential(*mirror.values()), sgd(*mirror.values())
    m = 48 if mode == "full" else 24
    order = run.order(torch.arange(m), 6)
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 3, "step", len(pool.rounds), "semi", 0)
        net.eval()
        with torch.no_grad():
            v = mirror["trunk"](run.look(torch.arange(60), "none" if features == "clean" else "shift"))
        net.train()
        believed = graph.propagate(graph.build(v, 5), torch.arange(12), pool.labels[:12], 3)
        y_u, w_u = believed.labels[12:], (believed.weights if omega == "surest" else believed.raw)[12:]
        drawn = graph.draw(w_u, m) if mode == "prob" else torch.randperm(48)[:m]
        (x, y), j = next(labeled), drawn[next(order)]
        seen = run.look(12 + j)
        logits = torch.cat([net(x), net(seen)]) if apart else net(torch.cat([x, seen]))
        told = [(int(k), 1.0) for k in pool.labels[:12]]
        told += [
            (int(k), 1.0 if by == "images" or omega is None else float(w))
            for k, w in zip(y_u[drawn], w_u[drawn], strict=True)
        ]
        counts = [sum(w for k, w in told if k == c) for c in range(3)]
        loss, weight = 0.0, 0.0
        for i in range(10):
            target = int(y[i] if i < 4 else y_u[j[i - 4]])
            sure = 1.0 if i < 4 or omega is None else w_u[j[i - 4]]
            rare = sum(counts) / 3 / max(1, counts[target]) if zeta else 1.0
            loss, weight = loss - sure * rare * logits[i].log_softmax(0)[target], weight + sure
        moved(step, loss / (10 if by == "images" else weight))
    equal(parts, mirror)


def test_a_step_of_fixmatch_is_the_written_out_equation():
    pool, parts = random_pool(), cast()
    mirror = deepcopy(parts)
    ours = plan(batch=10, semi="fixmatch", threshold=0.4, unlabeled_weight=1.5, mu=3)
    ssal.train(Run(pool, seed=3, augment="shift"), pool, ours, **parts)

    run = Run(pool, seed=3, augment="shift")
    run.stream(pool.labeled, 32)
    labeled, order = run.stream(pool.labeled, 10), run.order(pool.unlabeled, 30)
    net, step = nn.Sequential(*mirror.values()), sgd(*mirror.values())
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 3, "step", len(pool.rounds), "semi", 0)
        (x, y), i = next(labeled), next(order)
        logits = net(torch.cat([x, run.look(i, "shift"), run.look(i, "strong")]))
        p, kept, loss = logits[10:40].detach().softmax(1), 0, F.cross_entropy(logits[:10], y)
        for j in range(30):
            if p[j].max() >= 0.4:
                kept += 1
                loss = loss - 1.5 * logits[40 + j].log_softmax(0)[p[j].argmax()] / 30
        assert 0 < kept < 30
        moved(step, loss)
    equal(parts, mirror)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_step_of_the_pretext_is_the_written_out_equation(uniform, whiten, alone):
    pool, parts = hidden(random_pool()), cast()
    mirror = deepcopy(parts)
    ours = plan(uniform=uniform, whiten=whiten, top_alone=alone, kmeans_iterations=7)
    seen = {}

    class Seeing(Run):
        def setup(self, module, optimizer, player=None):
            seen[player] = module
            return super().setup(module, optimizer, player)

    ssal.pretext(Seeing(pool, seed=3, augment="shift"), pool, ours, **parts)

    run = Run(pool, seed=3, augment="shift")
    order, net, top = run.order(torch.arange(60), 32), mirror["trunk"], nn.Linear(16, 15)
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 3, "step", 0, "pretext", 0)
        net.eval()
        with torch.no_grad():
            v = net(normal(pool.images))
        net.train()
        assigned = graph.kmeans(F.normalize(graph.whiten(v) if whiten else v), 15, 7)
        nn.init.normal_(top.weight, 0, 0.01)
        nn.init.zeros_(top.bias)
        weight = torch.tensor([1 / (assigned == c).sum() for c in assigned])
        i = torch.multinomial(weight, 32, replacement=True) if uniform else next(order)
        loss = F.cross_entropy(top(net(run.look(i, "shift"))), assigned[i])
        assert loss.item() == pytest.approx(math.log(15), abs=0.05)
        plainly = torch.optim.SGD(top.parameters(), 2 * supervised.one_cycle(0, 1))
        trunk_step, top_step = sgd(net, lr=0.05), plainly if alone else sgd(top, lr=2)
        loss.backward()
        trunk_step.step()
        top_step.step()
    equal(parts, mirror)
    equal({"top": seen["clusters"].layer}, {"top": top})
    assert torch.equal(seen["clusters"].assigned, assigned)


def test_each_player_moves_its_own_parameters_only():
    pool, parts = random_pool(), cast()
    changes, watched = [], dict(parts)

    def now():
        return {name: torch.cat([p.detach().flatten() for p in part.parameters()]) for name, part in watched.items()}

    class Seeing(Run):
        last = now()

        def setup(self, module, optimizer, player=None):
            if player == "clusters":
                watched["clusters"] = module

            def look(*_):
                fresh = now()
                changes.append((player, {n for n in fresh if not torch.equal(fresh[n], Seeing.last.get(n, fresh[n]))}))
                Seeing.last = fresh

            if optimizer is not None:
                optimizer.register_step_pre_hook(lambda *_: setattr(Seeing, "last", now()))
                optimizer.register_step_post_hook(look)
            return super().setup(module, optimizer, player)

    ssal.pretext(Seeing(hidden(pool)), hidden(pool), plan(pretext_steps=2, cluster_steps=1), **parts)
    assert changes == 2 * [("pretext", {"trunk"}), ("clusters", {"clusters"})]
    changes.clear()
    ssal.train(Seeing(pool), pool, plan(steps=4, sup_share=0.5), **parts)
    assert changes == 4 * [("task", {"trunk", "head"})]


@pytest.mark.parametrize("semi", ["propagation", "fixmatch", "none"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_steps_are_all_steps_of_the_task_network(semi, share):
    pool, parts, lines = random_pool(), cast(), []
    run = Run(pool, watch=lambda stage, step, n: lines.append((stage, step, n)))
    ssal.train(run, pool, plan(steps=10, sup_share=share, semi=semi), **parts)
    assert len(lines) == 10
    alone = 10 if semi == "none" else round(10 * share)
    assert [stage for stage, _, _ in lines] == alone * ["labels"] + (10 - alone) * ["semi"]


def test_a_batch_is_50_labeled_and_78_drawn_of_the_unlabeled():
    pool, sizes, shown, beliefs = random_pool(), [], [], []

    class Seeing(Run):
        def setup(self, module, optimizer, player=None):
            beliefs.append(module)
            return super().setup(module, optimizer, player)

        def stream(self, indices, size, augment=None):
            sizes.append((indices, size))
            return super().stream(indices, size, augment)

        def look(self, indices, augment=None):
            if augment is None:
                shown.append(indices)
            return super().look(indices, augment)

    ssal.train(Seeing(pool), pool, plan(steps=6, mixed_batch=128, lp_steps=6), **cast())
    assert torch.equal(sizes[-1][0], pool.labeled)
    assert sizes[-1][1] == 50
    assert [len(i) for i in shown] == 6 * [78]
    drawn = beliefs[-1].drawn
    assert len(drawn) == len(set(drawn.tolist())) == 24
    assert torch.isin(drawn, pool.unlabeled).all()
    times = Counter(torch.cat(shown).tolist())
    assert set(times) == set(drawn.tolist())
    assert max(times.values()) - min(times.values()) <= 1  # all of the drawn before any comes again


def test_labels_spread_anew_every_so_many_steps(monkeypatch):
    calls, propagate = [], graph.propagate
    monkeypatch.setattr(graph, "propagate", lambda *args: calls.append(args) or propagate(*args))
    pool = random_pool()
    ssal.train(Run(pool), pool, plan(steps=11, lp_steps=4), **cast())
    assert len(calls) == 3
    _, known, labels, classes, alpha, iterations = calls[0]
    assert torch.equal(known, torch.arange(12))
    assert torch.equal(labels, pool.labels[:12])
    assert (classes, alpha, iterations) == (3, 0.99, 20)


@pytest.mark.parametrize(("by", "share"), [("images", 50 / 128), ("weights", 1.0)])
def test_with_no_weight_the_unlabeled_leave_the_loss_of_the_labels(by, share, monkeypatch):
    """Divided by the batch, as published, 50/128 of it; divided by the sum of the weights, all of it."""
    pool, lines = random_pool(), []
    nothing = graph.Spread(torch.zeros(60).long(), torch.zeros(60), torch.zeros(60))
    monkeypatch.setattr(graph, "propagate", lambda *_: nothing)
    parts = cast()
    run = Run(pool, journal=lambda *line: lines.append(line[:2]))
    mirror = deepcopy(parts)
    ssal.train(run, pool, plan(mixed_batch=128, zeta=False, counts=by, apart=False), **parts)
    run = Run(pool)
    run.stream(pool.labeled, 32)
    labeled, order = run.stream(pool.labeled, 50), run.order(torch.arange(24), 78)
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 0, "step", 1, "semi", 0)
        drawn = pool.unlabeled[graph.draw(nothing.weights[12:], 24)]
        (x, y), i = next(labeled), drawn[next(order)]
        logits = nn.Sequential(*mirror.values())(torch.cat([x, run.look(i)]))
    assert dict(lines)["semi/loss"] == pytest.approx(F.cross_entropy(logits[:50], y).item() * share, rel=1e-5)


@pytest.mark.parametrize("semi", ["propagation", "fixmatch"])
def test_the_truth_of_the_unlabeled_plays_no_part(semi):
    def weights_of(targets):
        pool = Pool.of(random_pool().images, targets, CLASSES).reveal(torch.arange(12))
        fitted = learner(semi=semi).fit(pool)
        assert (pool.labels[12:] == -1).all()
        return fitted.parts.state_dict()

    chance = torch.Generator().manual_seed(5)
    one, other = (torch.randint(0, CLASSES, (60,), generator=chance) for _ in range(2))
    other[:12] = one[:12]
    here, there = weights_of(one), weights_of(other)
    assert all(torch.equal(here[key], there[key]) for key in here)


def test_the_pretext_sees_no_label_and_is_the_start_of_every_round():
    pools, starts, entry = [], [], entries()["ssal"]

    def watched_pretext(run, pool, plan, **parts):
        pools.append(pool)
        return ssal.pretext(run, pool, plan, **parts)

    def watched_train(run, pool, plan, **parts):
        starts.append({k: v.clone() for k, v in parts["trunk"].state_dict().items()})
        return ssal.train(run, pool, plan, **parts)

    pool = random_pool()
    mine = zoo.create(replace(entry, name="mine", pretext=watched_pretext, train=watched_train), device="cpu", width=4)
    mine = replace(mine, loop=plan(steps=3, batch=8, pretext_steps=3))
    mine.fit(pool)
    mine.fit(pool.reveal(pool.unlabeled[:5]))
    assert len(pools) == 1
    assert (pools[0].labels == -1).all()
    assert pools[0].rounds == ()
    assert all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])
    assert starts[0]["body.stage1.0.1.num_batches_tracked"] == 3  # batch statistics are part of the start


def test_without_a_pretext_every_round_begins_as_plain_training_does():
    pool = random_pool()
    settings = {"device": "cpu", "width": 4, "steps": 4, "batch": 8}
    plainly = zoo.create("plain", **settings).fit(pool).parts.state_dict()
    none = zoo.create("ssal", **settings, pretext="none", semi="none").fit(pool).parts.state_dict()
    for key, value in plainly.items():
        assert torch.equal(value, none[key]) or "num" in key, key


def test_a_frozen_trunk_has_no_pretext():
    pool = random_pool()
    before = learner(freeze=("trunk",)).build(SHAPE, CLASSES, 1)["trunk"].state_dict()
    after = learner(freeze=("trunk",)).fit(pool).parts["trunk"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_clusters_are_never_empty_and_each_is_shown_as_often():
    clusters = ssal.Clusters(30, 4, 5)
    assigned = torch.tensor([0] * 14 + [1] * 10 + [2] * 3 + [3] * 2 + [4])
    clusters.assign(assigned)
    for c in range(5):
        assert clusters.odds[assigned == c].sum().item() == pytest.approx(1)


def test_a_fresh_last_layer_forgets_and_a_kept_one_does_not(monkeypatch):
    pool, begun, begin = hidden(random_pool()), [], ssal.Clusters.begin
    monkeypatch.setattr(ssal.Clusters, "begin", lambda self: begun.append(1) or begin(self))
    for fresh in (True, False):
        begun.clear()
        ssal.pretext(Run(pool), pool, plan(pretext_steps=6, cluster_steps=2, fresh_top=fresh), **cast())
        assert len(begun) == (3 if fresh else 0)


def patterns(seed):
    """Three kinds of noisy images, one of each labeled."""
    chance = torch.Generator().manual_seed(seed)
    kinds, targets = torch.randint(40, 216, (3, 1, 8, 8), generator=chance), torch.arange(150) % 3
    images = (kinds[targets] + 40 * torch.randn(150, 1, 8, 8, generator=chance)).clamp(0, 255).to(torch.uint8)
    return Pool.of(images, targets, 3).reveal([0, 1, 2]), targets


def accuracy(seed, semi):
    pool, targets = patterns(seed)
    settings = {"width": 8, "steps": 80, "mixed_batch": 32, "pretext": "none", "lp_steps": 20}
    fitted = zoo.create("ssal", device="cpu", semi=semi, seed=seed, **settings).fit(pool)
    return (fitted.predict(pool.images).argmax(1) == targets).float().mean().item()


@pytest.mark.parametrize("seed", range(2))
def test_character_the_unlabeled_teach_what_one_label_of_each_kind_cannot(seed, monkeypatch):
    """As many steps on the labels alone are far behind. So are labels that go to other images than those they have
    spread to, as the released CEAL reads them."""
    alone, ours = accuracy(seed, "none"), accuracy(seed, "propagation")
    assert ours > alone + 0.15
    take = ssal.Beliefs.take

    def astray(self, *args):
        take(self, *args)
        self.labels.copy_(self.labels.roll(1))

    monkeypatch.setattr(ssal.Beliefs, "take", astray)
    assert accuracy(seed, "propagation") < alone + 0.15


def test_drawing_follows_omega_and_weighs_by_it_once_more():
    """What the released code does: the chance and the weight, together about the square."""
    spreading = graph.Spread(torch.arange(400) % 3, torch.linspace(0, 1, 400), torch.linspace(0, 0.2, 400))
    drawn = {}
    for mode in ("prob", "uniform", "full"):
        beliefs, again = (ssal.Beliefs(400 if mode == "full" else 100, 3) for _ in range(2))
        beliefs.take(torch.arange(400), spreading, plan(lp_mode=mode, surest=True))
        drawn[mode] = spreading.weights[beliefs.drawn].mean().item()
        assert torch.equal(beliefs.omega, spreading.weights[beliefs.drawn])
        again.take(torch.arange(400), spreading, plan(lp_mode=mode))
        assert torch.equal(again.omega, spreading.raw[again.drawn])
        assert torch.equal(beliefs.labels, spreading.labels[beliefs.drawn])
    assert drawn["full"] == pytest.approx(0.5, abs=1e-4)
    assert drawn["uniform"] == pytest.approx(0.5, abs=0.1)
    assert drawn["prob"] > 0.6


def test_with_everything_labeled_it_says_so_once_and_is_plain_training(caplog):
    pool = random_pool()
    full, lines = pool.reveal(pool.unlabeled), []
    learner(pretext="none", steps=4).fit(full, progress=lambda *at: lines.append(at))
    assert [record.message for record in caplog.records].count(caplog.messages[0]) == 1
    assert "nothing is unlabeled" in caplog.text
    assert [stage for stage, _, _ in lines] == 4 * ["labels"]


def test_it_asks_what_jlp_asks():
    pool = random_pool()
    fitted = learner().fit(pool)
    assert fitted.query is zoo.create("jlp").query
    assert fitted.select(pool, 5).detail.keys() == {"f"}


def test_the_journal_has_each_stage_in_a_group_of_its_own():
    names = {}
    for semi in ("propagation", "fixmatch"):
        lines = []
        learner(semi=semi).fit(random_pool(), journal=lambda *line, lines=lines: lines.append(line[0]))
        names[semi] = set(lines)
    begin = {"pretext/loss", "pretext/accuracy", "pretext/nmi", "task/loss", "task/accuracy"}
    spreading = {"spread/omega", "spread/raw", "spread/largest", "semi/agreement"}
    assert names["propagation"] == begin | spreading | {"semi/loss", "semi/accuracy"}
    assert names["fixmatch"] == begin | {"semi/loss", "semi/accuracy", "semi/kept"}


def test_diagnosis_is_about_the_labels_that_spread():
    pool, targets = patterns(1)
    fitted = zoo.create("ssal", device="cpu", width=8, steps=60, mixed_batch=32, pretext="none").fit(pool)
    scan = fitted.scan(pool)
    numbers, believed = diagnose(scan, pool.images[:5]), spread(scan)
    assert numbers == fitted.diagnose(pool, pool.images[:5])
    assert torch.equal(believed.labels[:3], torch.arange(3))
    assert numbers["agreement"] == (scan.probs.argmax(1) == believed.labels[3:]).float().mean().item()
    assert numbers["omega"] == believed.weights[3:].mean().item()
    assert numbers["sure"] == (believed.weights[3:] > 0.5).float().mean().item()
    assert numbers["largest"] == max(Counter(believed.labels[3:].tolist()).values()) / 147
    assert numbers["raw_omega"] == believed.raw.max().item()
    found = precision(scan, targets)
    assert found["precision"] == pytest.approx((believed.labels[3:] == targets[3:]).float().mean().item())
    assert found["weighted"] >= found["precision"] > 0.6  # it is surer of what is right
    assert precision(scan, (targets + 1) % 3)["precision"] < 0.4


def test_it_doubts_labels_that_collapse_that_nobody_believes_or_that_say_nothing():
    fine = {"largest": 0.2, "classes": 10, "omega": 0.4, "agreement": 0.9}
    assert doubt(fine) == []
    assert "61%" in doubt({**fine, "largest": 0.61})[0]
    assert "0.004" in doubt({**fine, "omega": 0.004})[0]
    assert "30%" in doubt({**fine, "agreement": 0.3})[0]
    assert doubt({**fine, "largest": 0.61, "classes": 2}) == []


def test_published_curves_start_at_one_and_end_where_they_do():
    assert supervised.cosine(0, 200) == supervised.sixteenths(0, 200) == 1
    assert supervised.cosine(100, 200) == pytest.approx(0.5 * (1 + math.cos(math.pi * 100 / 210)))
    assert supervised.sixteenths(100, 100) == pytest.approx(math.cos(7 * math.pi / 16))


def test_the_published_network_has_its_published_size():
    """0.731 GMAC for an image, counted from the table of its layers; 6x6 maps; features of length one."""
    net = task((3, 32, 32), 10, "cnn13")["trunk"].eval()
    macs, last = [], []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, out: macs.append(layer.weight[0].numel() * out[0].numel()) or last.append(out.shape)
            )
    features = net(torch.randn(2, 3, 32, 32))
    assert sum(macs) == pytest.approx(0.731e9, rel=1e-3)
    assert len(macs) == 9
    assert last[-1] == (2, 128, 6, 6)
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)
    with torch.device("meta"):
        parts = entries()["ssal"].build((3, 32, 32), 10, trunk="cnn13")
    sizes = [3 * 128, 128 * 128, 128 * 128, 128 * 256, 256 * 256, 256 * 256, 256 * 512]
    weights = 9 * sum(sizes) + 512 * 256 + 256 * 128
    channels = 3 * 128 + 3 * 256 + 512 + 256 + 128  # a bias, a norm, and two of batch normalisation each
    assert sum(p.numel() for p in parts["trunk"].parameters()) == weights + 4 * channels
    assert sum(p.numel() for p in parts["head"].parameters()) == 128 * 10 + 10 + 10  # its weights are normalised too


@pytest.mark.parametrize("side", [12, 28, 33])
def test_the_published_network_takes_other_sizes_and_says_which_not(side):
    assert trunk("cnn13", (1, side, side)).eval()(torch.randn(2, 1, side, side)).shape == (2, 128)
    with pytest.raises(ValueError, match="12x12"):
        trunk("cnn13", (1, 11, 11))


def test_the_published_network_is_saved_and_loaded(tmp_path):
    pool = Pool.of(torch.randint(0, 256, (8, 1, 12, 12), dtype=torch.uint8), torch.arange(8) % 2, 2).reveal([0, 1])
    fitted = learner(trunk="cnn13", steps=1, pretext_steps=1, batch=4).fit(pool)
    again = zoo.load(fitted.save(tmp_path / "x.safetensors"), device="cpu")
    assert torch.equal(fitted.predict(pool.images), again.predict(pool.images))


def test_paper_and_released_plans_say_what_they_change():
    plans = entries()["ssal"].plans
    released, paper = plans["released"].loop, plans["paper"].loop
    assert (released.sup_share, released.zeta, released.features) == (0, False, "augmented")
    assert (released.uniform, released.fresh_top, released.top_alone) == (False, False, False)
    assert round(paper.sup_share * paper.steps) == 600
    assert paper.steps - 600 == released.steps == 200 * ((49_900 // 2) // 78)
    assert round(released.mixed_batch * released.labeled_share) == 50


@pytest.mark.parametrize(
    "setting",
    [
        {"sup_share": 1.5},
        {"labeled_share": 0.0},
        {"labeled_share": 1.0},
        {"alpha": 1.0},
        {"lp_steps": 0},
        {"lp_share": 0.0},
        {"lp_mode": "some"},
        {"semi": "mixmatch"},
        {"features": "dirty"},
        {"threshold": 1.1},
        {"mu": 0},
        {"pretext": "simclr"},
        {"pretext_batch": 1},
        {"lr_top": 0.0},
        {"schedule": "step"},
        {"iterations": 0},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("ssal", **setting)


@pytest.mark.parametrize("settings", [{}, {"omega": False}, {"surest": True}, {"counts": "images"}])
def test_what_no_label_has_reached_is_of_no_class(settings):
    """They weigh nothing, and no class is taken for frequent because of them."""
    raw = torch.tensor([1.0, 1.0, 0.5, 0.5, *(6 * [0.0])])
    spreading = graph.Spread(torch.tensor([0, 1, 0, 1, *(6 * [0])]), raw, raw)
    beliefs = ssal.Beliefs(8, 2)
    beliefs.take(torch.arange(2, 10), spreading, plan(lp_mode="full", **settings))
    order = beliefs.drawn.argsort()
    assert beliefs.omega[order].gt(0).tolist() == [True, True, *(6 * [False])]
    assert beliefs.zeta.tolist() == [1, 1]


def test_a_learner_that_spreads_no_labels_is_asked_for_none():
    pool = random_pool()
    told = {semi: pseudo_labels(learner(semi=semi).fit(pool), pool) for semi in ("propagation", "fixmatch", "none")}
    assert told.pop("propagation")["count"] == len(pool.unlabeled)
    assert set(told.values()) == {None}
