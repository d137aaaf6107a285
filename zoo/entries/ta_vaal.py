"""TA-VAAL asks for the images that its critic is surest are unlabeled, given how hard they are predicted to be."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from trainers import ta_vaal as loop
from zoo import diagnosis
from zoo.entries.llal import build as build_ranked
from zoo.entries.llal import diagnose as diagnose_ranker
from zoo.entries.llal import doubt as doubt_ranker
from zoo.entries.llal import predict
from zoo.entry import Entry, Parts, Preset
from zoo.nets.common import Shape
from zoo.nets.critic import Critic
from zoo.nets.ranker import Scale
from zoo.nets.vae import VAE
from zoo.query import Query
from zoo.scan import Asked, Scan, top


def build(
    shape: Shape,
    classes: int,
    *,
    trunk: str = "small",
    width: int = 32,
    dropout: float = 0.0,
    ranker_width: int = 64,
    rank: str = "rank",  # what is told of a predicted loss: see `Scale`
    vae_width: int = 8,
    latent: int = 32,
    critic_width: int = 128,
    critic_layers: int = 2,
) -> dict[str, nn.Module]:
    return {
        **build_ranked(shape, classes, trunk=trunk, width=width, dropout=dropout, ranker_width=ranker_width),
        "scale": Scale(rank),
        "vae": VAE(shape, latent, vae_width, given=1),
        "critic": Critic(latent + 1, critic_width, critic_layers),
    }


def ask(scan: Scan, n: int, *, subset: int = 0) -> Asked:
    """Ask for what the critic is surest is unlabeled: the smallest D(mu, r). Logits rank, since D itself saturates.

    subset: look at so many images only, drawn anew each round; 0: at all.
    """
    some = scan.drawn(n, subset)
    logit, rank = scan.each(lambda x: torch.stack(judge(scan.parts, x), 1), of=scan.pool.unlabeled[some]).unbind(1)
    asked = top(-logit, n, D=logit.sigmoid(), rank=rank)
    return Asked(some.to(asked.positions.device)[asked.positions], asked.scores, asked.detail)


def judge(parts: Parts, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images (b c h w) to the critic's logit (b,), and to the rank it is told of them (b,). The decoder stays idle."""
    encoder: nn.Module = parts["vae"].get_submodule("encoder")
    _, rank = parts["scale"](predict(parts, x))
    mu, _ = encoder(x)
    return parts["critic"](torch.cat([mu, rank[:, None]], 1)), rank


def diagnose(scan: Scan, held_out: Tensor) -> dict[str, float]:
    """Whether the ranker knows what is hard, and whether the game works.

    critic_auc: labeled against unlabeled images of the pool, 0.5 is chance. rank_auc: the same by the rank alone, low
    ranks for labeled; what the critic has above it comes from the images. The others: see `llal.diagnose` and
    `diagnosis.latent`.
    """
    return {
        **diagnose_ranker(scan, held_out),
        "critic_auc": diagnosis.tells(scan, lambda x: judge(scan.parts, x)[0]),
        "rank_auc": diagnosis.tells(scan, lambda x: -judge(scan.parts, x)[1]),
        **diagnosis.latent(
            scan, held_out, scan.parts["vae"].get_submodule("encoder"), lambda x: rebuild(scan.parts, x)
        ),
    }


def doubt(numbers: Mapping[str, float]) -> list[str]:
    """What speaks against the ranker, and against the game."""
    return doubt_ranker(numbers) + diagnosis.doubt(numbers)


def sample(parts: Parts, n: int, labels: Tensor | None, chance: Generator) -> Tensor:
    """Images decoded from n latents out of the prior, each with the rank of some image of the pool: (n c h w)."""
    if labels is not None:
        raise ValueError("ta_vaal's decoder knows ranks and no labels; call sample without labels")
    decoder, knots = parts["vae"].get_submodule("decoder"), parts["scale"].get_buffer("knots")
    told, _ = parts["scale"](knots[torch.randint(len(knots), (n,), generator=chance).to(knots.device)])
    z = torch.randn(n, next(decoder.parameters()).shape[1] - 1, generator=chance).to(knots.device)
    made: Tensor = decoder(torch.cat([z, told[:, None]], 1))
    return made


def rebuild(parts: Parts, x: Tensor) -> Tensor:
    """What the autoencoder makes of images (b c h w), from their latent mean and their own predicted rank."""
    encoder, decoder = parts["vae"].get_submodule("encoder"), parts["vae"].get_submodule("decoder")
    told, _ = parts["scale"](predict(parts, x))
    recon: Tensor = decoder(torch.cat([encoder(x)[0], told[:, None]], 1))
    return recon


# All read in cubeyoung/TA-VAAL@1161071.
RELEASED = Preset(
    loop.Plan(
        steps=1_600,  # 200 epochs of 1,000 labels; with more labels more, as `grow` says
        grow=True,
        batch=128,
        optimizer="sgd",
        lr=0.1,
        schedule="late-drop",
        nesterov=False,
        weight_decay=5e-4,
        pairs="logistic",
        weight=1.0,
        joint=121 / 200,  # the ranker only watches from the 122nd of 200 epochs on
        game_steps=8_593,  # 100 epochs of 1,000 labels and 10,000 drawn; they grow too
        subset=10_000,
        lr_game=5e-4,
        beta=1.0,
        adversary=1.0,
        elbo="released",
        apart=True,
    ),
    {
        "trunk": "resnet18",
        "ranker_width": 128,
        "rank": "released",
        "vae_width": 128,
        "latent": 32,
        "critic_width": 512,
        "critic_layers": 2,
    },
    augment="flip+shift",
)
# The paper's bound and its rank are recalled; every other setting is that of its authors' code.
PAPER = replace(
    RELEASED,
    loop=replace(RELEASED.loop, elbo="image"),  # recalled
    nets={**RELEASED.nets, "rank": "rank"},  # recalled; its abstract says "normalized ranking loss information"
)

ta_vaal = Entry(
    name="ta_vaal",
    paper="Kim, Park, Kim & Chun, CVPR 2021, arXiv:2002.04709",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan()), "paper": PAPER, "released": RELEASED}),
    train=loop.train,
    query=Query(
        "ta_vaal",
        ask,
        "arXiv:2002.04709",
        cost="u",
        needs=("ranker", "scale", "vae", "critic"),
        ranges=MappingProxyType({"subset": "[0, inf)"}),
    ),
    diagnose=diagnose,
    doubt=doubt,
    sample=sample,
    rebuild=rebuild,
    told=("subset",),  # it looks at the images that play
)
