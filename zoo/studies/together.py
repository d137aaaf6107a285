"""What several runs say together: ranks over data sets and seeds, and every learner against random in all of them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

from zoo.studies import critical, measures, statistics
from zoo.studies.curves import Line, lines_of, short
from zoo.studies.drawings import charts, hover
from zoo.studies.files import put
from zoo.studies.measures import BASELINES, Record, Row
from zoo.studies.page import environment
from zoo.studies.statistics import Difference, Ranking, SignedRanks, Verdict
from zoo.studies.words import decimal, extent, percent

MARK = "together.json"  # in the folder: which runs it is about


@dataclass(frozen=True)
class Part:
    """One of the runs. name: its data, and its folder where two have the same. records: of complete seeds."""

    name: str
    directory: Path
    records: list[Record]
    rows: list[Row]
    lines: list[Line]
    against: dict[str, Difference]
    notes: Sequence[str]


@dataclass(frozen=True)
class Standing:
    """One learner in all the runs. rank: None where it is not in all of them. against: random, by the run's name."""

    learner: str
    rank: float | None
    against: dict[str, Difference]
    signs: SignedRanks | None


def folder(directories: Sequence[Path]) -> Path:
    """Where it goes by default: beside the first run; the same runs, the same folder."""
    same = "\n".join(sorted(str(directory.resolve()) for directory in directories))
    return directories[0].resolve().parent / f"together-{blake2b(same.encode(), digest_size=4).hexdigest()}"


def write(directories: Sequence[Path], out: Path | None = None) -> Path:
    """Write report.html, table.md, summary.csv, ranks.csv and the plot of ranks (PNG, SVG) into a folder of their own.

    out: by default `folder(directories)`. The runs themselves are only read.
    Raises FileExistsError for a folder that holds anything but the same report of the same runs.
    """
    out = claimed(directories, folder(directories) if out is None else out)
    parts = read(directories)
    ranking = statistics.ranking([part.records for part in parts])
    standings = compared(parts, ranking)
    put(out / "summary.csv", _summary(parts).encode())
    put(out / "ranks.csv", _ranks(standings).encode())
    put(out / "table.md", _markdown(parts, standings).encode())
    for kind in ("png", "svg"):
        if ranking is None:
            (out / f"ranks.{kind}").unlink(missing_ok=True)  # of an earlier state of these runs
        else:
            put(out / f"ranks.{kind}", critical.plot(ranking, "Mean ranks over data sets and seeds, 1 is best", kind))
    put(out / "report.html", _page(out, parts, ranking, standings).encode())
    return out


def claimed(directories: Sequence[Path], out: Path) -> Path:
    """The folder, marked as this report's. Raises FileExistsError where it holds anything else."""
    mark = json.dumps({"runs": sorted(str(directory.resolve()) for directory in directories)}, indent=1).encode()
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file. Give a folder with --out")
    if (out / MARK).exists():
        if (out / MARK).read_bytes() != mark:
            raise FileExistsError(f"{out} is about other runs (see {out / MARK}). Give another folder with --out")
    elif out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} holds files that are no report of several runs. Give another folder with --out")
    put(out / MARK, mark)
    return out


def read(directories: Sequence[Path]) -> list[Part]:
    """The runs, each learner with one style in all of them."""
    studies = [measures.settings(directory) for directory in directories]
    data = [str(study.get("data", "?")) for study in studies]
    results = [directory / "results.jsonl" for directory in directories]
    each = [measures.read(path) if path.is_file() else [] for path in results]
    order = measures.order([record for records in each for record in records])
    found = []
    for directory, study, called, records in zip(directories, studies, data, each, strict=True):
        asked = measures.asked_for(study)
        whole = measures.whole(records, asked["rounds"])
        found.append(
            Part(
                name=called if data.count(called) == 1 else f"{called} ({directory.resolve().name})",
                directory=directory,
                records=whole,
                rows=measures.summary(records, **asked),
                lines=lines_of(records, order),
                against={row.learner: row for row in statistics.differences(whole)},
                notes=study.get("notes", ()),
            )
        )
    return found


def compared(parts: Sequence[Part], ranking: Ranking | None) -> list[Standing]:
    """Every learner of any run, best mean rank first; those without a rank after, by how far they are ahead."""
    signs = {row.learner: row for row in statistics.signed_ranks([part.records for part in parts])}
    rank = ranking.ranks if ranking else {}
    names = dict.fromkeys(row.learner for part in parts for row in part.rows)
    found = [
        Standing(
            name,
            rank.get(name),
            {part.name: part.against[name] for part in parts if name in part.against},
            signs.get(name),
        )
        for name in names
    ]
    return sorted(found, key=lambda row: (row.rank or math.inf, -row.signs.median if row.signs else math.inf))


