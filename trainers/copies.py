"""One copy trained in place of many: linear layers behind a pooling that copies its values.

A published head may be wider than its map: at 32 pixels, VGG's pooling to 7x7 copies one value 49 times, and all 49
weights of that value get the same gradient. What sets them apart from their mean is then only ever scaled, by weight
decay, and never heard in the sum. So the mean alone is trained, each of whose steps is that of one copy, beside one
number that is scaled as the differences are; in the end the layer has the weights that it would have had.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")


def one_copy(train: Callable[P, None]) -> Callable[P, None]:
    """A loop, in which layers whose `copies` are above one are trained as one copy of each value.

    That is exact under any optimizer that looks at each weight alone and does not decay it: under SGD with momentum
    even where it does, under Adam with weight decay not, and then nothing is changed.
    """

    @wraps(train)
    def loop(*args: P.args, **kwargs: P.kwargs) -> None:
        plan: Any = args[2]
        with ExitStack() as all_of_them:
            if plan.optimizer == "sgd" or not plan.weight_decay:
                for part in kwargs.values():
                    for net in [part] if isinstance(part, nn.Module) else part:  # type: ignore[attr-defined]
                        all_of_them.enter_context(collapsed(net))
            train(*args, **kwargs)

    return loop


@contextmanager
def collapsed(net: nn.Module) -> Iterator[None]:
    """Inside, every layer of the net that is not frozen and has `copies` above one is a `OneCopy` of itself."""
    found = [
        (parent, name, layer, copies)
        for parent in net.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad and (copies := getattr(layer, "copies", 1)) > 1
    ]
    for parent, name, layer, copies in found:
        setattr(parent, name, OneCopy(layer, copies))
    try:
        yield
    finally:
        for parent, name, layer, _ in found:
            getattr(parent, name).spread_over(layer.weight)
            setattr(parent, name, layer)


class OneCopy(nn.Module):
    """Features (b c*copies), each value `copies` times in a row, to (b d): what `layer` makes of them."""

    first: Tensor

    def __init__(self, layer: nn.Linear, copies: int) -> None:
        super().__init__()
        self.copies = copies
        self.weight = nn.Parameter(layer.weight.detach().unflatten(1, (-1, copies)).mean(2))
        self.bias = layer.bias
        self.apart = nn.Parameter(self.weight.new_ones(()))  # how far the copies are from their mean, at first one
        self.register_buffer("first", self.weight.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # All copies together; the gradient is that of one of them, and nothing pulls them apart.
        weight = self.weight + (self.copies - 1) * self.weight.detach() + 0 * self.apart
        return F.linear(x[:, :: self.copies], weight, self.bias)

    @torch.no_grad()
    def spread_over(self, weight: Tensor) -> None:
        """Write into the layer's weight (d c*copies), which is as it was, what it has become."""
        copies = weight.unflatten(1, (-1, self.copies))
        copies.sub_(self.first[:, :, None]).mul_(self.apart).add_(self.weight[:, :, None])
