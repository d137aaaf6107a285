"""GAAL against its equations: the steps of the GAN, the SVM, the search, the nearest real images, its character."""

import math
import os
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainers import gaal
from trainers.pool import Pool, nobody, normal, uint8
from trainers.run import Run
from trainers.seeds import generator, reseed
from zoo.entries.gaal import GOALS, PAPER_QUERY, Found, certainty, decision, doubt, look, margin, pick
from zoo.nets.gan import GENERATORS, Discriminator, Generator
from zoo.queries import latent
from zoo.queries.latent import RATES, nearest_each, search, spread
from zoo.register import entries
from zoo.testing import Subject, the_order_of_the_pool_does_not_matter, who_moves

SHAPE, CLASSES = (1, 8, 8), 2
TINY = {"width": 4, "gan_width": 8, "latent": 6, "batch": 8, "gan_batch": 8}


def random_pool(n=40, classes=CLASSES, shape=SHAPE):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, classes, (n,), generator=chance), classes).reveal(torch.arange(12))


def blind(pool):
    return Pool.hidden(pool.images, pool.classes, nobody)


def cast(form="mlp", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["gaal"].build(SHAPE, CLASSES, width=4, gan=form, gan_width=8, latent=6)


def plan(**settings):
    return gaal.Plan(**{"steps": 0, "gan_steps": 1, "batch": 8, "gan_batch": 8, **settings})


def learner(**settings):
    return zoo.create("gaal", device="cpu", **{**TINY, "steps": 3, "gan_steps": 3, **settings})


@pytest.fixture(scope="module")
def digits():
    """A learner of the default settings, but for fewer steps of the task, and what it is measured on."""
    pool, test = zoo.data("digits", initial=90, seed=0)
    fitted = zoo.create("gaal", device="cpu", augment="shift", steps=150, seed=0).fit(pool)
    return fitted, pool, test, fitted.diagnose(pool, test.images)


# The GAN


def test_published_networks_have_their_published_sizes():
    def count(part):
        return sum(p.numel() for p in part.parameters())

    with torch.device("meta"):
        assert count(Generator((3, 32, 32), 100, 64, "dcgan")) == 3_448_576
        assert count(Discriminator((3, 32, 32), 64, "dcgan")) == 663_296
        assert count(Generator((1, 28, 28), 100, 64, "dense")) == 2_305_472
        assert count(Discriminator((1, 28, 28), 64, "dense")) == 212_865


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 9, 11), (1, 16, 16), (3, 28, 28), (3, 31, 33), (1, 50, 40), (3, 64, 64)]
)
@pytest.mark.parametrize("form", GENERATORS)
def test_gans_of_any_size(form, shape):
    made = Generator(shape, 5, 4, form)(3 * torch.randn(3, 5))
    assert made.shape == (3, *shape)
    assert made.dtype == torch.float32
    assert -1 <= made.min() < made.max() <= 1
    assert Discriminator(shape, 4, form)(made).shape == (3,)


@pytest.mark.parametrize("form", GENERATORS)
def test_only_convolutions_are_half(form):
    g, d = Generator(SHAPE, 5, 4, form), Discriminator(SHAPE, 4, form)
    kinds = {}

    def note(layer, _, out):
        kinds[type(layer).__name__] = out.dtype

    for layer in (*g.modules(), *d.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        made = g(torch.randn(3, 5))
        assert made.dtype == d(made).dtype == torch.float32
    assert kinds.pop("Linear") == torch.float32
    assert set(kinds.values()) <= {torch.bfloat16}


def test_gans_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="7x8"):
        Generator((1, 7, 8))
    with pytest.raises(ValueError, match="dcgan"):
        Discriminator(SHAPE, form="dcgam")
    with pytest.raises(ValueError, match="at least 1"):
        Generator(SHAPE, latent=0)


def test_what_a_discriminator_is_asked_to_call_an_image():
    logits = torch.randn(7)
    p = logits.sigmoid()
    assert torch.allclose(gaal.calls(logits, 1.0), -p.log().mean(), rtol=1e-5)
    assert torch.allclose(gaal.calls(logits, 0.0), -(1 - p).log().mean(), rtol=1e-5)
    assert torch.allclose(gaal.calls(logits, 0.9), -(0.9 * p.log() + 0.1 * (1 - p).log()).mean(), rtol=1e-5)


