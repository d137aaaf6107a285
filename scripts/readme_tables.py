"""Write the README's tables of figures from the committed files: python scripts/readme_tables.py

    alzoo bench --peers --json scripts/results/bench.json
    alzoo bench queries --growth --json scripts/results/growth.json

Between `<!-- bench -->` and `<!-- /bench -->` of the README stands what the first says, and nothing else; between those
of `growth`, what the second says. A figure is read nowhere else.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from zoo.bench import Figure, Growth, tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "scripts" / "results"


def bench(results: Path) -> str:
    """All figures."""
    file = json.loads((results / "bench.json").read_text())
    return markdown(tables.FIGURES, tables.figures(Figure(**figure) for figure in file["figures"])) + origin(file)


def growth(results: Path) -> str:
    """How the queries grow."""
    file = json.loads((results / "growth.json").read_text())
    return markdown(tables.GROWTH, tables.growth(Growth(**each) for each in file["growth"])) + origin(file)


def origin(file: dict[str, object]) -> str:
    """What it was measured on."""
    versions = file["versions"]
    assert isinstance(versions, dict)
    return f"\n{file['machine']}, torch {versions['torch']}, commit {str(file['commit'])[:7]}.\n"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(text: str, results: Path = RESULTS) -> str:
    """The README with its tables as the files say. Raises ValueError where it has no place for one."""
    for make in (bench, growth):
        name = make.__name__
        text, places = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, make=make: f"{found[1]}{make(results)}{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
        if places != 1:
            raise ValueError(
                f"the README has {places} places for the table {name!r}: <!-- {name} --> to <!-- /{name} -->"
            )
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(written(readme.read_text()))
