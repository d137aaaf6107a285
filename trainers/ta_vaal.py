"""Task-aware VAAL: VAAL's game, in which the decoder and the critic are told how hard the task network finds an image.

Kim, Park, Kim & Chun, CVPR 2021. https://arxiv.org/abs/2002.04709

First the task network and a ranker learn as in learning loss, with the logistic form of the pairs; then both are
frozen. What the ranker makes of an image never changes after that, so it is computed once, of the image as it is, and
the game sees the images as they are too.

The paper tells decoder and critic the normalised rank. The released code tells the decoder the sigmoid of the
predicted loss and the critic the predicted loss itself, and in the very first step noise in place of both. It takes
means of the squared error over the pixels and of the KL over batch and latent: at 32 px and 32 latents the KL weighs
48 times what the bound says, and the latent dies. Ours is the paper's rank, measured against the labeled and the
unlabeled images together, and the bound of VAAL. (What is told is a setting of the networks, `rank`, since the query
must tell the same.)

The released code passes labeled and unlabeled images apart, each normalised by their own batch. That hides from the
critic what sets the two apart as wholes, and it may turn around when the pool is scored by running averages. On our
toy pool of dark and bright images (tests/test_ta_vaal.py; three settings, six seeds each), where 20 bright ones should
be asked for, 5 of 18 fits asked for 13 of them or fewer, 3 of these for one or none. With both in one pass all 18
asked for 20. So ours passes them together; `apart=True` is the released way.

Also in the released code, and nowhere here: every method it compares, random sampling included, is trained with the
ranker's loss; its random sampling draws with replacement; the images of the game come in the same order and the same
batches at every pass; the autoencoder scores the pool in training mode, so that scores depend on the batch; the first
round alone drops its last batch, and takes 1,400 steps of the task network in place of 1,600.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import llal, losses
from trainers.llal import Meeting
from trainers.losses import auc, kl_per_image, says
from trainers.passes import through
from trainers.players import looking_on
from trainers.pool import Pool, normal, portions
from trainers.run import Run
from trainers.seeds import generator
from trainers.supervised import adam, answered, require


@dataclass(frozen=True, kw_only=True)
class Plan(llal.Plan):
    """Defaults: ours. The settings of task network and ranker are those of learning loss."""

    pairs: Literal["hinge", "logistic"] = "logistic"
    game_steps: int = 200  # of the autoencoder and the critic, one each
    lr_game: float = 2e-3  # Adam, both players; for the narrow networks
    beta: float = 1.0  # weight of the KL term
    adversary: float = 1.0  # weight of fooling the critic (the paper's lambda)
    elbo: Literal["image", "released"] = "image"  # how the two terms of the bound are scaled
    apart: bool = False  # labeled and unlabeled images pass the autoencoder apart, each with their own statistics
    subset: int = 0  # unlabeled images in the game, drawn anew each round; 0: all

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"game_steps": 0, "beta": 0, "adversary": 0, "subset": 0}, above={"lr_game": 0})
        require(self, choices={"elbo": tuple(ELBOS)})


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d); its `stages` are the modules whose maps the ranker reads
    head: nn.Module,  # (b d) -> (b k)
    ranker: nn.Module,  # maps [(b c h w) or (b n d), one per stage] -> predicted loss (b,)
    scale: nn.Module,  # predicted loss (b,) -> what the decoder is told (b,), what the critic is told (b,); has `knots`
    vae: nn.Module,  # (b c h w), told (b 1) -> recon (b c h w), mu (b z), logvar (b z); `encoder` alone -> mu, logvar
    critic: nn.Module,  # mu and told (b z+1) -> logit (b,): above zero means labeled
) -> None:
    # The task network and the ranker learn from the labels.
    llal.train(run, pool, plan, trunk=trunk, head=head, ranker=ranker)
    if not len(pool.unlabeled):
        run.say("ta_vaal: nothing is unlabeled, so the autoencoder and the critic have no game and are not trained")
        return

    # They are frozen now. What they predict is put on a scale, and the game is told of each image where it stands.
    predicted = run.once("predicted", lambda: predict(run, pool, Meeting(trunk, head, ranker)))
    knots = scale.get_buffer("knots")
    knots.copy_(torch.quantile(predicted, torch.linspace(0, 1, len(knots))))
    told = torch.stack(scale(predicted.to(run.device)), 1).cpu()  # (n 2)

    elbo, encoder = ELBOS[plan.elbo], vae.get_submodule("encoder")
    vae, vae_step = run.setup(vae, adam(vae, plan.lr_game), "vae")
    critic, critic_step = run.setup(critic, adam(critic, plan.lr_game), "critic")
    labeled = run.stream(pool.labeled, plan.batch, "none", told)
    unlabeled = run.stream(drawn(run, pool, plan.subset), plan.batch, "none", told)

    @run.whole
    def play(x: Tensor, told_x: Tensor, u: Tensor, told_u: Tensor) -> None:
        ranks = torch.cat([told_x, told_u])[:, 1:]

        # The autoencoder rebuilds both, and makes the critic take both for labeled.
        seen = [(x, told_x[:, :1]), (u, told_u[:, :1])]
        with run.fabric.autocast():  # in bf16, the weights are cast once for both
            (recon_x, mu_x, logvar_x), (recon_u, mu_u, logvar_u) = through(vae, seen, apart=plan.apart)
        rebuild = elbo(x, recon_x, mu_x, logvar_x, plan.beta) + elbo(u, recon_u, mu_u, logvar_u, plan.beta)
        with looking_on(critic):
            fooled = critic(torch.cat([torch.cat([mu_x, mu_u]), ranks], 1))
        fool = 2 * says(fooled, labeled=True)  # the mean of both, twice: their sum
        vae_step.zero_grad()
        run.backward(rebuild + plan.adversary * fool)
        vae_step.step()

        # The critic tells them apart, by their ranks and by what the encoder makes of them now.
        with torch.no_grad(), run.fabric.autocast():
            (mu_x, _), (mu_u, _) = through(encoder, [(x,), (u,)], apart=plan.apart)
        logit_x, logit_u = critic(torch.cat([torch.cat([mu_x, mu_u]), ranks], 1)).chunk(2)
        tell = says(logit_x, labeled=True) + says(logit_u, labeled=False)
        critic_step.zero_grad()
        run.backward(tell)
        critic_step.step()

        run.log("vae/recon", F.mse_loss(recon_u.detach(), u))
        run.log("vae/kl", kl_per_image(mu_u, logvar_u).mean())
        run.log("vae/fool", fool)
        run.log("critic/loss", tell)
        run.log("critic/auc", auc(logit_x, logit_u))

    for _ in run.steps(grown(plan, pool), "game"):
        play(*next(labeled), *next(unlabeled))


def predict(run: Run, pool: Pool, meeting: Meeting) -> Tensor:
    """What the frozen ranker predicts for every image of the pool, real or made: (n,)."""
    meeting.eval()
    with torch.no_grad(), run.fabric.autocast():
        images = (pool.take(i).to(run.device) for i in portions(pool, torch.arange(len(pool.labels)), run.device))
        predicted = torch.cat([meeting(normal(x))[1] for x in images])
    meeting.train()
    return predicted.cpu()


def drawn(run: Run, pool: Pool, subset: int) -> Tensor:
    """The unlabeled images that play, (subset,): those that a query with this `subset` looks at, or all."""
    order = torch.randperm(len(pool.unlabeled), generator=generator(run.seed, "query", "subset", len(pool.rounds)))
    return pool.unlabeled[order[:subset].sort().values] if subset else pool.unlabeled


def grown(plan: Plan, pool: Pool) -> int:
    """The plan's steps; where they grow, in proportion to the images that play, as in the released code."""
    if not (plan.grow and plan.subset and pool.rounds):
        return plan.game_steps
    return plan.game_steps * (len(pool.labeled) + plan.subset) // (answered(pool) + plan.subset)


def released(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    """The released code's form: the mean squared error of a pixel + beta KL, a mean over batch and latent."""
    return F.mse_loss(recon, x) + beta * kl_per_image(mu, logvar).mean() / mu.shape[1]


ELBOS = {"image": losses.elbo, "released": released}
