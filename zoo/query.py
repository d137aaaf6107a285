"""A query: how to ask, given what a fitted learner sees."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature

from zoo.scan import Asked


@dataclass(frozen=True)
class Query:
    """A way to ask.

    ask: (scan, n, **settings) -> Asked. What it does is its docstring.
    paper: where it comes from.
    cost: time, in u unlabeled images, l labeled ones, k classes, d features and n asked.
    needs: what the learner must have: names of parts, "dropout", "members" or "pretext".
    randomised: whether it draws lots. approximate: whether it only comes close to what the paper defines.
    cold: whether it can ask before anything is labeled.
    """

    name: str
    ask: Callable[..., Asked]
    paper: str
    cost: str = "u k"
    needs: tuple[str, ...] = ()
    randomised: bool = False
    approximate: bool = False
    cold: bool = False

    @property
    def settings(self) -> dict[str, object]:
        """The keyword arguments of `ask`, with their defaults."""
        parameters = signature(self.ask).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
