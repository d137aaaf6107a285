"""Losses that more than one loop needs. Critics speak in logits: above zero means labeled."""

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_per_image(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mu, exp(logvar)) from N(0, 1), summed over the latent: (b z), (b z) -> (b,)."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)


def elbo(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    """The negative evidence lower bound per image under unit variance: half the squared error + beta KL.

    x, recon: (b c h w). mu, logvar: (b z). Both terms are sums over an image and means over the batch, so the
    weight of one against the other depends neither on the batch nor on how the batch is split.
    """
    squared = F.mse_loss(recon, x, reduction="sum") / len(x)
    return 0.5 * squared + beta * kl_per_image(mu, logvar).mean()


def says(logits: Tensor, *, labeled: bool) -> Tensor:
    """How far a critic is from saying that all of a batch (b,) is labeled (or that none is)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(labeled)))


def auc(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """How often a labeled score (l,) is above an unlabeled one (u,); ties count half. 0.5 is chance, 1 is certain.

    NaN where any score is.
    """
    ranks = labeled.float().sort().values
    below, upto = (torch.searchsorted(ranks, unlabeled.float(), right=right).double() for right in (False, True))
    broken = labeled.isnan().any() | unlabeled.isnan().any()
    return (1 - (below + upto).mean() / (2 * len(ranks))).float().masked_fill(broken, torch.nan)
