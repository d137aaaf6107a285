"""The networks of ARAL: a generator and an encoder that both know a label, and the published classifiers.

Mottaghi & Yeung, "Adversarial Representation Active Learning", 2019. https://arxiv.org/abs/1912.09720
Layers, sizes and initialisation as in the authors' code, which has most of them from Dai et al., "Good Semi-supervised
Learning That Requires a Bad GAN", NIPS 2017. https://arxiv.org/abs/1705.09783 (Its critic starts as PyTorch's layers
do; here it is VAAL's, which starts Kaiming-normal.)

A label comes in as evidence (b k): a one-hot row, or a classifier's logits. `condition` says what is made of it:

one-hot     the likeliest class as a one-hot row, in both networks (ours)
logits      as it comes, in both (released, MNIST)
plane       generator as it comes; encoder one plane with the number of the likeliest class (released, SVHN)
plane/k     the same, divided by the number of classes (released, CIFAR)
"""

from collections import OrderedDict
from itertools import pairwise
from math import ceil, log2

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from zoo.nets.common import Full, FullLinear, Mean, Shape, fp32, roomy, unknown
from zoo.nets.trunk import Trunk

CONDITIONS = ("one-hot", "logits", "plane", "plane/k")
FORMS = ("conv", "flat")
PRIORS = ("normal", "uniform")


class Generator(nn.Module):
    """Latents (b z) and evidence of a label (b k) to images (b c h w) in [-1, 1], float32.

    conv: a linear layer to maps of about 4x4, then as many 5x5 doublings as the shorter side needs, the last one to
    `width` channels; width=128 and 100 latents at 3x32x32 are the released network. flat: two hidden layers of
    `width`; 500 in the release. Sides that are no multiple of the doublings are rounded up, and the surplus cropped.
    `prior` alone draws latents.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        latent: int = 32,
        width: int = 16,
        *,
        form: str = "conv",
        condition: str = "one-hot",
        prior: str = "normal",
    ) -> None:
        super().__init__()
        check(shape, latent, width, form, condition)
        _, self.h, self.w = shape
        self.classes = classes
        self.hard = condition == "one-hot"
        self.prior = Prior(latent, prior)
        self.body = dense(shape, latent + classes, width) if form == "flat" else rising(shape, latent + classes, width)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        label = hardened(label) if self.hard else label
        made: Tensor = self.body(torch.cat([z, label.to(z.dtype)], 1))
        return made[..., : self.h, : self.w].float()


class Prior(nn.Module):
    """One latent for each of b: (b ...) -> (b z), standard normal, or uniform in [0, 1] (as released)."""

    def __init__(self, latent: int, form: str) -> None:
        super().__init__()
        if form not in PRIORS:
            raise unknown("prior", form, PRIORS, f"Choose from {', '.join(PRIORS)}")
        self.latent, self.form = latent, form

    def forward(self, each: Tensor, chance: torch.Generator | None = None) -> Tensor:
        """chance: random numbers on the CPU; by default torch's own, on the device of `each`."""
        draw = torch.randn if self.form == "normal" else torch.rand
        at = each.device if chance is None else None
        return draw(len(each), self.latent, generator=chance, device=at).to(each.device)