@pytest.mark.parametrize("form", ["mlp", "dcgan"])
@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_one_step_of_each_player_is_the_transcription_of_the_equations(form, smooth):
    pool, parts = blind(random_pool()), cast(form)
    mirror = deepcopy(parts)
    made = gaal.pretext(Run(pool, seed=3), pool, plan(smooth=smooth, lr_gan=1e-3), **parts)
    assert made == {"generator": parts["generator"], "discriminator": parts["discriminator"]}

    # The same, written out: -log D(x) - log(1 - D(G(z))) for the discriminator, then -log D(G(z)) for the generator.
    g, d = mirror["generator"], mirror["discriminator"]
    g_step, d_step = (torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.999)) for net in (g, d))
    run = Run(pool, seed=3)
    images = run.stream(torch.arange(len(pool)), 8)
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 3, "step", 0, "gan", 0)
        (x, _), fake = next(images), g(torch.randn(8, 6))
        d_step.zero_grad()
        real, told = d(x).sigmoid(), d(fake.detach()).sigmoid()
        loss = -((1 - smooth) * real.log() + smooth * (1 - real).log()).mean() - (1 - told).log().mean()
        loss.backward()
        d_step.step()
        g_step.zero_grad()
        (-d(fake).sigmoid().log().mean()).backward()
        g_step.step()
    for name in ("generator", "discriminator"):
        there = mirror[name].state_dict()
        for key, here in parts[name].state_dict().items():
            assert torch.allclose(here.float(), there[key].float(), atol=2e-5), f"{name}.{key}"


def test_each_player_moves_its_own_parameters_only():
    pool, parts = blind(random_pool()), cast()
    moved = who_moves(gaal.pretext, pool, plan(gan_steps=2), parts)
    assert moved == 2 * [("discriminator", {"discriminator"}), ("generator", {"generator"})]
    assert all(p.requires_grad for p in parts["discriminator"].parameters())


def test_the_gan_knows_of_no_label_and_stays_as_it_is():
    pool = random_pool()
    other = replace(pool, labels=torch.where(pool.labels >= 0, 1 - pool.labels, -1))
    gans = []
    for p in (pool, other, pool.reveal(pool.unlabeled[:9])):
        parts = learner().fit(p).parts
        gans.append({k: v for k, v in parts.state_dict().items() if k.startswith(("generator", "discriminator"))})
    assert all(torch.equal(v, gan[k]) for gan in gans[1:] for k, v in gans[0].items())
    fresh = learner(gan_steps=0).fit(pool).parts.state_dict()
    assert not torch.equal(fresh["generator.body.0.weight"], gans[0]["generator.body.0.weight"])


def test_the_task_network_is_the_plain_one_bit_by_bit_in_later_rounds_too():
    pool = random_pool().reveal([20, 21])
    settings = {"width": 4, "batch": 8, "steps": 4, "dropout": 0.5, "augment": "shift", "device": "cpu"}
    plain = zoo.create("plain", **settings).fit(pool).parts.state_dict()
    other = zoo.create("gaal", **settings, gan_width=8, gan_steps=2).fit(pool).parts.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in plain.items())


def test_a_frozen_generator_stays_fresh():
    pool = random_pool()
    fresh = learner(gan_steps=0).fit(pool).parts["generator"].get_parameter("body.0.weight")
    frozen = learner(freeze="generator").fit(pool).parts["generator"].get_parameter("body.0.weight")
    assert torch.equal(fresh, frozen)


def test_the_journal_has_the_game_in_groups():
    lines = []
    learner(gan_steps=120).fit(random_pool(), journal=lambda *line: lines.append(line))
    assert {"task/loss", "task/accuracy", "gan/tell", "gan/fool"} == {name for name, _, _ in lines}


# The SVM


def cluster(classes, n=30, seed=1):
    """Images of classes that differ in brightness, with noise."""
    chance = generator(seed, "cluster")
    y = torch.arange(n) % classes
    centre = 40 + 170 * y / max(1, classes - 1)
    images = (centre[:, None, None, None] + 25 * torch.randn(n, *SHAPE, generator=chance)).clamp(0, 255).to(torch.uint8)
    return images, y


