"""An entry: the networks of a method, the loop that trains them, and the query that asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from zoo.query import Query
from zoo.scan import Scan

Parts = nn.ModuleDict


@dataclass(frozen=True)
class Preset:
    """One set of settings: the loop's Plan, the networks' options, the augmentation, what the query is told, and parts
    that learn slower or faster."""

    loop: Any  # a frozen dataclass with at least `steps` and `batch`
    nets: Mapping[str, Any] = field(default_factory=dict)
    augment: str = "none"
    asks: Mapping[str, Any] = field(default_factory=dict)  # settings of the entry's own query
    lr_scale: Mapping[str, float] = field(default_factory=dict)  # as that of `zoo.create`


def always(plan: Any) -> bool:  # noqa: ARG001
    return True


def never(plan: Any) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True)
class Entry:
    """A method.

    build: (shape, classes, **nets) -> {part: Module}, always with `trunk` (b c h w -> b d) and `head` (b d -> b k),
        and these two first, so that they start alike in every entry.
    plans: settings by name. "ours" is the default; "paper" and "released" follow the paper and its authors' code.
    train: (run, pool, plan, **parts) -> None, the loop.
    query: what it asks.
    pretext: (run, pool, plan, **parts) -> the parts that `fit` begins with, trained on the images alone: nothing in
        this pool is labeled, and no round has been. What comes out is remembered for other fits on the same images.
    diagnose: (scan, held_out uint8 (n c h w)) -> numbers that tell whether its game works.
    doubt: these numbers -> a sentence for each that says it does not.
    told: settings of the loop that its own query is told as well.
    plainly: the loop's Plan -> whether trunk and head are trained as `plain` trains them, bit by bit.
    missing: plan -> why there is none.
    sample: (parts, n, labels int64 (n,) on the CPU or None, generator) -> made images in [-1, 1] (n c h w).
    rebuild: (parts, x in [-1, 1] (b c h w)) -> the same images as the parts see them (b c h w).
    """

    name: str
    paper: str
    build: Callable[..., dict[str, nn.Module]]
    plans: Mapping[str, Preset]
    train: Callable[..., None]
    query: Query
    pretext: Callable[..., Mapping[str, nn.Module]] | None = None
    diagnose: Callable[[Scan, Tensor], dict[str, float]] | None = None
    doubt: Callable[[Mapping[str, float]], list[str]] | None = None
    sample: Callable[..., Tensor] | None = None
    rebuild: Callable[[Parts, Tensor], Tensor] | None = None
    told: tuple[str, ...] = ()
    plainly: Callable[[Any], bool] = never
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