class Encoder(nn.Module):
    """Images (b c h w) in [-1, 1] and evidence of a label (b k) to (mu (b z), logvar (b z)), float32.

    conv: 5x5 halvings, from `width` channels on, to maps of about 4x4, then one weight-normed linear layer; width=128
    and 100 latents at 3x32x32 are the released network. The label comes in as planes beside the image: one with a
    number in it, or k of zeros and ones; those are one value per filter, which is how they are written here.
    flat: two hidden layers of `width`; 500 in the release. logvar stays in [-10, 10], as in our other encoders.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        latent: int = 32,
        width: int = 16,
        *,
        form: str = "conv",
        condition: str = "one-hot",
    ) -> None:
        super().__init__()
        check(shape, latent, width, form, condition)
        self.hard, self.flat = condition == "one-hot", form == "flat"
        self.plane = {"plane": 1.0, "plane/k": 1 / classes}.get(condition, 0.0)
        c, h, w = shape
        if self.flat:
            norms = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
            self.body = nn.Sequential(
                *(FullLinear(c * h * w + classes, width, bias=False), norms[0], nn.Softplus()),
                *(FullLinear(width, width, bias=False), norms[1], nn.Softplus()),
            )
            self.out = Full(normed(nn.Linear(width, 2 * latent), learned=True, deviation=0.1))
            return
        wide = widths(shape, width)[::-1]
        self.first = nn.Conv2d(c + bool(self.plane), wide[0], 5, 2, 2, bias=False)
        if not self.plane:
            self.label = FullLinear(classes, wide[0], bias=False)
        self.body = nn.Sequential(nn.BatchNorm2d(wide[0]), nn.ReLU())
        for i, o in pairwise(wide):
            self.body.extend([nn.Conv2d(i, o, 5, 2, 2, bias=False), nn.BatchNorm2d(o), nn.ReLU()])
        self.body.append(nn.Flatten())
        size = wide[-1] * ceil(h / 2 ** len(wide)) * ceil(w / 2 ** len(wide))
        self.out = Full(normed(nn.Linear(size, 2 * latent), learned=True, deviation=0.05))

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        label = hardened(label) if self.hard else label
        if self.flat:
            hidden = self.body(torch.cat([x.flatten(1) * 0.5 + 0.5, label.to(x.dtype)], 1))
        elif self.plane:
            plane = (label.argmax(1) * self.plane).to(x.dtype)
            hidden = self.body(self.first(torch.cat([x, plane.view(-1, 1, 1, 1).expand_as(x[:, :1])], 1)))
        else:
            hidden = self.body(self.first(x) + self.label(label.to(x.dtype))[:, :, None, None])
        mu, logvar = self.out(hidden).chunk(2, 1)
        return mu, logvar.clamp(-10, 10)


def hardened(label: Tensor) -> Tensor:
    """Evidence of a label (b k) as a one-hot row: its likeliest class."""
    return F.one_hot(label.argmax(1), label.shape[1]).to(label.dtype)


def widths(shape: Shape, width: int) -> list[int]:
    """Channels of the maps from the smallest, about 4x4, to half the side: at 32 px 4, 2 and 1 times `width`."""
    doublings = max(1, ceil(log2(min(shape[1:]) / 4)))
    return [width * min(2**i, 4) for i in range(doublings - 1, -1, -1)]


def rising(shape: Shape, inputs: int, width: int) -> nn.Sequential:
    """(b i) to images (b c H W) in [-1, 1], H and W the sides rounded up to a multiple of the doublings."""
    wide = widths(shape, width)
    h, w = (ceil(side / 2 ** len(wide)) for side in shape[1:])
    body = nn.Sequential(
        *(FullLinear(inputs, wide[0] * h * w, bias=False), nn.BatchNorm1d(wide[0] * h * w), nn.ReLU()),
        Rearrange("b (c h w) -> b c h w", h=h, w=w),
    )
    for i, o in pairwise(wide):
        body.extend([nn.ConvTranspose2d(i, o, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()])
    last = nn.ConvTranspose2d(wide[-1], shape[0], 5, 2, 2, 1)
    return body.extend([normed(last, learned=True, deviation=0.05), nn.Tanh()])


def dense(shape: Shape, inputs: int, width: int) -> nn.Sequential:
    """(b i) to images (b c h w). The released sigmoid, to [0, 1], is half the tanh of half its argument, to [-1, 1]."""
    c, h, w = shape
    return Full(
        *(FullLinear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.Softplus()),
        *(FullLinear(width, width, bias=False), nn.BatchNorm1d(width), nn.Softplus()),
        *(normed(FullLinear(width, c * h * w), learned=True, deviation=0.1), nn.Sigmoid()),
        Rearrange("b (c h w) -> b c h w", h=h, w=w),
        Stretch(),
    )


class Stretch(nn.Module):
    """[0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


class Shrink(nn.Module):
    """[-1, 1] to [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 + 0.5


class Noise(nn.Module):
    """Gaussian noise of deviation `sigma` on top, in training."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class Rows(nn.Module):
    """Weights whose part for each output has length one, or a learned length that starts at one."""

    def __init__(self, outputs: int, axis: int, learned: bool) -> None:
        super().__init__()
        self.axis = axis
        self.length = nn.Parameter(torch.ones(outputs)) if learned else None

    def forward(self, weight: Tensor) -> Tensor:
        others = [axis for axis in range(weight.dim()) if axis != self.axis]
        unit = weight / (weight.square().sum(others, keepdim=True) + 1e-6).sqrt()
        if self.length is None:
            return unit
        return unit * self.length.view([-1 if axis == self.axis else 1 for axis in range(weight.dim())])


def normed(
    layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, *, learned: bool = False, deviation: float = 0.05
) -> nn.Module:
    """A weight-normed layer, started from normal weights and no bias.

    Salimans & Kingma, "Weight Normalization", NIPS 2016, https://arxiv.org/abs/1602.07868, mostly without its gain.
    """
    nn.init.normal_(layer.weight, 0.0, deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    return register_parametrization(layer, "weight", Rows(layer.weight.shape[axis], axis, learned))


def classifier(name: str, shape: Shape, classes: int, dropout: float = 0.0) -> dict[str, nn.Module]:
    """A published classifier by name: its trunk (b c h w) -> (b d), and its head (b d) -> (b k).

    aral_flat    five noisy layers on pixels, d = 250: released for MNIST
    aral_conv    nine convolutions of 96 and 192 channels, d = 192: released for CIFAR
    aral_svhn    the same with 64 and 128, d = 128, and whole maps dropped: released for SVHN
    """
    c, h, w = shape
    if name == "aral_flat":
        body = nn.Sequential(nn.Flatten(), Shrink())
        for n, (i, o) in enumerate(pairwise([c * h * w, 1000, 500, 250, 250, 250])):
            body.extend([Noise(0.5 if n else 0.3), normed(FullLinear(i, o), deviation=0.1), nn.ReLU()])
        return {"trunk": Trunk(body, 250, ()), "head": NormedHead(250, classes, dropout, noise=0.5, deviation=0.1)}
    svhn = name == "aral_svhn"
    i, o = (64, 128) if svhn else (96, 192)
    drop: type[nn.Module] = nn.Dropout2d if svhn else nn.Dropout
    shrunk = min(ceil(h / 4), ceil(w / 4))
    body = nn.Sequential(
        OrderedDict[str, nn.Module](
            noise=nn.Sequential(Noise(0.05), nn.Dropout2d(0.15 if svhn else 0.2)),
            stage1=nn.Sequential(leaky(c, i), leaky(i, i), leaky(i, i, stride=2)),
            drop1=drop(0.5),
            stage2=nn.Sequential(leaky(i, o), leaky(o, o), leaky(o, o, stride=2)),
            drop2=drop(0.5),
            stage3=nn.Sequential(leaky(o, o, padding=int(shrunk < 3)), leaky(o, o, 1), leaky(o, o, 1)),
            pool=Mean(),
            flat=nn.Flatten(),
        )
    )
    return {
        "trunk": Trunk(body, o, ("stage1", "stage2", "stage3")),
        "head": NormedHead(o, classes, dropout, noise=0.0, deviation=0.05),
    }


CLASSIFIERS = ("aral_flat", "aral_conv", "aral_svhn")


def leaky(i: int, o: int, kernel: int = 3, *, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    """A weight-normed convolution and a leaky ReLU: maps (b i h w) to (b o h/stride w/stride)."""
    padding = kernel // 2 if padding is None else padding
    return nn.Sequential(normed(nn.Conv2d(i, o, kernel, stride, padding)), nn.LeakyReLU(0.2, inplace=True))


class NormedHead(nn.Module):
    """Features (b d), any float type, to float32 logits (b k), through noise and a weight-normed layer."""

    def __init__(self, d: int, classes: int, dropout: float, noise: float, deviation: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.noise = Noise(noise) if noise else nn.Identity()
        self.linear = normed(nn.Linear(d, classes), learned=True, deviation=deviation)

    def forward(self, features: Tensor) -> Tensor:
        with fp32(features):
            logits: Tensor = self.linear(self.noise(self.dropout(features.float())))
        return logits


def check(shape: Shape, latent: int, width: int, form: str, condition: str) -> None:
    """Refuse what no such network can be built from."""
    roomy(shape, 8, "ARAL", "halved once, fewer than 4 pixels are left")
    if min(latent, width) < 1:
        raise ValueError(f"latent={latent} and width={width} must be at least 1.")
    for kind, name, choices in (("form", form, FORMS), ("condition", condition, CONDITIONS)):
        if name not in choices:
            raise unknown(kind, name, choices, f"Choose from {', '.join(choices)}")
    if form == "flat" and condition.startswith("plane"):
        raise ValueError(f"condition={condition!r} needs planes, and form='flat' has none. Take one-hot or logits.")
