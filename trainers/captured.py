"""Whole steps of a loop as CUDA graphs.

A step of small networks is hundreds of kernels that take less time than to launch them one by one from Python. Captured
once, they are launched as one: Python gives the batch, the learning rates and the seed of the step, all at fixed places
in memory, and reads nothing back. So a captured step may not look at a number on the device, and what Python decides
inside it is decided for good; what changes from step to step comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainers.notes import Notes

WARM = 3  # steps of a kind that run as they are, while optimizers make their state and kernels are chosen


def capturable(device: torch.device) -> bool:
    """On the CPU nothing is launched, so there is nothing to capture."""
    return device.type == "cuda"


def prepare(optimizer: Optimizer, device: torch.device) -> None:
    """Let an optimizer step in a graph: its learning rates lie on the device, where they can be changed in place."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(device)
        if "capturable" in group:
            group["capturable"] = True


class Captured:
    """A step that is captured when it has run a few times, and replayed from then on.

    It takes tensors, and flags by name; other shapes and other flags make a graph of their own. What it gives back is
    overwritten by the next step of that kind.
    """

    def __init__(self, play: Callable[..., Any], notes: Notes, device: torch.device) -> None:
        self._play, self._notes, self._device = play, notes, device
        self._kinds: dict[Hashable, _Kind] = {}

    def __call__(self, *given: Tensor, **flags: Hashable) -> Any:
        kind = (*((x.shape, x.dtype) for x in given), *flags.items())
        if kind not in self._kinds:
            self._kinds[kind] = _Kind(partial(self._play, **flags), self._notes)
        with torch.cuda.device(self._device):
            return self._kinds[kind](*given)


class _Kind:
    """The steps that differ by nothing but what lies in their tensors."""

    def __init__(self, play: Callable[..., Any], notes: Notes) -> None:
        self.play, self.notes, self.runs = play, notes, 0

    def __call__(self, *given: Tensor) -> Any:
        self.runs += 1
        if self.runs <= WARM:
            return aside(partial(self.play, *given))
        if self.runs == WARM + 1:
            self.given, self.graph = [x.clone() for x in given], torch.cuda.CUDAGraph()
            with self.notes.apart() as self.said, torch.cuda.graph(self.graph):
                self.out = self.play(*self.given)
                said = [value.float() for value in self.said.all()]
                self.values = torch.stack(said) if said else torch.empty(0)
        else:
            for mine, x in zip(self.given, given, strict=True):
                mine.copy_(x)
        self.graph.replay()
        self.notes.repeat(self.said, iter(self.values.clone()))
        return self.out


def aside(play: Callable[[], Any]) -> Any:
    """Run a step on a stream of its own, as it is before a capture."""
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        out = play()
    main.wait_stream(side)
    return out
