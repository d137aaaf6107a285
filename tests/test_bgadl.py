"""BGADL against its equations: each loss, one step of each of the four, the order, the query, and its character."""

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import nn

import zoo
from trainers import bgadl
from trainers.losses import elbo
from trainers.pool import Pool, normal
from trainers.run import Run
from trainers.seeds import reseed
from zoo.entries.bgadl import against, doubt
from zoo.nets import acgan
from zoo.queries.bayesian import ask_bald, posterior
from zoo.register import entries
from zoo.scan import Scan, evaluating
from zoo.testing import who_moves

SHAPE, CLASSES = (1, 8, 8), 3
TINY = {"width": 4, "gan_width": 4, "latent": 6}
GAME = ("encoder", "generator", "discriminator")


def random_pool(n=40, labeled=12):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(labeled))


def cast(seed=0, **nets):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["bgadl"].build(SHAPE, CLASSES, **{**TINY, **nets})


def flat(part):
    return torch.cat([p.detach().flatten() for p in part.parameters()])


def felt(part):
    """Weights and buffers by name, without what batch normalisation hides: a bias before it has no gradient but
    rounding errors, which Adam and Adadelta blow up to whole steps."""
    hidden = set()
    for path, module in part.named_modules():
        layers = list(module.named_children()) if isinstance(module, nn.Sequential) else []
        for (name, _), (norm, after) in pairwise(layers):
            if isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d):
                hidden |= {f"{path}.{name}.bias", f"{path}.{norm}.running_mean"}
    return {k: v for k, v in part.state_dict().items() if k not in hidden and "num_batches" not in k}


def plan(**settings):
    return bgadl.Plan(**{"steps": 1, "alone": 0.0, "trust": 0.0, "batch": 8, "schedule": "constant", **settings})


def tiny(pool, **settings):
    quick = {**TINY, "steps": 3, "alone": 0.0, "trust": 0.0, "batch": 8, **settings}
    return zoo.create("bgadl", device="cpu", **quick).fit(pool)


def written_out_kl(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - logvar - 1)


def test_the_released_bound_is_the_written_out_formula_on_images_in_0_1():
    x, recon, mu, logvar = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4), torch.randn(5, 7), torch.randn(5, 7)
    s = (logvar / 2).exp()
    theirs = nn.MSELoss()(recon, x) + 0.5 * torch.mean(mu**2 + s**2 - torch.log(s**2) - 1)
    assert torch.allclose(bgadl.released(2 * x - 1, 2 * recon - 1, mu, logvar, 1.0), theirs, rtol=1e-5)
    assert torch.allclose(bgadl.released(x, x, mu, logvar, 2.0), 2 * written_out_kl(mu, logvar).mean(), rtol=1e-5)


def test_the_image_form_weighs_an_image_against_its_latent():
    x, recon, mu, logvar = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4), torch.randn(5, 7), torch.randn(5, 7)
    each = 0.5 * (x - recon).square().flatten(1).sum(1) + 0.3 * written_out_kl(mu, logvar).sum(1)
    assert torch.allclose(bgadl.ELBOS["image"](x, recon, mu, logvar, 0.3), each.mean(), rtol=1e-5)
    assert bgadl.ELBOS["image"] is elbo


@pytest.mark.parametrize("form", bgadl.ELBOS)
def test_the_kl_of_the_prior_is_zero(form):
    x, nothing = torch.rand(2, 1, 4, 4), torch.zeros(2, 3)
    assert bgadl.ELBOS[form](x, x, nothing, nothing, 1.0) == 0


def test_a_discriminator_says_real_with_positive_logits():
    logits = torch.randn(6)
    assert torch.allclose(bgadl.says(logits, real=True), -torch.log(logits.sigmoid()).mean(), rtol=1e-5)
    assert torch.allclose(bgadl.says(logits, real=False), -torch.log(1 - logits.sigmoid()).mean(), rtol=1e-5)


def test_latents_are_drawn_with_the_deviation_not_the_variance():
    torch.manual_seed(0)
    z = bgadl.draw(torch.full((20_000, 2), 3.0), torch.tensor([0.0, math.log(4)]).expand(20_000, 2))
    assert torch.allclose(z.mean(0), torch.tensor([3.0, 3.0]), atol=0.06)
    assert torch.allclose(z.std(0), torch.tensor([1.0, 2.0]), atol=0.06)


