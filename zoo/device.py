"""Where a learner runs, and in which precision: from what the hardware is, never from timing."""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist

from trainers.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"  # Lightning sets it, and every step of Adam looks for a driver then
PRECISIONS = ("32-true", "bf16-mixed", "auto")


def resolve_device(device: str, devices: int = 1) -> str:
    """The device meant by a name; "cuda" is this rank's own of several. Raises ValueError where there is none such."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and devices > 1:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
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


def ranks(devices: int) -> Ranks:
    """This process among as many that train together; started by torchrun, they meet here if they have not yet.

    Raises RuntimeError where there are not that many.
    """
    if devices == 1:
        return ALONE
    if not dist.is_initialized() and "WORLD_SIZE" in os.environ:
        dist.init_process_group(_backend())
        atexit.register(dist.destroy_process_group)
    if (there := dist.get_world_size() if dist.is_initialized() else 1) != devices:
        raise RuntimeError(
            f"devices={devices} take as many processes, but there {'is' if there == 1 else 'are'} {there}. Start this "
            f"with `torchrun --nproc-per-node {devices} script.py`, or use `alzoo compare --devices {devices}`"
        )
    return Ranks(dist.get_rank(), devices)


@contextmanager
def meeting(place: Ranks, where: Path) -> Iterator[None]:
    """The ranks of one machine meet, through a file that is not there yet, and are together inside."""
    if place.of == 1:
        yield
        return
    os.environ["LOCAL_RANK"] = str(place.number)
    dist.init_process_group(_backend(), init_method=where.as_uri(), rank=place.number, world_size=place.of)
    yield
    dist.destroy_process_group()  # not after an error: the others may never come


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """That many threads for torch inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
