"""The networks of a learner as weights: put in, adopted, placed."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def put(parts: nn.ModuleDict, weights: Mapping[str, Tensor]) -> None:
    """Weights into parts, in place. Raises ValueError for weights that are missing, unknown or of another shape."""
    own = parts.state_dict()
    if odd := sorted(own.keys() ^ weights.keys()):
        raise ValueError(f"these weights are of other networks: {odd[0]!r} is in one and not in the other")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise ValueError(f"{name!r} is {tuple(weights[name].shape)} in these weights, not {tuple(value.shape)}")
    parts.load_state_dict(dict(weights))


def adopt(parts: nn.ModuleDict, start: Mapping[str, Tensor]) -> list[str]:
    """Start weights into every part that they fit, in place; the names of the parts that stay fresh.

    A part stays fresh where the images or the classes are others than those the weights were trained on.
    """
    fresh = []
    for name, part in parts.items():
        weights = {k.removeprefix(f"{name}."): v for k, v in start.items() if k.startswith(f"{name}.")}
        own = part.state_dict()
        if own.keys() == weights.keys() and all(own[k].shape == weights[k].shape for k in own):
            part.load_state_dict(weights)
        else:
            fresh.append(name)
    return fresh


def placed(parts: nn.ModuleDict, device: torch.device) -> None:
    """Move the networks, in place; their filters with the channels last, which is how convolutions are fastest."""
    parts.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
