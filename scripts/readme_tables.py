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


def written(text: str, results: Path = RESULTS) -> str:
    """The README with its table as the files say. Raises ValueError where it has no place for one."""
    place = re.compile("(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)
    if (places := len(place.findall(text))) != 1:
        raise ValueError(f"the README has {places} places for a table: <!-- bench --> to <!-- /bench -->")
    return place.sub(lambda found: f"{found[1]}{figures(results, required=True)}{found[2]}", text)


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
