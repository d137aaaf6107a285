"""A convolutional variational autoencoder, after the one VAAL plays with.

Sinha, Ebrahimi & Darrell, "Variational Adversarial Active Learning", ICCV 2019. https://arxiv.org/abs/1904.00370
width=128 is the released network: 22,835,139 parameters at 3x32x32 with 32 latents. The default is 1/4 as wide (ours).
With given=1 it is the conditional one of TA-VAAL, whose decoder is also given the rank of the image: 22,851,523.
Kim, Park, Kim & Chun, "Task-Aware Variational Adversarial Active Learning", CVPR 2021. https://arxiv.org/abs/2002.04709
(Its released form for 28 px has kernels of 3 in the innermost convolutions; here the decoder crops, at any size.)
"""

from itertools import pairwise
from math import ceil

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from zoo.nets.common import Full, Shape, fp32, roomy
from zoo.nets.halving import Doubling, Halving


class VAE(nn.Module):
    """Images (b c h w) in [-1, 1] to (recon (b c h w), mu (b z), logvar (b z)), all float32.

    `encoder(x) -> (mu, logvar)` and `decoder(z) -> recon` may be called alone: scoring needs no decoder.
    The latent is drawn anew in every call, in eval mode too; mu and logvar are what stays the same there.
    The encoder halves four times, or as often as leaves one pixel: log2 of the shorter side, rounded down.
    The decoder doubles once less, and ends in a 1x1 convolution.
    given: how many numbers (b given) are told of each image, which the decoder sees beside its latent.
    """

    def __init__(self, shape: Shape, latent: int = 32, width: int = 32, given: int = 0) -> None:
        super().__init__()
        roomy(shape, 8, "VAE", "halved three times, no pixel is left")
        if min(latent, width) < 1 or given < 0:
            raise ValueError(f"latent={latent} and width={width} must be at least 1, given={given} at least 0.")
        halvings = min(4, min(shape[1:]).bit_length() - 1)
        self.encoder = Encoder(shape, latent, width, halvings)
        self.decoder = Decoder(shape, latent + given, width, halvings - 1)

    def forward(self, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encoder(x)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.decoder(z if given is None else torch.cat([z, given], 1)), mu, logvar


class Encoder(nn.Module):
    """Images (b c h w) in [-1, 1] to (mu (b z), logvar (b z)), float32, logvar in [-10, 10].

    Ten on either side keeps exp(logvar) and the KL finite whatever the images are; a trained latent lies far inside.
    """

    def __init__(self, shape: Shape, latent: int, width: int, halvings: int) -> None:
        super().__init__()
        c, h, w = shape
        wide = [c, *(width * 2**i for i in range(halvings))]
        self.body = nn.Sequential()
        for i, o in pairwise(wide):
            conv = Halving(i, o)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            self.body.extend([conv, nn.BatchNorm2d(o), nn.ReLU(inplace=True)])
        flat = wide[-1] * (h >> halvings) * (w >> halvings)
        self.mu = nn.Linear(flat, latent)
        self.logvar = nn.Linear(flat, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x).flatten(1).float()
        with fp32(x):
            return self.mu(hidden), self.logvar(hidden).clamp(-10, 10)


class Decoder(nn.Module):
    """Latents (b z) to images (b c h w), float32, meant for [-1, 1] but not squashed into it (as released).

    Sides that are no multiple of the last doubling are rounded up, and the surplus is cropped.
    """

    def __init__(self, shape: Shape, latent: int, width: int, doublings: int) -> None:
        super().__init__()
        c, self.h, self.w = shape
        h, w = ceil(self.h / 2**doublings), ceil(self.w / 2**doublings)
        wide = [width * 2**i for i in range(doublings, -1, -1)]
        first = nn.Linear(latent, wide[0] * h * w)
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(first.bias)
        self.body = nn.Sequential(Full(first), Rearrange("b (c h w) -> b c h w", h=h, w=w))
        for i, o in pairwise(wide):
            self.body.extend([Doubling(i, o), nn.BatchNorm2d(o), nn.ReLU(inplace=True)])
        self.body.append(nn.ConvTranspose2d(width, c, 1))

    def forward(self, z: Tensor) -> Tensor:
        recon: Tensor = self.body(z)
        return recon[..., : self.h, : self.w].float()
