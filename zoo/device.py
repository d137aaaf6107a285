"""Where a learner runs, and in which precision: from what the hardware is, never from timing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"  # Lightning sets it, and every step of Adam looks for a driver then
PRECISIONS = ("32-true", "bf16-mixed", "auto")


def resolve_device(device: str) -> str:
    """The device meant by a name. Raises ValueError where there is none such."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"device={device!r} must be auto, cpu, cuda or cuda:NUMBER")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device!r}, but this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """What "auto" means: bf16-mixed where the device multiplies bf16 natively, else 32-true. Nothing is timed."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def fabric(device: str, precision: str) -> Fabric:
    """Lightning's hand on one device."""
    before = os.environ.get(NVML)
    from lightning.fabric import Fabric

    if before is None:
        os.environ.pop(NVML, None)
    kind, _, number = device.partition(":")
    return Fabric(accelerator=kind, devices=[int(number or 0)] if kind == "cuda" else 1, precision=precision)  # type: ignore[arg-type]


@contextmanager
def peak_bytes() -> Iterator[Callable[[], int]]:
    """The most memory this process held inside: on the GPU where there is one, else resident (Linux) or since start."""
    import resource

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield torch.cuda.max_memory_allocated
        return
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if os.access(forget, os.W_OK):
        forget.write_text("5")
        yield lambda: 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        yield lambda: unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
