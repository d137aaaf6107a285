"""A data set in a folder of images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainers import folder
from zoo.datasets.choices import parted, share
from zoo.datasets.labeled import Labeled, Size, Test

logger = logging.getLogger("alzoo")


def of_folder(where: str, size: Size, test_share: float | None, split: int, limit: int | None) -> Labeled:
    """`train` and `test` below a folder, or its classes, split."""
    if not where:
        raise ValueError("folder: needs a path, for example folder:photos")
    path = folder.checked(where)
    halves = [half for half in ("train", "test") if (path / half).is_dir()]
    plain = [half for half in halves if _loose(path / half) and not _folders(path / half)]
    if plain and test_share is None:
        raise ValueError(
            f"{path / plain[0]} holds images and no class folders; move them into folders <class>/, or, if "
            f"{plain[0]} is a class, say which share of {path} is the test, test_share=0.2 (--test-share 0.2)"
        )
    halves = [half for half in halves if half not in plain]  # those are classes
    if len(halves) == 1:
        other = "test" if halves == ["train"] else "train"
        raise ValueError(
            f"{path} has {halves[0]} but no {other}; add {other}/<class>/*, or split one folder of classes: "
            f"folder:{path / halves[0]} with test_share=0.2 (--test-share 0.2); or rename it, if {halves[0]} is a class"
        )
    if halves:
        if test_share is not None:
            raise ValueError(
                f"{path} has a test folder of its own; leave out test_share (--test-share), "
                "or rename train and test, if they are classes"
            )
        names = _classes(path / "train")
        if strange := sorted(set(_classes(path / "test")) - set(names)):
            raise ValueError(
                f"class {strange[0]!r} is in {path / 'test'} but not in {path / 'train'}; add it or drop it"
            )
        train = folder.decode(path / "train", size, memory=limit)
        test = folder.decode(path / "test", size, memory=limit)
    else:
        names = _classes(path)
        if test_share is None:
            raise ValueError(
                f"{path} has no train and test folders; say which share of its images is the test, "
                "test_share=0.2 (--test-share 0.2)"
            )
        test_share = share("test_share", test_share)
        files = [Path(file.path) for file in folder.list_images(path)]
        rest, tested = parted(_targets([f.as_posix() for f in files], names), names, test_share, split)
        train = folder.decode(path, size, [files[i] for i in rest.tolist()], limit)
        test = folder.decode(path, size, [files[i] for i in tested.tolist()], limit)
    lacking, untested = (_without_images(half, names) for half in (train, test))
    if untested and test_share is not None:
        raise ValueError(
            f"class {untested[0]!r} of {path} has no readable image in the test; add some, drop the class, or take a "
            f"larger test_share than {test_share}"
        )
    if lacking:
        raise ValueError(f"class {lacking[0]!r} of {path} has no readable image; add some or drop it")
    if untested:
        logger.warning(
            "%d of %d classes have no readable image in the test of %s, and accuracy does not see them: %s",
            len(untested),
            len(names),
            path,
            ", ".join(untested),
        )
    if train.images.shape[2:] != test.images.shape[2:]:
        (h, w), (hh, ww) = train.images.shape[2:], test.images.shape[2:]
        raise ValueError(
            f"the images of {path} are {h}x{w}, those of test {hh}x{ww} (height x width); give one size for both, "
            f"size={folder.USUAL} (--size {folder.USUAL}), for example"
        )
    channels = max(train.images.shape[1], test.images.shape[1])
    return Labeled(
        images=train.images.expand(-1, channels, -1, -1),
        targets=_targets(train.paths, names),
        test=Test(test.images.expand(-1, channels, -1, -1), _targets(test.paths, names)),
        names=names,
    )


def _classes(path: Path) -> tuple[str, ...]:
    """The sorted names of the class folders."""
    names, loose = _folders(path), _loose(path)
    if not names and not loose:
        raise ValueError(f"no images in {path}: it has no class folders; it needs <class>/* for two classes or more")
    if loose:
        raise ValueError(
            f"{loose[0]} lies in {path} itself, in no class; move such images into folders <class>/, or away"
        )
    if len(names) < 2:
        raise ValueError(f"{path} has one class only, {names[0]!r}; two or more folders <class>/ are needed")
    for name in names:
        folder.in_utf8(path / name)
    return tuple(names)


@folder.permitted()
def _folders(path: Path) -> list[str]:
    """The folders in a folder, sorted."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


@folder.permitted()
def _loose(path: Path) -> list[str]:
    """The images that lie in a folder itself, sorted; links that lead nowhere are some, too."""
    files = (entry.name for entry in path.iterdir() if not entry.is_dir() and not entry.name.startswith("."))
    return sorted(name for name in files if name.lower().endswith(folder.SUFFIXES))


def _without_images(half: folder.Decoded, names: Sequence[str]) -> list[str]:
    """The classes of which there is no image."""
    counts = _targets(half.paths, names).bincount(minlength=len(names))
    return [name for name, n in zip(names, counts.tolist(), strict=True) if not n]


def _targets(paths: Sequence[str], names: Sequence[str]) -> Tensor:
    """The class of each path, which begins with its name: int64 (n,)."""
    number = {name: k for k, name in enumerate(names)}
    return torch.tensor([number[path.split("/", 1)[0]] for path in paths], dtype=torch.int64)
