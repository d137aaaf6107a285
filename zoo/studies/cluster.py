"""A study on a Ray cluster: each cell a task, wherever there is room; this process writes down what they say.

https://docs.ray.io. What a task keeps beside its records (snapshots, TensorBoard, thumbnails) goes into the same folder
on the host it runs on: where all hosts see one, a cell that is taken over goes on from its snapshot, and nothing is
missing from the report.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from zoo.studies.records import Cell, records
from zoo.studies.study import Emit, Line, Study, run_cell


def run_all(study: Study, out: Path, todo: list[Cell], gpus: float | None, emit: Emit) -> None:
    """These cells as tasks of as many cores as the study has threads, and of so many GPUs (a part of one will do).

    On the cluster at $RAY_ADDRESS, or on one of this machine alone. The first error of a task stops all.
    Raises ValueError where ray is not installed.
    """
    try:
        import ray
        from ray.util.queue import Empty, Queue
    except ImportError:
        raise ValueError("the engine ray needs Ray. Install it: pip install 'alzoo[ray]'") from None

    cores = study.threads or 1
    needs = {"num_cpus": cores, "num_gpus": gpus if gpus is not None else float(study.device.startswith("cuda"))}
    before = records(out)
    ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, ignore_reinit_error=True)
    try:
        messages = Queue(actor_options={"num_cpus": 0})
        task = ray.remote(_cell).options(**needs, max_retries=0)
        running = [task.remote(study, out.absolute(), *cell, before[cell], messages) for cell in todo]
        while running:
            try:
                emit(*messages.get(timeout=0.2))
                continue
            except Empty:
                ended, running = ray.wait(running, num_returns=len(running), timeout=0)
            ray.get(ended)  # raises what a task raised
        while not messages.empty():
            emit(*messages.get())
    finally:
        ray.shutdown()


def _cell(study: Study, out: Path, name: str, seed: int, done: list[Line], messages: Any) -> None:
    torch.set_num_threads(study.threads or 1)
    run_cell(study, out, name, seed, done, lambda kind, what: messages.put((kind, what)))
