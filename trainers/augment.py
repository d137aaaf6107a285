"""Crops and flips of whole batches, on the device they lie on."""

from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Generator, Tensor

Augment = Callable[[Tensor, Generator], Tensor]  # uint8 (b c h w) -> the same


def none(x: Tensor, chance: Generator) -> Tensor:  # noqa: ARG001
    """The images as they are."""
    return x


def flip(x: Tensor, chance: Generator) -> Tensor:
    """Each image mirrored left to right, or not."""
    mirrored = torch.rand(len(x), generator=chance).to(x.device) < 0.5
    return torch.where(rearrange(mirrored, "b -> b 1 1 1"), x.flip(3), x)


def shift(x: Tensor, chance: Generator) -> Tensor:
    """Each image moved by up to an eighth of its size in both directions; black comes in from the sides."""
    b, _, h, w = x.shape
    up, left = max(1, h // 8), max(1, w // 8)
    rows = torch.randint(2 * up + 1, (b, 1), generator=chance) + torch.arange(h)
    columns = torch.randint(2 * left + 1, (b, 1), generator=chance) + torch.arange(w)
    padded = F.pad(x, (left, left, up, up))
    flat = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).to(x.device)  # (b h w) into the padded image
    pixels = rearrange(padded, "b c h w -> b c (h w)")
    return pixels.gather(2, rearrange(flat, "b h w -> b 1 (h w)").expand(-1, x.shape[1], -1)).view(x.shape)


def flip_shift(x: Tensor, chance: Generator) -> Tensor:
    """Mirrored or not, then moved: what CIFAR classifiers are trained with."""
    return shift(flip(x, chance), chance)


def strong(x: Tensor, chance: Generator) -> Tensor:
    """Mirrored, moved, and a quarter of the image (half of each side) blanked out in a random place.

    Cutout as in DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552
    """
    x = flip_shift(x, chance)
    b, _, h, w = x.shape
    top = torch.randint(h // 2 + 1, (b, 1), generator=chance)
    left = torch.randint(w // 2 + 1, (b, 1), generator=chance)
    rows = (torch.arange(h) >= top) & (torch.arange(h) < top + h // 2)  # (b h)
    columns = (torch.arange(w) >= left) & (torch.arange(w) < left + w // 2)  # (b w)
    return x.masked_fill((rows[:, None, :, None] & columns[:, None, None, :]).to(x.device), 0)


AUGMENTS: MappingProxyType[str, Augment] = MappingProxyType(
    {"none": none, "flip": flip, "shift": shift, "flip+shift": flip_shift, "strong": strong}
)
