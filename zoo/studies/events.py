"""TensorBoard's files of a run, made again from its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.journal import tensorboard
from zoo.studies.measures import Record


def write(directory: Path, records: Sequence[Record]) -> None:
    """Accuracy over labels of each learner and seed that has no folder under `tb`; what a study wrote there is kept."""
    runs: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        runs.setdefault((record.learner, record.seed), []).append(record)
    for (learner, seed), run in runs.items():
        folder = directory / "tb" / learner / f"seed{seed}"
        no_folder = Path(learner).name != learner or learner == ".." or len(learner.encode()) > 255
        if no_folder or folder.exists():
            continue
        with tensorboard(folder) as write:
            for record in sorted(run, key=lambda record: record.round):
                write("al/accuracy", record.accuracy, record.labels)
