"""Write the tables of figures from the committed files: python scripts/readme_tables.py

    alzoo bench queries --peers --json scripts/results/queries.json    # and data, loops, study
    alzoo bench queries --growth --json scripts/results/growth.json
    python scripts/big_pool.py --photos FOLDER                         # and shards.py, for large pools
    python scripts/reference_study.py run                              # and games.py: see evidence.py

`scripts/results/README.md` has all of them. Between `<!-- bench -->` and `<!-- /bench -->` of the README stands the
work of which something is required, and nothing else; between `<!-- scale -->` and `<!-- /scale -->` what a pool larger
than memory takes; between those of `study`, `games` and `published` what the entries are worth. A figure is read
nowhere else.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evidence

from zoo.bench import ROOMS, Figure, Growth, tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "scripts" / "results"
ASIDE = ("list the files again", "ask: entropy", "fit typiclust, width=8, features=task, 300 steps")
MANY, CORES = 10**8, 64  # images, and cores of a host, to reckon with


def figures(results: Path, required: bool = False) -> str:
    """The figures of every file there is, a table each; required: only of work of which something is required."""
    found = []
    for room in ROOMS:
        if (path := results / f"{room}.json").exists():
            file = json.loads(path.read_text())
            own = [Figure(**figure) for figure in file["figures"]]
            asked = {(each.case, each.work) for each in own if not required or each.required or each.within}
            if rows := tables.figures(each for each in own if (each.case, each.work) in asked):
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


def scale(results: Path, brief: bool = False) -> str:
    """What was done with 1,000,000 images in bounded memory, and what a hundred times as many would take.

    brief: without what is only of interest beside the rest.
    """
    file = json.loads((results / "big_pool.json").read_text())
    shards = json.loads((results / "shards.json").read_text())
    rows = [row for piece in file["pieces"] if (row := extrapolated(piece)) and not (brief and row[0] in ASIDE)]
    columns = ("work, one core", "images", "images/s", "MiB at most", "10^8: one core", f"{CORES} cores", "on disk")
    refused = [piece["refused"].partition(". ")[0] for piece in file["pieces"] if "refused" in piece]
    said = f"Refused before they begin: {'; '.join(refused)}." if refused else ""
    lost = {name: " and ".join(f"{value:.3g}" for value in found.values()) for name, found in shards["lost"].items()}
    parts = " and ".join(shards["lost"]["margin"])
    return (
        f"{markdown(columns, rows)}\n{said}\n"
        f"In {parts} shards ({shards['work']}): `margin` misses {lost['margin']} of its images, `kcenter` leaves "
        f"{lost['kcenter']} times the largest distance, `badge` {lost['badge']} times the sum of squared ones.\n"
        f"{origin(file)}"
    )


def extrapolated(piece: dict[str, Any]) -> list[str]:
    """A piece of `big_pool.json`, and what it comes to for 10^8 images; nothing of what was refused."""
    if "refused" in piece or piece["what"] == "decode":
        return []
    what, n, peak = piece["what"], piece["images"], f"{piece['peak_mib']:,}"
    if what == "fit":
        return [f"fit {piece['learner']}, {piece['steps']} steps", f"{n:,}", "", peak, long(piece["seconds"]), "", ""]
    who = piece.get("learner") or piece.get("query")
    name = {"decode real files": "decode JPEG files", "open": "list the files again"}.get(what, f"{what}: {who}")
    seconds = piece["seconds"] * MANY / n
    kept = {"decode real files": [piece.get("bytes", 0) / n, 3 * 32 * 32], "score": [4 * piece.get("d", 0)]}
    disk = " + ".join(f"{each * MANY / 1e9:,.0f} GB" for each in kept.get(what, []))
    rate = f"{n / max(piece['seconds'], 0.01):,.0f}"
    return [name, f"{n:,}", rate, peak, long(seconds), long(seconds / CORES), disk]


def long(seconds: float) -> str:
    """Seconds as minutes, hours or days."""
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.2g} s"


def study(results: Path) -> str:
    """The reference study: a figure and a table of all parts that have been run, then one of each."""
    parts = evidence.parts(results)
    together = markdown(*evidence.overview(parts)) + "\n" if len(parts) > 1 else ""
    return f"![learning curves](scripts/results/reference/curves.svg)\n\n{together}" + "\n".join(
        f"{evidence.about(part)}\n\n{markdown(evidence.STUDY, evidence.study(part))}" for part in parts
    )


def games(results: Path) -> str:
    """The inner games: mean over seeds, and from where to where they go."""
    lines = evidence.read_games(results / "games.jsonl")
    seeds = len({line["seed"] for line in lines})
    return f"{markdown(evidence.GAME, evidence.games(lines))}\n{seeds} seeds. {lines[0]['machine']}.\n"


def published(results: Path) -> str:
    """Published protocols that have been run, each curve beside ours, and what is not as published."""
    runs = evidence.reproduced(results)
    notes = "".join(f"- {note}\n" for _, note in runs)
    return f"{markdown(evidence.PUBLISHED, [row for rows, _ in runs for row in rows])}\nNot as published:\n\n{notes}"


def written(text: str, results: Path = RESULTS) -> str:
    """The README with its tables as the files say. Raises ValueError where it has no place for one."""
    found = {"bench": figures(results, required=True)}
    if (results / "big_pool.json").exists():
        found["scale"] = scale(results, brief=True)
    if evidence.parts(results):
        found["study"] = study(results)
    if (results / "games.jsonl").exists():
        found["games"] = games(results)
    if (results / "published").exists():
        found["published"] = published(results)
    for name, table in found.items():
        place = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(places := list(place.finditer(text))) != 1:
            raise ValueError(f"the README has {len(places)} places for a table: <!-- {name} --> to <!-- /{name} -->")
        text = text[: places[0].end(1)] + table + text[places[0].start(2) :]
    return text


def whole(results: Path = RESULTS) -> str:
    """All figures, on a page of their own."""
    title = "\n## 1,000,000 images within 2 GiB, and what 10^8 would take\n\n"
    large = f"{title}{scale(results)}" if (results / "big_pool.json").exists() else ""
    return (
        "# Figures\n\nWritten by `python scripts/readme_tables.py` from the files beside it; do not edit.\n\n"
        f"## The bench\n\n{figures(results)}\n## How queries grow with the pool\n\nSeconds by the number of "
        f"unlabeled images, their features on a memory map.\n\n{growth(results)}{large}"
    )


if __name__ == "__main__":
    (RESULTS / "reference" / "curves.svg").write_bytes(evidence.figure(evidence.parts(RESULTS)))
    readme = ROOT / "README.md"
    readme.write_text(written(readme.read_text()))
    (RESULTS / "README.md").write_text(whole())
