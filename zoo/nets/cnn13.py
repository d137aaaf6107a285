"""The 13-layer CNN of semi-supervised learning on CIFAR, without its input noise.

Laine & Aila, ICLR 2017, https://arxiv.org/abs/1610.02242, in the form of Tarvainen & Valpola, "Mean teachers", NIPS
2017, that label propagation and SSAL train: https://github.com/osimeoni/RethinkingDeepActiveLearning
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from zoo.nets.common import Mean


def cnn13(c: int) -> nn.Sequential:
    """Images (b c h w) of 12 pixels or more to features of length one (b 128), through stage1 to stage3.

    At 32 pixels the last maps are 6x6, as published; other sizes are averaged over whatever is left.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stage1=nn.Sequential(layer(c, 128), layer(128, 128), layer(128, 128), nn.MaxPool2d(2), nn.Dropout(0.5)),
            stage2=nn.Sequential(layer(128, 256), layer(256, 256), layer(256, 256), nn.MaxPool2d(2), nn.Dropout(0.5)),
            stage3=nn.Sequential(layer(256, 512, padding=0), layer(512, 256, 1, 0), layer(256, 128, 1, 0)),
            pool=Mean(),
            flat=nn.Flatten(),
            unit=Unit(),
        )
    )


def layer(i: int, o: int, size: int = 3, padding: int = 1) -> nn.Sequential:
    """A convolution with normalised weights, batch normalisation, and a leaky ReLU: maps (b i h w) to (b o h w)."""
    return nn.Sequential(
        weight_norm(nn.Conv2d(i, o, size, padding=padding)), nn.BatchNorm2d(o), nn.LeakyReLU(0.1, inplace=True)
    )


class Unit(nn.Module):
    """Features (b d) to length one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x)