def without_memory(net, x):
    """A pass of a network that leaves its running statistics alone."""
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    return torch.func.functional_call(net, {**dict(net.named_parameters()), **buffers}, (x,))


def transcribed(parts, pool, ours, steps=1, attached=False):
    """The notes' four steps, written out with plain losses, on the same batches and noise."""
    e, g, d = (parts[name] for name in GAME)
    c = nn.Sequential(parts["trunk"], parts["head"])
    decay = ours.weight_decay + ours.decay_per_label / len(pool.labeled)
    if ours.adadelta:
        move = {net: torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.9, eps=1e-6) for net in (e, g, d)}
        move[c] = torch.optim.Adadelta(c.parameters(), lr=1.0, rho=0.9, eps=1e-6, weight_decay=decay)
    else:
        move = {net: torch.optim.Adam(net.parameters(), ours.lr_game, (0.5, 0.999)) for net in (e, g, d)}
        move[c] = torch.optim.SGD(c.parameters(), ours.lr, 0.9, weight_decay=decay, nesterov=True)

    def descend(net, loss, keep=False):
        for optimizer in move.values():
            optimizer.zero_grad()
        loss.backward(retain_graph=keep)
        move[net].step()

    def squared(a, b):
        return nn.MSELoss()((a + 1) / 2, (b + 1) / 2)

    def whole(a, b):
        return squared(a, b) if ours.elbo == "released" else 0.5 * ((a - b) ** 2).sum() / len(a)

    def latent(mu, logvar):
        return mu + torch.randn_like(mu) * torch.sqrt(logvar.exp())

    bce, ce, one, zero = nn.BCELoss(), nn.CrossEntropyLoss(), torch.ones(8), torch.zeros(8)
    batches = Run(pool, seed=3).stream(pool.labeled, 8)
    for step in range(steps):
        reseed(torch.device("cpu"), 3, "step", len(pool.rounds), "together", step)
        x, y = next(batches)
        for net, optimizer in move.items():
            if ours.adadelta:
                optimizer.param_groups[0]["lr"] = 0.5 ** (50 * step // ours.steps // (5 if net is c else 8))
        # 1. e: MSE(g(z_e, y), x) + KL
        mu, logvar = e(x)
        kl = written_out_kl(mu, logvar)
        kl = kl.mean() if ours.elbo == "released" else kl.sum(1).mean()
        descend(e, whole(g(latent(mu, logvar), y), x) + ours.beta * kl)
        # 2. g: BCE(d(g(z_p, y)), 1) + CE(c(g(z_p, y)), y) + 0.75 MSE(g(z_e', y), x)
        z_p = torch.randn(8, mu.shape[1])
        mu, logvar = (v if attached else v.detach() for v in e(x))
        made = g(z_p, y)
        fool = bce(d(made).sigmoid(), one) + ce(without_memory(c, made), y)
        descend(g, fool + ours.gamma * squared(g(latent(mu, logvar), y), x))
        # 3. d and c, on the same two kinds, made anew
        if attached:
            mu, logvar = without_memory(e, x)
        made, rebuilt = (v if attached else v.detach() for v in (g(z_p, y), g(latent(mu, logvar), y)))
        tell = bce(d(x).sigmoid(), one) + bce(d(made).sigmoid(), zero) + bce(d(rebuilt).sigmoid(), zero)
        descend(d, tell, keep=True)
        learn = ce(c(x), y)
        learn = learn + ours.lambda_prior * ce(without_memory(c, made), y)
        learn = learn + ours.lambda_recon * ce(without_memory(c, rebuilt), y)
        descend(c, learn)


@pytest.mark.parametrize(
    "settings",
    [
        {"elbo": "image", "beta": 0.7, "gamma": 60.0, "lambda_prior": 0.4, "lambda_recon": 1.3},
        {"elbo": "released", "beta": 1.0, "adadelta": True, "decay_per_label": 3.5, "weight_decay": 0.0},
    ],
    ids=["image", "released"],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_one_step_of_each_is_the_transcription_of_the_equations(settings, dropout):
    pool, parts, ours = random_pool(), cast(dropout=dropout), plan(**settings)
    mirror, before = deepcopy(parts), deepcopy(parts)
    with torch.random.fork_rng():
        bgadl.train(Run(pool, seed=3), pool, ours, **parts)
        transcribed(mirror, pool, ours)
    for name, part in parts.items():
        assert not torch.equal(flat(part), flat(before[name])), name
        for (key, here), there in zip(felt(part).items(), felt(mirror[name]).values(), strict=True):
            assert torch.allclose(here, there, atol=5e-5), f"{name}.{key}"


@pytest.mark.parametrize(
    "settings", [{"elbo": "image"}, {"elbo": "released", "adadelta": True}], ids=["image", "released"]
)
def test_a_companion_without_gradient_changes_no_update(settings):
    """The released code lets the losses of discriminator and classifier flow back into generator and encoder, which
    clear them before their next step."""
    pool, parts, ours = random_pool(), cast(dropout=0.0), plan(steps=2, **settings)
    mirror = deepcopy(parts)
    with torch.random.fork_rng():
        bgadl.train(Run(pool, seed=3), pool, ours, **parts)
        transcribed(mirror, pool, ours, steps=2, attached=True)
    for name in parts:
        for (key, here), there in zip(felt(parts[name]).items(), felt(mirror[name]).values(), strict=True):
            assert torch.allclose(here, there, atol=2e-4), f"{name}.{key}"


def test_each_player_moves_its_own_parameters_only_and_in_this_order():
    pool, parts = random_pool(), cast()
    moved = who_moves(bgadl.train, pool, plan(steps=4, alone=0.5, trust=0.75), parts)
    task, game = ("task", {"trunk", "head"}), [(name, {name}) for name in GAME]
    assert moved == [task, task, *game, task, *game, task]
    assert all(p.requires_grad for part in parts.values() for p in part.parameters())


def test_images_are_made_for_their_rows_label_and_trusted_from_the_share_on():
    pool, parts = random_pool(), cast()
    asked, judged = [], []
    parts["generator"].register_forward_hook(lambda _, args, __: asked.append(args[1]))
    parts["trunk"].register_forward_hook(lambda *_: judged.append(len(asked)))
    seen = [y for _, y in zip(range(4), (y for _, y in Run(pool).stream(pool.labeled, 8)), strict=False)]
    bgadl.train(Run(pool), pool, plan(steps=4, alone=0.5, trust=0.75), **parts)
    assert len(asked) == 2 * 5
    assert all(torch.equal(y, seen[2 + i // 5]) for i, y in enumerate(asked))
    # how many images of the generator the classifier had before it at each of its looks
    assert judged == [0, 0, 2, 5, 7, 10, 10, 10]


def test_alone_first_trains_the_classifier_alone_until_something_has_been_asked():
    pool = random_pool()
    for rounds, alone in ((pool, True), (pool.reveal([20, 21]), False)):
        parts = cast()
        before = deepcopy(parts)
        bgadl.train(Run(rounds), rounds, plan(steps=3, alone_first=True), **parts)
        for name, part in parts.items():
            still = torch.equal(flat(part), flat(before[name]))
            assert still == (alone and name in GAME), name


def test_running_statistics_of_the_classifier_are_those_of_real_images():
    """With and without made images, at a learning rate of zero, they are the same; gradients flow all the same."""
    pool, stats = random_pool(), []
    for alone in (0.0, 1.0):
        parts = cast(dropout=0.0)
        bgadl.train(Run(pool), pool, plan(steps=3, lr=1e-12, alone=alone), **parts)
        stats.append({k: v for k, v in parts["trunk"].state_dict().items() if "running" in k})
    assert all(torch.allclose(value, stats[1][key], atol=1e-5) for key, value in stats[0].items())
    norm = nn.BatchNorm2d(2)
    with bgadl.forgetting(norm):
        norm(torch.randn(4, 2, 3, 3))
    assert norm.momentum == 0.1
    assert norm.running_mean.tolist() == [0, 0]


def test_made_and_real_images_are_normalised_in_batches_of_their_own():
    pool, parts = random_pool(), cast()
    sizes = {"discriminator": [], "trunk": [], "generator": [], "encoder": []}
    for name, seen in sizes.items():
        parts[name].register_forward_hook(lambda _, args, __, seen=seen: seen.append(len(args[0])))
    bgadl.train(Run(pool), pool, plan(), **parts)
    assert sizes == {"discriminator": 4 * [8], "trunk": 4 * [8], "generator": 5 * [8], "encoder": 2 * [8]}


def test_released_rates_halve_every_fifth_and_every_eighth_of_fifty_epochs():
    ours = plan(steps=5_000, adadelta=True)
    both = [bgadl.rates(ours, step) for step in range(5_000)]
    for which, every in enumerate((5, 8)):
        drops = [step for step in range(1, 5_000) if both[step][which] < both[step - 1][which]]
        assert drops == list(range(100 * every, 5_000, 100 * every))
        assert both[-1][which] == 0.5 ** (49 // every)
    assert both[0] == (1.0, 1.0)


def test_weight_decay_is_divided_by_the_labels():
    parts = cast()
    for ours in (
        plan(decay_per_label=3.5, weight_decay=0.0),
        plan(decay_per_label=3.5, weight_decay=0.0, adadelta=True),
    ):
        step = bgadl.task_optimizer(ours, 70, parts["trunk"], parts["head"])
        assert step.param_groups[0]["weight_decay"] == pytest.approx(0.05)
        assert bgadl.game_optimizer(ours, parts["encoder"]).param_groups[0]["weight_decay"] == 0
    adadelta = bgadl.game_optimizer(plan(adadelta=True), parts["encoder"]).param_groups[0]
    assert (adadelta["lr"], adadelta["rho"], adadelta["eps"]) == (1.0, 0.9, 1e-6)


@pytest.mark.parametrize("frozen", ["encoder", "generator", "discriminator", "trunk", ("trunk", "head")])
def test_a_frozen_player_stays_and_the_others_move(frozen):
    pool = random_pool()
    learner = tiny(pool, freeze=frozen)
    fresh = learner.build(SHAPE, CLASSES, len(pool.rounds))
    for name, part in learner.parts.items():
        still = torch.equal(flat(part), flat(fresh[name]))
        assert still == (name in frozen), name


# The query


def test_bald_is_brute_force_over_the_draws():
    pool = random_pool()
    learner = tiny(pool)
    scan = learner.scan(pool)
    p = torch.stack([log.exp() for log in scan.draws(20)]).double()
    entropy = -(p * p.log()).sum(2)
    bald = -(p.mean(0) * p.mean(0).log()).sum(1) - entropy.mean(0)
    votes = 1 - torch.stack([(p.argmax(2) == k).double().mean(0) for k in range(CLASSES)]).amax(0)
    assert torch.allclose(against(posterior(scan, 20)).double(), votes)
    asked = learner.select(pool, 6)
    assert asked.indices.tolist() == pool.unlabeled[bald.argsort(descending=True)[:6]].tolist()
    assert torch.allclose(
        asked.scores.double(), bald[torch.isin(pool.unlabeled, asked.indices)].sort(descending=True).values, atol=1e-6
    )
    assert torch.equal(asked.detail["BALD"], asked.scores)
    whole = learner.select(pool, 28).scores
    assert whole.min() >= -1e-6
    assert whole.max() <= math.log(CLASSES)
    assert torch.allclose(asked.scores, ask_bald(scan, 6, draws=20).scores.float(), atol=1e-6)


def test_an_image_is_scored_by_itself_whatever_the_order_and_the_batch():
    """The released code runs its passes over a shuffled loader: rows of different images meet in one score."""
    pool = random_pool()
    learner = tiny(pool)
    order = torch.cat([torch.arange(12), 12 + torch.randperm(28, generator=torch.Generator().manual_seed(1))])
    other = Pool.hidden(pool.images[order], CLASSES, pool.oracle).reveal(torch.arange(12), pool.labels[:12])
    here = posterior(learner.scan(pool), 20).bald
    there = posterior(learner.scan(other), 20).bald
    assert torch.allclose(here[order[12:] - 12], there, atol=1e-6)
    assert not torch.allclose(here, there, atol=1e-3)


def test_draws_touch_no_running_statistics_and_no_mode():
    pool = random_pool()
    learner = tiny(pool, trunk="small")
    before = {k: v.clone() for k, v in learner.parts.state_dict().items()}
    learner.select(pool, 3)
    assert all(torch.equal(v, before[k]) for k, v in learner.parts.state_dict().items())
    assert all(m.training for m in learner.parts.modules())


def test_without_dropout_there_is_nothing_to_ask_and_it_says_so():
    pool = random_pool()
    with pytest.raises(ValueError, match="needs dropout"):
        zoo.create("bgadl", device="cpu", **TINY, dropout=0.0).fit(pool)
    learner = tiny(pool)
    with pytest.raises(ValueError, match="draws=1"):
        zoo.create("bgadl", device="cpu", query_settings={"draws": 1}, **TINY, steps=1, batch=8).fit(pool).select(
            pool, 1
        )
    nn.init.zeros_(learner.parts["head"].linear.weight)
    with pytest.raises(RuntimeError, match="no difference"):
        learner.select(pool, 1)
    other = tiny(pool, dropout=0.0, query="margin")  # another query does without, and the diagnosis says what it sees
    assert other.diagnose(pool, pool.images[:5])["bald"] == pytest.approx(0, abs=1e-6)


def test_a_subset_is_drawn_and_the_best_of_it_asked():
    pool = random_pool()
    learner = tiny(pool, query_settings={"subset": 9})
    bald = posterior(learner.scan(pool), 20).bald
    whole, some = learner.scan(pool), learner.select(pool, 9)
    assert some.indices.tolist() != pool.unlabeled[bald.topk(9).indices].tolist()
    assert set(learner.select(pool, 4)) == set(some.indices[:4].tolist())
    assert len(set(learner.select(pool, len(pool.unlabeled)))) == len(whole.pool.unlabeled)


def test_what_is_not_in_the_subset_is_not_looked_at():
    pool = random_pool()
    learner = tiny(pool, query_settings={"subset": 9})
    whole, seen = posterior(learner.scan(pool), 20).bald, []
    learner.parts["trunk"].register_forward_hook(lambda _, __, out: seen.append(len(out)))
    asked = learner.select(pool, 4)
    assert set(seen) == {9}
    at = [pool.unlabeled.tolist().index(i) for i in asked.indices.tolist()]
    assert torch.allclose(asked.scores, whole[at], atol=1e-6)


# The networks


def count(*parts):
    return sum(p.numel() for part in parts for p in part.parameters())


def test_published_networks_have_their_published_sizes():
    entry = entries()["bgadl"]
    with torch.device("meta"):
        released = entry.build((1, 28, 28), 10, **entry.plans["released"].nets)
        lenet = entry.build((1, 28, 28), 10, **{**entry.plans["released"].nets, "trunk": "lenet", "dropout": 0.0})
        paper = entry.build((3, 32, 32), 10, **entry.plans["paper"].nets)
        grey = acgan.Encoder((1, 28, 28))
    assert [count(released[name]) for name in GAME] == [341_769, 6_689_345, 6_559_169]
    assert count(released["trunk"], released["head"]) == 513_994
    assert count(lenet["trunk"], lenet["head"]) == 61_706
    assert [count(paper[name]) for name in GAME] == [8_731_400, 8_663_235, 8_527_297]
    assert count(grey) == 6_763_272


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 31, 33), (1, 50, 50), (3, 64, 64), (3, 8, 20)]
)
@pytest.mark.parametrize("classes", [2, 100])
def test_networks_of_any_size(shape, classes):
    x, y = torch.rand(2, *shape) * 2 - 1, torch.tensor([0, classes - 1])
    parts = entries()["bgadl"].build(shape, classes, width=4, gan_width=2, latent=5)
    mu, logvar = parts["encoder"](x)
    assert mu.shape == logvar.shape == (2, 5)
    made = parts["generator"](mu, y)
    assert made.shape == x.shape
    assert made.abs().max() <= 1
    assert parts["discriminator"](made).shape == (2,)
    if min(shape[1:]) >= 16:
        mu, logvar = acgan.Encoder(shape, 5, 2, "scalar")(x)
        assert mu.shape == logvar.shape == (2, 5)
        assert mu.min() > 0
    if min(shape[1:]) >= 12:
        for trunk in ("gal", "lenet"):
            task = entries()["bgadl"].build(shape, classes, trunk=trunk, gan_width=2, latent=5)
            assert task["head"](task["trunk"](x)).shape == (2, classes)


def test_means_may_be_negative_and_the_released_ones_may_not():
    torch.manual_seed(0)
    x = torch.rand(64, 1, 16, 16) * 2 - 1
    assert acgan.Encoder((1, 16, 16), 8, 4)(x)[0].min() < 0
    assert acgan.Encoder((1, 16, 16), 8, 4, "scalar")(x)[0].min() > 0


def test_the_label_makes_a_difference_and_only_the_generator_knows_it():
    parts = nn.ModuleDict(cast())
    z = torch.randn(5, 6)
    with evaluating(parts), torch.no_grad():
        one, other = (parts["generator"](z, torch.full((5,), y)) for y in (0, 2))
    assert not torch.allclose(one, other, atol=1e-3)


def test_released_weights_start_normal_and_biases_at_zero():
    torch.manual_seed(0)
    for net in (acgan.Generator((1, 28, 28), 10, 100, 64, "normal"), acgan.Discriminator((1, 28, 28), 64, "normal")):
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                assert layer.bias.abs().max() == 0
                assert abs(layer.weight.mean()) < 0.005
                if layer.weight.numel() > 5_000:
                    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("wrong", [{"encoder_form": "flat"}, {"gan_init": "zeros"}, {"gan_width": 0}, {"latent": 0}])
def test_networks_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        zoo.create("bgadl", device="cpu", **{**TINY, **wrong}).fit(random_pool())


def test_images_too_small_for_a_published_network_are_refused():
    for nets in ({"encoder_form": "scalar"}, {"trunk": "gal"}, {"trunk": "lenet"}):
        with pytest.raises(ValueError, match="8x8"):
            zoo.create("bgadl", device="cpu", **TINY, **nets).fit(random_pool())


# Its character


SCALED = {"steps": 90, "alone": 0.2, "width": 8, "latent": 16}


@pytest.fixture(scope="module")
def digits():
    pool, test = zoo.data("digits", initial=100, seed=0)
    return pool, test, zoo.create("bgadl", device="cpu", **SCALED).fit(pool)


def test_character_a_companion_is_nearest_to_its_own_image(digits):
    pool, test, learner = digits
    numbers = learner.diagnose(pool, test.images)
    assert numbers["retrieval"] > 0.6
    assert numbers["recon"] < 0.6
    assert numbers["active_units"] > numbers["latent_units"] / 2
    assert learner.doubts(numbers) == []


@pytest.mark.parametrize("fault", [{"encoder_form": "scalar"}, {"elbo": "released"}])
def test_character_the_released_forms_lose_their_image(digits, fault):
    """One number of an image goes through, or a KL that outweighs it: companions are near anybody, and it is said."""
    pool, test, _ = digits
    learner = zoo.create("bgadl", device="cpu", **{**SCALED, "steps": 60, **fault}).fit(pool)
    numbers = learner.diagnose(pool, test.images)
    assert numbers["retrieval"] < 0.3
    assert any("companions" in sentence for sentence in learner.doubts(numbers))


def test_character_made_images_are_of_their_class(digits):
    """Judged by the nearest labeled image, and by a classifier that has seen real images only: before anything made is
    trusted, it must be of its class."""
    pool, test, learner = digits
    y = torch.arange(300) % 10
    made = learner.sample(300, labels=y)
    judge = zoo.create("plain", device="cpu", steps=100, width=16).fit(pool)
    assert (judge.predict(made).argmax(1) == y).float().mean() > 0.6
    assert learner.diagnose(pool, test.images)["neighbour_agreement"] > 0.6


def test_rebuilt_images_are_near_and_take_the_classifiers_guess_for_a_label(digits):
    _, test, learner = digits
    x = test.images[:50]
    again = learner.rebuild(x)
    scan = Scan(Pool.hidden(x, 10, lambda i: i), learner.parts)
    with evaluating(learner.parts), torch.no_grad():
        mu, guess = learner.parts["encoder"](normal(x))[0], scan.probs.argmax(1)
        made = learner.parts["generator"](mu, guess)
    assert (normal(again) - made).abs().max() < 0.01
    error = (normal(again) - normal(x)).square().mean()
    assert error < 0.7 * (normal(x) - normal(x).mean(0)).square().mean()


def test_it_samples_by_label_and_refuses_labels_that_are_none():
    learner = tiny(random_pool())
    made = learner.sample(4, labels=[0, 1, 2, 2])
    assert made.shape == (4, *SHAPE)
    assert made.dtype == torch.uint8
    assert torch.equal(made, learner.sample(4, labels=torch.tensor([0, 1, 2, 2])))
    assert learner.sample(3, seed=1).shape == (3, *SHAPE)
    for wrong in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="whole numbers"):
            learner.sample(2, labels=wrong)


def test_a_doubt_for_each_thing_that_can_fail():
    alive = {"retrieval": 0.8, "active_units": 30, "latent_units": 32, "bald": 0.05}
    well = {**alive, "neighbour_agreement": 0.5, "neighbour_real": 0.6, "classes": 10}
    assert doubt(well) == []
    for wrong in ({"retrieval": 0.1}, {"neighbour_agreement": 0.1}, {"active_units": 3}, {"bald": 0.0}):
        assert len(doubt({**well, **wrong})) == 1
    assert "nearest to their own image" in doubt({**well, "retrieval": 0.1})[0]


def test_the_unlabeled_pool_is_for_asking_only():
    """Other unlabeled images, the same networks."""
    pool = random_pool()
    other = Pool.hidden(torch.cat([pool.images[:12], 255 - pool.images[12:]]), CLASSES, pool.oracle)
    other = other.reveal(torch.arange(12), pool.labels[:12])
    here, there = tiny(pool), tiny(other)
    assert all(torch.equal(v, there.parts.state_dict()[k]) for k, v in here.parts.state_dict().items())


def test_batches_of_two_of_one_image_are_enough():
    pool = Pool.hidden(random_pool().images, CLASSES, lambda i: i % CLASSES).reveal([3])
    learner = tiny(pool, batch=2)
    assert len(learner.select(pool, 3)) == 3
    assert all(math.isfinite(value) for value in learner.diagnose(pool, pool.images[:5]).values())


def test_the_journal_has_each_player_in_a_group():
    pool, lines = random_pool(), []
    zoo.create("bgadl", device="cpu", **TINY, steps=6, batch=8).fit(pool, journal=lambda *line: lines.append(line))
    assert {name for name, _, _ in lines} == {
        *("task/loss", "task/accuracy", "encoder/recon", "encoder/kl", "generator/as_real", "generator/as_class"),
        *("discriminator/loss", "discriminator/real", "discriminator/made"),
    }
    assert {step for name, _, step in lines if name == "encoder/kl"} == {6}
    assert {step for name, _, step in lines if name == "task/loss"} == {3, 6}


def test_plans_say_what_they_change():
    plans = entries()["bgadl"].plans
    released, paper, ours = (plans[name].loop for name in ("released", "paper", "ours"))
    assert (released.elbo, paper.elbo, ours.elbo) == ("released", "image", "image")
    assert (released.gamma, paper.gamma, ours.gamma) == (0.75, 0.75, 150.0)
    assert (released.adadelta, released.alone_first, released.decay_per_label) == (True, True, 3.5)
    assert plans["released"].nets["encoder_form"] == "scalar"
    assert plans["paper"].nets["encoder_form"] == "full"


@pytest.mark.parametrize(
    "setting", [{"beta": -1.0}, {"lr_game": 0.0}, {"elbo": "mean"}, {"alone": 1.5}, {"trust": -0.1}, {"gamma": -1.0}]
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("bgadl", **setting)
