"""A study on a Ray cluster: each cell a task, wherever there is room; this process writes down what they say.

https://docs.ray.io. What a task keeps beside its records (snapshots, TensorBoard, thumbnails) goes into the same folder
on the host it runs on: where all hosts see one, a cell that is taken over goes on from its snapshot, and nothing is
missing from the report.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from zoo.studies.cell import Emit, run_cell
from zoo.studies.records import Cell, records
from zoo.studies.study import Line, Study


def library() -> Any:
    """Ray. Raises ValueError where it is not installed."""
    try:
        import ray
        import ray.util.queue
    except ImportError:
        raise ValueError("the engine ray needs Ray. Install it: pip install 'alzoo[ray]'") from None
    return ray


def run_all(study: Study, out: Path, todo: list[Cell], gpus: float, emit: Emit) -> None:
    """These cells as tasks, each of as many cores as the study has threads, and of so many GPUs (a part of one, too).

    On the cluster at $RAY_ADDRESS, where alzoo is installed, or else on this machine. The first error stops all.
    """
    ray, before = library(), records(out)
    ray.init(log_to_driver=False, include_dashboard=False)  # knows the address itself
    try:
        messages = ray.util.queue.Queue(actor_options={"num_cpus": 0})
        task = ray.remote(_cell).options(num_cpus=study.threads or 1, num_gpus=gpus, max_retries=0)
        running = [task.remote(study, out.absolute(), *cell, before[cell], messages) for cell in todo]
        while running:
            with suppress(ray.util.queue.Empty):
                emit(*messages.get(timeout=0.2))
                continue
            ended, running = ray.wait(running, num_returns=len(running), timeout=0)
            ray.get(ended)  # raises what a task raised
        while not messages.empty():
            emit(*messages.get())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        ray.shutdown()


def _cell(study: Study, out: Path, name: str, seed: int, done: list[Line], messages: Any) -> None:
    torch.set_num_threads(study.threads or 1)
    run_cell(study, out, name, seed, done, lambda kind, what: messages.put((kind, what)))
