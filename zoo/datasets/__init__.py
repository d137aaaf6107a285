"""Data sets by name and by folder: a pool with some labels revealed, and the images it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch

from trainers import bounds
from trainers.cache import cache_dir
from trainers.numbers import whole
from trainers.pool import Pool
from trainers.seeds import generator
from zoo.datasets.choices import initial_set, left_out, parted, share, thinned, uneven
from zoo.datasets.folders import of_folder
from zoo.datasets.labeled import Size, Test, kept, only, resized, some
from zoo.datasets.sources import BY_NAME, SIDE, SOURCES, SUPERCLASSES, UNEVEN, Source
from zoo.naming import pick

__all__ = ["SUPERCLASSES", "Source", "Test", "data", "describe", "left_out", "names", "uneven"]

FOLDER = "folder:"


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
        Where the names are numbers themselves, they are meant.
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
    if name in UNEVEN:
        if imbalance is not None:
            raise ValueError(f"{name} is {UNEVEN[name][1]} already; give {UNEVEN[name][0]} an imbalance of its own")
        name, imbalance = UNEVEN[name]
    if name.startswith(FOLDER):
        known = of_folder(name.removeprefix(FOLDER), size, test_share, split, limit)
    else:
        if test_share is not None:
            raise ValueError(f"{name} has test images of its own; test_share (--test-share) is for folder:PATH only")
        load = BY_NAME[pick({each: each for each in names()}, name, "data set")]
        known = load(cache_dir() / "data" if root is None else Path(root).expanduser())
        known = resized(known, name, SIDE.get(name, known.images.shape[2]) if size is None else size)
    if classes:
        known = only(known, classes, limit)
    if validation is not None:
        rest, held = parted(known.targets, known.names, share("validation", validation), split)
        test = Test(some(known.images, held, limit), known.targets[held])
        known = kept(known._replace(test=test), rest, limit)
    if subset is not None:
        if not 1 <= (subset := whole("subset", subset)) <= len(known.targets):
            raise ValueError(f"subset={subset} of a pool of {len(known.targets)} images; give 1..{len(known.targets)}")
        shuffled = torch.randperm(len(known.targets), generator=generator(split, "subset"))
        known = kept(known, shuffled[:subset].sort().values, limit)
    if imbalance is not None:
        known = kept(known, thinned(known.targets, known.names, imbalance, seed), limit)
    pool = replace(Pool.of(known.images, known.targets, len(known.names), known.names), memory=limit)
    without = left_out(known.names, leave_out, seed)
    return pool.reveal(initial_set(known.targets, known.names, initial, seed, balanced, without)), known.test


def names() -> list[str]:
    """What `data` knows by name; `folder:PATH` goes beside."""
    return [*BY_NAME, *UNEVEN]


def describe() -> list[Source]:
    """What there is, one line each, `folder:PATH` last."""
    return list(SOURCES)
