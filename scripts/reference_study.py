"""The project's own fair comparison: every entry, the strongest queries, and the controls that split a gain in two.

usage: reference_study.py tune    # a few settings of every learner, judged on a validation split of the pool
       reference_study.py run     # the comparison itself, on the test images
       options: --part digits (one of PARTS; by default all in turn), --data mnist=folder:PATH (where it lies unpacked),
                --workers 2, --device auto, --work FOLDER,
                --minutes 150 (stop then, with status 75: the same command goes on),
                --resume (go on from what --out has of this very study, on whatever machine it was run, and keep there
                what has been done by the time it stops),
                --learner aral (tune this one anew, beside what there is of the others; run it and its controls anew,
                with --resume, in another --work than before: its settings may have changed since),
                --size published (the papers' trunks, on a GPU), --out scripts/results

Settings are chosen on images that are taken out of the pool, the test images unseen, with as many trials for everybody,
random included (`trials.toml`). What came of it lies in `tuning/PART.jsonl`, one line for each learner and trial; the
settings that won are frozen in the plans by hand. The comparison lies in `reference/PART/`, as `keep.py` keeps it.
"""

import argparse
import json
import signal
import sys
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from keep import anywhere, keep
from rich.console import Console

from zoo.studies import engine, measures, statistics
from zoo.studies.files import put
from zoo.studies.records import append, records, unfinished
from zoo.studies.study import Study, prepare

ROOT = Path(__file__).parents[1]
GOES_ON = 75  # the exit status of a run that has stopped in between
ENTRIES = ("vaal", "ta_vaal", "llal", "aral", "waal", "gaal", "bgadl", "ceal", "ssal")
QUERIES = ("random", "margin", "entropy", "bald", "badge", "kcenter", "typiclust")
ALL = (*ENTRIES, *QUERIES)
UNEVEN = ("ta_vaal", "aral", "waal", "ssal", "vaal", "llal", *QUERIES)  # who claims imbalanced pools, and the queries

PARTS: Mapping[str, Study] = {  # controls double the work, and the uneven pool goes without
    "digits": Study(data="digits", learners=ALL, controls=True, initial=40, budget=40, rounds=5, seeds=10),
    "mnist": Study(
        data="mnist", learners=ALL, controls=True, subset=10_000, initial=100, budget=100, rounds=4, seeds=5
    ),
    "cifar10": Study(
        data="cifar10", learners=ALL, controls=True, subset=10_000, initial=500, budget=500, rounds=4, seeds=3
    ),
    "cifar10-alternating": Study(
        data="cifar10",
        learners=UNEVEN,
        imbalance="alternating:10",
        subset=18_000,
        initial=500,
        budget=500,
        rounds=4,
        seeds=3,
    ),
}
PUBLISHED = {"trunk": "resnet18"}  # with --size published


