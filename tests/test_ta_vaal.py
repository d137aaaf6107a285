"""TA-VAAL against its equations: a step of each player, who is told what, the direction of the query, its character."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainers import llal, ta_vaal
from trainers.llal import Meeting
from trainers.losses import kl_per_image, says
from trainers.pool import Pool, normal
from trainers.run import Run
from trainers.seeds import generator, reseed
from zoo.entries.ta_vaal import judge
from zoo.nets.ranker import Scale
from zoo.nets.vae import VAE
from zoo.register import entries
from zoo.testing import who_moves

SHAPE, CLASSES = (1, 8, 8), 2
TINY = {"width": 4, "ranker_width": 4, "vae_width": 4, "latent": 6, "critic_width": 16}


def random_pool(n=40):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, CLASSES, (n,), generator=chance), CLASSES).reveal(torch.arange(12))


def cast(seed=0, **nets):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entries()["ta_vaal"].build(SHAPE, CLASSES, **TINY, **nets)


def plan(**settings):
    return ta_vaal.Plan(**{"steps": 0, "game_steps": 1, "batch": 8, **settings})


def fitted(pool, **settings):
    return zoo.create("ta_vaal", device="cpu", **{**TINY, "steps": 2, "game_steps": 3, "batch": 8, **settings}).fit(
        pool
    )


def predicted_losses(parts, images):
    """As the frozen ranker sees them: evaluation mode."""
    nets = deepcopy([parts[name].eval() for name in ("trunk", "head", "ranker")])
    for name in ("trunk", "head", "ranker"):
        parts[name].train()
    with torch.no_grad():
        return Meeting(*nets)(normal(images))[1]


def place(values, among):
    """The share of the others that are smaller; equal ones count half."""
    below = (among[None] < values[:, None]).sum(1) + 0.5 * ((among[None] == values[:, None]).sum(1) - 1)
    return below / (len(among) - 1)


def test_a_stream_brings_what_stands_beside_each_image_instead_of_labels():
    pool = random_pool()
    beside = torch.rand(40, 2)
    images = normal(pool.images)
    ranked, plain = Run(pool).stream(pool.unlabeled, 7, "none", beside), Run(pool).stream(pool.unlabeled, 7, "none")
    for _ in range(5):
        (x, told), (same, labels) = next(ranked), next(plain)
        assert torch.equal(x, same)
        assert (labels == -1).all()
        seen = [(images == one).flatten(1).all(1).nonzero().item() for one in x]
        assert torch.equal(told, beside[seen])


@pytest.mark.parametrize("n", [33, 65, 1025])
def test_ranks_are_shares_of_the_pool_that_are_smaller(n):
    predicted = torch.randn(n, generator=torch.Generator().manual_seed(n))
    predicted[:6] = predicted[10]  # seven of one value
    scale = Scale()
    scale.knots.copy_(torch.quantile(predicted, torch.linspace(0, 1, len(scale.knots))))
    to_decoder, to_critic = scale(predicted)
    assert torch.equal(to_decoder, to_critic)
    others = torch.cat([torch.arange(6, 10), torch.arange(11, n)])
    assert torch.allclose(to_critic[others], place(predicted, predicted)[others], atol=1e-3)
    assert (to_critic[:6] - place(predicted, predicted)[:6]).abs().max() < 1 / (n - 1)
    assert to_critic.min() == 0
    assert to_critic.max() == 1
    assert scale(torch.tensor([-1e9, 1e9]))[0].tolist() == [0, 1]
    between = torch.linspace(predicted.min(), predicted.max(), 999)
    assert (scale(between)[0].diff() >= 0).all()


def test_ranks_where_all_are_equal():
    scale = Scale()
    scale.knots.fill_(2.5)
    assert scale(torch.tensor([2.5, 2.0, 3.0]))[0].tolist() == [0.5, 0.0, 1.0]


def test_the_released_form_tells_two_things():
    predicted = torch.tensor([-4.0, 0.0, 7.0])
    to_decoder, to_critic = Scale("released")(predicted)
    assert torch.equal(to_decoder, predicted.sigmoid())
    assert torch.equal(to_critic, predicted)
    with pytest.raises(ValueError, match="Did you mean 'released'"):
        Scale("releasd")


def test_the_released_bound_takes_means_and_weighs_the_kl_48_times_too_much():
    x, recon, mu, logvar = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32), torch.randn(4, 32), torch.randn(4, 32)
    kld = -0.5 * torch.mean(1 + logvar - mu.pow(2) - logvar.exp())  # as the authors' code has it
    assert torch.allclose(ta_vaal.released(x, recon, mu, logvar, 1.5), nn.MSELoss()(recon, x) + 1.5 * kld)
    kl = kl_per_image(mu, logvar).mean()
    assert ((kld / F.mse_loss(recon, x)) / (kl / (0.5 * 3072 * F.mse_loss(recon, x)))).item() == pytest.approx(48)


@pytest.mark.parametrize(("form", "bound"), [("rank", "image"), ("released", "released")])
@pytest.mark.parametrize("apart", [True, False])
def test_one_step_of_each_player_is_the_transcription_of_the_equations(form, bound, apart):
    pool, parts = random_pool(), cast(rank=form)
    ours = plan(elbo=bound, apart=apart, beta=0.7, adversary=1.3)
    mirror = deepcopy(parts)
    ta_vaal.train(Run(pool, seed=3, augment="shift"), pool, ours, **parts)

    # The same, written out, on the same batches (never augmented) and noise.
    raw = predicted_losses(mirror, pool.images)
    rank = place(raw, raw)
    told = torch.stack([rank, rank] if form == "rank" else [raw.sigmoid(), raw], 1)
    vae, critic = mirror["vae"], mirror["critic"]
    vae_step, critic_step = (torch.optim.Adam(net.parameters(), ours.lr_game) for net in (vae, critic))
    run = Run(pool, seed=3)
    run.stream(pool.labeled, 8)  # the task network's
    labeled = run.stream(pool.labeled, 8, "none", told)
    unlabeled = run.stream(pool.unlabeled, 8, "none", told)
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 3, "step", len(pool.rounds), "game", 0)
        one, zero, loss = torch.ones(8), torch.zeros(8), 0.0
        (x, r), (u, s) = next(labeled), next(unlabeled)
        passes = [(x, r), (u, s)] if apart else [(torch.cat([x, u]), torch.cat([r, s]))]
        for images, ranks in passes:
            all_mu, all_logvar = vae.encoder(images)
            z = all_mu + torch.randn_like(all_mu) * torch.exp(0.5 * all_logvar)
            all_recon = vae.decoder(torch.cat([z, ranks[:, :1]], 1))
            for i in range(0, len(images), 8):
                mu, logvar, recon = all_mu[i : i + 8], all_logvar[i : i + 8], all_recon[i : i + 8]
                kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
                if bound == "image":
                    loss += 0.5 * ((recon - images[i : i + 8]) ** 2).sum() / 8 + 0.7 * kl.sum() / 8
                else:
                    loss += ((recon - images[i : i + 8]) ** 2).mean() + 0.7 * kl.mean()
                judged = critic(torch.cat([mu, ranks[i : i + 8, 1:]], 1)).sigmoid()
                loss += 1.3 * F.binary_cross_entropy(judged, one)
        vae_step.zero_grad()
        loss.backward()
        vae_step.step()
        with torch.no_grad():
            mu = torch.cat([vae.encoder(images)[0] for images, _ in passes])
        critic_step.zero_grad()
        F.binary_cross_entropy(critic(torch.cat([mu[:8], r[:, 1:]], 1)).sigmoid(), one).backward()
        F.binary_cross_entropy(critic(torch.cat([mu[8:], s[:, 1:]], 1)).sigmoid(), zero).backward()
        critic_step.step()

    for name in ("vae", "critic"):
        for (key, here), there in zip(
            parts[name].state_dict().items(), mirror[name].state_dict().values(), strict=True
        ):
            assert torch.allclose(here, there, atol=2e-5), f"{name}.{key}"


def test_the_first_half_is_learning_loss_bit_by_bit():
    pool, parts, other = random_pool(), cast(), cast()
    ta_vaal.train(Run(pool), pool, plan(steps=4), **parts)
    first = llal.Plan(steps=4, batch=8, pairs="logistic")
    llal.train(Run(pool), pool, first, **{name: other[name] for name in ("trunk", "head", "ranker")})
    for name in ("trunk", "head", "ranker"):
        assert all(torch.equal(value, other[name].state_dict()[key]) for key, value in parts[name].state_dict().items())
        assert all(module.training for module in parts[name].modules())


def test_each_player_moves_its_own_parameters_only():
    """Seen at every optimizer step: what has changed since the last one belongs to one player."""
    pool, parts = random_pool(), cast()
    moved = who_moves(ta_vaal.train, pool, plan(steps=1, game_steps=2), parts)
    game = [("vae", {"vae"}), ("critic", {"critic"})]
    assert moved == [("task", {"trunk", "head", "ranker"}), *game, *game]
    assert all(p.requires_grad for p in parts["critic"].parameters())


def seen_by_decoder_and_critic(form, **settings):
    """What each is told in training, a column of the images in the order they come, and a fitted cast."""
    pool, parts = random_pool(), cast(rank=form)
    told = {"decoder": [], "critic": []}
    parts["vae"].decoder.register_forward_pre_hook(lambda _, given: told["decoder"].append(given[0][:, -1]))
    parts["critic"].register_forward_pre_hook(lambda _, given: told["critic"].append(given[0][:, -1]))
    ta_vaal.train(Run(pool), pool, plan(steps=5, game_steps=2, **settings), **parts)
    return pool, parts, torch.cat(told["decoder"]), torch.cat(told["critic"])


def test_character_decoder_and_critic_are_told_the_same_rank():
    pool, parts, decoder, critic = seen_by_decoder_and_critic("rank")
    raw = predicted_losses(parts, pool.images)
    ranks = place(raw, raw)
    assert torch.equal(critic, decoder.view(2, 16).repeat_interleave(2, 0).flatten())  # it listens for both players
    assert (decoder[:, None] - ranks).abs().amin(1).max() < 1e-3
    assert len(decoder.unique()) > 10


def test_character_the_released_form_tells_the_critic_the_loss_itself():
    pool, parts, decoder, critic = seen_by_decoder_and_critic("released")
    raw = predicted_losses(parts, pool.images)
    assert ((decoder > 0) & (decoder < 1)).all()
    assert (critic[:, None] - raw).abs().amin(1).max() < 1e-5
    assert torch.allclose(critic.view(4, 16)[::2].flatten().sigmoid(), decoder)


@pytest.mark.parametrize("form", ["rank", "released"])
def test_what_was_told_in_training_is_told_again_in_the_query(form):
    pool = random_pool()
    learner = fitted(pool, rank=form)
    scan = learner.scan(pool)
    rank = scan.each(lambda x: judge(scan.parts, x)[1])
    raw = predicted_losses(learner.parts, pool.images)
    if form == "rank":
        assert torch.allclose(rank, place(raw, raw)[pool.unlabeled], atol=1e-3)
    else:
        assert torch.allclose(rank, raw[pool.unlabeled], atol=1e-5)
    asked = learner.select(pool, 5)
    assert torch.allclose(asked.detail["rank"], rank[torch.searchsorted(pool.unlabeled, asked.indices)])


def test_the_rank_decides_where_the_critic_listens_to_nothing_else():
    class Last(nn.Module):
        def forward(self, given):
            return -given[:, -1]

    pool = random_pool()
    learner = fitted(pool)
    learner.parts["critic"] = Last()
    raw = predicted_losses(learner.parts, pool.images)[pool.unlabeled]
    asked = learner.select(pool, 6)
    assert asked.indices.tolist() == pool.unlabeled[raw.argsort(descending=True)[:6]].tolist()
    assert (asked.detail["rank"].diff() <= 0).all()


def test_it_asks_for_the_lowest_critic_over_the_whole_pool_or_a_subset():
    class Stub(nn.Module):  # says labeled the more, the brighter the image, and surely of all: every sigmoid is 1
        def forward(self, x):
            return 30 + 4 * x.mean((1, 2, 3))[:, None], torch.zeros(len(x), 1)

    class First(nn.Module):
        def forward(self, given):
            return given[:, 0]

    pool = random_pool()
    learner = fitted(pool)
    learner.parts["vae"].encoder, learner.parts["critic"] = Stub(), First()
    asked = learner.select(pool, 6)
    brightness = pool.images[pool.unlabeled].float().mean((1, 2, 3))
    assert asked.indices.tolist() == pool.unlabeled[brightness.argsort()[:6]].tolist()
    assert torch.equal(asked.detail["D"], (-asked.scores).sigmoid())
    assert (asked.detail["D"] == 1).all()

    learner.query_settings = {"subset": 10}
    candidates = ta_vaal.drawn(Run(pool), pool, 10)
    few = pool.images[candidates].float().mean((1, 2, 3))
    assert len(candidates) == 10
    assert learner.select(pool, 6).indices.tolist() == candidates[few.argsort()[:6]].tolist()


def test_only_the_subset_plays_and_the_query_looks_at_the_same():
    pool, parts = random_pool(), cast()
    seen = []
    parts["vae"].register_forward_pre_hook(lambda _, given: seen.append(given[0][8:]))
    ta_vaal.train(Run(pool), pool, plan(game_steps=9, subset=5), **parts)
    played = torch.cat(seen)
    allowed = normal(pool.images[ta_vaal.drawn(Run(pool), pool, 5)])
    assert len({tuple(x.flatten().tolist()) for x in played}) == 5
    assert all((x == allowed).flatten(1).all(1).any() for x in played)


def test_the_query_is_told_which_subset_plays():
    for plan, subset in (("ours", 0), ("released", 10_000), ("paper", 10_000)):
        assert zoo.create("ta_vaal", plan=plan).query_settings == {"subset": subset}
    assert zoo.create("ta_vaal", plan="released", subset=5).query_settings == {"subset": 5}
    assert zoo.create("ta_vaal", subset=5, query_settings={"subset": 7}).query_settings == {"subset": 7}
    assert zoo.create("ta_vaal", subset=5, query="margin").query_settings == {}


def test_scoring_needs_no_decoder_and_no_batch_mates():
    pool = random_pool()
    learner = fitted(pool)
    scan = learner.scan(pool)
    learner.parts["vae"].decoder = None
    one, many = (scan.each(lambda x: torch.stack(judge(scan.parts, x), 1), size=size) for size in (1, 7))
    assert torch.allclose(one, many, atol=1e-4)


def dark_and_bright():
    chance = generator(0, "character")
    dark = torch.randint(0, 100, (60, 3, 8, 8), dtype=torch.uint8, generator=chance)
    bright = torch.randint(150, 256, (30, 3, 8, 8), dtype=torch.uint8, generator=chance)
    targets = torch.randint(0, 3, (90,), generator=chance)
    return Pool.of(torch.cat([dark, bright]), targets, 3).reveal(torch.arange(30))


def bright_ones_asked(seed=0):
    pool = dark_and_bright()
    learner = zoo.create("ta_vaal", device="cpu", width=4, steps=2, game_steps=80, batch=16, seed=seed).fit(pool)
    return int((learner.select(pool, 20).indices >= 60).sum())


@pytest.mark.parametrize("seed", range(3))
def test_character_it_asks_for_what_the_labels_have_never_shown(seed):
    """Dark images are labeled, dark and bright ones are not: it must want the bright."""
    assert bright_ones_asked(seed) >= 18


def test_character_would_catch_a_critic_that_is_told_that_both_are_labeled(monkeypatch):
    monkeypatch.setattr(ta_vaal, "says", lambda logits, *, labeled: says(logits, labeled=True))  # noqa: ARG005
    assert bright_ones_asked() < 18


def test_the_latent_lives_by_default_and_dies_under_the_released_scaling():
    """Of 16x16 grey pixels and 4 latents, where the KL weighs 32 times what the bound says."""
    pool, test = zoo.data("digits", initial=100, seed=0)
    small = {"width": 4, "latent": 4, "steps": 5, "game_steps": 80, "batch": 16}
    ours, released = (
        zoo.create("ta_vaal", device="cpu", **small, **form).fit(pool).diagnose(pool, test.images[:200])
        for form in ({}, {"elbo": "released", "rank": "released", "apart": True})
    )
    assert ours["active_units"] == 4
    assert released["active_units"] == 0
    assert ours["kl"] > 1 > released["kl"]
    assert ours["recon"] < 0.9 < released["recon"]


def test_diagnosis_says_what_the_rank_alone_tells():
    pool = random_pool()
    learner = fitted(pool)
    numbers = learner.diagnose(pool, pool.images[:10])
    ranks = predicted_losses(learner.parts, pool.images)
    pairs = ranks[pool.labeled][:, None] < ranks[pool.unlabeled]
    assert numbers["rank_auc"] == pytest.approx(pairs.float().mean().item(), abs=1e-3)
    game = {"critic_auc", "rank_auc", "active_units", "latent_units", "kl", "recon"}
    assert numbers.keys() == {"rank_correlation", "rank_correlation_labeled"} | game


def test_it_doubts_the_ranker_and_the_game():
    doubts = zoo.create("ta_vaal", device="cpu").doubts
    works = {"rank_correlation": 0.7, "critic_auc": 0.8, "active_units": 30, "latent_units": 32}
    assert doubts(works) == []
    assert "turned around" in doubts({**works, "critic_auc": 0.2})[0]
    assert len(doubts({**works, "rank_correlation": 0.0, "critic_auc": 0.52, "active_units": 0})) == 3
    assert "0.52" in doubts({**works, "critic_auc": 0.52})[0]
    assert "only 0 of 32 latent units" in doubts({**works, "active_units": 0})[0]


def test_published_networks_have_their_published_sizes():
    def count(part):
        return sum(p.numel() for p in part.parameters())

    for name in ("paper", "released"):
        entry = entries()["ta_vaal"]
        with torch.device("meta"):
            parts = entry.build((3, 32, 32), 10, **entry.plans[name].nets)
        assert count(parts["vae"]) == 22_851_523
        assert count(parts["critic"]) == 280_577
        assert count(parts["ranker"]) == 123_905
        assert count(parts["trunk"]) + count(parts["head"]) == 11_173_962
        assert count(parts["scale"]) == 0


@pytest.mark.parametrize("side", [8, 10, 28, 31, 33, 50])
def test_a_decoder_that_is_told_something_keeps_every_shape(side):
    vae, x = VAE((3, side, side), latent=5, width=4, given=2), torch.randn(3, 3, side, side)
    recon, mu, _ = vae(x, torch.rand(3, 2))
    assert recon.shape == x.shape
    assert mu.shape == (3, 5)
    with pytest.raises(RuntimeError):
        vae(x)
    with pytest.raises(ValueError, match="given=-1"):
        VAE((3, 8, 8), given=-1)


def test_published_steps():
    entry, first, known = entries()["ta_vaal"], torch.arange(1000), torch.zeros(20_000).long()
    for plan, bound, rank in (("paper", "image", "rank"), ("released", "released", "released")):
        loop, nets = entry.plans[plan].loop, entry.plans[plan].nets
        assert (loop.elbo, nets["rank"], loop.apart) == (bound, rank, True)
        assert ta_vaal.grown(loop, SimpleNamespace(labeled=first, rounds=(first,), labels=known)) == 8_593
        for labels in (2000, 10_000):  # as the released code counts, but for its rounding down of the first
            now = SimpleNamespace(labeled=torch.arange(labels), rounds=(first,), labels=known)
            assert ta_vaal.grown(loop, now) == pytest.approx((labels + 10_000) * 100 / 128, abs=3)
    assert ta_vaal.grown(ta_vaal.Plan(), now) == 200


def test_a_game_that_grows_is_as_long_as_the_images_that_play_say():
    pool, told = random_pool().reveal(torch.arange(12, 24)), []
    run = Run(pool, watch=lambda stage, _done, steps: told.append((stage, steps)))
    ta_vaal.train(run, pool, plan(game_steps=9, subset=6, grow=True), **cast())
    assert ("game", 9 * (24 + 6) // (12 + 6)) in told
    assert not {steps for stage, steps in told if stage == "game"} - {15}


def test_with_everything_labeled_the_game_is_left_out_and_said_so(caplog):
    pool = random_pool()
    fitted(pool.reveal(pool.unlabeled))
    assert "ta_vaal: nothing is unlabeled" in caplog.text


def test_the_journal_has_the_game_in_groups():
    pool, lines = random_pool(), []
    learner = zoo.create("ta_vaal", device="cpu", **TINY, steps=2, game_steps=3, batch=8)
    learner.fit(pool, journal=lambda *line: lines.append(line))
    ranker = {"task/loss", "task/accuracy", "ranker/loss", "ranker/right"}
    assert {name for name, _, _ in lines} == ranker | {"vae/recon", "vae/kl", "vae/fool", "critic/loss", "critic/auc"}


def test_it_makes_images_and_rebuilds_each_with_its_own_rank():
    pool = random_pool()
    learner = fitted(pool)
    made, again = learner.sample(5), learner.rebuild(pool.images)
    assert made.shape == (5, *SHAPE)
    assert torch.equal(made, learner.sample(5, seed=0))
    assert not torch.equal(made, learner.sample(5, seed=1))
    with pytest.raises(ValueError, match="no labels"):
        learner.sample(2, labels=torch.tensor([0, 1]))
    raw, vae = predicted_losses(learner.parts, pool.images), learner.parts["vae"].eval()
    with torch.no_grad():
        recon = vae.decoder(torch.cat([vae.encoder(normal(pool.images))[0], place(raw, raw)[:, None]], 1))
    assert (normal(again) - recon.clamp(-1, 1)).abs().max() < 0.02
    assert torch.equal(again[3:4], learner.rebuild(pool.images[3:4]))


def test_a_pool_with_made_images_plays_too():
    pool = random_pool()
    made = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    learner = fitted(pool.admit(made, [0, 1, 0]))
    raw = predicted_losses(learner.parts, torch.cat([pool.images, made]))
    assert torch.allclose(learner.parts["scale"].knots[[0, -1]], torch.stack([raw.min(), raw.max()]), atol=1e-5)


@pytest.mark.parametrize(
    "setting", [{"beta": -1.0}, {"lr_game": 0.0}, {"elbo": "mean"}, {"subset": -1}, {"adversary": -1.0}, {"pairs": "x"}]
)
def test_a_plan_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        zoo.create("ta_vaal", **setting)


def test_an_unknown_form_of_rank_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'rank'"):
        fitted(random_pool(), rank="ranks")
