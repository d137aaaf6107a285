"""A residual network of four 3x3 convolutions for images of 8 to 32 pixels, trained in seconds on two cores. Ours.

Measured at width 32 on scikit-learn's digits at 1x16x16 (200 labels, shifts, 300 one-cycle SGD steps of 64): 97.7 %
on 900 held-out images (mean of 6 seeds that had no part in choosing the form, deviation 0.5), and 10 ms for one step's
forward and backward pass on one CPU thread. Two forms with strides alone: 97.1 % at 9 ms, 96.6 % at 7 ms.
"""

from collections import OrderedDict

from torch import Tensor, nn

from zoo.nets.common import Mean


def small(c: int, width: int) -> nn.Sequential:
    """Images (b c h w) to features (b 4*width), through stage1 to stage3, with maps of 1/2, 1/4 and 1/8 the side."""
    if width < 1:
        raise ValueError(f"width={width} must be at least 1.")
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stage1=nn.Sequential(convolve(c, width, 2), nn.ReLU(inplace=True)),
            # half as wide, a point less
            stage2=nn.Sequential(convolve(width, width, 1), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
            stage3=nn.Sequential(convolve(width, 4 * width, 2), nn.ReLU(inplace=True), Residual(4 * width)),
            pool=Mean(),
            flat=nn.Flatten(),
        )
    )


def convolve(i: int, o: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution and batch normalisation: maps (b i h w) to (b o h/stride w/stride)."""
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o))


class Residual(nn.Module):
    """Add to maps (b c h w) what one more convolution sees in them."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolve(c, c, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out
