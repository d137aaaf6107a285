"""Random numbers by purpose: every use has a seed of its own, so no use disturbs another."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from operator import index

import torch


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """A seed of its own for each part of what a learner does; three equal ones are that one number.

    networks: how they begin. queries: what a query draws. batches: everything else, which is all that training draws.
    """

    networks: int
    batches: int
    queries: int

    def of(self, use: str | int) -> int:
        """The seed for a use."""
        return self.networks if use == "build" else self.queries if use in ("query", "diagnose") else self.batches


Seed = int | Seeds


def key(seed: Seed, *use: str | int) -> int:
    """A number in [0, 2^63) that depends on the seed and on what it is for, and on nothing else."""
    seed = seed.of(use[0]) if isinstance(seed, Seeds) else seed
    parts = tuple(part if isinstance(part, str) else index(part) for part in (seed, *use))
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: Seed, *use: str | int) -> torch.Generator:
    """A generator on the CPU, for one use."""
    return torch.Generator().manual_seed(key(seed, *use))


def reseed(device: torch.device, seed: Seed, *use: str | int) -> None:
    """Start torch's global random numbers anew, on the CPU and on `device`. (torch.manual_seed takes 0.1 ms.)"""
    torch.default_generator.manual_seed(key(seed, *use))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(key(seed, *use))


@contextmanager
def seeded(device: torch.device, seed: Seed, *use: str | int) -> Iterator[None]:
    """torch's global random numbers from a seed for one use inside; the caller's own, untouched, outside.

    Python's, too: some libraries draw from them when they are first imported.
    """
    before = random.getstate()
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        reseed(device, seed, *use)
        try:
            yield
        finally:
            random.setstate(before)
