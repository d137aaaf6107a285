"""Networks that go through torch.compile."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

OPTIONS: dict[str, Any] = {"fallback_random": True}  # it draws the noise that the module itself would draw
ANY = 2**31 - 1


def faster(module: nn.Module) -> nn.Module:
    """The same network, to be compiled when it is first called, and for every other shape or mode."""
    compiled: nn.Module = torch.compile(module, options=OPTIONS)  # type: ignore[assignment]
    return compiled


@contextmanager
def compiling(compiled: bool) -> Iterator[None]:
    """Inside, as many networks as there are may be compiled: torch goes on without, after eight of them.

    It also looks for gradients where none can be, and warns of itself: that is kept quiet.
    """
    if not compiled:
        yield
        return
    from torch._dynamo import config

    with config.patch(recompile_limit=ANY, accumulated_recompile_limit=ANY), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        yield
