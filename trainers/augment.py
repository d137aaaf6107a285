"""Crops and flips of whole batches, on the device they lie on.

Whole images and whole rows are copied, never single pixels: each batch is gathered by one or two calls of index_select.
"""

from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Augment = Callable[[Tensor, Generator], Tensor]  # uint8 (b c h w) -> the same


def none(x: Tensor, chance: Generator) -> Tensor:  # noqa: ARG001
    """The images as they are."""
    return x


def flip(x: Tensor, chance: Generator) -> Tensor:
    """Each image mirrored left to right, or not."""
    mirrored = torch.rand(len(x), generator=chance) < 0.5
    images = pixels(x)
    turned = mirrored.nonzero().squeeze(1).to(x.device)
    both = torch.cat([images, images.index_select(0, turned).flip(2)])
    order = torch.where(mirrored, len(x) - 1 + mirrored.cumsum(0), torch.arange(len(x)))
    return both.index_select(0, order.to(x.device)).permute(0, 3, 1, 2)


def shift(x: Tensor, chance: Generator) -> Tensor:
    """Each image moved by up to an eighth of its size in both directions; black comes in from the sides."""
    b, c, h, w = x.shape
    up, left = max(1, h // 8), max(1, w // 8)
    rows = torch.randint(2 * up + 1, (b, 1), generator=chance) + torch.arange(h)
    columns = torch.randint(2 * left + 1, (b, 1), generator=chance)
    padded = F.pad(pixels(x), (0, 0, left, left, up, up))
    _, tall, wide, _ = padded.shape
    first = (torch.arange(b)[:, None] * tall + rows) * wide + columns  # (b h): the pixel at which a row begins
    begun = padded.as_strided((b * tall * wide - w + 1, w * c), (c, 1))  # a row that begins at each pixel
    return begun.index_select(0, first.flatten().to(x.device)).view(b, h, w, c).permute(0, 3, 1, 2)


def flip_shift(x: Tensor, chance: Generator) -> Tensor:
    """Mirrored or not, then moved: what CIFAR classifiers are trained with."""
    return shift(flip(x, chance), chance)


def strong(x: Tensor, chance: Generator) -> Tensor:
    """Mirrored, moved, and a quarter of the image (half of each side) blanked out in a random place.

    Cutout as in DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552
    """
    x = flip_shift(x, chance)
    b, c, h, w = x.shape
    top = torch.randint(h // 2 + 1, (b, 1), generator=chance)
    left = torch.randint(w // 2 + 1, (b, 1), generator=chance)
    rows = (torch.arange(h) >= top) & (torch.arange(h) < top + h // 2)  # (b h)
    columns = (torch.arange(w) >= left) & (torch.arange(w) < left + w // 2)  # (b w)
    columns = columns.repeat_interleave(c, 1)
    gone = rows.to(torch.uint8)[:, :, None] * columns.to(torch.uint8)[:, None, :]
    kept = 1 - gone  # to multiply is faster than to mask
    return (pixels(x).flatten(2) * kept.to(x.device)).view(b, h, w, c).permute(0, 3, 1, 2)


def pixels(x: Tensor) -> Tensor:
    """Images (b c h w) as they lie best, pixel after pixel: (b h w c)."""
    return x.permute(0, 2, 3, 1).contiguous()


AUGMENTS: MappingProxyType[str, Augment] = MappingProxyType(
    {"none": none, "flip": flip, "shift": shift, "flip+shift": flip_shift, "strong": strong}
)
