"""The networks of a learner as weights: put in, adopted, placed."""

from collections.abc import Mapping
from typing import NamedTuple

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


class Adopted(NamedTuple):
    """What start weights have become. fresh: part -> layers they do not fit. fitted: layers made to fit colours."""

    fresh: dict[str, list[str]]
    fitted: list[str]


def adopt(parts: nn.ModuleDict, start: Mapping[str, Tensor]) -> Adopted:
    """Start weights into every layer that they fit, in place; the other layers stay fresh.

    Layers that see or make colours are fitted to another number of them. A part of other layers stays fresh wholly.
    """
    colours, fresh, fitted = _colours(parts["trunk"], start), {}, []
    for name, part in parts.items():
        weights = {k.removeprefix(f"{name}."): v for k, v in start.items() if k.startswith(f"{name}.")}
        own = part.state_dict()
        if own.keys() != weights.keys():
            fresh[name] = [name]
            continue
        for key in [key for key in own if own[key].shape != weights[key].shape]:
            layer, _, kind = key.rpartition(".")
            made = None if colours is None else coloured(part.get_submodule(layer), kind, weights[key], *colours)
            if made is not None and made.shape == own[key].shape:
                weights[key] = made
                fitted.append(f"{name}.{layer}")
            else:
                weights[key] = own[key]
                fresh.setdefault(name, []).append(f"{name}.{layer}" if layer else name)
        part.load_state_dict(weights)
    return Adopted({name: list(dict.fromkeys(layers)) for name, layers in fresh.items()}, list(dict.fromkeys(fitted)))


def coloured(layer: nn.Module, kind: str, value: Tensor, old: int, new: int) -> Tensor | None:
    """A weight or bias of `old` colours for `new` ones; None if this layer neither sees nor makes colours.

    A layer that sees images gives for a grey one what it gave before: its weights are summed over the old colours, and
    shared out among the new. A layer that makes images makes each new colour as the mean of the old ones.
    """
    if isinstance(layer, nn.Conv2d) and kind == "weight" and value.shape[1] >= old and value.shape[0] != old:
        seen, told = value[:, :old], value[:, old:]  # what comes after the colours is no colour
        return torch.cat([(seen.sum(1, keepdim=True) / new).expand(-1, new, -1, -1), told], 1)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) and kind == "weight" else 0
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and value.shape[axis] == old:
        sizes = [new if a == axis else -1 for a in range(value.dim())]
        return value.mean(axis, keepdim=True).expand(sizes)
    return None


def _colours(trunk: nn.Module, start: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """How many colours the start weights were trained on, and how many there are now; None if as many."""
    for name, layer in trunk.named_modules():
        if isinstance(layer, nn.Conv2d) and (first := start.get(f"trunk.{name}.weight")) is not None:
            old, new = first.shape[1], layer.weight.shape[1]
            return (old, new) if old != new else None
    return None


def placed(parts: nn.ModuleDict, device: torch.device) -> None:
    """Move the networks, in place; their filters with the channels last, which is how convolutions are fastest."""
    parts.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
