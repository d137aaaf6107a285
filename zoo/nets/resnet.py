"""ResNet-18 for small images: a 3x3 stem of stride 1 and no max pooling, so that 32 pixels reach the stages whole.

He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016. https://arxiv.org/abs/1512.03385
The form that learning loss and TA-VAAL train on CIFAR, with PyTorch's own initialisation, as their code has it.
"""

from collections import OrderedDict

from torch import Tensor, nn

from zoo.nets.common import Mean


def resnet18(c: int) -> nn.Sequential:
    """Images (b c h w) to features (b 512), through stage1 to stage4 of 64, 128, 256 and 512 channels."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=nn.Sequential(nn.Conv2d(c, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
            stage1=nn.Sequential(Block(64, 64, 1), Block(64, 64, 1)),
            stage2=nn.Sequential(Block(64, 128, 2), Block(128, 128, 1)),
            stage3=nn.Sequential(Block(128, 256, 2), Block(256, 256, 1)),
            stage4=nn.Sequential(Block(256, 512, 2), Block(512, 512, 1)),
            pool=Mean(),
            flat=nn.Flatten(),
        )
    )


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: maps (b i h w) to (b o h/stride w/stride)."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(i, o, 3, stride, 1, bias=False),
            nn.BatchNorm2d(o),
            nn.ReLU(inplace=True),
            nn.Conv2d(o, o, 3, 1, 1, bias=False),
            nn.BatchNorm2d(o),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or i != o:
            self.shortcut.extend([nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out.relu_()
