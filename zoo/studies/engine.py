"""Running a study on this machine: worker processes, one place that writes, and a bar to watch."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import torch

from zoo.studies.files import put
from zoo.studies.study import Emit, Line, Study, cells, prepare, run_cell

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from rich.console import Console


def run(study: Study, out: Path | None = None, *, workers: int | None = None, console: Console | None = None) -> Path:
    """Run a study, or what is left of it, and return its folder.

    out: by default `study.folder()`. workers: processes, by default one a core (one in all on a GPU).
    Raises, before anything is trained: what `prepare` raises, and FileExistsError for a folder that holds something
    else, or in which this study is running already.
    """
    study = prepare(study)
    return execute(study, study.folder() if out is None else out, workers=workers, console=console)


def execute(study: Study, out: Path, *, workers: int | None = None, console: Console | None = None) -> Path:
    """`run` for a study that `prepare` has been over."""
    with claimed(study, out) as ours:
        study, done = ours, _done(out)
        todo = [(name, seed) for name, seed in cells(study) if len(done[name, seed]) <= study.rounds]
        cuda = study.device.startswith("cuda") or (study.device == "auto" and torch.cuda.is_available())
        workers = min(workers or (1 if cuda else max(1, (os.cpu_count() or 1) // (study.threads or 1))), len(todo))
        with _writing(out) as write, _watching(study, done, console) as watch:

            def emit(kind: str, what: Line) -> None:
                if kind == "record":
                    write(what)
                watch(kind, what)

            if workers == 1:
                with threads(study.threads or 1):
                    for name, seed in todo:
                        run_cell(study, out, name, seed, done[name, seed], emit)
            elif todo:
                _in_processes(study, out, todo, done, workers, emit)
        shutil.rmtree(out / "cells", ignore_errors=True)  # what was kept of rounds that were going on
    return out


@contextmanager
def claimed(study: Study, out: Path) -> Iterator[Study]:
    """The folder is this study's, and nobody else is writing into it. Raises FileExistsError otherwise.

    Gives the study as it stands in the folder: it goes on with the threads it began with.
    """
    from filelock import FileLock, Timeout

    study = claim(study, out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            for torn in out.glob(".study.toml.*"):
                torn.unlink()
            put(out / "study.toml", study.toml().encode())
            yield study
    except Timeout:
        raise FileExistsError(f"{out} is being written by another process. Wait, or give another --out") from None


def claim(study: Study, out: Path) -> Study:
    """The study as it stands in the folder. Raises FileExistsError for a folder that holds anything else."""
    written = out / "study.toml"
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file. Give a folder with --out")
    if not written.exists():
        if out.exists() and any(not p.name.startswith(".") for p in out.iterdir()):
            raise FileExistsError(f"{out} holds files that are no study. Give another folder with --out")
        return study
    study = replace(study, threads=tomllib.loads(written.read_text()).get("threads", study.threads))
    if written.read_text() != study.toml():
        raise FileExistsError(f"{out} holds another study (see {written}). Give another folder with --out")
    return study


def _done(out: Path) -> defaultdict[tuple[str, int], list[Line]]:
    """The records of each cell, as far as they follow one another from round 0; a torn last line is cut off."""
    done: defaultdict[tuple[str, int], list[Line]] = defaultdict(list)
    path = out / "results.jsonl"
    if not path.exists():
        return done
    whole = path.read_bytes()
    if torn := len(whole) - (whole.rfind(b"\n") + 1):
        with path.open("r+b") as file:
            file.truncate(len(whole) - torn)
    for number, line in enumerate(whole[: len(whole) - torn].splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            raise ValueError(f"{path}, line {number} is damaged. Delete that line and run the study again") from None
        cell = done[record["learner"], record["seed"]]
        if record["round"] == len(cell):
            cell.append(record)
    return done


@contextmanager
def _writing(out: Path) -> Iterator[Callable[[Line], None]]:
    """A function that appends a record, so that it is on the disk when it returns."""
    with (out / "results.jsonl").open("a", encoding="utf-8") as file:

        def write(record: Line) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

        yield write


@contextmanager
def _watching(study: Study, done: defaultdict[tuple[str, int], list[Line]], console: Console | None) -> Iterator[Emit]:
    """One bar for the rounds of the whole study, and one for each fit that is going on; nothing off a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    if console is None or not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        before = sum(len(cell) for cell in done.values())
        rounds = bars.add_task("rounds", total=len(cells(study)) * (study.rounds + 1), completed=before)
        fits: dict[tuple[str, int], TaskID] = {}

        def watch(kind: str, what: Line) -> None:
            cell = what["learner"], what["seed"]
            if kind == "record":
                bars.advance(rounds)
                if cell in fits:
                    bars.remove_task(fits.pop(cell))
            else:
                stage, n, steps = what["done"]
                label = f"  {what['learner']} seed {what['seed']} round {what['round']} {stage}"
                if cell not in fits:
                    fits[cell] = bars.add_task(label)
                bars.update(fits[cell], description=label, completed=n, total=steps)

        yield watch


@contextmanager
def threads(number: int) -> Iterator[None]:
    """That many threads for torch inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_processes(
    study: Study,
    out: Path,
    todo: list[tuple[str, int]],
    done: defaultdict[tuple[str, int], list[Line]],
    workers: int,
    emit: Emit,
) -> None:
    """The cells in worker processes; what they emit is emitted here. The first error of a worker stops the study."""
    spawn = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, Line]] = spawn.Queue()
    with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(messages, study.threads or 1)) as pool:
        running = {cell: pool.submit(_cell, study, out, *cell, done[cell]) for cell in todo}
        try:
            while running:
                with suppress(Empty):
                    kind, what = messages.get(timeout=0.2)
                    if kind == "end":
                        del running[what["learner"], what["seed"]]
                    else:
                        emit(kind, what)
                for future in running.values():
                    if future.done():
                        future.result()  # raises what the worker raised
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


_messages: Any = None  # of a worker process: where it says what it has done


def _begin(messages: Queue[tuple[str, Line]], threads: int) -> None:
    global _messages  # noqa: PLW0603 (a process pool has no other way to hand a queue to its workers)
    _messages = messages
    torch.set_num_threads(threads)


def _cell(study: Study, out: Path, name: str, seed: int, done: list[Line]) -> None:
    parent = multiprocessing.parent_process()

    def emit(kind: str, what: Line) -> None:
        if parent is not None and not parent.is_alive():
            os._exit(1)  # nobody is left to write this down
        _messages.put((kind, what))

    run_cell(study, out, name, seed, done, emit)
    emit("end", {"learner": name, "seed": seed})
