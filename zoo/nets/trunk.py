"""Task networks: a trunk that turns images into features, and a head that turns features into logits.

"small" is ours, "timm/NAME" is any of timm's, and the others are the published ones for small images.
"""

from collections.abc import Callable
from functools import partial
from math import prod

from torch import Tensor, nn

from zoo.nets import cnn13, foreign, resnet, small, vgg, waal
from zoo.nets.common import Shape, fp32, roomy, unknown

__all__ = ["Head", "Shape", "Trunk", "freeze", "task", "trunk"]


def trunk(name: str, shape: Shape, width: int = 32) -> "Trunk":
    """The trunk of that name for images of `shape` (c h w): (b c h w) in [-1, 1] to features (b d).

    small          ours, best at 8 to 32 pixels; `width` scales it, and it alone
    resnet18       the CIFAR form, d = 512
    cnn13          that of semi-supervised learning on CIFAR, d = 128, length one; 12 pixels or more
    vgg16_bn       the ImageNet layout with both hidden layers of its head, d = 4096; made for 32 pixels or more
    vgg16_conv     its convolutions alone, d = 512, as WAAL has them; made for 32 pixels or more
    lenet          two convolutions for small grey images, as WAAL has them; 16 pixels or more
    pixels         the pixels themselves, for a linear classifier: d = c h w
    timm/NAME      any model of timm's, with random weights
    timm/NAME.TAG  the same with timm's weights of that tag, downloaded at first use
    """
    if name.startswith("timm/"):
        roomy(shape, 8, f"trunk {name!r}", "below 8 pixels no map is left to pool")
        return Trunk(*foreign.model(name.removeprefix("timm/"), shape))
    if name not in NAMED:
        choices = (*NAMED, "timm/NAME", "timm/NAME.TAG")
        raise unknown("trunk", name, NAMED, f"Choose from {', '.join(choices)}")
    least, why, build = NAMED[name]
    roomy(shape, least, f"trunk {name!r}", why)
    return Trunk(*build(shape, width))


def stages(n: int) -> tuple[str, ...]:
    return tuple(f"stage{i}" for i in range(1, n + 1))


POOLED = "below 8 pixels no map is left to pool"
Built = tuple[nn.Module, int, tuple[str, ...]]  # what Trunk takes
NAMED: dict[str, tuple[int, str, Callable[[Shape, int], Built]]] = {  # least side, why, how
    "small": (
        8,
        "below 8 pixels no map is left to pool",
        lambda s, width: (small.small(s[0], width), 4 * width, stages(3)),
    ),
    "resnet18": (8, POOLED, lambda s, _: (resnet.resnet18(s[0]), 512, stages(4))),
    "cnn13": (
        12,
        "halved twice, a 3x3 convolution finds no room",
        lambda s, _: (cnn13.cnn13(s[0]), 128, stages(3)),
    ),
    "vgg16_bn": (8, POOLED, lambda s, _: (vgg.vgg16_bn(s), 4096, stages(5))),
    "vgg16_conv": (8, POOLED, lambda s, _: (waal.vgg16_conv(s[0]), 512, stages(5))),
    "lenet": (
        16,
        "behind two 5x5 convolutions and two poolings, no pixel is left",
        lambda s, _: (*waal.lenet(s), stages(2)),
    ),
    "pixels": (1, "there is no pixel", lambda s, _: (nn.Flatten(), prod(s), ())),
}


trunk_of = trunk  # in task, the argument hides the function


def task(
    shape: Shape, classes: int, trunk: str = "small", width: int = 32, dropout: float = 0.0
) -> dict[str, nn.Module]:
    """A task network for images of `shape` (c h w): its trunk (b c h w) -> (b d), then its head (b d) -> (b k)."""
    body = trunk_of(trunk, shape, width)
    return {"trunk": body, "head": Head(body.d, classes, dropout)}


class Trunk(nn.Module):
    """Images (b c h w) in [-1, 1] to features (b d), under autocast in its type.

    `stages` are the modules inside whose outputs are the maps on the way, first to last, for heads that read them.
    A convolutional trunk's are (b c h w), never larger than the one before; those of timm's transformers (b n d) or
    (b h w d). `channels`: of each stage, where timm tells them.
    """

    def __init__(self, body: nn.Module, d: int, stages: tuple[str, ...], channels: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.body, self.d, self.paths, self.channels = body, d, stages, channels

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return tuple(self.body.get_submodule(path) for path in self.paths)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features


class Head(nn.Module):
    """Features (b d), any float type, to float32 logits (b k), under autocast too."""

    def __init__(self, d: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if classes < 1 or not 0 <= dropout < 1:
            raise ValueError(f"A head needs classes >= 1 and dropout in [0, 1), not {classes} and {dropout}.")
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.linear = nn.Linear(d, classes)

    def forward(self, features: Tensor) -> Tensor:
        with fp32(features):
            logits: Tensor = self.linear(self.dropout(features.float()))
        return logits


def freeze(module: nn.Module) -> None:
    """Stop a part from learning, for good: no gradients, and eval mode even when a parent is told to train.

    Names in the state dict stay as they were. Modules inside may still be switched one by one, as dropout is.
    """
    module.eval().requires_grad_(False)
    module.__dict__["train"] = partial(stay, module)


def stay(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001 (it answers for nn.Module.train)
    return module
