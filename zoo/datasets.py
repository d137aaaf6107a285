"""Data sets by name and by folder: a pool with some labels revealed, and the images it is tested on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainers import bounds, folder
from trainers.cache import cache_dir
from trainers.pool import Pool
from trainers.seeds import generator
from zoo.naming import pick, whole

Size = int | tuple[int, int] | None
FOLDER = "folder:"


class Test(NamedTuple):
    """What a learner is measured on: images uint8 (n c h w), targets int64 (n,) in the pool's classes."""

    images: Tensor
    targets: Tensor


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


class Labeled(NamedTuple):
    """Everything a data set has, all labels known: both halves, and what the classes are called."""

    images: Tensor
    targets: Tensor
    test: Test
    names: tuple[str, ...]


def data(
    name: str,
    *,
    initial: int,
    seed: int,
    balanced: bool = False,
    root: str | PathLike[str] | None = None,
    size: Size = None,
    test_share: float | None = None,
    split: int = 0,
    validation: float | None = None,
    subset: int | None = None,
    imbalance: str | None = None,
    leave_out: int | Sequence[str] = 0,
    classes: Sequence[str] = (),
    memory: str | int | None = None,
) -> tuple[Pool, Test]:
    """A pool with `initial` labels revealed (its round 0), and the test images.

    name: one of `names()`, or `folder:PATH`, where PATH holds `train/<class>/*` and `test/<class>/*`, or, with
        `test_share`, `<class>/*`.
    initial: how many labels, 0 for none. Which ones depends on the seed and the data only.
    balanced: as many of each class as possible; what is left over goes to classes at random.
    root: where downloaded data sets lie or are put; by default in the cache. The others need none.
    size: pixels, (height, width) or one number for both; by default as the data are (digits: 16). Sets by name are
        square, and scaled; images from a folder are cut to fit, see `trainers.folder.decode`.
    test_share: for `folder:PATH` without train and test: the share of each class, in (0, 1), that is the test. Which
        images that are does not depend on the seed, but on `split`, a seed of its own.
    validation: the share of each class of the pool, in (0, 1), that is tested on in place of the test images: for
        choosing settings. Which images that are depends on `split`.
    subset: so many images of the pool at most, drawn by `split`; the others are not there.
    imbalance: "alternating:100" leaves a hundredth of every other class, the first one included; "long-tailed:100"
        leaves ever less of each class, down to a hundredth of the last one. The test stays as it is. Which images
        stay depends on the seed; they are loaded, not mapped. `cifar10_alternating` and the like say it by their name.
    leave_out: classes of which the initial set has none: how many, drawn by the seed, or which, by name or number.
    classes: only images of these, by name or number, in the pool and in the test; they are numbered in this order.
    memory: what this process may hold at most, as "2GiB" or in bytes; by default $ALZOO_MEMORY, or no bound. It changes
        no number: images and features then lie on files whose pages are given back, and learners refuse what they could
        not hold, before they begin. Linux only, and for learners on the CPU.
    A folder's classes are the sorted names of the class folders (of train); if one half is grey and the other in
    colour, both are given three channels. Its images are mapped from the cache, not loaded.
    Raises UnknownName; ValueError for an `initial` that the pool (or, if balanced, a class) cannot give or that is
    fewer than the balanced classes, and for folders that are not as above; FileNotFoundError for a missing path;
    ConnectionError for a data set that is not there and cannot be downloaded.
    """
    seed, split, limit = whole("seed", seed), whole("split", split), bounds.bound(memory)
    if split and (test_share, validation, subset) == (None, None, None):
        raise ValueError(
            f"split={split} chooses images, but there is no test_share, validation or subset "
            "(--test-share, --validation, --subset) for them"
        )
    if name in _UNEVEN:
        if imbalance is not None:
            raise ValueError(f"{name} is {_UNEVEN[name][1]} already; give {_UNEVEN[name][0]} an imbalance of its own")
        name, imbalance = _UNEVEN[name]
    if name.startswith(FOLDER):
        known = _of_folder(name.removeprefix(FOLDER), size, test_share, split, limit)
    else:
        if test_share is not None:
            raise ValueError(f"{name} has test images of its own; test_share (--test-share) is for folder:PATH only")
        load = _BY_NAME[pick({each: each for each in names()}, name, "data set")]
        known = load(cache_dir() / "data" if root is None else Path(root).expanduser())
        known = _resized(known, name, _SIDE.get(name, known.images.shape[2]) if size is None else size)
    if classes:
        known = _only(known, classes, limit)
    if validation is not None:
        if not 0 < validation < 1:
            raise ValueError(f"validation={validation} is not between 0 and 1; give 0.2 for every fifth image")
        rest, held = _split(known.targets, known.names, validation, split)
        test = Test(_some(known.images, held, limit), known.targets[held])
        known = _kept(known._replace(test=test), rest, limit)
    if subset is not None:
        if not 1 <= (subset := whole("subset", subset)) <= len(known.targets):
            raise ValueError(f"subset={subset} of a pool of {len(known.targets)} images; give 1..{len(known.targets)}")
        shuffled = torch.randperm(len(known.targets), generator=generator(split, "subset"))
        known = _kept(known, shuffled[:subset].sort().values, limit)
    if imbalance is not None:
        known = _kept(known, _thinned(known.targets, known.names, imbalance, seed), limit)
    pool = replace(Pool.of(known.images, known.targets, len(known.names), known.names), memory=limit)
    without = left_out(known.names, leave_out, seed)
    return pool.reveal(_initial(known.targets, known.names, initial, seed, balanced, without)), known.test