@pytest.mark.parametrize("classes", [2, 4])
def test_the_exported_svm_is_the_decision_function_of_scikit_learn(classes):
    from sklearn.svm import SVC

    images, y = cluster(classes)
    x = normal(images).flatten(1)
    weight, bias = gaal.svm(x, y, classes, 0.01)
    logits = x.double() @ weight.T + bias
    ours = [logits[:, 1] - logits[:, 0]] if classes == 2 else logits.unbind(1)  # f, above zero for the second class
    for f, inside in zip(ours, [y == 1] if classes == 2 else [y == k for k in range(classes)], strict=True):
        theirs = SVC(C=0.01, kernel="linear").fit(x.double().numpy(), inside.numpy())
        assert torch.allclose(f, torch.from_numpy(theirs.decision_function(x.double().numpy())), atol=1e-6)


def test_the_papers_learner_is_the_svm_on_pixels():
    from sklearn.svm import SVC

    images, y = cluster(2)
    pool = Pool.of(images, y, 2).reveal(torch.arange(16))
    svm = zoo.create("gaal", plan="paper", device="cpu", gan="mlp", gan_width=4, gan_steps=1, gan_batch=4).fit(pool)
    theirs = SVC(C=1.0, kernel="linear").fit(normal(images[:16]).flatten(1).double().numpy(), y[:16].numpy())
    x = normal(images).flatten(1).double().numpy()
    f = torch.from_numpy(theirs.decision_function(x)).float()
    scan = svm.scan(pool)
    assert torch.allclose(scan.each(lambda x: decision(scan.task(x)), of=torch.arange(len(pool))), f, atol=1e-5)
    assert torch.equal(svm.predict(images).argmax(1), torch.from_numpy(theirs.predict(x)))


def test_an_svm_with_labels_of_one_class_is_constant_and_said_to_be(caplog):
    images, y = cluster(2)
    settings = {"plan": "paper", "device": "cpu", "gan": "mlp", "gan_width": 4, "gan_steps": 1, "gan_batch": 4}
    for k in (0, 1):
        pool = Pool.of(images, y, 2).reveal((y == k).nonzero().squeeze(1)[:3])
        svm = zoo.create("gaal", **settings).fit(pool)
        assert (svm.predict(images).argmax(1) == k).all()
        assert len(svm.select(pool, 5)) == 5
    assert "one class" in caplog.text
    weight, bias = gaal.svm(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]), 3, 1.0)
    assert torch.equal(weight[2], torch.zeros(3).double())
    assert bias[2] == -1


@pytest.mark.skipif("ALZOO_DATA" not in os.environ, reason="ALZOO_DATA names no folder with mnist/train/<class>/*.png")
def test_mnist_5_against_7_with_all_labels_is_the_papers_dotted_line():
    """0.98594, where the figure of the paper shows about 0.986."""
    pool, test = zoo.data(f"folder:{Path(os.environ['ALZOO_DATA']) / 'mnist'}", initial=0, seed=0)
    halves = []
    for images, targets in ((pool.images, pool.oracle.targets), (test.images, test.targets)):
        inside = ((targets == 5) | (targets == 7)).nonzero().squeeze(1)
        halves.append((images[inside], (targets[inside] == 7).long()))
    (images, targets), (x, y) = halves
    assert (len(images), len(x)) == (11_686, 1_920)
    full = Pool.of(images, targets, 2).reveal(torch.arange(len(images)))
    svm = zoo.create("gaal", plan="paper", device="cpu", gan_steps=0).fit(full)
    assert (svm.predict(x).argmax(1) == y).double().mean().item() == pytest.approx(0.98594, abs=5e-6)


# The search


def linear_toy(d=12, z=5, seed=0):
    chance = torch.Generator().manual_seed(seed)
    a, w = torch.randn(d, z, generator=chance), torch.randn(d, generator=chance)
    start = torch.randn(9, z, generator=chance)
    return (lambda z: (z @ a.T @ w + 0.7).abs()), a.T @ w, start


