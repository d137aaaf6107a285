"""What a record or a figure was made by, and on."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """What a record was made by and on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("alzoo", "torch", "torchvision", "timm", "numpy")},
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}",
        "commit": commit(),
    }


@cache
def commit() -> str:
    """The commit of alzoo's own checkout, or nothing where it is installed from a wheel."""
    here = Path(__file__).parent
    out = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return out.stdout.strip()
