"""Weights by name: what the manifest lists, and what is in a file."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).parent
ABOUT: Mapping[str, type] = {  # what a table of the manifest may tell, beside where the file is
    "data": str,
    "shape": list,  # (c h w) of one image
    "classes": int,
    "labels": int,
    "unlabeled": int,
    "plan": str,
    "seed": int,
    "accuracy": float,  # of this very file
    "n": int,  # on so many test images
    "steps": int,
    "device": str,
    "minutes": float,
    "commit": str,
    "licence": str,  # of the data
    "half": bool,  # the numbers are written in half precision
}
CARD: Mapping[str, type | tuple[type, ...]] = {  # what a file says of itself at least
    "format": int,
    "name": str,
    "shape": list,  # (c h w) of one image
    "classes": int,
    "plan": str,
    "settings": dict,
    "augment": str,
    "query": str,
    "query_settings": dict,
    "training": str,
    "seed": (int, dict),
    "freeze": list,
    "precision": str,
}


@dataclass(frozen=True)
class File:
    """A file as it must be. file: its name, in any folder and below any base URL."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Weights:
    """One table of the manifest.

    name: `entry.tag`. file, sha256, bytes: its file. about: the rest of the table. pieces: files that are `file` once
    joined, where it is too large for one. url: where `file` and its pieces can be downloaded, as a folder.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    about: Mapping[str, Any]
    pieces: tuple[File, ...] = ()
    url: str | None = None


def table(manifest: Path = HERE / "manifest.toml") -> list[Weights]:
    """All weights of the manifest, sorted by name. Raises ValueError for a table that is not as it should be."""
    lines = tomllib.loads(manifest.read_text())
    base = lines.pop("url", None)
    return sorted(
        (row(f"{entry}.{tag}", line, base) for entry, tags in lines.items() for tag, line in tags.items()),
        key=lambda weights: weights.name,
    )


def row(name: str, line: Mapping[str, Any], base: str | None = None) -> Weights:
    """One table of the manifest, checked. base: the folder of files that name none. Raises ValueError."""
    kinds = {**ABOUT, "file": str, "sha256": str, "bytes": int, "pieces": list, "url": str}
    for key, value in line.items():
        if (kind := kinds.get(key)) is None:
            raise ValueError(f"{name} in the manifest has a field {key!r}. There are: {', '.join(kinds)}")
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise ValueError(f"{name} in the manifest has {key}={value!r}; it must be of type {kind.__name__}")
    about = {key: value for key, value in line.items() if key in ABOUT}
    pieces = tuple(File(**_file(name, piece)) for piece in line.get("pieces", ()))
    whole = _file(name, line)
    if pieces and sum(piece.bytes for piece in pieces) != whole["bytes"]:
        raise ValueError(f"{name} in the manifest has pieces of other bytes in all than its bytes={whole['bytes']}")
    return Weights(name, **whole, about=about, pieces=pieces, url=line.get("url", base))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the tensors of a safetensors file that alzoo wrote. No code of the file is run.

    Raises FileNotFoundError, and ValueError for a file that is torn or not alzoo's.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    if "alzoo" not in header:
        raise ValueError(f"{path} has no alzoo card in its header; it was not written by learner.save")
    try:
        card: dict[str, Any] = json.loads(header["alzoo"])
        (_, _, _), strange = card["shape"], [key for key, kind in CARD.items() if not isinstance(card[key], kind)]
        if strange:
            raise ValueError(f"{strange[0]}={card[strange[0]]!r}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a card that cannot be read ({error!r}); it was not written by alzoo") from error
    return card, weights


def write(path: Path, card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """A safetensors file with its card in the header: whole or not at all."""
    from safetensors.torch import save

    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(save(dict(weights), metadata={"alzoo": json.dumps(card)}))
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _file(name: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a File of a table. A name with a path in it could lead out of the folder: refused."""
    file, sha256, size = (dict(line).get(key) for key in ("file", "sha256", "bytes"))
    if not isinstance(file, str) or not re.fullmatch(r"(?a)\w[\w.+-]*", file):
        raise ValueError(f"{name} in the manifest has file={file!r}; it must be the plain name of a file")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{name} in the manifest has sha256={sha256!r}; it must be 64 hexadecimal digits")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name} in the manifest has bytes={size!r}; it must be a whole number above 0")
    return {"file": file, "sha256": sha256, "bytes": size}