@pytest.mark.parametrize(("solver", "steps"), [("polyak", 9), ("gd", 400), ("adam", 400), ("lbfgs", 20)])
def test_a_linear_generator_is_solved_along_its_own_gradient(solver, steps):
    gap, slope, start = linear_toy()
    rate = 2e-3 if solver == "gd" else RATES[solver]
    found, residual = search(gap, start, solver=solver, steps=steps, rate=rate)
    assert (residual < (0.05 if solver == "gd" else 1e-3)).all()  # a step of constant length ends beside the goal
    assert torch.allclose(residual, gap(found), atol=1e-6)
    if solver != "adam":  # which goes as far along every axis
        way = F.normalize(found - start, dim=1)
        assert torch.allclose((way @ F.normalize(slope, dim=0)).abs(), torch.ones(9), atol=1e-4)


def test_one_polyak_step_is_newtons_where_that_is_short():
    gap, slope, start = linear_toy()
    path = latent.polyak(gap, start, 1, 1.0)
    (first, value), (second, _) = list(path)
    f = start @ slope + 0.7
    full = -(f / slope.square().sum())[:, None] * slope
    short = full.norm(dim=1) <= 1
    assert 0 < short.sum() < 9
    assert torch.equal(first, start)
    assert torch.allclose(value, f.abs(), atol=1e-5)
    assert torch.allclose((second - start)[short], full[short], atol=1e-5)
    assert torch.allclose((second - start).norm(dim=1)[~short], torch.ones(int((~short).sum())), atol=1e-5)


def test_the_best_place_on_the_way_is_kept():
    places = [
        (torch.full((2, 1), float(i)), torch.tensor(v)) for i, v in enumerate([[3.0, 1.0], [1.0, 2.0], [2.0, 5.0]])
    ]
    where, least = latent.best(iter(places), 0.0)
    assert where.squeeze(1).tolist() == [1.0, 0.0]
    assert least.tolist() == [1.0, 1.0]


def test_a_search_goes_on_while_one_gap_is_larger_than_enough():
    seen = []
    gaps = iter([[3.0, 1.0], [0.5, 2.0], [2.0, 0.5], [0.1, 0.1]])
    path = (seen.append(gap) or (torch.zeros(2, 1), torch.tensor(gap)) for gap in gaps)
    assert latent.best(path, 0.5)[1].tolist() == [0.5, 0.5]
    assert len(seen) == 3


@pytest.mark.parametrize("solver", ["polyak", "gd", "adam", "lbfgs"])
def test_a_latent_alone_goes_where_it_goes_in_a_batch(solver):
    parts = nn.ModuleDict(cast("dense")).eval()
    start = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))

    def gap(z):
        return 30 * decision(parts["head"](parts["trunk"](parts["generator"](z)))).abs()

    settings = {"solver": solver, "steps": 4, "rate": RATES[solver]}
    whole, _ = search(gap, start, **settings)
    alone, _ = search(gap, start[3:4], **settings)
    assert torch.allclose(whole[3], alone[0], atol=1e-5)
    assert not torch.allclose(whole, start, atol=1e-3)
    if solver == "lbfgs":  # it takes them one by one anyway
        return
    parts.train()  # a generator left in training mode: now the others in the batch have a say
    together, _ = search(gap, start, **settings)
    assert not torch.allclose(together[3], search(gap, start[2:5], **settings)[0][1], atol=1e-4)


def test_searching_gives_no_parameter_a_gradient_and_changes_no_state():
    pool = random_pool()
    fitted = learner(gan="dcgan").fit(pool)
    before = deepcopy(fitted.parts.state_dict())
    fitted.select(pool, 4)
    assert all(p.grad is None for p in fitted.parts.parameters())
    assert all(torch.equal(value, before[name]) for name, value in fitted.parts.state_dict().items())


def test_f_is_the_papers_for_two_classes_and_the_margin_for_more():
    logits = torch.randn(6, 2)
    assert torch.equal(decision(logits), logits[:, 1] - logits[:, 0])
    assert torch.allclose(decision(logits).abs(), margin(logits))
    more = torch.tensor([[1.0, 4.0, 2.5], [0.0, 0.0, -1.0]])
    assert decision(more).tolist() == [1.5, 0.0]
    p = more.softmax(1)
    assert torch.allclose(certainty(more), math.log(3) + (p * p.log()).sum(1), atol=1e-6)
    assert certainty(torch.zeros(1, 5)).abs() < 1e-6


