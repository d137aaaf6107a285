"""The networks of Bayesian generative active deep learning: an autoencoder whose decoder is a class-conditional GAN's.

Tran, Do, Reid & Carneiro, ICML 2019. https://arxiv.org/abs/1904.11643
Layers and sizes are those of the authors' demo (github.com/toantm/BGADL), which takes them from InfoGAN. It has 28x28
grey images; other sizes are ours: halved twice, and once more for every doubling of the shorter side from 64 pixels on.
Published networks see images in [0, 1], all others here in [-1, 1]: each module maps at its own door.
"""

from collections import OrderedDict
from itertools import pairwise
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from zoo.nets.common import Full, Shape, fp32, roomy
from zoo.nets.trunk import Head, Trunk, task

Form = Literal["full", "scalar"]
Init = Literal["torch", "normal"]


class Encoder(nn.Module):
    """Images (b c h w) in [-1, 1] to (mu (b z), logvar (b z)), float32.

    form "full": every pixel has a say, and the two heads are linear; logvar is kept in [-10, 10], as finite numbers
    need it. form "scalar" is the released one: the last convolution leaves one ReLU value of an image (their mean,
    above 28 pixels), and mu and logvar are squashed into (0, 1) by a sigmoid. No image can be told from one number.
    """

    def __init__(
        self, shape: Shape, latent: int = 100, width: int = 64, form: Form = "full", init: Init = "torch"
    ) -> None:
        super().__init__()
        check(shape, latent, width)
        self.form = form
        if form == "full":
            self.body = nn.Sequential(down(shape, width, nn.ReLU(), first_norm=True), hidden(shape, width, nn.ReLU()))
        elif form == "scalar":
            roomy(shape, 16, "The released encoder", "halved four times, no pixel is left")
            self.body = nn.Sequential(
                *(nn.Conv2d(shape[0], width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU()),
                *(nn.Conv2d(2 * width, 1, 4, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                Full(nn.Linear(1, 16 * width), nn.ReLU()),
            )
        else:
            raise ValueError(f"encoder_form={form!r} must be one of full, scalar")
        self.mu = nn.Linear(16 * width, latent)
        self.logvar = nn.Linear(16 * width, latent)
        start(self, init)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.body(unit(x)).float()
        with fp32(x):
            mu, logvar = self.mu(seen), self.logvar(seen)
        return (mu, logvar.clamp(-10, 10)) if self.form == "full" else (mu.sigmoid(), logvar.sigmoid())


class Generator(nn.Module):
    """Latents (b z) and labels int64 (b,) to images of these labels (b c h w), float32 in [-1, 1].

    Sides that are no multiple of the last doubling are rounded up, and the surplus is cropped.
    """

    def __init__(self, shape: Shape, classes: int, latent: int = 100, width: int = 64, init: Init = "torch") -> None:
        super().__init__()
        check(shape, latent, width)
        (c, self.h, self.w), self.latent, self.classes = shape, latent, classes
        n = halvings(shape)
        h, w, wide = ceil(self.h / 2**n), ceil(self.w / 2**n), [width * 2**i for i in reversed(range(n))]
        layers: list[nn.Module] = [
            Full(nn.Linear(latent + classes, 16 * width), nn.BatchNorm1d(16 * width), nn.ReLU()),
            Full(nn.Linear(16 * width, wide[0] * h * w), nn.BatchNorm1d(wide[0] * h * w), nn.ReLU()),
            Rearrange("b (c h w) -> b c h w", h=h, w=w),
        ]
        for i, o in pairwise(wide):
            layers += [nn.ConvTranspose2d(i, o, 4, 2, 1), nn.BatchNorm2d(o), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(width, c, 4, 2, 1))
        start(self, init)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = self.body(torch.cat([z.float(), F.one_hot(y, self.classes).float()], 1))
        return 2 * logits[..., : self.h, : self.w].float().sigmoid() - 1


class Discriminator(nn.Module):
    """Images (b c h w) in [-1, 1] to a float32 logit (b,): above zero means real. It knows no labels."""

    def __init__(self, shape: Shape, width: int = 64, init: Init = "torch") -> None:
        super().__init__()
        check(shape, 1, width)
        leak = nn.LeakyReLU(0.2)
        self.body = nn.Sequential(down(shape, width, leak, first_norm=False), hidden(shape, width, leak))
        self.real = Full(nn.Linear(16 * width, 1), nn.Flatten(0))
        start(self, init)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.real(self.body(unit(x)))
        return logit


def classifier(shape: Shape, classes: int, trunk: str, width: int, dropout: float) -> dict[str, nn.Module]:
    """A task network, one of these two of the authors' demo or any of the zoo's.

    gal    two convolutions, pooled, and a hidden layer of 128, with dropout as in Gal, Islam & Ghahramani 2017
    lenet  LeNet-5 with ReLU, no dropout inside: what the demo trains
    """
    if trunk not in ("gal", "lenet"):
        return task(shape, classes, trunk, width, dropout)
    roomy(shape, 12, f"trunk {trunk!r}", "after its convolutions no pixel is left")
    c, h, w = shape
    layers = OrderedDict[str, nn.Module](unit=Unit())
    if trunk == "gal":
        layers["stage1"] = nn.Sequential(nn.Conv2d(c, 32, 4), nn.ReLU())
        layers["stage2"] = nn.Sequential(nn.Conv2d(32, 32, 4), nn.ReLU(), nn.MaxPool2d(2))
        layers["drop"] = nn.Sequential(nn.Dropout2d(0.25), nn.Flatten())
        layers["hidden"] = Full(nn.Linear(32 * ((h - 6) // 2) * ((w - 6) // 2), 128), nn.ReLU())
        d = 128
    else:
        layers["stage1"] = nn.Sequential(nn.Conv2d(c, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        layers["stage2"] = nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2))
        layers["flat"] = nn.Flatten()
        flat = 16 * ((h // 2 - 4) // 2) * ((w // 2 - 4) // 2)
        layers["hidden"] = Full(nn.Linear(flat, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        d = 84
    return {"trunk": Trunk(nn.Sequential(layers), d, ("stage1", "stage2")), "head": Head(d, classes, dropout)}


def down(shape: Shape, width: int, act: nn.Module, *, first_norm: bool) -> nn.Sequential:
    """Images (b c h w) to maps of half the size as often as `halvings` says, twice as many each time."""
    layers: list[nn.Module] = []
    for n, (i, o) in enumerate(pairwise([shape[0], *(width * 2**i for i in range(halvings(shape)))])):
        norm = [nn.BatchNorm2d(o)] if n or first_norm else []
        layers += [nn.Conv2d(i, o, 4, 2, 1), *norm, act]
    return nn.Sequential(*layers)


def hidden(shape: Shape, width: int, act: nn.Module) -> nn.Sequential:
    """What `down` leaves, to one hidden layer (b 16*width)."""
    n = halvings(shape)
    flat = width * 2 ** (n - 1) * (shape[1] >> n) * (shape[2] >> n)
    return nn.Sequential(nn.Flatten(), Full(nn.Linear(flat, 16 * width), nn.BatchNorm1d(16 * width), act))


def halvings(shape: Shape) -> int:
    """How often an image is halved: twice below 64 pixels, as published, and then so that 8 to 15 are left."""
    return max(2, (min(shape[1:]) // 8).bit_length() - 1)


def unit(x: Tensor) -> Tensor:
    """Images in [-1, 1] as the published networks see them: in [0, 1], so that what is padded is black."""
    return x * 0.5 + 0.5


class Unit(nn.Module):
    """`unit`, as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return unit(x)


def check(shape: Shape, latent: int, width: int) -> None:
    roomy(shape, 8, "The autoencoder with a discriminator", "halved, no pixel is left")
    if min(latent, width) < 1:
        raise ValueError(f"latent={latent} and gan_width={width} must be at least 1.")


def start(module: nn.Module, init: Init) -> None:
    """How the weights start: "torch" leaves PyTorch's own, "normal" is N(0, 0.02) with biases at zero, as released."""
    if init not in ("torch", "normal"):
        raise ValueError(f"gan_init={init!r} must be one of torch, normal")
    for layer in module.modules():
        if init == "normal" and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
