"""The pool: images, and what is known of their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from os import PathLike
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from trainers import bounds
from trainers.numbers import whole

VALUES = {"cpu": 2**18, "cuda": 2**22}  # pixels and channels that go through a network at once
UNKNOWN = -1
DIGESTS: MutableMapping[Tensor, tuple[int, bytes]] = WeakIdKeyDictionary()  # images -> their version, and its digest

Oracle = Callable[[Tensor], Tensor]  # indices int64 (n,) -> labels (n,); UNKNOWN where it cannot tell


@runtime_checkable
class Asked(Protocol):
    """What `reveal` accepts beside plain indices: anything that says which images it asks for."""

    @property
    def indices(self) -> Tensor: ...
    @property
    def images(self) -> Tensor | None: ...


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pool:
    """Images, and the labels known so far. Never changed, only replaced; its index never moves.

    images: uint8 (n c h w), 0..255, on any device, in any memory order, possibly mapped from a file. Nobody is to
        write to them any more, nor to an array that they share.
    labels: int64 (n + m,) on the CPU, UNKNOWN (-1) until revealed; the last m belong to `made`.
    classes: how many labels there are.
    names: what the labels are called, one per class.
    oracle: who knows the answers; only `reveal` asks it.
    supposed: bool (n + m,), true where a label is only believed (see `suppose`).
    rounds: the indices each `reveal` asked for, in order; the initial set is round 0.
    made: uint8 (m c h w), images that somebody has made and somebody has judged (see `admit`).
    memory: the bytes that a process which works on it may hold (see `zoo.data`); None, no bound.
    """

    images: Tensor
    labels: Tensor
    classes: int
    names: tuple[str, ...]
    oracle: Oracle
    supposed: Tensor
    made: Tensor
    rounds: tuple[Tensor, ...] = ()
    memory: int | None = None

    @classmethod
    def of(
        cls, images: Tensor, targets: Tensor | Sequence[int], classes: int, names: Sequence[str] | None = None
    ) -> Pool:
        """A simulated pool: every label hidden behind an oracle that looks it up in `targets`.

        images: uint8 (n c h w). targets: integers (n,) in [0, classes).
        Raises TypeError for images that are not uint8, ValueError for anything else that does not fit.
        """
        _check_images(images)
        targets = integers(targets, "targets are")
        if (classes := whole("classes", classes)) < 2:
            raise ValueError(f"classes={classes}: there must be two to tell apart")
        if targets.shape != (len(images),):
            raise ValueError(f"{len(images)} images need targets of shape ({len(images)},), not {tuple(targets.shape)}")
        if strange := _outside(targets, 0, classes):
            raise ValueError(f"target {strange[0]} is outside [0, {classes}); number the classes from 0")
        return cls.hidden(images, classes, Known(targets), names)

    @classmethod
    def hidden(cls, images: Tensor, classes: int, oracle: Oracle, names: Sequence[str] | None = None) -> Pool:
        """A pool of which nothing is known yet, before an oracle of one's own.

        classes: 2 or more, or 0 while nobody knows them.
        """
        _check_images(images)
        if (classes := whole("classes", classes)) < 0 or classes == 1:
            raise ValueError(f"classes={classes!r} must be 2 or more (0 while nobody knows them)")
        names = tuple(map(str, range(classes))) if names is None else tuple(str(name).strip() for name in names)
        if len(names) != classes:
            raise ValueError(f"{len(names)} names for {classes} classes; give one per class")
        if len({*names}) != classes:
            raise ValueError(f"names {names} are not all different; give each class its own")
        return cls(
            images=images,
            labels=torch.full((len(images),), UNKNOWN),
            classes=classes,
            names=names,
            oracle=oracle,
            supposed=torch.zeros(len(images), dtype=torch.bool),
            made=images[:0],
        )

    @classmethod
    def of_folder(
        cls,
        path: str | PathLike[str],
        size: int | tuple[int, int] | None = None,
        labels: str | PathLike[str] | None = None,
        names: Sequence[str] | None = None,
        memory: str | int | None = None,
    ) -> Pool:
        """The images of a folder, which is only read; people answer, by `reveal(indices, labels=...)`.

        path: every image file below it, in the order of their sorted relative paths.
        size: pixels (height, width) or one number for both; None where all images have one size already.
        labels: a CSV file with the header `path,label`, inside the folder or anywhere: what is known at the
            start (round 0). Paths are relative to the folder; images that are not listed, or whose label is -1,
            are unlabeled.
        names: the classes, in order; by default the sorted distinct labels of the CSV file, numbers by their size.
        memory: what this process may hold, as 2GiB; see `zoo.data`.
        Raises FileNotFoundError for missing files, ValueError for a folder without images, images of different
        sizes where `size` is None, and labels that fit no image or no class.
        """
        from trainers import answers, folder

        limit = bounds.bound(memory)
        decoded = folder.decode(path, size, memory=limit)
        names = None if names is None else [str(name).strip() for name in names]
        known = {} if labels is None else answers.read_labels(path, labels, decoded.paths, names or ())
        if names is None:
            names = answers.ordered(known.values())
        if len(names) == 1:
            raise ValueError(f"{names[0]!r} is the only class so far; say which there are: names=[...]")
        if strange := sorted(set(known.values()) - set(names)):
            raise ValueError(f"label {strange[0]!r} is not among the names {names}")
        pool = replace(cls.hidden(decoded.images, len(names), nobody, names), memory=limit)
        if not known:
            return pool
        position = {name: i for i, name in enumerate(decoded.paths)}
        return pool.reveal(
            torch.tensor([position[p] for p in known], dtype=torch.int64),
            labels=torch.tensor([names.index(label) for label in known.values()], dtype=torch.int64),
        )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        made = f", {len(self.made)} made" * bool(len(self.made))
        supposed = f", {int(self.supposed.sum())} supposed" * bool(self.supposed.any())
        return (
            f"Pool({len(self)} images {shape}, {self.classes} classes, {len(self.labeled)} labeled, "
            f"{len(self.unlabeled)} unlabeled, {len(self.rounds)} rounds{made}{supposed})"
        )

    @property
    def digest(self) -> bytes:
        """A name for the pixels of all real images: pools of the same images have the same."""
        return digest(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c h w) of one image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def labeled(self) -> Tensor:
        """Indices of what has a label: int64 (l,), ascending; made images count from n on."""
        return (self.labels != UNKNOWN).nonzero().squeeze(1)

    @property
    def unlabeled(self) -> Tensor:
        """Indices of real images without a label: int64 (u,), ascending."""
        return (self.labels[: len(self)] == UNKNOWN).nonzero().squeeze(1)

    def take(self, indices: Tensor) -> Tensor:
        """The images at `indices` (b,), real or made: uint8 (b c h w) on the device of `images`, channels last."""
        if not len(self.made):
            return at(self.images, indices)
        real = indices < len(self)
        out = at(self.images, torch.where(real, indices, 0))
        out[~real] = self.made[indices[~real] - len(self)].to(out.device)
        return out

    def reveal(self, asked: Asked | Tensor | Sequence[int], labels: Tensor | Sequence[int] | None = None) -> Pool:
        """The pool after the oracle, or the given `labels`, have answered for what was asked.

        An answer of -1 means "cannot tell": the image stays unlabeled, and is remembered in `rounds` as asked.
        Raises ValueError for indices that are out of range, twice in the list or labeled already, for answers
        outside [0, classes), and on a supposition.
        """
        if self.supposed.any():
            raise ValueError(
                "this pool is a supposition: its labels are believed, not known. Reveal from the real pool"
            )
        indices = self._check(asked)
        if (known := self.labels[indices] != UNKNOWN).any():
            raise ValueError(f"{int(known.sum())} of {len(indices)} indices are labeled already; reveal each once")
        answers = self._answers(self.oracle(indices.clone()) if labels is None else labels, indices, least=UNKNOWN)
        return replace(self, labels=self.labels.index_copy(0, indices, answers), rounds=(*self.rounds, indices))

    def suppose(self, indices: Tensor | Sequence[int], labels: Tensor | Sequence[int]) -> Pool:
        """The pool if `indices` had `labels`: another pool, to train on; the labels are marked in `supposed`.

        Raises ValueError as `reveal` does; known labels cannot be supposed away.
        """
        indices = self._check(indices)
        if (known := (self.labels[indices] != UNKNOWN) & ~self.supposed[indices]).any():
            raise ValueError(f"{int(known.sum())} of {len(indices)} indices have true labels; suppose the others only")
        answers = self._answers(labels, indices, least=0)
        return replace(
            self,
            labels=self.labels.index_copy(0, indices, answers),
            supposed=self.supposed.index_fill(0, indices, True),
        )

    def admit(self, images: Tensor, labels: Tensor | Sequence[int]) -> Pool:
        """The pool with made images that somebody has judged. They come after the real ones and have labels.

        images: uint8 (m c h w) of the pool's shape. labels: integers (m,) in [0, classes).
        """
        _check_images(images)
        if images.shape[1:] != self.images.shape[1:]:
            raise ValueError(f"made images of shape {tuple(images.shape[1:])} do not fit a pool of {self.shape}")
        answers = self._answers(labels, images, least=0)
        return replace(
            self,
            made=torch.cat([self.made, images.to(self.made.device)]),
            labels=torch.cat([self.labels, answers]),
            supposed=torch.cat([self.supposed, torch.zeros(len(images), dtype=torch.bool)]),
        )

    def _check(self, asked: Asked | Tensor | Sequence[int]) -> Tensor:
        """Indices of distinct real images, int64 (n,) on the CPU."""
        if isinstance(asked, Asked):
            if asked.images is not None:
                raise ValueError(
                    "this selection holds made images, which have no index to reveal. Have them judged, "
                    "zoo.judge(selection, by=...) -> (images, labels, ledger), then pool.admit(images, labels)"
                )
            asked = asked.indices
        indices = integers(asked, "indices are")
        if strange := _outside(indices, 0, len(self)):
            raise ValueError(f"index {strange[0]} is outside [0, {len(self)}), the images of this pool")
        if twice := len(indices) - len(indices.unique()):
            raise ValueError(f"{twice} of {len(indices)} indices are duplicates; ask for each image once")
        return indices

    def _answers(self, labels: Tensor | Iterable[int], asked: Tensor, least: int) -> Tensor:
        """Labels int64 on the CPU, one for each that was asked, in [least, classes)."""
        if not self.classes:
            raise ValueError("this pool has no classes yet: give of_folder their names=[...], or labels=CSV")
        answers = integers(labels, f"{len(asked)} answers are due,")
        if len(answers) != len(asked):
            raise ValueError(f"{len(asked)} answers are due, one for each image; got {len(answers)}")
        if strange := _outside(answers, least, self.classes):
            raise ValueError(f"answer {strange[0]} is outside [0, {self.classes}), the classes of this pool")
        return answers


@dataclass(frozen=True, eq=False)
class Known:
    """An oracle that looks the answer up."""

    targets: Tensor = field(repr=False)  # int64 (n,)

    def __call__(self, indices: Tensor) -> Tensor:
        return self.targets[indices]


def nobody(indices: Tensor) -> Tensor:
    """The oracle of a folder without answers."""
    raise ValueError(f"nobody can answer: reveal takes labels=... ({len(indices)} images were asked)")


def digest(images: Tensor) -> bytes:
    """A name for uint8 images (n c h w), whatever their order in memory. Made once for a tensor.

    It is made again where torch has written to them since; what numpy writes into an array it shares, torch cannot see.
    """
    version = 0 if images.is_inference() else images._version  # how often they were written to
    known = DIGESTS.get(images)
    if known is None or known[0] != version:
        name = blake2b(repr(tuple(images.shape)).encode(), digest_size=16)
        for i in torch.arange(len(images)).split(4096):
            name.update(at(images, i).permute(0, 2, 3, 1).cpu().numpy().tobytes())
        known = DIGESTS[images] = version, name.digest()
    return known[1]


def at(images: Tensor, indices: Tensor) -> Tensor:
    """`images[indices]`, channels last in memory: (n c h w), (b,) -> (b c h w). Indexing takes ten times as long."""
    found = images.permute(0, 2, 3, 1).index_select(0, indices.to(images.device)).permute(0, 3, 1, 2)
    bounds.relieve()
    return found


def portions(pool: Pool, indices: Tensor, device: torch.device, size: int | None = None) -> tuple[Tensor, ...]:
    """Indices (n,) as they go through a network together where none learns; `size` of them, or what is fastest."""
    size = size or max(1, min(1024, VALUES[device.type] // max(1, pool.images[:1].numel())))
    return indices.split(size) if len(indices) else ()


def normal(images: Tensor) -> Tensor:
    """uint8 (b c h w), 0..255, as the loops see them: float32 in [-1, 1], channels last in memory."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1)


