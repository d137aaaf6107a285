"""Whether a game works: the numbers that several entries tell of theirs."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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


def latent(
    scan: Scan, held_out: Tensor, encode: Callable[[Tensor], tuple[Tensor, Tensor]], rebuild: View
) -> dict[str, float]:
    """What an autoencoder has learned. encode: images (b c h w) -> mu (b z), logvar (b z).

    active_units: latent units whose mean varies by more than 0.01 over held-out images, of `latent_units`. kl: nats
    per held-out image. recon: squared error of a held-out pixel over the variance of such pixels; 1 is a decoder that
    shows the mean image.
    """
    fresh, x = held(scan, held_out), normal(held_out).cpu()
    mu, logvar = fresh.each(lambda x: torch.stack(encode(x), 1)).unbind(1)
    error = (fresh.each(rebuild).cpu() - x).square().mean()
    return {
        "active_units": (mu.var(0) > 0.01).sum().item(),
        "latent_units": mu.shape[1],
        "kl": kl_per_image(mu, logvar).mean().item(),
        "recon": (error / (x - x.mean(0)).square().mean()).item(),
    }


def doubt(numbers: Mapping[str, float]) -> list[str]:
    """What speaks against a game over a latent: a critic that guesses, a latent that is dead."""
    against = of_critic(numbers, "this query is no better than random")
    if numbers["active_units"] < numbers["latent_units"] / 2:
        dead = f"{numbers['active_units']:.0f} of {numbers['latent_units']:.0f}"
        against.append(f"only {dead} latent units are active; the critic has little to see")
    return against


def of_critic(numbers: Mapping[str, float], so: str) -> list[str]:
    """What speaks against a critic: it guesses, and `so` much for its query, or takes the labeled for the unlabeled."""
    if math.isnan(numbers["critic_auc"]):
        return ["what the critic says is not finite: it has diverged, and this query will refuse to ask"]
    if (found := numbers["critic_auc"]) < 0.45:
        return [f"the critic's AUC is {found:.2f}: it is turned around, and takes labeled images for unlabeled ones"]
    if found < 0.55:
        return [f"the critic's AUC is {found:.2f}, which is right where chance has drawn the labels; {so}"]
    return []


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two numbers (n,) of each image: 0 if all of either are the same, NaN if any is."""
    if a.isnan().any() or b.isnan().any():
        return math.nan
    ranks = torch.stack([middle(a), middle(b)])
    return torch.corrcoef(ranks)[0, 1].nan_to_num().item() if len(a) > 1 else 0.0


def middle(values: Tensor) -> Tensor:
    """The rank of each value (n,), from 0 on; equal ones share the middle of theirs."""
    values = values.double()
    order = values.sort().values
    below, upto = (torch.searchsorted(order, values, right=right) for right in (False, True))
    return (below + upto - 1).double() / 2
