"""One image file as pixels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers import bounds

if TYPE_CHECKING:
    from PIL import Image


class Unreadable(NamedTuple):
    """Why an image cannot be read; trouble: the fault is the machine's, not the file's."""

    reason: str
    trouble: bool


class Read(NamedTuple):
    """An image's pixels, uint8 (h w) if it is grey, (h w 3) if not; peak: the brightest value if it has 16 bits."""

    pixels: NDArray[np.uint8]
    peak: list[int]


class TooLarge(ValueError):
    """An image that `memory` has no room to decode."""


def read(path: str, size: tuple[int, int] | None, memory: int | None) -> Read | Unreadable:
    """The image in a file, scaled to cover `size` and cut to its centre. Raises TooLarge, MemoryError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if memory is not None:
                _fits(image, path, memory)
            ImageOps.exif_transpose(image, in_place=True)
            plain = _plain(image)
            if size is not None and plain.size != (size[1], size[0]):
                plain = ImageOps.fit(plain, (size[1], size[0]))
            peak = [int(np.asarray(image).max())] if image.mode.startswith("I") else []
            return Read(np.asarray(plain), peak)
    except (MemoryError, TooLarge):
        raise
    except Image.DecompressionBombError as error:
        return Unreadable(f"{error} Scale it down first, or raise PIL.Image.MAX_IMAGE_PIXELS", False)
    except Exception as error:  # a decoder that is fed rubbish may raise anything
        reason = " ".join(str(error).split()).replace(path, os.path.basename(path))
        return Unreadable(reason or type(error).__name__, isinstance(error, OSError) and error.errno is not None)


def _fits(image: Image.Image, path: str, memory: int) -> None:
    """Raises TooLarge where an image, and what is made of it, do not fit beside what this process holds."""
    need = image.width * image.height * (3 if image.mode == "L" else 10)  # bytes at the worst: turned and converted
    if (now := bounds.held()) + need > memory:
        raise TooLarge(
            f"{path} has {image.height}x{image.width} pixels (height x width): decoding it takes {bounds.said(need)}, "
            f"and this process holds {bounds.said(now)} of memory={bounds.said(memory)}. Give it more, or scale it down"
        )


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L if it is grey, otherwise in mode RGB."""
    from PIL import Image

    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range nobody knows; save it with 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PNG", "PPM") and getattr(image, "tag_v2", {}).get(258) != (16,):
        raise ValueError("its pixels have 32 bits, whose range nobody knows; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its values reach {values.min()}..{values.max()}; save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
