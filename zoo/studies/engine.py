"""Running a study: processes that take cells, a learner and a seed each, that nobody else has.

A process that ends, however it ends, lets go of its cell; the next one to look goes on with it, from its snapshot. So
it does not matter how many processes there are, on which hosts, and when they come and go:

local   this process, or worker processes of it, and nobody else in the folder
shared  this process beside any number of others like it, on every host that sees the folder (see `locks`)
ray     tasks of a Ray cluster (see `cluster`); this process writes down what they say
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch

from trainers.ranks import ALONE, Ranks, agreed
from zoo.device import meeting, threads
from zoo.naming import pick
from zoo.studies import cluster, fits, measures
from zoo.studies.cell import Emit, run_cell
from zoo.studies.files import put
from zoo.studies.locks import held
from zoo.studies.records import Cell, append, images_of, records, unfinished, writing
from zoo.studies.study import Line, Study, cells, hushed, prepare

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from rich.console import Console

ENGINES = ("local", "shared", "ray")


def run(study: Study, out: Path | None = None, *, engine: str = "local", workers: int | None = None) -> Path:
    """Run a study, or what is left of it, and return its folder.

    out: by default `study.folder()`. engine: one of ENGINES. workers: processes, by default one a core, and one in
    all on a GPU or beside others.
    Raises, before anything is trained: what `prepare` raises, and FileExistsError for a folder that holds something
    else, or in which this study is running already.
    """
    study = prepare(study)
    out = study.folder() if out is None else out
    execute(study, out, engine=engine, workers=workers)
    return out


def execute(
    study: Study,
    out: Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    gpus: float | None = None,
    console: Console | None = None,
) -> list[Cell]:
    """`run` for a study that `prepare` has been over. Gives the cells that others are at: with none, all is done.

    gpus: that each cell takes of one, on a Ray cluster.
    """
    check(study, engine, workers, gpus)
    with claimed(study, out, alone=engine != "shared") as ours, _watching(ours, out, console) as watch:
        if seeds := [seed for (_, seed), lines in records(out).items() if lines]:
            with hushed():
                images_of(out, min(seeds), *ours.pool(min(seeds)))  # else what is done would be shown for other images
        left = unfinished(ours, out)
        while left:
            several = min(workers or usual(ours, engine), len(left))
            if engine == "ray":
                cluster.run_all(ours, out, left, float(cuda(ours)) if gpus is None else gpus, _recording(out, watch))
            elif several * (ours.devices or 1) > 1:
                _in_processes(ours, out, several, watch)
            else:
                with threads(ours.threads or 1):
                    work(ours, out, watch)
            left = unfinished(ours, out)
            if engine == "shared":
                break
            if left:
                time.sleep(0.2)  # a worker of a run that was killed has not noticed yet
        if not left:
            shutil.rmtree(out / "cells", ignore_errors=True)  # what was kept of rounds that were going on
    return left


def check(study: Study, engine: str, workers: int | None = None, gpus: float | None = None) -> None:
    """Raises UnknownName for an engine that there is not, and ValueError for what does not go with one."""
    pick(dict.fromkeys(ENGINES), engine, "engine")
    several, ray = (study.devices or 1) > 1, engine == "ray"
    senseless = [
        (several and ray, f"devices={study.devices} train one fit together on this machine: use the engine local"),
        (several and (workers or 1) > 1, f"devices={study.devices} train one fit together: 1 worker, not {workers}"),
        (ray and workers is not None, f"workers={workers}, but a Ray cluster runs as many cells as it has room for"),
        (not ray and gpus is not None, f"gpus={gpus} of each cell are for the engine ray, not {engine}"),
    ]
    for fails, why in senseless:
        if fails:
            raise ValueError(why)
    if ray:
        cluster.library()


def cuda(study: Study) -> bool:
    """Whether its networks are trained on a GPU."""
    return study.device.startswith("cuda") or (study.device == "auto" and torch.cuda.is_available())


def usual(study: Study, engine: str) -> int:
    """How many worker processes there are where nobody says."""
    if cuda(study) or engine == "shared" or (study.devices or 1) > 1:
        return 1
    return max(1, (os.cpu_count() or 1) // (study.threads or 1))


@contextmanager
def claimed(study: Study, out: Path, alone: bool = True) -> Iterator[Study]:
    """The folder is this study's, and nobody else writes into it, or only others that share it too.

    Gives the study as it stands in the folder: all go on with the threads it began with.
    Raises FileExistsError for another study's folder, and for one that others have to themselves.
    """
    claim(study, out)
    with held(out / ".lock", shared=not alone) as ours:
        if not ours:
            others = "another process" if alone else "a process that does not share it"
            share = "start all with --engine shared, " if alone else ""
            raise FileExistsError(f"{out} is being written by {others}. Wait, {share}or give another --out")
        with writing(out):
            study = claim(study, out)  # another may have been first
            for torn in out.glob(".study.toml.*"):
                torn.unlink()
            put(out / "study.toml", study.toml().encode())
        yield study


def claim(study: Study, out: Path) -> Study:
    """The study as it stands in the folder. Raises FileExistsError for a folder that holds anything else."""
    written = out / "study.toml"
    if study.data.startswith("folder:"):
        folder = Path(study.data.removeprefix("folder:")).expanduser()
        for images in [folder] if study.test_share is not None else [folder / "train", folder / "test"]:
            if out.resolve().is_relative_to(images.resolve()):
                raise FileExistsError(
                    f"{out} lies in {images}, whose folders are classes. Give a folder elsewhere with --out"
                )
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file. Give a folder with --out")
    if not written.exists():
        if out.exists() and any(not p.name.startswith(".") for p in out.iterdir()):
            raise FileExistsError(f"{out} holds files that are no study. Give another folder with --out")
        return study
    study = replace(study, threads=measures.settings(out).get("threads", study.threads))
    if written.read_text() != study.toml():
        raise FileExistsError(f"{out} holds another study (see {written}). Give another folder with --out")
    return study


def work(study: Study, out: Path, watch: Emit, ranks: Ranks = ALONE) -> None:
    """One cell after the other that nobody has, until none is free. Of several ranks the first one takes them."""
    emit = _recording(out, watch) if ranks.first else lambda *_: None
    while True:
        with _next(study, out) if ranks.first else nullcontext() as taken:
            cell = agreed(ranks, lambda taken=taken: taken)  # type: ignore[misc]
            if cell is None:
                return
            name, seed, done = cell
            run_cell(study, out, name, seed, done, emit)
            if ranks.first and all(of != seed for _, of in unfinished(study, out)):
                shutil.rmtree(fits.folder(out, seed), ignore_errors=True)


@contextmanager
def _next(study: Study, out: Path) -> Iterator[tuple[str, int, list[Line]] | None]:
    """A cell that is nobody's and not done, ours inside, with its records so far; None where there is none.

    First one of a seed that nobody else is at: what learners of a seed come to alike is then there for the next.
    """
    left = unfinished(study, out)
    for apart in (True, False):
        for name, seed in left:
            with held(out / ".locks" / f"seed{seed}") as alone, held(out / ".locks" / f"{name}-seed{seed}") as ours:
                if ours and (alone or not apart) and len(done := records(out)[name, seed]) <= study.rounds:
                    yield name, seed, done
                    return
    yield None


def _recording(out: Path, watch: Emit) -> Emit:
    """Records are written down, then shown, as is all else."""

    def emit(kind: str, what: Line) -> None:
        if kind == "record":
            append(out, what)
        watch(kind, what)

    return emit


@contextmanager
def _watching(study: Study, out: Path, console: Console | None) -> Iterator[Emit]:
    """One bar for the rounds of the whole study, and one for each fit that is going on; nothing off a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    if console is None or not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        before = sum(len(cell) for cell in records(out).values())
        rounds = bars.add_task("rounds", total=len(cells(study)) * (study.rounds + 1), completed=before)
        fits: dict[Cell, TaskID] = {}

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


