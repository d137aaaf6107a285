"""A query: how to ask, given what a fitted learner sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any

import torch

from zoo.scan import Asked, Scan

SHUFFLED = "~shuffled"  # after a name: the same scores, for other images


@dataclass(frozen=True)
class Query:
    """A way to ask.

    ask: (scan, n, **settings) -> Asked. What it does is its docstring.
    paper: where it comes from.
    cost: time, in u unlabeled images, l labeled ones, k classes, d features and n asked.
    needs: what the learner must have: names of parts ("members" for an ensemble), "dropout" in its trunk or head,
        "draws", one of these two, or "pretext", an entry that learns from images alone.
    nets: options of the networks that it takes with it where it stands on plain training alone.
    randomised: whether it draws lots. approximate: whether it only comes close to what the paper defines.
    cold: whether it can ask before anything is labeled.
    ranges: where numbers among the arguments of `ask` make sense, as {"draws": "[1, inf)"}, and which words do, as
        {"features": ("task", "pixels")}; others are refused.

    A query that compares all pairs of images has a setting `largest`: of more unlabeled ones, it refuses to be asked.
    """

    name: str
    ask: Callable[..., Asked]
    paper: str
    cost: str = "u k"
    needs: tuple[str, ...] = ()
    nets: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    randomised: bool = False
    approximate: bool = False
    cold: bool = False
    ranges: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `ask` after the scan and n, with their defaults."""
        return options(self.ask)


def inside(value: Any, interval: str | tuple[str, ...]) -> bool:
    """Whether a number is in an interval, as "[0, 1)", or a word among those."""
    if isinstance(interval, tuple):
        return value in interval
    low, high = map(float, interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    below = value <= high if interval[-1] == "]" else value < high
    return bool(above and below)


def shuffled(query: Query) -> Query:
    """The control of a query: its very scores, but each for an image drawn at random among the unlabeled.

    Whatever this one gains over random questions, the scores have not brought about.
    """

    @wraps(query.ask)
    def ask(scan: Scan, n: int, **settings: Any) -> Asked:
        answer = query.ask(scan, n, **settings)
        if answer.images is not None:
            raise ValueError(f"the query {query.name!r} makes the images it asks for: there is nothing to shuffle")
        order = torch.randperm(len(scan.pool.unlabeled), generator=scan.generator("shuffled"))
        return replace(answer, positions=order[:n], detail={})

    return replace(query, name=f"{query.name}{SHUFFLED}", ask=ask, randomised=True)


def options(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function after its first two, with their defaults (None where there is none)."""
    parameters = list(signature(function).parameters.values())[2:]
    named = [p for p in parameters if p.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    return {p.name: None if p.default is Parameter.empty else p.default for p in named}


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a function takes arguments of any name."""
    return any(p.kind is Parameter.VAR_KEYWORD for p in signature(function).parameters.values())
