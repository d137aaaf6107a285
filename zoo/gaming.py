"""Whether a game works: numbers that several entries tell of theirs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trainers.losses import auc, kl_per_image
from trainers.pool import Pool, nobody, normal
from zoo.scan import Scan

View = Callable[[Tensor], Tensor]  # images (b c h w) in [-1, 1] -> (b ...)


def held(scan: Scan, images: Tensor) -> Scan:
    """The same eyes on other images, uint8 (n c h w)."""
    return Scan(Pool.hidden(images, scan.pool.classes, nobody), scan.parts, precision=scan.precision)


def tells(scan: Scan, logit: View) -> float:
    """How often a labeled image of the pool has a higher logit (b,) than an unlabeled one; 0.5 is chance."""
    known, unknown = scan.each(logit, of=scan.pool.labeled), scan.each(logit)
    return auc(known, unknown).item() if len(known) and len(unknown) else 0.5


def latent(scan: Scan, held_out: Tensor, rebuild: View) -> dict[str, float]:
    """Whether the autoencoder `vae` has learned, on held-out images, uint8 (n c h w).

    active_units: latent units whose mean varies by more than 0.01, of `latent_units`. kl: nats per image. recon:
    squared error of a pixel over the variance of such pixels; 1 is a decoder that shows the mean image.
    """
    encoder: nn.Module = scan.parts["vae"].get_submodule("encoder")
    fresh, x = held(scan, held_out), normal(held_out).cpu()
    mu, logvar = fresh.each(lambda x: torch.stack(encoder(x), 1)).unbind(1)
    error = (fresh.each(rebuild).cpu() - x).square().mean()
    return {
        "active_units": (mu.var(0) > 0.01).sum().item(),
        "latent_units": mu.shape[1],
        "kl": kl_per_image(mu, logvar).mean().item(),
        "recon": (error / (x - x.mean(0)).square().mean()).item(),
    }


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two numbers of each image, (n,) and (n,); equal ones share their middle rank.

    0 where either is the same for all: nothing is in order then.
    """
    ranks = torch.stack([middle(a), middle(b)])
    return torch.corrcoef(ranks)[0, 1].nan_to_num().item() if len(a) > 1 else 0.0


def middle(values: Tensor) -> Tensor:
    """The rank of each, from 0 on (n,); equal ones share the middle of theirs."""
    order = values.double().sort().values
    below, upto = (torch.searchsorted(order, values.double(), right=right) for right in (False, True))
    return (below + upto - 1).double() / 2


def doubts(numbers: Mapping[str, float]) -> list[str]:
    """What is wrong with a game over a latent, in plain words."""
    said = []
    if numbers["active_units"] == 0:
        said.append("the latent is dead: no unit of it varies with the image, so the critic has nothing to see")
    if numbers["critic_auc"] < 0.55:
        said.append(f"the critic's AUC is {numbers['critic_auc']:.2f}; this query is hardly better than random")
    return said
