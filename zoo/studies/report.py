"""Rebuild the table, the plot and the page of a run from its study.toml and results.jsonl, finished or not.

Nothing is remembered between calls and nothing is fetched: the page is one file that works offline.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.studies import critical, events, measures, reproduce, statistics
from zoo.studies.curves import lines_of, plot
from zoo.studies.files import put
from zoo.studies.gains import gain_split
from zoo.studies.measures import Interval, Record, Row
from zoo.studies.page import page
from zoo.studies.words import decimal, percent, seconds

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    *("learner", "aubc", "aubc_low", "aubc_high", "final", "final_low", "final_high", "seeds", "seeds_planned"),
    *("gain", "gain_low", "gain_high", "gain_seeds", "fit_seconds", "select_seconds", "peak_bytes"),
    *("log_aubc", "log_aubc_low", "log_aubc_high"),
)


def write(directory: Path) -> None:
    """Rebuild summary.csv, table.md, curves and ranks (PNG and SVG) and report.html from study.toml and results.jsonl.

    TensorBoard's files are made again where there are none. Ranks take three learners and two seeds that are complete.
    """
    directory = Path(directory)
    study = measures.settings(directory)
    results = directory / "results.jsonl"
    records = measures.read(results) if results.is_file() else []
    rows = measures.summary(records, **measures.asked_for(study))
    lines = lines_of(records, study.get("learners"))
    shown, data, notes = [*lines, *reproduce.lines(study, lines)], str(study.get("data", "?")), study.get("notes", ())
    whole = measures.whole(records, measures.asked_for(study)["rounds"])
    ranking = statistics.ranking([whole])
    tables = (_markdown(whole, rows), _gains(records, study.get("rounds")), _beside(study, records))
    put(directory / "summary.csv", _csv(rows, " ".join(notes)).encode())
    put(directory / "curves.png", plot(shown, data, notes=notes))
    put(directory / "curves.svg", plot(shown, data, "svg", notes))
    if ranking is not None:
        title = f"Mean ranks over seeds on {data}, 1 is best"
        put(directory / "ranks.png", critical.plot(ranking, title))
        put(directory / "ranks.svg", critical.plot(ranking, title, "svg"))
    put(directory / "table.md", "\n".join([*(part for part in tables if part), *notes]).encode())
    put(directory / "report.html", page(directory, study, records, rows, lines).encode())
    events.write(directory, records)


def table(
    records: Sequence[Record],
    learners: Sequence[str] | None = None,
    rounds: int | None = None,
    seeds: int | None = None,
) -> Table:
    """The summary for the terminal: accuracies in percent, +- half of their 95 % interval, best AUBC first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = measures.summary(records, learners, rounds, seeds)
    caption = "AUBC: mean accuracy over the labels, in percent. ±: half of the 95 % interval over seeds."
    grid = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("learner", overflow="fold", min_width=min(20, max((len(row.learner) for row in rows), default=0)))
    for head in ("seeds", "AUBC", "final", "to random", "fit s", "ask s"):
        grid.add_column(head, justify="right")
    for row in sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else math.inf):
        cells = [
            f"{row.seeds}/{row.planned}",
            percent(row.aubc),
            percent(row.final),
            percent(row.gain, sign=True),
            seconds(row.fit_seconds),
            seconds(row.select_seconds),
        ]
        grid.add_row(Text(row.learner), *cells)
    return grid


def _csv(rows: Sequence[Row], notes: str) -> str:
    """The summary; what is to be noted has a column of its own, the last one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*COLUMNS, *(("notes",) if notes else ())))
    for row in rows:
        writer.writerow(
            [
                row.learner,
                *_bounds(row.aubc),
                *_bounds(row.final),
                row.seeds,
                row.planned,
                *_bounds(row.gain),
                row.gain_seeds,
                decimal(row.fit_seconds),
                decimal(row.select_seconds),
                "" if row.peak_bytes is None else row.peak_bytes,
                *_bounds(row.log_aubc),
                *((notes,) if notes else ()),
            ]
        )
    return out.getvalue()


def _markdown(records: Sequence[Record], rows: Sequence[Row]) -> str:
    """The table for a paper: one row a learner, best AUBC first."""
    verdicts = {row.learner: row.verdict for row in statistics.differences(records)}
    lines = [
        "| learner | seeds | AUBC, % | log AUBC, % | final, % | to random, points | verdict | fit, s | select, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row.aubc[0] if row.aubc else math.inf):
        cells = [
            row.learner.replace("|", "\\|"),
            f"{row.seeds}/{row.planned}",
            percent(row.aubc),
            percent(row.log_aubc),
            percent(row.final),
            percent(row.gain, sign=True),
            verdicts.get(row.learner, "–"),
            seconds(row.fit_seconds),
            seconds(row.select_seconds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _gains(records: Sequence[Record], rounds: int | None) -> str:
    """The table of what gains come from; empty where no control was run."""
    splits = [split for split in gain_split(records, rounds) if split.own and (split.training or split.elsewhere)]
    lines = [
        "| learner | seeds | gain, points | by training | by questions | questions elsewhere |",
        "|---|---|---|---|---|---|",
    ]
    for split in splits:
        parts = (split.gain, split.training, split.questions, split.elsewhere)
        cells = [split.learner.replace("|", "\\|"), str(split.seeds), *(percent(part, sign=True) for part in parts)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if splits else ""


def _beside(study: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The table of published numbers beside ours; empty where nothing was published."""
    lines = [
        "| published | ours | labels | published, % | ours, % | read | source |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = reproduce.beside(study, records)
    for row in rows:
        about = row.published
        for labels, value, ours in row.numbers:
            cells = (about.name, about.learner or "not run", str(labels), f"{100 * value:.2f}", percent(ours))
            lines.append(f"| {' | '.join((*cells, about.read, about.source))} |")
    return "\n".join(lines) + "\n" if rows else ""


def comparison(study: Mapping[str, Any], records: Sequence[Record]) -> Table:
    """The published numbers beside ours, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    caption = "Accuracy in percent; ours: mean of the seeds that got there, ±: half of the 95 % interval."
    grid = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    for head in ("published", "ours", "read"):
        grid.add_column(head, overflow="fold")
    for head in ("labels", "published, %", "ours, %"):
        grid.add_column(head, justify="right", no_wrap=True)
    for row in reproduce.beside(study, records):
        for labels, value, ours in row.numbers:
            words = (row.published.name, row.published.learner or "not run", row.published.read)
            grid.add_row(*map(Text, words), str(labels), f"{100 * value:.2f}", percent(ours))
    return grid


def _bounds(interval: Interval | None) -> list[str]:
    return [decimal(value) for value in interval or (None, None, None)]