def test_what_is_not_within_the_tolerance_comes_last():
    made = torch.arange(6.0).reshape(6, 1, 1, 1)
    residual = torch.tensor([0.5, 0.0, 0.2, 0.0, 0.9, 0.0])
    found = Found(torch.zeros(6, 1), residual, torch.zeros(6, 1), torch.tensor([-1.0, 1.0, 0, 0, 0, 0]))
    assert pick(found, made, 2, 1e-3, "none").tolist() == [1, 3]
    assert pick(found, made, 5, 1e-3, "none").tolist() == [1, 3, 5, 2, 0]
    assert pick(found, made, 2, 1e-3, "centers").tolist() == [1, 5]  # the farthest apart, of 1, 3 and 5
    assert sorted(pick(found, made, 4, 1e-3, "centers").tolist()) == [1, 2, 3, 5]
    assert pick(found, made, 3, math.inf, "none").tolist() == [0, 1, 2]


def test_spread_is_the_greedy_k_center_and_takes_no_twin_twice():
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    taken = [0]
    while len(taken) < 8:
        gaps = torch.stack([(points - points[i]).norm(dim=1) for i in taken]).amin(0)
        taken.append(int(gaps.argmax()))
    assert spread(points, 8).tolist() == taken
    assert sorted(spread(torch.zeros(5, 2), 5).tolist()) == [0, 1, 2, 3, 4]


def test_each_made_one_has_the_nearest_real_one_that_is_left():
    chance = torch.Generator().manual_seed(0)
    made, real = torch.randn(9, 4, generator=chance), torch.randn(12, 4, generator=chance)
    made[5] = made[2]  # both want the same
    left, places = set(range(12)), []
    for one in made:
        places.append(min(left, key=lambda i: (one - real[i]).norm().item()))
        left.remove(places[-1])
    here, distance = nearest_each(made, real)
    assert here.tolist() == places
    assert torch.allclose(distance, (made - real[here]).norm(dim=1), atol=1e-5)
    assert nearest_each(real[[7]], real)[0].tolist() == [7]
    assert sorted(nearest_each(made, torch.zeros(9, 4))[0].tolist()) == list(range(9))


# The query


def test_it_asks_for_the_real_images_nearest_to_what_it_makes():
    pool = random_pool()
    fitted = learner().fit(pool)
    shown = fitted.scan(pool)
    made = zoo.create("gaal", device="cpu", **TINY, steps=3, gan_steps=3, query_settings={"synthesize": True}).fit(pool)
    made = made.select(pool, 4)
    pixels = replace(fitted, query_settings={**fitted.query_settings, "space": "pixels"}).select(pool, 4)
    features = fitted.select(pool, 4)
    for asked, view in ((pixels, lambda x: x.flatten(1)), (features, fitted.parts["trunk"].eval())):
        with torch.no_grad():
            here, there = view(normal(made.images)), shown.each(view)
        gaps = torch.cdist(here, there)
        first = pool.unlabeled[gaps[0].argmin()]
        assert asked.indices[0] == first
        assert asked.detail["distance"][0].item() == pytest.approx(gaps[0].min().item(), rel=0.05)  # 256 levels
        assert torch.equal(asked.detail["residual"], made.detail["residual"])
    logits = shown.logits[torch.searchsorted(pool.unlabeled, features.indices)]
    assert torch.allclose(features.detail["margin"], margin(logits), atol=1e-6)


def test_made_images_come_as_a_selection_with_images_that_a_judge_has_to_see():
    pool = random_pool()
    asking = learner(query_settings=dict(PAPER_QUERY)).fit(pool)
    made = asking.select(pool, 5)
    assert made.images.shape == (5, *SHAPE)
    assert made.images.dtype == torch.uint8
    assert len(made.indices) == 0
    assert set(made.detail) == {"residual", "margin"}
    assert (made.scores.diff() < 0).all()
    assert torch.equal(made.images, asking.select(pool, 5).images)
    with pytest.raises(ValueError, match=r"zoo\.judge"):
        pool.reveal(made)
    images, labels, _ = zoo.judge(made, by=lambda shown: torch.zeros(len(shown), dtype=torch.int64))
    more = pool.admit(images, labels)
    assert len(more.labeled) == len(pool.labeled) + 5
    again = asking.fit(more).select(more, 5)
    assert not torch.equal(again.images, made.images)


