"""A data set with all labels known, and parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainers import bounds, folder
from zoo.datasets.choices import numbers

Size = int | tuple[int, int] | None


class Test(NamedTuple):
    """What a learner is measured on: images uint8 (n c h w), targets int64 (n,) in the pool's classes."""

    images: Tensor
    targets: Tensor


class Labeled(NamedTuple):
    """Everything a data set has, all labels known: both halves, and what the classes are called."""

    images: Tensor
    targets: Tensor
    test: Test
    names: tuple[str, ...]


def only(known: Labeled, classes: Sequence[str], limit: int | None) -> Labeled:
    """The images of some classes, numbered anew, in both halves."""
    chosen = numbers([classes] if isinstance(classes, str) else classes, known.names)
    if len(chosen) < 2 or len({*chosen}) < len(chosen):
        raise ValueError(f"classes={tuple(classes)} must be two or more, each named once")
    number = torch.full((len(known.names),), -1)
    number[chosen] = torch.arange(len(chosen))

    def of_these(images: Tensor, targets: Tensor) -> Test:
        mine = (number[targets] >= 0).nonzero().squeeze(1)
        return Test(some(images, mine, limit), number[targets[mine]])

    images, targets = of_these(known.images, known.targets)
    return Labeled(images, targets, of_these(*known.test), tuple(known.names[k] for k in chosen))


def kept(known: Labeled, indices: Tensor, limit: int | None) -> Labeled:
    """Some images of the pool only."""
    return known._replace(images=some(known.images, indices, limit), targets=known.targets[indices])


def some(images: Tensor, indices: Tensor, limit: int | None) -> Tensor:
    """`images[indices]`; where memory is bounded, on a file."""
    return images[indices] if limit is None else bounds.copied(images, indices, limit)


def resized(known: Labeled, name: str, size: int | tuple[int, int]) -> Labeled:
    """Square images, scaled to another square."""
    h, w = folder.height_width(size)
    if h != w:
        raise ValueError(f"the images of {name} are square, size {size} is not; give one number")
    test = Test(scaled(known.test.images, h), known.test.targets)
    return known._replace(images=scaled(known.images, h), test=test)


def scaled(images: Tensor, size: int) -> Tensor:
    """Square images in another size, bilinear: uint8 (n c size size)."""
    if images.shape[2] == size:
        return images
    out = torch.empty((*images.shape[:2], size, size), dtype=torch.uint8)
    for at in range(0, len(images), 4096):
        block = images[at : at + 4096].float()
        shrinks = size < images.shape[2]
        smooth = torch.nn.functional.interpolate(block, size=size, mode="bilinear", antialias=shrinks)
        out[at : at + 4096] = smooth.round().clamp(0, 255)
    return out
