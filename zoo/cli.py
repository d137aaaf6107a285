"""The `alzoo` command. Refusals are one line on stderr and status 2; torch is imported where it is needed."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Generative and adversarial active learning, next to the query-only strategies.",
)


class Kind(StrEnum):
    entries = "entries"
    queries = "queries"
    weights = "weights"
    data = "data"


class Engine(StrEnum):
    local = "local"


@app.command("list")
def list_(kind: Annotated[Kind | None, typer.Argument(help="One kind only.")] = None) -> None:
    """What there is: entries, queries, weights, data sets."""
    from zoo import catalogue, datasets

    show: dict[Kind, tuple[str, tuple[str, ...], Sequence[Sequence[object]]]] = {
        Kind.entries: (
            "Entries: a method with its own training loop",
            ("name", "what", "plans", "paper"),
            [(e.name, doc(e.build.__module__), ", ".join(e.plans), e.paper) for e in catalogue.entries().values()],
        ),
        Kind.queries: (
            "Queries: by themselves on plain training, or on any entry as ENTRY+QUERY",
            ("name", "what", "time", "needs", "paper"),
            [(q.name, first(q.ask.__doc__), q.cost, ", ".join(q.needs), q.paper) for q in catalogue.queries().values()],
        ),
        Kind.weights: (
            "Weights" if catalogue.weights() else "Weights: none are published yet",
            ("name", "file", "bytes"),
            [(w.name, w.file, f"{w.bytes:,}") for w in catalogue.weights()],
        ),
        Kind.data: (
            "Data",
            ("name", "what", "images", "shape", "classes", "where from"),
            [(s.name, s.what, s.images, s.shape, s.classes, s.where) for s in datasets.describe()],
        ),
    }
    for each, (title, columns, rows) in show.items():
        if kind in (None, each):
            Console().print(table(title, columns, rows))


Learners = Annotated[str | None, typer.Option(help="Names, as vaal,margin,vaal+entropy. [default: all, and baselines]")]
Initial = Annotated[int | None, typer.Option(help="Labels at the start. [default: 1 % of the pool, 4 a class or more]")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="NAME.key=value: a setting of a learner; *: of all.")]


@app.command()
def compare(  # noqa: PLR0917 (each is an option of the command line)
    data: Annotated[str, typer.Argument(help="A data set by name, or folder:PATH. `alzoo list data` shows them.")],
    learners: Learners = None,
    initial: Initial = None,
    budget: Annotated[int | None, typer.Option(help="Labels asked in a round. [default: as --initial]")] = None,
    rounds: Annotated[int, typer.Option(help="How often is asked.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each learner; from two on there are intervals.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for results. [default: alzoo-runs/DATA-HASH]")] = None,
    plan: Annotated[str, typer.Option(help="ours, paper or released.")] = "ours",
    setting: Setting = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="As many initial labels of each class.")] = False,
    root: Annotated[str | None, typer.Option(help="Folder of the torchvision data sets.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of a side, where images differ or are too large.")] = None,
    test_share: Annotated[float | None, typer.Option(help="Share held out of a folder without test/.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:NUMBER.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or auto.")] = "32-true",
    engine: Annotated[Engine, typer.Option(help="Where it runs.")] = Engine.local,  # noqa: ARG001
    workers: Annotated[int | None, typer.Option(help="Processes. [default: one a core; one on a GPU]")] = None,
) -> None:
    """Let learners compete for the same labels, and write results, curves and a report. The same command goes on."""
    with refusals():
        from zoo.studies import engine as local
        from zoo.studies import measures, report
        from zoo.studies.study import Study, prepare

        study = prepare(
            Study(
                data=data,
                learners=tuple(learners.split(",")) if learners else default_learners(),
                initial=initial,
                budget=budget,
                rounds=rounds,
                seeds=seeds,
                balanced=balanced,
                plan=plan,
                root=root,
                size=size,
                test_share=test_share,
                device=device,
                precision=precision,
                settings=settings(setting or [], learners.split(",") if learners else default_learners()),
            )
        )
        out = study.folder() if out is None else out
        with local.claimed(study, out):
            pass
    with refusals(Diverged=True):
        local.run(study, out, workers=workers, console=Console(stderr=True))
    report.write(out)
    Console().print(report.table(measures.read(out / "results.jsonl"), study.learners, study.rounds, study.seeds))
    Console().print(f"report: {out / 'report.html'}", soft_wrap=True)


@app.command("report")
def report_(directories: Annotated[list[Path], typer.Argument(help="Folders that `alzoo compare` wrote.")]) -> None:
    """Rebuild tables, curves and page from any finished or half-finished run."""
    with refusals():
        from zoo.studies import report

        for directory in directories:
            report.write(directory)
            Console().print(f"report: {directory / 'report.html'}", soft_wrap=True)


def main() -> None:
    """The console command."""
    app()


def default_learners() -> tuple[str, ...]:
    """All entries that ask in their own way, then the baselines that there are."""
    from zoo.catalogue import names

    return (*(name for name in names("entries") if name != "plain"), *(b for b in BASELINES if b in names("queries")))


BASELINES = ("random", "margin", "badge")


def settings(given: list[str], learners: tuple[str, ...] | list[str]) -> dict[str, dict[str, Any]]:
    """`NAME.key=value` lines as one table per learner; values are read as TOML, or else as words."""
    from zoo.naming import hint

    tables: dict[str, dict[str, Any]] = {}
    for line in given:
        path, equals, text = line.partition("=")
        name, dot, key = path.rpartition(".")
        if not equals or not dot:
            raise ValueError(f"--set {line!r} is not of the form NAME.key=value")
        if name != "*" and name not in learners:
            raise ValueError(f"--set {line!r}: {name!r} is not among the learners.{hint(name, learners)}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        for learner in learners if name == "*" else (name,):
            tables.setdefault(learner, {})[key] = value
    return tables


@contextmanager
def refusals(**also: bool) -> Iterator[None]:
    """Errors of the user's input as one line on stderr and status 2."""
    from zoo.naming import UnknownName

    kinds: tuple[type[Exception], ...] = (UnknownName, ValueError, TypeError, OSError)
    if also:
        from trainers.run import Diverged

        kinds = (Diverged,)
    try:
        yield
    except kinds as error:
        sys.stderr.write(f"alzoo: {' '.join(str(error).split())}\n")
        raise typer.Exit(2) from None


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    grid = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*("" if value is None else str(value) for value in row))
    return grid


def doc(module: str) -> str:
    """The first line of a module's docstring."""
    return first(sys.modules[module].__doc__)


def first(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
