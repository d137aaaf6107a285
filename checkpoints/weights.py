"""Weights by name: what the manifest lists, and what is in a file."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Weights:
    """One line of the manifest. name: `entry.tag`. file: beside the manifest. about: the rest of its table."""

    name: str
    file: str
    sha256: str
    bytes: int
    about: Mapping[str, Any]


def table(manifest: Path = HERE / "manifest.toml") -> list[Weights]:
    """All weights of the manifest, sorted by name."""
    lines = tomllib.loads(manifest.read_text())
    return sorted(
        (
            Weights(name, line.pop("file"), line.pop("sha256"), line.pop("bytes"), line)
            for entry, tags in lines.items()
            for tag, line in tags.items()
            for name in [f"{entry}.{tag}"]
        ),
        key=lambda weights: weights.name,
    )


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
    card: dict[str, Any] = json.loads(header["alzoo"])
    return card, weights
