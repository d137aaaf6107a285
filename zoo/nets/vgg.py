"""VGG-16 with batch normalisation, in its ImageNet layout whatever the image size: the task network of VAAL.

Simonyan & Zisserman, "Very Deep Convolutional Networks", ICLR 2015. https://arxiv.org/abs/1409.1556
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nets.common import Full, Shape


def vgg16_bn(shape: Shape) -> nn.Sequential:
    """Images (b c h w) to features (b 4096), through stage1 to stage5, each ended by a pooling.

    The features are the second hidden layer of the published head, its dropout of one half included.
    Up to 32 pixels the 7x7 pooling copies one value 49 times: the published network, but computed once (`Copied`).
    Weights start as torchvision's: Kaiming-normal by fan-out, and normal with deviation 0.01 in the linear layers.
    """
    c, h, w = shape
    layers = convolutions(c)
    layers["pool"] = nn.AdaptiveAvgPool2d(7)
    layers["flat"] = nn.Flatten()
    layers["hidden1"] = Full(Copied(512 * 7 * 7, 4096, 49 if max(h, w) <= 32 else 1), nn.ReLU(), nn.Dropout(0.5))
    layers["hidden2"] = Full(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5))
    body = nn.Sequential(layers)
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, 0.0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return body


class Copied(nn.Linear):
    """A linear layer whose input (b i) holds each value `copies` times in a row: one meets the sum of weights."""

    def __init__(self, i: int, o: int, copies: int) -> None:
        super().__init__(i, o)
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        if self.copies == 1:
            return super().forward(x)
        return F.linear(x[:, :: self.copies], self.weight.unflatten(1, (-1, self.copies)).sum(2), self.bias)


def convolutions(c: int) -> OrderedDict[str, nn.Module]:
    """Images (b c h w) to maps of 512 channels, through stage1 to stage5, each ended by a pooling that halves.

    Sides that are no multiple of 32 are rounded up on the way (ours), so that of 28 pixels one is left, not none.
    """
    layers = OrderedDict[str, nn.Module]()
    for n, (i, o, depth) in enumerate([(c, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)], 1):
        stage = nn.Sequential()
        for k in range(depth):
            stage.extend([nn.Conv2d(o if k else i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)])
        layers[f"stage{n}"] = stage.append(nn.MaxPool2d(2, ceil_mode=True))
    return layers
