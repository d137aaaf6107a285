"""The records of a study, written by one process or by many: one line of JSON each, in results.jsonl."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path

import torch

from trainers.pool import Pool, digest
from zoo.datasets import Test
from zoo.studies.locks import held
from zoo.studies.study import Line, Study, cells

Cell = tuple[str, int]  # a learner and a seed


def writing(out: Path) -> AbstractContextManager[bool]:
    """Nobody else writes into what all share: results.jsonl, study.toml, the report. Waits for that, never long."""
    return held(out / ".locks" / "writing", wait=True)


def append(out: Path, record: Line) -> None:
    """One more record, on the disk when this returns. What a killed process left of a line is cut off before it."""
    with writing(out), (out / "results.jsonl").open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def records(out: Path) -> defaultdict[Cell, list[Line]]:
    """The records of each cell, as far as they follow one another from round 0, and but for a last line without end."""
    done: defaultdict[Cell, list[Line]] = defaultdict(list)
    path = out / "results.jsonl"
    if not path.exists():
        return done
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            cell, here, _ = done[record["learner"], record["seed"]], record["round"], record["ticks"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}, line {number} is damaged. Delete that line and run the study again") from None
        if here == len(cell):
            cell.append(record)
    return done


def unfinished(study: Study, out: Path) -> list[Cell]:
    """The cells that lack a round."""
    done = records(out)
    return [cell for cell in cells(study) if len(done[cell]) <= study.rounds]


def images_of(out: Path, seed: int, pool: Pool, test: Test) -> str:
    """A name for the images of a seed and for what they show.

    Raises FileExistsError where its records are of others: the folder they lie in has changed since.
    """
    told = pool.oracle(torch.arange(len(pool)))
    name = blake2b(repr(pool.names).encode(), digest_size=8)
    for part in (pool.digest, digest(test.images), *(each.numpy().tobytes() for each in (told, test.targets))):
        name.update(part)
    images = name.hexdigest()
    for (learner, of), lines in records(out).items():
        if of == seed and any(line.get("images", images) != images for line in lines):
            raise FileExistsError(
                f"{out} has records of {learner}, seed {seed}, on other images: they have changed since. "
                "Put back those that there were, or give another folder with --out"
            )
    return images
