"""What every network shares: the name of a shape, two refusals, and full precision where it matters."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # c h w


def roomy(shape: Shape, least: int, who: str, why: str) -> None:
    """Refuse images (c h w) with a side below `least` pixels, and say why."""
    c, h, w = shape
    if c < 1:
        raise ValueError(f"{who} needs images (c h w) with at least one channel, not {shape}.")
    if min(h, w) < least:
        raise ValueError(f"{who} cannot take {h}x{w} images: {why}. Enlarge them to {least}x{least} or more.")


def unknown(kind: str, name: str, choices: Iterable[str], remedy: str) -> ValueError:
    """The error for a name that is none of the choices, with the nearest one if any is near."""
    near = get_close_matches(name, list(choices), 1)
    return ValueError(f"Unknown {kind} {name!r}." + (f" Did you mean {near[0]!r}?" if near else "") + f" {remedy}.")


def fp32(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on x's device: logits, critics, KL and losses are too fine for bf16."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class Mean(nn.AdaptiveAvgPool2d):
    """Maps (b c h w) to their means (b c 1 1). What comes back has the channels last, like the maps themselves.

    torch's own pooling gives the same means, and gradients in the other order: all layers before it are slowed down.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(0, 2, 3, 1).mean((1, 2), keepdim=True).permute(0, 3, 1, 2)


class FullLinear(nn.Linear):
    """A linear layer in float32 under autocast too."""

    def forward(self, input: Tensor) -> Tensor:
        with fp32(input):
            return super().forward(input.float())


class Full(nn.Sequential):
    """Layers one after the other, in float32 under autocast too: only convolutions may be half."""

    def forward(self, x: Tensor) -> Tensor:
        with fp32(x):
            out: Tensor = super().forward(x.float())  # type: ignore[no-untyped-call]
        return out
