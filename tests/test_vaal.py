"""VAAL against its equations: each loss, one step of each player, the direction of the query, and its character."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainers import supervised, vaal
from trainers.losses import auc, elbo, kl_per_image, says
from trainers.pool import Pool, normal
from trainers.run import Run
from trainers.seeds import generator, reseed
from zoo.diagnosis import of_critic
from zoo.entries.vaal import critic_logit
from zoo.register import entries
from zoo.testing import who_moves

SHAPE, CLASSES = (1, 8, 8), 2
TINY = {"width": 4, "vae_width": 4, "latent": 6, "critic_width": 16}


def random_pool(n=40):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(12))


def cast(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["vaal"].build(SHAPE, CLASSES, **TINY)


def plan(**settings):
    return vaal.Plan(**{"steps": 0, "game_steps": 1, "batch": 8, **settings})


def test_elbo_is_the_written_out_formula():
    x, recon = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4)
    mu, logvar = torch.randn(5, 7), torch.randn(5, 7)
    total = 0.0
    for i in range(5):
        error = sum((x[i].flatten()[j] - recon[i].flatten()[j]) ** 2 for j in range(48))
        kl = sum(0.5 * (mu[i, j] ** 2 + logvar[i, j].exp() - 1 - logvar[i, j]) for j in range(7))
        total += 0.5 * error + 2.5 * kl
    assert torch.allclose(elbo(x, recon, mu, logvar, 2.5), total / 5, rtol=1e-5)


def test_elbo_does_not_depend_on_the_batch_size():
    args = torch.rand(4, 1, 5, 5), torch.rand(4, 1, 5, 5), torch.randn(4, 3), torch.randn(4, 3)
    assert torch.allclose(elbo(*args, 1.0), elbo(*(torch.cat([a, a]) for a in args), 1.0))


def test_the_released_form_sums_the_kl_over_the_batch_against_a_mean_pixel():
    x, recon, mu, logvar = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5), torch.randn(4, 3), torch.randn(4, 3)
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())  # as the authors' code has it
    assert torch.allclose(vaal.released(x, recon, mu, logvar, 1.5), nn.MSELoss()(recon, x) + 1.5 * kld)


def test_the_released_weight_of_the_kl_is_196608_times_the_papers():
    x, recon, mu, logvar = (
        (torch.rand(128, 3, 32, 32) for _ in range(2)),
        None,
        torch.randn(128, 32),
        torch.randn(128, 32),
    )
    x, recon = x
    ours = elbo(x, recon, mu, logvar, 1.0) - elbo(x, recon, mu, logvar, 0.0), elbo(x, recon, mu, logvar, 0.0)
    theirs = vaal.released(x, recon, mu, logvar, 1.0) - vaal.released(x, recon, mu, logvar, 0.0), F.mse_loss(recon, x)
    assert ((theirs[0] / theirs[1]) / (ours[0] / ours[1])).item() == pytest.approx(128 * 3072 / 2, rel=1e-3)


def test_a_critic_says_labeled_with_positive_logits():
    assert says(torch.tensor([9.0]), labeled=True) < 0.01
    assert says(torch.tensor([9.0]), labeled=False) > 8
    logits = torch.randn(6)
    assert torch.allclose(says(logits, labeled=False), -torch.log(1 - logits.sigmoid()).mean(), rtol=1e-5)
    assert torch.allclose(says(logits, labeled=True), -torch.log(logits.sigmoid()).mean(), rtol=1e-5)


def test_kl_of_the_prior_is_zero():
    assert torch.equal(kl_per_image(torch.zeros(3, 4), torch.zeros(3, 4)), torch.zeros(3))


def test_auc_counts_pairs():
    assert auc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])).item() == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("broken", [0, 1])
def test_auc_of_what_is_no_number_is_none(broken):
    scores = [torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])]
    scores[broken][0] = torch.nan
    assert auc(*scores).isnan()
    assert of_critic({"critic_auc": auc(*scores).item()}, "so") == [
        "what the critic says is not finite: it has diverged, and this query will refuse to ask"
    ]


@pytest.mark.parametrize("form", ["image", "released"])
@pytest.mark.parametrize("vae_steps", [1, 2])
@pytest.mark.parametrize("apart", [True, False])
def test_one_step_of_each_player_is_the_transcription_of_the_equations(form, vae_steps, apart):
    pool, parts = random_pool(), cast()
    ours = plan(elbo=form, vae_steps=vae_steps, apart=apart, beta=0.7, adversary=1.3)
    mirror = deepcopy(parts)
    vaal.train(Run(pool, seed=3), pool, ours, **parts)

    # The same, written out: Eq. 1 and 2 for the autoencoder, Eq. 3 for the critic, on the same batches and noise.
    vae, critic = mirror["vae"], mirror["critic"]
    vae_step, critic_step = (torch.optim.Adam(net.parameters(), ours.lr_game) for net in (vae, critic))
    run = Run(pool, seed=3)
    run.stream(pool.labeled, 8)  # the task network's
    labeled, unlabeled = run.stream(pool.labeled, 8), run.stream(pool.unlabeled, 8)
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 3, "step", len(pool.rounds), "game", 0)
        one, zero = torch.ones(8), torch.zeros(8)
        for _ in range(vae_steps):
            (x, _), (u, _) = next(labeled), next(unlabeled)
            loss = 0.0
            outs = [vae(x), vae(u)] if apart else zip(*(out.chunk(2) for out in vae(torch.cat([x, u]))), strict=True)
            for batch, (recon, mu, logvar) in zip((x, u), outs, strict=True):
                if form == "image":
                    loss += 0.5 * ((recon - batch) ** 2).sum() / 8
                    loss += 0.7 * (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum() / 8
                else:
                    loss += ((recon - batch) ** 2).mean() + 0.7 * (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum()
                loss += 1.3 * F.binary_cross_entropy(critic(mu).sigmoid(), one)
            vae_step.zero_grad()
            loss.backward()
            vae_step.step()
        with torch.no_grad():
            passes = (x, u) if apart else (torch.cat([x, u]),)
            mu_x, mu_u = torch.cat([vae.encoder(images)[0] for images in passes]).chunk(2)
        critic_step.zero_grad()
        F.binary_cross_entropy(critic(mu_x).sigmoid(), one).backward()
        F.binary_cross_entropy(critic(mu_u).sigmoid(), zero).backward()
        critic_step.step()

    for name in ("vae", "critic"):
        for (key, here), there in zip(
            parts[name].state_dict().items(), mirror[name].state_dict().values(), strict=True
        ):
            assert torch.allclose(here, there, atol=2e-5), f"{name}.{key}"


def test_each_player_moves_its_own_parameters_only():
    """Seen at every optimizer step: what has changed since the last one belongs to one player."""
    pool, parts = random_pool(), cast()
    moved = who_moves(vaal.train, pool, plan(steps=1, game_steps=2, vae_steps=2), parts)
    assert moved == [("task", {"trunk", "head"})] + 2 * [("vae", {"vae"}), ("vae", {"vae"}), ("critic", {"critic"})]


def test_the_critic_can_learn_again_after_it_has_looked_on():
    pool, parts = random_pool(), cast()
    vaal.train(Run(pool), pool, plan(), **parts)
    assert all(p.requires_grad for p in parts["critic"].parameters())


def test_the_task_network_trains_in_training_mode_all_along():
    pool, parts = random_pool(), cast()
    modes = []
    parts["trunk"].register_forward_hook(lambda module, *_: modes.append(module.training))
    norm = next(m for m in parts["trunk"].modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    vaal.train(Run(pool), pool, plan(steps=5), **parts)
    assert modes == 5 * [True]
    assert not torch.equal(before, norm.running_mean)
    assert norm.num_batches_tracked == 5


def test_it_asks_for_the_lowest_critic_over_the_whole_pool():
    pool = random_pool()
    learner = zoo.create("vaal", device="cpu", **TINY, steps=1, game_steps=1, batch=8).fit(pool)

    class Stub(nn.Module):  # says labeled the more, the brighter the image, and surely of all: every sigmoid is 1
        def forward(self, x):
            return 30 + 4 * x.mean((1, 2, 3))[:, None], torch.zeros(len(x), 1)

    class Same(nn.Module):
        def forward(self, mu):
            return mu[:, 0]

    learner.parts["vae"].encoder, learner.parts["critic"] = Stub(), Same()
    asked = learner.select(pool, 6)
    brightness = pool.images[pool.unlabeled].float().mean((1, 2, 3))
    assert asked.indices.tolist() == pool.unlabeled[brightness.argsort()[:6]].tolist()
    assert torch.equal(asked.detail["D"], (-asked.scores).sigmoid())
    assert (asked.detail["D"] == 1).all()


def test_scoring_needs_no_decoder_and_no_batch_mates():
    pool = random_pool()
    learner = zoo.create("vaal", device="cpu", **TINY, steps=1, game_steps=3, batch=8).fit(pool)
    scan = learner.scan(pool)
    whole = scan.each(lambda x: critic_logit(scan.parts, x))
    with torch.no_grad():
        learner.parts.eval()
        _, mu, _ = learner.parts["vae"](normal(pool.images[pool.unlabeled]))
        assert torch.allclose(whole, learner.parts["critic"](mu), atol=1e-5)
    learner.parts["vae"].decoder = None
    assert torch.equal(whole, learner.scan(pool).each(lambda x: critic_logit(learner.parts, x)))


def dark_and_bright():
    chance = generator(0, "character")
    dark = torch.randint(0, 100, (60, 3, 8, 8), dtype=torch.uint8, generator=chance)
    bright = torch.randint(150, 256, (30, 3, 8, 8), dtype=torch.uint8, generator=chance)
    targets = torch.randint(0, 3, (90,), generator=chance)
    return Pool.of(torch.cat([dark, bright]), targets, 3).reveal(torch.arange(30))


@pytest.mark.parametrize("seed", range(3))
def test_character_it_asks_for_what_the_labels_have_never_shown(seed):
    """Dark images are labeled, dark and bright ones are not: it must want the bright. A critic that is told that both
    are labeled, or a turned sign, fails here while it keeps every law."""
    pool = dark_and_bright()
    learner = zoo.create("vaal", device="cpu", steps=1, game_steps=100, batch=16, seed=seed).fit(pool)
    assert int((learner.select(pool, 20).indices >= 60).sum()) >= 18


def test_character_would_catch_a_critic_that_is_told_that_both_are_labeled(monkeypatch):
    monkeypatch.setattr(vaal, "says", lambda logits, *, labeled: says(logits, labeled=True))  # noqa: ARG005
    pool = dark_and_bright()
    learner = zoo.create("vaal", device="cpu", steps=1, game_steps=100, batch=16, seed=0).fit(pool)
    assert int((learner.select(pool, 20).indices >= 60).sum()) < 18


def test_the_latent_lives_by_default_and_dies_under_the_released_scaling():
    pool, test = zoo.data("digits", initial=100, seed=0)
    ours, released = (
        zoo.create("vaal", device="cpu", steps=1, game_steps=80, elbo=form, augment="shift")
        .fit(pool)
        .diagnose(pool, test.images)
        for form in ("image", "released")
    )
    assert ours["active_units"] > ours["latent_units"] / 2
    assert ours["recon"] < released["recon"] / 2
    assert released["active_units"] == 0
    assert ours["kl"] > 1 > released["kl"]
    assert 0.5 < ours["critic_auc"] <= 1


def test_published_networks_have_their_published_sizes():
    def count(part):
        return sum(p.numel() for p in part.parameters())

    for name, critic in (("paper", 805_377), ("released", 280_065)):
        entry = entries()["vaal"]
        with torch.device("meta"):
            parts = entry.build((3, 32, 32), 10, **entry.plans[name].nets)
        assert count(parts["vae"]) == 22_835_139
        assert count(parts["critic"]) == critic
        assert count(parts["trunk"]) + count(parts["head"]) == 134_309_962


def test_released_schedule_divides_by_ten_where_the_code_does():
    rates = [supervised.quarters(step, 39_062) for step in range(39_062)]
    drops = [step for step in range(1, 39_062) if rates[step] < rates[step - 1]]
    assert drops == [9765, 19530, 29295, 39060]
    assert rates[-1] == pytest.approx(1e-4)


def test_paper_and_released_plans_say_what_they_change():
    plans = entries()["vaal"].plans
    assert plans["released"].loop.vae_steps == 2
    assert plans["released"].loop.elbo == "released"
    assert plans["paper"].loop.elbo == "image"
    assert replace(plans["paper"].loop, batch=128).batch == 128


def test_with_everything_labeled_the_game_is_left_out_and_said_so(caplog):
    pool = random_pool()
    full = pool.reveal(pool.unlabeled)
    zoo.create("vaal", device="cpu", **TINY, steps=2, batch=8).fit(full)
    assert [r.message for r in caplog.records if "vaal" in r.message] == [caplog.messages[0]]
    assert "nothing is unlabeled" in caplog.text


def test_the_journal_has_the_game_in_groups():
    pool, lines = random_pool(), []
    learner = zoo.create("vaal", device="cpu", **TINY, steps=2, game_steps=120, batch=8)
    learner.fit(pool, journal=lambda *line: lines.append(line))
    names = {name for name, _, _ in lines}
    assert {"task/loss", "task/accuracy", "vae/recon", "vae/kl", "vae/fool", "critic/loss", "critic/auc"} == names
    assert [step for name, _, step in lines if name == "vae/kl"] == [102, 122]
    assert all(0 <= value <= 1 for name, value, _ in lines if name == "critic/auc")


def test_it_makes_and_rebuilds_images():
    pool = random_pool()
    learner = zoo.create("vaal", device="cpu", **TINY, steps=1, game_steps=2, batch=8).fit(pool)
    made, again = learner.sample(5), learner.rebuild(pool.images[:7])
    assert made.shape == (5, *SHAPE)
    assert again.shape == (7, *SHAPE)
    assert made.dtype == again.dtype == torch.uint8
    assert torch.equal(made, learner.sample(5, seed=0))
    assert not torch.equal(made, learner.sample(5, seed=1))
    with pytest.raises(ValueError, match="no labels"):
        learner.sample(2, labels=torch.tensor([0, 1]))
    plain = zoo.create("plain", device="cpu", width=4, steps=1, batch=8).fit(pool)
    with pytest.raises(TypeError, match="makes no images"):
        plain.sample(2)


@pytest.mark.parametrize(
    "setting", [{"beta": -1.0}, {"vae_steps": 0}, {"lr_game": 0.0}, {"elbo": "mean"}, {"batch": 0}]
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("vaal", **setting)