def names() -> list[str]:
    """What `data` knows by name; `folder:PATH` goes beside."""
    return [*_BY_NAME, *_UNEVEN]


def describe() -> list[Source]:
    """What there is, one line each, `folder:PATH` last."""
    return list(_SOURCES)


def left_out(names: Sequence[str], leave_out: int | Sequence[str], seed: int) -> list[int]:
    """The numbers of the classes that `data` leaves out of the initial set, ascending."""
    if isinstance(leave_out, str):
        leave_out = [leave_out]
    if isinstance(leave_out, Sequence):
        chosen = sorted({*_numbers(leave_out, names)})
    else:
        if not 0 <= (n := whole("leave_out", leave_out)) <= len(names):
            raise ValueError(f"leave_out={n} of {len(names)} classes is not possible; give 0..{len(names) - 1}")
        chosen = sorted(torch.randperm(len(names), generator=generator(seed, "left out"))[:n].tolist()) if n else []
    if len(chosen) == len(names):
        raise ValueError(f"leave_out={leave_out!r} leaves no class to start with; leave out fewer")
    return chosen


def _numbers(classes: Sequence[str], names: Sequence[str]) -> list[int]:
    """The numbers of classes that are given by name, or by number where none has that name."""
    numbers = {str(k): k for k in range(len(names))} | {name: k for k, name in enumerate(names)}
    return [pick(numbers, str(name), "class") for name in classes]


def _only(known: Labeled, classes: Sequence[str], limit: int | None) -> Labeled:
    """The images of some classes, numbered anew, in both halves."""
    chosen = _numbers([classes] if isinstance(classes, str) else classes, known.names)
    if len(chosen) < 2 or len({*chosen}) < len(chosen):
        raise ValueError(f"classes={tuple(classes)} must be two or more, each named once")
    number = torch.full((len(known.names),), -1)
    number[chosen] = torch.arange(len(chosen))

    def kept(images: Tensor, targets: Tensor) -> Test:
        mine = (number[targets] >= 0).nonzero().squeeze(1)
        return Test(_some(images, mine, limit), number[targets[mine]])

    images, targets = kept(known.images, known.targets)
    return Labeled(images, targets, kept(*known.test), tuple(known.names[k] for k in chosen))


def _kept(known: Labeled, indices: Tensor, limit: int | None) -> Labeled:
    """Some images of the pool only."""
    return known._replace(images=_some(known.images, indices, limit), targets=known.targets[indices])


def _some(images: Tensor, indices: Tensor, limit: int | None) -> Tensor:
    """`images[indices]`; where memory is bounded, on a file."""
    return images[indices] if limit is None else bounds.copied(images, indices, limit)


