"""A data set in a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainers import folder
from zoo.datasets.choices import parted
from zoo.datasets.labeled import Labeled, Size, Test


def of_folder(where: str, size: Size, test_share: float | None, split: int, limit: int | None) -> Labeled:
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
        rest, tested = parted(_targets([f.as_posix() for f in files], names), names, test_share, split)
        train = folder.decode(path, size, [files[i] for i in rest.tolist()], limit)
        test = folder.decode(path, size, [files[i] for i in tested.tolist()], limit)
        if (gone := _targets(test.paths, names).bincount(minlength=len(names)) == 0).any():
            raise ValueError(
                f"class {names[int(gone.nonzero()[0])]!r} of {path} has no readable image in the test; add some, drop "
                f"the class, or take a larger test_share than {test_share}"
            )
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
