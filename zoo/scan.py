"""What a fitted learner sees when it looks over the pool."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from trainers.pool import Pool, normal
from trainers.seeds import generator

VALUES = 2**22  # pixels and channels that go through a network at once


@dataclass(frozen=True, eq=False)
class Asked:
    """The answer of a query.

    positions: int64 (n,), distinct, into the u unlabeled images of the scan, the first to be asked first.
    scores: float (n,), non-increasing. detail: raw quantities (n,) under their paper names.
    """

    positions: Tensor
    scores: Tensor
    detail: dict[str, Tensor] = field(default_factory=dict)


class Scan:
    """The unlabeled images through a learner's eyes: evaluation mode, no augmentation, no gradient.

    Every view is computed once, when first asked for, and nothing is changed by looking.
    u unlabeled images, l labeled ones, k classes, d features; float32, on the learner's device.
    """

    def __init__(self, pool: Pool, parts: nn.ModuleDict, *, seed: int = 0, precision: str = "32-true") -> None:
        self.pool = pool
        self.parts = parts
        self.seed = seed
        self.device = next(parts.parameters()).device
        self.precision = precision

    def each(
        self,
        view: Callable[[Tensor], Tensor],
        of: Tensor | None = None,
        size: int | None = None,
        gradient: bool = False,
    ) -> Tensor:
        """`view` of every unlabeled image, batch by batch: (u ...).

        view: float32 images in [-1, 1] (b c h w) -> (b ...). of: other indices into the pool. size: of a batch.
        gradient: whether the view may ask for gradients.
        """
        of = self.pool.unlabeled if of is None else of
        size = size or max(1, min(1024, VALUES // max(1, self.pool.images[:1].numel())))
        half, low = self.precision == "bf16-mixed", (self.device.type, torch.bfloat16)
        with evaluating(self.parts), torch.set_grad_enabled(gradient), torch.autocast(*low, enabled=half):
            if not len(of):  # one black image tells the shape
                return view(torch.zeros(1, *self.pool.shape, device=self.device))[:0].float()
            return torch.cat([view(normal(self.pool.take(i).to(self.device))).float() for i in of.split(size)])

    @property
    def task(self) -> nn.Sequential:
        """Images (b c h w) to logits (b k)."""
        return nn.Sequential(self.parts["trunk"], self.parts["head"])

    @cached_property
    def features(self) -> Tensor:
        """(u d)"""
        return self.each(self.parts["trunk"])

    @cached_property
    def known(self) -> Tensor:
        """The features of the labeled images: (l d)."""
        return self.each(self.parts["trunk"], of=self.pool.labeled)

    @cached_property
    def logits(self) -> Tensor:
        """(u k)"""
        with evaluating(self.parts), torch.no_grad():
            logits: Tensor = self.parts["head"](self.features)
            return logits

    @cached_property
    def probs(self) -> Tensor:
        """(u k), rows sum to one."""
        return self.logits.softmax(1)

    def generator(self, use: str) -> Generator:
        """Random numbers on the CPU for one use: the same at every call for one seed and round."""
        return generator(self.seed, "query", use, len(self.pool.rounds))


def top(scores: Tensor, n: int, **detail: Tensor) -> Asked:
    """Ask for the n highest scores (u,); of equal ones, for the first. `detail`: raw quantities (u,).

    Raises RuntimeError where a score is not finite: such a network has diverged, and its order means nothing.
    """
    if broken := int((~scores.isfinite()).sum()):
        raise RuntimeError(f"{broken} of {len(scores)} scores are not finite: the network has diverged. Lower its lr")
    order = torch.sort(scores, descending=True, stable=True).indices[:n]
    return Asked(order, scores[order], {name: value[order] for name, value in detail.items()})


@contextmanager
def evaluating(parts: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each module's own mode, whatever it was, outside."""
    modes = [(module, module.training) for module in parts.modules()]
    parts.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
