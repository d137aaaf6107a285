"""Active learners by name: `zoo.create(name, ...)`, then `fit` and `select`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.pool import Pool
    from trainers.run import Diverged
    from zoo.catalogue import create, load
    from zoo.datasets import Test, data
    from zoo.entry import Entry, Preset
    from zoo.judging import judge
    from zoo.learner import Learner
    from zoo.naming import UnknownName
    from zoo.query import Query
    from zoo.register import names
    from zoo.scan import Asked, Scan, top
    from zoo.selection import Selection
    from zoo.trained import weights

__version__ = "0.1.0"

# Where each name lives. They are imported when first used, so that the command line's help need not wait for torch.
_HOMES = {
    "Asked": "zoo.scan",
    "Diverged": "trainers.run",
    "Entry": "zoo.entry",
    "Learner": "zoo.learner",
    "Pool": "trainers.pool",
    "Preset": "zoo.entry",
    "Query": "zoo.query",
    "Scan": "zoo.scan",
    "Selection": "zoo.selection",
    "Test": "zoo.datasets",
    "UnknownName": "zoo.naming",
    "create": "zoo.catalogue",
    "data": "zoo.datasets",
    "judge": "zoo.judging",
    "load": "zoo.catalogue",
    "names": "zoo.register",
    "top": "zoo.scan",
    "weights": "zoo.trained",
}

__all__ = [
    "Asked",
    "Diverged",
    "Entry",
    "Learner",
    "Pool",
    "Preset",
    "Query",
    "Scan",
    "Selection",
    "Test",
    "UnknownName",
    "create",
    "data",
    "judge",
    "load",
    "names",
    "top",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
