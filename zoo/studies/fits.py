"""What several learners of a study come to alike is made once: equal fits, and equal pretexts.

Learners that differ only in what they ask have the same networks in round 0. And plain+ENTRY is told what ENTRY is
told, so that the entry's part of each of its fits has been made before. No result depends on it: who finds nothing
here makes it. A pretext also lies here for whoever goes on where a process was killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save

import checkpoints
from trainers.pool import Pool
from trainers.run import Journal, Watch
from zoo.learner import Learner
from zoo.studies.files import put
from zoo.studies.study import Line, Study


class Fits:
    """The fits of one cell. Of several ranks, each makes all of them."""

    def __init__(self, study: Study, out: Path, name: str, seed: int, pool: Pool) -> None:
        self.cells, self.folder, self.alone = out / "cells", folder(out, seed), (study.devices or 1) == 1
        self.awaited = awaited(study, name, pool) if self.alone else 0

    def fit(
        self, learner: Learner, pool: Pool, journal: Journal, watch: Watch, snapshot: Path, peak: Callable[[], int]
    ) -> tuple[Learner, Line]:
        """The learner, fitted to the pool, and the seconds and the most bytes that took, now or when it was made."""
        own, twin, lines = replace(learner, twin=None), learner.twin, []

        def noting(name: str, value: float, step: int) -> None:
            lines.append((name, value, step))
            journal(name, value, step)

        start = time.perf_counter()
        if spent := self.taken(own, pool):
            start -= spent["seconds"]
            for line in spent["lines"]:
                journal(*line)
        else:
            own.fit(pool, journal=noting, progress=watch, snapshot=snapshot)
            spent = {"seconds": time.perf_counter() - start, "bytes": peak(), "ticks": own.ticks, "lines": lines}
            self.keep(own, pool, spent)
        if twin is not None:
            twin.fit(pool, progress=watch, snapshot=snapshot.with_suffix(".twin"))
        took = {"fit_seconds": round(time.perf_counter() - start, 4), "peak_bytes": max(spent["bytes"], peak())}
        return replace(own, twin=twin), took

    def taken(self, learner: Learner, pool: Pool) -> Line | None:
        """What was noted of an equal fit, the learner filled with its networks; else None, with an equal pretext."""
        if not self.alone:
            return None
        path = self.folder / f"{learner.fit_key(pool)}.json"
        if path.exists():
            spent: Line = json.loads(path.read_text())
            learner.filled(*checkpoints.read(path.with_suffix(".safetensors")))
            learner.ticks = spent["ticks"]
            return spent
        if learner.entry.pretext is not None and (path := self.pretext(key := learner.pretext_key(pool))).exists():
            learner.begun = key, load_file(path)
        return None

    def keep(self, learner: Learner, pool: Pool, spent: Line) -> None:
        """What others will come to."""
        if self.alone and learner.begun is not None and not (path := self.pretext(learner.begun[0])).exists():
            put(path, save({name: value.contiguous() for name, value in learner.begun[1].items()}))
        if len(pool.rounds) <= self.awaited:
            path = self.folder / f"{learner.fit_key(pool)}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            learner.save(path.with_suffix(".safetensors"), overwrite=True)
            put(path, json.dumps(spent).encode())  # last: now it is all there

    def pretext(self, key: str) -> Path:
        """Where a pretext lies."""
        return self.cells / f"pretext-{key}.safetensors"


def folder(out: Path, seed: int) -> Path:
    """Where the fits of a seed lie while any of its cells goes on."""
    return out / "cells" / f"fits-seed{seed}"


def awaited(study: Study, name: str, pool: Pool) -> int:
    """In how many of its rounds, from round 0 on, this learner makes fits that another one comes to later."""
    key = study.learner(name, 0, pool).fit_key(pool)
    alike = [other for other in study.learners if study.learner(other, 0, pool).fit_key(pool) == key]
    return study.rounds + 1 if f"plain+{name}" in alike else min(len(alike) - 1, 1)
