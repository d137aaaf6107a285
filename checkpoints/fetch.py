"""Weights as files on this machine."""

from hashlib import file_digest
from pathlib import Path

from checkpoints.weights import HERE, Weights


def fetch(weights: Weights, directory: Path = HERE) -> Path:
    """The file of these weights, its hash verified.

    Raises FileNotFoundError where it is not on this machine, ValueError where its bytes are not those of the manifest.
    """
    path = directory / weights.file
    if not path.exists():
        raise FileNotFoundError(f"{weights.name} should lie at {path}, but does not; install alzoo with its weights")
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != weights.sha256:
        raise ValueError(f"{path} is damaged: its sha256 is {found}, not {weights.sha256}. Install alzoo anew")
    return path
