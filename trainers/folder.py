"""A folder of image files, decoded once: a pool's images, mapped from a cache."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainers import bounds
from trainers.cache import cache_dir, making
from trainers.image import Read, Unreadable, read
from trainers.numbers import whole

SUFFIXES, BESIDE = (  # how the names of images end, and those of what lies beside images and is none
    tuple(endings.split())
    for endings in (
        ".jpg .jpeg .jpe .jfif .jp2 .png .bmp .webp .avif .gif .tif .tiff .tga .pbm .pgm .ppm .pnm",
        ".csv .tsv .txt .md .rst .json .jsonl .xml .yaml .yml .toml .ini .cfg .log .html .htm .pdf .xlsx .db .zip .gz "
        ".py .sh .ipynb .xmp .aae .url readme license",
    )
)
USUAL = 32  # pixels of a side, where errors give an example
FORMAT = 2  # of what lies in the cache: another number, another key
HEADER = 128  # bytes of an .npy header
SMALL = 4096  # bytes of a mean file under which threads only wait for one another

A = TypeVar("A")
B = TypeVar("B")

logger = logging.getLogger("alzoo")


@dataclass(frozen=True, eq=False)
class Decoded:
    """The images of a folder.

    images: uint8 (n c h w), c = 1 where all are grey and 3 otherwise; a view of (n h w c) mapped from the cache.
        Writing to it changes memory only, never a file.
    paths: (n,) where each comes from: relative to the folder, with forward slashes, sorted.
    left_out: "path: reason" for each image file that cannot be read.
    deep: how many images have 16 bits, and the brightest value of them all.
    """

    images: Tensor
    paths: tuple[str, ...]
    left_out: tuple[str, ...]
    deep: tuple[int, int]


class File(NamedTuple):
    """An image file, as the cache knows it; bytes is -1 where a link leads nowhere."""

    path: str
    bytes: int
    mtime_ns: int
    ctime_ns: int  # a file that is put in another's place may have the other's size and mtime


def decode(
    path: str | PathLike[str],
    size: int | tuple[int, int] | None,
    files: Sequence[Path] | None = None,
    memory: int | None = None,
) -> Decoded:
    """Every image below a folder, as one tensor; decoded on the first call, mapped from the cache on the next.

    path: the folder, which is only read. Its files ending in SUFFIXES (in any case) are taken from every depth,
        through links too; what begins with a dot is skipped.
    size: pixels (height, width), or one number for both: other images are scaled to cover it and cut to its centre
        (PIL's ImageOps.fit, bicubic). None: all images have the size of the first.
    files: only these, absolute or relative to the folder; by default all.
    memory: the bytes that this process may hold: then one image is decoded at a time, and pages that have been read
        are given back, and with them goes whatever has been written to the images.
    Images are turned as their EXIF orientation says; transparency is dropped; of several frames the first counts.
    16-bit grey goes from 0..65535 to 0..255; grey with other ranges (32 bits, floats) cannot be read.
    What cannot be read is left out, with a warning to the logger "alzoo" on every call. There is one, too, where all
    16-bit images are so dark that they may hold fewer bits.
    Raises FileNotFoundError, NotADirectoryError for the path, PermissionError for what may not be read; ValueError
    where no image is left, where sizes differ and `size` is None, or where `memory` has no room to decode an image;
    OSError where the cache cannot be written.
    """
    folder = checked(path)
    target = None if size is None else height_width(size)
    listing = list_images(folder) if files is None else _listed(folder, files)
    if not listing:
        raise ValueError(f"no images in {folder}: there is no file ending in {' '.join(SUFFIXES)} below it")
    place = cache_dir() / "decoded" / _key(folder, listing, target)
    decoded = _load(place, memory) if _whole(place) else None
    while decoded is None:  # again if another process replaces the entry between making and loading
        with making(place, _whole) as draft:
            _build(draft, folder, listing, target, memory)
        decoded = _load(place, memory)
    if decoded.left_out:
        logger.warning(
            "%d of %d images in %s cannot be read and are left out: %s",
            len(decoded.left_out),
            len(listing),
            folder,
            _first(decoded.left_out),
        )
    if decoded.deep[0] and decoded.deep[1] < 2**13:
        logger.warning(
            "the %d images of 16 bits in %s reach %d of 65535 at most, and are dark as such: if they hold 12 bits, "
            "save them again with all values times 16",
            decoded.deep[0],
            folder,
            decoded.deep[1],
        )
    return decoded


@contextmanager
def permitted() -> Iterator[None]:
    """Says of what may not be read which it is, and what to do."""
    try:
        yield
    except PermissionError as error:
        if error.filename is None:
            raise
        raise PermissionError(
            f"{error.filename} may not be read by this user: allow it (chmod u+rX), or take it out of there"
        ) from error


@permitted()
def list_images(folder: Path) -> list[File]:
    """The image files below a folder, sorted by path, whatever order the file system has them in.

    Other files are named in a warning, unless they are hidden or end in BESIDE.
    """
    found, others = list[File](), list[str]()
    for entry, name in _walk(os.fspath(folder), "", frozenset()):
        if name.lower().endswith(SUFFIXES):
            found.append(_file(entry, name))
        elif not name.lower().endswith(BESIDE):
            others.append(name)
    if others:
        logger.warning(
            "%d of the files in %s are not taken for images: %s. The names of images end in %s",
            len(others),
            folder,
            _first(sorted(others)),
            " ".join(SUFFIXES),
        )
    return sorted(found)


@permitted()
def checked(path: str | PathLike[str]) -> Path:
    """The folder at a path, absolute and without links.

    Raises FileNotFoundError or NotADirectoryError if it is none, ValueError for a name that is not UTF-8.
    """
    folder = Path(os.path.expanduser(path))  # as it is for a user whom nobody knows
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; give a folder of images")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give the folder of the images")
    return in_utf8(folder.resolve())


def in_utf8(path: Path) -> Path:
    """A path whose name can be written into a report; ValueError if not."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {os.fsencode(path)!r} is not UTF-8; rename it") from error
    return path


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Both numbers of a size; ValueError if they are not whole and positive."""
    both = size if isinstance(size, tuple | list) else (size, size)
    try:
        h, w = (whole("size", side) for side in both)
    except ValueError as error:
        raise ValueError(f"size {size!r} is no size; give pixels, a whole number or (height, width)") from error
    if min(h, w) < 1:
        raise ValueError(f"size {size} is not positive; give pixels, a number or (height, width)")
    return h, w


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Files below, and their paths, links followed, save for a link to a folder `above` itself."""
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {(here.st_dev, here.st_ino)})
            else:
                yield entry, prefix + entry.name


