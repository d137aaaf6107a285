"""A pool larger than the memory it is given: python scripts/big_pool.py [--photos FOLDER] [--out FILE]

Makes a folder of 1,000,000 JPEG files of 32 x 32 pixels (10,000 different ones, each under a hundred names), decodes
it, trains on it and asks, within 2 GiB; all of it in a folder for temporary files, with some 8 GiB of room, that is
removed in the end. Each piece is a process of its own on one thread; what it says goes into a JSON file. Half an hour.

--photos: real JPEG files, how fast these are decoded. --images, --memory: another size, for trying it out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

import zoo
from trainers import folder
from zoo.bench import record
from zoo.device import peak_bytes, threads
from zoo.queries import QUERIES
from zoo.room import holdable

CLASSES, NAMES, ASKED, LABELS, STEPS = 10, 100, 100, 1000, 300
ASKING = ("margin", "entropy", "badge", "kcenter", "typiclust")
WIDE = 2000  # images that resnet18 looks at

Line = dict[str, Any]


def make(photos: Path, images: int) -> None:
    """Class folders of JPEG files, each of whose classes has a colour of its own."""
    chance, each = np.random.default_rng(0), max(1, images // (CLASSES * NAMES))
    for half, names in (("train", NAMES), ("test", 1)):
        for k in range(CLASSES):
            place = photos / half / str(k)
            place.mkdir(parents=True)
            for i in range(each):
                rough = chance.integers(0, 200, (8, 8, 3)) + 55 * (np.arange(3) == k % 3) * (k % 4)
                first = place / f"{i}-0.jpg"
                Image.fromarray(rough.astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC).save(first)
                for other in range(1, names):
                    os.link(first, place / f"{i}-{other}.jpg")


@contextmanager
def measured(lines: list[Line], **what: Any) -> Iterator[Line]:
    """Seconds of this process and its largest size inside, in a line of what was done."""
    line: Line = dict(what)
    with peak_bytes() as peak:
        start = time.process_time()
        yield line
        line |= {"seconds": round(time.process_time() - start, 2), "peak_mib": round(peak() / 2**20)}
    lines.append(line)


def pool_of(photos: Path, memory: str) -> zoo.Pool:
    return zoo.data(f"folder:{photos}", initial=LABELS, seed=0, memory=memory)[0]


def decoding(photos: Path, memory: str, real: Path | None) -> list[Line]:
    """The folder for the first time, and again; real files beside it."""
    lines: list[Line] = []
    for what in ("decode", "open"):
        with measured(lines, what=what) as line:
            line["images"] = len(pool_of(photos, memory))
    if real is not None:
        with measured(lines, what="decode real files") as line:
            found = folder.decode(real, 32)
            line |= {"images": len(found.paths), "bytes": sum(f.bytes for f in folder.list_images(real))}
    return lines


def plain(photos: Path, memory: str) -> list[Line]:
    """Plain training, one look at all images, and questions about what was seen."""
    pool, lines = pool_of(photos, memory), list[Line]()
    learner = zoo.create("margin", seed=0, steps=STEPS)
    with measured(lines, what="fit", learner="plain", images=len(pool), steps=STEPS):
        learner.fit(pool, progress=False)
    scan = learner.scan(pool)
    with measured(lines, what="score", learner="plain", images=len(pool.unlabeled), d=128):
        assert len(scan.logits) == len(pool.unlabeled)
    for name in ASKING:
        vars(scan).pop("logits", None), vars(scan).pop("probs", None)  # each question makes its own of the features
        asking = replace(learner, name=name, query=QUERIES[name], query_settings={})
        try:
            holdable(asking, pool, ASKED)
        except ValueError as refused:
            lines.append({"what": "ask", "query": name, "refused": str(refused)})
            continue
        with measured(lines, what="ask", query=name, images=len(pool.unlabeled), n=ASKED):
            QUERIES[name].ask(scan, ASKED)
    return lines


def own(name: str, photos: Path, memory: str, asking: Line | None = None, **settings: Any) -> list[Line]:
    """An entry or a query, and its question; asking: the settings of that."""
    pool, lines = pool_of(photos, memory), list[Line]()
    game: Line = {"game_steps": STEPS} if name == "vaal" else {}
    learner = zoo.create(name, seed=0, steps=STEPS, query_settings=asking, **game, **settings)
    who = ", ".join([name, *(f"{key}={value}" for key, value in {**settings, **(asking or {})}.items())])
    with measured(lines, what="fit", learner=who, images=len(pool), steps=STEPS):
        learner.fit(pool, progress=False)
    with measured(lines, what="select", learner=who, images=len(pool.unlabeled), n=ASKED):
        learner.select(pool, ASKED)
    return lines


def wide(photos: Path, memory: str) -> list[Line]:
    """What resnet18, of 512 features, makes of some images."""
    pool, lines = pool_of(photos, memory), list[Line]()
    learner = zoo.create("margin", seed=0, steps=2, trunk="resnet18").fit(pool, progress=False)
    scan = learner.scan(pool)
    with measured(lines, what="score", learner="plain, resnet18", images=WIDE, d=512):
        scan.each(scan.task, of=pool.unlabeled[:WIDE])
    return lines


PIECES: dict[str, Callable[..., list[Line]]] = {
    "decoding": decoding,
    "plain": lambda photos, memory, _: plain(photos, memory),
    "vaal": lambda photos, memory, _: own("vaal", photos, memory),
    "waal": lambda photos, memory, _: own("waal", photos, memory),
    "narrow": lambda photos, memory, _: own("typiclust", photos, memory, {"features": "task"}, width=8),
    "wide": lambda photos, memory, _: wide(photos, memory),
}


def main() -> None:
    say = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say.add_argument("--images", type=int, default=1_000_000)
    say.add_argument("--memory", default="2GiB")
    say.add_argument("--photos", type=Path, help="real JPEG files, for how fast they are decoded")
    say.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "big_pool.json")
    say.add_argument("--piece", nargs=2, help=argparse.SUPPRESS)  # its name, and the folder: this process's own
    given = say.parse_args()
    if given.piece is not None:
        with threads(1):
            sys.stdout.write(json.dumps(PIECES[given.piece[0]](Path(given.piece[1]), given.memory, given.photos)))
        return
    if given.out.exists():
        raise SystemExit(f"{given.out} exists. Give another file with --out")
    lines: list[Line] = []
    with TemporaryDirectory() as place, threads(1):
        make(photos := Path(place) / "photos", given.images)
        for piece in PIECES:
            words = [sys.executable, __file__, "--memory", given.memory, "--piece", piece, str(photos)]
            words += ["--photos", str(given.photos)] if given.photos else []
            home = {**os.environ, "ALZOO_HOME": f"{place}/home", "OMP_NUM_THREADS": "1"}
            said = subprocess.run(words, env=home, stdout=subprocess.PIPE, text=True, check=True)
            lines += (new := json.loads(said.stdout))
            sys.stderr.write("".join(f"{line}\n" for line in new))
        about = {name: value for name, value in record([]).items() if name not in ("figures", "growth")}
    out = {**about, "images": given.images, "memory": given.memory, "pieces": lines}
    given.out.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