class Enough(BaseException):
    """The minutes are over."""


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("what", choices=("tune", "run"))
    ask.add_argument("--part", action="append", choices=PARTS)
    ask.add_argument("--learner", action="append")
    ask.add_argument("--data", action="append", default=[], metavar="NAME=folder:PATH")
    ask.add_argument("--minutes", type=float, default=float("inf"))
    ask.add_argument("--resume", action="store_true")
    ask.add_argument("--workers", type=int)
    ask.add_argument("--device", default="auto")
    ask.add_argument("--size", choices=("narrow", "published"), default="narrow")
    ask.add_argument("--work", type=Path, default=ROOT / "build" / "reference", help="the runs themselves")
    ask.add_argument("--out", type=Path, default=ROOT / "scripts" / "results")
    given = ask.parse_args()
    if given.what == "run" and given.learner and not given.resume:
        ask.error("--learner runs a learner anew beside what is kept of the others: give --resume, too")
    elsewhere = dict(each.split("=", 1) for each in given.data)
    try:
        with limited(60 * given.minutes):
            for part in given.part or PARTS:
                study = replace(PARTS[part], device=given.device, threads=1)
                if study.data in elsewhere:
                    study = replace(
                        study,
                        data=elsewhere[study.data],
                        notes=(f"{elsewhere[study.data]} stands in for {study.data}",),
                    )
                if given.size == "published":
                    study = replace(study, settings={name: dict(PUBLISHED) for name in study.learners})
                if given.what == "tune":
                    study = replace(study, learners=tuple(given.learner or study.learners))
                    tune(part, study, given.work, given.out, given.workers)
                else:
                    run(
                        part, study, given.work, given.out, given.workers, resume=given.resume, anew=given.learner or ()
                    )
    except Enough:
        sys.stdout.write("not done yet; the same command goes on\n")
        sys.exit(GOES_ON)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Enough inside once so much time has gone by."""

    def ring(*_: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0 if seconds == float("inf") else seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    part: str,
    study: Study,
    work: Path,
    out: Path,
    workers: int | None,
    *,
    resume: bool = False,
    anew: Collection[str] = (),
) -> None:
    """The comparison of one part; if it is to resume, without what is kept of it, but for the learners anew."""
    directory, place = work / part, out / "reference" / part
    if resume and place.exists():
        take_up(prepare(study), directory, place, anew)
    try:
        carried_out(study, directory, workers)
    except Enough:
        if resume and (directory / "results.jsonl").exists():
            keep(directory, place)
        raise
    keep(directory, place)


def take_up(study: Study, directory: Path, place: Path, anew: Collection[str]) -> None:
    """Put the cells that are done, of those kept at `place`, into the folder of a run, but for the learners anew.

    A setting that the kept study does not name is one that came later, and its default is what was done before.
    Raises FileExistsError where another study is kept there, or lies in the folder.
    """

    def again(learner: str) -> bool:
        return not {*anew}.isdisjoint(learner.split("+"))

    with engine.claimed(study, directory) as ours:
        here, there = (
            tomllib.loads(text) for text in (anywhere(ours.toml(), ours.data), (place / "study.toml").read_text())
        )
        mine, theirs = here.pop("learner"), there.pop("learner")
        if here != there or mine.keys() != theirs.keys():
            other = ", ".join(sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key)))
            raise FileExistsError(
                f"{place} keeps another study than {directory} ({other or 'other learners'}). Give the same options, "
                "another --out, or no --resume"
            )
        kept_as = {name: {**mine[name], **table} for name, table in theirs.items()}  # who has a setting it did not name
        if moved := [name for name in mine if mine[name] != kept_as[name] and not again(name)]:
            raise FileExistsError(
                f"{place} keeps {', '.join(moved)} with other settings. Run them anew: --learner NAME"
            )
        left, kept = unfinished(ours, directory), records(place)
        for cell in left:
            if len(kept[cell]) > ours.rounds and not again(cell[0]):
                for record in kept[cell]:
                    append(directory, record)


def tune(part: str, study: Study, work: Path, out: Path, workers: int | None) -> None:
    """The trials of these learners on one part, judged on a fifth of the pool that is held out for it."""
    trials = tomllib.loads((ROOT / "scripts" / "trials.toml").read_text())
    lines, some = out / "tuning" / f"{part}.jsonl", study.learners != PARTS[part].learners
    which = "".join(f"-{name}" for name in study.learners if some)
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    found = [line for line in found if line["learner"] not in study.learners]
    for number in range(len(trials["random"])):
        settings = {name: {**study.settings.get(name, {}), **trials[name][number]} for name in study.learners}
        trial = replace(study, validation=0.2, seeds=2, rounds=1, settings=settings, diagnose=(), controls=False)
        directory = carried_out(trial, work / "tuning" / f"{part}-{number}{which}", workers)
        runs = measures.complete(measures.read(directory / "results.jsonl"))
        for name in study.learners:
            areas = [statistics.area(of) for of in runs[name].values()]
            took = [record.fit_seconds or 0.0 for of in runs[name].values() for record in of]
            found.append(
                {
                    "learner": name,
                    "trial": number,
                    "settings": trials[name][number],
                    "aubc": round(sum(areas) / len(areas), 6),
                    "areas": [round(area, 6) for area in areas],
                    "fit_seconds": round(sum(took) / len(took), 2),
                }
            )
    found.sort(key=lambda line: (PARTS[part].learners.index(line["learner"]), line["trial"]))
    put(lines, "".join(json.dumps(line) + "\n" for line in found).encode())


def carried_out(study: Study, directory: Path, workers: int | None) -> Path:
    """The folder of the study, once all of it is there."""
    began = time.monotonic()
    engine.execute(prepare(study), directory, workers=workers, console=Console(stderr=True))
    sys.stdout.write(f"{directory}: {time.monotonic() - began:.0f} s\n")
    return directory


if __name__ == "__main__":
    main()
