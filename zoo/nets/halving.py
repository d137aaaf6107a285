"""Convolutions of 4x4 that halve or double the side of a map, as VAAL's autoencoder is made of.

Where the filters outweigh the map by far, as in the widest layers of the published autoencoder (8 million weights over
4x4 pixels), a CPU spends its time on putting them in order. Products of matrices take them as they lie, with the
channels last, and are quicker but for the way that doubles a map (`alzoo bench loops`). Narrow layers are slower that
way, and a GPU needs no help.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

HEAVY = 2**22  # weights


class Halving(nn.Conv2d):
    """Maps (b i h w) to (b o h//2 w//2), without bias."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 4, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cpu and self.weight.numel() >= HEAVY):
            return super().forward(x)
        b, _, h, w = x.shape
        seen: Tensor = _Gather.apply(x.permute(0, 2, 3, 1))
        return F.linear(seen, rows(self.weight)).view(b, h // 2, w // 2, -1).permute(0, 3, 1, 2)


class Doubling(nn.ConvTranspose2d):
    """Maps (b i h w) to (b o 2h 2w), without bias."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 4, 2, 1, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not (x.is_cpu and self.weight.numel() >= HEAVY):
            return super().forward(x, output_size)
        out: Tensor = _Double.apply(x, self.weight)
        return out


def rows(weight: Tensor) -> Tensor:
    """Filters (n c 4 4) as (n 16*c), by row, column and channel: how they lie with the channels last."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def gather(x: Tensor) -> Tensor:
    """What filters two pixels apart see of maps (b h w c) and a frame of zeros: (b*h//2*w//2 16*c), as `rows`."""
    b, h, w, c = x.shape
    framed = x.new_zeros(b, h + 2, w + 2, c)
    framed[:, 1:-1, 1:-1] = x
    image, row, column, _ = framed.stride()
    seen = framed.as_strided((b, h // 2, w // 2, 4, 4 * c), (image, 2 * row, 2 * column, row, 1))
    return seen.reshape(-1, 16 * c)


def scatter(seen: Tensor, b: int, h: int, w: int) -> Tensor:
    """The adjoint of `gather`: every value is added where it was seen. Maps (b h w c), and what falls on the frame."""
    up, left, c = h // 2, w // 2, seen.shape[1] // 16
    framed = seen.new_zeros(b, h + 2, w + 2, c)
    for number, part in enumerate(seen.view(b, up, left, 8, 2 * c).unbind(3)):  # half a row of every filter
        row, column = number // 2, number % 2 * 2
        into = framed[:, row : row + 2 * up : 2, column : column + 2 * left]
        into.unflatten(2, (left, 2)).flatten(3).add_(part)
    return framed[:, 1:-1, 1:-1]


class _Gather(Function):
    """`gather`, and its gradient by `scatter`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[:3]
        return gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return scatter(grad, *ctx.size)


class _Double(Function):
    """Forward torch's own, which is quicker; back by products."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, stride=2, padding=1)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        b, i, h, w = x.shape
        seen = gather(grad.permute(0, 2, 3, 1))
        of_x = (seen @ rows(weight).t()).view(b, h, w, i).permute(0, 3, 1, 2)
        of_weight = x.permute(1, 0, 2, 3).flatten(1) @ seen
        return of_x, of_weight.view(i, 4, 4, -1).permute(0, 3, 1, 2)
