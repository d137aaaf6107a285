"""Weights by name and where they lie. Nothing here needs torch."""

from fnmatch import fnmatchcase
from pathlib import Path

import checkpoints
from trainers.cache import cache_dir
from zoo.naming import UnknownName, hint, pick


def weights(pattern: str = "*") -> list[checkpoints.Weights]:
    """The sets of weights there are, by shell pattern of their `entry.tag` names: "vaal.*"."""
    return [weights for weights in checkpoints.table() if fnmatchcase(weights.name, pattern)]


def matching(patterns: tuple[str, ...]) -> list[checkpoints.Weights]:
    """The weights that match any of some patterns. Raises UnknownName for a pattern that none matches."""
    found = {}
    for pattern in patterns or ("*",):
        if patterns and not weights(pattern):
            raise UnknownName(f"no weights are called {pattern!r}.{hint(pattern, [w.name for w in weights()])}")
        found.update({w.name: w for w in weights(pattern)})
    return list(found.values())


def one(name: str) -> checkpoints.Weights:
    """The weights of that name. Raises UnknownName."""
    return pick({w.name: w for w in weights()}, name, "set of weights")


def weights_dir() -> Path:
    """Where downloaded weights lie: below $ALZOO_HOME, or the user's cache folder."""
    return cache_dir() / "weights"


def fetched(weights: checkpoints.Weights) -> Path:
    """The file of these weights, downloaded if it is not on this machine. Raises as `checkpoints.fetch` does."""
    return checkpoints.fetch(weights, weights_dir())


def here(weights: checkpoints.Weights) -> Path | None:
    """The file of these weights if it is on this machine. Raises ValueError if it is damaged."""
    if (kept := weights_dir() / weights.file).exists() and checkpoints.find(weights, weights_dir()) != kept:
        raise ValueError(f"{kept} is damaged: its sha256 is not {weights.sha256}. Remove it")
    return checkpoints.find(weights, weights_dir())
