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
    """The commit of alzoo's own checkout; nothing where it is installed from a wheel, or where there is no git."""
    here, ask = Path(__file__).resolve().parents[2], ["git", "rev-parse", "--show-toplevel", "HEAD"]
    try:
        said = subprocess.run(ask, cwd=here, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
    top, _, head = said.strip().partition("\n")
    return head if top and Path(top).resolve() == here else ""  # it may lie in somebody else's repository
