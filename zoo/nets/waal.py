"""The networks of WAAL's released code: two trunks without dense layers, the classifier on them, and the critic.

Shui, Zhou, Gagne & Wang, "Deep Active Learning: Unified and Principled Method for Query and Training", AISTATS 2020.
https://arxiv.org/abs/1911.09162. All start with PyTorch's own initialisation, as released.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from zoo.nets.common import Full, Mean, Shape, fp32
from zoo.nets.vgg import convolutions

OUTPUTS = ("linear", "sigmoid")


def vgg16_conv(c: int) -> nn.Sequential:
    """Images (b c h w) to features (b 512): the convolutions of VGG-16, through stage1 to stage5.

    At 32 pixels the last map is one pixel, as released; of larger ones the mean is taken (ours).
    """
    return nn.Sequential(convolutions(c) | {"pool": Mean(), "flat": nn.Flatten()})


def lenet(shape: Shape) -> tuple[nn.Sequential, int]:
    """The trunk for small grey images (b c h w) to features (b d), and d: 320 at 28 pixels. It has two stages."""
    c, h, w = shape
    body = nn.Sequential(
        OrderedDict[str, nn.Module](
            stage1=nn.Sequential(nn.Conv2d(c, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
            stage2=nn.Sequential(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU()),
            flat=nn.Flatten(),
        )
    )
    return body, 20 * (((h - 4) // 2 - 4) // 2) * (((w - 4) // 2 - 4) // 2)


def classifier(d: int, classes: int, dropout: float = 0.5) -> Full:
    """Features (b d), any float type, to float32 logits (b k), through a hidden layer of 50."""
    return Full(nn.Linear(d, 50), nn.ReLU(), nn.Dropout(dropout), nn.Linear(50, classes))


class Critic(nn.Module):
    """Features (b d), any float type, to float32 D (b,) and its gradient by the features (b d).

    High D means unlabeled-like. With one hidden layer the gradient is a formula, W1^T (mask * w2), times D (1 - D)
    behind a sigmoid: plain matmuls that can be differentiated once more, with the dropout mask of this very pass.
    output: "linear", or "sigmoid" as released, which keeps D in (0, 1).
    """

    def __init__(self, d: int, width: int = 50, dropout: float = 0.0, output: str = "linear") -> None:
        super().__init__()
        if min(d, width) < 1 or not 0 <= dropout < 1:
            raise ValueError(f"d={d} and width={width} must be at least 1, dropout={dropout} in [0, 1).")
        if output not in OUTPUTS:
            raise ValueError(f"critic_output={output!r} must be one of {', '.join(OUTPUTS)}.")
        self.hidden = nn.Linear(d, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1)
        self.output = output

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        with fp32(features):
            hidden = self.hidden(features.float())
            mask = self.dropout((hidden > 0).float())  # the ReLU and the dropout in one
            value = self.out(hidden * mask).squeeze(1)
            slope = (mask * self.out.weight) @ self.hidden.weight
            if self.output == "sigmoid":
                value = torch.sigmoid(value)
                slope = slope * (value * (1 - value)).unsqueeze(1)
        return value, slope