def _in_processes(study: Study, out: Path, workers: int, watch: Emit) -> None:
    """Worker processes that take cells, or the ranks of one. The first error of any stops all."""
    devices = study.devices or 1
    places = [Ranks(number, devices) for number in range(devices)] * workers
    spawn = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, Line]] = spawn.Queue()
    start = (messages, study.threads or 1)
    with (
        tempfile.TemporaryDirectory() as nearby,
        ProcessPoolExecutor(len(places), spawn, initializer=_begin, initargs=start) as pool,
    ):
        working = [pool.submit(_work, study, out, place, Path(nearby) / "ranks") for place in places]
        try:
            while not all(future.done() for future in working):
                with suppress(Empty):
                    watch(*messages.get(timeout=0.2))
                for future in working:
                    if future.done():
                        future.result()  # raises what the worker raised
        except BrokenProcessPool:
            raise OSError("a worker process was killed, for want of memory perhaps. Start again to go on") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        for future in working:
            future.result()


_messages: Any = None  # of a worker process: where it says what it has done


def _begin(messages: Queue[tuple[str, Line]], threads: int) -> None:
    global _messages  # noqa: PLW0603 (a process pool has no other way to hand a queue to its workers)
    _messages = messages
    messages.cancel_join_thread()  # what is said is for a bar; nobody waits for it
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    torch.set_num_threads(threads)


def _end_with(parent: Any) -> None:
    """The end of this process where its parent's comes first."""
    parent.join()
    os._exit(1)


def _work(study: Study, out: Path, place: Ranks, where: Path) -> None:
    with meeting(place, where):
        work(study, out, lambda kind, what: _messages.put((kind, what)), place)