def test_without_a_search_it_is_the_papers_simple_gan():
    pool = random_pool()
    settings = {**PAPER_QUERY, "search_steps": 0, "tol": math.inf}
    asking = learner(query_settings=settings).fit(pool)
    scan = asking.scan(pool)
    found = look(scan, 5, steps=0)
    with torch.no_grad():
        made = uint8(asking.parts["generator"].eval()(found.starts))
    assert torch.equal(asking.select(pool, 5).images, made)
    assert torch.equal(found.latents, found.starts)
    assert len(asking.select(pool, 1).images) == 1, "of one alone there is no deviation"


def test_no_oracle_and_no_hidden_label_is_needed_to_make_images():
    def refuse(_):
        raise AssertionError("somebody asked the oracle")

    pool = random_pool()
    asking = learner(query_settings={"synthesize": True}).fit(pool)
    assert torch.equal(asking.select(pool, 3).images, asking.select(replace(pool, oracle=refuse), 3).images)


def test_the_order_of_the_pool_does_not_matter_although_it_draws_lots():
    gaal_entry = entries()["gaal"]
    assert gaal_entry.query.randomised
    the_order_of_the_pool_does_not_matter(
        Subject(replace(gaal_entry, query=replace(gaal_entry.query, randomised=False)))
    )


def test_in_the_shell_latents_stay_as_long_as_random_ones():
    pool = random_pool()
    scan = learner(latent=32).fit(pool).scan(pool)
    lengths = look(scan, 64, solver="adam", rate=0.5, shell=True).latents.norm(dim=1) / math.sqrt(32)
    assert 0.8 - 1e-5 <= lengths.min() < lengths.max() <= 1.2 + 1e-5
    assert look(scan, 64, solver="adam", rate=0.5).latents.norm(dim=1).max() / math.sqrt(32) > 1.2


@pytest.mark.parametrize(
    "setting", [{"solver": "newton"}, {"objective": "bald"}, {"diversity": "some"}, {"space": "critic"}]
)
def test_a_query_that_makes_no_sense_is_refused(setting):
    pool = random_pool()
    with pytest.raises(ValueError, match=next(iter(setting))):
        learner(query_settings=setting).fit(pool).select(pool, 2)


def test_a_network_that_has_diverged_is_not_asked():
    pool = random_pool()
    fitted = learner().fit(pool)
    fitted.parts["head"].linear.weight.data.fill_(math.nan)
    with pytest.raises(RuntimeError, match="not finite"):
        fitted.select(pool, 2)


def grey_steps():
    """Dark images are of the first class, bright ones of the second; some of both are labeled, and no grey one is."""
    chance = generator(0, "grey")
    level = torch.cat([torch.randint(0, 60, (40,), generator=chance), torch.randint(196, 256, (40,), generator=chance)])
    grey = torch.randint(110, 146, (30,), generator=chance)
    level = torch.cat([level, grey])
    images = (level[:, None, None, None] + torch.randint(-8, 9, (110, *SHAPE), generator=chance)).clamp(0, 255)
    pool = Pool.of(images.to(torch.uint8), (level > 127).long(), 2)
    return pool.reveal(torch.tensor([0, 10, 20, 30, 40, 50, 60, 70]))


def grey_learner(**query):
    settings = {"plan": "paper", "gan": "mlp", "gan_width": 32, "latent": 8, "gan_steps": 150, "gan_batch": 32}
    return zoo.create("gaal", device="cpu", **settings, lr_gan=3e-3, query_settings={"space": "pixels", **query})


def test_character_it_asks_where_the_classifier_cannot_decide():
    """Dark and bright images are labeled: it must want the grey ones between, and make grey ones itself."""
    pool = grey_steps()
    asked = grey_learner().fit(pool).select(pool, 12)
    assert int((asked.indices >= 80).sum()) >= 11
    made = grey_learner(synthesize=True).fit(pool).select(pool, 12)
    grey = made.images.float().mean((1, 2, 3))
    assert ((grey > 90) & (grey < 166)).all()


def test_character_would_catch_a_search_in_the_wrong_direction(monkeypatch):
    pool = grey_steps()
    monkeypatch.setitem(GOALS, "margin", lambda logits: 100 - decision(logits).abs())
    asked = grey_learner(tol=math.inf).fit(pool).select(pool, 12)
    assert int((asked.indices >= 80).sum()) <= 4


