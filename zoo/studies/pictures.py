"""What the page shows as pictures: the images asked, maps of the pool, and confusions of classes."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.studies import maps, measures
from zoo.studies.measures import Record

BUDGET = 1_100_000  # bytes of all contact sheets of a page, before base64 makes them a third larger
COLUMNS = 16  # images in a row of a contact sheet
NUMBERED = 12  # classes up to which a confusion is a table of numbers
Learners = Sequence[str] | None


def galleries(directory: Path, records: Sequence[Record], learners: Learners) -> list[dict[str, Any]]:
    """What each learner asked, round by round, with its first seed: contact sheets, scores, counts per class."""
    found: list[dict[str, Any]] = []
    for learner in measures.order(records, learners):
        own = [record for record in records if record.learner == learner]
        seed = min((record.seed for record in own), default=0)
        rounds = [
            {
                "record": record,
                "path": directory / "asked" / learner / f"seed{seed}-round{record.round}.png",
                "counts": list(record.asked_classes or ()),
                **shares(record.asked_classes or ()),
            }
            for record in sorted((record for record in own if record.seed == seed), key=lambda record: record.round)
        ]
        found.append({"learner": learner, "seed": seed, "rounds": rounds})
    sheets = sum(os.path.isfile(entry["path"]) for gallery in found for entry in gallery["rounds"])
    for gallery in found:
        for entry in gallery["rounds"]:
            entry["sheet"] = sheet(entry.pop("path"), entry["record"], BUDGET // max(1, sheets))
    return [gallery for gallery in found if any(e["sheet"] or sum(e["counts"]) for e in gallery["rounds"])]


def shares(counts: Sequence[int]) -> dict[str, Any]:
    total, most = sum(counts) or 1, max(counts, default=0) or 1
    return {"shares": [count / total for count in counts], "heat": [round(count / most, 3) for count in counts]}


def sheet(path: Path, record: Record, most: int) -> dict[str, Any] | None:
    """A contact sheet as a data URI of at most some `most` bytes: where it is larger as WebP, then with fewer rows."""
    from PIL import Image, UnidentifiedImageError

    if not os.path.isfile(path):  # unlike pathlib's, False for a name too long for the file system
        return None
    try:
        with Image.open(path) as file:
            image = file.convert("RGB") if file.mode not in ("L", "RGB") else file.copy()
    except (UnidentifiedImageError, OSError):
        return None
    count = min(64, len(record.asked) or len(record.scores or ()))
    columns = min(COLUMNS, count) or 1
    tile, apart = divmod(image.width - 1, columns)
    rows = math.ceil(count / columns)
    high = (image.height - 1) // max(1, rows)
    content, kind = path.read_bytes(), "png"
    while len(content) > most:
        if kind == "webp":  # and still too large
            if rows == 1:
                break
            rows = (rows + 1) // 2
            image = image.crop((0, 0, image.width, rows * high + 1))
        out = io.BytesIO()
        image.save(out, "WEBP", quality=60, method=4)
        content, kind = out.getvalue(), "webp"
    cut = {"columns": columns, "tile": tile, "high": high, "rows": 0 if apart or not count else rows}  # 0: not known
    return {"uri": _uri(content, kind), "width": image.width, "height": image.height, **cut}


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def seen(directory: Path, names: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """The maps of these learners that lie in a study's folder, each kind's points as one SVG path."""
    found = []
    for name in names:
        if (told := maps.read(maps.place(directory, name, seed))) is not None:
            paths = {kind: "".join(f"M{x} {y}h0" for x, y in own) for kind, own in told["points"].items()}
            shown = sum(map(len, told["points"].values()))
            found.append({"learner": name, **told, "paths": paths, "shown": shown})
    return found


def confusions(records: Sequence[Record], names: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Of each learner, how its last networks take the classes for one another: shares (true x guessed), mean of seeds.

    A class without held-out images has no shares. `pairs`: the classes most often taken for another, with the share.
    """
    found = []
    for name in names:
        tables = [record.confusion for record in records if record.learner == name and record.confusion]
        if not tables or len({len(table) for table in tables}) > 1:
            continue
        counts = np.array(tables, dtype=float)
        rows = (counts / np.maximum(counts.sum(2, keepdims=True), 1)).mean(0)
        k = len(rows)
        wrong = sorted((-rows[i, j], i, j) for i in range(k) for j in range(k) if i != j and rows[i, j] > 0)
        called = list(classes) if len(classes) == k else [str(i) for i in range(k)]
        found.append(
            {
                "learner": name,
                "seeds": len(tables),
                "rows": rows.tolist(),
                "names": called,
                "picture": None if k <= NUMBERED else _picture(rows),
                "pairs": [(called[i], called[j], -share) for share, i, j in wrong[:3]],
            }
        )
    return found


def _picture(rows: NDArray[np.float64]) -> str:
    """A pixel for each pair of classes: blue where right, orange where wrong, the stronger the more often."""
    from PIL import Image

    k = len(rows)
    pixels = np.empty((k, k, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(np.eye(k, dtype=bool)[..., None], (0, 114, 178), (213, 94, 0))
    pixels[..., 3] = (255 * np.sqrt(rows)).round()
    image = Image.fromarray(pixels, "RGBA")
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return _uri(out.getvalue(), "png")


def class_names(directory: Path, records: Sequence[Record], seed: int = 0) -> list[str]:
    """What the classes are called, as a map of the study says; numbers where there is none."""
    for name in dict.fromkeys(record.learner for record in records):
        told: Mapping[str, Any] | None = maps.read(maps.place(directory, name, seed))
        if told is not None and told.get("classes"):
            return [str(called) for called in told["classes"]]
    k = max((len(record.asked_classes or ()) for record in records), default=0)
    return [str(number) for number in range(k)]