def uint8(x: Tensor) -> Tensor:
    """Float images in [-1, 1] (b c h w), clamped, as uint8 0..255: the way back from `normal`."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def integers(values: Any, what: str) -> Tensor:
    """A list, an array or a tensor of integers (n,) as int64 on the CPU: a copy, nobody else's."""
    try:
        numbers = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(_array(values))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{what} integers (n,), not {type(values).__name__}") from error
    if numbers.ndim != 1 or numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise ValueError(f"{what} integers (n,), not {numbers.dtype} {tuple(numbers.shape)}")
    return numbers.to(torch.int64, copy=True)


def _array(values: Any) -> NDArray[Any]:
    """A copy in order; numpy takes an empty list for floats, and torch knows no large unsigned integers."""
    array = np.array(values)
    return array.astype(np.int64) if array.dtype.kind in "iu" or not array.size else array


def _outside(values: Tensor, least: int, most: int) -> list[int]:
    """The values that are not in [least, most)."""
    strange: list[int] = values[(values < least) | (values >= most)].tolist()
    return strange


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images are a tensor, not {type(images).__name__}; for an array, torch.from_numpy(images)")
    if images.dtype != torch.uint8:
        remedy = "if they are in 0..255: x.to(torch.uint8)"
        if images.dtype == torch.bool:
            remedy = "x.to(torch.uint8) * 255"
        elif images.is_floating_point():
            remedy = "for floats in [0, 1]: (x * 255).round().to(torch.uint8)"
        raise TypeError(f"images are uint8 in 0..255, not {images.dtype}; {remedy}")
    if images.ndim != 4:
        raise ValueError(f"images are (n c h w), not {tuple(images.shape)}")
    if 0 in images.shape[1:]:
        raise ValueError(f"images of shape {tuple(images.shape)} (n c h w) have no pixels; give each axis its length")
    if (c := images.shape[3]) <= 4 < images.shape[1]:
        alpha = f", without alpha x[..., :{c - 1}].permute(0, 3, 1, 2)" * (c in (2, 4))
        raise ValueError(f"images of shape {tuple(images.shape)} look like (n h w c); x.permute(0, 3, 1, 2){alpha}")
