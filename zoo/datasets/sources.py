"""Data sets by name: what there is, and how each is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.datasets.choices import parted
from zoo.datasets.labeled import Labeled, Test, scaled


@dataclass(frozen=True)
class Source:
    """One line of `alzoo list data`.

    images: how many, (pool, test); shape: (c h w) of one by default; classes: how many. None: as the folder has it.
    where: what has to be there, or is fetched.
    """

    name: str
    what: str
    images: tuple[int, int] | None
    shape: tuple[int, int, int] | None
    classes: int | None
    where: str


def _digits(_: Path) -> Labeled:
    """scikit-learn's digits, 8x8, from 0..16 to 0..255; a fifth of each digit is the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    targets = torch.from_numpy(bunch.target).to(torch.int64)
    rest, tested = parted(targets, _TEN, 0.2)
    return Labeled(images[rest], targets[rest], Test(images[tested], targets[tested]), _TEN)


def _fetched(kind: str, there: str, names: tuple[str, ...] | None = None) -> Callable[[Path], Labeled]:
    """A loader for torchvision's data set `kind`, downloaded if it is not below the root. there: where it should be."""

    def half(root: Path, train: bool) -> Any:
        from torchvision import datasets

        which = {"split": "train" if train else "test"} if kind == "SVHN" else {"train": train}
        try:
            return getattr(datasets, kind)(root, **which)
        except (RuntimeError, FileNotFoundError):  # it is not there
            pass
        try:
            return getattr(datasets, kind)(root, **which, download=True)
        except (RuntimeError, OSError, HTTPException) as error:
            reason = next(iter(str(error).strip().splitlines()[-1:]), type(error).__name__)
            raise ConnectionError(
                f"{kind} is not at {root} and cannot be downloaded ({reason}). Put {there} into that folder, "
                "or name the one that has it, root=... (--root)"
            ) from error

    def load(root: Path) -> Labeled:
        train, test = half(root, True), half(root, False)
        (images, targets), tested = _tensors(train), _tensors(test)
        return Labeled(images, targets, Test(*tested), names or tuple(train.classes))

    return load


def _mnist_usps(root: Path) -> Labeled:
    """The pool of MNIST, and the test of USPS framed as MNIST is: its 16 pixels as 20, with a margin of 4."""
    known, usps = BY_NAME["mnist"](root), _fetched("USPS", _USPS, _TEN)(root).test
    framed = torch.nn.functional.pad(scaled(usps.images, 20), (4, 4, 4, 4))
    return known._replace(test=Test(framed, usps.targets))


def _tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """What torchvision holds in arrays of many forms: uint8 (n c h w) and int64 (n,)."""
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2)
    targets = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return images.contiguous(memory_format=torch.channels_last), torch.as_tensor(targets, dtype=torch.int64)


_TEN = tuple("0123456789")
_MNIST = "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
_CIFAR10 = "cifar-10-batches-py/"
_CIFAR100 = "cifar-100-python/"
_SVHN = "train_32x32.mat and test_32x32.mat"
_USPS = "usps.bz2 and usps.t.bz2"

SOURCES = (
    Source("digits", "handwritten digits", (1438, 359), (1, 16, 16), 10, "part of scikit-learn"),
    Source("mnist", "handwritten digits", (60_000, 10_000), (1, 28, 28), 10, "downloaded, or --root"),
    Source("fashion_mnist", "clothes", (60_000, 10_000), (1, 28, 28), 10, "downloaded, or --root"),
    Source("cifar10", "animals and vehicles", (50_000, 10_000), (3, 32, 32), 10, "downloaded, or --root"),
    Source("cifar100", "things of many kinds", (50_000, 10_000), (3, 32, 32), 100, "downloaded, or --root"),
    Source("svhn", "house numbers", (73_257, 26_032), (3, 32, 32), 10, "downloaded, or --root"),
    Source("mnist_usps", "digits of MNIST; the test of USPS", (60_000, 2007), (1, 28, 28), 10, "downloaded, or --root"),
    Source("cifar10_alternating", "rare and common in turn", (25_250, 10_000), (3, 32, 32), 10, "from cifar10"),
    Source("cifar10_long_tailed", "ever rarer classes", (12_406, 10_000), (3, 32, 32), 10, "from cifar10"),
    Source("cifar100_alternating", "rare and common in turn", (25_250, 10_000), (3, 32, 32), 100, "from cifar100"),
    Source("cifar100_long_tailed", "ever rarer classes", (10_847, 10_000), (3, 32, 32), 100, "from cifar100"),
    Source(
        "folder:PATH",
        "image files of your own",
        None,
        None,
        None,
        "PATH/{train,test}/<class>/*, or PATH/<class>/* with --test-share",
    ),
)

SIDE = {"digits": 16}  # pixels, where the default is not what the data have

UNEVEN = {
    f"{name}_{kind.replace('-', '_')}": (name, f"{kind}:100")
    for name in ("cifar10", "cifar100")
    for kind in ("alternating", "long-tailed")
}

BY_NAME: dict[str, Callable[[Path], Labeled]] = {
    "digits": _digits,
    "mnist": _fetched("MNIST", _MNIST, _TEN),
    "fashion_mnist": _fetched("FashionMNIST", f"Fashion{_MNIST}"),
    "cifar10": _fetched("CIFAR10", _CIFAR10),
    "cifar100": _fetched("CIFAR100", _CIFAR100),
    "svhn": _fetched("SVHN", _SVHN, _TEN),
    "mnist_usps": _mnist_usps,
}

# CIFAR-100's own twenty groups of five, among which a noisy oracle can err.
SUPERCLASSES = tuple(
    tuple(line.split())
    for line in (
        "beaver dolphin otter seal whale",
        "aquarium_fish flatfish ray shark trout",
        "orchid poppy rose sunflower tulip",
        "bottle bowl can cup plate",
        "apple mushroom orange pear sweet_pepper",
        "clock keyboard lamp telephone television",
        "bed chair couch table wardrobe",
        "bee beetle butterfly caterpillar cockroach",
        "bear leopard lion tiger wolf",
        "bridge castle house road skyscraper",
        "cloud forest mountain plain sea",
        "camel cattle chimpanzee elephant kangaroo",
        "fox porcupine possum raccoon skunk",
        "crab lobster snail spider worm",
        "baby boy girl man woman",
        "crocodile dinosaur lizard snake turtle",
        "hamster mouse rabbit shrew squirrel",
        "maple_tree oak_tree palm_tree pine_tree willow_tree",
        "bicycle bus motorcycle pickup_truck train",
        "lawn_mower rocket streetcar tank tractor",
    )
)