# What it comes to


def test_the_generator_shows_digits_in_the_range_of_the_data(digits):
    fitted, _, _, numbers = digits
    assert max(numbers["range"], numbers["mean"], numbers["std"]) < 0.1
    assert numbers["rejected"] < 0.5
    assert numbers["variety"] > 0.7
    pool, _ = zoo.data("digits", initial=1000, seed=1)
    judge = zoo.create("plain", device="cpu", augment="shift", steps=200, seed=7).fit(pool)
    sure = judge.predict(fitted.sample(300)).amax(1) >= 0.9
    assert sure.float().mean() > 0.5
    assert judge.predict(fitted.sample(300)).argmax(1).bincount(minlength=10).amax() < 150


def test_the_search_reaches_the_boundary_and_stays_varied(digits):
    _, _, _, numbers = digits
    assert numbers["boundary"] < 1e-3
    assert numbers["within_tol"] > 0.95
    assert numbers["spread"] >= 0.5
    assert numbers["matched"] < 0.7
    assert numbers["largest_share"] < 0.6
    assert 0 < numbers["match"] < 1
    assert 0.5 < numbers["discriminator_auc"] <= 1
    assert 0.4 < numbers["agreement"] <= 1


def test_nothing_speaks_against_a_trained_gan_and_much_against_an_untrained_one(digits, caplog):
    fitted, pool, test, numbers = digits
    assert fitted.doubts(numbers) == []
    bad = zoo.create("gaal", device="cpu", gan_steps=0, steps=60).fit(pool)
    sentences = bad.doubts(bad.diagnose(pool, test.images))
    assert any("varied" in sentence for sentence in sentences)
    assert f"gaal: {sentences[0]}" in caplog.text


@pytest.mark.parametrize(
    ("number", "value", "word"),
    [
        ("within_tol", 0.2, "boundary"),
        ("rejected", 0.8, "show nothing"),
        ("variety", 0.3, "collapsed"),
        ("mean", 0.2, "brighter"),
        ("largest_share", 0.95, "one class"),
        ("matched", 1.02, "no better than random"),
    ],
)
def test_each_doubt_has_its_number(digits, number, value, word):
    _, _, _, numbers = digits
    (sentence,) = doubt({**numbers, number: value})
    assert word in sentence


def test_it_makes_images_without_labels():
    pool = random_pool()
    fitted = learner().fit(pool)
    assert fitted.sample(5).shape == (5, *SHAPE)
    assert torch.equal(fitted.sample(5), fitted.sample(5, seed=0))
    assert not torch.equal(fitted.sample(5), fitted.sample(5, seed=1))
    with pytest.raises(ValueError, match="no labels"):
        fitted.sample(2, labels=torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "setting",
    [{"gan_steps": -1}, {"gan_batch": 1}, {"lr_gan": 0.0}, {"smooth": 0.5}, {"learner": "tree"}, {"slack": 0.0}],
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("gaal", **setting)


def test_there_is_no_released_plan():
    with pytest.raises(zoo.UnknownName, match="could not be found"):
        zoo.create("gaal", plan="released")


@pytest.mark.parametrize("settings", [{"search_steps": -4}, {"starts": 0}, {"tol": -1.0}])
def test_a_search_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}={next(iter(settings.values()))} must be in"):
        zoo.create("gaal", query_settings=settings)


def test_a_frozen_svm_is_refused():
    pool = random_pool()
    for frozen in ({"freeze": "head"}, {"lr_scale": {"head": 0}}):
        with pytest.raises(ValueError, match="frozen learns nothing"):
            zoo.create("gaal", learner="svm", trunk="pixels", gan_steps=0, device="cpu", **frozen).fit(pool)


def test_steps_of_an_svm_are_counted_without_fitting_it(monkeypatch):
    monkeypatch.setattr(gaal, "svm", None)
    assert zoo.create("gaal", learner="svm", trunk="pixels", gan_steps=0, device="cpu").length(random_pool()) == 0


def test_plain_training_of_no_steps_is_no_control():
    with pytest.raises(ValueError, match="takes no steps"):
        zoo.create("gaal", plan="paper", training="plain", device="cpu")