def _headline(parts: Sequence[Part], ranking: Ranking | None, standings: Sequence[Standing]) -> list[str]:
    if ranking is None:
        both = len(statistics.shared([part.records for part in parts]))
        return [
            f"These {len(parts)} runs cannot be ranked together: it takes three learners or more that all have "
            f"completed, with two seeds in all. They share {both}."
        ]
    best, k = standings[0], len(ranking.ranks)
    said = [
        f"{short(best.learner)} has the best mean rank: {best.rank:.2f} among {k} learners, over {len(parts)} runs "
        f"with {ranking.blocks} seeds in all."
    ]
    if ranking.p >= statistics.ALPHA:
        said.append(f"The ranks differ no more than chance would have it (Friedman, p = {ranking.p:.2g}).")
    else:
        tied = sum(rank - (best.rank or 0) < ranking.critical for rank in ranking.ranks.values()) - 1
        others = "no other" if not tied else f"{tied} other" + ("s" if tied > 1 else "")
        said.append(
            f"The ranks differ by more than chance (Friedman, p = {ranking.p:.2g}); {others} within the critical "
            f"difference of {ranking.critical:.2f} of it."
        )
    return said


def _page(out: Path, parts: Sequence[Part], ranking: Ranking | None, standings: Sequence[Standing]) -> str:
    styles = {line.learner: line.style for part in parts for line in part.lines}
    return (
        environment()
        .get_template("together.html.jinja")
        .render(
            headline=_headline(parts, ranking, standings),
            parts=[
                {
                    "part": part,
                    "link": os.path.relpath(part.directory / "report.html", out).replace(os.sep, "/"),
                    "charts": charts(part.lines),
                    "labels": extent([record.labels for record in part.records]),
                    "complete": sum(row.seeds for row in part.rows),
                    "planned": sum(row.planned for row in part.rows),
                }
                for part in parts
            ],
            plots=[hover(part.lines) for part in parts],
            styles=styles,
            baselines=BASELINES,
            standings=standings,
            verdicts={row.learner: _counted(row) for row in standings},
            ranking=ranking,
            ranks=[critical.layout(ranking, width) for width in (1000, 420)] if ranking else [],
            shared=len(statistics.shared([part.records for part in parts])),
            margin=statistics.MARGIN,
            rounds=0,
        )
    )


def _counted(standing: Standing) -> dict[str, int]:
    """In how many runs each verdict is said of it."""
    said = Counter(one.verdict for one in standing.against.values())
    return {verdict: said[verdict] for verdict in get_args(Verdict)}


def _summary(parts: Sequence[Part]) -> str:
    columns = ("run", "learner", "seeds", "aubc", "aubc_low", "aubc_high", "gain", "gain_low", "gain_high", "verdict")
    rows = [
        (
            part.name,
            row.learner,
            row.seeds,
            *_bounds(row.aubc),
            *_bounds(row.gain),
            part.against[row.learner].verdict if row.learner in part.against else "",
        )
        for part in parts
        for row in part.rows
    ]
    return _csv(columns, rows)


def _ranks(standings: Sequence[Standing]) -> str:
    columns = ("learner", "mean_rank", "pairs", "median_gain", "wilcoxon_p", "wilcoxon_p_holm")
    rows = []
    for row in standings:
        signs = row.signs
        told = (signs.pairs, *map(decimal, (signs.median, signs.p, signs.adjusted))) if signs else ("", "", "", "")
        rows.append((row.learner, decimal(row.rank), *told))
    return _csv(columns, rows)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue()


def _bounds(interval: measures.Interval | None) -> list[str]:
    return [decimal(value) for value in interval or (None, None, None)]


def _markdown(parts: Sequence[Part], standings: Sequence[Standing]) -> str:
    """The table for a paper: the differences to random in points, with mean ranks and Wilcoxon's test over all runs."""
    heads = ["learner", "mean rank", *(part.name.replace("|", "\\|") for part in parts), "pairs", "p, Wilcoxon, Holm"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in standings:
        gains = [percent(row.against[part.name].t, sign=True) if part.name in row.against else "–" for part in parts]
        rank = "–" if row.rank is None else f"{row.rank:.2f}"
        tested = row.signs is not None and row.signs.adjusted is not None
        p = f"{row.signs.adjusted:.3f}" if tested and row.signs and row.signs.adjusted is not None else "–"
        pairs = str(row.signs.pairs) if row.signs else "–"
        lines.append(f"| {' | '.join([row.learner.replace('|', chr(92) + '|'), rank, *gains, pairs, p])} |")
    return "\n".join([*lines, "", *dict.fromkeys(note for part in parts for note in part.notes)]).strip() + "\n"
