"""What a fitted learner sees when it looks over the pool."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.dropout import Dropout, _DropoutNd

from trainers import bounds
from trainers.pool import Pool, normal, portions
from trainers.ranks import ALONE, Ranks, joined
from trainers.seeds import Seed, generator
from zoo.nets.trunk import Trunk

T = TypeVar("T")

ROWS = 2**16  # images whose features go through a head at once
TOGETHER = 2**28  # bytes of draws, at most, that are made of one pass through the layers before the first dropout


@dataclass(frozen=True, eq=False)
class Asked:
    """The answer of a query.

    positions: int64 (n,), distinct, into the u unlabeled images of the scan, the first to be asked first.
    scores: float (n,), non-increasing. detail: raw quantities (n,) under their paper names.
    images: uint8 (n c h w), where what is asked has been made: `positions` is empty then.
    """

    positions: Tensor
    scores: Tensor
    detail: dict[str, Tensor] = field(default_factory=dict)
    images: Tensor | None = None


class Scan:
    """The unlabeled images through a learner's eyes: evaluation mode, no augmentation, no gradient.

    Every view is computed once, when first asked for, and nothing is changed by looking.
    u unlabeled images, l labeled ones, k classes, d features; float32, on the learner's device.
    Of several ranks each looks at a part of the batches, and all see what one would. Where the pool's memory is
    bounded, large views lie on files: read those of all images a few rows after the other, as `through` does.
    """

    def __init__(
        self, pool: Pool, parts: nn.ModuleDict, *, seed: Seed = 0, precision: str = "32-true", ranks: Ranks = ALONE
    ) -> None:
        self.pool = pool
        self.parts = parts
        self.seed = seed
        self.device = next(parts.parameters()).device
        self.precision = precision
        self.ranks = ranks

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
        half, low = self.precision == "bf16-mixed", (self.device.type, torch.bfloat16)
        with evaluating(self.parts), torch.set_grad_enabled(gradient), torch.autocast(*low, enabled=half):
            batches = portions(self.pool, of, self.device, size)
            parts = [batches[part] for part in self.ranks.parts(len(batches))]
            mine, lengths = parts[self.ranks.number], [sum(map(len, part)) for part in parts]
            seen: Iterator[Tensor] = (view(normal(self.pool.take(i).to(self.device))).float() for i in mine)
            if not mine:  # one black image tells the shape
                seen = iter([view(torch.zeros(1, *self.pool.shape, device=self.device))[:0].float()])
            return joined(self.ranks, self._gathered(seen, lengths[self.ranks.number]), lengths)

    def _gathered(self, parts: Iterator[Tensor], n: int) -> Tensor:
        """Parts (b ...) as one tensor (n ...)."""
        if (limit := self.pool.memory) is None:
            return torch.cat(list(parts))
        return bounds.gathered(parts, n, limit)

    def through(self, part: Callable[[Tensor], T], features: Tensor) -> list[T]:
        """What a part that looks at each image by itself makes of features (n d), some rows after the other."""
        seen = []
        with evaluating(self.parts), torch.no_grad():
            for rows in features.split(ROWS):
                seen.append(part(rows))
                bounds.relieve()
        return seen

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

    @property
    def members(self) -> list[Any]:
        """The task networks, as trunk and head: one, and the further members of an ensemble."""
        return [self.task, *self.parts["members"].children()] if "members" in self.parts else [self.task]

    @cached_property
    def logits(self) -> Tensor:
        """(u k); of an ensemble, the logarithm of its members' mean probabilities."""
        return self._logits(self.features, self.pool.unlabeled)

    @cached_property
    def known_logits(self) -> Tensor:
        """Those of the labeled images: (l k)."""
        return self._logits(self.known, self.pool.labeled)

    def _logits(self, features: Tensor, of: Tensor) -> Tensor:
        logits = torch.cat(self.through(self.parts["head"], features))
        if others := self.members[1:]:
            each = torch.stack([logits, *(self.each(member, of) for member in others)])
            return each.log_softmax(2).logsumexp(0) - math.log(len(each))
        return logits

    @cached_property
    def probs(self) -> Tensor:
        """(u k), rows sum to one."""
        return self.logits.softmax(1)

    def drawn(self, n: int, subset: int) -> Tensor:
        """The positions, ascending, of the unlabeled images to look at: all, or `subset` of them (n at least)."""
        if subset < 0:
            raise ValueError(f"subset={subset} must be at least 0, where 0 means the whole pool")
        u = len(self.pool.unlabeled)
        order = torch.randperm(u, generator=self.generator("subset"))
        return order[: max(subset, n) if subset else u].sort().values

    def draws(self, t: int, of: Tensor | None = None) -> Iterator[Tensor]:
        """Log-probabilities (u k) under `t` dropout masks of every member, one after the other; nothing else is random.

        of: other indices into the pool than all unlabeled ones. A member without dropout gives one draw. A mask is the
        same for all images (Kirsch et al. 2019 call it consistent), so that draws can be joined across images, and
        neither the batch nor the pool's order plays a role.
        """
        if t < 1:
            raise ValueError(f"draws={t} must be at least 1")
        for m, (trunk, head) in enumerate(self.members):
            if dropouts(trunk):
                yield from self._drawn_inside(m, trunk, head, t, of)
                continue
            features = self.features if m == 0 and of is None else self.each(trunk, of)
            for draw in range(t if dropouts(head) else 1):
                with dropping(self.generator(f"member {m} draw {draw}"), head):
                    log = torch.cat(self.through(head, features)).log_softmax(1)
                yield log

    def count(self, t: int) -> int:
        """How many draws `draws(t)` gives."""
        return sum(t if dropouts(trunk, head) else 1 for trunk, head in self.members)

    def _drawn_inside(self, m: int, trunk: nn.Module, head: nn.Module, t: int, of: Tensor | None) -> Iterator[Tensor]:
        """The draws of member m, whose trunk has dropout: what stands before it is seen once for many of them."""
        first, rest = parted(trunk)
        size = 4 * self.pool.classes * len(self.pool.unlabeled if of is None else of)
        for draws in torch.arange(t).split(max(TOGETHER // max(size, 1), 1)):

            def view(x: Tensor, draws: Tensor = draws) -> Tensor:
                seen, logs = first(x), []
                for draw in draws.tolist():
                    with dropping(self.generator(f"member {m} draw {draw}"), rest, head):
                        logs.append(head(rest(seen)).log_softmax(1))
                return torch.stack(logs, 1)

            yield from self.each(view, of).unbind(1)

    def generator(self, use: str) -> Generator:
        """Random numbers on the CPU for one use: the same at every call for one seed and round."""
        return generator(self.seed, "query", use, len(self.pool.rounds))


def top(scores: Tensor, n: int, **detail: Tensor) -> Asked:
    """Ask for the n highest scores (u,); of equal ones, for the first. `detail`: raw quantities (u,).

    Raises RuntimeError where a score is not finite: such a network has diverged, and its order means nothing.
    """
    if broken := int((~scores.isfinite()).sum()):
        raise RuntimeError(f"{broken} of {len(scores)} scores are not finite: the network has diverged. Lower its lr")
    among = (scores >= nth(scores, min(n, len(scores)))).nonzero().squeeze(1)  # in order, and few to sort
    order = among[torch.sort(scores[among], descending=True, stable=True).indices[:n]]
    return Asked(order, scores[order], {name: value[order] for name, value in detail.items()})


def nth(scores: Tensor, n: int) -> Tensor:
    """The n-th highest of scores (u,), n in 1..u. On the CPU without sorting those above it."""
    if scores.device.type != "cpu":
        return scores.topk(n).values[-1]
    return scores.kthvalue(len(scores) - n + 1).values


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


def dropouts(*modules: nn.Module) -> list[_DropoutNd]:
    """The dropout layers inside that drop something."""
    return [m for module in modules for m in module.modules() if isinstance(m, _DropoutNd) and m.p > 0]


def parted(network: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers before the first dropout of a network, and the rest: all of it, where it is no chain of layers."""
    layers = chain(network)
    first = next((i for i, layer in enumerate(layers) if dropouts(layer)), len(layers))
    return nn.Sequential(*layers[:first]), nn.Sequential(*layers[first:])


def chain(network: nn.Module) -> list[nn.Module]:
    """The layers that a network passes one after the other: itself, where it does more than that."""
    if isinstance(network, Trunk):
        return chain(network.body)
    if type(network) is not nn.Sequential:  # those made from it may do more
        return [network]
    return [layer for inner in network for layer in chain(inner)]


@contextmanager
def dropping(chance: Generator, *modules: nn.Module) -> Iterator[None]:
    """Dropout inside, with one mask for all images at each layer: values for Dropout, whole maps for the others."""

    def masked(layer: _DropoutNd, mask: list[Tensor], out: Tensor) -> Tensor:
        if not mask:
            shape = out.shape[1:] if isinstance(layer, Dropout) else (out.shape[1], *(1 for _ in out.shape[2:]))
            kept = torch.rand(shape, generator=chance) >= layer.p
            mask.append((kept / (1 - layer.p)).to(out))
        return out * mask[0]

    hooks = []
    for layer in dropouts(*modules):
        mask: list[Tensor] = []
        hooks.append(layer.register_forward_hook(lambda layer, _, out, mask=mask: masked(layer, mask, out)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