def _file(entry: os.DirEntry[str] | Path, name: str) -> File:
    try:
        stat = entry.stat()
    except OSError:
        return File(name, -1, 0, 0)
    return File(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _listed(folder: Path, files: Sequence[Path]) -> list[File]:
    """The given files, as `list_images` would have them."""
    for file in files:
        if not os.path.lexists(folder / file) or (folder / file).is_dir():  # a link that leads nowhere is left out
            raise FileNotFoundError(f"{folder / file} is not a file; give images below {folder}")
    inside = {(folder / file).relative_to(folder).as_posix(): folder / file for file in files}
    return sorted(_file(file, name) for name, file in inside.items())


def _key(folder: Path, listing: list[File], size: tuple[int, int] | None) -> str:
    """A name for the cache entry: other files, times or sizes, and another limit of Pillow's, give another name."""
    from PIL import Image

    whole = repr((FORMAT, Image.MAX_IMAGE_PIXELS, os.fspath(folder), size, [tuple(file) for file in listing]))
    return blake2b(whole.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def _meta(place: Path) -> dict[str, Any] | None:
    """What an entry of the cache says of itself; None if there is none, or not all of it."""
    try:
        meta: dict[str, Any] = json.loads((place / "meta.json").read_text("utf-8"))
        n, h, w, c = meta["shape"]
        whole = (place / "images.npy").stat().st_size == HEADER + n * h * w * c and len(meta["paths"]) == n
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return meta if whole else None


def _whole(place: Path) -> bool:
    """Whether an entry of the cache can be used again: not after trouble with the disk, which may be over now."""
    meta = _meta(place)
    return meta is not None and not meta["trouble"]


def _load(place: Path, memory: int | None) -> Decoded | None:
    """An entry of the cache, or None if it is gone."""
    meta = _meta(place)
    if meta is None:
        return None
    try:
        if memory is None:
            images = torch.from_numpy(np.load(place / "images.npy", mmap_mode="c"))
        else:
            images = bounds.mapped(place / "images.npy", tuple(meta["shape"]), HEADER, memory)
    except FileNotFoundError:
        return None
    n, peak = meta["deep"]
    return Decoded(images.permute(0, 3, 1, 2), tuple(meta["paths"]), tuple(meta["left_out"]), (n, peak))


def _build(draft: Path, folder: Path, listing: list[File], size: tuple[int, int] | None, memory: int | None) -> None:
    """Decodes a listing into images.npy and meta.json. The pixels are appended: a full disk is an error, not a hole."""
    paths, left_out, peaks, trouble, shape = list[str](), list[str](), list[int](), False, size
    file, colour = _new(draft / "grey.npy"), False
    try:
        for name, found in _images(folder, listing, size, memory):
            if isinstance(found, Unreadable):
                left_out.append(f"{name}: {found.reason}")
                trouble |= found.trouble
                continue
            image = found.pixels
            peaks += found.peak
            shape = shape or image.shape[:2]
            if image.shape[:2] != shape:
                raise ValueError(_sizes_differ(folder, (paths[0], shape), (name, image.shape[:2])))
            if image.ndim == 3 and not colour:
                file, colour = _coloured(file, draft), True
            file.write((image if image.ndim == 3 or not colour else np.repeat(image, 3)).data)
            paths.append(name)
        if shape is None or not paths:
            raise ValueError(f"no images in {folder}: none of {len(left_out)} can be read: {_first(left_out)}")
        full = (len(paths), *shape, 3 if colour else 1)
        file.seek(0)
        file.write(_header(full))
        file.flush()
        os.fsync(file.fileno())
    finally:
        file.close()
    if not colour:
        (draft / "grey.npy").rename(draft / "images.npy")
    deep = len(peaks), max(peaks, default=0)
    meta = {"shape": full, "paths": paths, "left_out": left_out, "trouble": trouble, "deep": deep}
    (draft / "meta.json").write_text(json.dumps(meta), "utf-8")


def _new(path: Path) -> BinaryIO:
    """An .npy file to append pixels to; its header is written last, when their number is known."""
    file = path.open("w+b", buffering=1 << 20)
    file.write(bytes(HEADER))
    return file


def _header(shape: tuple[int, ...]) -> bytes:
    """An .npy header, version 1.0, of HEADER bytes."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def _coloured(grey: BinaryIO, draft: Path) -> BinaryIO:
    """What was grey so far, in three equal channels, to append to; called at the first image in colour."""
    wide = _new(draft / "images.npy")
    grey.seek(HEADER)
    while block := grey.read(1 << 20):
        wide.write(np.repeat(np.frombuffer(block, np.uint8), 3).data)
    grey.close()
    (draft / "grey.npy").unlink()
    return wide


def _images(
    folder: Path, listing: list[File], size: tuple[int, int] | None, memory: int | None
) -> Iterator[tuple[str, Read | Unreadable]]:
    """Each file's image, in order, decoded by threads a few blocks ahead; one at a time where memory is bounded."""

    def block_of(files: list[File]) -> list[tuple[str, Read | Unreadable]]:
        return [(file.path, _image(folder, file, size, memory)) for file in files]

    small = sum(file.bytes for file in listing) < SMALL * len(listing)
    threads = 1 if small or memory is not None else os.cpu_count() or 1
    blocks = _blocks(listing) if memory is None else ([file] for file in listing)
    with _progress(folder, len(listing)) as advance:
        for block in _in_order(block_of, blocks, threads):
            yield from block
            advance(len(block))


def _in_order(work: Callable[[A], B], parts: Iterable[A], threads: int) -> Iterator[B]:
    """`map`, by threads that are only a few parts ahead, so that memory is bounded."""
    if threads == 1:
        yield from map(work, parts)
        return
    ahead = deque[Future[B]]()
    with ThreadPoolExecutor(threads) as pool:
        for part in parts:
            ahead.append(pool.submit(work, part))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _blocks(listing: list[File]) -> Iterator[list[File]]:
    """The listing in parts of at most 128 files or about 4 MB."""
    block, total = list[File](), 0
    for file in listing:
        block.append(file)
        total += file.bytes
        if len(block) == 128 or total > 4_000_000:
            yield block
            block, total = [], 0
    if block:
        yield block


def _image(folder: Path, file: File, size: tuple[int, int] | None, memory: int | None) -> Read | Unreadable:
    """One file's pixels."""
    if file.bytes < 1:
        return Unreadable("the file is empty" if not file.bytes else "a link that leads nowhere", False)
    return read(os.path.join(folder, file.path), size, memory)  # a string: tens of thousands of Paths take seconds


@contextmanager
def _progress(folder: Path, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, on stderr; nothing anywhere else."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"decoding {folder.name}", total=total)
        yield lambda n: bar.advance(task, n)


def _sizes_differ(folder: Path, one: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> str:
    (a, (h, w)), (b, (hh, ww)) = one, other
    return (
        f"the images in {folder} have different sizes: {a} is {h}x{w} and {b} is {hh}x{ww} (height x width). "
        f"Give one for all, size={USUAL} or (height, width), for example; on the command line --size {USUAL}"
    )


def _first(lines: Sequence[str], most: int = 3) -> str:
    return "; ".join(lines[:most]) + f"; and {len(lines) - most} more" * (len(lines) > most)
