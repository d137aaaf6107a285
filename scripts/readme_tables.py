"""Write the tables of figures from the committed files: python scripts/readme_tables.py

    alzoo bench queries --peers --json scripts/results/queries.json    # and data, loops, study
    alzoo bench queries --growth --json scripts/results/growth.json

`scripts/results/README.md` has all of them. Between `<!-- bench -->` and `<!-- /bench -->` of the README stands the
work of which something is required, and nothing else. A figure is read nowhere else.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.bench import ROOMS, Figure, Growth, tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "scripts" / "results"
MANY = 10**8  # images


def figures(results: Path, required: bool = False) -> str:
    """The figures of every file there is, a table each; required: only of work of which something is required."""
    found = []
    for room in ROOMS:
        if (path := results / f"{room}.json").exists():
            file = json.loads(path.read_text())
            own = [Figure(**figure) for figure in file["figures"]]
            asked = {(each.case, each.work) for each in own if not required or each.required or each.within}
            rows = tables.figures(each for each in own if (each.case, each.work) in asked)
            found.append(markdown(tables.FIGURES, rows) + origin(file))
    return "\n".join(found)


def growth(results: Path) -> str:
    """How the queries grow."""
    file = json.loads((results / "growth.json").read_text())
    return markdown(tables.GROWTH, tables.growth(Growth(**each) for each in file["growth"])) + origin(file)


def origin(file: dict[str, Any]) -> str:
    """What it was measured on."""
    return f"\n{file['machine']}, torch {file['versions']['torch']}, commit {str(file['commit'])[:7]}.\n"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def scale(results: Path) -> str:
    """What was done with 1,000,000 images in bounded memory, and what a hundred times as many would take."""
    file = json.loads((results / "big_pool.json").read_text())
    shards = json.loads((results / "shards.json").read_text())
    rows = [row for piece in file["pieces"] if (row := extrapolated(piece))]
    columns = ("work, one core", "images", "images/s", "MiB at most", "10^8: one core", "64 cores", "on disk")
    refused = [piece for piece in file["pieces"] if "refused" in piece]
    said = "".join(f"\nRefused before it began: {piece['refused']}\n" for piece in refused)
    lost = "; ".join(
        f"{name} {', '.join(f'{value:g} by {m}' for m, value in found.items())}"
        for name, found in shards["lost"].items()
    )
    return f"{markdown(columns, rows)}{said}\nLost by shards ({shards['work']}): {lost}.\n{origin(file)}"


def extrapolated(piece: dict[str, Any]) -> list[str]:
    """A piece of `big_pool.json`, and what it comes to for 10^8 images; nothing where it does not grow with them."""
    if "images" not in piece or "seconds" not in piece or piece["what"] == "decode":
        return []
    what, n = piece["what"], piece["images"]
    who = piece.get("learner") or piece.get("query") or "files"
    name = {"decode real files": "decode JPEG files", "open": "list an opened folder"}.get(what, f"{what}: {who}")
    seconds = piece["seconds"] * MANY / n
    kept = {"decode real files": [piece.get("bytes", 0) / n, 3 * 32 * 32], "score": [4 * piece.get("d", 0)]}
    gigabytes = " + ".join(f"{each * MANY / 1e9:,.0f} GB" for each in kept.get(what, []))
    rate = f"{n / max(piece['seconds'], 0.01):,.0f}"
    return [name, f"{n:,}", rate, f"{piece['peak_mib']:,}", long(seconds), long(seconds / 64), gigabytes]


def long(seconds: float) -> str:
    """Seconds as minutes, hours or days."""
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.2g} s"


def written(text: str, results: Path = RESULTS) -> str:
    """The README with its tables as the files say. Raises ValueError where it has no place for one."""
    found = {"bench": figures(results, required=True)}
    if (results / "big_pool.json").exists():
        found["scale"] = scale(results)
    for name, table in found.items():
        place = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(places := list(place.finditer(text))) != 1:
            raise ValueError(f"the README has {len(places)} places for a table: <!-- {name} --> to <!-- /{name} -->")
        text = text[: places[0].end(1)] + table + text[places[0].start(2) :]
    return text


def whole(results: Path = RESULTS) -> str:
    """All figures, on a page of their own."""
    return (
        "# Figures\n\nWritten by `python scripts/readme_tables.py` from the files beside it; do not edit.\n\n"
        f"## The bench\n\n{figures(results)}\n## How queries grow with the pool\n\nSeconds by the number of "
        f"unlabeled images, their features on a memory map.\n\n{growth(results)}"
    )


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(written(readme.read_text()))
    (RESULTS / "README.md").write_text(whole())
