"""A bound on what a process holds: images and features lie on files, and pages that have been read are given back.

A page of a mapped file counts as held from when it is first looked at. Left alone, a process that goes over a pool
once holds all of it; told to, the system takes the pages back, and reads them again where they are wanted again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from math import prod
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from tempfile import TemporaryFile
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

WINDOW = 64 * 2**20  # bytes that lie in memory all the same: of pages before they are given back, or of features
BLOCK = 4096  # images that are copied at once
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
VARIABLE = "ALZOO_MEMORY"
UNITS = {"b": 1, "": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for unit, base in (("ib", 1024), ("b", 1000))
}

_maps: WeakKeyDictionary[mmap, int] = WeakKeyDictionary()  # mapped files, and the bound of the process that reads them
_settled = 0  # bytes of file pages that were left when pages were last given back: the libraries'


def parse(memory: str | int) -> int:
    """A size in bytes: a number, or as 2GiB, 512MiB, 1.5GB.

    Raises ValueError for anything else, and where this system does not say what a process holds.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", str(memory).strip().lower())
    if found is None or found[2] not in UNITS or not (size := int(float(found[1]) * UNITS[found[2]])):
        raise ValueError(f"memory={memory!r} is no size; give 2GiB or 512MiB, for example")
    if not STATUS.exists():
        raise ValueError(f"memory={memory!r} is kept on Linux only: this system does not say what a process holds")
    return size


def said(size: int) -> str:
    """A size in words."""
    return f"{size / 2**30:.2f} GiB"


def held() -> int:
    """Bytes that this process holds now, without the pages that it can give back."""
    give_back()
    return _status("VmRSS")[0]


def bound(memory: str | int | None) -> int | None:
    """How many bytes this process is to hold at most from now on, by `parse`; by default by $ALZOO_MEMORY, or None.

    What it has held before is forgotten, where the system allows it. Raises ValueError where it holds more already.
    """
    if memory is None and not (memory := os.environ.get(VARIABLE)):
        return None
    limit = parse(memory)
    if (now := held()) > limit:
        raise ValueError(f"this process holds {said(now)} already, more than memory={said(limit)}. Give it more")
    with suppress(OSError):
        FORGET.write_text("5")
    return limit


def mapped(path: Path, shape: tuple[int, ...], offset: int, limit: int) -> Tensor:
    """uint8 of this shape, mapped from a file. Who writes to it changes no file, and finds it undone later."""
    with path.open("rb") as file:
        pages = mmap(file.fileno(), 0, access=ACCESS_COPY)
    return _tensor(pages, shape, np.uint8, offset, limit)


def scratch(shape: tuple[int, ...], limit: int, kind: type = np.float32) -> Tensor:
    """A tensor of this shape on a file without a name in the folder for temporary files, gone when it is.

    Raises OSError where the disk has no room for it.
    """
    size = max(1, prod(shape) * np.dtype(kind).itemsize)
    with TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            reason = f"no room for {said(size)} of what does not fit into memory={said(limit)}: {error.strerror}"
            raise OSError(error.errno, f"{reason}. Set TMPDIR to a folder on a larger disk") from error
        pages = mmap(file.fileno(), size)
    return _tensor(pages, shape, kind, 0, limit)


def copied(images: Tensor, indices: Tensor, limit: int) -> Tensor:
    """`images[indices]` (n c h w) on a file, uint8."""
    _, c, h, w = images.shape
    out = scratch((len(indices), h, w, c), limit, np.uint8).permute(0, 3, 1, 2)
    for at in range(0, len(indices), BLOCK):
        out[at : at + BLOCK] = images[indices[at : at + BLOCK]]
        relieve()
    return out


def gathered(parts: Iterator[Tensor], n: int, limit: int) -> Tensor:
    """`torch.cat` of float32 parts (b ...) that make n rows, never held twice; if it is large, on a file."""
    first = next(parts)
    shape = (n, *first.shape[1:])
    out = scratch(shape, limit) if 4 * prod(shape) > WINDOW else first.new_empty(shape)
    at = 0
    for part in chain([first], parts):
        out[at : at + len(part)] = part.detach()
        at += len(part)
        relieve()
    return out


def relieve() -> None:
    """Called after each look at images or features: where much of mapped files has been read, it is given back.

    Raises ValueError where this process has held more than its bound.
    """
    if not _maps:
        return
    limit = min(_maps.values())
    most, *files = _status("VmHWM", "RssFile", "RssShmem")
    if most > limit:
        raise ValueError(
            f"this process has held {said(most)}, more than memory={said(limit)}: its networks and their batches, "
            "the test images or the names of a folder's files take that much. Give it more memory, or less of these"
        )
    if sum(files) > _settled + WINDOW:
        give_back()


def give_back() -> None:
    """The system may have all pages of mapped files: what was in them is in the files."""
    global _settled  # noqa: PLW0603 (what a process holds is one number)
    from mmap import MADV_DONTNEED

    for pages in list(_maps):
        pages.madvise(MADV_DONTNEED)
    _settled = sum(_status("RssFile", "RssShmem"))


def _tensor(pages: mmap, shape: tuple[int, ...], kind: type, offset: int, limit: int) -> Tensor:
    _maps[pages] = limit
    return torch.from_numpy(np.frombuffer(pages, kind, prod(shape), offset).reshape(shape))


def _status(*names: str) -> list[int]:
    """What the system says of this process, in bytes, by the system's own names for it."""
    text = STATUS.read_text()
    return [1024 * int(text.partition(f"{name}:")[2].split(maxsplit=1)[0]) for name in names]
