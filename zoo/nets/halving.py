"""Convolutions of 4x4 that halve or double the side of a map, as VAAL's autoencoder is made of.

Where the filters outweigh the map by far, as in the widest layers of the published autoencoder (8 million weights over
4x4 pixels), a CPU spends its time on putting them in order, and one product of matrices is quicker (`alzoo bench
loops`). Narrow layers are slower that way, and a GPU needs no help.
"""

import torch.nn.functional as F
from torch import Tensor, nn

HEAVY = 2**22  # weights


class Halving(nn.Conv2d):
    """Maps (b i h w) to (b o h//2 w//2), without bias."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 4, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cpu and self.weight.numel() >= HEAVY):
            return super().forward(x)
        b, _, h, w = x.shape
        patches = F.unfold(x, 4, padding=1, stride=2).transpose(1, 2).flatten(0, 1)  # (b*h/2*w/2 i*16)
        return F.linear(patches, self.weight.flatten(1)).view(b, h // 2, w // 2, -1).permute(0, 3, 1, 2)


class Doubling(nn.ConvTranspose2d):
    """Maps (b i h w) to (b o 2h 2w), without bias."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 4, 2, 1, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not (x.is_cpu and self.weight.numel() >= HEAVY):
            return super().forward(x, output_size)
        b, _, h, w = x.shape
        patches = x.permute(0, 2, 3, 1).flatten(0, 2) @ self.weight.flatten(1)  # (b*h*w o*16)
        return F.fold(patches.unflatten(0, (b, -1)).transpose(1, 2), (2 * h, 2 * w), 4, padding=1, stride=2)
