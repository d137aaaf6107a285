"""Any model of timm's as a trunk, behind its own normalisation.

Wightman, "PyTorch Image Models". https://github.com/huggingface/pytorch-image-models
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.nets.common import Shape, unknown


def model(name: str, shape: Shape) -> tuple[nn.Sequential, int, tuple[str, ...], tuple[int, ...]]:
    """The model NAME (random weights) or NAME.TAG (timm's weights of that tag) for images of `shape` (c h w).

    Gives the module, images (b c h w) in [-1, 1] to features (b d); then d; then the paths of its stages and the
    channels of each, where timm tells them. A convolutional model's stages give maps (b c h w), a transformer's what
    its blocks give: (b n d) or (b h w d).
    """
    import timm

    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        raise unknown("timm model", arch, timm.list_models(), "timm.list_models() names them all")
    if tag and not timm.is_model_pretrained(name):
        tags = [other.partition(".")[2] for other in timm.list_pretrained(f"{arch}.*")]
        raise unknown(f"tag of timm/{arch}", tag, tags, f"It has {', '.join(tags) or 'none'}")
    c, h, w = shape
    options: dict[str, Any] = {"pretrained": bool(tag), "num_classes": 0, "in_chans": c}
    try:
        net: Any = timm.create_model(name, img_size=(h, w), **options)
    except TypeError:  # most convolutional models take any size, and no img_size
        net = timm.create_model(name, **options)
    body = nn.Sequential(Normalize(net.pretrained_cfg["mean"], net.pretrained_cfg["std"], c), net)
    paths = {path for path, _ in net.named_modules()}
    stages = [stage for stage in getattr(net, "feature_info", ()) if stage["module"] in paths]
    told = tuple(f"1.{stage['module']}" for stage in stages), tuple(int(stage["num_chs"]) for stage in stages)
    return body, probe(body, shape, name), *told


def probe(body: nn.Module, shape: Shape, name: str) -> int:
    """Count the features of one blank image: timm's `num_features` counts before a model's last layers."""
    at = next(body.buffers()).device
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, *shape, device=at))
    except Exception as error:
        raise ValueError(
            f"timm/{name} cannot take {shape[1]}x{shape[2]} images: {error} Enlarge them, or take another trunk."
        ) from error
    if features.dim() != 2:
        raise ValueError(f"timm/{name} gives {tuple(features.shape)}, no features (b d). Take another trunk.")
    body.train()
    return int(features.shape[1])


class Normalize(nn.Module):
    """Images (b c h w) in [-1, 1] to a model's own mean and deviation, averaged over colours where c is not theirs."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], c: int) -> None:
        super().__init__()
        for key, values in (("mean", mean), ("std", std)):
            value = torch.tensor(values)
            value = value if len(value) == c else value.mean().expand(c).clone()
            self.register_buffer(key, value.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0.5 + 0.5 - self.mean) / self.std