def _initial(
    targets: Tensor, names: Sequence[str], initial: int, seed: int, balanced: bool, without: Sequence[int] = ()
) -> Tensor:
    """Indices of the initial set: int64 (initial,), ascending. without: classes that it has none of."""
    initial = whole("initial", initial)
    if not 0 <= initial <= len(targets):
        raise ValueError(
            f"initial={initial} of a pool of {len(targets)} images is not possible; give 0..{len(targets)}"
        )
    chance = generator(seed, "initial")
    shuffled = torch.randperm(len(targets), generator=chance)
    wanted = torch.ones(len(names), dtype=torch.bool)
    wanted[list(without)] = False
    shuffled = shuffled[wanted[targets[shuffled]]]
    if initial > len(shuffled):
        raise ValueError(
            f"initial={initial}, but without {', '.join(names[k] for k in without)} there are {len(shuffled)} images; "
            "give fewer, or leave out fewer classes"
        )
    if not balanced or not initial:
        return shuffled[:initial].sort().values
    among = int(wanted.sum())
    each, left_over = divmod(initial, among)
    if not each:
        raise ValueError(f"initial={initial} cannot be balanced over {among} classes; give {among} or more")
    counts = targets.bincount(minlength=len(names))
    rich = ((counts > each) & wanted).nonzero().squeeze(1)
    if (poor := ((counts < each) & wanted).nonzero().squeeze(1)).numel() or len(rich) < left_over:
        least = int(poor[0] if len(poor) else counts.where(wanted, len(targets)).argmin())
        raise ValueError(
            f"initial={initial} cannot be balanced: class {names[least]!r} has only {int(counts[least])} images; "
            "give fewer, or balanced=False"
        )
    more = rich[torch.randperm(len(rich), generator=chance)[:left_over]]
    quota = (each * wanted.long()).index_add(0, more, torch.ones_like(more))
    chosen = [shuffled[targets[shuffled] == k][: int(n)] for k, n in enumerate(quota)]
    return torch.cat(chosen).sort().values


def _thinned(targets: Tensor, names: Sequence[str], imbalance: str, seed: int) -> Tensor:
    """Indices of the images that stay in an imbalanced pool: int64 (n,), ascending."""
    counts = uneven(targets.bincount(minlength=len(names)).tolist(), imbalance)
    if 0 in counts:
        raise ValueError(f"imbalance={imbalance!r} leaves nothing of class {names[counts.index(0)]!r}; lower the ratio")
    chance = generator(seed, "imbalance")
    order = torch.randperm(len(targets), generator=chance)
    return torch.cat([order[targets[order] == k][:n] for k, n in enumerate(counts)]).sort().values


def uneven(counts: Sequence[int], imbalance: str) -> list[int]:
    """How many images of each class an imbalance leaves: "alternating:RATIO" or "long-tailed:RATIO".

    Alternating is that of TA-VAAL's CIFAR (50, 5000, 50, ... at ratio 100), long-tailed that of Cui et al. 2019
    (https://arxiv.org/abs/1901.05555): n ratio^(-k / (classes - 1)), rounded down.
    """
    kind, _, text = imbalance.partition(":") if isinstance(imbalance, str) else ("", "", "")
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if kind not in ("alternating", "long-tailed") or not 1 < ratio < math.inf:
        raise ValueError(
            f"imbalance={imbalance!r} is neither alternating:RATIO nor long-tailed:RATIO with a ratio above 1; "
            "give alternating:100, for example"
        )
    if kind == "alternating":
        return [n if k % 2 else int(n / ratio) for k, n in enumerate(counts)]
    return [int(n * (1 / ratio) ** (k / (len(counts) - 1))) for k, n in enumerate(counts)]


