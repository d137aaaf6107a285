"""VAAL asks for the images that its critic is surest are unlabeled."""

from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from trainers import vaal as loop
from zoo import diagnosis
from zoo.entry import Entry, Parts, Preset, always
from zoo.nets.common import Shape
from zoo.nets.critic import Critic
from zoo.nets.trunk import task
from zoo.nets.vae import VAE
from zoo.query import Query
from zoo.scan import Asked, Scan, top


def build(
    shape: Shape,
    classes: int,
    *,
    trunk: str = "small",
    width: int = 32,
    vae_width: int = 8,
    latent: int = 32,
    critic_width: int = 128,
    critic_layers: int = 2,
    dropout: float = 0.0,
) -> dict[str, nn.Module]:
    return {
        **task(shape, classes, trunk, width, dropout),
        "vae": VAE(shape, latent, vae_width),
        "critic": Critic(latent, critic_width, critic_layers),
    }


def ask(scan: Scan, n: int) -> Asked:
    """Ask for what the critic is surest is unlabeled: the smallest D(mu). Logits rank, since D itself saturates."""
    logit = scan.each(lambda x: critic_logit(scan.parts, x))
    return top(-logit, n, D=logit.sigmoid())


def critic_logit(parts: Parts, x: Tensor) -> Tensor:
    """Images (b c h w) to the critic's logit of their latent mean (b,). The decoder stays idle."""
    encoder: nn.Module = parts["vae"].get_submodule("encoder")
    mu, _ = encoder(x)
    logit: Tensor = parts["critic"](mu)
    return logit


def diagnose(scan: Scan, held_out: Tensor) -> dict[str, float]:
    """Whether the game works.

    critic_auc: labeled against unlabeled images of the pool, 0.5 is chance. The others: see `diagnosis.latent`.
    """
    return {
        "critic_auc": diagnosis.tells(scan, lambda x: critic_logit(scan.parts, x)),
        **diagnosis.latent(
            scan, held_out, scan.parts["vae"].get_submodule("encoder"), lambda x: rebuild(scan.parts, x)
        ),
    }


def sample(parts: Parts, n: int, labels: Tensor | None, chance: Generator) -> Tensor:
    """Images decoded from n latents out of the prior: (n c h w) in about [-1, 1]. They have no label."""
    if labels is not None:
        raise ValueError("vaal's decoder knows no labels; call sample without them")
    decoder: nn.Module = parts["vae"].get_submodule("decoder")
    first = next(decoder.parameters())
    made: Tensor = decoder(torch.randn(n, first.shape[1], generator=chance).to(first.device))
    return made


def rebuild(parts: Parts, x: Tensor) -> Tensor:
    """What the autoencoder makes of images (b c h w), from their latent mean."""
    encoder, decoder = parts["vae"].get_submodule("encoder"), parts["vae"].get_submodule("decoder")
    recon: Tensor = decoder(encoder(x)[0])
    return recon


# Recalled, where not said otherwise: the paper's own settings for CIFAR are not all in its code.
PAPER = Preset(
    loop.Plan(
        steps=39_062,  # read (code): 50,000 * 100 / 128 whatever is labeled; the paper says 100 epochs
        game_steps=39_062,
        batch=64,  # recalled
        optimizer="adam",  # recalled; also the first release
        lr=5e-4,  # recalled
        schedule="constant",  # recalled
        weight_decay=0.0,  # recalled
        lr_game=5e-4,  # read (code) and recalled
        beta=1.0,  # read (code)
        adversary=1.0,  # read (code)
        vae_steps=1,  # recalled: one step of each
        elbo="image",  # read: the paper's bound
        apart=True,  # read (code)
    ),
    {"trunk": "vgg16_bn", "vae_width": 128, "latent": 32, "critic_width": 512, "critic_layers": 4},  # 4: recalled
    augment="flip",  # read (code)
)
# All read in sinhasam/vaal@67263f3.
RELEASED = Preset(
    loop.Plan(
        steps=39_062,
        game_steps=39_062,
        batch=128,
        optimizer="sgd",
        lr=0.01,
        schedule="quarters",
        nesterov=False,
        weight_decay=5e-4,
        lr_game=5e-4,
        beta=1.0,
        adversary=1.0,
        vae_steps=2,
        elbo="released",
        apart=True,
    ),
    {"trunk": "vgg16_bn", "vae_width": 128, "latent": 32, "critic_width": 512, "critic_layers": 2},
    augment="flip",
)

vaal = Entry(
    name="vaal",
    paper="Sinha, Ebrahimi & Darrell, ICCV 2019, arXiv:1904.00370",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan()), "paper": PAPER, "released": RELEASED}),
    train=loop.train,
    query=Query("vaal", ask, "arXiv:1904.00370, Eq. 4", cost="u encoder", needs=("vae", "critic")),
    diagnose=diagnose,
    doubt=diagnosis.doubt,
    plainly=always,
    sample=sample,
    rebuild=rebuild,
)