def _split(targets: Tensor, names: Sequence[str], share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A share of each class for the test: indices of the rest (n,) and of the test (m,), ascending."""
    chance, test = generator(seed, "test split"), torch.zeros(len(targets), dtype=torch.bool)
    for k, name in enumerate(names):
        mine = (targets == k).nonzero().squeeze(1)
        if len(mine) < 2:
            raise ValueError(f"class {name!r} has {len(mine)} images; a pool and a test need two or more")
        n = min(max(round(share * len(mine)), 1), len(mine) - 1)
        test[mine[torch.randperm(len(mine), generator=chance)[:n]]] = True
    return (~test).nonzero().squeeze(1), test.nonzero().squeeze(1)


def _resized(known: Labeled, name: str, size: int | tuple[int, int]) -> Labeled:
    """Square images, scaled to another square."""
    h, w = folder.height_width(size)
    if h != w:
        raise ValueError(f"the images of {name} are square, size {size} is not; give one number")
    test = Test(_scaled(known.test.images, h), known.test.targets)
    return known._replace(images=_scaled(known.images, h), test=test)


def _scaled(images: Tensor, size: int) -> Tensor:
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


def _of_folder(where: str, size: Size, test_share: float | None, split: int, limit: int | None) -> Labeled:
    """`train` and `test` below a folder, or its classes, split."""
    if not where:
        raise ValueError("folder: needs a path, for example folder:photos")
    path = folder.checked(where)
    halves = [half for half in ("train", "test") if (path / half).is_dir()]
    if len(halves) == 1:
        other = "test" if halves == ["train"] else "train"
        raise ValueError(
            f"{path} has {halves[0]} but no {other}; add {other}/<class>/*, or split one folder of classes: "
            f"folder:{path / halves[0]} with test_share=0.2 (--test-share 0.2)"
        )
    if halves:
        if test_share is not None:
            raise ValueError(f"{path} has a test folder of its own; leave out test_share (--test-share)")
        names = _classes(path / "train")
        if strange := sorted(set(_classes(path / "test")) - set(names)):
            raise ValueError(
                f"class {strange[0]!r} is in {path / 'test'} but not in {path / 'train'}; add it or drop it"
            )
        train = folder.decode(path / "train", size, memory=limit)
        test = folder.decode(path / "test", size, memory=limit)
        if train.images.shape[2:] != test.images.shape[2:]:
            (h, w), (hh, ww) = train.images.shape[2:], test.images.shape[2:]
            raise ValueError(
                f"the images of {path / 'train'} are {h}x{w}, those of test {hh}x{ww} (height x width); "
                f"give one size for both, size={min(h, w)} (--size {min(h, w)})"
            )
    else:
        names = _classes(path)
        if test_share is None:
            raise ValueError(
                f"{path} has no train and test folders; say which share of its images is the test, "
                "test_share=0.2 (--test-share 0.2)"
            )
        if not 0 < test_share < 1:
            raise ValueError(f"test_share={test_share} is not between 0 and 1; give 0.2 for every fifth image")
        files = [Path(file.path) for file in folder.list_images(path)]
        rest, tested = _split(_targets([f.as_posix() for f in files], names), names, test_share, split)
        train = folder.decode(path, size, [files[i] for i in rest.tolist()], limit)
        test = folder.decode(path, size, [files[i] for i in tested.tolist()], limit)
    targets = _targets(train.paths, names)
    if (empty := targets.bincount(minlength=len(names)) == 0).any():
        raise ValueError(
            f"class {names[int(empty.nonzero()[0])]!r} of {path} has no readable image; add some or drop it"
        )
    channels = max(train.images.shape[1], test.images.shape[1])
    return Labeled(
        images=train.images.expand(-1, channels, -1, -1),
        targets=targets,
        test=Test(test.images.expand(-1, channels, -1, -1), _targets(test.paths, names)),
        names=names,
    )


def _classes(path: Path) -> tuple[str, ...]:
    """The sorted names of the class folders."""
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    names = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    loose = sorted(e.name for e in entries if e.is_file() and e.name.lower().endswith(folder.SUFFIXES))
    if not names and not loose:
        raise ValueError(f"no images in {path}: it has no class folders; it needs <class>/* for two classes or more")
    if loose:
        raise ValueError(f"{loose[0]} lies in {path} itself, in no class; move such images into folders <class>/")
    if len(names) < 2:
        raise ValueError(f"{path} has one class only, {names[0]!r}; two or more folders <class>/ are needed")
    return names


def _targets(paths: Sequence[str], names: Sequence[str]) -> Tensor:
    """The class of each path, which begins with its name: int64 (n,)."""
    number = {name: k for k, name in enumerate(names)}
    return torch.tensor([number[path.split("/", 1)[0]] for path in paths], dtype=torch.int64)


def _digits(_: Path) -> Labeled:
    """scikit-learn's digits, 8x8, from 0..16 to 0..255; a fifth of each digit is the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    targets = torch.from_numpy(bunch.target).to(torch.int64)
    rest, tested = _split(targets, _TEN, 0.2)
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
    known, usps = _BY_NAME["mnist"](root), _fetched("USPS", _USPS, _TEN)(root).test
    framed = torch.nn.functional.pad(_scaled(usps.images, 20), (4, 4, 4, 4))
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

_SOURCES = (
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

_SIDE = {"digits": 16}  # pixels, where the default is not what the data have

_UNEVEN = {
    f"{name}_{kind.replace('-', '_')}": (name, f"{kind}:100")
    for name in ("cifar10", "cifar100")
    for kind in ("alternating", "long-tailed")
}

_BY_NAME: dict[str, Callable[[Path], Labeled]] = {
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
